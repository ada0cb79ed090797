"""The contenders of `throughput.py`, one a process: ``python contenders.py NAME STEPS``."""

from __future__ import annotations

import logging
import sys
import tempfile
from typing import Any

import torch
from plain import (
    BATCH,
    LATENT,
    LR,
    SAME_NETWORK,
    Decoder,
    Encoder,
    negative_elbo,
    parameter_count,
    training_images,
)
from turns import Rounds, Turn

FOREVER = 10_000  # epochs: the referee says when it is enough


def bare(turn: Turn, steps: int) -> None:
    """Nothing but forward, backward and step over one batch that is there already: eager, fp32."""
    x = training_images()[:BATCH].clone()
    torch.manual_seed(0)
    encoder, decoder = Encoder(), Decoder()
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, LR)
    rounds = Rounds(turn, steps, BATCH, parameters=parameter_count(encoder, decoder))
    while True:
        optimizer.zero_grad()
        negative_elbo(encoder, decoder, x).backward()
        optimizer.step()
        rounds.step()


def vaelab(turn: Turn, steps: int, precision: str) -> None:
    """`vaelab.train` with a run folder: it logs, validates and writes checkpoints as always."""
    import vaelab
    from vaelab.api import configure, settings_to_config
    from vaelab.data.summary import Pixels
    from vaelab.recipes import Setup, build
    from vaelab.training.progress import Lines

    settings = {
        **SAME_NETWORK,
        "epochs": FOREVER,
        "batch_size": BATCH,
        "lr": LR,
        "optimizer": "adam",
        "log_every": steps,
        "device": "cpu",
        "precision": precision,
    }
    config = configure(settings_to_config(settings))
    model, _ = build(config, Setup(config.model, "none", Pixels(torch.full((1, 28, 28), 0.5)), 1))
    count = parameter_count(model)
    del model
    rounds = Rounds(turn, steps, BATCH, parameters=count)

    class Hook(Lines):
        seen = 0

        def step(self, step: int, epoch: int, speed: float, figures: Any) -> None:
            super().step(step, epoch, speed, figures)
            whole = step - self.seen == steps
            self.seen = step
            if whole:
                rounds.step(steps)
            else:
                rounds.restart()

    with tempfile.TemporaryDirectory() as folder:
        vaelab.train("vae", "mnist", f"{folder}/run", progress=Hook(), **settings)


def pythae_model() -> Any:
    """Return model M as pythae takes it: any network, wrapped as its encoder and decoder."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class TheirEncoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = Encoder()

        def forward(self, x: torch.Tensor) -> ModelOutput:
            mu, log_var = self.network(x).chunk(2, -1)
            return ModelOutput(embedding=mu, log_covariance=log_var)

    class TheirDecoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = Decoder()

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.network(z).sigmoid())

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT, reconstruction_loss="bce")
    return VAE(config, TheirEncoder(), TheirDecoder())


def pythae(turn: Turn, steps: int, prepared: bool) -> None:
    """The trainer of pythae over tensors given to its pipeline, or over its own data set (lean)."""
    from pythae.data.datasets import BaseDataset
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    model = pythae_model()
    rounds = Rounds(turn, steps, BATCH, parameters=parameter_count(model))

    class Hook(TrainingCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            rounds.restart()

        def on_train_step_end(self, *_: Any, **__: Any) -> None:
            rounds.step()

    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=FOREVER,
            learning_rate=LR,
            per_device_train_batch_size=BATCH,
            optimizer_cls="Adam",
            no_cuda=True,
        )
        images = training_images()
        if prepared:
            dataset = BaseDataset(images, torch.ones(len(images)))
            BaseTrainer(model, dataset, training_config=config, callbacks=[Hook()]).train()
        else:
            TrainingPipeline(model, config)(train_data=images, callbacks=[Hook()])


def lightning(turn: Turn, steps: int, lean: bool) -> None:
    """Lightning's Trainer as in its introduction, logging the loss; lean: all that turned off."""
    import lightning as pl
    from torch.utils.data import DataLoader, TensorDataset

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = Encoder(), Decoder()

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            loss = negative_elbo(self.encoder, self.decoder, batch[0])
            if not lean:
                self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), LR)

    module = Module()
    rounds = Rounds(turn, steps, BATCH, parameters=parameter_count(module))

    class Hook(pl.Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            rounds.restart()

        def on_train_batch_end(self, *_: Any) -> None:
            rounds.step()

    loader = DataLoader(TensorDataset(training_images()), BATCH, shuffle=True, num_workers=0)
    with tempfile.TemporaryDirectory() as folder:
        quiet: dict[str, Any] = {}
        if lean:
            quiet = dict.fromkeys(
                ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"),
                False,
            )
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=FOREVER,
            callbacks=[Hook()],
            default_root_dir=folder,
            **quiet,
        )
        trainer.fit(module, loader)


CONTENDERS = {
    "bare": bare,
    "vaelab-fp32": lambda turn, steps: vaelab(turn, steps, "fp32"),
    "vaelab-auto": lambda turn, steps: vaelab(turn, steps, "auto"),
    "pythae": lambda turn, steps: pythae(turn, steps, prepared=False),
    "pythae-lean": lambda turn, steps: pythae(turn, steps, prepared=True),
    "lightning": lambda turn, steps: lightning(turn, steps, lean=False),
    "lightning-lean": lambda turn, steps: lightning(turn, steps, lean=True),
}

if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    CONTENDERS[sys.argv[1]](Turn(), int(sys.argv[2]))
