#!/usr/bin/env python3
"""Writes pkg/tokenizer/testdata/hf/*.json: ids and texts by the Hugging Face
package tokenizers, for tokenizers of every supported kind.

    pip install tokenizers==0.23.3
    python3 scripts/peer/tokenizer_goldens.py pkg/tokenizer/testdata/hf [LLAMA2_DIR]

The vocabularies are small and learnt here from the texts below. Each file holds
{"tokenizer": tokenizer.json, "cases": [[text, ids, decoded], ...]}; for the
vocabulary of LLAMA2_DIR (a folder with its tokenizer.json), which is too large
to be committed, "tokenizer" is null. train.json holds what BpeTrainer learns,
for `meap tokenizer train`; ../forms.json texts in Unicode's normalisation forms,
as [text, NFC, NFD, NFKC, NFKD].
"""
import json
import pathlib
import random
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, __version__, decoders, models, normalizers, pre_tokenizers, trainers

assert __version__ == "0.23.3", __version__
out = pathlib.Path(sys.argv[1])

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

PROSE = """The old ferry left the harbour at seven, as it did every morning, and nobody on board was surprised
when the fog came down. It's what the fog does; they'd seen it before, hadn't they? "We'll wait," said the captain, who
had waited for 31 years. By 1987 he had crossed the strait 12,345 times -- or 12346, if one counts the night of the storm.
He didn't count it. The passengers were reading, sleeping, or looking at the grey water. A child asked: "Why do we wait?"
Because the rocks are there, and because the water is cold; because the ferry is old, and because we have the time.
"""
CODE = """package main

import (
\t"fmt"
\t"strings"
)

// reverse returns s with its characters in the other order.
func reverse(s string) string {
\tvar b strings.Builder
\tfor i := len(s) - 1; i >= 0; i-- {
\t\tb.WriteByte(s[i])
\t}
\treturn b.String()
}

func main() {
    if x := 0x1F; x != 31 && !(x > 1e3) {
        fmt.Printf("%d items\\n", x) // never
    }
}
"""
CHINESE = "船在早上七点离开港口。雾来的时候，没有人感到惊讶。我们等着，船长说，他已经等了三十一年。日本語のテキストもあります。한국어 문장도 있다。"
ARABIC = "غادرت العبّارة الميناء في السابعة صباحًا، ولم يتفاجأ أحد عندما نزل الضباب. ١٢٣٤ مرة."
EMOJI = "👩‍👩‍👧‍👦 went 🏳️‍🌈 by 🚢, 👍🏽👍🏿! 🇩🇪🇫🇷 ❤️‍🔥"
ACCENTS = "naïve café, Straße, ŁÓDŹ, e\u0301 vs é, Å vs A\u030a vs Å, ﬁne ﬀ, ½ ² Ⅷ, ǅ, क्षि, 각 vs 각"

