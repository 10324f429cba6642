#!/bin/bash
#SBATCH --job-name=hpcgen-reconstruct
#SBATCH --ntasks=16
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --requeue
# Reconstruction over all ranks of the job, then screening.
#   sbatch [--nodes=4 --ntasks-per-node=64] slurm/reconstruct.sh CONFIG [RUN_DIR]
source slurm/site.env

hpcgen_step srun --mpi="$HPCGEN_SRUN_MPI" --kill-on-bad-exit=1 hpcgen-reconstruct "$CONFIG" || exit
hpcgen_step hpcgen screen "$CONFIG"
