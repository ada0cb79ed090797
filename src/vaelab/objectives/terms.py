"""Terms of an objective: each reads a trace and gives ``(B,)`` nats, its share of the loss."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from vaelab.models.global_batch import global_mean
from vaelab.models.kl import kl_per_dimension
from vaelab.models.vae import Trace
from vaelab.objectives.schedules import Schedule


class Term(Protocol):
    """A function of what one forward pass produced and of the step."""

    def __call__(self, trace: Trace, step: int) -> Tensor:
        """Return the share of each image in the loss, ``(B,)`` nats."""


class Distortion:
    """Reconstruction cost −E_q[log p(x|z)] (Kingma and Welling, 2014)."""

    def __call__(self, trace: Trace, step: int) -> Tensor:
        """Return the mean over the S samples."""
        return -trace.log_px.mean(0)


class Rate:
    """Weighted rate β·KL(q(z|x) ‖ p(z)), with free bits.

        β Σ_d max(λ, E_x KL_d)

    λ is the number of nats that each dimension has for free: below it the rate has no gradient, so
    the dimension has no reason to collapse. A posterior or prior that does not factorise counts as
    one dimension.

    Sources: Kingma and Welling 2014; β: Higgins et al. 2017; free bits: Kingma et al. 2016 (eq.
        15).
    """

    def __init__(self, weight: Schedule, free_bits: float = 0.0) -> None:
        self.weight, self.free_bits = weight, free_bits

    def __call__(self, trace: Trace, step: int) -> Tensor:
        """Return the weighted rate; with free bits it is the same for every image of the batch."""
        weight = self.weight(step)
        if self.free_bits == 0:
            return weight * trace.rate.mean(0)
        total = torch.zeros((), device=trace.rate.device)
        for latent in trace.latents.values():
            parts = kl_per_dimension(latent.posterior, latent.prior)
            each = global_mean(latent.rate.mean(0)[:, None] if parts is None else parts)
            total = total + each.clamp(min=self.free_bits).sum()
        return (weight * total).expand(trace.rate.shape[1])


class Capacity:
    """Rate held near a target that grows while training: γ·|E_x KL − C(step)|.

    Source: Burgess et al., Understanding disentangling in β-VAE, 2018 (eq. 8), on the batch's mean
        rate.
    """

    def __init__(self, target: Schedule, weight: float) -> None:
        self.target, self.weight = target, weight

    def __call__(self, trace: Trace, step: int) -> Tensor:
        """Return the cost, the same for every image of the batch."""
        excess = global_mean(trace.rate.mean(0)) - self.target(step)
        return (self.weight * excess.abs()).expand(trace.rate.shape[1])


class ImportanceWeighted:
    """The negative importance-weighted bound −log 1/S Σ_s p(x, z_s)/q(z_s|x) (Burda et al., 2016).

    β weighs log q(z|x) − log p(z) inside the weights, so that the rate can be warmed up: β = 1 is
    the bound.
    """

    def __init__(self, weight: Schedule) -> None:
        self.weight = weight

    def __call__(self, trace: Trace, step: int) -> Tensor:
        """Return the negative bound of each image."""
        log_w = trace.log_px + self.weight(step) * (trace.log_w - trace.log_px)
        return math.log(len(log_w)) - torch.logsumexp(log_w, 0)
