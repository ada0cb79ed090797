"""How long a training takes: a trial of its steps, of which nothing is kept.

    seconds = epochs · (steps of an epoch · seconds of a step + seconds of its end)

The end of an epoch is the look at validation images and the checkpoint. The trial is a training of
its own, so the one that follows is what it would have been without.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vaelab.config import RunConfig
from vaelab.data.images import ImageSet, Splits, spread
from vaelab.errors import ConfigError
from vaelab.training.allocator import keep_freed_memory
from vaelab.training.backend import processes
from vaelab.training.loop import Trainer, total_steps
from vaelab.training.progress import Silent
from vaelab.training.run import Run
from vaelab.training.step import Part

Clock = Callable[[], float]

SHORT = 10.0
"""Seconds of a training that needs no estimate."""

_TRIAL, _LONGEST = 1.0, 5.0  # seconds of steps, for an estimate and for a budget
_WARM = 2  # steps that also set up memory and kernels
_LOOKED = 256  # validation images
_TINY = 5e7  # numbers of all images of all steps, which take a few seconds at most
_EPOCHS = 1_000_000  # so that no step of a trial is behind the last
_MOST = 1e7  # minutes


@dataclass(frozen=True)
class Pace:
    """What a training costs.

    Arguments:
        step: seconds of a step.
        end: seconds of the end of an epoch.
        steps: of an epoch.
        parameters: of the model.
        device: kind of it, such as ``cpu``.
    """

    step: float
    end: float
    steps: int
    parameters: int
    device: str

    @property
    def epoch(self) -> float:
        """Seconds of an epoch."""
        return self.steps * self.step + self.end

    def within(self, seconds: float) -> int:
        """Return the epochs that fit into a time; one at least."""
        return max(1, int(seconds / self.epoch))


def measure_pace(
    config: RunConfig,
    splits: Splits,
    network: nn.Module | None = None,
    *,
    seconds: float = _TRIAL,
    clock: Clock = time.monotonic,
) -> Pace:
    """Return what a training costs, by a trial of its steps.

    Arguments:
        config: resolved configuration; its epochs make no difference.
        splits: the images.
        network: as `train_config` takes it.
        seconds: that steps are tried for, at most, unless three take longer.
        clock: seconds since whenever; of the processor where its time is what counts.

    Raises:
        ConfigError: as `Trainer` does.
    """
    training = config.training.model_copy(update={"epochs": _EPOCHS, "trackers": []})
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        config = config.model_copy(update={"training": training})
        return _Trial(config, splits, Silent(), Run(Path(folder)), network).pace(seconds, clock)


def estimate_pace(config: RunConfig, splits: Splits) -> Pace | None:
    """Return what a training costs; None of one that is short, compiled or of several processes.

    Of several, those that say nothing would not take part in a trial.
    """
    steps = total_steps(config.training, len(splits.train))
    numbers = steps * config.training.batch_size * math.prod(splits.train.shape)
    if numbers < _TINY or config.training.compile or processes() > 1:
        return None
    return measure_pace(config, splits)


def limited(
    config: RunConfig,
    splits: Splits,
    seconds: float,
    network: nn.Module | None = None,
    clock: Clock = time.monotonic,
) -> tuple[RunConfig, Pace]:
    """Return a configuration of as many epochs as fit into a time, and what they cost.

    The schedule of the learning rate ends with them. At least one is made.
    """
    trial = min(_LONGEST, max(_TRIAL, seconds / 20))
    pace = measure_pace(config, splits, network, seconds=trial, clock=clock)
    training = config.training.model_copy(update={"epochs": pace.within(seconds)})
    return config.model_copy(update={"training": training}), pace


def check_minutes(minutes: float | None, values: Mapping[str, Any], resumes: bool) -> float | None:
    """Return a time budget in seconds; None where there is none.

    Arguments:
        minutes: that training may take.
        values: settings that are named beside it.
        resumes: whether a run goes on.

    Raises:
        ConfigError: no time, or beside epochs that are settled.
    """
    if minutes is None:
        return None
    if not 0 < minutes <= _MOST:
        raise ConfigError(f"minutes: must be above 0 and at most {_MOST:,.0f} (got {minutes:g}).")
    if resumes:
        raise ConfigError(
            "minutes: a run that goes on has its epochs. Leave minutes out, or name more epochs."
        )
    if "epochs" in values.get("training", {}):
        raise ConfigError("minutes: chooses the epochs, and they are named too. Name one of them.")
    return 60 * minutes


def announcement(config: RunConfig, pace: Pace, budget: float | None = None) -> str:
    """Return the line that a training begins with: its time, steps and parameters."""
    training, name = config.training, "CPU" if pace.device == "cpu" else "GPU"
    epochs = f", {training.epochs:,} epochs" if training.epochs > 1 else ", one epoch"
    text = (
        f"About {_rough(training.epochs * pace.epoch)} on this {name}: "
        f"{training.epochs * pace.steps:,} steps of {training.batch_size:,} images{epochs}; "
        f"{float(f'{pace.parameters:.3g}'):,.0f} parameters."
    )
    if budget is not None and pace.epoch > budget:
        text += f" One epoch is the least, though it takes more than {budget / 60:g} min."
    return text


def _rough(seconds: float) -> str:
    """Return a time as an estimate says it: ``45 s``, ``4 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Trial(Trainer):
    """A training of which nothing but the time is looked at."""

    def pace(self, seconds: float, clock: Clock) -> Pace:
        """Return what it costs; of several processes, on average."""
        keep_freed_memory()
        step, end = self._step_seconds(seconds, clock), self._end_seconds(clock)
        found = torch.tensor([step, end], dtype=torch.float32, device=self.backend.device)
        self.backend.average([found])
        step, end = found.tolist()
        parameters = sum(each.numel() for each in self.model.parameters())
        return Pace(step, end, self.steps // _EPOCHS, parameters, self.backend.device.type)

    def _augmented(self, images: ImageSet) -> RunConfig:
        """Return the configuration with flips, if any, on: to choose them takes seconds."""
        training = self.config.training
        augment = training.augment.model_copy(update={"flip": training.augment.flip is not False})
        training = training.model_copy(update={"augment": augment})
        return self.config.model_copy(update={"training": training})

    def _step_seconds(self, seconds: float, clock: Clock) -> float:
        self.model.train()
        self.objective.train()
        done, elapsed = 0, 0.0
        with closing(self._endless()) as groups:
            self._take(islice(groups, _WARM))
            begun = clock()
            while done == 0 or not self.backend.any(elapsed > seconds / 2):
                more = max(1, done)
                self._take(islice(groups, more))
                done, elapsed = done + more, clock() - begun
        return elapsed / done

    def _endless(self) -> Generator[list[Part]]:
        while True:
            yield from self._groups()
            self.position.epoch, self.position.batch = self.position.epoch + 1, 0

    def _take(self, groups: Iterable[list[Part]]) -> None:
        for parts in groups:
            self._step(parts)
        self.meter.read()  # which waits for the device

    def _end_seconds(self, clock: Clock) -> float:
        count = len(self.held_out)
        self.held_out = spread(self.held_out, _LOOKED)
        more = count / max(1, len(self.held_out))
        self.position.batch = 0  # as behind an epoch
        for _ in range(2):  # the first also sets up
            begun = clock()
            self._validate()
            seen = clock()
            self.save()
            saved = clock()
        return (seen - begun) * more + saved - seen
