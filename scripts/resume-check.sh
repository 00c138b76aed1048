#!/usr/bin/env bash
# Checks that a run does not depend on how it is cut: stopped and resumed, interrupted and resumed, at another number of threads, in
# other micro-batches. Needs Go, nothing else.
#
#     scripts/resume-check.sh [REPETITIONS]      of the interruption, 3 by default; FULL=1 for the whole quickstart model
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/check-lib.sh"
repetitions=${1:-3}
straight_run

# Stopped after step 10 by the configuration, then resumed.
pretrain "$work/stopped" --set trainer.stop_after=10 >"$work/first.json" || die "stop_after: $(cat "$work/log")"
[ "$(cat "$work/stopped/checkpoints/latest")" = step-00000010 ] || fail "trainer.stop_after=10 left the checkpoint $(cat "$work/stopped/checkpoints/latest")"
pretrain "$work/stopped" >"$work/second.json" || die "resume: $(cat "$work/log")"
steps "$work/first.json" "$work/second.json" >"$work/stopped.steps"
expect_same "stopped after step 10 and resumed" "$work/straight.steps" "$work/stopped.steps"
expect_weights "stopped after step 10 and resumed" "$work/stopped"

# Interrupted by a signal at a random moment: saved, exit code 130, resumed. (A shell starts background processes deaf to SIGINT,
# so this is SIGTERM; meap treats both alike.)
interrupted=0
for ((i = 1; i <= repetitions; i++)); do
  rm -rf "$work/interrupted"
  : >"$work/interrupted.json"
  "$work/meap" pretrain "${settings[@]}" --set trainer.checkpoint_every=0 --output "$work/interrupted" --json \
    >>"$work/interrupted.json" 2>>"$work/log" &
  pid=$!
  at=$((RANDOM % 18 + 1))
  while kill -0 $pid 2>/dev/null && [ "$(steps "$work/interrupted.json" | wc -l)" -lt $at ]; do sleep 0.005; done
  kill -TERM $pid 2>/dev/null || true
  code=0
  wait $pid || code=$?
  case $code in
  130) interrupted=$((interrupted + 1)) ;;
  0) ;; # it was faster than the signal
  *) fail "an interrupted run exits $code, not 130: $(tail -1 "$work/log")" ;;
  esac
  pretrain "$work/interrupted" --set trainer.checkpoint_every=0 >>"$work/interrupted.json" || die "resume: $(cat "$work/log")"
  steps "$work/interrupted.json" >"$work/interrupted.steps"
  expect_same "interrupted and resumed" "$work/straight.steps" "$work/interrupted.steps"
  expect_weights "interrupted and resumed" "$work/interrupted"
done

# Any number of threads gives the same bits.
for threads in 1 2 3; do
  pretrain "$work/threads-$threads" --threads $threads >"$work/threads.json" || die "$threads threads: $(cat "$work/log")"
  results "$work/threads.json" >"$work/threads.all"
  expect_same "$threads threads" "$work/straight.all" "$work/threads.all"
  expect_weights "$threads threads" "$work/threads-$threads"
done

# A step's rows and masks are those of its whole batch, however it is split; sums are taken in another order, so losses agree up to
# rounding only.
setting() { sed -nE "s/^    $1: ([0-9]+)$/\1/p" "$work/straight/config.yaml"; }
rows=$(($(setting micro_batch) * $(setting accumulate)))
splits=0
for ((accumulate = 1; accumulate <= rows; accumulate++)); do
  [ $((rows % accumulate)) = 0 ] || continue
  micro=$((rows / accumulate))
  splits=$((splits + 1))
  for step in 1 2 19; do
    "$work/meap" data inspect "${settings[@]}" --set "trainer.micro_batch=$micro" --set "trainer.accumulate=$accumulate" \
      --step $step --rows $rows --json 2>>"$work/log"
  done >"$work/rows"
  [ -s "$work/whole.rows" ] || cp "$work/rows" "$work/whole.rows"
  [ "$(wc -l <"$work/rows")" -eq $((3 * rows)) ] || fail "meap data inspect printed $(wc -l <"$work/rows") rows, not $((3 * rows))"
  expect_same "rows and masks of $micro x $accumulate" "$work/whole.rows" "$work/rows"
  pretrain "$work/split-$micro" --set "trainer.micro_batch=$micro" --set "trainer.accumulate=$accumulate" >"$work/split.json" ||
    die "$micro x $accumulate: $(cat "$work/log")"
  steps "$work/split.json" >"$work/split.steps"
  paste -d' ' "$work/straight.steps" "$work/split.steps" |
    awk '{ d = $2 - $6; if (d < 0) d = -d; if (NF != 8 || d > 1e-4) { print; bad = 1 } } END { exit bad || NR != 20 }' ||
    fail "the losses of $micro x $accumulate are not those of one batch"
done

passed "20 steps: stopped and resumed, interrupted $interrupted of $repetitions times, 1 to 3 threads, $splits splits of $rows rows"
