import argparse
import json
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("model", type=Path)
parser.add_argument("accuracy", type=Path)
parser.add_argument("--model_type", default="unknown")
args = parser.parse_args()
args.accuracy.write_text(json.dumps({"type": args.model_type, "model": args.model.read_text()}) + "\n")
