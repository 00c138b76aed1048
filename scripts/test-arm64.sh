#!/usr/bin/env bash
# Runs the CPU kernels' short tests, and the training against PyTorch's losses, with the kernels for arm64: under qemu's emulation
# where this machine is another, which takes some five minutes of processor time. It says "skipped" and succeeds where qemu-aarch64
# (Debian: qemu-user) is missing. Needs Go and the module proxy.
#
#     scripts/test-arm64.sh [ARGUMENT ...]      of go test, in place of those two
set -euo pipefail
cd "$(dirname "$0")/.."

go_test=(go test -timeout 60m)
if [ "$(go env GOHOSTARCH)" != arm64 ]; then
  if ! command -v qemu-aarch64 >/dev/null; then
    echo "skipped: qemu-aarch64 is missing, install qemu-user"
    exit 0
  fi
  export GOOS=linux GOARCH=arm64 CGO_ENABLED=0
  go_test+=(-exec qemu-aarch64)
fi

if [ $# -gt 0 ]; then
  "${go_test[@]}" "$@"
else
  "${go_test[@]}" -short ./pkg/graph/cpu
  "${go_test[@]}" -short -run TestGolden ./pkg/trainer
fi
