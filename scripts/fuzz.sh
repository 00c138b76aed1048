#!/usr/bin/env bash
# Fuzzes what reads foreign files, each target for so long, or so many inputs: scripts/fuzz.sh [10m | 300x]. What go test finds it
# writes to testdata/fuzz of the package; commit that with the fix. A process that is stopped for ten seconds is taken for one that
# hangs, so let it run undisturbed.
set -euo pipefail
cd "$(dirname "$0")/.."
for target in tokenizer/FuzzTokenizerJSON dataset/FuzzJSONL dataset/FuzzParquet dataset/FuzzParquetPage dataset/FuzzParseShard dataset/FuzzPackedSource; do
  go test "./pkg/${target%/*}" -run '^$' -fuzz "^${target#*/}\$" -fuzztime "${1:-10m}"
done
