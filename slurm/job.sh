# shellcheck shell=bash
# What the batch scripts of this folder share. They source it after setting HPCGEN_SLURM_DIR to this folder.
#   hpcgen_begin SCRIPT CONFIG [RUN_DIR]   environment, one line about this start, sets CONFIG and RUN_DIR
#   hpcgen_step COMMAND...                 run one program on the run folder; stops or requeues the job if it must
#   hpcgen_array                           for jobs of VASP: sets HPCGEN_PART, the part that a task of a job array does
#   "${HPCGEN_RANKS[@]}"                   words that start a program on every task of the job

hpcgen_stopping= # set once Slurm has asked this job to end
hpcgen_signals=0
hpcgen_child=

# The batch shell alone gets the signals. Programs are told by USR1 in either case: srun and mpiexec hand it to every
# rank, but answer TERM by killing them.
hpcgen_on_signal() {
  hpcgen_stopping=yes
  hpcgen_signals=$((hpcgen_signals + 1))
  [ -z "$hpcgen_child" ] || kill -USR1 "$hpcgen_child" 2>/dev/null
}

hpcgen_begin() {
  local script=$1
  [ $# -ge 2 ] || hpcgen_refuse "no configuration given" "sbatch [options] $HPCGEN_SLURM_DIR/$script CONFIG [RUN_DIR]"
  CONFIG=$2
  RUN_DIR=${3:-}
  # shellcheck source=slurm/site.env
  source "$HPCGEN_SLURM_DIR/site.env"
  export PATH=$HPCGEN_VENV/bin:$PATH
  command -v hpcgen >/dev/null || hpcgen_refuse "there is no program hpcgen in $HPCGEN_VENV/bin" \
    "set HPCGEN_VENV, in $HPCGEN_SLURM_DIR/site.env or before sbatch, to where hpcgen is installed"
  # one thread per rank unless the job asks for more; since Slurm 22.05 srun does not take over --cpus-per-task by itself
  export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
  [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
  case $HPCGEN_LAUNCHER in
  srun) HPCGEN_RANKS=(srun --mpi="$HPCGEN_SRUN_MPI" --kill-on-bad-exit=1) ;;
  mpiexec) # it finds nodes and tasks per node in Slurm's variables
    HPCGEN_RANKS=(mpiexec --with-ft ulfm -n "$SLURM_NTASKS" --map-by "slot:pe=${SLURM_CPUS_PER_TASK:-1}")
    [ "$EUID" -ne 0 ] || HPCGEN_RANKS+=(--allow-run-as-root)
    # a killed mpiexec leaves a folder named after its process number, which breaks a later one that has the same
    PRTE_MCA_prte_local_tmpdir_base=$(mktemp -d)
    export PRTE_MCA_prte_local_tmpdir_base
    trap 'rm -rf "$PRTE_MCA_prte_local_tmpdir_base"' EXIT
    ;;
  *) hpcgen_refuse "HPCGEN_LAUNCHER is '$HPCGEN_LAUNCHER'" "set it to srun or to mpiexec" ;;
  esac
  trap hpcgen_on_signal USR1 TERM
  echo "=== ${script%.sh}: job $SLURM_JOB_ID, restart ${SLURM_RESTART_COUNT:-0} of at most $HPCGEN_MAX_RESTARTS," \
    "$SLURM_NTASKS tasks on $SLURM_JOB_NODELIST, $(date +%FT%T%z)"
}

# What a controller of slots needs: steps that share a node, and its part, (--shard I/N) in a job array, else ().
hpcgen_array() {
  local first last shards
  export SLURM_EXACT=1 SLURM_MEM_PER_NODE=0 # so that steps share a node; some sites need it
  HPCGEN_PART=()
  [ -n "${SLURM_ARRAY_TASK_ID:-}" ] || return 0
  first=${SLURM_ARRAY_TASK_MIN:?} last=${SLURM_ARRAY_TASK_MAX:?}
  shards=${HPCGEN_SHARDS:-$SLURM_ARRAY_TASK_COUNT}
  if [ -z "${HPCGEN_SHARDS:-}" ] && { [ "$first" -ne 0 ] || [ $((last + 1)) -ne "$SLURM_ARRAY_TASK_COUNT" ]; }; then
    hpcgen_refuse "the array runs from $first to $last with $SLURM_ARRAY_TASK_COUNT tasks" \
      "start at 0 without gaps (--array=0-7), or set HPCGEN_SHARDS to the number of parts of the whole"
  fi
  [ "$SLURM_ARRAY_TASK_ID" -lt "$shards" ] || hpcgen_refuse "there is no part $SLURM_ARRAY_TASK_ID of $shards" \
    "parts run from 0 to $((shards - 1))"
  # shellcheck disable=SC2034 # the scripts that source this one read it
  HPCGEN_PART=(--shard "$SLURM_ARRAY_TASK_ID/$shards")
}

# Run a program on CONFIG and RUN_DIR. Returns only if it succeeded; otherwise the job ends with its exit code, and goes
# back into the queue where it was stopped by a signal with everything saved.
hpcgen_step() {
  local code=75
  if [ -z "$hpcgen_stopping" ]; then
    "$@" "$CONFIG" ${RUN_DIR:+--run-dir "$RUN_DIR"} &
    hpcgen_child=$!
    [ -z "$hpcgen_stopping" ] || kill -USR1 "$hpcgen_child" 2>/dev/null # it came before the child was known
    hpcgen_await "$hpcgen_child" && code=0 || code=$?
    hpcgen_child=
  fi
  case $code in
  0) return 0 ;;
  75) hpcgen_requeue "stopped by a signal, what was done is saved" ;;
  # hpcgen's own codes (docs/commands.md) and a shell's for a missing program: it would fail again
  [1-9] | 1[01] | 12[67] | 130) echo "=== failed with exit code $code: see the message above" >&2 ;;
  *) # ended from outside: a killed rank, a lost node, or ranks that srun ended while they were stopping
    if [ -n "$hpcgen_stopping" ]; then
      hpcgen_requeue "stopped by a signal, what was done is saved"
    else
      hpcgen_requeue "a process was killed (exit code $code), what was done is saved"
    fi
    ;;
  esac
  exit "$code"
}

# The exit code of a child. A trapped signal ends `wait` early with 128 + its number, and one that comes as `wait` begins
# ends the next: wait until the child is gone, and then twice more, which returns at once.
hpcgen_await() {
  local code=127 again
  while kill -0 "$1" 2>/dev/null; do
    wait "$1" && code=0 || code=$?
  done
  for _ in 1 2; do
    wait "$1" && again=0 || again=$?
    [ "$again" -eq 127 ] || code=$again # 127: this shell has forgotten it after the first time
  done
  return "$code"
}

hpcgen_requeue() {
  local state
  state=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *JobState=\([^ ]*\) Reason=\([^ ]*\).*/\1 \2/p')
  case $state in
  RUNNING* | *TimeLimit) ;;
  *) # scancel: a requeue would bring a job back that somebody wanted to end
    echo "=== $1; not requeued, because Slurm has ended the job ($state)"
    return
    ;;
  esac
  if [ "${SLURM_RESTART_COUNT:-0}" -ge "$HPCGEN_MAX_RESTARTS" ]; then
    echo "=== $1; not requeued after $SLURM_RESTART_COUNT restarts (HPCGEN_MAX_RESTARTS): look at the progress above" >&2
  else
    echo "=== $1; back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
  fi
}

hpcgen_refuse() {
  printf 'hpcgen: %s\n  remedy:   %s\n' "$1" "$2" >&2
  exit 2
}
