#!/bin/bash
# Submit the whole chain, each job after the one before has succeeded:
#   slurm/submit.sh CONFIG [RUN_DIR]
# Options for single jobs: HPCGEN_TRAIN_OPTIONS="--nodes=2 --ntasks-per-node=4 --gpus-per-node=4" and likewise for the other scripts.
set -euo pipefail
CONFIG=${1:?usage: slurm/submit.sh CONFIG [RUN_DIR]}
previous=
for script in train sample reconstruct relax report; do
  options=HPCGEN_$(echo "$script" | tr a-z A-Z)_OPTIONS
  # shellcheck disable=SC2086 - the options are several words
  previous=$(sbatch --parsable ${previous:+--dependency=afterok:$previous} --kill-on-invalid-dep=yes ${!options:-} "slurm/$script.sh" "$@")
  echo "$script: job $previous"
done
