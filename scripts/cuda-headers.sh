#!/usr/bin/env bash
# Finds cuda.h, or fetches it: all of CUDA that `go build -tags gpu` needs. Prints its folder as the last line:
#
#     CGO_CFLAGS=-I$(scripts/cuda-headers.sh | tail -1) go build -tags gpu ./cmd/meap
#
#     scripts/cuda-headers.sh [DIR]      DIR: where to put what is fetched, ~/.cache/meap/cuda if not given
#
# Looked for in $CUDA_HOME, $CUDA_PATH, /usr/local/cuda, /opt/cuda, /usr/include and DIR; FETCH=1 leaves out all but DIR. Fetched
# from the Python wheel of CUDA 12.4's runtime (1 MB, pinned; needs pip). No root, nothing is installed. Headers of CUDA 13 get a
# wrapper that keeps the prototypes gorgonia.org/cu calls.
set -euo pipefail
dir=${1:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/meap/cuda}
say() { printf 'cuda-headers: %s\n' "$*" >&2; }

# version FOLDER prints CUDA_VERSION of its cuda.h, such as 12040; nothing where there is none.
version() { [ -f "$1/cuda.h" ] && sed -nE 's/^#define[[:space:]]+CUDA_VERSION[[:space:]]+([0-9]+).*/\1/p' "$1/cuda.h" | head -1; }

# use FOLDER prints the folder to compile with and ends.
use() {
  local v
  v=$(version "$1")
  say "CUDA $((v / 1000)).$((v % 1000 / 10)): $1/cuda.h"
  [ "$v" -ge 13000 ] || { echo "$1"; exit 0; }
  mkdir -p "$dir/wrapper"
  cat >"$dir/wrapper/cuda.h" <<WRAPPER
/* CUDA 13 gave some functions other arguments under the same names. The driver still has the old ones. */
#ifndef MEAP_CUDA_H
#define MEAP_CUDA_H
#include "$1/cuda.h"
#undef cuCtxCreate
#define cuCtxCreate cuCtxCreate_v2
CUresult CUDAAPI cuCtxCreate_v2(CUcontext *, unsigned int, CUdevice);
#undef cuMemAdvise
CUresult CUDAAPI cuMemAdvise(CUdeviceptr, size_t, CUmem_advise, CUdevice);
#undef cuMemPrefetchAsync
CUresult CUDAAPI cuMemPrefetchAsync(CUdeviceptr, size_t, CUdevice, CUstream);
#undef cuGraphAddDependencies
CUresult CUDAAPI cuGraphAddDependencies(CUgraph, const CUgraphNode *, const CUgraphNode *, size_t);
#undef cuGraphGetEdges
CUresult CUDAAPI cuGraphGetEdges(CUgraph, CUgraphNode *, CUgraphNode *, size_t *);
#undef cuEventElapsedTime
CUresult CUDAAPI cuEventElapsedTime(float *, CUevent, CUevent);
#undef cuDeviceGetUuid
CUresult CUDAAPI cuDeviceGetUuid(CUuuid *, CUdevice);
#endif
WRAPPER
  echo "$dir/wrapper"
  exit 0
}

if [ "${FETCH:-0}" != 1 ]; then
  for d in "${CUDA_HOME:+$CUDA_HOME/include}" "${CUDA_PATH:+$CUDA_PATH/include}" /usr/local/cuda/include /opt/cuda/include /usr/include; do
    if [ -n "$d" ] && v=$(version "$d") && [ -n "$v" ]; then
      [ "$v" -ge 11000 ] && use "$d"
      say "$d/cuda.h is of CUDA $((v / 1000)); 11 or later is needed"
    fi
  done
fi
[ -n "$(version "$dir/include" || true)" ] && use "$dir/include"

mkdir -p "$dir"
work=$(mktemp -d "$dir/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

# keep FILE puts a cuda.h where it is found the next time.
keep() {
  mkdir -p "$dir/include"
  mv "$1" "$dir/include/cuda.h"
  rm -rf "$work"
  use "$dir/include"
}

wheel() {
  local pip=
  for p in "python3 -m pip" pip3 pip; do
    if $p --version >/dev/null 2>&1; then
      pip=$p
      break
    fi
  done
  [ -n "$pip" ] || { say "no pip"; return 1; }
  # The wheel for x86-64 serves every machine: cuda.h is the same.
  cat >"$work/requirements.txt" <<'PIN'
nvidia-cuda-runtime-cu12==12.4.127 \
  --hash=sha256:64403288fa2136ee8e467cdc9c9427e0434110899d07c779f25b5c068934faa5
PIN
  say "fetching the wheel nvidia-cuda-runtime-cu12 12.4.127"
  $pip download --quiet --no-deps --require-hashes --only-binary :all: --platform manylinux2014_x86_64 --dest "$work" -r "$work/requirements.txt" >&2 || return 1
  python3 -m zipfile -e "$work"/*.whl "$work/wheel" || return 1
  keep "$work/wheel/nvidia/cuda_runtime/include/cuda.h"
}

wheel || {
  say "cuda.h was neither found nor fetched: install the CUDA toolkit's headers and set CUDA_HOME to their parent folder, or put cuda.h into $dir/include"
  exit 1
}
