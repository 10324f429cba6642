#!/bin/bash
# Submit the whole chain, each job after the one before has succeeded:
#   slurm/submit.sh CONFIG [RUN_DIR]
# Sizes and other options of single jobs are in site.env, or in the environment:
#   HPCGEN_RECONSTRUCT_OPTIONS="--nodes=4 --ntasks-per-node=64" slurm/submit.sh CONFIG
set -euo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ] || [ ! -r "$1" ]; then
  echo "usage: $0 CONFIG [RUN_DIR]   (CONFIG: a YAML file that exists)" >&2
  exit 2
fi
HPCGEN_SLURM_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export HPCGEN_SLURM_DIR
# shellcheck source=slurm/site.env
source "$HPCGEN_SLURM_DIR/site.env"

scripts=(train sample reconstruct relax)
! grep -q '^vasp:' "$1" || scripts+=(relax_array)
previous=
for script in "${scripts[@]}" report; do
  name=HPCGEN_${script^^}_OPTIONS
  read -ra options <<<"$HPCGEN_OPTIONS ${!name}"
  previous=$(sbatch --parsable ${previous:+--dependency=afterok:$previous --kill-on-invalid-dep=yes} \
    "${options[@]}" "$HPCGEN_SLURM_DIR/$script.sh" "$@")
  previous=${previous%%;*} # a federation appends its cluster's name
  echo "$script: job $previous"
done