TEXTS = [
    "", " ", "  ", "a", " a", "a ", "  a  ", "\n", "\n\n", " \n", "\n ", "\t", "\r\n", "Hello, world!", "Hello  world   !",
    PROSE, CODE, CHINESE, ARABIC, EMOJI, ACCENTS,
    "one" + " " * 40 + "two" + " " * 3 + "\n" * 5 + "three" + "\t" * 9 + " four \n \n five",
    "it's I'M you'RE we'Ve they'LL he'D don'T ''s 'a x' ' 'ſ a'ſb O'Neil's",
    "".join(chr(c) for c in range(0x180)),
    "\x00\x01\x02\x1b[0m\x7f\x80\x9f\xad\u200b\u200d\u2060\ufeff\ufffd\uffff\U0010ffff",
    "\u00a0x\u2003y\u3000z\u2028w\u0085v \u00a0 \u1680\u202f\u205f",
    "a" * 300, "ab" * 150, "aab" * 100, " " * 70, "\n" * 70, "▁▁ ▁a ▁ b▁", "x\u2581y", "...!!!???---___***", "1234567890 12 3 ٣٤٥ ²½ Ⅷ一",
    "<s> </s> [MASK] <mask> <s></s>[MASK][MASK]", "a[MASK]b [MASK] c[MASK]", "  [MASK]  ", "<0x0A> <0x41>", "<unk>",
    "word<w>word <w> <w>, x<w> <w>x é<w> <w>_ <w><w>", "left <l>right <l> x  \n<l>y", "a<r>  b <r>\n\nc<r>", "a <b> <b>  c  <b>", "N\u0303OTE ÑOTE note",
    "a\u0301\u0327\u0316 b\u0327\u0301", "e" + "\u0301\u0327" * 25 + "x", "\u0301start", "ᄀ" + "ᅡ" + "ᆨ" + "\u0301",
    "\U00011380\U0001138b \u1c89\ua7cb \U00010d40\U00010d41\U0001ccf0 \U0002ebf0 \U00016d70",
]
_r = random.Random(20250101)
_ALPHABET = [chr(c) for c in range(32, 127)] + list(" " * 40 + "\n\n\n\n\t\r'''''ſ\u00a0\u3000\u2028éàßñÉ①½٣三百船雾的他们ابتث👩🏽\u200d\u0301\u0327\u2581\ufeff\x00\x85")
_WORDS = PROSE.split() + CODE.split() + ["[MASK]", "</s>", "<w>", "<l>", "<r>", "<b>", "NOTE", "'s", "'RE", "\n", "\r\n", "  "]
for _ in range(40):
    TEXTS.append("".join(_r.choice(_ALPHABET) for _ in range(_r.randrange(1, 50))))
for _ in range(25):
    TEXTS.append(_r.choice(["", " "]).join(_r.choice(_WORDS) for _ in range(_r.randrange(1, 12))))
CORPUS = [PROSE, CODE, CHINESE, ARABIC, EMOJI, ACCENTS, "  ".join(_WORDS), "a" * 40, " " * 40]
SPECIAL = ["<s>", "</s>", "[MASK]"]


def byte_level(pre, normalizer=None, vocab=420, **model):
    t = Tokenizer(models.BPE(**model))
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=SPECIAL, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


def sequence(*parts):
    return pre_tokenizers.Sequence(list(parts))


def split(rx, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(rx), behavior, invert)


PLAIN = dict(add_prefix_space=False, use_regex=False)


