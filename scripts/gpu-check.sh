#!/usr/bin/env bash
# Checks and measures meap on a GPU, from a bundle (scripts/gpu-bundle.sh), and writes one report: report.md and report.json.
# Needs neither Go nor a network; Python 3, and for the comparison PyTorch with CUDA.
#
#     ./gpu-check.sh [--output DIR] [--python PYTHON] [--skip NAME,...] [--only NAME,...]      gpu-check.sh --help for all
#
# Where a command may run for a short time only, --only runs a part of it and adds to the report that is there.
#
# MEAP_GPU_CHECK_TINY=1 makes everything so small that it only shows whether the check itself works.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for python in "${PYTHON:-python3}" python; do
  command -v "$python" >/dev/null && exec "$python" "$here/gpu_check.py" "$@"
done
echo "gpu-check.sh: Python 3 not found" >&2
exit 1
