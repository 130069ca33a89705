"""dask-jobqueue: workers as SLURM jobs that come and go. `python jobqueue.py SOURCE [OPTION of rsqa ask]...`

A job is one GPU and one worker. Between 1 and 64 of them run, as the queue has room; those that are preempted or reach
their time are replaced.
"""

from __future__ import annotations

import subprocess
import sys

from dask_jobqueue import SLURMCluster


def main() -> int:
    cluster = SLURMCluster(
        processes=1,
        cores=2,  # threads of the worker: one part in the model, one read or written
        memory="32GB",
        walltime="04:00:00",
        job_extra_directives=["--gpus=1", "--cpus-per-task=4"],
        worker_extra_args=["--lifetime", "230m", "--lifetime-stagger", "5m"],
    )
    with cluster:
        cluster.adapt(minimum=1, maximum=64)
        command = ["rsqa", "ask", *sys.argv[1:], "--scheduler", cluster.scheduler_address, "--device", "cuda"]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
