"""The same job with PyTorch Lightning: Trainer(strategy="ddp") and ModelCheckpoint."""

import warnings
from pathlib import Path

import click
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from external.digits_data import load_split
from external.networks import DigitsNet

# Advice about data loader workers and the like, once per rank.
warnings.filterwarnings("ignore", module="pytorch_lightning.*")


class LitDigits(pl.LightningModule):
    def __init__(self, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = DigitsNet()
        self.loss_of = nn.CrossEntropyLoss()

    def training_step(self, batch, _):
        images, labels = batch
        return self.loss_of(self.net(images), labels)

    def validation_step(self, batch, _):
        images, labels = batch
        scores = self.net(images)
        accuracy = (scores.argmax(dim=1) == labels).float().mean()
        self.log("val_accuracy", accuracy, sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)


@click.command()
@click.option("--dataset_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--model_path", type=click.Path(path_type=Path), required=True)
@click.option("--checkpoint_dir", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--lr", type=float, default=0.05, show_default=True)
@click.option("--epochs", type=int, default=3, show_default=True)
@click.option("--num_gpus", type=int, default=1, show_default=True, help="ranks that take part")
def main(dataset_path, model_path, checkpoint_dir, lr, epochs, num_gpus):
    pl.seed_everything(0, verbose=False)
    checkpoints = ModelCheckpoint(
        dirpath=checkpoint_dir,
        filename="{epoch}-{val_accuracy:.3f}",
        monitor="val_accuracy",
        mode="max",
        save_top_k=2,
        save_last=True,
    )
    trainer = pl.Trainer(
        strategy="ddp",
        devices=num_gpus,
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[checkpoints],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = checkpoint_dir / "last.ckpt"
    trainer.fit(
        LitDigits(lr),
        DataLoader(load_split(dataset_path, "train"), batch_size=32, shuffle=True),
        DataLoader(load_split(dataset_path, "test"), batch_size=256),
        ckpt_path=last if last.exists() else None,
    )
    # Every rank takes part; rank 0 writes.
    trainer.save_checkpoint(model_path)
    if trainer.is_global_zero:
        print(f"best checkpoint: {checkpoints.best_model_path}", flush=True)
        print(f"accuracy {float(checkpoints.best_model_score):.3f}, wrote {model_path}", flush=True)


if __name__ == "__main__":
    main()
