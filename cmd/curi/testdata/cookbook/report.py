import argparse
import json
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--title", required=True)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--style", type=json.loads, required=True)
args = parser.parse_args()
args.out.write_text(f"{args.title} {args.style['a']}\n")
