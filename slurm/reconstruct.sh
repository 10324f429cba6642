#!/bin/bash
#SBATCH --job-name=hpcgen-reconstruct
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --requeue
# Reconstruction over all tasks of the job, then screening.
#   sbatch --ntasks=256 slurm/reconstruct.sh CONFIG [RUN_DIR]
here=${HPCGEN_SLURM_DIR:-$(scontrol show job "${SLURM_JOB_ID:-none}" | sed -n 's/^ *Command=//p')}
HPCGEN_SLURM_DIR=${here%%/reconstruct.sh*} # Slurm runs a copy of this script; its companions lie beside the original
if [ ! -r "$HPCGEN_SLURM_DIR/job.sh" ]; then
  echo "hpcgen: no job.sh in '$HPCGEN_SLURM_DIR'; submit with sbatch, or export HPCGEN_SLURM_DIR=<the folder of these scripts>" >&2
  exit 2
fi
# shellcheck source=slurm/job.sh
source "$HPCGEN_SLURM_DIR/job.sh"
hpcgen_begin reconstruct.sh "$@"

hpcgen_step "${HPCGEN_RANKS[@]}" hpcgen doctor --without-vasp
hpcgen_step "${HPCGEN_RANKS[@]}" hpcgen reconstruct
hpcgen_step hpcgen screen
