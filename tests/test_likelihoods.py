from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from vaelab.config import LikelihoodName
from vaelab.errors import ConfigError
from vaelab.models._continuous_bernoulli import ContinuousBernoulli
from vaelab.models.likelihoods import LOG_SIGMA_FLOOR, ImageNormal, build_likelihood

NAMES: tuple[LikelihoodName, ...] = get_args(LikelihoodName)
EXTREMES = [-30.0, -5.0, -1e-3, 0.0, 2.0, 30.0]
LEVELS = torch.arange(256) / 255


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def raw_of(channels: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(channels, 1, 1, generator=torch.Generator().manual_seed(seed))


def as_images(values: Tensor) -> Tensor:
    return values.float().reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("raw", EXTREMES)
def test_bernoulli_masses_sum_to_one(raw: float) -> None:
    likelihood = build_likelihood("bernoulli", (1, 1, 1))
    masses = likelihood(torch.full((1, 1, 1), raw)).log_prob(as_images(torch.tensor([0, 1]))).exp()
    assert masses.sum().item() == pytest.approx(1, abs=1e-6)


def test_bernoulli_of_a_grey_image_is_the_negative_cross_entropy() -> None:
    raw, x = torch.randn(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    p = raw.sigmoid()
    expected = (x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3))
    actual = build_likelihood("bernoulli", (1, 4, 4))(raw).log_prob(x)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("raw", [*EXTREMES, -300.0, 300.0])
def test_continuous_bernoulli_integrates_to_one(raw: float) -> None:
    x = torch.linspace(0, 1, 100_001)
    density = build_likelihood("continuous-bernoulli", (1, 1, 1))(torch.full((1, 1, 1), raw))
    p = density.log_prob(as_images(x)).double().exp()
    assert torch.trapezoid(p, x.double()).item() == pytest.approx(1, abs=2e-4)
    mean = torch.trapezoid(p * x, x.double()).item()
    assert density.mean.item() == pytest.approx(mean, abs=2e-4)
    variance = torch.trapezoid(p * (x - mean).square(), x.double()).item()
    assert density.variance.item() == pytest.approx(variance, rel=2e-3)


def test_continuous_bernoulli_is_smooth_and_exact_around_zero() -> None:
    eta = torch.cat([torch.logspace(-7, 2.5, 200), torch.zeros(1)])
    eta = torch.cat([eta, -eta]).requires_grad_()
    x = torch.tensor(0.3)
    log_prob = ContinuousBernoulli(eta).log_prob(x)
    (gradient,) = torch.autograd.grad(log_prob.sum(), eta)
    # In double precision the series and the closed form each hold where the other does not
    exact = eta.detach().double()
    series = exact / 2 + exact**2 / 24 - exact**4 / 2880
    closed = torch.log(torch.expm1(exact.abs()) / exact.abs()) + exact.clamp(max=0)
    log_norm = torch.where(exact.abs() < 0.05, series, closed)
    slope = torch.where(
        exact.abs() < 0.05,
        0.5 + exact / 12 - exact**3 / 720,
        -1 / torch.expm1(-exact) - 1 / exact,
    )
    torch.testing.assert_close(log_prob.double(), 0.3 * exact - log_norm, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient.double(), 0.3 - slope, rtol=1e-6, atol=1e-6)


def test_continuous_bernoulli_second_gradient() -> None:
    eta = torch.tensor([-40.0, -1.5, -0.2, 0.1, 0.8, 3.0], dtype=torch.float64).requires_grad_()
    x = torch.rand(6, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda eta: ContinuousBernoulli(eta).log_prob(x), eta)
    assert torch.autograd.gradcheck(lambda eta: ContinuousBernoulli(eta).mean, eta)


@pytest.mark.parametrize("raw", EXTREMES)
def test_continuous_bernoulli_cdf_inverts_and_differentiates_to_its_density(raw: float) -> None:
    density = ContinuousBernoulli(torch.tensor(raw, dtype=torch.float64))
    u = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    torch.testing.assert_close(density.cdf(density.icdf(u)), u, rtol=1e-9, atol=1e-9)
    x = density.icdf(u).requires_grad_()
    (slope,) = torch.autograd.grad(density.cdf(x).sum(), x)
    torch.testing.assert_close(slope, density.log_prob(x).exp(), rtol=1e-5, atol=1e-9)
    entropy = -density.log_prob(density.icdf((torch.arange(20_000) + 0.5).double() / 20_000)).mean()
    assert density.entropy().item() == pytest.approx(entropy.item(), abs=1e-3)


@pytest.mark.parametrize("name", ["gaussian", "gaussian-scalar", "gaussian-pixel", "laplace"])
@pytest.mark.parametrize("raw", [-30.0, 0.3, 30.0])
@pytest.mark.parametrize("sigma", [0.01, 0.1, 1.0])
def test_densities_on_the_real_line_integrate_to_one(
    name: LikelihoodName, raw: float, sigma: float
) -> None:
    likelihood = build_likelihood(name, (1, 1, 1), sigma=sigma).double()
    parameters = torch.zeros(likelihood.channels, 1, 1, dtype=torch.float64)
    parameters[0] = raw
    x = raw + sigma * torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    density = likelihood(parameters)
    p = density.log_prob(x.reshape(-1, 1, 1, 1)).exp()
    assert torch.trapezoid(p, x).item() == pytest.approx(1, abs=1e-5)
    assert torch.trapezoid(p * x, x).item() == pytest.approx(density.mean.item(), abs=1e-3)


@pytest.mark.parametrize("name", ["gaussian", "gaussian-scalar", "gaussian-pixel"])
def test_gaussians_agree_with_torch(name: LikelihoodName) -> None:
    likelihood = build_likelihood(name, (2, 3, 3), sigma=0.2)
    raw, x = torch.randn(4, 5, likelihood.channels, 3, 3), torch.rand(5, 2, 3, 3)
    ours = likelihood(raw)
    reference = torch.distributions.Normal(ours.loc, ours.log_scale.exp())
    expected = reference.log_prob(x).sum((-3, -2, -1))
    assert expected.shape == (4, 5)
    torch.testing.assert_close(ours.log_prob(x), expected, rtol=1e-4, atol=1e-3)


def test_learned_scales_start_at_sigma_and_stop_at_the_floor() -> None:
    scalar = build_likelihood("gaussian-scalar", (1, 2, 2), sigma=0.07)
    assert scalar(torch.zeros(1, 2, 2)).stddev.flatten().tolist() == pytest.approx([0.07] * 4)
    (parameter,) = scalar.parameters()
    torch.nn.init.constant_(parameter, -1e3)
    floor = math.exp(LOG_SIGMA_FLOOR)
    assert scalar(torch.zeros(1, 2, 2)).stddev.max().item() == pytest.approx(floor)

    pixel = build_likelihood("gaussian-pixel", (1, 1, 1), sigma=0.07)
    assert pixel(torch.zeros(2, 1, 1)).stddev.item() == pytest.approx(0.07)
    assert pixel(torch.tensor([0.0, -1e3]).reshape(2, 1, 1)).stddev.item() == pytest.approx(floor)


def test_scalar_sigma_learns_the_residual() -> None:
    torch.manual_seed(0)
    likelihood = build_likelihood("gaussian-scalar", (1, 8, 8), sigma=0.5)
    x = 0.5 + 0.03 * torch.randn(64, 1, 8, 8)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-likelihood(torch.full((64, 1, 8, 8), 0.5)).log_prob(x).mean()).backward()
        optimizer.step()
    rmse = (x - 0.5).square().mean().sqrt().item()
    learned = likelihood(torch.zeros(1, 8, 8)).stddev.max().item()
    assert learned == pytest.approx(rmse, rel=1e-2)


