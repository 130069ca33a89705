#!/bin/sh
#SBATCH --job-name=rsqa-monitor --array=1-3%1 --time=01:00:00 --gpus=1
# sbatch it in the folder of WATCH.toml. Three passes one after the other, each within its hour: max_minutes = 50 there.
# Exit code 10 says that there is more to do, 75 that another pass is at work; neither is a failed job.
rsqa monitor run WATCH.toml
code=$?
[ "$code" -eq 10 ] || [ "$code" -eq 75 ] || exit "$code"
