#!/usr/bin/env bash
# Puts together what scripts/gpu-check.sh needs on a machine with a GPU that has neither Go nor a network: programs with -tags gpu,
# the tests of pkg/graph/cuda, configurations, some text, and PyTorch's side (scripts/peer). Needs Go, gcc and cuda.h.
#
#     scripts/gpu-bundle.sh [OUTDIR]      meap-gpu-bundle if not given; copy it to the other machine and run gpu-check.sh there
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-meap-gpu-bundle}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$repo"
include=$(scripts/cuda-headers.sh | tail -n 1)
export CGO_ENABLED=1 CGO_CFLAGS="-O2 -I$include"
mkdir -p "$out/bin" "$out/tests/csrc" "$out/text"
go build -tags gpu -ldflags '-s -w' -o "$out/bin/meap" ./cmd/meap
go test -tags gpu -ldflags '-s -w' -c -o "$out/tests/cuda.test" ./pkg/graph/cuda
cp pkg/graph/cuda/csrc/* "$out/tests/csrc/" # tests compare Go's declarations with them
rm -rf "$out/configs" "$out/peer"
cp -r configs "$out/configs"
cp -r scripts/peer "$out/peer"
rm -rf "$out/peer/__pycache__"
cp scripts/gpu-check.sh scripts/gpu_check.py "$out/"
# Text to train on: this repository's own source.
git ls-files 'pkg/**/*.go' 'cmd/**/*.go' 'docs/*.md' | while read -r f; do cp "$f" "$out/text/$(tr / _ <<<"$f")"; done
git describe --always --dirty >"$out/version" 2>/dev/null || echo unknown >"$out/version"
echo "$out: $(du -sh "$out" | cut -f1); run gpu-check.sh there"
