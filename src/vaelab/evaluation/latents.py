"""What the latent code is used for: active units, rate by dimension, aggregate posterior."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaelab.training.validation import ACTIVE_VARIANCE, variance_of_means

_PAIRS = 2**21  # densities at once, times D numbers each


def active_units(means: Tensor) -> tuple[Tensor, Tensor]:
    """Return which latent dimensions are active, ``(D,)`` bool, and Var_x E[z|x] of each, ``(D,)``.

    A dimension is active when the variance over images of its posterior mean exceeds 0.01.
    Source: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016.

    Arguments:
        means: posterior means of at least two images, ``(N, D)``.
    """
    variance = variance_of_means(means)
    return variance > ACTIVE_VARIANCE, variance


def aggregate_moments(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean ``(D,)`` and covariance ``(D, D)`` of the aggregate posterior E_x q(z|x).

    Arguments:
        codes: a draw from the posterior of each of at least two images, ``(N, D)``.
    """
    codes = codes.double()
    return codes.mean(0), torch.cov(codes.T).reshape(codes.shape[1], codes.shape[1])


def split_rate(posterior: Distribution, prior: Distribution, z: Tensor) -> tuple[Tensor, Tensor]:
    """Split the rate of each image into what it tells about the image and what it wastes.

        mean_x KL(q(z|x) ‖ p(z)) = I(x; z) + KL(q(z) ‖ p(z)),   q(z) = 1/N Σ_x q(z|x)

    Both parts are estimated at one draw for each image. The aggregate posterior q(z) is that of
    these N images, each its own among them, so that I(x; z) cannot exceed log N. Of the
    distribution that the images are drawn from, the first is therefore a lower bound in
    expectation and the second an upper one, for any N. Sources: Hoffman and Johnson, ELBO surgery,
    2016; Poole et al., On variational bounds of mutual information, 2019 (section 2.3, with the
    known conditional).

    Arguments:
        posterior: q(z|x) of N images, batch shape ``(N,)``.
        prior: p(z).
        z: a draw from each posterior, ``(N, D)``.

    Returns:
        tuple: log q(z|x) − log q(z) and log q(z) − log p(z), each ``(N,)`` nats.
    """
    rows = max(1, _PAIRS // z.numel())
    aggregate = torch.cat(
        [torch.logsumexp(posterior.log_prob(part.unsqueeze(1)), 1) for part in z.split(rows)]
    ) - math.log(len(z))
    return posterior.log_prob(z) - aggregate, aggregate - prior.log_prob(z)
