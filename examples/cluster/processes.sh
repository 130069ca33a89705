#!/usr/bin/env bash
# A scheduler and N workers by hand, on this machine or several that share a disk:   processes.sh N SOURCE [OPTION of rsqa ask]...
# Kill a worker while it runs, or start more of them: the answers stay the same.
set -euo pipefail
n=$1
shift
file=$(mktemp -d)/scheduler.json
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -r "$(dirname "$file")"' EXIT

dask scheduler --host 127.0.0.1 --port 0 --no-dashboard --scheduler-file "$file" 2>/dev/null &
for _ in $(seq "$n"); do
    dask worker --scheduler-file "$file" --nthreads 2 --no-dashboard 2>/dev/null &
done
until [[ -s $file ]]; do sleep 0.2; done
address=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$file")
rsqa ask "$@" --scheduler "$address" --device cpu
