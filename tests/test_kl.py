from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vaelab.errors import ConfigError
from vaelab.models.flows import FLOWS
from vaelab.models.kl import analytic_kl, monte_carlo_kl
from vaelab.models.posteriors import build_posterior
from vaelab.models.priors import build_prior

Name = Literal["diagonal", "full", "flow"]
CLOSED: list[Name] = ["diagonal", "full"]
DENSITIES: list[Name] = [*CLOSED, "flow"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", CLOSED)
def test_closed_form_against_torch_and_monte_carlo(name: Name) -> None:
    posterior, prior = build_posterior(name, 3), build_prior("normal", 3)
    q, p = posterior(torch.randn(2, posterior.size)), prior()
    kl = analytic_kl(q, p)
    assert kl is not None
    if name == "full":
        reference = kl_divergence(
            MultivariateNormal(q.loc, q.covariance_matrix),
            MultivariateNormal(torch.zeros(3), torch.eye(3)),
        )
    else:
        reference = kl_divergence(Normal(q.loc, q.scale), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(kl, reference, rtol=1e-4, atol=1e-4)

    n = 200_000
    estimates = monte_carlo_kl(q, p, q.rsample((n,)))
    assert estimates.shape == (n, 2)
    error = estimates.std(0) / math.sqrt(n)
    assert ((estimates.mean(0) - kl).abs() < 5 * error).all()


@pytest.mark.parametrize("name", CLOSED)
def test_kl_of_the_prior_from_itself_is_zero(name: Name) -> None:
    posterior, prior = build_posterior(name, 4), build_prior("normal", 4)
    q = posterior(torch.zeros(2, posterior.size))
    kl = analytic_kl(q, prior())
    assert kl is not None
    assert kl.tolist() == pytest.approx([0, 0], abs=1e-6)
    estimates = monte_carlo_kl(q, prior(), q.rsample((50,)))
    assert estimates.abs().max() < 1e-4


def test_torch_knows_two_diagonal_normals() -> None:
    posterior = build_posterior("diagonal", 3)
    q, p = posterior(torch.randn(5, 6)), posterior(torch.randn(5, 6))
    kl = analytic_kl(q, p)
    assert kl is not None
    expected = kl_divergence(Normal(q.loc, q.scale), Normal(p.loc, p.scale)).sum(-1)
    torch.testing.assert_close(kl, expected)


@pytest.mark.parametrize("posterior_name", DENSITIES)
@pytest.mark.parametrize("prior_name", ["mixture", *FLOWS])
def test_monte_carlo_against_quadrature(posterior_name: Name, prior_name: str) -> None:
    """∫ q (log q - log p) on a grid of two dimensions, where no closed form is known."""
    posterior, prior = build_posterior(posterior_name, 2), build_prior(prior_name, 2, components=5)
    raw = 0.5 * torch.randn(1, posterior.size)
    with torch.no_grad():
        q, p = posterior(raw), prior()
        assert analytic_kl(q, p) is None
        n = 20_000
        estimates = monte_carlo_kl(q, p, q.rsample((n,))).double()[:, 0]
        side = torch.linspace(-8, 8, 161)
        grid = torch.cartesian_prod(side, side)[:, None]
        log_q = q.log_prob(grid).double()
        integrand = log_q.exp() * (log_q - p.log_prob(grid))
        exact = integrand.sum().item() * (side[1] - side[0]).item() ** 2
    error = estimates.std().item() / math.sqrt(n)
    assert estimates.mean().item() == pytest.approx(exact, abs=5 * error + 0.01)


@pytest.mark.parametrize("posterior_name", DENSITIES)
@pytest.mark.parametrize("prior_name", ["normal", "mixture", *FLOWS])
def test_gradients_reach_all_parameters(posterior_name: Name, prior_name: str) -> None:
    posterior, prior = build_posterior(posterior_name, 3), build_prior(prior_name, 3, components=4)
    raw = torch.randn(5, posterior.size, requires_grad=True)
    q, p = posterior(raw), prior()
    rate = analytic_kl(q, p)
    if rate is None:
        rate = monte_carlo_kl(q, p, q.rsample((4,)))
    rate.sum().backward()
    assert raw.grad is not None
    assert raw.grad.abs().min() > 0
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_point_mass_has_no_rate() -> None:
    q, p = build_posterior("dirac", 2)(torch.randn(3, 2)), build_prior("normal", 2)()
    assert analytic_kl(q, p) is None
    with pytest.raises(ConfigError, match="no ELBO"):
        monte_carlo_kl(q, p, q.rsample((1,)))
