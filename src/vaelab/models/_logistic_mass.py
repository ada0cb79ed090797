r"""The log mass of 8-bit images under logistic mixtures, with its gradient in closed form.

With t = (x − μ)/s, w = (1/255)/s, u = w + t and l = w − t, the mass of a level is

    F(t + w) − F(t − w) = σ(u) σ(l) (1 − e^{−u−l})

without cancellation; u = ∞ for the highest level, l = ∞ for the lowest. So

    ∂ log/∂t = σ(−u) − σ(−l),   −∂ log/∂ log s = u σ(−u) + l σ(−l) + (u + l)/(e^{u+l} − 1)

Images are worked on a few at a time, so that what is in between stays in the cache, and the
gradient is taken on the way: neither is written to memory as a graph of operations would.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from typing_extensions import override

LOG_SCALE_FLOOR = -7.0
"""s ≥ e^-7 of a range of 2, an eighth of a level: as in PixelCNN++, here a soft bound."""

_HALF_BIN = 1 / 255  # of pixel values scaled to [-1, 1]
_OPEN = 1e30  # stands for ∞, as ∞ · 0 would not be 0
_FAR = 40.0  # log σ(-40) = -40, in double precision too
_NARROW = 1e-30  # least w, so that no mass underflows
_CACHED = 2**17  # numbers of a map that several fit into a cache of a processor
_AT_ONCE = 2**24  # elsewhere: memory is what they take


def parts_of(channels: int) -> list[int]:
    """Return the raw numbers of a component: a logit, C means, C scales, C (C − 1)/2 coefficients.

    The log scale is the soft floor of its raw number, the coefficient the tanh of its own.
    """
    return [1, channels, channels, channels * (channels - 1) // 2]


def soft_floor(value: Tensor, floor: float) -> Tensor:
    """Bound ``value`` smoothly from below: the identity far above, ``floor`` far below."""
    return floor + functional.softplus(value - floor)


class LogMass(torch.autograd.Function):
    """Raw parameters ``(n, K·parts, H, W)`` and images ``(n, C, H, W)`` to nats ``(n,)``.

    The images have no gradient, for they are rounded to levels; nor has the gradient one.
    """

    @override
    @staticmethod
    def forward(
        ctx: Any, raw: Tensor, images: Tensor, mixtures: int, zero: float, slope: bool
    ) -> Tensor:
        """Compute log p, and with ``slope`` its gradient; ``zero`` is added to raw log scales."""
        gradient = torch.empty_like(raw) if slope else None
        log_p = raw.new_empty(len(raw))
        numbers = mixtures * math.prod(images.shape[1:])
        budget = _CACHED if raw.device.type == "cpu" else _AT_ONCE
        step = max(1, budget // max(1, numbers))
        for start in range(0, len(raw), step):
            rows = slice(start, start + step)
            planes = torch.empty(raw[rows].shape, dtype=raw.dtype, device=raw.device).flatten(2)
            _copy(planes, raw[rows].flatten(2))
            levels = (255 * images[rows]).round_().clamp_(0, 255).flatten(2).unsqueeze(1)
            planes = planes.unflatten(1, (mixtures, -1))
            log_p[rows], found = _of_planes(planes, levels.to(raw.dtype), zero, slope)
            if gradient is not None and found is not None:
                _copy(gradient[rows].flatten(2), found.flatten(1, 2))
        ctx.save_for_backward(gradient)
        return log_p

    @override
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Return the gradient by the raw parameters."""
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.view(-1, 1, 1, 1), None, None, None, None


def _of_planes(
    raw: Tensor, level: Tensor, zero: float, slope: bool
) -> tuple[Tensor, Tensor | None]:
    """Return log p ``(n,)`` and its gradient of raw ``(n, K, parts, P)`` at ``(n, 1, C, P)``."""
    logits, loc, raw_scale, raw_coefficients = raw.split(parts_of(level.shape[2]), 2)
    x = level / 127.5 - 1
    narrow = torch.sigmoid(LOG_SCALE_FLOOR - zero - raw_scale)
    precision = narrow * math.exp(-LOG_SCALE_FLOOR)  # 1/s, of the soft floor of log s
    coefficients = torch.sigmoid(2 * raw_coefficients).mul_(2).sub_(1)  # tanh, but faster
    t = x - loc
    for place, (later, earlier) in enumerate(_pairs(level.shape[2])):
        t[:, :, later].addcmul_(coefficients[:, :, place], x[:, :, earlier], value=-1)
    t *= precision
    w = (precision * _HALF_BIN).clamp_min_(_NARROW)
    upper = (w + t).add_((level == 255) * _OPEN)
    lower = (w - t).add_((level == 0) * _OPEN)
    both = upper + lower
    below, above = (edge.clamp_min(-_FAR).sigmoid_() for edge in (upper, lower))
    share = torch.expm1(-both).neg_()
    log_mass = (below * above).mul_(share).log_()
    log_mass += torch.minimum(upper, lower).add_(_FAR).clamp_max_(0)
    logits = logits.squeeze(2)
    joint = logits + log_mass.sum(2)
    (log_joint, posterior), (log_total, prior) = _normalized(joint), _normalized(logits)
    log_p = (log_joint - log_total).sum(1)
    if not slope:
        return log_p, None
    out = torch.empty_like(raw)
    to_logits, to_loc, to_scale, to_coefficients = out.split(parts_of(level.shape[2]), 2)
    torch.sub(posterior, prior, out=to_logits.squeeze(2))
    posterior = posterior.unsqueeze(2)
    beyond, before = below.neg_().add_(1), above.neg_().add_(1)
    torch.sub(before, beyond, out=to_loc).mul_(precision).mul_(posterior)
    torch.sub(1, share, out=to_scale).div_(share).mul_(both)
    to_scale.addcmul_(upper, beyond).addcmul_(lower, before)
    to_scale.mul_(posterior).mul_(narrow.sub_(1))
    torch.mul(coefficients, coefficients, out=to_coefficients).neg_().add_(1)
    for place, (later, earlier) in enumerate(_pairs(level.shape[2])):
        to_coefficients[:, :, place].mul_(x[:, :, earlier]).mul_(to_loc[:, :, later])
    return log_p, out


def _copy(into: Tensor, of: Tensor) -> None:
    """Copy maps ``(n, channels, P)`` of either layout.

    On a CPU one by one: with two axes, and memory written in order, a transpose takes half the
    time.
    """
    if into.device.type != "cpu":
        into.copy_(of)
        return
    for to, map_ in zip(into, of, strict=True):
        if to.stride(-1) == 1:
            to.copy_(map_)
        else:
            to.t().copy_(map_.t())


def _normalized(joint: Tensor) -> tuple[Tensor, Tensor]:
    """Return log Σ exp over the components ``(n, K, P)``, ``(n, P)``, and their softmax."""
    top = joint.amax(1, keepdim=True)
    shares = (joint - top).clamp_min_(-2 * _FAR).exp_()
    total = shares.sum(1, keepdim=True)
    return total.log().add_(top).squeeze(1), shares.div_(total)


def _pairs(channels: int) -> list[tuple[int, int]]:
    """Return the channels that the coefficients are between, row by row: 1 0, 2 0, 2 1, …"""
    return [(later, earlier) for later in range(channels) for earlier in range(later)]
