r"""Priors p(z) on $R^D$: standard normal, a learned Gaussian mixture, or a normalising flow.

Flows come from zuko (optional). Those offered are bijections of $R^D$ onto itself whose density is
quick to evaluate. Left out, as measured with zuko 1.6 at D = 2 and a batch of 128:

- ``ncsf``: lives on a torus, not on $R^D$.
- ``gf``: saturates in float32, so that its density loses up to 40 % of its mass.
- ``unaf``, ``cnf``: a quadrature or an ODE an evaluation, more time than the rest of the VAE.
- ``gmm``: the prior ``mixture`` is the same density.

``sospf`` and ``naf`` invert by bisection within [-10, 10] a dimension, ``bpf`` within [-5, 5]:
slower to sample from than the others, most of all ``naf``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Size, Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    constraints,
)
from typing_extensions import override

from vaelab.errors import ConfigError
from vaelab.models import noise
from vaelab.models.flows import FLOWS, build_flow
from vaelab.models.posteriors import DiagonalNormal, positive_scale, raw_scale


class StandardNormal(DiagonalNormal):
    """N(0, I) on the last dimension of ``zeros (D,)``."""

    def __init__(self, zeros: Tensor) -> None:
        super().__init__(zeros, torch.ones_like(zeros))

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        squares = value.square().sum(-1)
        return -0.5 * (squares + self.event_shape[0] * math.log(2 * math.pi))


class GaussianMixture(MixtureSameFamily):
    r"""$\sum_k \pi_k N(\mu_k, diag\,\sigma_k^2)$ with ``logits (K,)``, ``loc, scale (K, D)``."""

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor) -> None:
        weights = Categorical(logits=logits, validate_args=False)
        components = Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)
        super().__init__(weights, components, validate_args=False)
        self.loc, self.scale = loc, scale

    @override
    def sample(self, sample_shape: Sequence[int] = (), temperature: float = 1.0) -> Tensor:
        """Draw a component, then its noise times ``temperature``: ``(*sample_shape, D)``."""
        shape = (*sample_shape, self.loc.shape[1])
        device, dtype = self.loc.device, self.loc.dtype
        with torch.no_grad():
            u = noise.uniform((*sample_shape, 1), batch_dim=-2, device=device, dtype=dtype)
            edges = self.mixture_distribution.probs.cumsum(0)[:-1]  # K - 1: the last is open
            component = torch.searchsorted(edges, u.squeeze(-1), right=True)
            epsilon = noise.normal(shape, batch_dim=-2, device=device, dtype=dtype)
            return self.loc[component] + temperature * self.scale[component] * epsilon


class FlowDistribution(Distribution):
    r"""Density $N(f(z); 0, I) |\det \partial f / \partial z|$ of an unconditional zuko flow.

    Computed in float32 even within autocast, and with the noise of `vaelab.models.noise`.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, flow: Any) -> None:
        self.flow = flow
        self.loc: Tensor = flow.base.base_dist.loc  # of the base normal: zeros
        super().__init__(Size(), flow.event_shape, validate_args=False)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        with torch.autocast(value.device.type, enabled=False):
            density: Tensor = self.flow.log_prob(value.to(self.loc.dtype))
        return density

    @override
    def rsample(self, sample_shape: Sequence[int] = (), temperature: float = 1.0) -> Tensor:
        """Push normal noise times ``temperature`` through the flow: ``(*sample_shape, D)``."""
        shape = self._extended_shape(Size(sample_shape))
        device, dtype = self.loc.device, self.loc.dtype
        epsilon = noise.normal(shape, batch_dim=-2, device=device, dtype=dtype)
        with torch.autocast(device.type, enabled=False):
            z: Tensor = self.flow.transform.inv(temperature * epsilon)
        return z


class NormalPrior(nn.Module):
    """p(z) = N(0, I): nothing to learn."""

    zeros: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self, context: Tensor | None = None) -> StandardNormal:
        """Return p(z), the same for every ``context``."""
        return StandardNormal(self.zeros)

    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw ``(n, D)`` latents with the standard deviation ``temperature``."""
        return temperature * self.forward().sample((n,))


class MixturePrior(nn.Module):
    r"""A learned Gaussian mixture with diagonal covariances.

    At the start the weights are equal, the scales ½ and the means drawn from N(0, ¾ I), so that
    the whole has about the moments of N(0, I) while no two components are alike.

    Source: MoG prior, in Tomczak and Welling (2018).
    """

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(math.sqrt(0.75) * torch.randn(components, latent_dim))
        self.raw_scale = nn.Parameter(torch.full((components, latent_dim), raw_scale(0.5)))

    def forward(self, context: Tensor | None = None) -> GaussianMixture:
        """Return p(z), the same for every ``context``."""
        return GaussianMixture(self.logits, self.loc, positive_scale(self.raw_scale))

    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw ``(n, D)`` latents; ``temperature`` scales the noise within each component."""
        return self.forward().sample((n,), temperature)


class FlowPrior(nn.Module):
    """A normalising flow by zuko, ``name`` a key of `FLOWS`.

    Raises:
        ConfigError: when zuko is not installed.
    """

    def __init__(self, name: str, latent_dim: int) -> None:
        super().__init__()
        self.flow = build_flow(name, f"prior {name}", latent_dim)

    def forward(self, context: Tensor | None = None) -> FlowDistribution:
        """Return p(z), the same for every ``context``."""
        return FlowDistribution(self.flow())

    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """Draw ``(n, D)`` latents; ``temperature`` scales the noise that the flow transforms."""
        return self.forward().rsample((n,), temperature)


Prior = NormalPrior | MixturePrior | FlowPrior


def build_prior(name: str, latent_dim: int, *, components: int = 50) -> Prior:
    """Return the prior called ``name``: normal, mixture (of ``components``) or a key of `FLOWS`.

    Raises:
        ConfigError: when no prior has this name, or a flow is asked for without zuko.
    """
    key = name.lower()
    if key == "normal":
        return NormalPrior(latent_dim)
    if key == "mixture":
        return MixturePrior(latent_dim, components)
    if key in FLOWS:
        return FlowPrior(key, latent_dim)
    known = ["normal", "mixture", *FLOWS]
    close = difflib.get_close_matches(key, known, 1, 0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ConfigError(f"prior {name!r} is unknown; {hint}Known: {', '.join(known)}.")
