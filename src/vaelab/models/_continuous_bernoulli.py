r"""The continuous Bernoulli in its natural parameter η, exact near η = 0 and far from it.

The version of torch goes through λ = sigmoid(η), clamped: beyond |η| of 16 its density does not
integrate to one and its normaliser has no gradient, near λ = ½ it cancels, and it takes seven times
as long. Everything here follows from the log normaliser $A$ and its derivative, the mean.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli
from typing_extensions import override

_TINY = 1e-6  # below this |η| the functions of η equal those of η = 0 in float32
_FAR_AT_ONE = -1 / math.expm1(-1) - 1


def log_normalizer(eta: Tensor) -> Tensor:
    r"""Return $A(η) = \log \int_0^1 e^{ηx} dx = \log \frac{e^η - 1}{η}$, with gradients."""
    result: Tensor = _LogNormalizer.apply(eta)  # type: ignore[no-untyped-call]
    return result


class _LogNormalizer(torch.autograd.Function):
    """A(η) with the gradient A'(η) in closed form: autograd's own would cancel near zero."""

    @staticmethod
    def forward(ctx: Any, eta: Tensor) -> Tensor:
        ctx.save_for_backward(eta)
        size = eta.abs().clamp_min_(_TINY)
        return torch.expm1(-size).div_(size).neg_().log_().add_(eta.clamp_min(0))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (eta,) = ctx.saved_tensors
        return grad * mean(eta)


def mean(eta: Tensor) -> Tensor:
    r"""Return $A'(η) = \frac{1}{1 - e^{-η}} - \frac1η$, between 0 and 1.

    The sum of a series in η clipped to [-1, 1] and of what the closed form adds beyond: exact on
    both sides, and several times as fast as choosing with `torch.where`.
    """
    near = eta.clamp(-1, 1)
    square = near.square()
    series = near * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600)))
    far = eta.abs().clamp_min(1)
    beyond = (_FAR_AT_ONE + 1 / torch.expm1(-far) + 1 / far).neg()
    return 0.5 + series + eta.sign() * beyond  # ONNX has no copysign


def variance(eta: Tensor) -> Tensor:
    r"""Return $A''(η) = \frac{1}{η^2} - \frac{1}{4 \sinh^2(η/2)}$."""
    size = eta.abs()
    near = size < 1
    square = torch.where(near, size, 0).square()
    series = 1 / 12 + square * (-1 / 240 + square * (1 / 6048 - square / 172800))
    far = torch.where(near, 1, size)
    return torch.where(near, series, far**-2 - torch.exp(-far) / torch.expm1(-far).square())


class ContinuousBernoulli(TorchContinuousBernoulli):
    r"""Density $p(x) = e^{ηx - A(η)}$ on [0, 1], with η = logit λ.

    Source: Loaiza-Ganem and Cunningham (2019).
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits=logits, validate_args=False)

    @property
    @override
    def mean(self) -> Tensor:
        return mean(self.logits)

    @property
    @override
    def variance(self) -> Tensor:
        return variance(self.logits)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        return self.logits * value - log_normalizer(self.logits)

    @override
    def entropy(self) -> Tensor:
        return log_normalizer(self.logits) - self.logits * self.mean

    @override
    def cdf(self, value: Tensor) -> Tensor:
        size = self.logits.abs().clamp_min(_TINY)
        rising = self.logits > 0
        value = value.clamp(0, 1)
        far = torch.where(rising, 1 - value, value)
        mass = torch.expm1(-size * far) / torch.expm1(-size)
        return torch.where(rising, 1 - mass, mass)

    @override
    def icdf(self, value: Tensor) -> Tensor:
        size = self.logits.abs().clamp_min(_TINY)
        rising = self.logits > 0
        mass = torch.where(rising, 1 - value, value)
        far = -torch.log1p(mass * torch.expm1(-size)) / size
        return torch.where(rising, 1 - far, far)

    @override
    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return self.icdf(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))

    @override
    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)
