#!/bin/sh
# Installs the Debian or Ubuntu packages that tests and demo need, only those
# that are missing. Without root it says what to install, and goes on.
set -eu

missing=
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

PATH=$PATH:/usr/sbin:/sbin
need fusermount3 fuse3
need getfattr attr
need git git
need b3sum b3sum
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs
need mkfs.btrfs btrfs-progs
need mksquashfs squashfs-tools
need unshare util-linux
need setpriv util-linux
need mount mount
need ip iproute2
need tc iproute2
need gcc gcc           # the race detector links with it
# Programs that the tests run in a mount.
need sqlite3 sqlite3
need mdb_copy lmdb-utils
need h5dump hdf5-tools
need rsync rsync
need zip zip
need unzip unzip
# Launchers of ranks, and a Slurm of one node (testdata/dev/slurm.sh).
need slurmctld slurmctld
need slurmd slurmd
need sbatch slurm-client
need munged munge
need mpirun openmpi-bin
if ! python3 -c 'import venv, ensurepip' >/dev/null 2>&1; then
    missing="$missing python3 python3-venv"
fi
if command -v gcc >/dev/null 2>&1 || [ -n "$missing" ]; then
    printf '#include <stdlib.h>\n' | gcc -E -x c - >/dev/null 2>&1 || missing="$missing libc6-dev"
fi

[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing here:$missing (as root: apt-get install$missing)" >&2
    exit 0
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
# A package list that is too old names files that are gone: refresh it first.
apt-get update -q >/dev/null
# shellcheck disable=SC2086 # one word per package
apt-get install -q -y --no-install-recommends $missing >/dev/null
