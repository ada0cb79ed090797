"""Training finds the optimum of a model whose optimum is known: probabilistic PCA.

With a linear decoder and one σ, p(x) = N(b, W Wᵀ + σ² I). Its maximum-likelihood value follows from
the eigenvalues of the data's covariance (Tipping and Bishop, 1999), and a linear VAE has no other
maximum of the ELBO than that one (Lucas et al., 2019).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vaelab import api
from vaelab.data.load import load_data


def ppca_optimum(x: torch.Tensor, latent_dim: int) -> float:
    """Mean log-likelihood of the best pPCA model of ``x (N, d)``, nats."""
    d = x.shape[1]
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    noise = values[latent_dim:].mean()
    log_det = values[:latent_dim].log().sum() + (d - latent_dim) * noise.log()
    return float(-0.5 * (d * math.log(2 * math.pi) + log_det + d))


@pytest.mark.slow
def test_training_reaches_the_ppca_optimum() -> None:
    generator = np.random.default_rng(0)
    loadings = np.linalg.qr(generator.normal(size=(16, 2)))[0].T * [[0.35], [0.25]]
    x = 0.5 + generator.normal(size=(1000, 2)) @ loadings
    x = (x + 0.08 * generator.normal(size=(1000, 16))).clip(0, 1)
    splits = load_data(x.reshape(-1, 4, 4), split=(1, 0, 0))
    model = api.train(
        "vae",
        splits,
        latent_dim=2,
        encoder={"kind": "mlp", "hidden": []},
        likelihood="gaussian-scalar",
        epochs=250,
        batch_size=50,
        lr=0.03,
        schedule="cosine",
        precision="fp32",
        device="cpu",
    )
    images = splits.train.take(torch.arange(1000))
    best = ppca_optimum(images.flatten(1).double() / 255, 2)
    exact = exact_log_prob(model, images)
    elbo = float(model.elbo(images, samples=50).mean())
    iwae = [float(model.log_prob(images, samples=k).mean()) for k in (5, 50)]
    assert elbo == pytest.approx(best, abs=0.12)
    assert exact == pytest.approx(best, abs=0.05)
    assert exact <= best + 1e-6
    noise = 0.02  # of the estimates, nats
    assert elbo <= iwae[0] + noise
    assert iwae[0] <= iwae[1] + noise
    assert iwae[1] <= exact + noise


def exact_log_prob(model: torch.nn.Module, images: torch.Tensor) -> float:
    """Mean log N(x; b, W Wᵀ + σ² I) of a linear model, read off its decoder."""
    with torch.inference_mode():
        codes = torch.cat([torch.zeros(1, 2), torch.eye(2)])
        p = model.decode(codes)  # type: ignore[operator]
        means = p.mean.flatten(1).double()
        sigma = float(p.stddev.flatten()[0])
    w = (means[1:] - means[0]).T
    covariance = w @ w.T + sigma**2 * torch.eye(16, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(means[0], covariance)
    return float(normal.log_prob(images.flatten(1).double() / 255).mean())
