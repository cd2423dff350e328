#!/bin/sh
# Prints the path of a Python that has what testdata/requirements.txt names, and
# beside its bin/ a folder layer/ with what testdata/requirements-layer.txt does.
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
    if ! "$PYTHON" -c 'import click, h5py, ipykernel, jsonschema, lmdb, nbconvert, numpy, papermill, pytorch_lightning, safetensors, sklearn, tensorboard, torch, transformers' >&2; then
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
layer=$venv/layer

# pip is uv with the index for PyTorch, if one is named. The + of 2.15.0+cpu
# sorts after 2.15.0, so that index wins for PyTorch whatever else it has.
pip() {
    [ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install --quiet uv==0.13.9 >&2
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" "$@" >&2
}

# Importing torch takes half as long when it is compiled. A few files of
# packages are templates and cannot be.
compile() {
    "$venv/bin/python" -m compileall -q -j 0 "$1" >/dev/null 2>&1 || true
}

if ! { [ -x "$venv/bin/python" ] && cmp -s "$stamp" "$here/requirements.txt"; }; then
    if ! { [ -x "$venv/bin/python" ] && complete "$venv/bin/python"; }; then
        echo "installing PyTorch and what else testdata/requirements.txt names into $venv" >&2
        base=$(command -v python3 || true)
        if [ -z "$base" ] || ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
            echo "needs Python 3.10 or newer as python3 (or PYTHON=, a Python that has PyTorch)" >&2
            exit 1
        fi
        "$base" -m venv --clear "$venv" >&2
        pip ${TORCH_INDEX:+--index "$TORCH_INDEX" --index-strategy unsafe-best-match} -r "$here/requirements.txt"
    fi
    compile "$venv/lib"
    cp "$here/requirements.txt" "$stamp"
fi
if ! cmp -s "$layer/requirements.installed" "$here/requirements-layer.txt"; then
    echo "installing what testdata/requirements-layer.txt names into $layer" >&2
    rm -rf "$layer"
    pip --no-deps --target "$layer" -r "$here/requirements-layer.txt"
    compile "$layer"
    cp "$here/requirements-layer.txt" "$layer/requirements.installed"
fi
echo "$venv/bin/python"
