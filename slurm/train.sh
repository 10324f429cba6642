#!/bin/bash
#SBATCH --job-name=hpcgen-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
#SBATCH --open-mode=append
# Training: one task per GPU (or one per node without GPUs); the tasks find each other by Slurm's variables.
# An interrupted training starts over, so ask for enough time.
#   sbatch [--nodes=2 --ntasks-per-node=4 --gpus-per-node=4] slurm/train.sh CONFIG [RUN_DIR]
source slurm/site.env

hpcgen data "$CONFIG" ${RUN_DIR:+--run-dir "$RUN_DIR"} || exit
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol show node --oneliner "$first" | sed 's/.*NodeAddr=\([^ ]*\).*/\1/') # as Slurm itself reaches it
export MASTER_ADDR
hpcgen_step srun --kill-on-bad-exit=1 hpcgen-train "$CONFIG"
