#!/bin/bash
#SBATCH --job-name=hpcgen-phonons
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@360
#SBATCH --open-mode=append
#SBATCH --requeue
# Phonons by VASP of what is near the hull, when a campaign is done, whatever phonons.forces says. One allocation does
# all of them, or the tasks of an array do a part each:
#   sbatch --nodes=8 --ntasks-per-node=64 slurm/phonons_vasp.sh CONFIG [RUN_DIR]
#   sbatch --array=0-7 --nodes=1 --ntasks-per-node=64 slurm/phonons_vasp.sh CONFIG [RUN_DIR]
# The controller runs on the first node; vasp.command brings VASP to the others: [srun, -N1, -n64, --exact, vasp_std].
# After an array a job without one does what is left and writes phonons.h5. To run some parts again, say how many there
# are: HPCGEN_SHARDS=8 sbatch --array=3,5. What it will cost: `hpcgen phonons CONFIG --set phonons.forces=vasp --dry-run`
here=${HPCGEN_SLURM_DIR:-$(scontrol show job "${SLURM_JOB_ID:-none}" | sed -n 's/^ *Command=//p')}
HPCGEN_SLURM_DIR=${here%%/phonons_vasp.sh*} # Slurm runs a copy of this script; its companions lie beside the original
if [ ! -r "$HPCGEN_SLURM_DIR/job.sh" ]; then
  echo "hpcgen: no job.sh in '$HPCGEN_SLURM_DIR'; submit with sbatch, or export HPCGEN_SLURM_DIR=<the folder of these scripts>" >&2
  exit 2
fi
# shellcheck source=slurm/job.sh
source "$HPCGEN_SLURM_DIR/job.sh"
hpcgen_begin phonons_vasp.sh "$@"

hpcgen_array
hpcgen_step hpcgen doctor
hpcgen_step hpcgen phonons --set phonons.forces=vasp "${HPCGEN_PART[@]}"
