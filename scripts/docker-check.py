#!/usr/bin/env python3
"""Carries out the Dockerfiles without a container engine: the same commands, in clean roots made by debootstrap, by chroot.

    scripts/docker-check.py [Dockerfile Dockerfile.cuda]

Then the program in the resulting root is run as the image would run it: `version`, the health command, and a short training into
/output as the image's user. Needs root on Debian or Ubuntu, debootstrap, Go, and the network that the Dockerfiles need. What it
cannot check is that the base images which FROM names exist; it puts these in their place:

    golang:*   Debian with gcc, g++, git, and this machine's Go
    python:*   Debian with python3 and pip
    debian:*   Debian
    scratch    nothing

Only the instructions and forms that the two files use are known; others are an error. Roots are kept in --cache for the next time.
"""
import argparse
import fnmatch
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

REPO = pathlib.Path(__file__).resolve().parent.parent
SUITE = "bookworm"
PACKAGES = {"golang": "ca-certificates,gcc,g++,libc6-dev,git", "python": "ca-certificates,python3,python3-pip", "debian": "ca-certificates"}
PASSED = re.compile(r"(https?|no)_proxy|GOPROXY|GOSUMDB|GONOSUMDB|PIP_.*", re.I)


def say(text):
    print(f"docker-check: {text}", flush=True)


def run(*command, **options):
    subprocess.run(list(map(str, command)), check=True, **options)


