#!/bin/sh
# Installs the tools that `make bench-peers` measures beside Curi: peers.sh DIR
#
# Debian's packages as root; DVC and Curifactory into a virtual environment at
# DIR, which a second call leaves as it is. What cannot be installed is left
# out: the benchmark says which tools it found.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
dir=$1

missing=
for package in restic git-annex rclone; do
    command -v "$package" >/dev/null 2>&1 || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing$missing"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q >/dev/null
        # shellcheck disable=SC2086 # one word per package
        apt-get install -q -y --no-install-recommends $missing >/dev/null
    else
        echo "missing here:$missing (as root: apt-get install$missing)" >&2
    fi
fi

stamp=$dir/requirements.installed
if ! cmp -s "$stamp" "$here/peers.txt"; then
    echo "installing what testdata/peers.txt names into $dir"
    python3 -m venv --clear "$dir"
    "$dir/bin/python" -m pip install --quiet -r "$here/peers.txt"
    cp "$here/peers.txt" "$stamp"
fi
