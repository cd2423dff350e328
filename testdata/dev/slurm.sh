#!/bin/sh
# Runs a Slurm of three nodes, all on this machine, until its standard input ends.
# The partition main has the first, other the second, wide both; low and urgent,
# which preempts low, have the third. The second node has a mount namespace of
# its own, where any user may open /dev/fuse; CURI_SLURM_REACH is shell code that
# is run there, with a directory for its mounts, before jobs can.
#
# munged, slurmctld and slurmd have their keys, sockets, logs and state in a new
# directory below /tmp, and ports of their own; nothing of the machine's own
# configuration is read or changed. When jobs can be submitted it prints
# SLURM_CONF=PATH, which the programs that are to use it need in their
# environment. The end of the input, SIGINT and SIGTERM end the daemons and all
# that their jobs left, and remove the directory. It wants to be root: slurmd
# starts jobs as their users.
set -eu

PATH=$PATH:/usr/sbin:/sbin
for program in munged mungekey slurmctld slurmd; do
    command -v "$program" >/dev/null || { echo "there is no $program here (testdata/dev/debian.sh installs it)" >&2; exit 1; }
done
dir=$(mktemp -d /tmp/curi-slurm-XXXXXX)
export SLURM_CONF="$dir/slurm.conf"
host=$(hostname)
mkdir "$dir/state" "$dir/spool" "$dir/munge" "$dir/mnt"
# Users read the configuration, and speak to munged.
chmod 755 "$dir" "$dir/spool" "$dir/munge"

# Free ports: asked of the kernel, which gives no port twice in a row.
ports=$(python3 -c 'import socket
s = [socket.socket() for _ in range(4)]
for x in s: x.bind(("127.0.0.1", 0))
print(*[x.getsockname()[1] for x in s])')
# shellcheck disable=SC2086 # several ports
set -- $ports

# cred_expire also is how long a requeued job waits; a time limit is looked at
# every 30 seconds, whatever is set. CPUs are only counted: many jobs fit at a
# time, whatever the machine has.
cat >"$SLURM_CONF" <<CONF
ClusterName=curitest
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$1
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=600
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,defer_batch=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$2 CPUs=32 RealMemory=65536 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$3 CPUs=32 RealMemory=65536 State=UNKNOWN
NodeName=n3 NodeHostname=$host NodeAddr=127.0.0.1 Port=$4 CPUs=2 RealMemory=65536 State=UNKNOWN
PartitionName=main Nodes=n1 Default=YES PriorityTier=1 OverSubscribe=NO MaxTime=INFINITE
PartitionName=other Nodes=n2 PriorityTier=1 OverSubscribe=NO MaxTime=INFINITE
PartitionName=wide Nodes=n1,n2 PriorityTier=1 OverSubscribe=NO MaxTime=INFINITE
PartitionName=low Nodes=n3 PriorityTier=1 OverSubscribe=NO MaxTime=INFINITE
PartitionName=urgent Nodes=n3 PriorityTier=10 OverSubscribe=NO MaxTime=INFINITE
CONF

# ours lists the processes that belong to this Slurm, this script excepted.
ours() {
    for environ in /proc/[0-9]*/environ; do
        pid=${environ#/proc/}
        pid=${pid%/environ}
        [ "$pid" != $$ ] || continue
        { tr '\0' '\n' <"$environ" | grep -qxF "SLURM_CONF=$SLURM_CONF"; } 2>/dev/null || continue
        echo "$pid"
    done
}

cleanup() {
    trap '' INT TERM
    # Jobs first: their steps belong to nobody once slurmd is gone.
    timeout 10 scancel --quiet --user=root 2>/dev/null || :
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        [ -n "$(timeout 5 squeue -h 2>/dev/null || :)" ] || break
        sleep 0.5
    done
    # shellcheck disable=SC2086 # several process ids
    kill $daemons 2>/dev/null || :
    # shellcheck disable=SC2046
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        [ -n "$(running $daemons)" ] || break
        sleep 0.2
    done
    for _ in 1 2 3; do
        left=$(ours)
        [ -n "$left" ] || break
        # shellcheck disable=SC2086
        kill -9 $left 2>/dev/null || :
        sleep 0.2
    done
    rm -rf "$dir"
}

running() {
    for pid in "$@"; do
        [ ! -d "/proc/$pid" ] || grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null || echo "$pid"
    done
}

daemons=
trap 'exit 0' INT TERM
trap cleanup EXIT

mungekey --create --keyfile="$dir/munge/key"
munged --foreground --force --num-threads=2 --key-file="$dir/munge/key" --socket="$dir/munge/socket" \
    --pid-file="$dir/munge/pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" </dev/null >"$dir/munge/out" 2>&1 &
daemons="$daemons $!"
await() { # await WHAT COMMAND…
    what=$1
    shift
    for _ in $(seq 300); do
        ! "$@" >/dev/null 2>&1 || return 0
        [ "$(running $daemons)" = "$(printf '%s\n' $daemons)" ] || break
        sleep 0.1
    done
    echo "$what did not come up; its log:" >&2
    tail -n 20 "$dir/munge/out" "$dir"/slurm*.log >&2 || :
    exit 1
}
await munged test -S "$dir/munge/socket"
slurmctld -D -i </dev/null >"$dir/slurmctld.out" 2>&1 &
daemons="$daemons $!"
await slurmctld scontrol ping
own='mount -t tmpfs -o mode=755,dev none "$1"
mknod -m 666 "$1/fuse" c 10 229
mount --bind "$1/fuse" /dev/fuse
'
for node in n1 n2 n3; do
    mkdir "$dir/spool/$node"
    set -- slurmd -D -N $node
    [ $node != n2 ] || set -- unshare --mount sh -c "set -e
$own${CURI_SLURM_REACH:-}exec $*" sh "$dir/mnt"
    "$@" </dev/null >"$dir/slurmd.$node.out" 2>&1 &
    daemons="$daemons $!"
done
await slurmd sh -c '[ "$(sinfo -h -N -o "%N %T" | sort -u | grep -cx "n[123] idle")" = 3 ]'
echo "SLURM_CONF=$SLURM_CONF"
cat >/dev/null
