#!/usr/bin/env python3
"""Compares meap's token ids with those of the Hugging Face package tokenizers.

    pip install tokenizers==0.23.3
    go build -o meap ./cmd/meap
    python3 scripts/peer/tokenizer_compare.py ./meap --text FILE_OR_FOLDER --tokenizer FOLDER

One command does all families: the expressions of GPT-2, Llama-3 and Qwen with
the vocabularies of GPT-2 and cl100k (of the Go module that the tests use), a
vocabulary that `meap tokenizer train` learns from the texts, and every folder
named by --tokenizer, which may be repeated (Llama-2's, say). --only names some.

Each encodes prose, code, Chinese, Arabic and other scripts, emoji with joiners,
blanks, control characters, the empty text, random characters, pieces of all of
these cut and changed at random, 10 MB in one text with blanks and without, and
the files and folders named by --text. Ids are compared one by one, and what
meap decodes its ids to with the text or, where a normalizer changes that, with
what Hugging Face decodes them to. The last line counts ids and differences; the
exit code is 1 if there is one.
"""
import argparse
import base64
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
LARGE = 10 << 20

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("meap")
arguments.add_argument("--text", action="append", default=[], help="a file or folder; may be repeated")
arguments.add_argument("--tokenizer", action="append", default=[], help="a folder with a tokenizer.json; may be repeated")
arguments.add_argument("--only", help="names of families, separated by commas")
options = arguments.parse_args()

PROSE = """The old ferry left the harbour at seven, as it did every morning, and nobody on board was surprised
when the fog came down. It's what the fog does; they'd seen it before, hadn't they? "We'll wait," said the captain, who
had waited for 31 years. By 1987 he had crossed the strait 12,345 times -- or 12346, if one counts the night of the storm.
"""
CHINESE = """船在早上七点离开港口，和每天一样。雾降下来的时候，船上没有人感到惊讶。“我们等着，”船长说，他已经等了三十一年。到1987年，
他一共横渡海峡12345次——如果算上暴风雨的那一夜，就是12346次。旅客们有的在看书，有的在睡觉，有的望着灰色的海水。孩子问：“为什么要等？”
因為那裏有礁石，因為海水很冷；也因為渡輪舊了，而我們有的是時間。𠮷野家𡈽㐀々〇
"""
ARABIC = """غادرت العبّارة الميناء في السابعة صباحًا كعادتها كل يوم، ولم يتفاجأ أحد عندما نزل الضباب. قال القبطان: «سننتظر»، وهو الذي انتظر
٣١ عامًا. وبحلول عام ١٩٨٧ كان قد عبر المضيق ١٢٬٣٤٥ مرة. سأل طفل: لماذا ننتظر؟ لأن الصخور هناك، ولأن الماء بارد. بِسْمِ ٱللّٰهِ ـــ ﷺ لا لأ
"""
OTHERS = """Паром отошёл в семь. Туман никого не удивил. Το πλοίο έφυγε στις επτά. המעבורת יצאה בשבע. नाव सुबह सात बजे निकली। क्षि
フェリーは七時に港を出た。霧が降りても誰も驚かなかった。ｶﾀｶﾅ 페리는 일곱 시에 떠났다. 각 เรือออกจากท่าตอนเจ็ดโมงเช้า ಹಡಗು ਜਹਾਜ਼ ნავი նավը
naïve café, Straße, ŁÓDŹ, e\u0301 vs é, A\u030a Å ﬁne ½ ² Ⅷ ǅ ỹ̃ Z̷̢͝a̵l̴g̸o̷ İstanbul ıI ſ K
"""
EMOJI = "👩\u200d👩\u200d👧\u200d👦 went 🏳️\u200d🌈 by 🚢, 👍🏽👍🏿! 🇩🇪🇫🇷 ❤️\u200d🔥 👨🏾\u200d🦽\u200d➡️ 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f 1️⃣ ☺︎"


