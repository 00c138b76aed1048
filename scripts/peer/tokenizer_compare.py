#!/usr/bin/env python3
"""Compares meap's token ids with those of the Hugging Face package tokenizers.

    pip install tokenizers==0.23.3
    go build -o meap ./cmd/meap
    python3 scripts/peer/tokenizer_compare.py ./meap TOKENIZER_DIR [TEXT_FILE ...]

Besides the files it compares random texts, a long run of every kind and a text
of 10 MB, decodes what was encoded, and tells the number of differing ids.
"""
import json
import pathlib
import random
import subprocess
import sys

import tokenizers

meap, folder, files = sys.argv[1], sys.argv[2], sys.argv[3:]
peer = tokenizers.Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))


def run(verb, data):
    done = subprocess.run([meap, "tokenizer", verb, "--tokenizer", folder, "--json"], input=data, capture_output=True)
    if done.returncode:
        sys.exit(done.stderr.decode())
    return json.loads(done.stdout)


texts = {}
for name in files:
    texts[name] = pathlib.Path(name).read_bytes().decode("utf-8", "replace")
r = random.Random(7)
ranges = [(0x20, 0x7E)] * 8 + [(0, 0x1F), (0xA0, 0x17F), (0x300, 0x36F), (0x400, 0x4FF), (0x600, 0x6FF), (0x900, 0x97F), (0x1100, 0x11FF),
          (0x2000, 0x206F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFE00, 0xFE0F), (0x1F300, 0x1FAFF), (0x20, 0x20), (0x0A, 0x0A)]
for i in range(20):
    texts["random %d" % i] = "".join(
        chr(r.randint(*r.choice(ranges))) if r.random() < 0.7 else r.choice([" ", "\n", "  ", "the ", "ing", "'s", "\r\n", "12", "[MASK]", "\u200d"])
        for _ in range(30000))
texts["blanks"] = " " * 100000 + "x" + "\n" * 100000 + "\t \n" * 30000
texts["one letter"] = "a" * 200000
texts["letters"] = "".join(r.choice("etaoinshrdlu") for _ in range(200000))
texts["family"] = "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 " * 5000
texts["no blanks, 10 MB"] = "".join(r.choice(["word", "Wort", "слово", "词", "1", "_"]) for _ in range(2_300_000))
texts["empty"] = ""

differing = total = 0
for name, text in texts.items():
    ours = run("encode", text.encode())["ids"]
    theirs = peer.encode(text, add_special_tokens=False).ids
    wrong = sum(a != b for a, b in zip(ours, theirs)) + abs(len(ours) - len(theirs))
    differing += wrong
    total += len(theirs)
    back = run("decode", json.dumps({"ids": ours}).encode())["text"]
    note = "" if back == text else " (decodes to another text)"
    print("%-40s %9d bytes %9d ids %6d differ%s" % (name[-40:], len(text.encode()), len(theirs), wrong, note), flush=True)
print("%d of %d ids differ" % (differing, total))
sys.exit(differing != 0)
