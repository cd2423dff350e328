"""Saves and loads with the libraries that trainers use; started by torchrun.

torch.distributed.checkpoint (save over an older save, async_save, load) in a
work directory, safetensors and torch.save into the output directory.
"""

import sys
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

work, out = Path(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo")
rank = dist.get_rank()


def state(value: float) -> dict:
    return {"weights": torch.full((256, 256), value), f"rank{rank}": torch.full((1000,), value + rank)}


for value in (1.0, 2.0):  # the second replaces the first
    dcp.save(state(value), checkpoint_id=work / "dcp")
dcp.async_save(state(3.0), checkpoint_id=work / "async").result()
dist.barrier()
for name, value in (("dcp", 2.0), ("async", 3.0)):
    assert (work / name / ".metadata").exists()
    loaded = state(0.0)
    dcp.load(loaded, checkpoint_id=work / name)
    assert torch.equal(loaded["weights"], torch.full((256, 256), value)), name
    assert torch.equal(loaded[f"rank{rank}"], torch.full((1000,), value + rank)), name

if rank == 0:
    tensors = {"weights": torch.arange(10000.0).reshape(100, 100)}
    for _ in range(2):
        safetensors.torch.save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(safetensors.torch.load_file(out / "model.safetensors")["weights"], tensors["weights"])
    torch.save(tensors, out / "model.pt")
    mapped = torch.load(out / "model.pt", mmap=True)
    assert torch.equal(mapped["weights"], tensors["weights"])
print(f"rank {rank}: all loaded", flush=True)
dist.destroy_process_group()
