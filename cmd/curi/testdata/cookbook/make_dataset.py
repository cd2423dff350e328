import argparse
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--seed", type=int, required=True)
args = parser.parse_args()
(args.out / "numbers.txt").write_text(f"{args.seed} {args.seed + 1}\n")
