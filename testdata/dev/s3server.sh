#!/bin/sh
# Prints the path of the S3 server that the tests run, versitygw. The first call
# builds it into the cache folder, which takes some minutes.
set -eu

version=v1.8.0
cache=${CURI_DEV_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/curi-dev}
dir=$cache/tools/versitygw-$version
mkdir -p "$cache"
exec 9>"$cache/versitygw.lock"
! command -v flock >/dev/null || flock 9

if ! [ -x "$dir/versitygw" ]; then
    echo "building versitygw $version into $dir" >&2
    GOBIN=$dir go install "github.com/versity/versitygw/cmd/versitygw@$version" >&2
fi
echo "$dir/versitygw"
