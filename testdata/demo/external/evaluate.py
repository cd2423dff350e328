"""Scores a model on the test split; the model itself says which class it is."""

import json
import os
from pathlib import Path

import click
import torch

from external.digits_data import load_split
from external.networks import NETWORKS


@click.command()
@click.option("--dataset_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--model_path", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--output_path", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--model_type", help="the network's class; by default the file's attribute user.curi.type")
def main(dataset_path, model_path, output_path, model_type):
    if model_type is None:
        model_type = os.getxattr(model_path, "user.curi.type").decode()
    net = NETWORKS[model_type]()
    net.load_state_dict(torch.load(model_path, weights_only=True)["model"])
    net.eval()

    images, labels = load_split(dataset_path, "test").tensors
    with torch.no_grad():
        right = (net(images).argmax(dim=1) == labels).sum().item()
    result = {"model_type": model_type, "accuracy": right / len(labels), "images": len(labels)}
    output_path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{model_type}: {right} of {len(labels)} right")


if __name__ == "__main__":
    main()
