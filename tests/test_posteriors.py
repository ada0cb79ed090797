from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from vaelab.config import PosteriorName
from vaelab.errors import ConfigError
from vaelab.models import noise
from vaelab.models.posteriors import (
    MIN_SCALE,
    FullNormal,
    build_posterior,
    positive_scale,
    raw_scale,
)

NAMES: tuple[PosteriorName, ...] = get_args(PosteriorName)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def draw(kind: str, shape: tuple[int, ...], batch_dim: int) -> Tensor:
    return getattr(noise, kind)(shape, batch_dim=batch_dim, device="cpu")  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize(("shape", "batch_dim"), [((5, 7, 3), 1), ((7, 3), 0), ((7, 3), -2)])
def test_shards_make_up_the_whole_draw(kind: str, shape: tuple[int, ...], batch_dim: int) -> None:
    torch.manual_seed(3)
    whole = draw(kind, shape, batch_dim)
    torch.manual_seed(3)
    plain = torch.randn(shape) if kind == "normal" else torch.rand(shape)
    assert torch.equal(whole, plain)
    parts = []
    for start, stop in [(0, 4), (4, 7)]:
        torch.manual_seed(3)
        local = list(shape)
        local[batch_dim] = stop - start
        with noise.sharded(start, stop, 7):
            parts.append(draw(kind, tuple(local), batch_dim))
    assert torch.equal(torch.cat(parts, batch_dim), whole)


def test_a_shard_ends_with_its_context_and_checks_the_batch() -> None:
    with noise.sharded(0, 2, 4):
        with pytest.raises(ValueError, match="no batch of 2"):
            noise.normal((3, 5), batch_dim=0)
        with pytest.raises(ValueError, match="no batch of 2"):
            noise.normal((5,), batch_dim=-2)
    assert noise.normal((3, 5), batch_dim=0).shape == (3, 5)
    with pytest.raises(ValueError, match="rows 2 to 5"), noise.sharded(2, 5, 4):
        pass


def test_repeated_images_have_rows_of_their_own() -> None:
    """Two processes of 4 images, each of them three times, draw what one process does."""
    torch.manual_seed(0)
    whole = noise.normal((12, 2), batch_dim=0)
    for start, stop in ((0, 2), (2, 4)):
        torch.manual_seed(0)
        with noise.sharded(start, stop, 4), noise.repeated(3):
            part = noise.normal((6, 2), batch_dim=0)
        assert torch.equal(part, whole[3 * start : 3 * stop])
    torch.manual_seed(0)
    with noise.repeated(3):
        assert torch.equal(noise.normal((12, 2), batch_dim=0), whole)


@pytest.mark.parametrize("name", NAMES)
def test_posterior_samples_do_not_depend_on_the_number_of_processes(name: PosteriorName) -> None:
    posterior = build_posterior(name, 3)
    raw = torch.randn(6, posterior.size)
    torch.manual_seed(1)
    whole = posterior(raw).rsample((4,))
    assert whole.shape == (4, 6, 3)
    for start, stop in [(0, 2), (2, 6)]:
        torch.manual_seed(1)
        with noise.sharded(start, stop, 6):
            part = posterior(raw[start:stop]).rsample((4,))
        torch.testing.assert_close(part, whole[:, start:stop], rtol=0, atol=1e-6)


def test_scales_are_positive_bounded_and_one_at_zero() -> None:
    raw = torch.tensor([-1e4, -30.0, 0.0, 30.0, 1e4]).requires_grad_()
    scale = positive_scale(raw)
    assert scale[2].item() == pytest.approx(1, abs=1e-6)
    assert scale.min().item() == pytest.approx(MIN_SCALE)
    assert scale.isfinite().all()
    (gradient,) = torch.autograd.grad(scale.log().sum(), raw)
    assert gradient.isfinite().all()
    for value in (0.001, 0.5, 20.0):
        assert positive_scale(torch.tensor(raw_scale(value))).item() == pytest.approx(value)


def test_diagonal_agrees_with_torch() -> None:
    posterior = build_posterior("diagonal", 3)
    q = posterior(torch.randn(5, posterior.size, requires_grad=True))
    assert (q.batch_shape, q.event_shape) == ((5,), (3,))
    reference = torch.distributions.Normal(q.mean, q.stddev)
    z = q.rsample((4,))
    torch.testing.assert_close(q.log_prob(z), reference.log_prob(z).sum(-1))
    torch.testing.assert_close(q.entropy(), reference.entropy().sum(-1))
    torch.testing.assert_close(q.variance, q.stddev.square())
    assert z.requires_grad
    assert not q.sample((4,)).requires_grad


