#!/bin/bash
#SBATCH --job-name=hpcgen-report
#SBATCH --ntasks=1
#SBATCH --time=01:00:00
#SBATCH --open-mode=append
# Hulls and the report.
#   sbatch slurm/report.sh CONFIG [RUN_DIR]
source slurm/site.env

hpcgen_step hpcgen hull "$CONFIG" || exit
hpcgen_step hpcgen report "$CONFIG"
