"""A trainer without PyTorch: quick, and able to fail in the ways that real ones do.

Works alone and as a rank of torchrun. Rank 0 writes one checkpoint per epoch
and a model whose text tells what it was made from.
"""

import argparse
import os
import signal
import sys
import time
import zipfile
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--dataset_path", type=Path, required=True)
parser.add_argument("--model_path", type=Path, required=True)
parser.add_argument("--checkpoint_dir", type=Path)
parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
parser.add_argument("--lr", default="0.1")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--num_gpus", type=int, default=1)
parser.add_argument("--ran", type=Path, help="a line is appended to this file by each start of rank 0")
parser.add_argument("--wait_for", type=Path, help="rank 0 waits until this file exists before it writes the model")
parser.add_argument("--fail", choices=["exit", "partial", "nothing", "empty"], help="fail so, after the first epoch")
parser.add_argument("--fail_once", action="store_true", help="fail only where there is no checkpoint yet")
parser.add_argument("--exit_status", type=int, default=3)
args = parser.parse_args()

rank = int(os.environ.get("RANK", "0"))
world = int(os.environ.get("WORLD_SIZE", "1"))


def on_signal(number, _):
    print(f"rank {rank}: {signal.Signals(number).name}", flush=True)
    sys.exit(128 + number)


signal.signal(signal.SIGTERM, on_signal)
signal.signal(signal.SIGINT, on_signal)

print(f"rank {rank} of {world}: begins", flush=True)
print(f"rank {rank}: to stderr", file=sys.stderr, flush=True)
if rank != 0:
    sys.exit(0)
if args.ran:
    with args.ran.open("a") as f:
        f.write(f"{os.getpid()}\n")


def epoch_of(checkpoint: Path) -> int:
    with zipfile.ZipFile(checkpoint) as z:
        return int(z.read("epoch"))


done = []
if args.checkpoint_dir:
    args.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    done = sorted(epoch_of(p) for p in args.checkpoint_dir.glob("*.ckpt"))
first = done[-1] + 1 if done else 0
if args.resume:
    first = epoch_of(args.resume) + 1
    print(f"resumes from {args.resume.name}", flush=True)
failing = args.fail and not (args.fail_once and done)

for epoch in range(first, args.epochs):
    print(f"epoch {epoch}", flush=True)
    if args.checkpoint_dir:
        partial = args.checkpoint_dir / f"epoch={epoch}.ckpt.partial"
        with zipfile.ZipFile(partial, "w") as z:
            z.writestr("epoch", str(epoch))
        partial.rename(args.checkpoint_dir / f"epoch={epoch}.ckpt")
    if failing:
        break

if failing:
    if args.fail == "exit":
        print("RuntimeError: loss is NaN", file=sys.stderr, flush=True)
        sys.exit(args.exit_status)
    if args.fail == "partial":
        args.model_path.write_text("half a mod")
        os.kill(os.getpid(), signal.SIGKILL)
    if args.fail == "empty":
        args.model_path.write_text("")
    sys.exit(0)

while args.wait_for and not args.wait_for.exists():
    time.sleep(0.02)
data = "".join(p.read_text() for p in sorted(args.dataset_path.rglob("*.txt")))
args.model_path.write_text(f"model of {data.strip()} with lr={args.lr} after {args.epochs} epochs from {first}\n")
