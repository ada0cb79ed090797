"""The look at held-out images after every epoch, and the plain words about what it shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vaelab.data.batches import Batch
from vaelab.errors import counted
from vaelab.models.kl import kl_per_dimension
from vaelab.models.model import Model, evaluating
from vaelab.models.posteriors import Dirac
from vaelab.models.vae import Vae
from vaelab.objectives.objective import Objective

ACTIVE_VARIANCE = 0.01
"""A latent dimension is active when Var_x(E[z|x]) exceeds this (Burda et al., 2016)."""

COLLAPSED_RATE = 0.1
"""Rate, in nats per image, under which the posterior tells nothing about the image."""

FEW_STEPS = 500
"""Fewer steps than this teach most networks little."""


@dataclass(frozen=True)
class Validation:
    """Mean figures over the held-out images, and how much of the latent space is in use.

    Arguments:
        figures: as in `Loss.figures`, with the weights of the end of training.
        variance: variance over images of the posterior mean, ``(D,)``; of a classifier empty.
        kl: mean rate of each dimension, ``(D,)`` nats; None where the posterior does not factorise.
    """

    figures: dict[str, float]
    variance: Tensor
    kl: Tensor | None = None

    @property
    def active(self) -> int:
        """Number of active latent dimensions."""
        return int((self.variance > ACTIVE_VARIANCE).sum())


def variance_of_means(means: Tensor) -> Tensor:
    """Return the variance over images of each posterior mean ``(N, D)``, ``(D,)``; 0 of one image.

    A dimension is active where it exceeds `ACTIVE_VARIANCE`.
    """
    return means.double().var(0) if len(means) > 1 else means.new_zeros(means.shape[1]).double()


@torch.no_grad()
def validate(model: Model, objective: Objective, batches: Iterator[Batch], step: int) -> Validation:
    """Measure the objective, as at ``step``, and the use of the latent space over batches."""
    counts: dict[str, int] = {}
    sums: dict[str, Tensor] = {}
    means: list[Tensor] = []
    kls: list[Tensor] = []
    with evaluating(model), evaluating(objective):
        for batch in batches:
            size = len(batch.images)
            loss = objective(model, batch, step)
            for name, value in loss.figures.items():
                over = loss.counts.get(name, size)
                sums[name] = sums.get(name, 0) + value.double() * over
                counts[name] = counts.get(name, 0) + over
            if not isinstance(model, Vae):
                continue
            posterior, prior = model.distributions(batch)
            means.append(posterior.mean.double())
            parts = None
            if not isinstance(posterior, Dirac):
                parts = kl_per_dimension(posterior, prior)
            if parts is not None:
                kls.append(parts.double())
    figures = {name: float(value) / counts[name] for name, value in sums.items()}
    variance = variance_of_means(torch.cat(means)).cpu() if means else torch.zeros(0)
    return Validation(figures, variance, torch.cat(kls).mean(0).cpu() if kls else None)


def few_steps(steps: int) -> str:
    """Return the remedy for a training of few steps."""
    return (
        f"Only {counted(steps, 'step')}, few for a network: take more epochs (--epochs) or a "
        "smaller batch size (--batch-size)."
    )


_REMEDIES = {
    "warmup": "KL warm-up (-s options.warmup=0.3)",
    "free_bits": "free bits (-s options.free_bits=0.5)",
    "beta": "a smaller -s options.beta",
}
"""Against a code that tells little: by the option of a recipe that it takes."""


def warnings(
    validation: Validation, latent_dim: int, options: Iterable[str], steps: int | None = None
) -> list[str]:
    """Return what a person should be told of a model past its warm-up, remedy included.

    Arguments:
        validation: what was seen of it.
        latent_dim: dimensions of its code.
        options: names of those that its recipe has: no other is advised.
        steps: of its whole training, if known; with few, that comes first.
    """
    first = f"{few_steps(steps)} If it stays so, try" if steps and steps < FEW_STEPS else "Try"
    rate = validation.figures.get("rate")
    remedies = [text for name, text in _REMEDIES.items() if name in set(options)]
    if rate is not None and rate < COLLAPSED_RATE:
        return [
            f"The posterior has collapsed: the rate is {rate:.2f} nats, so the latent code tells "
            f"nothing about the image and all reconstructions look alike. {first} "
            f"{_either([*remedies, 'a lower learning rate'])}."
        ]
    if not len(validation.variance):  # a classifier has no code
        return []
    dead = latent_dim - validation.active
    if dead == latent_dim:
        return [
            "The codes of images hardly differ: the variance of their means is at most "
            f"{ACTIVE_VARIANCE} in every dimension. {first} a lower learning rate, or another "
            "activation."
        ]
    if dead and rate is None:  # an autoencoder: there is no KL to warm up
        return [f"{dead} of {latent_dim} latent dimensions hardly vary over images."]
    if dead > 0:
        vary = "hardly varies" if dead == 1 else "hardly vary"
        more = f" To use more: {_either(remedies)}." if remedies else ""
        return [
            f"{dead} of {latent_dim} latent dimensions {vary} over images. "
            f"That costs little; latent_dim {latent_dim - dead} would do as well.{more}"
        ]
    return []


def _either(remedies: Sequence[str]) -> str:
    *before, last = remedies
    return f"{', '.join(before)} or {last}" if before else last
