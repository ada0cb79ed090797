"""A whole training, from a resolved configuration to a model."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from vaelab.config import RunConfig
from vaelab.data.images import Splits
from vaelab.models.model import Model
from vaelab.training.backend import is_main
from vaelab.training.loop import Trainer
from vaelab.training.progress import Progress
from vaelab.training.run import Run


def train_config(config: RunConfig, splits: Splits, run: Run | None, progress: Progress) -> Model:
    """Train a resolved configuration, going on from the run's last checkpoint if it has one.

    Raises:
        ConfigError, RunError, TrainingError: as `Trainer` does.
        Interrupted: a signal asked for an end; the state is saved.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))  # the caller's draws stay theirs
        if run is None:
            return Trainer(config, splits, progress).fit()
        if is_main():
            stack.enter_context(run.locked())
        trainer = Trainer(config, splits, progress, run)
        trainer.restore()
        if is_main():
            run.write_config(config)
        return trainer.fit()
