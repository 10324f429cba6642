#!/usr/bin/env bash
# Sets everything up and runs the tests; --all adds those marked gpu, dft and slow. Other arguments go to pytest.
#   HPCGEN_DATA  folder with the real data sets; tests that need it skip where it is unset (with CI=true: fail)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source env/setup.sh
hpcgen_setup mpi,mlip,dynamics,test
if [ "${1:-}" = "--all" ]; then
  shift
  set -- -m "gpu or dft or slow or not slow" "$@"
fi
exec python -m pytest "$@"
