#!/bin/bash
#SBATCH --job-name=hpcgen-train
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --requeue
# Training: one task per GPU, or one per node without GPUs; the tasks find each other by Slurm's variables.
# Before its time is up it writes a checkpoint, goes back into the queue, and then goes on from there.
#   sbatch [--nodes=2 --ntasks-per-node=4 --gpus-per-node=4] slurm/train.sh CONFIG [RUN_DIR]
here=${HPCGEN_SLURM_DIR:-$(scontrol show job "${SLURM_JOB_ID:-none}" | sed -n 's/^ *Command=//p')}
HPCGEN_SLURM_DIR=${here%%/train.sh*} # Slurm runs a copy of this script; its companions lie beside the original
if [ ! -r "$HPCGEN_SLURM_DIR/job.sh" ]; then
  echo "hpcgen: no job.sh in '$HPCGEN_SLURM_DIR'; submit with sbatch, or export HPCGEN_SLURM_DIR=<the folder of these scripts>" >&2
  exit 2
fi
# shellcheck source=slurm/job.sh
source "$HPCGEN_SLURM_DIR/job.sh"
hpcgen_begin train.sh "$@"

hpcgen_step hpcgen doctor --without-vasp
hpcgen_step hpcgen data
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol show node --oneliner "$first" | sed 's/.*NodeAddr=\([^ ]*\).*/\1/') # as Slurm itself reaches it
export MASTER_ADDR
hpcgen_step srun --kill-on-bad-exit=1 hpcgen train
