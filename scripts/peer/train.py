#!/usr/bin/env python3
"""PyTorch's side of `meap bench train`: the same model and the same optimiser step, as someone who trains with PyTorch would write it.

    python scripts/peer/train.py --layers 12 --heads 12 --kv-heads 2 --dim 768 --ffn 2048 --vocab 32064 \\
        --seq 512 --micro-batch 2 --steps 8 --dtype bf16 --threads 2 --compile

A step is what pretraining does: masked inputs, forward, backward, clipping at norm 1, AdamW. Its ids are random; drawing them is not
timed. One line of JSON goes to standard output, with the fields of `meap bench train --json`: tokens_per_s is that of the median
step, best_tokens_per_s that of the fastest, peak_bytes the largest resident set (on a GPU, the most memory allocated there), and
model_tflops counts 6 operations per token and weight (without the input embedding) and the half of attention's products that is
causal.
"""
import argparse
import contextlib
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, dim, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.sizes = [dim, kv_heads * self.head_dim, kv_heads * self.head_dim]
        self.qkv = nn.Linear(dim, sum(self.sizes), bias=False)  # one product instead of three
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x, cos, sin):
        def split(t, heads):
            return t.unflatten(-1, (heads, self.head_dim)).transpose(1, 2)  # [batch, heads, seq, head_dim]

        q, k, v = self.qkv(x).split(self.sizes, -1)
        q, k, v = rotate(split(q, self.heads), cos, sin), rotate(split(k, self.kv_heads), cos, sin), split(v, self.kv_heads)
        grouped = self.kv_heads != self.heads
        if grouped and x.device.type == "cpu":  # the tiled attention for processors wants as many kv heads as heads
            group, grouped = self.heads // self.kv_heads, False
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        return self.out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, dim, ffn):
        super().__init__()
        self.gate_up = nn.Linear(dim, 2 * ffn, bias=False)
        self.down = nn.Linear(ffn, dim, bias=False)

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, dim, heads, kv_heads, ffn):
        super().__init__()
        self.attn_norm, self.attn = nn.RMSNorm(dim, eps=1e-5), Attention(dim, heads, kv_heads)
        self.ffn_norm, self.ffn = nn.RMSNorm(dim, eps=1e-5), FeedForward(dim, ffn)

    def forward(self, x, cos, sin):
        x = x + self.attn(self.attn_norm(x), cos, sin)
        return x + self.ffn(self.ffn_norm(x))


class Llama(nn.Module):
    def __init__(self, vocab, layers, dim, heads, kv_heads, ffn, seq):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.blocks = nn.ModuleList(Block(dim, heads, kv_heads, ffn) for _ in range(layers))
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        self.head = nn.Linear(dim, vocab, bias=False)
        half = dim // heads // 2
        angle = torch.outer(torch.arange(seq), 10000.0 ** (-torch.arange(half) / half))
        self.register_buffer("cos", angle.cos())  # [seq, head_dim/2]
        self.register_buffer("sin", angle.sin())
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=(2 / (5 * dim)) ** 0.5)

    def forward(self, ids, labels):
        """ids and labels [batch, seq] -> mean negative log-likelihood"""
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1).float(), labels.flatten())


def rotate(x, cos, sin):
    """RoPE in the rotate-half form; x [batch, heads, seq, head_dim]"""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def batch(a, ids, mask_id):
    """Random rows, a share of whose inputs is masked; the last input of a row never is."""
    tokens = torch.randint(0, ids, (a.micro_batch, a.seq + 1))
    inputs, labels = tokens[:, :-1].clone(), tokens[:, 1:].contiguous()
    masked = min(a.seq - 1, max(1, int(a.seq * a.mask_ratio))) if a.mask_ratio > 0 else 0
    for row in inputs:
        row[torch.randperm(a.seq - 1)[:masked]] = mask_id
    return inputs.to(a.device), labels.to(a.device)


def peak_bytes(device):
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def timer(kind):
    """Starts a clock; calling what it returns waits for the work and gives the seconds. On a GPU they are counted there, by events."""
    if kind != "cuda":
        start = time.perf_counter()
        return lambda: time.perf_counter() - start
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()

    def stop():
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return stop


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, about in (
            ("layers", 12, "Transformer blocks"), ("heads", 12, "query heads"), ("kv-heads", 2, "key and value heads"),
            ("dim", 768, "hidden size"), ("ffn", 2048, "inner size of SwiGLU"), ("vocab", 32064, "rows of embedding and head"),
            ("seq", 512, "tokens of a row"), ("micro-batch", 2, "rows computed at a time"),
            ("accumulate", 1, "micro-batches per step"), ("steps", 8, "steps that are timed"), ("warmup", 2, "steps before those"),
            ("threads", 0, "threads (0: PyTorch's choice)"), ("seed", 3407, "seed of weights and ids")):
        p.add_argument("--" + name, type=int, default=default, help=f"{about} ({default})")
    p.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast, over fp32 weights (fp32)")
    p.add_argument("--device", default="cpu", help="cpu or cuda[:N] (cpu)")
    p.add_argument("--compile", action="store_true", help="torch.compile the model")
    p.add_argument("--mask-ratio", type=float, default=0.15, help="share of the inputs that is masked (0.15)")
    a = p.parse_args()
    if a.dim % a.heads or a.heads % a.kv_heads:
        p.error("--heads must divide --dim, and --kv-heads must divide --heads")
    return a


def main():
    a = arguments()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    kind = torch.device(a.device).type
    if kind == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as trainers on these GPUs do
    model = Llama(a.vocab, a.layers, a.dim, a.heads, a.kv_heads, a.ffn, a.seq).to(a.device)
    params = sum(p.numel() for p in model.parameters())
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    forward = torch.compile(model) if a.compile else model
    ids = max(1, a.vocab - 64)  # the ids beyond are [MASK] and padding

    seconds, losses = [], []
    for step in range(a.warmup + a.steps):
        batches = [batch(a, ids, min(ids, a.vocab - 1)) for _ in range(a.accumulate)]
        stop = timer(kind)
        total = 0.0
        for inputs, labels in batches:
            with torch.autocast(kind, torch.bfloat16) if a.dtype == "bf16" else contextlib.nullcontext():
                loss = forward(inputs, labels) / a.accumulate
            loss.backward()
            total = total + loss.detach()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        spent = stop()
        if step >= a.warmup:
            seconds.append(spent)
            losses.append(float(total))

    tokens, median = a.micro_batch * a.accumulate * a.seq, statistics.median(seconds)
    flops = 6 * (params - a.vocab * a.dim) + 6 * a.layers * a.dim * a.seq  # per token
    print(json.dumps(dict(
        system="pytorch " + torch.__version__, dtype=a.dtype, device=a.device, compile=a.compile, params=params, tokens_per_step=tokens,
        ms_per_step=median * 1e3, tokens_per_s=tokens / median, best_tokens_per_s=tokens / min(seconds), seq=a.seq,
        micro_batch=a.micro_batch, model_tflops=flops * tokens / median / 1e12, peak_bytes=peak_bytes(a.device), first_loss=losses[0],
        last_loss=losses[-1])))


if __name__ == "__main__":
    main()