def test_pixel_sigma_never_overflows() -> None:
    likelihood = build_likelihood("gaussian-pixel", (1, 1, 1))
    raw = torch.tensor([0.5, 1000.0]).reshape(2, 1, 1).requires_grad_()
    log_prob = likelihood(raw).log_prob(torch.ones(1, 1, 1))
    log_prob.backward()
    assert log_prob.item() == pytest.approx(-1000, rel=0.01)
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("scale", [0.5, 3.0, 30.0])
@pytest.mark.parametrize("mixtures", [1, 4])
def test_logistic_mixture_masses_sum_to_one(mixtures: int, scale: float) -> None:
    likelihood = build_likelihood("logistic-mixture", (1, 1, 1), mixtures=mixtures)
    for seed in range(5):
        distribution = likelihood(raw_of(likelihood.channels, seed, scale))
        masses = distribution.log_prob(as_images(LEVELS)).double().exp()
        assert masses.sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_logistic_mixture_of_two_channels_sums_to_one(seed: int) -> None:
    likelihood = build_likelihood("logistic-mixture", (2, 1, 1), mixtures=3)
    assert likelihood.channels == 3 * (1 + 2 + 2 + 1)
    pairs = torch.cartesian_prod(LEVELS, LEVELS).reshape(-1, 2, 1, 1)
    distribution = likelihood(raw_of(likelihood.channels, seed))
    masses = distribution.log_prob(pairs).double().exp()
    assert masses.sum().item() == pytest.approx(1, abs=1e-4)

    torch.manual_seed(seed)
    draws = 100_000
    x = distribution.sample((draws,))
    coarse = (pairs.flatten(1) * 255 / 64).long() @ torch.tensor([4, 1])
    expected = torch.zeros(16).double().scatter_add_(0, coarse, masses)
    code = (x.flatten(1) * 255 + 0.1).div(64).long() @ torch.tensor([4, 1])
    observed = code.bincount(minlength=16).double() / draws
    error = (expected * (1 - expected) / draws).sqrt()
    assert ((observed - expected).abs() < 5 * error + 1e-4).all()


