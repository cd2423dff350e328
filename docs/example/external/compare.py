"""Writes a line for each model: its parameters and its accuracy."""

import argparse
import csv
import json
import os

import torch

parser = argparse.ArgumentParser()
parser.add_argument("models", help="directory of the models, with sets.json")
parser.add_argument("--out", required=True)
args = parser.parse_args()

with open(os.path.join(args.models, "sets.json")) as file:
    results = json.load(file)
with open(args.out, "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["set", "lr", "accuracy"])
    for result in results:
        accuracy = torch.load(os.path.join(args.models, result["path"]))["accuracy"]
        for of in result["sets"]:
            rows.writerow([of["set"], of["params"]["lr"], accuracy])
