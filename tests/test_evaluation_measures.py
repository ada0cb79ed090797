"""Standard errors, reconstruction measures and latent measures against known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from vaelab.evaluation.figures import Figure, mean, mean_with_gap, rounded, share
from vaelab.evaluation.latents import active_units, aggregate_moments, split_rate
from vaelab.evaluation.reconstruction import mse, psnr
from vaelab.models.kl import monte_carlo_kl
from vaelab.models.posteriors import DiagonalNormal
from vaelab.models.priors import StandardNormal
from vaelab.models.similarity import ssim


def test_mean_and_its_standard_error() -> None:
    figure = mean(torch.tensor([1.0, 2.0, 3.0, 4.0]), "nats", "by hand")
    assert figure.value == 2.5
    assert figure.standard_error == pytest.approx(math.sqrt(5 / 3) / 2)
    assert figure.interval == pytest.approx(3.1824 * math.sqrt(5 / 3) / 2, rel=1e-4)  # t of 3
    assert (figure.n, figure.unit, figure.protocol) == (4, "nats", "by hand")
    assert mean(torch.tensor([1.0]), "", "").standard_error is None


def test_a_gap_known_for_all_is_a_plain_mean() -> None:
    values, gaps = torch.tensor([1.0, 5.0, 2.0]), torch.tensor([0.5, 0.1, 0.9])
    both = mean_with_gap(values, gaps, torch.arange(3), "", "")
    plain = mean(values + gaps, "", "")
    assert both.value == pytest.approx(plain.value)
    assert both.standard_error == pytest.approx(plain.standard_error)


def test_a_gap_known_for_some_has_an_honest_error() -> None:
    generator = torch.Generator().manual_seed(0)
    total, some, estimates, errors = 200, 40, [], []
    for _ in range(1500):
        values = 3 * torch.randn(total, generator=generator)
        gaps = 1 + 0.4 * values + 0.5 * torch.randn(total, generator=generator)
        index = torch.randperm(total, generator=generator)[:some]
        figure = mean_with_gap(values, gaps[index], index, "", "")
        estimates.append(figure.value)
        errors.append(figure.standard_error or 0.0)
    assert np.mean(estimates) == pytest.approx(1.0, abs=0.03)
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.06)


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (-132.58734, 0.2, "−132.6 ± 0.2"),
        (-132.58734, 0.96, "−132.6 ± 1.0"),
        (-132.58734, 0.14, "−132.59 ± 0.14"),
        (-1325.8, 31.0, "−1330 ± 30"),
        (0.05391, 0.00043, "0.0539 ± 0.0004"),
        (2.0, None, "2"),
        (1.0, 0.0, "1 ± 0"),
        (-0.2, 2.0, "0 ± 2"),
    ],
)
def test_no_more_digits_than_the_interval_supports(
    value: float, interval: float | None, text: str
) -> None:
    assert rounded(value, interval) == text


@pytest.mark.parametrize(
    ("hits", "total", "text"),
    [
        (4, 4, "1.00 (0.51 to 1.00)"),  # ± 0 would be certainty
        (2, 6, "0.33 (0.10 to 0.70)"),  # ± 0.4 would leave [0, 1]
        (1, 1, "1.00 (0.21 to 1.00)"),
        (2, 4, "0.50 (0.15 to 0.85)"),
        (50, 100, "0.50 ± 0.10"),
    ],
)
def test_a_share_of_few_images_is_not_certain(hits: int, total: int, text: str) -> None:
    found = share(torch.arange(total) < hits, "")
    assert str(found) == f"{text} share of images"
    assert found.standard_error == pytest.approx(math.sqrt(hits * (total - hits) / total**3))


def test_an_error_of_zero_is_not_shown_as_certainty() -> None:
    assert str(mean(torch.full((3,), 0.5), "nats", "")) == "0.5 nats"
    assert str(Figure(1.79, None, 6, "nats", "", ends=(1.79, None))) == "≥ 1.79 nats"


def noise(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(shape, generator=generator)
    return x, (x + 0.2 * torch.randn(shape, generator=generator)).clamp(0, 1)


def test_squared_error_and_psnr() -> None:
    x = torch.zeros(2, 3, 4, 5)
    y = torch.stack([torch.full((3, 4, 5), 0.1), torch.zeros(3, 4, 5)])
    assert mse(x, y).tolist() == pytest.approx([0.01, 0])
    assert psnr(x, y).tolist() == pytest.approx([20, 100], abs=1e-4)


def test_ssim_of_equal_images_is_one() -> None:
    x, _ = noise(3, 3, 37, 53)
    assert ssim(x, x).tolist() == pytest.approx([1, 1, 1], abs=1e-6)


@pytest.mark.parametrize("size", [(28, 28), (11, 12), (5, 4), (1, 3)])
def test_ssim_of_constant_images(size: tuple[int, int]) -> None:
    x, y = torch.full((1, 1, *size), 0.2), torch.full((1, 1, *size), 0.6)
    luminance = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert float(ssim(x, y)) == pytest.approx(luminance, abs=1e-3)


def test_ssim_against_scipy() -> None:
    x, y = noise(2, 3, 19, 24)

    def blur(
        plane: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        blurred = gaussian_filter(plane, 1.5, radius=5)[5:-5, 5:-5]
        return np.asarray(blurred, np.float64)

    for place in range(2):
        expected = []
        for a, b in zip(x[place].double().numpy(), y[place].double().numpy(), strict=True):
            ma, mb = blur(a), blur(b)
            va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
            top = (2 * ma * mb + 0.01**2) * (2 * cov + 0.03**2)
            expected.append(top / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2)))
        assert float(ssim(x, y)[place]) == pytest.approx(float(np.mean(expected)), abs=1e-5)
    assert 0.2 < float(ssim(x, y)[0]) < 0.98


def test_active_units() -> None:
    means = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.1, 0.2]])
    active, variance = active_units(means)
    assert variance.tolist() == pytest.approx([2.0, 0.005, 0.02])
    assert active.tolist() == [True, False, True]


def test_aggregate_moments() -> None:
    mean_, covariance = aggregate_moments(torch.tensor([[1.0, 0.0], [3.0, 1.0], [5.0, 5.0]]))
    assert mean_.tolist() == [3.0, 2.0]
    assert covariance.tolist() == [[4.0, 5.0], [5.0, 7.0]]
    assert aggregate_moments(torch.tensor([[1.0], [3.0]]))[1].tolist() == [[2.0]]


def drawn(loc: Tensor, scale: float) -> tuple[DiagonalNormal, StandardNormal, Tensor]:
    torch.manual_seed(0)
    posterior = DiagonalNormal(loc, torch.full_like(loc, scale))
    return posterior, StandardNormal(torch.zeros(loc.shape[1])), posterior.sample()


def test_equal_posteriors_tell_nothing() -> None:
    posterior, prior, z = drawn(torch.ones(300, 2), 0.5)
    told, wasted = split_rate(posterior, prior, z)
    assert float(told.abs().max()) < 1e-4
    torch.testing.assert_close(wasted, monte_carlo_kl(posterior, prior, z))


def test_separate_posteriors_tell_all() -> None:
    loc = torch.arange(64.0).unsqueeze(1)
    posterior, prior, z = drawn(loc, 0.01)
    told, wasted = split_rate(posterior, prior, z)
    assert told.tolist() == pytest.approx([math.log(64)] * 64, abs=1e-5)
    torch.testing.assert_close(told + wasted, monte_carlo_kl(posterior, prior, z))


def test_information_of_two_overlapping_posteriors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaelab.evaluation.latents._PAIRS", 50_000)  # several chunks
    loc = torch.tensor([[-1.0], [1.0]]).repeat(3000, 1)
    told, _ = split_rate(*drawn(loc, 1.0))
    grid = torch.linspace(-10, 10, 20_001, dtype=torch.double)
    one, two = (torch.exp(-0.5 * (grid - m) ** 2) / math.sqrt(2 * math.pi) for m in (-1, 1))
    known = float(torch.trapezoid(one * (one / (0.5 * (one + two))).log(), grid))
    assert float(told.mean()) == pytest.approx(known, abs=4 * float(told.std()) / math.sqrt(6000))


@pytest.mark.parametrize("count", [5, 40])
def test_the_parts_of_the_rate_bound_those_of_the_distribution(count: int) -> None:
    """x ~ N(0, 1), q(z|x) = N(x, s²): then q(z) = N(0, 1 + s²) and both parts are known."""
    scale = 0.2
    known_information = 0.5 * math.log(1 + scale**-2)
    known_rest = 0.5 * (scale**2 - math.log(1 + scale**2))
    torch.manual_seed(1)
    prior = StandardNormal(torch.zeros(1))
    told, wasted = [], []
    for _ in range(300):
        posterior = DiagonalNormal(torch.randn(count, 1), torch.full((count, 1), scale))
        one, other = split_rate(posterior, prior, posterior.sample())
        told.append(float(one.mean()))
        wasted.append(float(other.mean()))
    error = 2 * float(np.std(wasted)) / math.sqrt(300)
    assert np.mean(told) < known_information < math.log(count) + 1
    assert np.mean(wasted) > known_rest + error  # an upper bound, never exact for few images
    rate = np.mean(told) + np.mean(wasted)
    assert rate == pytest.approx(known_information + known_rest, abs=6 / math.sqrt(300 * count))


def test_an_upper_bound_is_written_as_one() -> None:
    figure = Figure(11.49, 0.04, 100, "nats per image", "how", ends=(None, 11.49))
    assert figure.number == "≤ 11.49 ± 0.08"
    assert Figure(11.49, None, 100, "nats per image", "how", ends=(None, 11.49)).number == "≤ 11.49"