@pytest.mark.parametrize("channels", [3, 4])
def test_logistic_mixture_in_colour_is_normalised(channels: int) -> None:
    """E under a uniform proposal of 256^C p(x) is 1; broad components keep its variance small."""
    likelihood = build_likelihood("logistic-mixture", (channels, 1, 1), mixtures=2, sigma=0.18)
    torch.manual_seed(1)
    levels = torch.randint(0, 256, (200_000, channels, 1, 1)) / 255
    weights = likelihood(raw_of(likelihood.channels, 3, 0.1)).log_prob(levels).double()
    weights = (weights + channels * math.log(256)).exp()
    error = weights.std().item() / math.sqrt(len(weights))
    assert error < 0.05
    assert weights.mean().item() == pytest.approx(1, abs=5 * error)


def test_logistic_mixture_matches_the_definition_in_double_precision() -> None:
    """Channel by channel, with the coefficients laid out row by row."""
    likelihood = build_likelihood("logistic-mixture", (3, 1, 1), mixtures=2, sigma=0.3)
    distribution = likelihood(raw_of(likelihood.channels, 4, 1.0).double())
    levels = torch.tensor([[0, 128, 255], [3, 77, 200], [255, 0, 31]])
    for level in levels:
        x = (level.double() / 127.5 - 1).tolist()
        total = 0.0
        weights = distribution.logits.softmax(0).flatten().tolist()
        for k, weight in enumerate(weights):
            m = distribution.loc[k].flatten().tolist()
            s = distribution.log_scale[k].exp().flatten().tolist()
            a = distribution.coefficients[k].flatten().tolist()
            mu = [m[0], m[1] + a[0] * x[0], m[2] + a[1] * x[0] + a[2] * x[1]]
            for c in range(3):
                upper = 1 / (1 + math.exp(-(x[c] + 1 / 255 - mu[c]) / s[c])) if x[c] < 1 else 1
                lower = 1 / (1 + math.exp(-(x[c] - 1 / 255 - mu[c]) / s[c])) if x[c] > -1 else 0
                weight *= upper - lower
            total += weight
        actual = distribution.log_prob((level / 255).reshape(3, 1, 1)).item()
        assert actual == pytest.approx(math.log(total), rel=1e-6)


def test_logistic_mixture_frequencies_and_mean() -> None:
    torch.manual_seed(0)
    likelihood = build_likelihood("logistic-mixture", (1, 1, 1), mixtures=3)
    distribution = likelihood(raw_of(likelihood.channels, 5))
    x = distribution.sample((200_000,)).flatten()
    level = (x * 255).round().long()
    torch.testing.assert_close(x, level / 255, rtol=0, atol=1e-6)
    expected = distribution.log_prob(as_images(LEVELS)).double().exp()
    observed = level.bincount(minlength=256) / len(x)
    error = (expected * (1 - expected) / len(x)).sqrt()
    assert ((observed - expected).abs() < 5 * error + 1e-5).all()
    assert distribution.mean.item() == pytest.approx((expected * LEVELS).sum().item(), abs=2e-3)
    assert 0 <= distribution.mean.item() <= 1