def base(name, cache):
    """The folder of a base image, made where it is not there."""
    kind = name.split(":")[0]
    if kind not in PACKAGES:
        sys.exit(f"docker-check: no base image {name} is known")
    root = cache / f"base-{kind}"
    if not (root / ".complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        say(f"debootstrap {root} for {name}")
        with open(cache / f"base-{kind}.log", "w") as log:
            run("debootstrap", "--variant=minbase", f"--include={PACKAGES[kind]}", SUITE, root, stdout=log, stderr=log)
        if kind == "golang":
            goroot = subprocess.run(["go", "env", "GOROOT"], check=True, capture_output=True, text=True).stdout.strip()
            run("cp", "-a", goroot, root / "usr/local/go")
        if kind == "python":  # the image's python3 is python
            os.symlink("python3", root / "usr/bin/python")
        (root / ".complete").touch()
    return root


def instructions(path):
    """The instructions of a Dockerfile as (NAME, rest), comments left out and continued lines joined."""
    text = ""
    for line in path.read_text().splitlines():
        if line.lstrip().startswith("#") or (not line.strip() and not text):
            continue
        text += line.strip()
        if text.endswith("\\"):
            text = text[:-1] + " "
            continue
        name, _, rest = text.partition(" ")
        yield name.upper(), rest.strip()
        text = ""


def ignored(path, patterns):
    """Whether .dockerignore leaves out this path, relative to the repository."""
    parts = path.split("/")
    for pattern in patterns:
        pattern = pattern.lstrip("/")
        for i in range(1, len(parts) + 1):
            head = "/".join(parts[:i])
            if fnmatch.fnmatch(head, pattern) or (pattern.startswith("**/") and fnmatch.fnmatch(parts[i - 1], pattern[3:])):
                return True
    return False


class Stage:
    def __init__(self, image, root, cache):
        self.root, self.image = root, image
        self.workdir, self.user, self.env, self.meta, self.args = "/", None, {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, {}, {}
        shutil.rmtree(root, ignore_errors=True)
        if image == "scratch":
            root.mkdir(parents=True)
            return
        run("cp", "-a", "--reflink=auto", base(image, cache), root)
        if image.startswith("golang"):
            self.env |= {"PATH": "/go/bin:/usr/local/go/bin:" + self.env["PATH"], "GOPATH": "/go", "GOTOOLCHAIN": "local"}

    def path(self, inside):
        return self.root / os.path.normpath(os.path.join(self.workdir, inside)).lstrip("/")

    def home(self):
        """HOME as an engine sets it: the user's in /etc/passwd."""
        uid = (self.user or "0").split(":")[0]
        for line in (self.root / "etc/passwd").read_text().splitlines():
            fields = line.split(":")
            if uid in (fields[0], fields[2]):
                return fields[5]
        return "/"

    def execute(self, command, network=True, **options):
        """Runs a command in the root with the stage's environment and nothing of this machine's but the way to the network."""
        env, mounts = {"HOME": self.home()} | self.env, []
        if self.image != "scratch":
            mounts = [f"mount -t proc proc {self.root}/proc", f"mount --rbind /dev {self.root}/dev"]
            if network:
                env |= {k: v for k, v in os.environ.items() if PASSED.fullmatch(k)}
                certificates = "/etc/ssl/certs/ca-certificates.crt"
                if os.path.exists(certificates):
                    shutil.copy(certificates, self.root / "etc/ssl/certs/ca-certificates.crt")
                    env |= {"PIP_CERT": certificates}
                shutil.copy("/etc/resolv.conf", self.root / "etc/resolv.conf")
        user = ["--userspec=" + self.user] if self.user else []
        inner = ["env", "-i", *(f"{k}={v}" for k, v in env.items())]
        # env must be found outside of a root that holds nothing else, so it comes before chroot, which finds its command inside.
        change = [*inner, shutil.which("chroot"), *user, str(self.root), *command]
        script = " && ".join(mounts + [f"exec {shlex.join(change)}"])
        return subprocess.run(["unshare", "--mount", "--pid", "--fork", "sh", "-c", script], **options)


def copy(stage, stages, rest, patterns):
    words = shlex.split(rest)
    options = [w for w in words if w.startswith("--")]
    *sources, target = [w for w in words if not w.startswith("--")]
    source_root = REPO
    for o in options:
        if not o.startswith("--from="):
            sys.exit(f"docker-check: COPY {o} is not known")
        source_root = stages[o[len("--from="):]].root
    destination = stage.path(target)
    for s in sources:
        source = source_root / s.lstrip("/")
        if source_root == REPO:
            destination.mkdir(parents=True, exist_ok=True) if target.endswith("/") or source.is_dir() else destination.parent.mkdir(parents=True, exist_ok=True)
            listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", s], cwd=REPO, check=True, capture_output=True, text=True).stdout.splitlines()
            listed = [f for f in listed if (REPO / f).exists()]
            if not listed:
                sys.exit(f"docker-check: COPY {s}: no such file")
            for f in listed:
                if ignored(f, patterns):
                    if not source.is_dir():
                        sys.exit(f"docker-check: COPY {s}: .dockerignore leaves it out")
                    continue
                to = destination / os.path.relpath(REPO / f, source) if source.is_dir() else (destination / source.name if destination.is_dir() else destination)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPO / f, to)
        elif source.is_dir():
            destination.mkdir(parents=True, exist_ok=True)
            run("cp", "-a", f"{source}/.", destination)
        else:
            destination.parent.mkdir(parents=True, exist_ok=True)
            run("cp", "-a", source, destination)


def build(dockerfile, cache):
    patterns = [l for l in (REPO / ".dockerignore").read_text().splitlines() if l and not l.startswith("#")]
    stages, stage, start = {}, None, time.time()
    for name, rest in instructions(dockerfile):
        say(f"{dockerfile.name}: {name} {rest}")
        if name == "FROM":
            image, _, alias = rest.partition(" AS ")
            if image != "scratch" and (":" not in image or image.endswith(":latest")):
                sys.exit(f"docker-check: FROM {image} is not pinned")
            alias = alias or "final"
            stage = stages[alias] = Stage(image, cache / f"{dockerfile.name}-{alias}", cache)
        elif name == "WORKDIR":
            stage.workdir = os.path.join(stage.workdir, rest)
            stage.path(".").mkdir(parents=True, exist_ok=True)
        elif name == "ARG":
            key, _, value = rest.partition("=")
            stage.args[key] = value
        elif name == "ENV":
            stage.env |= dict(w.split("=", 1) for w in shlex.split(rest))
        elif name == "COPY":
            copy(stage, stages, rest, patterns)
        elif name == "RUN":
            command = "".join(f"export {k}={shlex.quote(v)}; " for k, v in stage.args.items()) + f"cd {stage.workdir} && {rest}"
            done = stage.execute(["/bin/sh", "-c", command])
            if done.returncode:
                sys.exit(f"docker-check: {dockerfile.name}: RUN {rest} ended with {done.returncode}")
        elif name == "USER":
            stage.user = rest
        elif name in ("ENTRYPOINT", "CMD"):
            stage.meta[name] = json.loads(rest)
        elif name == "VOLUME":
            stage.meta[name] = json.loads(rest)
        elif name == "HEALTHCHECK":
            stage.meta[name] = json.loads(rest[rest.index("CMD ") + 4:])
        else:
            sys.exit(f"docker-check: {name} is not known")
    say(f"{dockerfile.name}: built in {time.time() - start:.0f} s")
    return stage


def check(dockerfile, image):
    """Runs the image's program as a container would."""
    if image.user in (None, "0", "root", "0:0"):
        sys.exit(f"docker-check: {dockerfile.name}: the image runs as root")
    owner = os.stat(image.root / "output")
    if f"{owner.st_uid}:{owner.st_gid}" != image.user:
        sys.exit(f"docker-check: {dockerfile.name}: /output belongs to {owner.st_uid}:{owner.st_gid}, the image's user is {image.user}")
    for folder in image.meta["VOLUME"]:
        if not (image.root / folder.lstrip("/")).is_dir():
            sys.exit(f"docker-check: {dockerfile.name}: {folder} is no folder")
    entry = image.meta["ENTRYPOINT"]
    shutil.copytree(REPO / "pkg/masking", image.root / "data", dirs_exist_ok=True)  # some text
    tiny = ["--set", "model.layers=1", "--set", "model.dim=32", "--set", "model.heads=2", "--set", "model.kv_heads=1", "--set", "model.ffn=48",
            "--set", "trainer.seq=32", "--set", "trainer.micro_batch=2", "--set", "trainer.accumulate=1", "--set", "trainer.steps=5",
            "--set", "data.sources=[/data]", "--set", "data.cache_dir=/output/cache"]
    for command in (entry + image.meta["CMD"], entry + ["version"], image.meta["HEALTHCHECK"],
                    entry + ["pretrain", "--config", "/configs/quickstart.yaml", "--output", "/output/mine", *tiny]):
        done = image.execute(command, network=False, capture_output=True, text=True)
        print((done.stdout + done.stderr).rstrip())
        if command == image.meta["HEALTHCHECK"] and "cuda" in command:  # there is no GPU here, which is what it must say
            if done.returncode != 1 or "no CUDA driver" not in done.stderr:
                sys.exit(f"docker-check: {dockerfile.name}: {shlex.join(command)} ended with {done.returncode} where there is no GPU")
            continue
        if done.returncode:
            sys.exit(f"docker-check: {dockerfile.name}: {shlex.join(command)} ended with {done.returncode}")
    if not list((image.root / "output/mine/checkpoints").glob("step-*/model.safetensors")):
        sys.exit(f"docker-check: {dockerfile.name}: training has left no checkpoint")
    shutil.rmtree(image.root / "output/mine")
    size = subprocess.run(["du", "-sxm", image.root], check=True, capture_output=True, text=True).stdout.split()[0]
    say(f"{dockerfile.name}: ok, {size} MiB unpacked, user {image.user}, {shlex.join(entry)}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="*", default=["Dockerfile", "Dockerfile.cuda"])
    p.add_argument("--cache", default=os.path.expanduser("~/.cache/meap/docker-check"), help="folder for the roots (%(default)s)")
    a = p.parse_args()
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        sys.exit("docker-check: needs root and debootstrap (apt-get install debootstrap)")
    cache = pathlib.Path(a.cache)
    cache.mkdir(parents=True, exist_ok=True)
    for f in a.files:
        check(REPO / f, build(REPO / f, cache))


if __name__ == "__main__":
    main()
