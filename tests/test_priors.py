from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch

from vaelab.errors import ConfigError
from vaelab.models import noise
from vaelab.models.flows import FLOWS
from vaelab.models.priors import MixturePrior, build_prior

ALL = ["normal", "mixture", *FLOWS]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_normal_agrees_with_torch() -> None:
    prior = build_prior("normal", 4)
    z = torch.randn(3, 5, 4)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(prior().log_prob(z), expected)
    assert list(prior.parameters()) == []
    assert prior.state_dict() == {}


def test_mixture_is_the_weighted_sum_of_its_components() -> None:
    prior = build_prior("mixture", 3, components=4)
    assert isinstance(prior, MixturePrior)
    torch.nn.init.normal_(prior.logits)
    p = prior()
    z = torch.randn(6, 3)
    weights = prior.logits.softmax(0)
    expected = torch.zeros(6)
    for k in range(4):
        component = torch.distributions.Normal(p.loc[k], p.scale[k])
        expected += weights[k] * component.log_prob(z).sum(-1).exp()
    torch.testing.assert_close(p.log_prob(z), expected.log())


def test_mixture_starts_about_standard_and_with_distinct_components() -> None:
    prior = build_prior("mixture", 5, components=400)
    p = prior()
    torch.testing.assert_close(p.mean, torch.zeros(5), rtol=0, atol=0.2)
    torch.testing.assert_close(p.variance, torch.ones(5), rtol=0.2, atol=0)
    distances = torch.cdist(p.loc, p.loc) + torch.eye(400) * 9
    assert distances.min() > 0.01


def test_mixture_samples_follow_its_density() -> None:
    prior = build_prior("mixture", 1, components=3)
    assert isinstance(prior, MixturePrior)
    with torch.no_grad():
        prior.logits.copy_(torch.tensor([0.0, 1.0, -1.0]))
        prior.loc.copy_(torch.tensor([[-4.0], [0.0], [4.0]]))
    z = prior.sample(100_000)[:, 0]
    weights = prior.logits.softmax(0)
    for k, low in enumerate([-6.0, -2.0, 2.0]):
        share = ((z > low) & (z <= low + 4)).float().mean().item()
        assert share == pytest.approx(weights[k].item(), abs=0.008)
    assert z[z > 2].std().item() == pytest.approx(0.5, abs=0.02)
    cold = prior.sample(100_000, temperature=0.5)[:, 0]
    assert cold[cold > 2].std().item() == pytest.approx(0.25, abs=0.01)
    assert cold[cold > 2].mean().item() == pytest.approx(4, abs=0.01)


@pytest.mark.parametrize("name", ALL)
def test_contract(name: str) -> None:
    """A gradient for every parameter and for z, samples of the shape asked for, save and load."""
    prior = build_prior(name.upper(), 2, components=7)
    z = torch.randn(3, 8, 2, requires_grad=True)
    log_prob = prior().log_prob(z)
    assert log_prob.shape == (3, 8)
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert z.grad is not None
    assert z.grad.abs().min() > 0
    for parameter_name, parameter in prior.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
    samples = prior.sample(9)
    assert samples.shape == (9, 2)
    assert not samples.requires_grad
    other = build_prior(name, 2, components=7)
    other.load_state_dict(prior.state_dict())
    torch.testing.assert_close(other().log_prob(z), log_prob)


@pytest.mark.parametrize("name", ALL)
def test_density_integrates_to_one(name: str) -> None:
    prior = build_prior(name, 2, components=5)
    side = torch.linspace(-12, 12, 241)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        p = prior().log_prob(grid).exp().reshape(241, 241)
    mass = torch.trapezoid(torch.trapezoid(p, side), side).item()
    assert mass == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ALL)
def test_samples_follow_the_density(name: str) -> None:
    """Mean log density of samples against ∫ p log p on a grid."""
    prior = build_prior(name, 1, components=5)
    grid = torch.linspace(-12, 12, 40_001)[:, None]
    with torch.no_grad():
        log_p = prior().log_prob(grid).double()
        entropy = torch.trapezoid(-log_p.exp() * log_p, grid[:, 0].double()).item()
        log_q = prior().log_prob(prior.sample(10_000)).double()
    error = log_q.std().item() / math.sqrt(len(log_q))
    assert -log_q.mean().item() == pytest.approx(entropy, abs=5 * error + 0.01)


@pytest.mark.parametrize("name", FLOWS)
def test_temperature_scales_the_noise_of_a_flow(name: str) -> None:
    prior = build_prior(name, 2)
    torch.manual_seed(4)
    epsilon = torch.randn(6, 2)
    flow: Any = prior.flow
    with torch.no_grad():
        expected = flow().transform.inv(0.7 * epsilon)
    torch.manual_seed(4)
    torch.testing.assert_close(prior.sample(6, temperature=0.7), expected)


def test_temperature_scales_the_standard_deviation_of_the_normal() -> None:
    prior = build_prior("normal", 2)
    assert prior.sample(50_000, temperature=0.6).std().item() == pytest.approx(0.6, rel=0.01)


@pytest.mark.parametrize("name", ["normal", "mixture", "maf"])
def test_samples_do_not_depend_on_the_number_of_processes(name: str) -> None:
    prior = build_prior(name, 2, components=4)
    torch.manual_seed(5)
    whole = prior.sample(6)
    for start, stop in [(0, 2), (2, 6)]:
        torch.manual_seed(5)
        with noise.sharded(start, stop, 6):
            part = prior.sample(stop - start)
        torch.testing.assert_close(part, whole[start:stop], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_autocast_does_not_touch_the_density(name: str) -> None:
    prior = build_prior(name, 2, components=4)
    z = torch.randn(5, 2)
    expected = prior().log_prob(z)
    with torch.autocast("cpu", torch.bfloat16):
        actual = prior().log_prob(z)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_a_flow_learns_two_modes() -> None:
    """Better than the best normal, whose cross-entropy is that of unit variance about zero."""
    prior = build_prior("nsf", 1)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.02)
    for _ in range(150):
        z = 0.2 * torch.randn(256, 1) + torch.randint(0, 2, (256, 1)) * 2.0 - 1
        optimizer.zero_grad()
        loss = -prior().log_prob(z).mean()
        loss.backward()
        optimizer.step()
    exact = math.log(2) + math.log(0.2) + 0.5 * math.log(2 * math.pi * math.e)
    assert loss.item() < exact + 0.15


def test_errors_name_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"'nfs' is unknown; did you mean nsf\? Known: normal"):
        build_prior("nfs", 2)

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install vaelab\[flows\]"):
        build_prior("maf", 2)
