"""A whole training, from a resolved configuration to a model."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import nn

from vaelab.config import RunConfig, TrainingConfig
from vaelab.data.images import Splits
from vaelab.data.seen import Seen
from vaelab.errors import counted
from vaelab.models.model import Model
from vaelab.training.backend import is_main
from vaelab.training.loop import WHOLE_SET, Trainer, total_steps
from vaelab.training.progress import Progress
from vaelab.training.run import Run
from vaelab.training.validation import FEW_STEPS


def train_config(
    config: RunConfig,
    splits: Splits,
    run: Run | None,
    progress: Progress,
    network: nn.Module | None = None,
) -> Model:
    """Train a resolved configuration, going on from the run's last checkpoint if it has one.

    ``network`` is what a configuration calls `IN_MEMORY` to compare images in.

    Raises:
        ConfigError, RunError, TrainingError: as `Trainer` does.
        Interrupted: a signal asked for an end; the state is saved.
    """
    config = as_read(config, splits)
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))  # the caller's draws stay theirs
        if run is None:
            return Trainer(config, splits, progress, network=network).fit()
        if is_main():
            stack.enter_context(run.locked())
        trainer = Trainer(config, splits, progress, run, network)
        trainer.restore()
        if is_main():
            run.write_config(trainer.config)
            run.save_seen(Seen.of(splits, trainer.before), trainer.data)
        return trainer.fit()


def as_read(config: RunConfig, splits: Splits) -> RunConfig:
    """Return a configuration by which other images are read as these were."""
    images = splits.train
    found = config.data
    if found.range == "auto":
        found = found.model_copy(update={"range": splits.range})
    if found.size is None and splits.size is not None:
        found = found.model_copy(update={"size": list(splits.size)})
    if not found.signed and images.attributes is not None and len(images):
        below = (images.attributes < 0).any(0).tolist()
        names = [
            name for name, is_below in zip(images.attribute_names, below, strict=True) if is_below
        ]
        found = found.model_copy(update={"signed": names})
    return config.model_copy(update={"data": found})


def enough_epochs(training: TrainingConfig, images: int) -> int:
    """Return the passes to make: as many as are set, or as few images need for `FEW_STEPS`.

    Where a step is over all images, as many as are set.
    """
    if training.optimizer == WHOLE_SET:
        return training.epochs
    each = total_steps(training.model_copy(update={"epochs": 1}), images)
    return max(training.epochs, -(-FEW_STEPS // each))


def few_steps_note(training: TrainingConfig, images: int) -> str | None:
    """Return what to say before a training of few steps; None where there are enough."""
    steps = total_steps(training, images)
    if steps >= FEW_STEPS:
        return None
    how, remedy = f"in batches of {training.batch_size:,}", " or a smaller --batch-size"
    if training.optimizer == WHOLE_SET:
        how, remedy = "all in every step", ""
    return (
        f"{counted(images, 'image')} {how}: {counted(steps, 'step')} in all, few for a network; "
        f"more --epochs{remedy} would make more."
    )
