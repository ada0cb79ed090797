r"""The discretised logistic mixture on 256 levels, after PixelCNN++ (Salimans et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional
from typing_extensions import override

from vaelab.models._logistic_mass import LOG_SCALE_FLOOR, LogMass, parts_of, soft_floor


class LogisticMixture(Distribution):
    r"""A distribution of 8-bit images, values k/255, independent over pixels.

    With pixel values scaled to x in [-1, 1], the C channels of a pixel share one component k:

    $$p(x) = \sum_k \pi_k \prod_c [F(\frac{x_c + 1/255 - μ_{kc}}{s_{kc}})
        - F(\frac{x_c - 1/255 - μ_{kc}}{s_{kc}})], \quad
        μ_{kc} = m_{kc} + \sum_{j<c} a_{kcj} x_j$$

    F is the logistic function; the lowest level reaches to −∞ and the highest to +∞, so that the
    256 masses sum to one. A value between levels counts as the nearest.

    Arguments:
        raw: of each of K components what `parts_of` lists, ``(..., K·parts, H, W)``.
        channels: C.
        mixtures: K.
        zero: log s at a raw number of 0, far above its floor.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, raw: Tensor, channels: int, mixtures: int, zero: float) -> None:
        self.raw, self.mixtures, self.zero = raw, mixtures, zero
        super().__init__(raw.shape[:-3], torch.Size((channels, *raw.shape[-2:])), False)

    @property
    def logits(self) -> Tensor:
        """Of the component, ``(..., K, H, W)``."""
        return self._parts()[0].squeeze(-3)

    @property
    def loc(self) -> Tensor:
        """m, ``(..., K, C, H, W)``."""
        return self._parts()[1]

    @property
    def log_scale(self) -> Tensor:
        """Log s, ``(..., K, C, H, W)``, above its floor."""
        return soft_floor(self._parts()[2] + self.zero, LOG_SCALE_FLOOR)

    @property
    def coefficients(self) -> Tensor:
        """a, ``(..., K, C (C − 1)/2, H, W)``, row by row: a₁₀, a₂₀, a₂₁, …"""
        return self._parts()[3].tanh()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log mass of images ``(..., C, H, W)``, in nats, shape ``(...)``."""
        batch = torch.broadcast_shapes(self._batch_shape, value.shape[:-3])
        raw = self.raw.expand(*batch, *self.raw.shape[-3:])
        value = value.expand(*batch, *self._event_shape)
        raw, value = (x.reshape(-1, *x.shape[-3:]) for x in (raw, value))
        slope = torch.is_grad_enabled() and raw.requires_grad
        log_p: Tensor = LogMass.apply(raw, value, self.mixtures, self.zero, slope)  # type: ignore[no-untyped-call]
        return log_p.view(batch)

    @property
    def mean(self) -> Tensor:
        r"""The mean image, ``(..., C, H, W)``, in [0, 1].

        The mixture-weighted means of the components, each the mean of its logistic clipped to
        [-1, 1]; a channel that depends on earlier ones takes these at their means. Exact for one
        channel, but for the rounding to levels; approximate for the others, near the edges only.
        """
        means: list[Tensor] = []
        raw = self.raw.contiguous()  # plane by plane: a third less time
        planes = LogisticMixture(raw, self._event_shape[0], self.mixtures, self.zero)
        coefficients = planes.coefficients
        for channel, scale in enumerate(planes.log_scale.exp().unbind(-3)):
            loc = _shifted(planes.loc, coefficients, channel, means)
            # E clip(X) = -1 + the integral of 1 - F over [-1, 1]
            upper = functional.softplus((loc + 1) / scale)
            lower = functional.softplus((loc - 1) / scale)
            means.append((scale * (upper - lower) - 1).clamp(-1, 1))
        weight = planes.logits.softmax(-3).unsqueeze(-3)
        return 0.5 + 0.5 * (weight * torch.stack(means, -3)).sum(-4)

    @override
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw images of levels k/255, ``(*sample_shape, ..., C, H, W)``."""
        with torch.no_grad():
            logits = self.logits.expand(*sample_shape, *self.logits.shape)
            gumbel = -torch.log(torch.empty_like(logits).exponential_())
            component = (logits + gumbel).argmax(-3, keepdim=True).unsqueeze(-4)
            chosen = LogisticMixture(self._of(component), self._event_shape[0], 1, self.zero)
            coefficients = chosen.coefficients
            values: list[Tensor] = []
            for channel, scale in enumerate(chosen.log_scale.exp().unbind(-3)):
                u = torch.rand_like(scale).clamp_min(torch.finfo(scale.dtype).tiny)
                x = _shifted(chosen.loc, coefficients, channel, values) + scale * torch.logit(u)
                level = (127.5 * (x + 1)).round().clamp(0, 255)
                values.append(level / 127.5 - 1)
            return (0.5 + 0.5 * torch.stack(values, -3)).squeeze(-4)

    def _parts(self) -> tuple[Tensor, ...]:
        grouped = torch.unflatten(self.raw, -3, (self.mixtures, -1))
        return torch.split(grouped, parts_of(self._event_shape[0]), -3)

    def _of(self, component: Tensor) -> Tensor:
        """Return the raw numbers ``(..., parts, H, W)`` of components ``(..., 1, 1, H, W)``."""
        raw = torch.unflatten(self.raw, -3, (self.mixtures, -1))
        batch = component.shape[:-4]
        index = component.expand(*batch, 1, *raw.shape[-3:])
        return raw.expand(*batch, *raw.shape[-4:]).gather(-4, index).squeeze(-4)


def _shifted(loc: Tensor, coefficients: Tensor, channel: int, earlier: Sequence[Tensor]) -> Tensor:
    """Return μ of one channel, ``(..., K, H, W)``, given the values of those before it."""
    mean = loc.select(-3, channel)
    first = channel * (channel - 1) // 2
    for offset, x in enumerate(earlier):
        mean = mean + coefficients.select(-3, first + offset) * x
    return mean
