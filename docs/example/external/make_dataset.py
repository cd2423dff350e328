"""Points on two rings, and on which of them each lies."""

import argparse
import csv
import math
import os
import random

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True, help="directory")
parser.add_argument("--seed", type=int, required=True)
args = parser.parse_args()

random.seed(args.seed)
with open(os.path.join(args.out, "points.csv"), "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["x", "y", "ring"])
    for _ in range(512):
        ring = random.randrange(2)
        angle, radius = random.uniform(0, 2 * math.pi), 1 + ring + random.gauss(0, 0.2)
        rows.writerow([radius * math.cos(angle), radius * math.sin(angle), ring])
