#!/usr/bin/env bash
# Runs meap on one GPU in a container (docker build -f Dockerfile.cuda -t meap:cuda . first; needs the NVIDIA Container Toolkit):
#
#     TEXTS=~/texts RUNS=~/runs scripts/run/docker.sh pretrain --config /configs/quickstart.yaml \
#         --set 'data.sources=[/data]' --set data.cache_dir=/output/cache --output /output/mine
#
# TEXTS is /data inside (read only), RUNS is /output. GPU=1 takes the second one. Interrupting it saves a checkpoint; the same
# command resumes.
set -euo pipefail
runs=${RUNS:-$PWD/runs}
mkdir -p "$runs"
terminal=()
[ -t 1 ] && terminal=(--tty)
exec docker run --rm --interactive "${terminal[@]}" --init --gpus "device=${GPU:-0}" --user "$(id -u):$(id -g)" --stop-timeout 120 \
  --volume "${TEXTS:-$PWD}:/data:ro" --volume "$runs:/output" "${IMAGE:-meap:cuda}" "$@"