def test_full_agrees_with_torch_and_lays_out_its_factor_row_by_row() -> None:
    posterior = build_posterior("full", 3)
    assert posterior.size == 9
    raw = torch.randn(5, 9)
    q = posterior(raw)
    assert (q.batch_shape, q.event_shape) == ((5,), (3,))
    factor, sigma = q.scale_tril[0], positive_scale(raw[0, 3:6])
    torch.testing.assert_close(factor.diagonal(), sigma)
    below = torch.stack([factor[1, 0], factor[2, 0], factor[2, 1]])
    torch.testing.assert_close(below, sigma[[1, 2, 2]] * raw[0, 6:])
    assert factor.triu(1).abs().max() == 0
    z = torch.randn(4, 5, 3)
    covariance = q.scale_tril @ q.scale_tril.mT
    reference = torch.distributions.MultivariateNormal(raw[:, :3], covariance)
    torch.testing.assert_close(q.log_prob(z), reference.log_prob(z), rtol=1e-3, atol=1e-3)


def test_full_knows_the_density_of_its_draws_however_thin_it_is() -> None:
    torch.manual_seed(0)
    tril = torch.eye(5) * 1e-4
    tril += torch.full((5, 5), 5.0).tril(-1)  # L⁻¹ has entries of 10²⁰ and more
    q = FullNormal(torch.full((1, 5), 3.0), tril[None])
    z = q.rsample((10_000,))
    entropy = 0.5 * 5 * math.log(2 * math.pi * math.e) + 5 * math.log(1e-4)
    error = math.sqrt(5 / 2 / 10_000)  # of the mean of ε²/2 over five dimensions
    assert -q.log_prob(z).mean().item() == pytest.approx(entropy, abs=5 * error)
    wide = FullNormal(torch.zeros(1, 2), torch.tensor([[[1.0, 0.0], [0.5, 2.0]]]))
    z = wide.rsample((8,))
    torch.testing.assert_close(wide.log_prob(z), wide.log_prob(z.clone()))


@pytest.mark.parametrize("name", ["diagonal", "full"])
def test_moments_of_samples(name: PosteriorName) -> None:
    torch.manual_seed(0)
    posterior = build_posterior(name, 2)
    q = posterior(torch.randn(1, posterior.size))
    n = 200_000
    z = q.rsample((n,))[:, 0]
    error = (q.stddev[0] / math.sqrt(n)).tolist()
    for d in range(2):
        assert z[:, d].mean().item() == pytest.approx(q.mean[0, d].item(), abs=5 * error[d])
    covariance = q.covariance_matrix[0] if name == "full" else torch.diag(q.variance[0])
    torch.testing.assert_close(z.T.cov(), covariance, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_features_give_single_precision_samples(name: PosteriorName) -> None:
    posterior = build_posterior(name, 4)
    raw = torch.randn(3, posterior.size).bfloat16()
    torch.manual_seed(0)
    expected = posterior(raw.float()).rsample((2,))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        z = posterior(raw).rsample((2,))
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["diagonal", "full"])
@pytest.mark.parametrize("value", [-30.0, 30.0])
def test_gradients_at_extremes_are_finite(name: PosteriorName, value: float) -> None:
    posterior = build_posterior(name, 3)
    raw = torch.full((2, posterior.size), value).requires_grad_()
    q = posterior(raw)
    (gradient,) = torch.autograd.grad((q.rsample((2,)).square() - 1).sum() + q.entropy().sum(), raw)
    assert gradient.isfinite().all()


def test_dirac_is_a_point_without_a_density() -> None:
    raw = torch.randn(5, 3, requires_grad=True)
    q = build_posterior("dirac", 3)(raw)
    assert torch.equal(q.rsample((2,)), raw.expand(2, 5, 3))
    assert q.rsample((2,)).requires_grad
    assert torch.equal(q.mean, raw)
    assert q.stddev.abs().max() == 0
    assert q.variance.abs().max() == 0
    with pytest.raises(ConfigError, match="an autoencoder has no ELBO"):
        q.log_prob(raw)


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="known: diagonal, full, flow, dirac"):
        build_posterior("diag", 2)  # type: ignore[arg-type]
