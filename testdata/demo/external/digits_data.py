"""Reads the data set that make_dataset.py wrote."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset


def load_split(dataset_path: Path, split: str) -> TensorDataset:
    """The images (N, 1, 8, 8) and labels (N) of one split."""
    # The arrays are mapped, as a large data set would be, then copied by torch.
    images = np.load(dataset_path / split / "images.npy", mmap_mode="r")
    labels = np.load(dataset_path / split / "labels.npy", mmap_mode="r")
    return TensorDataset(torch.tensor(images).unsqueeze(1), torch.tensor(labels))
