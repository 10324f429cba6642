#!/usr/bin/env bash
# From a fresh clone to a stability report on built-in data: about ten minutes on two cores, installation included.
# A second run reuses the environment and every finished stage. Start over: rm -r runs/quickstart
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
start=$SECONDS
source env/setup.sh
hpcgen_setup mpi,mlip
hpcgen run configs/quickstart.yaml --run-dir runs/quickstart
echo "quickstart: done in $((SECONDS - start)) s"
echo "$PWD/runs/quickstart/report/index.html"
