#!/usr/bin/env python3
"""Runs `meap bench train` and train.py in turn and prints a table of both.

    python scripts/peer/compare.py                                  meap-0.1b in three forms, best of five
    python scripts/peer/compare.py --work meap-nano/64x2/fp32 --rounds 1 --steps 2 --warmup 1
    python scripts/peer/compare.py --memory 1024,2048,4096,8192,16384
    python scripts/peer/compare.py --decode
    python scripts/peer/compare.py --products --systems meap --work meap-0.1b/512x2/fp32

A piece of work is PRESET/SEQxROWS/DTYPE. In each round every system runs once, in a process of its own: meap, PyTorch as it is, and
PyTorch with torch.compile. A system's speed is the median step of its best round, its memory that of its smallest; with --best-step
it is the fastest step of all, for machines that are not left alone. Beside the peak
stands what exceeds 16 bytes per parameter, which weights, gradients and the two moments take in any system that trains in fp32.

--memory measures meap alone: what a token of a longer row adds to the peak, (peak(T) - peak(64)) / T, for two layers of meap-0.1b and
the rows' lengths T that it is given. Attention that kept scores of T x T, or anything else that grows faster than the row, would show.

--decode measures meap alone as well: generation with meap-0.1b, one sequence, beside the bandwidth at which the same threads read a
large array in the same process.

--products times meap's matrix products by themselves after each of its runs of meap-0.1b on the CPU (`meap bench kernels`, 2048 tokens)
and says at which share of their rate the step runs: the rate over a second of each, since a step lasts seconds too, and that of their best
calls, which other guests of a host disturb less; the best of all rounds.

Nothing else should run on the machine. Needs Go (or --meap PROGRAM) and, for this Python, requirements.txt; torch.compile needs a
C++ compiler.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
DEFAULT_WORK = ("meap-0.1b/512x2/fp32", "meap-0.1b/512x2/bf16", "meap-0.1b/4096x1/bf16")

# The sizes of meap's presets; a run whose parameters differ from meap's is refused.
PRESETS = {
    "meap-nano": dict(layers=4, heads=4, kv_heads=2, dim=128, ffn=384, vocab=320),
    "meap-micro": dict(layers=6, heads=4, kv_heads=2, dim=256, ffn=704, vocab=320),
    "meap-mini": dict(layers=8, heads=6, kv_heads=2, dim=384, ffn=1088, vocab=320),
    "meap-0.1b": dict(layers=12, heads=12, kv_heads=2, dim=768, ffn=2048, vocab=32064),
    "meap-0.3b": dict(layers=24, heads=16, kv_heads=2, dim=1024, ffn=2736, vocab=32064),
    "meap-0.5b": dict(layers=24, heads=16, kv_heads=2, dim=1024, ffn=4864, vocab=32064),
    "meap-1b": dict(layers=24, heads=32, kv_heads=2, dim=2048, ffn=5632, vocab=32064),
}
SYSTEMS = ("meap", "eager", "compiled")
MEMORY_BASE = 64  # the length of a row whose peak is subtracted


def command(system, a, work):
    preset, seq, rows, dtype = parse_work(work)
    if system == "meap":
        run, sizes = [a.meap, "bench", "train", "--json", "--recompute", "none"], {"preset": preset}
    else:
        run, sizes = [a.python, str(HERE / "train.py")] + ["--compile"] * (system == "compiled"), PRESETS[preset]
    device = a.device if system == "meap" else a.peer_device or a.device
    flags = sizes | {"seq": seq, "micro_batch": rows, "accumulate": a.accumulate, "dtype": dtype, "device": device, "steps": a.steps,
                     "warmup": a.warmup, "threads": a.threads}
    for name, value in flags.items():
        run += ["--" + name.replace("_", "-"), str(value)]
    return run


def parse_work(text):
    match = re.fullmatch(r"([^/]+)/(\d+)x(\d+)/(fp32|bf16)", text)
    if not match or match[1] not in PRESETS:
        raise argparse.ArgumentTypeError(f"{text!r} is not PRESET/SEQxROWS/DTYPE with a preset of {', '.join(PRESETS)}")
    return match[1], int(match[2]), int(match[3]), match[4]


def measure(system, a, work):
    """One run's JSON, or None where it failed."""
    run = command(system, a, work)
    done = subprocess.run(run, capture_output=True, text=True)
    try:
        if done.returncode == 0:
            return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        pass
    print(f"{' '.join(run)}\nended with {done.returncode} and no result:\n{(done.stderr or done.stdout)[-2000:]}", file=sys.stderr)
    return None


