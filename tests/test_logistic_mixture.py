"""The closed form of the logistic mixture, in value and gradient, against its plain definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vaelab.models import _logistic_mass
from vaelab.models._logistic_mixture import LogisticMixture
from vaelab.models.likelihoods import build_likelihood


def plain(mixture: LogisticMixture, value: Tensor) -> Tensor:
    """Return the log mass as its definition has it, differentiated by autograd."""
    level = (255 * value).round().unsqueeze(-4)
    x = level / 127.5 - 1
    channels, place, shifted = value.shape[-3], 0, []
    for channel in range(channels):
        mean = mixture.loc.select(-3, channel)
        for earlier in range(channel):
            mean = mean + mixture.coefficients.select(-3, place) * x.select(-3, earlier)
            place += 1
        shifted.append(mean)
    centred, precision = x - torch.stack(shifted, -3), torch.exp(-mixture.log_scale)
    below = logsigmoid((centred + 1 / 255) * precision)
    above = logsigmoid((1 / 255 - centred) * precision)
    both = below + above + torch.log(-torch.expm1(-2 / 255 * precision))
    log_mass = torch.where(level == 0, below, torch.where(level == 255, above, both))
    log_weight = torch.log_softmax(mixture.logits, -3)
    return torch.logsumexp(log_weight + log_mass.sum(-3), -3).flatten(-2).sum(-1)


def case(channels: int, spread: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, int, float]:
    """Return raw numbers, images with both ends of the levels, K and the zero of the scales."""
    generator = torch.Generator().manual_seed(channels)
    likelihood = build_likelihood("logistic-mixture", (channels, 3, 4), mixtures=3)
    raw = spread * torch.randn(2, likelihood.channels, 3, 4, generator=generator, dtype=dtype)
    levels = torch.randint(0, 256, (2, channels, 3, 4), generator=generator)
    levels[..., 0], levels[..., 1] = 0, 255
    return raw, levels.to(dtype) / 255, 3, -1.5


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("spread", [0.3, 3.0, 15.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_are_those_of_the_definition(
    channels: int, spread: float, dtype: torch.dtype
) -> None:
    raw, images, mixtures, zero = case(channels, spread, torch.float64)
    known_raw = raw.clone().requires_grad_()
    known = plain(LogisticMixture(known_raw, channels, mixtures, zero), images)
    known.sum().backward()
    given = raw.to(dtype).requires_grad_()
    found = LogisticMixture(given, channels, mixtures, zero).log_prob(images.to(dtype))
    found.sum().backward()
    assert known_raw.grad is not None
    assert given.grad is not None
    near = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(found.double(), known, rtol=near, atol=near)
    size = known_raw.grad.abs().max().item()
    torch.testing.assert_close(
        given.grad.double(), known_raw.grad, rtol=10 * near, atol=near * size
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_is_that_of_finite_differences(channels: int) -> None:
    raw, images, mixtures, zero = case(channels, 1.0, torch.float64)

    def log_prob(raw: Tensor) -> Tensor:
        return LogisticMixture(raw, channels, mixtures, zero).log_prob(images)

    assert torch.autograd.gradcheck(log_prob, raw.requires_grad_(), fast_mode=channels > 1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("cached", [1, 30, 2**17])
def test_neither_layout_nor_pieces_matter(
    monkeypatch: pytest.MonkeyPatch, layout: torch.memory_format, cached: int
) -> None:
    raw, images, mixtures, zero = case(3, 1.0, torch.float64)
    plainly = raw.clone().requires_grad_()
    whole = LogisticMixture(plainly, 3, mixtures, zero).log_prob(images)
    monkeypatch.setattr(_logistic_mass, "_CACHED", cached)
    other = raw.clone().contiguous(memory_format=layout).requires_grad_()
    parts = LogisticMixture(other, 3, mixtures, zero).log_prob(images)
    upstream = torch.tensor([2.0, -0.5], dtype=torch.float64)
    whole.backward(upstream)
    parts.backward(upstream)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(other.grad, plainly.grad)


def test_batches_broadcast_and_the_gradient_is_summed() -> None:
    raw, images, mixtures, zero = case(2, 1.0, torch.float64)
    one = raw[0].clone().requires_grad_()
    both = LogisticMixture(one, 2, mixtures, zero).log_prob(images)
    assert both.shape == (2,)
    both.sum().backward()
    known = raw[0].clone().requires_grad_()
    plain(LogisticMixture(known.expand(2, -1, -1, -1), 2, mixtures, zero), images).sum().backward()
    torch.testing.assert_close(one.grad, known.grad)
    samples = LogisticMixture(raw.expand(5, *raw.shape), 2, mixtures, zero).log_prob(images)
    known = plain(LogisticMixture(raw, 2, mixtures, zero), images)
    torch.testing.assert_close(samples, known.expand(5, 2))


def test_a_far_component_has_no_mass_but_a_gradient_that_pulls_it() -> None:
    """Single precision: the log mass is linear there, and its gradient is one over the scale."""
    raw = torch.zeros(3, 1, 1)
    raw[1], raw[2] = -1, -20
    raw.requires_grad_()
    mixture = LogisticMixture(raw, 1, 1, -1.0)
    log_p = mixture.log_prob(torch.full((1, 1, 1), 200 / 255))
    log_p.backward()
    scale = mixture.log_scale.exp().item()
    assert log_p.item() == pytest.approx(-(200 / 127.5) / scale, rel=0.01)
    assert raw.grad is not None
    assert raw.grad[1].item() == pytest.approx(1 / scale, rel=1e-4)


def test_there_is_no_second_derivative() -> None:
    raw, images, mixtures, zero = case(1, 1.0, torch.float64)
    log_p = LogisticMixture(raw.requires_grad_(), 1, mixtures, zero).log_prob(images)
    (slope,) = torch.autograd.grad(log_p.sum(), raw, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        slope.sum().backward()


def test_without_a_gradient_none_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    inner = _logistic_mass._of_planes

    def spy(raw: Tensor, level: Tensor, zero: float, slope: bool) -> tuple[Tensor, Tensor | None]:
        asked.append(slope)
        return inner(raw, level, zero, slope)

    monkeypatch.setattr(_logistic_mass, "_of_planes", spy)
    raw, images, mixtures, zero = case(1, 1.0, torch.float64)
    raw.requires_grad_()
    with torch.no_grad():
        plain_value = LogisticMixture(raw, 1, mixtures, zero).log_prob(images)
    value = LogisticMixture(raw, 1, mixtures, zero).log_prob(images)
    torch.testing.assert_close(plain_value, value.detach(), rtol=0, atol=0)
    assert asked == [False, True]
    assert math.isfinite(value.sum().item())
