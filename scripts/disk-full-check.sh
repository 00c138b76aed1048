#!/usr/bin/env bash
# Checks what a full disk does to a run: it fails with exit code 1 and says that the disk is full, the checkpoint before stays, and
# with space again the run goes on as if nothing had happened. Needs Go, Linux, and the right to mount a tmpfs (root, or user
# namespaces); it says "skipped" and succeeds where that is missing.
#
#     scripts/disk-full-check.sh [REPETITIONS]      of each way to fill it, 2 by default; FULL=1 for the whole quickstart model
set -euo pipefail

# In a mount namespace of its own, what is mounted here is gone when the script ends, however it ends.
if [ "${MOUNT_NAMESPACE:-}" != 1 ]; then
  try=(unshare --mount)
  [ "$(id -u)" = 0 ] || try=(unshare --mount --map-root-user)
  probe=$(mktemp -d)
  trap 'rmdir "$probe"' EXIT
  if ! "${try[@]}" mount -t tmpfs -o size=64k none "$probe" 2>/dev/null; then
    echo "skipped: a tmpfs cannot be mounted here (Linux, and root or user namespaces, are needed)"
    exit 0
  fi
  MOUNT_NAMESPACE=1 "${try[@]}" "${BASH_SOURCE[0]}" "$@"
  exit
fi

source "$(dirname "${BASH_SOURCE[0]}")/check-lib.sh"
repetitions=${1:-2}
straight_run
checkpoint=$(du -sk "$work/straight/checkpoints/step-00000020" | cut -f1)

disk="$work/disk"
mkdir "$disk"
mount -t tmpfs -o "size=$((4 * checkpoint + 1024))k" none "$disk"
at_exit() {
  umount "$disk" 2>/dev/null || true
  rm -rf "$work"
}

# fill KILOBYTES leaves that much space.
fill() {
  local free
  free=$(df -k --output=avail "$disk" | tail -1)
  head -c $(((free - $1) * 1024)) /dev/zero >"$disk/filler"
}

for ((i = 1; i <= repetitions; i++)); do
  # No byte is left; half a checkpoint fits; a checkpoint's weights fit, its moments do not.
  for space in 0 $((checkpoint / 2)) $((checkpoint * 9 / 10)); do
    what="with $space of $checkpoint KiB left"
    rm -rf "$disk/run" "$disk/filler"
    pretrain "$disk/run" --set trainer.stop_after=5 >"$work/full.json" || die "the first five steps: $(tail -3 "$work/log")"
    (cd "$disk/run/checkpoints" && find . -type f -exec cksum {} + | sort) >"$work/before"
    fill $space
    : >"$work/log"
    code=0
    pretrain "$disk/run" >>"$work/full.json" || code=$?
    [ $code = 1 ] || fail "$what: exit code $code, not 1"
    grep -q 'disk full: no space is left' "$work/log" || fail "$what: the message is $(tail -1 "$work/log")"
    (cd "$disk/run/checkpoints" && find . -type f -exec cksum {} + | sort) >"$work/after"
    expect_same "$what: the checkpoint before" "$work/before" "$work/after"
    rm "$disk/filler"
    pretrain "$disk/run" >>"$work/full.json" || die "$what: does not resume with space again: $(tail -3 "$work/log")"
    steps "$work/full.json" | sort -u | sort -n -k1,1 >"$work/full.steps"
    expect_same "$what: the losses" "$work/straight.steps" "$work/full.steps"
    expect_weights "$what" "$disk/run"
  done
done

passed "a full disk, three ways, $repetitions times each: exit code 1, said so, the checkpoint before stays, the run goes on"
