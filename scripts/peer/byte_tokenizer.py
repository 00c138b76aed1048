#!/usr/bin/env python3
"""Writes pkg/tokenizer/testdata/huggingface.json: the ids that the Hugging Face
package tokenizers (pip install tokenizers==0.23.3) gives for a tokenizer.json
that the byte-level vocabulary has saved.

    mkdir -p /tmp/bytes
    go test ./pkg/tokenizer -run TestSaveAndLoad -count=1 -save /tmp/bytes
    python3 scripts/peer/byte_tokenizer.py /tmp/bytes > pkg/tokenizer/testdata/huggingface.json
"""
import json
import pathlib
import sys

import tokenizers

path = pathlib.Path(sys.argv[1]) / "tokenizer.json"
tokenizer = tokenizers.Tokenizer.from_file(str(path))

texts = [
    "",
    " ",
    "Hello, world!",
    "  two  blanks,\ta tab\r\nand lines\n\n\n",
    "it's 12345 o'clock: don't",
    "func main() {\n\tfmt.Println(\"hi\")\n}\n",
    "naïve café, Straße, ŁÓDŹ",
    "日本語のテキスト、中文，한국어",
    "العربية ‏من اليمين",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪",
    "\x00\x01\x1f\x7f",
    "<s> </ s> [MAS K] < /s>",
    "".join(chr(c) for c in range(0x100)),
    "ﷺ\u2581\u200b\ufeff\U0010ffff",
]
out = []
for text in texts:
    ids = tokenizer.encode(text, add_special_tokens=True).ids
    # What stands in the text as "<s>" is one special token for Hugging Face and
    # three bytes for us, so it is compared with the special tokens off.
    if 256 in ids:
        tokenizer.encode_special_tokens = True
        ids = tokenizer.encode(text).ids
        tokenizer.encode_special_tokens = False
    assert tokenizer.decode(ids, skip_special_tokens=False) == text, text
    out.append({"text": text, "ids": ids})
special = {s: tokenizer.token_to_id(s) for s in ("<s>", "</s>", "[MASK]")}
assert tokenizer.get_vocab_size() == 259

print(json.dumps({
    "package": "tokenizers " + tokenizers.__version__,
    "tokenizer": json.loads(path.read_text()),
    "texts": out,
    "special": special,
}, ensure_ascii=True))
