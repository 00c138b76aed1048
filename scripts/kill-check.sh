#!/usr/bin/env bash
# Checks that a run which is killed at random moments and started again each time is the run that nothing disturbed: every loss that
# it ever printed, its metrics and its last checkpoint, to the last digit. Needs Go, nothing else.
#
#     scripts/kill-check.sh [REPETITIONS] [SEED]      20 by default; FULL=1 for the whole quickstart model
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/check-lib.sh"
repetitions=${1:-20}
RANDOM=${2:-$$}
echo "seed ${2:-$$}" >&2
straight_run

# The time that a run takes, in milliseconds, now that its data is prepared: moments are drawn from it.
start=$(date +%s%N)
pretrain "$work/timed" >/dev/null
took=$((($(date +%s%N) - start) / 1000000))

kills=0 midway=0 torn=0
for ((i = 1; i <= repetitions; i++)); do
  out="$work/killed"
  rm -rf "$out"
  : >"$work/killed.json"
  # One to three kills, the later ones of runs that had been resumed.
  for ((k = RANDOM % 3; k >= 0; k--)); do
    "$work/meap" pretrain "${settings[@]}" --output "$out" --json >>"$work/killed.json" 2>>"$work/log" &
    pid=$!
    moment=$((RANDOM * took / 32768))
    sleep "$(printf '%d.%03d' $((moment / 1000)) $((moment % 1000)))"
    kill -KILL $pid 2>/dev/null && kills=$((kills + 1))
    { wait $pid || true; } 2>/dev/null
    reached=$(sed -n '$s/^{"step":\([0-9]*\),.*/\1/p' "$work/killed.json")
    [ "${reached:-0}" -eq 0 ] || [ "$reached" -eq 20 ] || midway=$((midway + 1))
    # A line that the kill cut short would swallow the next one.
    [ -z "$(tail -c1 "$work/killed.json")" ] || { echo >>"$work/killed.json"; torn=$((torn + 1)); }
  done
  pretrain "$out" >>"$work/killed.json" || die "repetition $i does not resume: $(tail -3 "$work/log")"
  # Steps after the last checkpoint are run again; they must come out the same.
  results "$work/killed.json" | sort -u | sort -n -k1,1 -s >"$work/killed.all"
  sort -u "$work/straight.all" | sort -n -k1,1 -s >"$work/sorted"
  expect_same "repetition $i: what --json printed" "$work/sorted" "$work/killed.all"
  results "$out/metrics.jsonl" >"$work/killed.metrics"
  expect_same "repetition $i: metrics.jsonl" "$work/straight.all" "$work/killed.metrics"
  expect_weights "repetition $i" "$out"
  left=$(find "$out" -name '.tmp-*' -o -name '.replaced-*')
  [ -z "$left" ] || fail "repetition $i leaves $left"
done
[ "$midway" -gt 0 ] || fail "no run was killed between its first step and its last"

passed "$repetitions runs, killed $kills times in all ($midway between their first step and their last, $torn in the middle of a line), end as the straight one"
