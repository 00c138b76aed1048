#!/usr/bin/env python3
"""Writes pkg/masking/testdata/cpython.json: mask positions as the reference
MEAP code draws them, from CPython's own random module.

    python3 scripts/masking-vectors.py > pkg/masking/testdata/cpython.json
"""
import json
import random
import sys

vectors = []
for seq in (2, 3, 8, 23, 128, 1000, 4096):
    for ratio in (0.01, 0.05, 0.10, 0.15, 0.20, 0.5):
        for step in (0, 1, 7, 50, 51, 1906):
            n = min(seq - 1, max(1, int(seq * ratio)))
            if seq == 4096 and (n > 700 or step not in (0, 51, 1906)):
                continue  # keeps the file small
            random.seed(50 + step % 51)
            positions = sorted(random.sample(range(0, seq - 1), n))
            vectors.append({"seq": seq, "ratio": ratio, "step": step, "positions": positions})

# All positions at once, and runs of the generator across its 624-word blocks.
words = []
for seed in (50, 75, 100):
    random.seed(seed)
    drawn = [random.getrandbits(32) for _ in range(2000)]
    words.append({"seed": seed, "first": drawn[:5], "last": drawn[-5:], "count": len(drawn)})
every = []
for population in (1, 2, 7, 127):
    random.seed(63)
    every.append({"population": population, "positions": sorted(random.sample(range(population), population))})

lines = [json.dumps(v, separators=(",", ":")) for v in vectors]
print('{"python": %s,' % json.dumps(sys.version.split()[0]))
print('"words": %s,' % json.dumps(words, separators=(",", ":")))
print('"every": %s,' % json.dumps(every, separators=(",", ":")))
print('"samples": [\n' + ",\n".join(lines) + "\n]}")