def test_logistic_mixture_has_exact_tails() -> None:
    """Far from a component the log mass falls linearly, as log F does, without underflow."""
    likelihood = build_likelihood("logistic-mixture", (1, 1, 1), mixtures=1).double()
    raw = torch.zeros(3, 1, 1, dtype=torch.float64)
    raw[1], raw[2] = -1, -20  # at the left edge, with the smallest scale
    scale = likelihood(raw).log_scale.exp().item()
    far, farther = likelihood(raw.float()).log_prob(as_images(torch.tensor([100, 200]) / 255))
    assert (far - farther).item() == pytest.approx(100 / 127.5 / scale, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_sample_frequencies_follow_log_prob(name: LikelihoodName) -> None:
    """The mean of log p over samples is the sum or integral of p log p."""
    torch.manual_seed(2)
    likelihood = build_likelihood(name, (1, 1, 1))
    distribution = likelihood(raw_of(likelihood.channels, 6, 0.5))
    with torch.no_grad():
        log_p = distribution.log_prob(distribution.sample((50_000,))).double()
        if name == "bernoulli":
            log_q = distribution.log_prob(as_images(torch.tensor([0, 1])))
            step = 1.0
        elif name == "logistic-mixture":
            log_q, step = distribution.log_prob(as_images(LEVELS)), 1.0
        elif name == "continuous-bernoulli":
            middle = (torch.arange(20_000) + 0.5) / 20_000
            log_q, step = distribution.log_prob(as_images(middle)), 1 / 20_000
        else:
            center = distribution.mean.item()
            log_q, step = distribution.log_prob(as_images(torch.arange(-5, 5, 1e-3) + center)), 1e-3
        entropy = -(log_q.double().exp() * log_q.double()).sum().item() * step
    error = log_p.std().item() / math.sqrt(len(log_p))
    assert -log_p.mean().item() == pytest.approx(entropy, abs=5 * error + 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_start_reproduces_the_mean(name: LikelihoodName) -> None:
    likelihood = build_likelihood(name, (3, 4, 4))
    mean = torch.tensor([0.02, 0.5, 0.87])
    bias = likelihood.start(mean)
    assert bias.shape == (likelihood.channels,)
    image = likelihood(bias[:, None, None].expand(-1, 4, 4)).mean
    torch.testing.assert_close(image, mean[:, None, None].expand(3, 4, 4), rtol=0, atol=1e-4)
    pixels = mean[:, None, None] + torch.tensor([-0.01, 0.01]).repeat(8).reshape(4, 4)
    for deviation in (None, 0.0, 0.2):
        raw = likelihood.start(pixels, deviation)
        torch.testing.assert_close(likelihood(raw).mean, pixels, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_start_is_finite_for_black_and_white(name: LikelihoodName) -> None:
    likelihood = build_likelihood(name, (2, 1, 1))
    bias = likelihood.start(torch.tensor([0.0, 1.0]))
    assert bias.isfinite().all()
    image = likelihood(bias[:, None, None]).mean.flatten()
    assert image.tolist() == pytest.approx([0, 1], abs=2e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("raw", [-30.0, 30.0])
def test_gradients_at_extremes_are_finite(name: LikelihoodName, raw: float) -> None:
    likelihood = build_likelihood(name, (3, 2, 2))
    parameters = torch.full((likelihood.channels, 2, 2), raw).requires_grad_()
    for value in (0.0, 51 / 255, 1.0):
        log_prob = likelihood(parameters).log_prob(torch.full((3, 2, 2), value))
        assert log_prob.isfinite()
        (gradient,) = torch.autograd.grad(log_prob, parameters)
        assert gradient.isfinite().all()
        assert value != 51 / 255 or gradient.abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_single_precision(name: LikelihoodName) -> None:
    likelihood = build_likelihood(name, (3, 4, 5))
    raw = torch.randn(2, 6, likelihood.channels, 4, 5).bfloat16()
    x = torch.randint(0, 2, (6, 3, 4, 5)).float()
    with torch.autocast("cpu", torch.bfloat16):
        distribution = likelihood(raw)
        log_prob = distribution.log_prob(x)
    assert (distribution.batch_shape, distribution.event_shape) == ((2, 6), (3, 4, 5))
    assert distribution.mean.shape == (2, 6, 3, 4, 5)
    assert distribution.sample((7,)).shape == (7, 2, 6, 3, 4, 5)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob, likelihood(raw.float()).log_prob(x), rtol=0, atol=0)
    one = likelihood(raw[1, 2].float()).log_prob(x[2])
    torch.testing.assert_close(log_prob[1, 2], one, rtol=1e-5, atol=1e-3)


def test_measures() -> None:
    measures = {name: build_likelihood(name, (1, 2, 2)).measure for name in NAMES}
    assert measures.pop("bernoulli") == "binary"
    assert measures.pop("logistic-mixture") == "8-bit"
    assert set(measures.values()) == {"density"}
    masses = {name for name in NAMES if build_likelihood(name, (1, 2, 2)).is_mass}
    assert masses == {"bernoulli", "logistic-mixture"}


def test_errors_name_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"'gausian' is unknown; known: bernoulli, .*laplace"):
        build_likelihood("gausian", (1, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"model.sigma = 0.001.*floor of 0.0025"):
        build_likelihood("gaussian-pixel", (1, 1, 1), sigma=0.001)


def test_image_normal_keeps_its_scalar_scale() -> None:
    density = ImageNormal(torch.zeros(2, 1, 3, 3), torch.full((1, 1, 1), math.log(0.5)))
    x = density.sample((20_000,))
    assert x.shape == (20_000, 2, 1, 3, 3)
    assert x.std().item() == pytest.approx(0.5, rel=0.01)
