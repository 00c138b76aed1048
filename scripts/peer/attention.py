#!/usr/bin/env python3
"""Times the attention kernels for Hopper on a GPU of compute capability 9.0, and PyTorch's beside them.

    python scripts/peer/attention.py                        for 16 rows of 4096 tokens, 12 heads, 2 kv heads
    python scripts/peer/attention.py --rows 8 --heads 32

The kernels are loaded from csrc/hopper.ptx by the driver, without meap; before they are timed, their results for two small batches, one of
them of several documents a row, are compared with attention in fp32. Times are medians, on the GPU's clock. TFLOP/s count what one pass over
the causal half takes: 2 T^2 d for a head and a row forward, 5 T^2 d for its gradient.
"""
import argparse
import ctypes
import pathlib
import statistics
import struct

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

PTX = pathlib.Path(__file__).resolve().parents[2] / "pkg/graph/cuda/csrc/hopper.ptx"
DIM, SPAN = 64, 64  # of a head; queries that MEAP_SPAN puts together
# Tiles and bytes of shared memory of csrc/args.h: MEAP_*_TILE_SM90, MEAP_*_SHARED_SM90. A block has 2 tile + 128 threads.
FORWARD, GRAD_Q, GRAD_KV = (192, 131200), (128, 131200), (128, 135296)


