#!/usr/bin/env python3
"""Makes pkg/dataset/dialogue/testdata/chat_templates.json: what Hugging Face transformers renders with the chat templates that are
built into meap and those in testdata/templates, which use what templates of well-known models use; and, with a folder that holds
Llama 2's tokenizer with [MASK], the ids of what it renders.

    python scripts/peer/chat_templates.py ../shared/tokenizers/llama2-mask > pkg/dataset/dialogue/testdata/chat_templates.json
"""
import json
import pathlib
import sys

import jinja2
import tokenizers
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
    if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
    cases = []
    for file in sorted([*PACKAGE.glob("templates/*.jinja"), *PACKAGE.glob("testdata/templates/*.jinja")]):
        template = _compile_jinja_template(file.read_text())
        for name, messages in DIALOGUES.items():
            for generation_prompt in (False, True):
                case = dict(template=str(file.relative_to(PACKAGE)), dialogue=name, messages=messages,
                            add_generation_prompt=generation_prompt, bos_token=BOS, eos_token=EOS)
                try:
                    case["text"] = template.render(messages=messages, add_generation_prompt=generation_prompt, bos_token=BOS, eos_token=EOS)
                    case["llama2_ids"] = tokenizer.encode(case["text"], add_special_tokens=False).ids
                except jinja2.exceptions.TemplateError as e:
                    case["error"] = str(e)
                cases.append(case)
    made_by = dict(made_by="scripts/peer/chat_templates.py", transformers=transformers.__version__, tokenizers=tokenizers.__version__,
                   jinja2=jinja2.__version__)
    print(json.dumps(made_by)[:-1] + ', "cases": [')
    print(",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "]}")


if __name__ == "__main__":
    main()
