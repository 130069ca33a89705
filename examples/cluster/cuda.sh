#!/usr/bin/env bash
# dask-cuda: a worker per GPU of this machine, each bound to the processors next to it:   cuda.sh SOURCE [OPTION of rsqa ask]...
# On more machines run the `dask cuda worker` line there, with this one's address.
set -euo pipefail
dask scheduler --port 8786 --no-dashboard &
dask cuda worker tcp://127.0.0.1:8786 --nthreads 2 --no-dashboard &
trap 'kill %1 %2' EXIT
rsqa ask "$@" --scheduler tcp://127.0.0.1:8786 --device cuda
