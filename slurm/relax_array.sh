#!/bin/bash
#SBATCH --job-name=hpcgen-dft
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@360
#SBATCH --open-mode=append
#SBATCH --requeue
# VASP for the selected structures. One allocation does all of them, or the tasks of an array do a part each:
#   sbatch --nodes=8 --ntasks-per-node=64 slurm/relax_array.sh CONFIG [RUN_DIR]
#   sbatch --array=0-7 --nodes=1 --ntasks-per-node=64 slurm/relax_array.sh CONFIG [RUN_DIR]
# The controller runs on the first node; vasp.command brings VASP to the others: [srun, -N1, -n64, --exact, vasp_std].
# Before an array: `hpcgen hull CONFIG` and `hpcgen select CONFIG`. After it a job without one (or `hpcgen run`) does
# what is left and writes the output. To run some parts again, say how many there are: HPCGEN_SHARDS=8 sbatch --array=3,5
here=${HPCGEN_SLURM_DIR:-$(scontrol show job "${SLURM_JOB_ID:-none}" | sed -n 's/^ *Command=//p')}
HPCGEN_SLURM_DIR=${here%%/relax_array.sh*} # Slurm runs a copy of this script; its companions lie beside the original
if [ ! -r "$HPCGEN_SLURM_DIR/job.sh" ]; then
  echo "hpcgen: no job.sh in '$HPCGEN_SLURM_DIR'; submit with sbatch, or export HPCGEN_SLURM_DIR=<the folder of these scripts>" >&2
  exit 2
fi
# shellcheck source=slurm/job.sh
source "$HPCGEN_SLURM_DIR/job.sh"
hpcgen_begin relax_array.sh "$@"

hpcgen_array
hpcgen_step hpcgen doctor
if [ ${#HPCGEN_PART[@]} -gt 0 ]; then
  hpcgen_step hpcgen dft "${HPCGEN_PART[@]}"
else
  for stage in hull select dft stability; do
    hpcgen_step hpcgen "$stage"
  done
fi
