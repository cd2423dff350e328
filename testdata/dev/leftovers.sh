#!/bin/sh
# Runs a command and fails if it leaves mounts, network namespaces or servers
# behind: curifs, the helper curi-bucket, the S3 server and the Slurm of tests.
set -eu

state() {
    [ -r /proc/mounts ] || return 0
    # Of whatever kind where tests work; a namespace with a name is a mount, too.
    awk -v tmp="${TMPDIR:-/tmp}/" '$3 ~ /^fuse(\.|$)/ && $0 ~ /curi/ || index($2, tmp) == 1 ||
        $3 == "nsfs" && $2 ~ /\/netns\/curi/ {print "mounted: " $2}' /proc/mounts
    for comm in /proc/[0-9]*/comm; do
        name=$(cat "$comm" 2>/dev/null) || continue
        case $name in
        curifs | curi-bucket | versitygw | munged | slurmctld | slurmd | slurmstepd)
            pid=$(basename "$(dirname "$comm")")
            # One that has ended and that nobody waited for runs no more.
            ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null || continue
            echo "running: $name, pid $pid"
            ;;
        esac
    done
}

before=$(state)
"$@"
# What was killed at the very end may take a moment.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    new=$(state | while read -r line; do
        printf '%s\n' "$before" | grep -qxF -- "$line" || printf '%s\n' "$line"
    done)
    [ -n "$new" ] || exit 0
    sleep 1
done
printf 'left behind by %s:\n%s\n' "$1 ${2:-}" "$new" >&2
exit 1
