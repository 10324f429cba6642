#!/bin/bash
#SBATCH --job-name=hpcgen-sample
#SBATCH --ntasks=1
#SBATCH --time=01:00:00
#SBATCH --open-mode=append
# Sampling: one process, on a GPU where the job has one.
#   sbatch [--gpus=1] slurm/sample.sh CONFIG [RUN_DIR]
source slurm/site.env

hpcgen_step hpcgen sample "$CONFIG"
