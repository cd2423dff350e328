import argparse
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--token", required=True)
parser.add_argument("--out", type=Path, required=True)
args = parser.parse_args()
print(f"asking with the token {args.token}")
args.out.write_text("[1, 2]\n")