class Kernel:
    """A kernel of a module that takes one struct."""

    def __init__(self, driver, module, name, tile, shared):
        self.driver, self.tile, self.shared, self.function = driver, tile, shared, ctypes.c_void_p()
        check(driver, driver.cuModuleGetFunction(ctypes.byref(self.function), module, name.encode()))
        check(driver, driver.cuFuncSetAttribute(self.function, 8, shared))  # MAX_DYNAMIC_SHARED_SIZE_BYTES

    def __call__(self, heads, b, args):
        packed = ctypes.create_string_buffer(args, len(args))
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(packed))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        check(self.driver, self.driver.cuLaunchKernel(self.function, heads * b.rows, -(-b.seq // self.tile), 1, 2 * self.tile + 128, 1, 1, self.shared,
                                                      stream, pointers, None))


def check(driver, result):
    if result:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(result, ctypes.byref(text))
        raise RuntimeError(f"the driver says {result}: {(text.value or b'?').decode()}")


class Batch:
    """Random operands, and NaN where results go."""

    def __init__(self, rows, seq, heads, kv_heads, documents=False):
        self.rows, self.seq, self.heads, self.kv_heads = rows, seq, heads, kv_heads
        random = torch.Generator("cuda").manual_seed(rows * seq + heads)
        operand = lambda n: torch.randn(rows, seq, n * DIM, device="cuda", generator=random).bfloat16()
        self.q, self.k, self.v, self.dout = operand(heads), operand(kv_heads), operand(kv_heads), operand(heads)
        self.starts = torch.zeros(rows, seq, dtype=torch.int32, device="cuda")
        if documents:
            begins = torch.rand(rows, seq, device="cuda", generator=random) < 0.01
            at = torch.arange(seq, device="cuda").expand(rows, seq)
            self.starts = torch.where(begins, at, 0).cummax(1).values.int().contiguous()
        pieces = -(-seq // SPAN)
        padded = torch.cat([self.starts, self.starts[:, -1:].expand(rows, pieces * SPAN - seq)], 1).view(rows, pieces, SPAN)
        self.spans = torch.stack([padded.min(2).values, padded.max(2).values], 2).int().contiguous()
        poison = lambda x: torch.full_like(x, float("nan"))
        self.out, self.dq, self.dk, self.dv = poison(self.q), poison(self.q), poison(self.k), poison(self.v)
        self.lse, self.delta = torch.full((2, rows, heads, seq), float("nan"), device="cuda")

    def heads_of(self, x, heads):
        return x.unflatten(-1, (heads, DIM)).transpose(1, 2)

    def args(self, *tensors):
        """AttentionArgs or AttentionGradArgs of csrc/args.h."""
        sizes = struct.pack("<qqiiiiif", self.heads * DIM, self.kv_heads * DIM, self.rows, self.seq, self.heads, self.kv_heads, DIM, DIM**-0.5)
        return struct.pack(f"<{len(tensors)}Q", *(t.data_ptr() for t in tensors)) + sizes

    def sum_delta(self):
        products = self.out.float() * self.dout.float()
        self.delta = products.unflatten(-1, (self.heads, DIM)).sum(-1).transpose(1, 2).contiguous()


class Meap:
    def __init__(self, ptx):
        torch.zeros(1, device="cuda")  # makes a context
        self.driver, module = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
        check(self.driver, self.driver.cuModuleLoad(ctypes.byref(module), str(ptx).encode()))
        kernel = lambda name, size: Kernel(self.driver, module, f"meap_attention{name}_bf16_64_sm90", *size)
        self.kernels = kernel("", FORWARD), kernel("_grad_q", GRAD_Q), kernel("_grad_kv", GRAD_KV)

    def forward(self, b):
        self.kernels[0](b.heads, b, b.args(b.q, b.k, b.v, b.starts, b.spans, b.out, b.lse))

    def grad_q(self, b):
        self.kernels[1](b.heads, b, self.grad_args(b))

    def grad_kv(self, b):
        self.kernels[2](b.kv_heads, b, self.grad_args(b))

    def grad_args(self, b):
        return b.args(b.q, b.k, b.v, b.dout, b.lse, b.delta, b.starts, b.spans, b.dq, b.dk, b.dv)


def errors(meap, b):
    """The relative errors of out, dq, dk and dv beside attention in fp32."""
    meap.forward(b)
    b.sum_delta()
    meap.grad_q(b)
    meap.grad_kv(b)
    heads = (b.heads, b.kv_heads, b.kv_heads)
    q, k, v = (b.heads_of(x.float(), n).detach().requires_grad_() for x, n in zip((b.q, b.k, b.v), heads))
    at, group = torch.arange(b.seq, device="cuda"), b.heads // b.kv_heads
    seen = (at[None, None, :] <= at[None, :, None]) & (at[None, None, :] >= b.starts[:, :, None])
    scores = (q @ k.repeat_interleave(group, 1).transpose(2, 3) * DIM**-0.5).masked_fill(~seen[:, None], float("-inf"))
    out = scores.softmax(-1) @ v.repeat_interleave(group, 1)
    wanted = out, *torch.autograd.grad(out, (q, k, v), b.heads_of(b.dout.float(), b.heads))
    found = {}
    for name, want in zip(("out", "dq", "dk", "dv"), wanted):
        want = want.transpose(1, 2).flatten(2)
        found[name] = ((getattr(b, name).float() - want).norm() / want.norm()).item()
    return found


def timed(f, times):
    for _ in range(3):
        f()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(times)]
    for start, end in events:
        start.record()
        f()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ptx", default=PTX, help="the kernels (%(default)s)")
    for name, default in (("rows", 16), ("seq", 4096), ("heads", 12), ("kv-heads", 2), ("times", 10)):
        p.add_argument("--" + name, type=int, default=default, help="(%(default)s)")
    a = p.parse_args()

    meap = Meap(a.ptx)
    for small in (Batch(2, 1000, 6, 2), Batch(2, 777, 4, 1, documents=True)):
        found = errors(meap, small)
        print(f"errors, {small.rows} rows of {small.seq}: " + ", ".join(f"{name} {e:.1e}" for name, e in found.items()))
        if not max(found.values()) < 5e-3:
            raise SystemExit("wrong results")

    b = Batch(a.rows, a.seq, a.heads, a.kv_heads)
    flops = 2e-9 * a.rows * a.heads * a.seq**2 * DIM  # per millisecond: TFLOP/s
    report = lambda name, forward, grad, parts="": print(
        f"{name:16} forward {forward:.3f} ms {flops / forward:.0f} TFLOP/s, gradient {grad:.3f} ms {2.5 * flops / grad:.0f} TFLOP/s{parts}", flush=True)
    forward = timed(lambda: meap.forward(b), a.times)
    b.sum_delta()
    q, kv = timed(lambda: meap.grad_q(b), a.times), timed(lambda: meap.grad_kv(b), a.times)
    report("meap", forward, q + kv, f" (dq {q:.3f}, dk and dv {kv:.3f})")
    q, k, v = (b.heads_of(x, n).detach().requires_grad_() for x, n in ((b.q, b.heads), (b.k, b.kv_heads), (b.v, b.kv_heads)))
    dout = b.heads_of(b.dout, b.heads)
    for name, backend in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("FlashAttention", SDPBackend.FLASH_ATTENTION)):
        try:
            with sdpa_kernel([backend]):
                attend = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=a.heads != a.kv_heads)
                out = attend()
                report(name, timed(attend, a.times), timed(lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True), a.times))
        except RuntimeError as e:
            print(f"{name:16} does not run: {str(e).splitlines()[0]}")


if __name__ == "__main__":
    main()
