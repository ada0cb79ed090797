r"""The rate: KL divergence of a posterior q(z|x) from a prior p(z), in nats per image."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from vaelab.models.posteriors import DiagonalNormal, FullNormal
from vaelab.models.priors import StandardNormal


def analytic_kl(q: Distribution, p: Distribution) -> Tensor | None:
    r"""Return KL(q ‖ p) in closed form, of q's batch shape, or None where there is none.

    $$KL(N(\mu, diag\,\sigma^2) ‖ N(0, I)) = ½ \sum_d (\mu_d^2 + \sigma_d^2 - 1 - 2\log\sigma_d)$$
    $$KL(N(\mu, L L^T) ‖ N(0, I)) = ½ (‖\mu‖^2 + ‖L‖_F^2 - D) - \sum_d \log L_{dd}$$

    and whatever `torch.distributions.kl_divergence` knows.
    """
    parts = kl_per_dimension(q, p)
    if parts is not None:
        return parts.sum(-1)
    if isinstance(p, StandardNormal) and isinstance(q, FullNormal):
        squares = q.loc.square().sum(-1) + q.scale_tril.square().sum((-2, -1))
        diagonal = q.scale_tril.diagonal(dim1=-2, dim2=-1)
        return 0.5 * (squares - q.event_shape[0]) - diagonal.log().sum(-1)
    try:
        divergence: Tensor = kl_divergence(q, p)
    except NotImplementedError:
        return None
    return divergence


def monte_carlo_kl(q: Distribution, p: Distribution, z: Tensor) -> Tensor:
    r"""Return $\log q(z|x) - \log p(z)$ at samples ``z (S, B, D)`` of q, shape ``(S, B)``.

    Its mean over the samples is an unbiased estimate of KL(q ‖ p).

    Raises:
        ConfigError: when q is a point mass.
    """
    return q.log_prob(z) - p.log_prob(z)


def kl_per_dimension(q: Distribution, p: Distribution) -> Tensor | None:
    r"""Return the rate of each latent dimension, ``(..., D)`` nats, or None if it does not divide.

    $$KL_d = ½ (\mu_d^2 + \sigma_d^2 - 1 - 2\log\sigma_d)$$

    for a diagonal posterior and a standard normal prior, and for a normal prior of mean m and
    deviation s the same of (μ − m)/s and σ/s; their sum is `analytic_kl`.
    """
    if not (isinstance(p, DiagonalNormal) and isinstance(q, DiagonalNormal)):
        return None
    loc, scale = q.loc, q.scale
    if not isinstance(p, StandardNormal):
        loc, scale = (loc - p.loc) / p.scale, scale / p.scale
    return 0.5 * (loc.square() + scale.square() - 1) - scale.log()
