"""torch.distributed.checkpoint: killed while it writes a checkpoint, it goes on from the one before.

What it prints last is a digest of its weights, which do not depend on whether
it was interrupted.
"""

import argparse
import hashlib
import os
import signal
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

parser = argparse.ArgumentParser()
parser.add_argument("--model_path", required=True)
parser.add_argument("--checkpoint_dir", type=Path, required=True)
parser.add_argument("--resume", help="checkpoint to go on from")
parser.add_argument("--die", action="store_true", help="be killed in the third checkpoint, unless there is one to go on from")
args = parser.parse_args()

torch.manual_seed(7)
x = torch.randn(64, 8)
net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
# Adam's state is there only after a step: so that it can be loaded into.
for p in net.parameters():
    p.grad = torch.zeros_like(p)
optimizer.step()
state = {"model": net.state_dict(), "optimizer": optimizer.state_dict()["state"], "epoch": torch.tensor(-1)}
if args.resume:
    dcp.load(state, checkpoint_id=args.resume, no_dist=True)
    net.load_state_dict(state["model"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state["optimizer"]})
first = int(state["epoch"]) + 1

for epoch in range(first, 5):
    for part in x.split(16):
        optimizer.zero_grad()
        (net(part) - part.sum(dim=1, keepdim=True)).pow(2).mean().backward()
        optimizer.step()
    state = {"model": net.state_dict(), "optimizer": optimizer.state_dict()["state"], "epoch": torch.tensor(epoch)}
    if epoch == 2 and args.die and not args.resume:
        # All files are there, and what says that they are whole is not.
        os.rename = os.replace = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        Path.rename = Path.replace = os.rename
    dcp.save(state, checkpoint_id=args.checkpoint_dir / f"step={epoch}", no_dist=True)

torch.save(net.state_dict(), args.model_path)
digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in net.parameters())).hexdigest()
print(f"from {os.path.basename(args.resume or 'the beginning')}, weights {digest}", flush=True)
