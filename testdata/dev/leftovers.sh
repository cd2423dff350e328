#!/bin/sh
# Runs a command and fails if it leaves mounts or curifs processes behind.
set -eu

state() {
    [ -r /proc/mounts ] || return 0
    awk '$3 ~ /^fuse(\.|$)/ && $0 ~ /curi/ {print "mounted: " $2}' /proc/mounts
    for comm in /proc/[0-9]*/comm; do
        name=$(cat "$comm" 2>/dev/null) || continue
        [ "$name" != curifs ] || echo "running: curifs, pid $(basename "$(dirname "$comm")")"
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
