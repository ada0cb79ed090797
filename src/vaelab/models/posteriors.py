r"""Approximate posteriors q(z|x): what the encoder's raw features mean.

A scale is $\sigma = \sigma_{min} + \mathrm{softplus}(r + c)$ with $c$ such that $\sigma = 1$ at
$r = 0$: positive, never below $\sigma_{min} = 10^{-4}$, like $e^r$ for small scales and linear in
$r$ for large ones, so that no feature overflows. All computation is in float32 at least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, constraints
from torch.nn import functional
from typing_extensions import override

from vaelab.config import PosteriorName
from vaelab.errors import ConfigError
from vaelab.models import noise
from vaelab.models.flows import build_flow

MIN_SCALE = 1e-4
_SHIFT = math.log(math.expm1(1 - MIN_SCALE))


def positive_scale(raw: Tensor) -> Tensor:
    """Map any real number to a scale above `MIN_SCALE`; 0 becomes 1."""
    return functional.softplus(raw + _SHIFT) + MIN_SCALE


def raw_scale(scale: float) -> float:
    """Invert `positive_scale`, for a ``scale`` above `MIN_SCALE`."""
    return math.log(math.expm1(scale - MIN_SCALE)) - _SHIFT


def single(raw: Tensor) -> Tensor:
    """Return ``raw`` in single precision at least, whatever the networks ran in."""
    return raw.to(torch.promote_types(raw.dtype, torch.float32))


class DiagonalNormal(Independent[Normal]):
    """Normal with independent dimensions, N(μ, diag σ²), over the last dimension of ``loc``.

    Sampling draws from `vaelab.models.noise`, the last dimension of the batch being sharded.
    """

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__(Normal(loc, scale, validate_args=False), 1, validate_args=False)

    @property
    def loc(self) -> Tensor:
        """The mean μ."""
        return self.base_dist.loc

    @property
    def scale(self) -> Tensor:
        """The standard deviations σ."""
        return self.base_dist.scale

    @property
    @override
    def stddev(self) -> Tensor:
        return self.base_dist.scale

    @override
    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        loc = self.loc
        epsilon = noise.normal(shape, batch_dim=-2, device=loc.device, dtype=loc.dtype)
        return torch.addcmul(loc, self.scale, epsilon)

    @override
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)


class FullNormal(MultivariateNormal):
    """Normal with any covariance, N(μ, L Lᵀ), L lower triangular with positive diagonal.

    Sampling draws from `vaelab.models.noise`, the last dimension of the batch being sharded. The
    density of the last draw is computed from the noise ε that made it: where L is nearly singular,
    L⁻¹ (z − μ) magnifies the rounding of z beyond all measure.
    """

    def __init__(self, loc: Tensor, scale_tril: Tensor) -> None:
        super().__init__(loc, scale_tril=scale_tril, validate_args=False)
        self._drawn: tuple[Tensor, Tensor] | None = None

    @override
    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        loc = self.loc
        epsilon = noise.normal(shape, batch_dim=-2, device=loc.device, dtype=loc.dtype)
        with torch.autocast(loc.device.type, enabled=False):  # or L ε would be in bfloat16
            z = loc + (self.scale_tril @ epsilon.unsqueeze(-1)).squeeze(-1)
        self._drawn = (z, epsilon)
        return z

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        if self._drawn is None or value is not self._drawn[0]:
            density: Tensor = super().log_prob(value)  # type: ignore[no-untyped-call]
            return density
        squares = self._drawn[1].square().sum(-1)
        volume = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * (squares + self.event_shape[0] * math.log(2 * math.pi)) - volume


class Dirac(Distribution):
    """All mass on one point, over the last dimension of ``loc``: the code of an autoencoder."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"loc": constraints.real_vector}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor) -> None:
        self.loc = loc
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    @override
    def mean(self) -> Tensor:
        return self.loc

    @property
    @override
    def mode(self) -> Tensor:
        return self.loc

    @property
    @override
    def variance(self) -> Tensor:
        return torch.zeros_like(self.loc)

    @property
    @override
    def stddev(self) -> Tensor:
        return torch.zeros_like(self.loc)

    @override
    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc.expand(self._extended_shape(Size(sample_shape)))

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Raise `ConfigError`: a point mass has no density."""
        raise ConfigError(
            "posterior dirac: a point mass has no density, so an autoencoder has no ELBO, rate or "
            "likelihood. Choose the posterior `diagonal` or `full` for an objective with a rate."
        )


class FlowNormal(Distribution):
    """Density of z = μ + σ·u, u from a normalising flow of two coupling layers given a context.

    Its mean and deviations have no closed form: they are those of `DRAWS` draws that are the same
    for every image, so that an encoding is deterministic.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"loc": constraints.real_vector}
    support = constraints.real_vector
    has_rsample = True
    DRAWS = 64

    def __init__(self, loc: Tensor, scale: Tensor, flow: Any, draws: Tensor) -> None:
        self.loc, self.scale, self.flow, self.draws = loc, scale, flow, draws
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    @override
    def mean(self) -> Tensor:
        return self._fixed().mean(0)

    @property
    @override
    def variance(self) -> Tensor:
        return self._fixed().var(0)

    def _fixed(self) -> Tensor:
        shape = (self.DRAWS, *self.loc.shape)
        epsilon = self.draws.to(self.loc).view(-1, *(1,) * (self.loc.ndim - 1), shape[-1])
        return self._push(epsilon.expand(shape))

    @classmethod
    def fixed_draws(cls, dim: int) -> Tensor:
        """Return draws from a fixed sequence, half of them the others with the sign changed."""
        generator = torch.Generator().manual_seed(dim)
        half = torch.randn(cls.DRAWS // 2, dim, generator=generator, dtype=torch.float64)
        return torch.cat([half, -half]).float()

    def _push(self, epsilon: Tensor) -> Tensor:
        with torch.autocast(self.loc.device.type, enabled=False):
            u = self.flow.transform.inv(epsilon)
            return torch.addcmul(self.loc, self.scale, u)

    @override
    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(Size(sample_shape))
        loc = self.loc
        return self._push(noise.normal(shape, batch_dim=-2, device=loc.device, dtype=loc.dtype))

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        with torch.autocast(self.loc.device.type, enabled=False):
            density: Tensor = self.flow.log_prob((value - self.loc) / self.scale)
        return density - self.scale.log().sum(-1)


class DiagonalPosterior(nn.Module):
    """q(z|x) = N(μ, diag σ²) from features ``(..., 2 D)``: D means, then D raw scales.

    Source: Kingma and Welling (2014), with softplus for the exponential.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.size = 2 * latent_dim

    def forward(self, raw: Tensor) -> DiagonalNormal:
        """Return q(z|x), event shape ``(D,)``."""
        loc, scale = single(raw).chunk(2, -1)
        return DiagonalNormal(loc, positive_scale(scale))


class FullPosterior(nn.Module):
    """q(z|x) = N(μ, L Lᵀ), L = diag(σ) (I + N), from features ``(..., D + D (D + 1) / 2)``.

    D means, D raw scales σ, then the entries of N below the diagonal, row by row. In units of σ
    they are correlations whatever the scale, which keeps L well conditioned.
    """

    below: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.size = 2 * latent_dim + latent_dim * (latent_dim - 1) // 2
        below = torch.tril_indices(latent_dim, latent_dim, -1)
        self.register_buffer("below", below, persistent=False)

    def forward(self, raw: Tensor) -> FullNormal:
        """Return q(z|x), event shape ``(D,)``."""
        dim = self.latent_dim
        loc, scale, off_diagonal = torch.split(single(raw), [dim, dim, self.size - 2 * dim], -1)
        sigma = positive_scale(scale)
        scale_tril = torch.diag_embed(sigma)
        scale_tril[..., self.below[0], self.below[1]] = sigma[..., self.below[0]] * off_diagonal
        return FullNormal(loc, scale_tril)


class FlowPosterior(nn.Module):
    """q(z|x) from features ``(..., 2 D + 32)``: D means, D raw scales, and a context of the flow.

    A neural spline flow of couplings, conditional on the context, upon the diagonal normal: as
    quick to evaluate at a given point as to draw from. Needs zuko.
    Sources: Rezende and Mohamed (2015); Durkan et al. (2019).
    """

    CONTEXT = 32
    draws: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim, self.size = latent_dim, 2 * latent_dim + self.CONTEXT
        passes = min(2, latent_dim)
        self.flow = build_flow(
            "nsf", "posterior flow", latent_dim, self.CONTEXT, passes=passes, transforms=2
        )
        self.register_buffer("draws", FlowNormal.fixed_draws(latent_dim), persistent=False)

    def forward(self, raw: Tensor) -> FlowNormal:
        """Return q(z|x), event shape ``(D,)``."""
        dim = self.latent_dim
        loc, scale, context = torch.split(single(raw), [dim, dim, self.CONTEXT], -1)
        with torch.autocast(raw.device.type, enabled=False):
            flow = self.flow(context)
        return FlowNormal(loc, positive_scale(scale), flow, self.draws)


class DiracPosterior(nn.Module):
    """A point per image from features ``(..., D)``: turns the model into an autoencoder."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.size = latent_dim

    def forward(self, raw: Tensor) -> Dirac:
        """Return q(z|x), event shape ``(D,)``."""
        return Dirac(single(raw))


Posterior = DiagonalPosterior | FullPosterior | FlowPosterior | DiracPosterior

_POSTERIORS: dict[PosteriorName, type[Posterior]] = {
    "diagonal": DiagonalPosterior,
    "full": FullPosterior,
    "flow": FlowPosterior,
    "dirac": DiracPosterior,
}


def build_posterior(name: PosteriorName, latent_dim: int) -> Posterior:
    """Return the family of q(z|x) called ``name``, whose ``size`` features the encoder must give.

    Raises:
        ConfigError: when no family has this name.
    """
    if name not in _POSTERIORS:
        raise ConfigError(f"posterior {name!r} is unknown; known: {', '.join(_POSTERIORS)}.")
    return _POSTERIORS[name](latent_dim)
