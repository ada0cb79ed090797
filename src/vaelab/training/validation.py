"""The look at held-out images after every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vaelab.data.batches import Batch
from vaelab.models.kl import kl_per_dimension
from vaelab.models.model import Model, evaluating
from vaelab.models.posteriors import Dirac
from vaelab.models.vae import Vae
from vaelab.objectives.objective import Objective

ACTIVE_VARIANCE = 0.01
"""A latent dimension is active when Var_x(E[z|x]) exceeds this (Burda et al., 2016)."""

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
