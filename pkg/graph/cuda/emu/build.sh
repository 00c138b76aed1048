#!/usr/bin/env bash
# Builds the emulated GPU: libcuda.so.1 with the project's kernels in it, and libcublasLt.so.12. Needs g++, no CUDA.
#
#   build.sh OUTDIR [CSRC]     CSRC: the folder with args.h and the kernels, ../csrc if not given
#
# A program uses it with MEAP_CUDA_LIBS=OUTDIR in its environment. What is unchanged is not compiled again.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
csrc=$(cd "${2:-$here/../csrc}" && pwd)
cxx=${CXX:-g++}
command -v "$cxx" >/dev/null || { echo "build.sh: $cxx not found: the emulated GPU is compiled by it (Debian: apt-get install g++)" >&2; exit 1; }
case $(uname -s)/$(uname -m) in
Linux/x86_64 | Linux/aarch64) ;;
*) echo "build.sh: the emulated GPU runs on Linux on x86-64 and arm64 only" >&2; exit 1 ;;
esac
flags=(-std=c++17 -O2 -fPIC -fvisibility=hidden -U_FORTIFY_SOURCE -pthread -Wall -I"$here/src" -I"$csrc")
native=()
"$cxx" -march=native -x c++ -fsyntax-only - </dev/null 2>/dev/null && native=(-march=native)

# compile OBJECT SOURCE FLAGS... unless the object is newer than every source.
compile() {
  local object=$1 source=$2
  shift 2
  [ -e "$object" ] && [ -z "$(find "$here/src" "$csrc" "$here/build.sh" -newer "$object" \( -name '*.h' -o -name '*.cuh' -o -name build.sh \) -print -quit)" ] &&
    [ ! "$source" -nt "$object" ] && return
  "$cxx" "${flags[@]}" "${native[@]}" "$@" -c -o "$object.new" "$source"
  mv "$object.new" "$object"
}

objects=()
pids=()
add() {
  objects+=("$1")
  compile "$@" &
  pids+=($!)
}
for f in block driver memory streams launches kernels; do add "$out/$f.o" "$here/src/$f.cpp"; done
for f in "$csrc"/*.cu; do
  [ -e "$f" ] || { echo "build.sh: no kernels in $csrc" >&2; exit 1; }
  add "$out/k_$(basename "$f" .cu).o" "$f" -DMEAP_EMULATE -Wno-unknown-pragmas -Wno-unused -fno-strict-aliasing -include emu.h -x c++
done
for p in "${pids[@]}"; do wait "$p"; done
"$cxx" -shared -pthread -Wl,-soname,libcuda.so.1 -Wl,-z,defs -o "$out/libcuda.so.1.new" "${objects[@]}"
mv "$out/libcuda.so.1.new" "$out/libcuda.so.1"

compile "$out/cublaslt.o" "$here/src/cublaslt.cpp" -O3
"$cxx" -shared -pthread -Wl,-soname,libcublasLt.so.12 -Wl,-z,defs -Wl,-rpath,'$ORIGIN' -o "$out/libcublasLt.so.12.new" "$out/cublaslt.o" "$out/libcuda.so.1"
mv "$out/libcublasLt.so.12.new" "$out/libcublasLt.so.12"
