"""A real trainer for torchrun: DDP over gloo, small enough for tests, able to fail.

It keeps a checkpoint per epoch, goes on from --resume, and writes the model
from rank 0.
"""

import os
import signal
import sys
import time
from pathlib import Path

import click
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


@click.command()
@click.option("--dataset_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--model_path", type=click.Path(path_type=Path), required=True)
@click.option("--checkpoint_dir", type=click.Path(path_type=Path), required=True)
@click.option("--resume", type=click.Path(exists=True, path_type=Path))
@click.option("--epochs", type=int, default=2)
@click.option("--fail", type=click.Choice(["raise", "partial", "hang"]), help="fail so, after the first epoch")
@click.option("--fail_once", is_flag=True, help="fail only without --resume")
def main(dataset_path, model_path, checkpoint_dir, resume, epochs, fail, fail_once):
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    values = torch.tensor([[float(x)] for x in (dataset_path / "numbers.txt").read_text().split()])
    values = values[rank :: dist.get_world_size()]

    net = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    first = 0
    if resume:
        state = torch.load(resume, weights_only=True)
        net.module.load_state_dict(state["model"])
        first = state["epoch"] + 1
        print(f"rank {rank}: resumes after epoch {state['epoch']}", flush=True)
    if fail_once and resume:
        fail = None

    for epoch in range(first, epochs):
        optimizer.zero_grad()
        loss = (net(values) - 3 * values).pow(2).mean()
        loss.backward()
        optimizer.step()
        print(f"rank {rank}: epoch {epoch}", flush=True)
        if rank == 0:
            state = {"model": net.module.state_dict(), "epoch": epoch}
            partial = checkpoint_dir / "partial"
            torch.save(state, partial)
            partial.rename(checkpoint_dir / f"epoch={epoch}.ckpt")
        dist.barrier()
        if fail == "raise" and rank == 1:
            raise RuntimeError("loss is NaN")
        if fail == "partial" and rank == 0:
            model_path.write_bytes(b"PK half a model")
            os.kill(os.getpid(), signal.SIGKILL)
        if fail == "hang":
            print(f"rank {rank}: hangs", file=sys.stderr, flush=True)
            time.sleep(600)
        dist.barrier()

    if rank == 0:
        torch.save({"model": net.module.state_dict(), "from": first}, model_path)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
