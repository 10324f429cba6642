#!/bin/bash
#SBATCH --job-name=hpcgen-relax
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --requeue
# Relaxation of the survivors and of the reference phases by the ML potential, over all tasks of the job.
#   sbatch --nodes=4 --ntasks-per-node=64 slurm/relax.sh CONFIG [RUN_DIR]
here=${HPCGEN_SLURM_DIR:-$(scontrol show job "${SLURM_JOB_ID:-none}" | sed -n 's/^ *Command=//p')}
HPCGEN_SLURM_DIR=${here%%/relax.sh*} # Slurm runs a copy of this script; its companions lie beside the original
if [ ! -r "$HPCGEN_SLURM_DIR/job.sh" ]; then
  echo "hpcgen: no job.sh in '$HPCGEN_SLURM_DIR'; submit with sbatch, or export HPCGEN_SLURM_DIR=<the folder of these scripts>" >&2
  exit 2
fi
# shellcheck source=slurm/job.sh
source "$HPCGEN_SLURM_DIR/job.sh"
hpcgen_begin relax.sh "$@"

hpcgen_step "${HPCGEN_RANKS[@]}" hpcgen doctor --without-vasp
hpcgen_step "${HPCGEN_RANKS[@]}" hpcgen relax
hpcgen_step "${HPCGEN_RANKS[@]}" hpcgen reference
