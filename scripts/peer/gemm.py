"""Times the products of a Linear layer beside OpenBLAS (fp32) and PyTorch's bf16 product (oneDNN where it has one).

    python scripts/peer/gemm.py MEAP [--dtype fp32|bf16] [--shape 2048,768,768] [--rounds 5]

MEAP is the built binary. Peer and meap take turns on the same shape with the same number of threads; the best time of all
rounds counts. OpenBLAS is the one inside NumPy's wheel. In bf16 both start from fp32 operands, and their rounding is timed.
PyTorch's result stays in bf16, meap's is fp32. NT is forward, NN the gradient of the input, TN that of the weight.
"""

import argparse
import json
import os
import re
import subprocess
import time

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

SHAPES = ["2048,768,768", "2048,2048,768", "2048,768,2048", "2048,32064,768"]


def best(f, seconds):
    f()
    shortest, calls, begin = float("inf"), 0, time.perf_counter()
    while calls < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        f()
        shortest = min(shortest, time.perf_counter() - start)
        calls += 1
    return shortest


def meap(args, dtype, m, n, k):
    """The seconds of the three forms."""
    shapes = {"linear": ((m, k), (n, k)), "linear dx": ((m, n), (n, k)), "linear dw": ((m, n), (m, k))}
    keys = {f"{name} [{a[0]} {a[1]}] [{b[0]} {b[1]}] {dtype}": name for name, (a, b) in shapes.items()}
    only = "^(" + "|".join(re.escape(key) for key in keys) + ")$"
    command = [args.meap, "bench", "kernels", "--json", "--threads", str(args.threads), "--time", f"{args.time}s", "--only", only]
    times = {}
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        r = json.loads(line)
        if "shape" in r:
            times[r["kernel"]] = r["ms"] / 1e3
    return [times[name] for name in shapes]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("meap")
    p.add_argument("--dtype", choices=["fp32", "bf16"], action="append")
    p.add_argument("--shape", action="append")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--time", type=float, default=0.2, help="seconds per form and round, at least three calls")
    args = p.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = str(args.threads)
    import numpy as np

    random = np.random.default_rng(1)
    for dtype in args.dtype or ["fp32", "bf16"]:
        if dtype == "fp32":
            from threadpoolctl import threadpool_info

            print("peer:", [(i["internal_api"], i["version"], i["architecture"]) for i in threadpool_info() if i["user_api"] == "blas"])
        else:
            import torch

            torch.set_num_threads(args.threads)
            print("peer: PyTorch", torch.__version__, torch.backends.cpu.get_cpu_capability())
        print("| m, n, k | dtype | form | meap GFLOP/s | peer GFLOP/s | ratio |\n| --- | --- | --- | --- | --- | --- |", flush=True)
        for shape in args.shape or SHAPES:
            m, n, k = map(int, shape.split(","))
            x, w, dy = (random.standard_normal(s, dtype=np.float32) for s in ((m, k), (n, k), (m, n)))
            if dtype == "fp32":
                y, dx, dw = (np.empty(s, np.float32) for s in ((m, n), (m, k), (n, k)))
                forms = [lambda: np.matmul(x, w.T, out=y), lambda: np.matmul(dy, w, out=dx), lambda: np.matmul(dy.T, x, out=dw)]
            else:
                x, w, dy = (torch.from_numpy(t) for t in (x, w, dy))
                b = torch.bfloat16
                forms = [lambda: x.to(b) @ w.to(b).T, lambda: dy.to(b) @ w.to(b), lambda: dy.to(b).T @ x.to(b)]
            ours, theirs = [float("inf")] * 3, [float("inf")] * 3
            for _ in range(args.rounds):
                theirs = [min(t, best(f, args.time)) for t, f in zip(theirs, forms)]
                ours = [min(a, b) for a, b in zip(ours, meap(args, dtype, m, n, k))]
            for form, a, b in zip(("NT", "NN", "TN"), ours, theirs):
                rate = 2e-9 * m * n * k
                print(f"| {m}, {n}, {k} | {dtype} | {form} | {rate / a:.0f} | {rate / b:.0f} | {b / a:.2f} |", flush=True)


main()
