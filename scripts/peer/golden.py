#!/usr/bin/env python3
"""Makes pkg/trainer/testdata/golden.json: the losses of tiny training runs in PyTorch, from the initial weights and the masked
batches that meap's own test wrote down.

    go test ./pkg/trainer -run TestGolden -count=1 -export /tmp/golden
    python scripts/peer/golden.py /tmp/golden > pkg/trainer/testdata/golden.json

Each subfolder of the folder holds a run:

    config.json, model.safetensors   the untrained model, as Hugging Face's tools read it
    training.json                    schedule and optimiser
    batches.jsonl                    one micro-batch per line: step, inputs, labels, positions, starts, each micro_batch x seq ids

The model is written in plain tensor operations, with attention as a full matrix of scores, so that it shares no shortcut with what
it is compared to; optimiser, clipping and cross-entropy are PyTorch's. Every run is made in fp32 and in fp64: the second says how
much of a difference is rounding.
"""
import hashlib
import json
import math
import pathlib
import platform
import sys

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F


def rms_norm(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def rope(x, positions, base):
    """Rotates x [batch, seq, heads, head_dim]; element i of a head's first half pairs with element i of the second."""
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, dtype=torch.float64) * 2 / x.shape[-1])
    angle = positions.double()[:, :, None, None] * frequency  # [batch, seq, 1, half]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def attention(q, k, v, starts):
    """q [batch, seq, heads, head_dim], k and v [batch, seq, kv_heads, head_dim]; query i sees the keys starts[i] to i."""
    seq, group = q.shape[1], q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    index = torch.arange(seq)
    seen = (index[None, None, :] <= index[None, :, None]) & (index[None, None, :] >= starts[:, :, None])  # [batch, query, key]
    scores = scores.masked_fill(~seen[:, None], -math.inf)
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


def logits(w, config, ids, positions, starts):
    """ids [batch, seq] -> [batch, seq, vocab]"""
    eps, base, head_dim = config["rms_norm_eps"], config["rope_theta"], config["head_dim"]
    batch, seq = ids.shape
    x = w["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."

        def linear(x, name):
            return F.linear(x, w[prefix + name + ".weight"], w.get(prefix + name + ".bias"))

        h = rms_norm(x, w[prefix + "input_layernorm.weight"], eps)
        q = linear(h, "self_attn.q_proj").view(batch, seq, -1, head_dim)
        k = linear(h, "self_attn.k_proj").view(batch, seq, -1, head_dim)
        v = linear(h, "self_attn.v_proj").view(batch, seq, -1, head_dim)
        mixed = attention(rope(q, positions, base), rope(k, positions, base), v, starts)
        x = x + linear(mixed.reshape(batch, seq, -1), "self_attn.o_proj")
        h = rms_norm(x, w[prefix + "post_attention_layernorm.weight"], eps)
        gate = linear(h, "mlp.gate_proj")
        x = x + linear(gate * torch.sigmoid(gate) * linear(h, "mlp.up_proj"), "mlp.down_proj")
    head = w["model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"]
    return F.linear(rms_norm(x, w["model.norm.weight"], eps), head)


def learning_rate(s, step):
    """Linear warm-up, then a cosine that ends at step s["steps"]; steps count from 1."""
    peak, low = s["learning_rate"], s["min_learning_rate"]
    if step <= s["warmup"]:
        return peak * step / s["warmup"]
    done = (step - s["warmup"]) / (s["steps"] - s["warmup"])
    return low + (peak - low) * (1 + math.cos(math.pi * done)) / 2


def train(folder, dtype):
    """Trains the run in a folder; returns losses and gradient norms (before clipping), one per step."""
    config = json.loads((folder / "config.json").read_text())
    s = json.loads((folder / "training.json").read_text())
    w = {name: t.to(dtype).requires_grad_() for name, t in safetensors.torch.load_file(folder / "model.safetensors").items()}
    steps = {}
    for batch in read_batches(folder):
        steps.setdefault(batch["step"], []).append(
            [torch.tensor(batch[k]).view(s["micro_batch"], s["seq"]) for k in ("inputs", "labels", "positions", "starts")])
    if sorted(steps) != list(range(1, s["steps"] + 1)) or any(len(b) != s["accumulate"] for b in steps.values()):
        sys.exit(f"{folder}: batches.jsonl does not hold {s['accumulate']} micro-batches for each of {s['steps']} steps")
    optimiser = torch.optim.AdamW(w.values(), betas=(s["beta1"], s["beta2"]), eps=s["epsilon"], weight_decay=s["weight_decay"],
                                  foreach=False, fused=False)
    out = dict(labelled=[], learning_rate=[], loss=[], grad_norm=[])
    for step, batches in steps.items():
        labelled = sum(int((labels >= 0).sum()) for _, labels, _, _ in batches)
        total = 0.0
        for inputs, labels, positions, starts in batches:
            out_logits = logits(w, config, inputs, positions, starts)
            loss = F.cross_entropy(out_logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum") / labelled
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(w.values(), s["clip"])
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(s, step)
        optimiser.step()
        optimiser.zero_grad()
        for key, value in zip(out, (labelled, learning_rate(s, step), total, norm.item())):
            out[key].append(value)
    return out


def read_batches(folder):
    with open(folder / "batches.jsonl") as lines:
        return [json.loads(line) for line in lines]


def fingerprints(folder):
    """What meap's test recognises weights and batches by."""
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    digest = hashlib.sha256()
    for batch in read_batches(folder):
        for key in ("inputs", "labels", "positions", "starts"):
            digest.update(np.array(batch[key], "<i4").tobytes())
    return dict(weights_abs_sum=math.fsum(float(t.double().abs().sum()) for t in weights.values()), batches_sha256=digest.hexdigest())


def main():
    if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    torch.set_num_threads(1)  # one order of sums
    torch.use_deterministic_algorithms(True)
    cases = {}
    for folder in sorted(p.parent for p in pathlib.Path(sys.argv[1]).glob("*/batches.jsonl")):
        single, double = train(folder, torch.float32), train(folder, torch.float64)
        cases[folder.name] = fingerprints(folder) | single | dict(loss_float64=double["loss"], grad_norm_float64=double["grad_norm"])
        print(f"{folder.name}: loss {single['loss'][0]:.4f} -> {single['loss'][-1]:.4f}, norm {min(single['grad_norm']):.3f} to "
              f"{max(single['grad_norm']):.3f}; fp32 and fp64 differ by at most "
              f"{max(abs(a - b) for a, b in zip(single['loss'], double['loss'])):.1e}", file=sys.stderr)
    if not cases:
        sys.exit(f"{sys.argv[1]} holds no run; write one with: go test ./pkg/trainer -run TestGolden -count=1 -export {sys.argv[1]}")
    json.dump(dict(made_by="scripts/peer/golden.py", python=platform.python_version(), torch=torch.__version__, numpy=np.__version__,
                   safetensors=safetensors.__version__, cases=cases), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
