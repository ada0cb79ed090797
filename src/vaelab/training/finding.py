"""What is measured of a run, and what is found to be wrong with it: see `diagnoses`."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vaelab.config import IN_MEMORY, RunConfig
from vaelab.training.validation import ACTIVE_VARIANCE

DIAGNOSIS = "diagnosis: "
"""Begins what a note of the log is about that says a finding."""


@dataclass(frozen=True)
class Finding:
    """What is wrong, in a plain sentence that quotes the metric, and what helps.

    Arguments:
        name: of the diagnosis, such as ``posterior collapse``.
        text: the sentences.
        command: a command line, or a line of Python for images in memory; "" for information.
    """

    name: str
    text: str
    command: str = ""

    @property
    def about(self) -> str:
        """What a note of the log is about that says it."""
        return f"{DIAGNOSIS}{self.name}"

    def __str__(self) -> str:
        """Return the text, and the command behind it."""
        return f"{self.text} Try: {self.command}" if self.command else self.text


@dataclass(frozen=True)
class LabelEffect:
    """How far the class moves a sample, as variances of pixels (images reduced to 16 × 16).

    Arguments:
        samples: E_z Var_y E[x|z, y], over classes at the same z.
        images: Var_y E[x|y] of training images, less what few images of a class add to it.
        chance: what was subtracted.
        example: a class.
    """

    samples: float
    images: float
    chance: float
    example: str


@dataclass(frozen=True)
class Kin:
    """Held-out images whose names differ from those of training images in the last number alone.

    Arguments:
        held_out: number of held-out images.
        kin: of which so many have such names.
        nearest: share of these whose nearest training image, by colours on a 4 × 4 grid, is one.
        chance: the same for random neighbours.
        pair: two names, of a held-out image and of a training image.
    """

    held_out: int
    kin: int
    nearest: float
    chance: float
    pair: tuple[str, str]


@dataclass(frozen=True, eq=False)
class Measured:
    """What is known of a run; None where it is not.

    Arguments:
        config: of the run.
        run: its folder; "" of a model that is in memory alone.
        epochs: lines of the log, one an epoch.
        steps: of the whole training.
        numbers: pixels times channels of an image.
        adversarial: whether an adversary learns too, so that losses do not compare over time.
        rate: KL divergence, nats per image.
        variance: of each posterior mean over images, ``(D,)``.
        mse: squared error of reconstructions, and of the mean training image in their place.
        labels: how far the class moves a sample.
        flow: attribute, and accuracy with which it is predicted from z behind a conditional flow
            (lower end of its 95 % interval).
        prior_gap: KL divergence, nats, from the prior N(0, I) to a normal distribution with mean
            and covariance of the latents; a lower bound of KL(q(z) ‖ p(z)).
        deviations: least and greatest standard deviation of the latents in any direction.
        frechet: Fréchet distance of generated images, and of as many real ones (the floor).
        sampler: where generated images are sampled from, in words.
        kin: near-duplicates of training images among the held-out ones.
    """

    config: RunConfig
    run: str = ""
    epochs: Sequence[Mapping[str, Any]] = ()
    steps: int | None = None
    numbers: int = 1
    adversarial: bool = False
    rate: float | None = None
    variance: Tensor | None = None
    mse: tuple[float, float] | None = None
    labels: LabelEffect | None = None
    flow: tuple[str, float] | None = None
    prior_gap: float | None = None
    deviations: tuple[float, float] = (1.0, 1.0)
    frechet: tuple[float, float] | None = None
    sampler: str = "the prior p(z)"
    kin: Kin | None = None

    @property
    def from_prior(self) -> bool:
        """Whether samples are drawn from the prior."""
        return self.sampler.startswith("the prior")

    @property
    def in_memory(self) -> bool:
        """Whether the images were given in Python, where a command line finds none."""
        return self.config.data.spec == IN_MEMORY

    def more(self, times: float) -> str:
        """Return the command that goes on with the run, up to so many times its epochs."""
        epochs = math.ceil(self.config.training.epochs * times)
        if self.in_memory or not self.run:
            place = f", out={self.run!r}, resume=True" if self.run else ""
            recipe = "" if place else f"{self.config.recipe!r}, "
            return f"vaelab.train({recipe}data=images{place}, epochs={epochs})"
        return f"vaelab train --resume --out {shlex.quote(self.run)} --epochs {epochs}"

    def anew(self, key: str, value: Any) -> str:
        """Return the command that trains another run with one setting changed."""
        if self.in_memory or not self.run:
            base = f"config='{self.run}/config.yaml'" if self.run else f"{self.config.recipe!r}"
            return f"vaelab.train({base}, data=images, {key.rpartition('.')[2]}={value!r})"
        base = shlex.quote(f"{self.run}/config.yaml")
        return f"vaelab train --config {base} -s {shlex.quote(f'{key}={value}')}"

    def sample(self, *more: str) -> str:
        """Return the command that samples from a mixture fitted to the latents."""
        return shlex.join(["vaelab", "sample", self.run or "RUN", "--sampler", "gmm", *more])

    @property
    def dead(self) -> int | None:
        """Number of latent dimensions whose posterior mean hardly varies over images."""
        if self.variance is None or not len(self.variance):
            return None
        return int((self.variance <= ACTIVE_VARIANCE).sum())