def characters(normalizer, pre, decoder, fallback=True, vocab=450, unk="<unk>", **model):
    t = Tokenizer(models.BPE(unk_token=unk, byte_fallback=fallback, fuse_unk=True, **model))
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    bytes_ = ["<0x%02X>" % b for b in range(256)] if fallback else []
    t.train_from_iterator(CORPUS[:2] + [CORPUS[5]], trainers.BpeTrainer(
        vocab_size=vocab + len(bytes_), special_tokens=["<unk>", "<s>", "</s>"] + bytes_, show_progress=False, limit_alphabet=80))
    if decoder:
        t.decoder = decoder
    d = json.loads(t.to_str())
    # The byte tokens are part of the vocabulary, and no added tokens.
    d["added_tokens"] = [a for a in d["added_tokens"] if not a["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(d))


def added(t):
    """Adds tokens with every flag."""
    t.add_special_tokens([AddedToken("[MASK]", normalized=False, special=True)])
    t.add_tokens([
        AddedToken("<w>", single_word=True, normalized=False), AddedToken("<l>", lstrip=True, normalized=False),
        AddedToken("<r>", rstrip=True, normalized=False), AddedToken("<b>", lstrip=True, rstrip=True, normalized=False),
        AddedToken("ÑOTE", normalized=True), AddedToken("<w><w>", normalized=False), AddedToken("ferry old", normalized=True),
    ])
    return t


def llama_decoder():
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


def llama_normalizer():
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def gemma():
    return characters(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"),
                      decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))


def metaspace(scheme, split=True):
    return characters(None, pre_tokenizers.Metaspace("▁", scheme, split),
                      decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", scheme, split)]))


kinds = {
    "gpt2": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2-prefix": added(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))),
    "llama3": byte_level(sequence(split(LLAMA3), pre_tokenizers.ByteLevel(**PLAIN)), ignore_merges=True),
    "llama3-removed": byte_level(sequence(split(LLAMA3, "removed", True), pre_tokenizers.ByteLevel(**PLAIN))),
    "qwen": added(byte_level(sequence(split(QWEN), pre_tokenizers.ByteLevel(**PLAIN)), normalizers.NFC())),
    "nfd": added(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFD())),
    "nfkc": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Sequence([normalizers.NFKC()])),
    "nfkd": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFKD()),
    "digits": byte_level(sequence(pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False))),
    "digit-groups": byte_level(sequence(pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=True))),
    "no-regex": byte_level(pre_tokenizers.ByteLevel(**PLAIN)),
    "llama2-like": added(characters(llama_normalizer(), None, llama_decoder())),
    "gemma-like": added(gemma()),
    "metaspace-always": added(metaspace("always")),
    "metaspace-first": added(metaspace("first")),
    "metaspace-never": added(metaspace("never")),
    "metaspace-whole": metaspace("first", False),
    "unknown": characters(llama_normalizer(), None, llama_decoder(), fallback=False),
    "dropped": characters(llama_normalizer(), None, llama_decoder(), fallback=False, unk=None),
}
for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
    for invert in (False, True):
        kinds["split-%s%s" % (behavior, "-invert" if invert else "")] = byte_level(
            sequence(pre_tokenizers.Split("e", behavior, invert), pre_tokenizers.ByteLevel(**PLAIN)), vocab=300)
lone = json.loads(kinds["unknown"].to_str())
lone["model"]["fuse_unk"] = False
kinds["unknown-unfused"] = Tokenizer.from_str(json.dumps(lone))


def cases(t, texts):
    return [[s, ids, t.decode(ids, skip_special_tokens=False)] for s in texts for ids in [t.encode(s, add_special_tokens=False).ids]]


def write(name, content):
    (out / (name + ".json")).write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


for name, t in kinds.items():
    d = json.loads(t.to_str())
    short = name.startswith("split-") or name in ("nfd", "nfkd", "llama3-removed", "digit-groups", "unknown-unfused")
    write(name, {"tokenizer": d, "cases": cases(t, TEXTS[::3] if name.startswith("split-") else TEXTS if not short else TEXTS[::2] + TEXTS[-4:])})
write("texts", TEXTS)

# The normalisation forms of random text made of the characters that combine or decompose.
_marks = [chr(c) for c in range(0x80, 0x30000) if not 0xD800 <= c < 0xE000 and (
    unicodedata.decomposition(chr(c)) or unicodedata.combining(chr(c)) or 0x1100 <= c < 0x1200)] + list(
    "aeo 각힣\u0958\u0915\u093c\u09c7\u09be\u0344\U00011935\U00011930\u1dfb\u0345") * 60
_forms = [normalizers.NFC(), normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD()]
_random = ["".join(_r.choice(_marks) for _ in range(_r.randrange(1, 14))) for _ in range(700)]
(out.parent / "forms.json").write_text(json.dumps([[s] + [f.normalize_str(s) for f in _forms] for s in _random], separators=(",", ":")) + "\n")
if len(sys.argv) > 2:
    t = Tokenizer.from_file(str(pathlib.Path(sys.argv[2]) / "tokenizer.json"))
    write("llama2", {"tokenizer": None, "cases": cases(t, TEXTS)})

t = byte_level(sequence(split(LLAMA3), pre_tokenizers.ByteLevel(**PLAIN)), vocab=700)
write("train", {"corpus": CORPUS, "vocab_size": 700, "merges": json.loads(t.to_str())["model"]["merges"]})
