#!/usr/bin/env python3
"""What gpu-check.sh runs: conformance, the sanitizer, training against the CPU's, resuming, generation, and speed beside PyTorch.

Every part is a function that returns a dictionary with "ok" (None: not run, with "why") and what it found. A part that fails does not
stop the others. Everything that is printed by the programs is kept in OUTPUT/logs.
"""
import argparse
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
TINY = os.environ.get("MEAP_GPU_CHECK_TINY", "0") not in ("", "0")

# A model that trains in seconds on a CPU, yet has grouped heads of a size that the tensor cores' kernels take.
SMALL = {"model.layers": 2, "model.dim": 256, "model.heads": 4, "model.kv_heads": 2, "model.ffn": 704, "model.max_seq": 256, "trainer.seq": 256,
         "trainer.micro_batch": 8, "trainer.accumulate": 2}
if TINY:
    SMALL |= {"model.layers": 1, "model.dim": 128, "model.heads": 2, "model.kv_heads": 1, "model.ffn": 96, "model.max_seq": 64, "trainer.seq": 64,
              "trainer.micro_batch": 2}
WORKS = ["meap-nano/64x2/bf16"] if TINY else ["meap-0.1b/4096x16/bf16", "meap-0.3b/4096x8/bf16", "meap-1b/4096x8/bf16"]
PARTS = ["machine", "conformance", "sanitizer", "training", "resume", "generation", "peak", "attention", "speed", "profile"]


