#!/usr/bin/env bash
# A private Slurm of N virtual nodes on this machine, for tests and for trying batch scripts (root, Debian packages
# slurm-wlm munge; nothing listens outside the loopback interface).
#   env/virtual_slurm.sh start FOLDER [NODES] [CPUS]   then: export SLURM_CONF=FOLDER/slurm.conf
#   env/virtual_slurm.sh kill-node FOLDER NODE          everything on that node (v1, v2 ...) dies at once
#   env/virtual_slurm.sh stop FOLDER
set -euo pipefail

action=${1:?usage: virtual_slurm.sh start FOLDER [NODES] [CPUS] | kill-node FOLDER NODE | stop FOLDER}
folder=$(mkdir -p "${2:?folder}" && cd "$2" && pwd)
nodes=${3:-2}
cpus=${4:-2}
port=${HPCGEN_SLURM_PORT:-17400}
export SLURM_CONF=$folder/slurm.conf

stop() {
  local file pid
  for file in "$folder"/run/*.pid; do
    if [ -s "$file" ]; then kill "$(cat "$file")" 2>/dev/null || true; fi
  done
  sleep 0.5
  for pid in $(pgrep -x slurmstepd || true); do # steps that ended badly leave their keeper behind
    if of_this_cluster "$pid"; then kill -9 "$pid" || true; fi
  done
}

# Slurm's daemons, and what they start, have the cluster's configuration in their environment.
of_this_cluster() {
  grep -qzF "SLURM_CONF=$SLURM_CONF" "/proc/$1/environ" 2>/dev/null
}

# A node is a UTS namespace: its slurmd, the keepers of its steps, their tasks.
kill_node() {
  local node=$1 space directory pid
  space=$(readlink "/proc/$(cat "$folder/run/slurmd.$node.pid")/ns/uts")
  for directory in /proc/[0-9]*; do
    pid=${directory#/proc/}
    if [ "$(readlink "$directory/ns/uts" 2>/dev/null)" = "$space" ] && of_this_cluster "$pid"; then
      kill -9 "$pid" 2>/dev/null || true
    fi
  done
}

write_configuration() {
  cat >"$SLURM_CONF" <<CONF
ClusterName=virtual
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$port
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.%n.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
TmpFS=$folder/tmp/%n
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/run/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
MpiDefault=none
MailProg=/bin/true
ReturnToService=1
SlurmdTimeout=15
KillWait=3
KillOnBadExit=1
JobRequeue=1
PropagateResourceLimitsExcept=MEMLOCK,CORE
NodeName=v[1-$nodes] NodeHostname=v[1-$nodes] NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + nodes))] CPUs=$cpus State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
  local missing="" program i
  for program in munged slurmctld slurmd sinfo; do
    command -v "$program" >/dev/null || missing="$missing $program"
  done
  if [ -n "$missing" ]; then
    echo "missing:$missing; apt-get install --no-install-recommends slurm-wlm slurm-wlm-basic-plugins munge libpmix2" >&2
    exit 3
  fi
  # Debian's Slurm looks for the unversioned name of the PMIx library
  for library in /usr/lib/*/pmix2/lib/libpmix.so.2; do
    [ -e "$library" ] && ln -sf libpmix.so.2 "${library%.2}"
  done
  mkdir -p "$folder"/{run,log,state,spool}
  chmod 700 "$folder/run"
  [ -s "$folder/run/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom >"$folder/run/munge.key")
  write_configuration
  munged --force --key-file="$folder/run/munge.key" --socket="$folder/run/munge.socket" \
    --pid-file="$folder/run/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/run/munge.seed"
  slurmctld -f "$SLURM_CONF"
  for i in $(seq "$nodes"); do # each node has its own host name, which is all that makes it a node
    mkdir -p "$folder/spool/v$i" "$folder/tmp/v$i" # PMIx needs a temporary folder of its own on each node
    unshare --uts sh -c "hostname v$i && exec slurmd -N v$i -f '$SLURM_CONF'"
  done
  for i in $(seq 100); do
    [ "$(sinfo --noheader --Node --format=%T 2>/dev/null | grep -c '^idle$')" = "$nodes" ] && exit 0
    sleep 0.1
  done
  echo "the nodes did not come up:" >&2
  sinfo --Node --long >&2 || tail -n 5 "$folder"/log/*.log >&2
  exit 4
}

case $action in
start) start ;;
kill-node) kill_node "${3:?node}" ;;
stop) stop ;;
*) echo "unknown action $action" >&2 && exit 2 ;;
esac
