#!/usr/bin/env bash
# Sets everything up and runs the tests; --all adds those marked gpu, dft and slow. Other arguments go to pytest.
#   HPCGEN_TEST_PROCESSES  how many run at the same time (default: 2)
#   HPCGEN_DATA  folder with the real data sets; tests that need it skip where it is unset (with CI=true: fail)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source env/setup.sh
hpcgen_setup mpi,mlip,vasp,dynamics,phonons,evaluate,test
if [ "${1:-}" = "--all" ]; then
  shift
  set -- -m "gpu or dft or slow or not slow" "$@"
fi
# two at a time, a file each; in the order of the files, for the longest comes first
exec python -m pytest -n "${HPCGEN_TEST_PROCESSES:-2}" --dist loadfile --no-loadscope-reorder "$@"
