"""Writes scikit-learn's handwritten digits as a data set of plain files."""

import json
from pathlib import Path

import click
import numpy as np
from sklearn.datasets import load_digits


@click.command()
@click.option("--output_path", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--test_fraction", type=float, default=0.25, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(output_path: Path, test_fraction: float, seed: int) -> None:
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int64)

    order = np.random.default_rng(seed).permutation(len(images))
    cut = int(len(order) * (1 - test_fraction))
    for split, rows in {"train": order[:cut], "test": order[cut:]}.items():
        folder = output_path / split
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "images.npy", images[rows])
        np.save(folder / "labels.npy", labels[rows])
        print(f"{split}: {len(rows)} images")
    about = {"classes": 10, "shape": list(images.shape[1:]), "seed": seed}
    (output_path / "about.json").write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
