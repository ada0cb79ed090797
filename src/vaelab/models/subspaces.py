"""Priors that depend on labels: learned ones, and the attribute subspaces of the CSVAE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.nn import functional
from typing_extensions import override

from vaelab.models.global_batch import everywhere
from vaelab.models.handles import Subspace
from vaelab.models.posteriors import DiagonalNormal, positive_scale


class LearnedPrior(nn.Module):
    """p(z|y) = N(μ(y), diag σ(y)²), both linear in the vector of labels before the scale.

    It starts as N(0, I) whatever the labels. Source: Sohn, Lee and Yan, 2015.

    Arguments:
        width: of the vector of labels.
        latent_dim: D.
    """

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__()
        self.net = nn.Linear(width, 2 * latent_dim)
        nn.init.zeros_(self.net.weight)
        nn.init.zeros_(self.net.bias)

    def forward(self, context: Tensor) -> DiagonalNormal:
        """Return p(z|y) for contexts ``(B, K)``, batch shape ``(B,)``."""
        with torch.autocast(context.device.type, enabled=False):
            loc, scale = self.net(context.float()).chunk(2, -1)
        return DiagonalNormal(loc, positive_scale(scale))


class SubspacePrior(nn.Module):
    """p(z, w|y) = N(z; 0, I) Π_i p(w_i|y_i): a subspace w_i for each attribute (CSVAE).

        p(w_i | y_i = 0) = N(μ₀, σ₀² I),   p(w_i | y_i = 1) = N(μ₁, σ₁² I)

    and half of each where y_i is unknown. Source: Klys, Snell and Zemel, Learning latent
    subspaces in variational autoencoders, 2018.

    Arguments:
        names: of the attributes, in the order of the vector of labels, which they end: values above
            0 mean 1, and behind them 1 for every one that is known.
        dim: of z.
        width: of each subspace.
        means, scales: (μ₀, μ₁) and (σ₀, σ₁).
    """

    def __init__(
        self,
        names: Sequence[str],
        dim: int,
        width: int,
        means: tuple[float, float],
        scales: tuple[float, float],
    ) -> None:
        super().__init__()
        self.dim, self.width, self.means, self.scales = dim, width, means, scales
        self.subspaces = {
            name: Subspace(name, slice(dim + i * width, dim + (i + 1) * width), means, scales)
            for i, name in enumerate(names)
        }

    def forward(self, context: Tensor) -> DiagonalNormal | PartlyKnown:
        """Return p(z, w|y) for contexts ``(B, K)``, batch shape ``(B,)``."""
        values, known = context[:, -2 * len(self.subspaces) :].chunk(2, -1)
        share = ((values + 1) / 2).clamp(0, 1).repeat_interleave(self.width, -1)
        first = context.new_zeros(len(context), self.dim)
        loc = torch.cat([first, torch.lerp(*self._pair(share, self.means), share)], 1)
        scale = torch.cat([first + 1, torch.lerp(*self._pair(share, self.scales), share)], 1)
        if not torch.compiler.is_compiling() and everywhere(known > 0):
            return DiagonalNormal(loc, scale)
        return PartlyKnown(loc, scale, known > 0, self)

    def sides(self, w: Tensor) -> Tensor:
        """Return which label each part of w ``(..., A d)`` speaks for, ``(..., A)`` in [−1, 1].

            tanh(log p(w_i|y_i = 1) − log p(w_i|y_i = 0))

        which is 2 p(y_i = 1|w_i) − 1 with the odds squared: hardly below 1 at the mean of a side,
        even in one dimension.
        """
        off, on = self.log_probs(w)
        return torch.tanh(on - off)

    def log_probs(self, w: Tensor) -> list[Tensor]:
        """Return log p(w_i|y_i) for y_i = 0 and for y_i = 1, each ``(..., A)``."""
        parts = w.unflatten(-1, (-1, self.width))
        return [
            (-0.5 * ((parts - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)).sum(-1)
            for m, s in zip(self.means, self.scales, strict=True)
        ]

    def _pair(self, like: Tensor, ends: tuple[float, float]) -> tuple[Tensor, Tensor]:
        return torch.full_like(like, ends[0]), torch.full_like(like, ends[1])


class PartlyKnown(Distribution):
    """p(z, w|y) where some attributes are unknown: half of either prior in their subspaces."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector

    def __init__(self, loc: Tensor, scale: Tensor, known: Tensor, prior: SubspacePrior) -> None:
        self.base, self.known, self.of = DiagonalNormal(loc, scale), known, prior
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    @override
    def mean(self) -> Tensor:
        return self._unknown(self.base.loc, sum(self.of.means) / 2)

    @property
    @override
    def variance(self) -> Tensor:
        (m0, m1), (s0, s1) = self.of.means, self.of.scales
        return self._unknown(self.base.scale**2, (s0**2 + s1**2) / 2 + (m1 - m0) ** 2 / 4)

    def _unknown(self, values: Tensor, otherwise: float) -> Tensor:
        known = self.known.repeat_interleave(self.of.width, -1)
        rest = torch.where(known, values[..., self.of.dim :], values.new_tensor(otherwise))
        return torch.cat([values[..., : self.of.dim], rest], -1)

    @override
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        side = torch.rand(*sample_shape, *self.known.shape, device=self.known.device) < 0.5
        values = torch.where(self.known, 0.0, 2.0 * side - 1.0)
        shape = values.shape[:-1]
        context = torch.cat([values, torch.ones_like(values)], -1).flatten(0, -2)
        drawn = self.of(context).sample().view(*shape, -1)
        known = self.known.repeat_interleave(self.of.width, -1)
        mine = self.base.sample(torch.Size(sample_shape))
        rest = torch.where(known, mine[..., self.of.dim :], drawn[..., self.of.dim :])
        return torch.cat([mine[..., : self.of.dim], rest], -1)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(z, w|y), of shape ``(...)`` for values ``(..., D)``."""
        dim, width = self.of.dim, self.of.width
        each = self.base.base_dist.log_prob(value)
        told = each[..., dim:].unflatten(-1, (-1, width)).sum(-1)
        off, on = self.of.log_probs(value[..., dim:])
        half = functional.softplus(on - off) + off - math.log(2)
        total: Tensor = each[..., :dim].sum(-1) + torch.where(self.known, told, half).sum(-1)
        return total
