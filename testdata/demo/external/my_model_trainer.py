"""Trains DigitsNet with PyTorch DDP on CPUs; start it with torchrun.

An ordinary trainer: it reads a data set directory, keeps a checkpoint per
epoch, goes on from the last one if there is one, and writes a final model.
"""

import os
from pathlib import Path

import click
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from external.digits_data import load_split
from external.networks import DigitsNet


def save_atomically(state: dict, path: Path) -> None:
    """Leaves either the old file or the whole new one."""
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    os.replace(partial, path)


@click.command()
@click.option("--dataset_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--model_path", type=click.Path(path_type=Path), required=True)
@click.option("--checkpoint_dir", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--lr", type=float, default=0.05, show_default=True)
@click.option("--epochs", type=int, default=3, show_default=True)
@click.option("--batch_size", type=int, default=32, show_default=True)
@click.option("--num_gpus", type=int, default=1, show_default=True, help="ranks that take part")
def main(dataset_path, model_path, checkpoint_dir, lr, epochs, batch_size, num_gpus):
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    if world != num_gpus:
        raise click.UsageError(f"--num_gpus says {num_gpus}, torchrun started {world}")
    torch.manual_seed(0)

    train = load_split(dataset_path, "train")
    sampler = DistributedSampler(train, num_replicas=world, rank=rank, seed=0)
    loader = DataLoader(train, batch_size=batch_size, sampler=sampler)

    net = DistributedDataParallel(DigitsNet())
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    loss_of = nn.CrossEntropyLoss()

    last = checkpoint_dir / "last.ckpt"
    first_epoch = 0
    if last.exists():
        state = torch.load(last, weights_only=True)
        net.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first_epoch = state["epoch"] + 1
        print(f"rank {rank}: goes on after epoch {state['epoch']}", flush=True)

    for epoch in range(first_epoch, epochs):
        sampler.set_epoch(epoch)
        total = torch.zeros(2)
        for images, labels in loader:
            optimizer.zero_grad()
            loss = loss_of(net(images), labels)
            loss.backward()
            optimizer.step()
            total += torch.tensor([loss.item() * len(labels), len(labels)])
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch}: loss {total[0] / total[1]:.4f}", flush=True)
            checkpoint_dir.mkdir(parents=True, exist_ok=True)
            state = {
                "model": net.module.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch,
            }
            save_atomically(state, checkpoint_dir / f"epoch={epoch}.ckpt")
            save_atomically(state, last)
        dist.barrier()

    if rank == 0:
        model_path.parent.mkdir(parents=True, exist_ok=True)
        save_atomically({"model": net.module.state_dict(), "epochs": epochs}, model_path)
        print(f"wrote {model_path}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
