#!/usr/bin/env bash
# Machines that one can log in to and that share a disk:   ssh.sh "HOST1 HOST2 …" SOURCE [OPTION of rsqa ask]...
# The first one also has the scheduler. Each gets one worker; for several GPUs a machine see cuda.sh.
set -euo pipefail
read -ra hosts <<<"$1"
shift
dask ssh "${hosts[0]}" "${hosts[@]}" --nthreads 2 --nworkers 1 &
trap 'kill %1' EXIT
sleep 20 # until the scheduler listens; workers may come later
rsqa ask "$@" --scheduler "tcp://${hosts[0]}:8786" --device cuda