class Check:
    def __init__(self, a):
        self.a, self.out = a, pathlib.Path(a.output).resolve()
        self.meap = str(HERE / "bin/meap")
        (self.out / "logs").mkdir(parents=True, exist_ok=True)
        self.work = self.out / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        self.results = {}
        earlier = self.out / "report.json"
        if a.only and earlier.exists():
            self.results = json.loads(earlier.read_text())["results"]

    def run(self, name, *command, cwd=None, env=None, timeout=3600):
        """Runs a command, keeps what it printed, and returns (exit code, standard output, seconds)."""
        start = time.time()
        try:
            done = subprocess.run(list(map(str, command)), cwd=cwd, env=os.environ | (env or {}), capture_output=True, text=True, timeout=timeout, errors="replace")
            code, out, err = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as e:
            code, out, err = 124, (e.stdout or b"").decode(errors="replace"), f"stopped after {timeout} s"
        (self.out / "logs" / f"{name}.txt").write_text(f"$ {' '.join(map(str, command))}\n{out}\n{err}\nexit {code}, {time.time() - start:.1f} s\n")
        return code, out, time.time() - start

    def tail(self, name, lines=5):
        return (self.out / "logs" / f"{name}.txt").read_text().strip().splitlines()[-lines:]

    def part(self, name, f):
        if self.a.only and name not in self.a.only:
            return
        if name in self.a.skip:
            self.results[name] = {"ok": None, "why": "left out by --skip"}
            return
        print(f"== {name}", flush=True)
        try:
            r = f()
        except Exception:
            r = {"ok": False, "why": traceback.format_exc()}
        self.results[name] = r
        print(f"   {word(r['ok'])}{': ' + str(r['why']) if r.get('why') else ''}", flush=True)
        self.write()

    # The parts.

    def doctor(self):
        code, out, _ = self.run("doctor", self.meap, "doctor", "--json")
        return json.loads(out) if code == 0 else {}

    def machine(self):
        doctor = self.doctor()
        gpus = doctor.get("cuda", {}).get("gpus", [])
        _, smi, _ = self.run("nvidia-smi", "nvidia-smi") if shutil.which("nvidia-smi") else (0, "", 0)
        problem = doctor.get("cuda", {}).get("problem", "")
        return {"ok": bool(gpus) and not problem, "why": problem, "doctor": doctor, "nvidia_smi": smi, "platform": platform.platform(),
                "bundle": (HERE / "version").read_text().strip() if (HERE / "version").exists() else "unknown"}

    def tests(self, name, *flags, before=(), timeout=3600):
        code, out, seconds = self.run(name, *before, HERE / "tests/cuda.test", "-test.v", *flags, cwd=HERE / "tests", env={"MEAP_TEST_GPU": "1"}, timeout=timeout)
        lines = out.splitlines()
        failed = [l.strip().split()[2] for l in lines if l.strip().startswith("--- FAIL")]
        return {"ok": code == 0, "why": "" if code == 0 else f"exit code {code}; see logs/{name}.txt", "seconds": round(seconds, 1),
                "passed": sum(l.strip().startswith("--- PASS") for l in lines), "failed": failed[:50],
                "skipped": sum(l.strip().startswith("--- SKIP") for l in lines)}

    def conformance(self):
        if TINY:
            return self.tests("conformance", "-test.short", "-test.run", "TestConformance/(Add|RMSNorm|Linear)$")
        return self.tests("conformance")

    def sanitizer(self):
        if not shutil.which("compute-sanitizer"):
            return {"ok": None, "why": "compute-sanitizer is not on this machine"}
        result = {"ok": True, "tools": {}}
        for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
            r = self.tests(f"sanitizer-{tool}", "-test.short", "-test.run", "TestConformance/(Add)$" if TINY else "TestConformance",
                           before=("compute-sanitizer", "--tool", tool, "--error-exitcode", "9"), timeout=1800)
            result["tools"][tool] = r
            # initcheck reports reads of padding that nothing depends on; it is shown and does not decide.
            result["ok"] = result["ok"] and (r["ok"] or tool == "initcheck")
        return result

    def pretrain(self, name, device, dtype, steps, *more, folder=None):
        """Losses by step of a short training."""
        settings = SMALL | {"trainer.dtype": dtype, "trainer.steps": steps, "trainer.warmup": 5, "trainer.checkpoint_every": 10,
                            "trainer.validate_every": 0, "data.cache_dir": self.work / "data", "data.sources": f"[{HERE / 'text'}]"}
        flags = [w for k, v in settings.items() for w in ("--set", f"{k}={v}")]
        code, out, seconds = self.run(name, self.meap, "pretrain", "--config", HERE / "configs/quickstart.yaml", *flags, "--device", device,
                                      "--output", self.work / (folder or name), "--json", *more)
        if code:
            raise RuntimeError("\n".join(self.tail(name)))
        records = [json.loads(l) for l in out.splitlines() if l.startswith("{")]
        return {r["step"]: r["loss"] for r in records if "loss" in r}, seconds

    def training(self):
        result = {"ok": True}
        for dtype, limit in (("fp32", 1e-3), ("bf16", 2e-2)):
            cpu, _ = self.pretrain(f"train-cpu-{dtype}", "cpu", dtype, 20)
            gpu, _ = self.pretrain(f"train-gpu-{dtype}", "cuda", dtype, 20)
            if sorted(cpu) != list(range(1, 21)) or sorted(gpu) != sorted(cpu):
                raise RuntimeError(f"{dtype}: steps {sorted(cpu)} on the CPU and {sorted(gpu)} on the GPU")
            worst = max(abs(gpu[s] - cpu[s]) / abs(cpu[s]) for s in cpu)
            result[dtype] = {"worst_relative": worst, "limit": limit, "cpu": list(cpu.values()), "gpu": list(gpu.values())}
            if not worst <= limit:
                result |= {"ok": False, "why": f"{dtype}: a loss differs by {worst:.2e} of its value; {limit:g} is allowed"}
        return result

    def resume(self):
        result = {"ok": True}
        for dtype in ("fp32", "bf16"):
            straight, _ = self.pretrain(f"straight-{dtype}", "cuda", dtype, 20)
            again, _ = self.pretrain(f"again-{dtype}", "cuda", dtype, 20)
            first, _ = self.pretrain(f"stopped-{dtype}", "cuda", dtype, 20, "--set", "trainer.stop_after=10")
            second, _ = self.pretrain(f"resumed-{dtype}", "cuda", dtype, 20, folder=f"stopped-{dtype}")
            same = {"repeated": straight == again, "resumed": first | second == straight and min(second) == 11}
            for other in ("again", "stopped"):
                for file in ("model.safetensors", "trainer.safetensors"):
                    paths = [self.work / f"{n}-{dtype}" / "checkpoints/step-00000020" / file for n in ("straight", other)]
                    same[f"{other} {file}"] = paths[0].read_bytes() == paths[1].read_bytes()
            result[dtype] = same
            if not all(same.values()):
                result |= {"ok": False, "why": f"{dtype}: differs: {', '.join(k for k, v in same.items() if not v)}"}
        return result

    def generation(self):
        steps, length = (30, 12) if TINY else (400, 64)
        self.pretrain("trained", "cuda", "fp32", steps)
        result = {"ok": True, "steps": steps, "texts": []}
        for i, prompt in enumerate(("package ", "func (d *Device) ", "// The ", "for i := range ")):
            texts = {}
            for device in ("cpu", "cuda"):
                name = f"generate-{device}-{i}"
                code, out, _ = self.run(name, self.meap, "generate", "--model", self.work / "trained", "--prompt", prompt, "--temperature", "0",
                                        "--max-new", length, "--device", device)
                if code:
                    raise RuntimeError("\n".join(self.tail(name)))
                texts[device] = out
            result["texts"].append(texts)
            if texts["cpu"] != texts["cuda"]:
                result |= {"ok": False, "why": f"after {prompt!r} the texts differ"}
        return result

    def peak(self):
        """The matrix peak of this GPU, as PyTorch reaches it in bf16."""
        size = 256 if TINY else 8192
        code, out, _ = self.run("peak", self.a.python, HERE / "peer/matmul.py", "--device", self.a.peer_device, "--size", size, "--dtype", "bf16")
        if code:
            return {"ok": None, "why": "PyTorch did not measure it: " + " ".join(self.tail("peak", 3))}
        return {"ok": True} | json.loads(out.splitlines()[-1])

    def attention(self):
        """The attention kernels for Hopper, which no other GPU runs, right and timed beside PyTorch's."""
        gpus = self.doctor().get("cuda", {}).get("gpus", [])
        found = ", ".join(g["compute_capability"] for g in gpus[:1]) or "no GPU"
        if found != "9.0":
            return {"ok": None, "why": f"they are for compute capability 9.0, and here is {found}"}
        code, _, _ = self.run("attention-torch", self.a.python, "-c", "import torch; torch.zeros(1, device='cuda')")
        if code:
            return {"ok": None, "why": "PyTorch with CUDA is missing: " + " ".join(self.tail("attention-torch", 3))}
        sizes = ("--rows", 1, "--seq", 512, "--heads", 4, "--times", 2) if TINY else ()
        code, out, _ = self.run("attention", self.a.python, HERE / "peer/attention.py", "--ptx", HERE / "tests/csrc/hopper.ptx", *sizes, timeout=600)
        return {"ok": code == 0, "why": "" if code == 0 else "; ".join(filter(None, self.tail("attention", 3))),
                "text": out}

    def speed(self):
        lines = self.out / "speed.jsonl"
        kept = [l for l in lines.read_text().splitlines() if json.loads(l)["work"] not in self.a.works] if self.a.only and lines.exists() else []
        lines.write_text("".join(l + "\n" for l in kept))
        flags = [w for work in self.a.works for w in ("--work", work)]
        code, out, _ = self.run("speed", self.a.python, HERE / "peer/compare.py", *flags, "--meap", self.meap, "--device", "cuda", "--peer-device", self.a.peer_device,
                                "--rounds", self.a.rounds, "--steps", 2 if TINY else 20, "--warmup", 1 if TINY else 5, "--threads", 0,
                                "--systems", self.a.systems, "--output", lines, timeout=4 * 3600)
        runs = [json.loads(l) for l in lines.read_text().splitlines()] if lines.exists() else []
        peak = self.results.get("peak", {}).get("tflops", 0)
        table, ok = [], bool(runs)
        for work in WORKS:
            row = {"work": work}
            for system in self.a.systems.split(","):
                mine = [r for r in runs if r["work"] == work and r["run"] == system]
                if mine:
                    row[system] = {"tokens_per_s": max(r["tokens_per_s"] for r in mine), "all": [r["tokens_per_s"] for r in mine],
                                   "peak_bytes": min(r["peak_bytes"] for r in mine), "tflops": max(r["model_tflops"] for r in mine)}
            peers = [row[s] for s in row if s in ("eager", "compiled")]
            if "meap" in row and peers:
                row["speed"] = row["meap"]["tokens_per_s"] / max(p["tokens_per_s"] for p in peers)
                row["memory"] = row["meap"]["peak_bytes"] / min(p["peak_bytes"] for p in peers)
            if "meap" in row and peak:
                row["share_of_peak"] = row["meap"]["tflops"] / peak
            if work in self.a.works or len(row) > 1:
                ok = ok and "meap" in row
                table.append(row)
        return {"ok": ok, "why": "" if code == 0 else f"compare.py ended with {code}; see logs/speed.txt", "table": table}

    def profile(self):
        result = {"ok": True, "texts": self.results.get("profile", {}).get("texts", {})}
        for work in self.a.works:
            preset, rest, dtype = work.split("/")
            seq, rows = rest.split("x")
            code, out, _ = self.run(f"profile-{preset}", self.meap, "bench", "train", "--preset", preset, "--seq", seq, "--micro-batch", rows, "--dtype", dtype,
                                    "--device", "cuda", "--steps", 2 if TINY else 10, "--profile")
            result["texts"][work] = out
            result["ok"] = result["ok"] and code == 0
        return result

    # The report.

    def write(self):
        (self.out / "report.json").write_text(json.dumps({"tiny": TINY, "results": self.results}, indent=1, default=str) + "\n")
        r, text = self.results, ["# meap on a GPU", ""]
        if TINY:
            text += ["**Tiny sizes (MEAP_GPU_CHECK_TINY): this shows that the check works, and nothing else.**", ""]
        machine = r.get("machine", {})
        for gpu in machine.get("doctor", {}).get("cuda", {}).get("gpus", []):
            text.append(f"{gpu['name']}, compute capability {gpu['compute_capability']}, {gpu['memory_bytes'] / 2**30:.1f} GiB.")
        text += [f"Bundle {machine.get('bundle')}; {machine.get('platform')}; {time.strftime('%Y-%m-%d')}.", "", "| part | result | |", "| --- | --- | --- |"]
        for name in PARTS:
            if (x := r.get(name)) is None:
                continue
            about = x.get("why") or ""
            if name == "conformance" and "passed" in x:
                about = f"{x['passed']} passed, {len(x['failed'])} failed, {x['skipped']} skipped in {x['seconds']} s. {about}"
            if name == "training" and "bf16" in x:
                about = ", ".join(f"{d}: losses within {x[d]['worst_relative']:.1e} (limit {x[d]['limit']:g})" for d in ("fp32", "bf16"))
            if name == "sanitizer" and "tools" in x:
                about = ", ".join(f"{t}: {word(y['ok'])}" for t, y in x["tools"].items())
            if name == "peak" and "tflops" in x:
                about = f"{x['tflops']:.1f} TFLOP/s, bf16 products of {x['size']}"
            text.append(f"| {name} | {word(x['ok'])} | {' '.join(str(about).split())[:300]} |")
        if out := r.get("attention", {}).get("text"):
            text += ["", "## Attention on Hopper", "", "```", out.rstrip(), "```"]
        if "table" in r.get("speed", {}):
            text += ["", "## Speed and memory", "", f"Best of {self.a.rounds}; speed: meap's over the faster of PyTorch's; memory: meap's peak over the smaller of PyTorch's; "
                     "share: of the matrix peak measured above.", "", "| work | system | tokens/s | TFLOP/s | peak GiB | speed | memory | share |",
                     "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
            for row in r["speed"]["table"]:
                for system in self.a.systems.split(","):
                    if system not in row:
                        text.append(f"| {row['work']} | {system} | failed | | | | | |")
                        continue
                    x = row[system]
                    ratios = [f"{row[k]:.2f}x" if k in row else "-" for k in ("speed", "memory")] + [f"{100 * row['share_of_peak']:.0f} %" if "share_of_peak" in row else "-"]
                    text.append(f"| {row['work']} | {system} | {x['tokens_per_s']:,.0f} | {x['tflops']:.2f} | {x['peak_bytes'] / 2**30:.2f} | "
                                + " | ".join(ratios if system == "meap" else ["", "", ""]) + " |")
        for work, out in r.get("profile", {}).get("texts", {}).items():
            text += ["", f"### Time by operator, {work}", "", "```", out.rstrip(), "```"]
        (self.out / "report.md").write_text("\n".join(text) + "\n")


def word(ok):
    return {True: "ok", False: "**FAILED**", None: "not run"}[ok]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="gpu-check.sh")
    p.add_argument("--output", default="gpu-report", help="folder of the report (%(default)s)")
    p.add_argument("--python", default=sys.executable, help="Python with PyTorch (this one)")
    p.add_argument("--peer-device", default="cuda", help="where PyTorch computes (%(default)s)")
    p.add_argument("--systems", default="meap,eager,compiled", help="what is timed (%(default)s)")
    p.add_argument("--rounds", type=int, default=1 if TINY else 3, help="runs of each (%(default)s)")
    names = lambda s: set(filter(None, s.split(",")))
    p.add_argument("--skip", default="", type=names, help="parts to leave out, with commas between: " + ", ".join(PARTS))
    p.add_argument("--only", default="", type=names, help="parts to run; the report keeps the others from an earlier run into the same folder")
    p.add_argument("--works", default=WORKS, type=lambda s: s.split(","), help="what is timed, with --only beside what was timed before: " + ", ".join(WORKS))
    a = p.parse_args()
    if unknown := set(a.works) - set(WORKS):
        p.error(f"--works: {', '.join(sorted(unknown))} is none of {', '.join(WORKS)}")
    if unknown := (a.skip | a.only) - set(PARTS):
        p.error(f"{', '.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    c = Check(a)
    for name in PARTS:
        c.part(name, getattr(c, name))
    shutil.rmtree(c.work, ignore_errors=True)
    print(f"\n{c.out / 'report.md'}\n{c.out / 'report.json'}")
    sys.exit(any(r["ok"] is False for r in c.results.values()))


if __name__ == "__main__":
    main()
