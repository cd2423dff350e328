#!/usr/bin/env bash
# The main job on real data: demo.sh BIN PYTHON
#
# BIN holds curi and curifs, PYTHON has PyTorch. Everything lies in build/demo,
# made anew each time; store and results stay there, nothing stays mounted.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$1" && pwd)
python=$2
demo=$(cd "$here/../.." && pwd)/build/demo
ranks=${RANKS:-2}

export PATH=$bin:$(dirname "$python"):$PATH
export CURI_STORE=$demo/store
export OMP_NUM_THREADS=1 # torchrun's own default, without its warning

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }

# Prints a command as one could paste it, then runs it.
run() {
    local word line=
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9_./:=@,+-]* | '') line+=" '${word//\'/\'\\\'\'}'" ;;
        *) line+=" $word" ;;
        esac
    done
    printf '\n$%s\n' "$line"
    "$@"
}

seconds() { # seconds SINCE: of EPOCHREALTIME, in which some languages have a comma
    awk -v a="${1/,/.}" -v b="${EPOCHREALTIME/,/.}" 'BEGIN {printf "%.3f", b - a}'
}

mount=
unmount() {
    [ -n "$mount" ] || return 0
    curi umount "$mount"
    rmdir "$mount"
    mount=
}
trap unmount EXIT

# A store holds read-only directories: give them back before removing them.
[ ! -e "$demo" ] || { chmod -R u+w "$demo" && rm -rf "$demo"; }
mkdir -p "$demo/project"
cp -R "$here/external" "$demo/project/"
cd "$demo/project"
git init -q .
printf '__pycache__/\ndigits/\n' >.gitignore
git add -A
git -c user.name=demo -c user.email=demo@example.org -c commit.gpgsign=false commit -q -m 'The trainers'

say "A store, mounted"
exec_options=()
point=$(mktemp -d "${TMPDIR:-/tmp}/curi-demo.XXXXXX")
if run curi mount "$point"; then
    mount=$point
    run curi status
else
    rmdir "$point"
    say "No mount here, so every stage runs with --no-mount"
    exec_options=(--no-mount)
fi

say "First stage: a script that writes the data set"
run curi stage exec "${exec_options[@]}" --name dataset \
    --out digits=digits/ --publish digits=digits --param seed=0 --code 'external/make_dataset.py' \
    -- python -m external.make_dataset --output_path '{out.digits}' --seed '{param.seed}'

say "Files from elsewhere are added like this; the same bytes make no new version"
run curi checkout digits ./digits
run curi add ./digits --name digits
run curi ls

train=(curi stage exec "${exec_options[@]}" --name train
    --in dataset=digits --out model=model.ckpt --meta model:type=DigitsNet --publish model=model --work checkpoints
    --param lr=0.05 --param epochs=3 --op-param num_gpus="$ranks" --code 'external/**/*.py'
    -- torchrun --standalone --nproc_per_node '{param.num_gpus}' --module external.my_model_trainer
    --dataset_path '{in.dataset}' --model_path '{out.model}' --checkpoint_dir '{work.checkpoints}'
    --lr '{param.lr}' --epochs '{param.epochs}' --num_gpus '{param.num_gpus}')

say "Second stage: training by torchrun, $ranks processes, PyTorch DDP"
start=$EPOCHREALTIME
run "${train[@]}"
trained=$(seconds "$start")

say "Third stage: evaluation; the model itself says which class to load"
run curi stage exec "${exec_options[@]}" --name evaluate \
    --in dataset=digits --in model=train.model --out accuracy=accuracy.json \
    -- python -m external.evaluate --dataset_path '{in.dataset}' --model_path '{in.model}' \
    --model_type '{meta.model.type}' --output_path '{out.accuracy}'
run curi cat evaluate.accuracy

say "Where the model comes from"
run curi show model
run curi lineage evaluate.accuracy

say "The same training again: nothing changed, so it is a cache hit"
start=$EPOCHREALTIME
run "${train[@]}"
hit=$(seconds "$start")
printf '\ntrained in %s s, found again in %s s\n' "$trained" "$hit"

say "The same with PyTorch Lightning: Trainer(strategy=\"ddp\") and ModelCheckpoint"
run curi stage exec "${exec_options[@]}" --name train-lightning \
    --in dataset=digits --out model=model.ckpt --meta model:type=LitDigits --work checkpoints \
    --param lr=0.05 --param epochs=3 --op-param num_gpus="$ranks" --code 'external/**/*.py' \
    -- torchrun --standalone --nproc_per_node '{param.num_gpus}' --module external.lightning_trainer \
    --dataset_path '{in.dataset}' --model_path '{out.model}' --checkpoint_dir '{work.checkpoints}' \
    --lr '{param.lr}' --epochs '{param.epochs}' --num_gpus '{param.num_gpus}'
run curi log

if [ -n "$mount" ]; then
    say "Unmounted, and still there"
    printf '\n$ curi umount %s\n' "$mount"
    unmount
fi
run curi path model
run python -c 'import sys, torch; print(sum(t.numel() for t in torch.load(sys.argv[1])["model"].values()), "parameters")' \
    "$(curi path model)"

say "Paths to look at"
printf '%-16s %s\n' store "$CURI_STORE" project "$demo/project" \
    model "$(curi path model)" accuracy "$(curi path evaluate.accuracy)" "Lightning's" "$(curi path train-lightning.model)"
