#!/bin/sh
# Prints the path of a Python that has what testdata/requirements.txt names.
#
#   PYTHON=       a Python that has it already: used as it is
#   TORCH_INDEX=  an index to take PyTorch from, such as the one of its CPU
#                 wheels, which saves 4 GB of CUDA libraries
#
# Else a virtual environment in the cache folder is used, made at the first
# call. A second call downloads nothing.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
cache=${CURI_DEV_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/curi-dev}

if [ -n "${PYTHON:-}" ]; then
    if ! "$PYTHON" -c 'import click, h5py, ipykernel, lmdb, nbconvert, numpy, pytorch_lightning, safetensors, sklearn, torch' >&2; then
        echo "PYTHON=$PYTHON lacks packages (above); without PYTHON= they are installed into $cache/venv" >&2
        exit 1
    fi
    command -v "$PYTHON"
    exit 0
fi

# Whether every pinned version is there, without importing anything.
complete() {
    "$1" - "$here/requirements.txt" 2>/dev/null <<'PY'
import sys
from importlib.metadata import version

for line in open(sys.argv[1]):
    name, _, pin = line.partition("#")[0].strip().partition("==")
    if name and version(name).partition("+")[0] != pin:
        sys.exit(1)
PY
}

mkdir -p "$cache"
exec 9>"$cache/venv.lock"
! command -v flock >/dev/null || flock 9

venv=$cache/venv
stamp=$venv/requirements.installed
if [ -x "$venv/bin/python" ] && cmp -s "$stamp" "$here/requirements.txt"; then
    echo "$venv/bin/python"
    exit 0
fi
if ! { [ -x "$venv/bin/python" ] && complete "$venv/bin/python"; }; then
    echo "installing PyTorch and what else testdata/requirements.txt names into $venv" >&2
    base=$(command -v python3 || true)
    if [ -z "$base" ] || ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "needs Python 3.10 or newer as python3 (or PYTHON=, a Python that has PyTorch)" >&2
        exit 1
    fi
    "$base" -m venv --clear "$venv" >&2
    "$venv/bin/python" -m pip install --quiet uv==0.13.9 >&2
    # The + of 2.15.0+cpu sorts after 2.15.0, so the named index wins for
    # PyTorch whatever else it has.
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" \
        ${TORCH_INDEX:+--index "$TORCH_INDEX" --index-strategy unsafe-best-match} \
        -r "$here/requirements.txt" >&2
fi
# Importing torch takes half as long when it is compiled. A few files of
# packages are templates and cannot be.
"$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >/dev/null 2>&1 || true
cp "$here/requirements.txt" "$stamp"
echo "$venv/bin/python"
