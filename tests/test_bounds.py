"""Bounds of log p(x), a richer posterior, and walks through the latent space."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import MultivariateNormal

from tests.conftest import SMALL
from tests.test_evaluation import Ppca, pixels
from vaelab import api
from vaelab.data.batches import Batch
from vaelab.data.images import ImageSet, Splits
from vaelab.evaluation.bounds import bound_figures, linear_density
from vaelab.evaluation.features import Features
from vaelab.evaluation.paths import path_figures
from vaelab.evaluation.samplers import Sampler
from vaelab.models.posteriors import Dirac, build_posterior


def test_the_density_of_a_linear_model_is_exact() -> None:
    known = Ppca()
    images = pixels(20)
    density = linear_density(known.vae("full"))
    assert density is not None
    torch.testing.assert_close(
        density(images.float() / 255), known.log_prob(images), atol=1e-3, rtol=0
    )


def test_a_decoder_that_bends_has_no_closed_form(spots: Splits) -> None:
    bent = api.train(data=spots, **{**SMALL, "epochs": 1, "likelihood": "gaussian"})
    assert linear_density(bent) is None
    binary = api.train(data=spots, **{**SMALL, "epochs": 1})
    assert linear_density(binary) is None


def test_bounds_rise_to_the_exact_value() -> None:
    known = Ppca()
    images = ImageSet(pixels(150))
    model = known.vae("full", stretch=1.6)
    figures = bound_figures(model, images, draws=(1, 5, 50, 500))
    values = [figures[f"iwae_{k}"].value for k in (1, 5, 50, 500)]
    exact = float(known.log_prob(pixels(150)).mean())
    assert values == sorted(values)
    assert figures["exact_log_prob"].value == pytest.approx(exact, abs=1e-3)
    assert values[-1] == pytest.approx(exact, abs=0.02)
    elbo = float(known.elbo(pixels(150), 1.6).mean())
    assert values[0] == pytest.approx(elbo, abs=0.05)
    assert figures["posterior_gap"].value == pytest.approx(exact - elbo, abs=0.05)
    none = bound_figures(known.vae("full"), images, draws=(1, 5))
    assert none["posterior_gap"].value == pytest.approx(0, abs=1e-3)  # q is the posterior


def test_the_flow_posterior_is_a_density_with_the_moments_that_it_says() -> None:
    torch.manual_seed(0)
    posterior = build_posterior("flow", 2)
    with torch.no_grad():
        q: Any = posterior(0.7 * torch.randn(1, posterior.size))
        side = torch.linspace(-9, 9, 361)
        grid = torch.cartesian_prod(side, side)[:, None]
        mass = q.log_prob(grid).double().exp()[:, 0] * float(side[1] - side[0]) ** 2
        assert float(mass.sum()) == pytest.approx(1, abs=0.01)
        mean = (mass[:, None] * grid[:, 0]).sum(0)
        draws = q.rsample((20_000,))[:, 0]
        torch.testing.assert_close(draws.mean(0).double(), mean, atol=0.04, rtol=0)
        torch.testing.assert_close(q.mean[0].double(), mean, atol=0.2, rtol=0)
        torch.testing.assert_close(q.stddev[0], draws.std(0), atol=0.25, rtol=0.25)
        assert torch.equal(q.mean, q.mean)


def test_a_flow_fits_a_posterior_that_no_diagonal_can() -> None:
    """By the reverse KL to a strongly correlated normal: 0 is within reach of the flow alone."""
    torch.manual_seed(0)
    target = MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.95], [0.95, 1.0]]))
    gaps = {}
    for name in ("diagonal", "flow"):
        posterior = build_posterior(name, 2)
        raw = torch.zeros(1, posterior.size, requires_grad=True)
        optimizer = torch.optim.Adam([raw, *posterior.parameters()], 0.02)
        for _ in range(300):
            q = posterior(raw)
            z = q.rsample((128,))
            gap = (q.log_prob(z) - target.log_prob(z)).mean()
            optimizer.zero_grad()
            gap.backward()
            optimizer.step()
        with torch.no_grad():
            q = posterior(raw)
            z = q.rsample((5000,))
            gaps[name] = float((q.log_prob(z) - target.log_prob(z)).mean())
    assert gaps["diagonal"] == pytest.approx(1.16, abs=0.1)  # −½ log(1 − 0.95²)
    assert gaps["flow"] < 0.15


class Line(torch.nn.Module):
    """Codes are places on a line of images: brightness is the code, or jumps half way."""

    device, rows, binarize = torch.device("cpu"), 64, "none"

    def __init__(self, jump: bool, dead: bool = False) -> None:
        super().__init__()
        self.jump, self.dead = jump, dead

    def encoder(self, images: torch.Tensor) -> Dirac:
        codes = images.flatten(1)[:, :1]
        return Dirac(torch.zeros_like(codes) if self.dead else codes)

    def distributions(self, batch: Batch) -> tuple[Dirac, None]:
        return self.encoder(batch.images), None

    def decoded(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.generate(z)

    def ordinary(self) -> dict[str, object]:
        return {}

    def generate(self, z: torch.Tensor) -> torch.Tensor:
        level = (z > 0.5).float() if self.jump else z
        return level.view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def test_walks_and_holes_of_known_models() -> None:
    features = Features("pixels", lambda x: _unit(x).flatten(1)[:, :1])
    levels = torch.linspace(0, 255, 256).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    known, images = ImageSet(levels[::2].clone()), ImageSet(levels[1::2].clone())

    def figures(model: Any, reach: float) -> dict[str, float]:
        def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.linspace(0, reach, n)[:, None], torch.zeros(n, 0)

        sampler = Sampler("a line", model, draw)
        found = path_figures(model, images, features, sampler, known)
        return {name: figure.value for name, figure in found.items()}

    even = figures(Line(jump=False), 1.0)
    assert even["path_length"] == pytest.approx(1, abs=1e-4)
    assert even["path_jump"] == pytest.approx(1, abs=1e-3)
    beyond = figures(Line(jump=False), 2.0)  # half of the samples are brighter than any image
    assert beyond["holes"] == pytest.approx(0.5, abs=0.02)
    assert figures(Line(jump=True), 1.0)["path_jump"] == pytest.approx(24, abs=0.1)
    assert set(figures(Line(jump=False, dead=True), 1.0)) == {"holes"}  # nowhere to walk


def _unit(images: Any) -> torch.Tensor:
    x = torch.as_tensor(images)
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()