def all_texts():
    """The texts by name, small ones first."""
    r = random.Random(7)
    source = sorted(pathlib.Path("pkg/tokenizer").glob("*.go")) + [pathlib.Path(__file__)]
    real = {"prose": PROSE, "Chinese": CHINESE, "Arabic": ARABIC, "other scripts": OTHERS, "emoji with joiners": EMOJI,
            "code": "".join(p.read_text(encoding="utf-8") for p in source)}
    for name in options.text:
        path = pathlib.Path(name)
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        real[name] = "\n".join(p.read_bytes().decode("utf-8", "replace") for p in files)
    texts = {"empty": ""} | real
    texts["emoji, repeated"] = EMOJI * 2000
    texts["control characters"] = "".join(chr(c) for c in [*range(0x20), 0x7F, *range(0x80, 0xA0), *range(0x2000, 0x2070), 0xAD, 0xFEFF, 0xFFF9, 0xFFFD]) * 50
    texts["every character"] = "".join(chr(c) for c in range(0x30000) if not 0xD800 <= c < 0xE000)
    texts["blanks"] = " " * 100000 + "x" + "\n" * 100000 + "\t \n" * 30000 + "\u00a0\u3000 " * 9000
    for i in range(1, 40):
        texts["blanks"] += "x" + " " * i + "y" + "\n" * i + " " * i
    texts["one letter"] = "a" * 200000
    texts["letters"] = "".join(r.choice("etaoinshrdlu") for _ in range(200000))
    ranges = [(0x20, 0x7E)] * 8 + [(0, 0x1F), (0xA0, 0x17F), (0x300, 0x36F), (0x400, 0x4FF), (0x600, 0x6FF), (0x900, 0x97F), (0x1100, 0x11FF),
              (0x2000, 0x206F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFE00, 0xFE0F), (0x1F300, 0x1FAFF), (0x20, 0x20), (0x0A, 0x0A)]
    for i in range(5):
        texts["random %d" % i] = "".join(
            chr(r.randint(*r.choice(ranges))) if r.random() < 0.7 else r.choice([" ", "\n", "  ", "the ", "ing", "'s", "\r\n", "12", "[MASK]", "\u200d"])
            for _ in range(60000))
    for i in range(10):
        texts["fuzzed %d" % i] = fuzzed(r, list(real.values()))
    words = "".join(real.values())
    texts["prose, 10 MB"] = repeated("".join(real[n] for n in options.text) or PROSE)
    texts["all, 10 MB"] = repeated(words)
    texts["no blanks, 10 MB"] = repeated("".join(r.choice(["word", "Wort", "слово", "词", "1", "_"]) for _ in range(1_000_000)))
    return texts


def repeated(text):
    """text, as often as 10 MB of UTF-8 hold it."""
    return (text * (LARGE // len(text.encode()) + 1)).encode()[:LARGE].decode("utf-8", "ignore")


def fuzzed(r, texts):
    """Pieces of texts, with characters changed, left out, doubled and moved."""
    out = []
    while sum(map(len, out)) < 60000:
        text = r.choice(texts)
        start = r.randrange(len(text))
        piece = list(text[start:start + r.randrange(1, 400)])
        for _ in range(r.randrange(len(piece) // 4 + 1)):
            at = r.randrange(len(piece))
            kind = r.randrange(5)
            if kind == 0:
                piece[at] = chr(r.randrange(0xD800))
            elif kind == 1:
                piece[at] = ""
            elif kind == 2:
                piece[at] *= r.choice([2, 3, 30])
            elif kind == 3:
                other = r.randrange(len(piece))
                piece[at], piece[other] = piece[other], piece[at]
            else:
                piece[at] = r.choice(["</s>", "<s>", "[MASK]", "\u2581", " ", "\n", "'", "\u200d", "\u0301", "\x00"])
        out.append("".join(piece))
    return "".join(out)


def tiktoken(encoding, expression, normalizer=None, **model):
    """The tokenizer.json that tiktoken's ranks and an expression make: the pair
    that makes a token is what its bytes are in the vocabulary of lower ranks."""
    module = subprocess.run(["go", "list", "-m", "-f", "{{.Dir}}", "github.com/pkoukk/tiktoken-go-loader"], capture_output=True, text=True, check=True)
    lines = (pathlib.Path(module.stdout.strip()) / "assets" / (encoding + ".tiktoken")).read_text().split("\n")
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    # Bytes as the visible characters that stand for them, in GPT-2's way.
    shown = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or 0xAE <= b]
    table = {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in shown)}
    visible = lambda token: "".join(table[b] for b in token)
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [token[i:i + 1] for i in range(len(token))]
        while len(parts) > 1:
            best, at = min((ranks.get(parts[i] + parts[i + 1], rank), i) for i in range(len(parts) - 1))
            if best >= rank:
                break
            parts[at:at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            merges.append((visible(parts[0]), visible(parts[1])))
    t = Tokenizer(models.BPE(vocab={visible(token): rank for token, rank in ranks.items()}, merges=merges, **model))
    if normalizer:
        t.normalizer = normalizer
    if expression:
        t.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(expression), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False), AddedToken("[MASK]", special=True, normalized=False)])
    return t


