"""PyTorch Lightning, with a checkpoint per epoch: killed in the middle of an epoch, it goes on from the last.

What it prints last is a digest of its weights, which do not depend on whether
it was interrupted.
"""

import argparse
import hashlib
import os
import signal
import warnings

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

warnings.filterwarnings("ignore", module="pytorch_lightning.*")

parser = argparse.ArgumentParser()
parser.add_argument("--model_path", required=True)
parser.add_argument("--log_dir", required=True)
parser.add_argument("--checkpoint_dir", required=True)
parser.add_argument("--ckpt_path", help="checkpoint to go on from")
parser.add_argument("--die", action="store_true", help="be killed in epoch 2, unless there is a checkpoint to go on from")
args = parser.parse_args()


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))

    def training_step(self, batch, _):
        x, y = batch
        loss = (self.layers(x) - y).pow(2).mean()
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        # With a state of its own, which must come back too.
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Die(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if trainer.current_epoch == 2 and index == 1:
            os.kill(os.getpid(), signal.SIGKILL)


pl.seed_everything(7, verbose=False)
x = torch.randn(64, 8)
data = torch.utils.data.TensorDataset(x, x.sum(dim=1, keepdim=True))
trainer = pl.Trainer(
    accelerator="cpu",
    max_epochs=4,
    callbacks=[ModelCheckpoint(dirpath=args.checkpoint_dir, save_top_k=-1)] + ([Die()] if args.die and not args.ckpt_path else []),
    logger=CSVLogger(args.log_dir, name=""),
    log_every_n_steps=1,
    enable_progress_bar=False,
    enable_model_summary=False,
)
net = Net()
trainer.fit(net, torch.utils.data.DataLoader(data, batch_size=16), ckpt_path=args.ckpt_path)
trainer.save_checkpoint(args.model_path)
digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in net.parameters())).hexdigest()
print(f"from {os.path.basename(args.ckpt_path or 'the beginning')}, weights {digest}", flush=True)
