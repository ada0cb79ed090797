r"""Masses of 8-bit levels under densities of pixels in [0, 1], and bits per dimension.

A level k = 0 … 255 stands for the values that are rounded to k/255, a bin of width 1/255. Its mass
is an integral of the density, in closed form by the distribution function F:

    P(k) = F((k + ½)/255) − F((k − ½)/255)

Where the density is of the real line, the lowest level reaches to −∞ and the highest to +∞, as in
the logistic mixture; so the 256 masses sum to one, and none is above one however narrow the density
is. A value between levels counts as the nearest.

Nothing is dequantised: the usual bound by uniform noise, ∫ log p(x + u) du + log 1/255 ≤ log P(k)
(Theis, van den Oord and Bethge, A note on the evaluation of generative models, 2016), lies below
this mass, far below where the density is narrower than a bin.

All is computed in double precision, as differences of F are.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

BITS = "bits per dimension"

_UNDERFLOWS = -30.0  # deviations beyond which masses do, a little later
_TINY = 1e-12  # rate of a density on [0, 1] too small to differ from the uniform one


@runtime_checkable
class DensityOnLevels(Protocol):
    """A density of images under which levels have a mass."""

    def log_mass(self, value: Tensor) -> Tensor:
        """Return the log mass of the levels of images ``(..., C, H, W)``, in nats, ``(...)``."""


def bits_per_dim(log_mass: Tensor, dimensions: int) -> Tensor:
    """Return −log₂ P(x) / D of log masses in nats, of images of D = C · H · W numbers."""
    return -log_mass / (dimensions * math.log(2))


def normal_mass(value: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """Return log P of each level under N(loc, σ²), of the shape of ``value`` and ``loc``."""
    lower, upper = _left(*_edges(value), loc, log_scale)
    tails = (torch.erfc(edge * -math.sqrt(0.5)) for edge in (upper, lower))
    log_mass = next(tails).sub_(next(tails)).mul_(0.5).log_()
    far = upper < _UNDERFLOWS
    if far.any():
        below, above = torch.special.log_ndtr(upper[far]), torch.special.log_ndtr(lower[far])
        log_mass[far] = below + _log1mexp(above - below)
    return log_mass


def laplace_mass(value: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """Return log P of each level under Laplace(loc, scale), of the shape of ``value``."""
    lower, upper = _left(*_edges(value), loc, log_scale)
    beside = upper.clamp(max=0) + _log1mexp((lower - upper).clamp(max=-_TINY))
    around = (-torch.expm1(lower.clamp(max=0)) - torch.expm1(-upper.clamp(min=0))).log()
    return torch.where(upper <= 0, beside, around) - math.log(2)


def exponential_mass(value: Tensor, rate: Tensor) -> Tensor:
    """Return log P of each level under p(x) ∝ e^{rate · x} on [0, 1], of the shape of ``value``.

    The bins of the lowest and the highest level are cut at 0 and 1.
    """
    lower, upper = (edge.clamp(0, 1) for edge in _edges(value))
    rate = _precise(rate)
    start = torch.where(rate > 0, 1 - upper, lower)  # from the end where the density is highest
    size = rate.abs().clamp(min=_TINY)
    return -size * start + _log1mexp(-size * (upper - lower)) - _log1mexp(-size)


def _edges(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the bins of values in [0, 1] begin and end, the outermost at ∓∞."""
    level = _precise(value).mul(255).round().clamp(0, 255)
    lower = torch.where(level == 0, -math.inf, (level - 0.5) / 255)
    return lower, torch.where(level == 255, math.inf, (level + 0.5) / 255)


def _left(lower: Tensor, upper: Tensor, loc: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of bins in scales from ``loc``, mirrored to the left, where F is precise."""
    center, precision = _precise(loc), torch.exp(-_precise(log_scale))
    lower, upper = (lower - center) * precision, (upper - center) * precision
    right = lower + upper > 0
    return torch.where(right, -upper, lower), torch.where(right, -lower, upper)


def _log1mexp(x: Tensor) -> Tensor:
    """Return log(1 − e^x) of x < 0."""
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def _precise(x: Tensor) -> Tensor:
    """Return x in double precision, on the CPU where its device has none."""
    return (x.cpu() if x.device.type == "mps" else x).double()
