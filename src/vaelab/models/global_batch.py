r"""Means over a global batch, for all that is no plain average of what each image costs.

In data-parallel training a process holds $n_r$ of the $n$ images of a step, and gradients are
averaged with the weights $n_r / n$. That is right for a mean over images. It is wrong for a
function of such a mean, like free bits $\max(\lambda, E_x KL_d)$: its argument must be the mean
over the images of *all* processes, in value and in gradient.

With one process, and outside of a training step, these are the plain functions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as processes

from vaelab.models import noise


def connected() -> bool:
    """Tell whether this process can speak to others; a compiler knows the answer beforehand."""
    return processes.is_available() and processes.is_initialized()


class _Sum(torch.autograd.Function):
    """The sum over the processes, whose gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        processes.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(gradients[0])  # type: ignore[no-untyped-call]
        return total


def global_sum(values: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes that share a batch."""
    if noise.share() == 1:
        return values
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total


def global_mean(values: Tensor) -> Tensor:
    """Return the mean over the first dimension, the images, of those of all processes."""
    return global_sum(values.mean(0) * noise.share())


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the share of this process in Σ w v / Σ w over a global batch; 0 where all w are 0.

    It is the mean over the images of this process of w v over the mean of all w: averaged over
    the processes as losses are, it is the whole.

    Arguments:
        values: v, ``(B,)``, one for each image.
        weights: w, ``(B,)``, such as 1 where a label is known.
    """
    weights = weights.to(values.dtype)
    least = torch.finfo(values.dtype).tiny
    return (weights * values).mean() / global_mean(weights).clamp(min=least)


def everywhere(flags: Tensor) -> bool:
    """Tell whether all of the flags are set, in every process that shares a batch."""
    if noise.share() == 1:
        return bool(flags.all())
    unset = (~flags).sum(dtype=torch.float32)
    processes.all_reduce(unset)
    return bool(unset == 0)
