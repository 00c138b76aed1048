#!/usr/bin/env python3
"""Makes pkg/dataset/dialogue/testdata/golden_sft.json: the losses of tiny fine-tuning runs in PyTorch, from the initial weights, the
dialogues and the masked positions that meap's own test wrote down.

    go test ./pkg/dataset/dialogue -run TestGolden -count=1 -export /tmp/golden-sft
    python scripts/peer/golden_sft.py /tmp/golden-sft > pkg/dataset/dialogue/testdata/golden_sft.json

Each subfolder holds a run: config.json and model.safetensors, training.json (schedule, optimiser, sft.copies, sft.concat_visible),
and examples.jsonl with one dialogue of one step per line: its tokens, its answers (a token after each ends it) and, where it has a
second copy, the positions that are masked in it.

The objective is built here from these alone, the way fine-tuning with transformers builds it: every copy is a sequence of its own,
not packed with others and not padded; labels stand under the tokens that they are, -100 under all others, and the model's output is
shifted against them. Model, schedule and optimiser are those of golden.py.
"""
import hashlib
import json
import pathlib
import platform
import sys

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F

from golden import learning_rate, logits

IGNORE = -100


def copies(example, mask_id):
    """The two copies of an example: (input ids, labels), both [tokens]; the second is None where nothing is masked."""
    ids = torch.tensor(example["ids"])
    answers = torch.full_like(ids, IGNORE)
    for start, end in example["answers"]:
        answers[start:end + 1] = ids[start:end + 1]
    if not example["masked"]:
        return (ids, answers), None
    at = torch.tensor(example["masked"])
    masked, hidden = ids.clone(), torch.full_like(ids, IGNORE)
    masked[at], hidden[at] = mask_id, ids[at]
    return (ids, answers), (masked, hidden)


def sequences(examples, s):
    """The sequences of a step: (ids, labels, positions, starts), each [1, tokens]."""
    for example in examples:
        a, b = copies(example, s["mask_id"])
        if b is None or not s["concat"]:
            for ids, labels in filter(None, (a, b)):
                yield ids[None], labels[None], torch.arange(len(ids))[None], torch.zeros(1, len(ids), dtype=torch.long)
            continue
        n = len(a[0])
        positions, starts = torch.arange(2 * n), torch.zeros(2 * n, dtype=torch.long)
        if not s["concat_visible"]:
            positions[n:] -= n
            starts[n:] = n
        yield torch.cat((a[0], b[0]))[None], torch.cat((a[1], b[1]))[None], positions[None], starts[None]


def train(folder, dtype):
    """Trains the run in a folder; returns losses and gradient norms (before clipping), one per step."""
    config = json.loads((folder / "config.json").read_text())
    s = json.loads((folder / "training.json").read_text())
    w = {name: t.to(dtype).requires_grad_() for name, t in safetensors.torch.load_file(folder / "model.safetensors").items()}
    steps = {}
    for example in read_examples(folder):
        steps.setdefault(example["step"], []).append(example)
    optimiser = torch.optim.AdamW(w.values(), betas=(s["beta1"], s["beta2"]), eps=s["epsilon"], weight_decay=s["weight_decay"],
                                  foreach=False, fused=False)
    out = dict(labelled=[], loss=[], grad_norm=[])
    for step in range(1, s["steps"] + 1):
        batch = list(sequences(steps[step], s))
        labelled = sum(int((labels[:, 1:] != IGNORE).sum()) for _, labels, _, _ in batch)
        total = 0.0
        for ids, labels, positions, starts in batch:
            shifted = logits(w, config, ids, positions, starts)[0, :-1]
            loss = F.cross_entropy(shifted, labels[0, 1:], ignore_index=IGNORE, reduction="sum") / labelled
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(w.values(), s["clip"])
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(s, step)
        optimiser.step()
        optimiser.zero_grad()
        for key, value in zip(out, (labelled, total, norm.item())):
            out[key].append(value)
    return out


def read_examples(folder):
    with open(folder / "examples.jsonl") as lines:
        return [json.loads(line) for line in lines]


def digest(folder):
    """What meap's test recognises the examples by."""
    h = hashlib.sha256()
    for e in read_examples(folder):
        for ids in ([e["step"]], e["ids"], sum(e["answers"], []), e["masked"]):
            h.update(np.array(ids, "<i4").tobytes())
    return h.hexdigest()


def main():
    if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    torch.set_num_threads(1)  # one order of sums
    torch.use_deterministic_algorithms(True)
    cases = {}
    for folder in sorted(p.parent for p in pathlib.Path(sys.argv[1]).glob("*/examples.jsonl")):
        single, double = train(folder, torch.float32), train(folder, torch.float64)
        cases[folder.name] = dict(examples_sha256=digest(folder)) | single | dict(loss_float64=double["loss"])
        print(f"{folder.name}: loss {single['loss'][0]:.4f} -> {single['loss'][-1]:.4f}; fp32 and fp64 differ by at most "
              f"{max(abs(a - b) for a, b in zip(single['loss'], double['loss'])):.1e}", file=sys.stderr)
    if not cases:
        sys.exit(f"{sys.argv[1]} holds no run; write one with: go test ./pkg/dataset/dialogue -run TestGolden -count=1 -export {sys.argv[1]}")
    json.dump(dict(made_by="scripts/peer/golden_sft.py", python=platform.python_version(), torch=torch.__version__, cases=cases),
              sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
