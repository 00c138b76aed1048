# What the checks of this folder share; they source it. It builds meap into a temporary folder, $work, which is removed at the end.
#
# FULL=1 runs configs/quickstart.yaml as it is, over 20 steps. Without it the model and its rows are so small that a run takes less
# than a second: what is checked does not depend on size.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/meap-check.XXXXXX")
at_exit() { rm -rf "$work"; } # a check that has more to clean up defines it again
trap 'at_exit' EXIT

trap 'echo "FAILED: $0, line $LINENO" >&2' ERR

failures=0
fail() {
  printf 'FAILED: %s\n' "$*" >&2
  failures=$((failures + 1))
}
die() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}
passed() {
  [ "$failures" = 0 ] || die "$failures of the checks above"
  printf 'ok: %s\n' "$*"
}

# The run that every check varies.
settings=(--config "$repo/configs/quickstart.yaml" --set trainer.steps=20 --set trainer.checkpoint_every=5 --set "data.cache_dir=$work/data")
if [ "${FULL:-0}" != 1 ]; then
  settings+=(
    --set model.layers=2 --set model.dim=64 --set model.heads=2 --set model.kv_heads=1 --set model.ffn=96
    --set trainer.micro_batch=4 --set trainer.accumulate=1 --set trainer.seq=64
    --set 'data.sources=$GOROOT/src/go/scanner/*.go' --set data.validation_fraction=0.1
  )
fi

echo "building meap" >&2
(cd "$repo" && CGO_ENABLED=0 go build -o "$work/meap" ./cmd/meap)

# pretrain OUTPUT [FLAG...] trains in a folder; records go to standard output, text for people to $work/log.
pretrain() {
  local output=$1
  shift
  "$work/meap" pretrain "${settings[@]}" --output "$output" --json "$@" 2>>"$work/log"
}

# results [FILE...] prints "STEP LOSS LEARNING_RATE GRADIENT_NORM" for every complete record of a step, and "STEP val VAL_LOSS" for
# every validation, all digits as they are printed. What depends on the clock is left out.
results() {
  sed -nE -e 's/^\{"step":([0-9]+),"loss":([^,]+),"learning_rate":([^,]+),"grad_norm":([^,]+),.*\}$/\1 \2 \3 \4/p' \
    -e 's/^\{"step":([0-9]+),"val_loss":([^,}]+).*\}$/\1 val \2/p' "$@"
}

# steps [FILE...] prints the records of steps only.
steps() { results "$@" | sed '/val/d'; }

# expect_same WHAT A B compares two files, to the last digit.
expect_same() {
  diff "$2" "$3" >"$work/diff" || {
    head -20 "$work/diff" >&2
    fail "$1"
  }
}

# straight_run makes $work/straight.steps and $work/straight.all: the results of the run that nothing disturbs.
straight_run() {
  pretrain "$work/straight" >"$work/straight.json" || die "the straight run: $(cat "$work/log")"
  steps "$work/straight.json" >"$work/straight.steps"
  results "$work/straight.json" >"$work/straight.all"
  [ "$(wc -l <"$work/straight.steps")" -eq 20 ] || die "the straight run printed $(wc -l <"$work/straight.steps") steps, not 20"
  results "$work/straight/metrics.jsonl" >"$work/straight.metrics"
  expect_same "metrics.jsonl holds what --json printed" "$work/straight.all" "$work/straight.metrics"
}

# expect_weights WHAT OUTPUT compares the last checkpoint's weights and moments with the straight run's, byte for byte.
expect_weights() {
  local file
  for file in model.safetensors trainer.safetensors; do
    cmp -s "$work/straight/checkpoints/step-00000020/$file" "$2/checkpoints/step-00000020/$file" || fail "$1: $file differs"
  done
}
