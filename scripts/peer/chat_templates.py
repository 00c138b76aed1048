#!/usr/bin/env python3
"""Makes pkg/dataset/dialogue/testdata/chat_templates.json: what Hugging Face transformers renders with the chat templates that are
built into meap and those in testdata/templates, which use what templates of well-known models use.

    python scripts/peer/chat_templates.py > pkg/dataset/dialogue/testdata/chat_templates.json
"""
import json
import pathlib
import sys

import jinja2
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template

PACKAGE = pathlib.Path(__file__).parents[2] / "pkg/dataset/dialogue"
BOS, EOS = "<s>", "</s>"


def say(role, content):
    return dict(role=role, content=content)


DIALOGUES = {
    "one turn": [say("user", "Hello."), say("assistant", "Hi!")],
    "two turns": [say("user", "What is 2 + 2?"), say("assistant", "4"), say("user", "And 3 + 3?"), say("assistant", "6.")],
    "system": [say("system", "  Be brief.\n"), say("user", " Who?\n"), say("assistant", "\n  Me. \n")],
    "prompt": [say("user", "Only a question")],
    "scripts": [say("user", "Größe «»  <b>&amp;</b> 'quoted' \"twice\" 你好 👩‍👩‍👧\t|"), say("assistant", "\u3000 ünï\u00a0\n\n")],
    "thought": [say("user", "a"), say("assistant", "<think>\nwhy\n</think>\n\nb"), say("user", "c"),
                say("assistant", "<think>x</think>\n\nd")],
    "unanswered": [say("user", "a"), say("user", "b"), say("assistant", "c")],
    "with input": [say("user", "Add them.\n\n1 and 2") | dict(instruction="Add them.", input="1 and 2"), say("assistant", "3")],
}


def main():
    cases = []
    for file in sorted([*PACKAGE.glob("templates/*.jinja"), *PACKAGE.glob("testdata/templates/*.jinja")]):
        template = _compile_jinja_template(file.read_text())
        for name, messages in DIALOGUES.items():
            for generation_prompt in (False, True):
                case = dict(template=str(file.relative_to(PACKAGE)), dialogue=name, messages=messages,
                            add_generation_prompt=generation_prompt, bos_token=BOS, eos_token=EOS)
                try:
                    case["text"] = template.render(messages=messages, add_generation_prompt=generation_prompt, bos_token=BOS, eos_token=EOS)
                except jinja2.exceptions.TemplateError as e:
                    case["error"] = str(e)
                cases.append(case)
    json.dump(dict(made_by="scripts/peer/chat_templates.py", transformers=transformers.__version__, jinja2=jinja2.__version__, cases=cases),
              sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
