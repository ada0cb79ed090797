"""The contenders of `time_to_elbo.py`, one a process: ``python racers.py NAME SEED EVERY EPOCHS``.

Each trains in its own way and every so often shows the clock and the ELBO of the test images. The
clock counts all that the library does (its own validation and bookkeeping too) but not this look.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from contenders import pythae_model
from plain import BATCH, LR, SAME_NETWORK, test_elbo
from torch import Tensor
from turns import Turn

import vaelab
from vaelab.api import configure, settings_to_config
from vaelab.models.model import evaluating
from vaelab.training.loop import Trainer
from vaelab.training.progress import Silent

RECIPE: dict[str, Any] = {
    **SAME_NETWORK,
    "optimizer": "adamw",
    "lr": 0.012,
    "betas": [0.9, 0.95],
    "schedule": "one-cycle",
    "lr_warmup": 0.1,
    "batch_size": BATCH,
}
"""vaelab's recipe for model M, tuned on the validation images: precision auto, two epochs."""


def race_vaelab(turn: Turn, seed: int, every: int, epochs: int, **settings: Any) -> None:
    splits = vaelab.load_data("mnist")
    config = configure(
        settings_to_config({**settings, "epochs": epochs, "seed": seed, "log_every": every})
    )

    class Look(Silent):
        seconds = 0.0

        def step(self, step: int, epoch: int, speed: float, figures: Mapping[str, float]) -> None:
            self.seconds += turn.seconds()
            model = trainer.model
            with evaluating(model):
                elbo, error = test_elbo(
                    model.posterior, model.decoder.network, splits.test.take(torch.arange(10_000))
                )
            turn.wait(step=step, seconds=self.seconds, elbo=elbo, error=error)

    turn.wait()
    trainer = Trainer(config, splits, Look())
    trainer.fit()
    turn.wait(over=True)


def race_pythae(turn: Turn, seed: int, every: int, epochs: int) -> None:
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    splits = vaelab.load_data("mnist")
    test = splits.test.take(torch.arange(10_000))
    torch.manual_seed(seed)
    model = pythae_model()

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_var = model.encoder.network(x).chunk(2, -1)
        return mu, torch.exp(0.5 * log_var)

    class Look(TrainingCallback):
        seconds, steps = 0.0, 0

        def on_train_step_end(self, *_: Any, **__: Any) -> None:
            self.steps += 1
            if self.steps % every == 0:
                self.seconds += turn.seconds()
                elbo, error = test_elbo(moments, model.decoder.network, test)
                turn.wait(step=self.steps, seconds=self.seconds, elbo=elbo, error=error)

    with tempfile.TemporaryDirectory() as folder:
        config = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            learning_rate=LR,
            per_device_train_batch_size=BATCH,
            optimizer_cls="Adam",
            seed=seed,
            no_cuda=True,
        )
        images = splits.train.take(torch.arange(len(splits.train))).float() / 255
        dataset = BaseDataset(images, torch.ones(len(images)))
        turn.wait()
        BaseTrainer(model, dataset, training_config=config, callbacks=[Look()]).train()
    turn.wait(over=True)


def main() -> None:
    name, (seed, every, epochs) = sys.argv[1], map(int, sys.argv[2:])
    turn = Turn()
    if name == "pythae":
        race_pythae(turn, seed, every, epochs)
    elif name == "vaelab-constant":
        plain = {**SAME_NETWORK, "optimizer": "adam", "lr": LR, "batch_size": BATCH}
        race_vaelab(turn, seed, every, epochs, **plain)
    else:
        race_vaelab(turn, seed, every, epochs, **RECIPE)


if __name__ == "__main__":
    main()