def products(a, dtype, best):
    """Adds the rates of meap's products of meap-0.1b to best, {(kernel, out, in): GFLOP/s over a second, and of the best call}, where they
    are higher."""
    run = [a.meap, "bench", "kernels", "--json", "--only", f"^linear( dx| dw)? .*{dtype}$", "--threads", str(a.threads), "--time", "1s"]
    for line in subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines():
        r = json.loads(line)
        if "shape" in r:
            (_, first), (rows, columns) = (map(int, s.split()) for s in re.findall(r"\[([\d ]+)\]", r["shape"]))
            key = r["kernel"], first if r["kernel"] == "linear dw" else rows, columns  # dw: dy [n, out], x [n, in]; the others: w [out, in]
            rates = r["gflops"] * r["ms"] / r["mean_ms"], r["gflops"]
            best[key] = tuple(map(max, best.get(key, rates), rates))


def products_rates(best):
    """The two rates of a step's products, each at its own: those of k and v, a sixth as large, at that of q."""
    p = PRESETS["meap-0.1b"]
    dim, ffn = p["dim"], p["ffn"]
    counts = {(dim, dim): p["layers"] * (2 + 2 * p["kv_heads"] / p["heads"]), (ffn, dim): 2 * p["layers"], (dim, ffn): p["layers"], (p["vocab"], dim): 1}
    work = {(kernel, *size): size[0] * size[1] * n for size, n in counts.items() for kernel in ("linear", "linear dx", "linear dw")}
    return [sum(work.values()) / sum(w / best[key][i] for key, w in work.items()) for i in range(2)]


class Result:
    """What the rounds of one system on one piece of work gave."""

    def __init__(self, runs, best_step):
        self.ok = bool(runs)
        if self.ok:
            speed = "best_tokens_per_s" if best_step else "tokens_per_s"
            best = max(runs, key=lambda r: r[speed])
            self.speed, self.params = best[speed], best["params"]
            self.tflops = best["model_tflops"] * best[speed] / best["tokens_per_s"]
            self.peak = min(r["peak_bytes"] for r in runs)
            self.beyond = self.peak - 16 * self.params

    def cells(self):
        if not self.ok:
            return ["failed"] * 4
        return [f"{self.speed:,.1f}", f"{self.tflops:.4f}", f"{self.peak / 2**20:,.0f}", f"{self.beyond / 2**20:,.0f}"]


def ratios(results):
    """meap's speed over that of the faster peer, and its memory beyond the parameters' over that of the smaller one."""
    meap, peers = results["meap"], [results[s] for s in SYSTEMS[1:] if s in results and results[s].ok]
    if not meap.ok or not peers:
        return ["-", "-"]
    memory = min(p.beyond for p in peers)
    return [f"{meap.speed / max(p.speed for p in peers):.2f}x", f"{meap.beyond / memory:.2f}x" if memory > 0 and meap.beyond > 0 else "-"]


