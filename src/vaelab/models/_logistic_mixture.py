r"""The discretised logistic mixture on 256 levels, after PixelCNN++ (Salimans et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional
from typing_extensions import override

_HALF_BIN = 1 / 255  # of pixel values scaled to [-1, 1]
_TINY = 1e-30  # a bin narrower than this, in scales, has a mass that underflows


class LogisticMixture(Distribution):
    r"""A distribution of 8-bit images, values k/255, independent over pixels.

    With pixel values scaled to x in [-1, 1], the C channels of a pixel share one component k:

    $$p(x) = \sum_k \pi_k \prod_c [F(\frac{x_c + 1/255 - μ_{kc}}{s_{kc}})
        - F(\frac{x_c - 1/255 - μ_{kc}}{s_{kc}})], \quad
        μ_{kc} = m_{kc} + \sum_{j<c} a_{kcj} x_j$$

    F is the logistic function; the lowest level reaches to −∞ and the highest to +∞, so that the
    256 masses sum to one. A value between levels counts as the nearest.

    Arguments:
        logits: of the component, ``(..., K, H, W)``.
        loc: m, ``(..., K, C, H, W)``.
        log_scale: log s, of the shape of ``loc``.
        coefficients: a, ``(..., K, C (C - 1) / 2, H, W)``, row by row: a₁₀, a₂₀, a₂₁, …
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self, logits: Tensor, loc: Tensor, log_scale: Tensor, coefficients: Tensor
    ) -> None:
        self.logits, self.loc, self.log_scale = logits, loc, log_scale
        self.coefficients = coefficients
        super().__init__(loc.shape[:-4], loc.shape[-3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log mass of images ``(..., C, H, W)``, in nats, shape ``(...)``."""
        level = (255 * value).round().clamp(0, 255).unsqueeze(-4)
        x = level / 127.5 - 1
        centered = x - self._conditional_loc(x)
        precision = torch.exp(-self.log_scale)
        below = functional.logsigmoid((centered + _HALF_BIN) * precision)  # log F(upper edge)
        above = functional.logsigmoid((_HALF_BIN - centered) * precision)  # log(1 - F(lower edge))
        # F(u) - F(l) = F(u) (1 - F(l)) (1 - e^{l-u}) exactly: no cancellation in the tails
        width = (2 * _HALF_BIN * precision).clamp_min(_TINY)
        between = torch.log(-torch.expm1(-width))
        # Products with masks, as torch.where costs several times as much
        lowest, highest = (level == 0).to(x.dtype), (level == 255).to(x.dtype)
        log_mass = below * (1 - highest) + above * (1 - lowest) + between * (1 - lowest - highest)
        log_weight = torch.log_softmax(self.logits, -3)
        return torch.logsumexp(log_weight + log_mass.sum(-3), -3).flatten(-2).sum(-1)

    @property
    def mean(self) -> Tensor:
        r"""The mean image, ``(..., C, H, W)``, in [0, 1].

        The mixture-weighted means of the components, each the mean of its logistic clipped to
        [-1, 1]; a channel that depends on earlier ones takes these at their means. Exact for one
        channel, but for the rounding to levels; approximate for the others, near the edges only.
        """
        means: list[Tensor] = []
        for channel, scale in enumerate(self.log_scale.exp().unbind(-3)):
            loc = _shifted(self.loc, self.coefficients, channel, means)
            # E clip(X) = -1 + the integral of 1 - F over [-1, 1]
            upper = functional.softplus((loc + 1) / scale)
            lower = functional.softplus((loc - 1) / scale)
            means.append((scale * (upper - lower) - 1).clamp(-1, 1))
        weight = self.logits.softmax(-3).unsqueeze(-3)
        return 0.5 + 0.5 * (weight * torch.stack(means, -3)).sum(-4)

    @override
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw images of levels k/255, ``(*sample_shape, ..., C, H, W)``."""
        with torch.no_grad():
            logits = self.logits.expand(*sample_shape, *self.logits.shape)
            gumbel = -torch.log(torch.empty_like(logits).exponential_())
            component = (logits + gumbel).argmax(-3, keepdim=True).unsqueeze(-4)
            loc, log_scale, coefficients = (
                _pick(part, component) for part in (self.loc, self.log_scale, self.coefficients)
            )
            values: list[Tensor] = []
            for channel, scale in enumerate(log_scale.exp().unbind(-3)):
                u = torch.rand_like(scale).clamp_min(torch.finfo(scale.dtype).tiny)
                x = _shifted(loc, coefficients, channel, values) + scale * torch.logit(u)
                level = (127.5 * (x + 1)).round().clamp(0, 255)
                values.append(level / 127.5 - 1)
            return (0.5 + 0.5 * torch.stack(values, -3)).squeeze(-4)

    def _conditional_loc(self, x: Tensor) -> Tensor:
        """Return μ of all channels at the image ``x (..., 1, C, H, W)``."""
        if self._event_shape[0] == 1:
            return self.loc
        loc = self.loc.expand(torch.broadcast_shapes(self.loc.shape, x.shape))
        earlier = x.unbind(-3)
        shifted = [_shifted(loc, self.coefficients, c, earlier[:c]) for c in range(len(earlier))]
        return torch.stack(shifted, -3)


def _shifted(loc: Tensor, coefficients: Tensor, channel: int, earlier: Sequence[Tensor]) -> Tensor:
    """Return μ of one channel, ``(..., K, H, W)``, given the values of those before it."""
    mean = loc.select(-3, channel)
    first = channel * (channel - 1) // 2
    for offset, x in enumerate(earlier):
        mean = mean + coefficients.select(-3, first + offset) * x
    return mean


def _pick(part: Tensor, component: Tensor) -> Tensor:
    """Take ``component (..., 1, 1, H, W)`` of ``part (..., K, n, H, W)``: ``(..., 1, n, H, W)``."""
    batch = component.shape[:-4]
    index = component.expand(*batch, 1, *part.shape[-3:])
    return part.expand(*batch, *part.shape[-4:]).gather(-4, index)
