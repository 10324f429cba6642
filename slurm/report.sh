#!/bin/bash
#SBATCH --job-name=hpcgen-report
#SBATCH --time=01:00:00
#SBATCH --open-mode=append
#SBATCH --requeue
# Hulls and the report, in one process.
#   sbatch slurm/report.sh CONFIG [RUN_DIR]
here=${HPCGEN_SLURM_DIR:-$(scontrol show job "${SLURM_JOB_ID:-none}" | sed -n 's/^ *Command=//p')}
HPCGEN_SLURM_DIR=${here%%/report.sh*} # Slurm runs a copy of this script; its companions lie beside the original
if [ ! -r "$HPCGEN_SLURM_DIR/job.sh" ]; then
  echo "hpcgen: no job.sh in '$HPCGEN_SLURM_DIR'; submit with sbatch, or export HPCGEN_SLURM_DIR=<the folder of these scripts>" >&2
  exit 2
fi
# shellcheck source=slurm/job.sh
source "$HPCGEN_SLURM_DIR/job.sh"
hpcgen_begin report.sh "$@"

hpcgen_step hpcgen doctor --without-vasp
hpcgen_step hpcgen hull
hpcgen_step hpcgen report