def table(rows):
    """Rows of text as a Markdown table that is also aligned in a terminal; the first two columns are words, the others numbers."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row):
        return "| " + " | ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))) + " |"

    rule = ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join(map(line, [rows[0], rule, *rows[1:]]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", action="append", metavar="PRESET/SEQxROWS/DTYPE", help="piece of work, repeat for more")
    p.add_argument("--systems", default=",".join(SYSTEMS), help="meap and its peers eager, compiled (%(default)s)")
    p.add_argument("--memory", metavar="T,T,...", help="measure memory per token at these lengths instead")
    p.add_argument("--decode", action="store_true", help="measure generation instead")
    p.add_argument("--products", action="store_true", help="time meap's products alone as well")
    p.add_argument("--dtype", default="fp32", help="fp32 or bf16, with --memory and --decode (%(default)s)")
    p.add_argument("--best-step", action="store_true", help="compare the fastest steps, not the median ones")
    p.add_argument("--rounds", type=int, default=5, help="runs of each (%(default)s)")
    p.add_argument("--steps", type=int, default=8, help="steps that are timed (%(default)s)")
    p.add_argument("--warmup", type=int, default=2, help="steps before those (%(default)s)")
    p.add_argument("--accumulate", type=int, default=1, help="micro-batches per step (%(default)s)")
    p.add_argument("--threads", type=int, default=2, help="threads of each (%(default)s)")
    p.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    p.add_argument("--peer-device", help="where PyTorch computes, if not on --device")
    p.add_argument("--meap", help="program (built from this repository)")
    p.add_argument("--python", default=sys.executable, help="Python with PyTorch (this one)")
    p.add_argument("--output", help="file to add each run's result to, one JSON object per line")
    a = p.parse_args()
    systems, works = a.systems.split(","), a.work or DEFAULT_WORK
    if unknown := set(systems) - set(SYSTEMS):
        p.error(f"--systems: {', '.join(sorted(unknown))} is none of {', '.join(SYSTEMS)}")
    try:
        lengths = [int(t) for t in a.memory.split(",")] if a.memory else []
    except ValueError:
        p.error(f"--memory: {a.memory!r} is not a list of lengths such as 1024,2048")
    if any(t <= MEMORY_BASE for t in lengths):
        p.error(f"--memory: lengths must be above {MEMORY_BASE}")
    if a.rounds < 1:
        p.error("--rounds must be at least 1")
    if a.products and (a.device != "cpu" or any(not w.startswith("meap-0.1b/") for w in works)):
        p.error("--products is for meap-0.1b on the CPU")
    try:
        for work in works:
            parse_work(work)
    except argparse.ArgumentTypeError as e:
        p.error(f"--work: {e}")

    with tempfile.TemporaryDirectory() as folder:
        if (lengths or a.decode or "meap" in systems) and not a.meap:
            a.meap = os.path.join(folder, "meap")
            subprocess.run(["go", "build", "-o", a.meap, "./cmd/meap"], cwd=HERE.parent.parent, check=True)
        if a.decode:
            sys.exit(decode(a))
        sys.exit(memory(a, lengths) if lengths else compare(a, systems, works))


def run_meap(run):
    """The JSON that a run of meap ends with, or None where it failed."""
    done = subprocess.run(run, capture_output=True, text=True)
    if done.returncode:
        print(f"{' '.join(run)}\nended with {done.returncode}:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def decode(a):
    """Prints the rate of generation in each round, and what share of the read bandwidth it is."""
    rows = [["round", "dtype", "prompt tokens/s", "tokens/s", "GB/s", "can be read", "share"]]
    for n in range(a.rounds):
        r = run_meap([a.meap, "bench", "decode", "--json", "--preset", "meap-0.1b", "--dtype", a.dtype, "--device", "cpu", "--threads", str(a.threads)])
        if r is None:
            return 1
        rows.append([str(n + 1), a.dtype, f"{r['prompt_tokens_per_s']:,.1f}", f"{r['tokens_per_s']:,.1f}", f"{r['gb_per_s']:.1f}",
                     f"{r['read_gb_per_s']:.1f}", f"{r['share']:.2f}"])
    print(table(rows))
    return 0


def memory(a, lengths):
    """Prints what a token adds to meap's peak at each length of a row."""
    peaks = {}
    for seq in [MEMORY_BASE, *lengths]:
        run = [a.meap, "bench", "train", "--json", "--recompute", "none", "--preset", "meap-0.1b", "--set", "model.layers=2", "--set",
               f"model.max_seq={max(lengths)}", "--seq", str(seq), "--micro-batch", "1", "--dtype", a.dtype, "--device", "cpu", "--steps", "1",
               "--warmup", "0", "--threads", str(a.threads)]
        result = run_meap(run)
        if result is None:
            return 1
        peaks[seq] = result["peak_bytes"]
    per_token = {t: (peaks[t] - peaks[MEMORY_BASE]) / t for t in lengths}
    rows = [["row", "dtype", "peak MiB", "KiB per token"]]
    rows += [[str(t), a.dtype, f"{peaks[t] / 2**20:,.0f}", f"{per_token[t] / 2**10:,.1f}"] for t in lengths]
    print(table(rows))
    least, most = min(per_token.values()), max(per_token.values())
    if least > 0:
        print(f"\n2 layers of width 768; the largest is {100 * (most / least - 1):.1f} % above the smallest")
    return 0


def compare(a, systems, works):
    runs, rates = {(work, system): [] for work in works for system in systems}, {work: {} for work in works}
    for n in range(a.rounds):
        for work, system in runs:
            result = measure(system, a, work)
            if result is None:
                continue
            runs[work, system].append(result)
            if a.products and system == "meap":
                products(a, parse_work(work)[3], rates[work])
            print(f"round {n + 1}/{a.rounds} {work} {system}: {result['tokens_per_s']:,.1f} tokens/s", file=sys.stderr)
            if a.output:
                with open(a.output, "a") as lines:
                    print(json.dumps(dict(work=work, round=n + 1, run=system) | result), file=lines)
    rows = [["work", "system", "tokens/s", "TFLOP/s", "peak MiB", "beyond 16 B/param", "speed", "memory"]]
    for work in works:
        sizes = {(r["params"], r["tokens_per_step"]) for system in systems for r in runs[work, system]}
        if len(sizes) > 1:
            print(f"{work}: the systems trained different models or batches: (params, tokens_per_step) = {sorted(sizes)}", file=sys.stderr)
            return 1
        results = {system: Result(runs[work, system], a.best_step) for system in systems}
        for system in systems:
            rows.append([work, system, *results[system].cells(), *(ratios(results) if system == "meap" else ["", ""])])
    print(table(rows))
    for work, best in rates.items():
        if best:
            (rate, call), step = products_rates(best), 1e3 * max(r["model_tflops"] for r in runs[work, "meap"])
            print(f"{work}: meap's products alone {rate:.1f} GFLOP/s, in their best calls {call:.1f}; its step {step:.1f}: "
                  f"{step / rate:.2f}, {step / call:.2f} of these")
    print(f"\n{a.threads} threads, best of {a.rounds}; speed: meap's over that of the faster peer; memory: what meap takes beyond 16 bytes "
          "per parameter over the same of the smaller peer")
    return 0 if all(runs.values()) else 1


if __name__ == "__main__":
    main()
