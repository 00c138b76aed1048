#!/usr/bin/env python3
"""Measures the matrix peak of a device as PyTorch reaches it: square products, the best of many.

    python scripts/peer/matmul.py --device cuda --dtype bf16 --size 8192
"""
import argparse
import json
import time

import torch


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cuda", help="cpu or cuda[:N] (%(default)s)")
    p.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16", help="type of the operands (%(default)s)")
    p.add_argument("--size", type=int, default=8192, help="rows and columns (%(default)s)")
    p.add_argument("--times", type=int, default=30, help="products (%(default)s)")
    a = p.parse_args()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[a.dtype]
    x, y = (torch.randn(a.size, a.size, device=a.device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(a.times + 5):
        if torch.device(a.device).type == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            x @ y
            end.record()
            end.synchronize()
            seconds.append(start.elapsed_time(end) / 1e3)
        else:
            start = time.perf_counter()
            x @ y
            seconds.append(time.perf_counter() - start)
    print(json.dumps(dict(tflops=2 * a.size**3 / min(seconds[5:]) / 1e12, size=a.size, dtype=a.dtype, device=a.device, torch=torch.__version__)))


if __name__ == "__main__":
    main()
