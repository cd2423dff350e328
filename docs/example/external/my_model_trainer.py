"""Trains a small network in as many processes as torchrun starts."""

import argparse
import csv
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

parser = argparse.ArgumentParser()
parser.add_argument("--dataset_path", required=True)
parser.add_argument("--model_path", required=True)
parser.add_argument("--checkpoint_dir", required=True)
parser.add_argument("--log_dir", required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--ckpt_path", help="checkpoint to go on from")
parser.add_argument("--epochs", type=int, default=20)
args = parser.parse_args()

dist.init_process_group("gloo")  # on GPUs: nccl
rank, ranks = dist.get_rank(), dist.get_world_size()
with open(os.path.join(args.dataset_path, "points.csv")) as file:
    table = torch.tensor([[float(cell) for cell in row] for row in list(csv.reader(file))[1:]])
points, labels = table[rank::ranks, :2], table[rank::ranks, 2:]

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
model = DistributedDataParallel(net)
optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
first = 0
if args.ckpt_path:
    saved = torch.load(args.ckpt_path)
    net.load_state_dict(saved["net"])
    optimizer.load_state_dict(saved["optimizer"])
    first = saved["epoch"] + 1

for epoch in range(first, args.epochs):
    for part in torch.randperm(len(points)).split(32):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(points[part]), labels[part])
        loss.backward()
        optimizer.step()
    right = ((model(points) > 0) == (labels > 0.5)).float().mean()
    dist.all_reduce(right)
    if rank == 0:
        accuracy = right.item() / ranks
        print(f"epoch {epoch}: accuracy {accuracy:.3f}", flush=True)
        with open(os.path.join(args.log_dir, "metrics.csv"), "a", newline="") as file:
            rows = csv.writer(file)
            if file.tell() == 0:
                rows.writerow(["epoch", "accuracy"])
            rows.writerow([epoch, accuracy])
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        torch.save(state, os.path.join(args.checkpoint_dir, f"epoch={epoch}.ckpt"))

if rank == 0:
    torch.save({"net": net.state_dict(), "accuracy": accuracy}, args.model_path)
dist.barrier()
dist.destroy_process_group()