def learnt(folder, texts):
    """Learns a vocabulary with meap, of the texts that are small."""
    source = pathlib.Path(folder) / "text"
    source.mkdir(parents=True)
    for i, text in enumerate(t for n, t in texts.items() if len(t) < 4 << 20 and not n.startswith("random")):
        (source / ("%d.txt" % i)).write_bytes(text.encode())
    subprocess.run([options.meap, "tokenizer", "train", "--vocab-size", "8192", "--output", folder, str(source)], check=True, capture_output=True)


def run(folder, verb, data):
    done = subprocess.run([options.meap, "tokenizer", verb, "--tokenizer", folder, "--json"], input=data, capture_output=True)
    if done.returncode:
        sys.exit(done.stderr.decode())
    return json.loads(done.stdout)


def compare(folder, texts):
    """Returns how many ids were compared, how many differ, and how many texts
    did not come back."""
    peer = Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
    total = differing = lost = 0
    for name, text in texts.items():
        ours = run(folder, "encode", text.encode())["ids"]
        start = time.process_time()
        theirs = peer.encode(text, add_special_tokens=False).ids
        taken = time.process_time() - start
        wrong = sum(a != b for a, b in zip(ours, theirs)) + abs(len(ours) - len(theirs))
        back = run(folder, "decode", json.dumps({"ids": ours}).encode())["text"]
        note = ""
        # A normalizer changes texts, as does Llama-2's, which puts a blank after every added token; so does Hugging Face.
        if back != (peer.decode(theirs, skip_special_tokens=False) if peer.normalizer else text):
            lost += 1
            note = " DECODES TO ANOTHER TEXT"
        print("  %-40s %9d bytes %9d ids %6d differ  (Hugging Face: %.1f s)%s" % (name[-40:], len(text.encode()), len(theirs), wrong, taken, note), flush=True)
        total, differing = total + len(theirs), differing + wrong
    return total, differing, lost


def main():
    texts = all_texts()
    work = tempfile.TemporaryDirectory()
    families = {
        "gpt2": lambda: tiktoken("r50k_base", None),
        "llama3": lambda: tiktoken("cl100k_base", LLAMA3, ignore_merges=True),
        "qwen": lambda: tiktoken("cl100k_base", QWEN, normalizers.NFC()),
        "learnt": None,
    } | {folder: None for folder in options.tokenizer}
    sums = [0, 0, 0]
    print("tokenizers %s" % tokenizers.__version__)
    for name, make in families.items():
        if options.only and name not in options.only.split(","):
            continue
        folder = name
        if make or name == "learnt":
            folder = str(pathlib.Path(work.name) / name)
            pathlib.Path(folder).mkdir()
            if make:
                make().save(str(pathlib.Path(folder) / "tokenizer.json"))
            else:
                learnt(folder, texts)
        print(name, flush=True)
        counts = compare(folder, texts)
        print("%s: %d of %d ids differ, %d texts did not come back" % (name, counts[1], counts[0], counts[2]), flush=True)
        sums = [a + b for a, b in zip(sums, counts)]
    print("%d of %d ids differ, %d texts did not come back" % (sums[1], sums[0], sums[2]))
    sys.exit(sums[1] + sums[2] != 0)


main()
