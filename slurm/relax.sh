#!/bin/bash
#SBATCH --job-name=hpcgen-relax
#SBATCH --ntasks=16
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --requeue
# Relaxation of the survivors and of the reference phases by the ML potential, over all ranks of the job.
#   sbatch [--nodes=4 --ntasks-per-node=64] slurm/relax.sh CONFIG [RUN_DIR]
source slurm/site.env

hpcgen_step srun --mpi="$HPCGEN_SRUN_MPI" --kill-on-bad-exit=1 hpcgen-relax "$CONFIG" || exit
hpcgen_step srun --mpi="$HPCGEN_SRUN_MPI" --kill-on-bad-exit=1 hpcgen-reference "$CONFIG"
