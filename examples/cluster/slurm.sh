#!/usr/bin/env bash
# One SLURM job of several nodes, a worker per GPU:   sbatch slurm.sh SOURCE [OPTION of rsqa ask]...
# Requeued or submitted again, it goes on where it stopped: parts are in the output folder.
#SBATCH --job-name=rsqa
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -euo pipefail
port=$((20000 + SLURM_JOB_ID % 20000))
dask scheduler --port "$port" --no-dashboard &

# Each task sees its own GPU as the first one. Without --kill-on-bad-exit=0 one lost worker would end all.
OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK srun --kill-on-bad-exit=0 \
    dask worker "tcp://$(hostname):$port" --nthreads 2 --no-dashboard --local-directory "${TMPDIR:-/tmp}" &

# TERM, two minutes before the time is up, lets the parts in flight commit; the exit code is then 143.
rsqa ask "$@" --scheduler "tcp://$(hostname):$port" --device cuda --no-progress &
asking=$!
trap 'kill -TERM "$asking"' TERM
while kill -0 "$asking" 2>/dev/null; do
    wait "$asking" && code=0 || code=$? # the trap ends a wait, not what is waited for
done
exit "$code"
