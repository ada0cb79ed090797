"""Masses of levels and bits per dimension, against distributions whose entropy is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_ndtr
from torch import Tensor

from tests.test_evaluation import LINEAR, SHAPE, as_batch, binary_model, linear_layer, pixels
from vaelab.config import LikelihoodName, ModelConfig
from vaelab.data.images import ImageSet
from vaelab.data.summary import Pixels
from vaelab.errors import ConfigError
from vaelab.evaluation.evaluate import evaluate
from vaelab.evaluation.record import verdict
from vaelab.models.build import build_vae
from vaelab.models.likelihoods import build_likelihood
from vaelab.models.masses import bits_per_dim, exponential_mass, laplace_mass, normal_mass
from vaelab.models.vae import Vae
from vaelab.objectives.objective import Objective, rate_distortion
from vaelab.objectives.schedules import constant
from vaelab.objectives.terms import Distortion, Rate
from vaelab.report.words import figure_rows, preliminary
from vaelab.training.validation import validate

LEVELS = torch.arange(256, dtype=torch.double) / 255
DENSITIES: tuple[LikelihoodName, ...] = (
    "gaussian",
    "gaussian-scalar",
    "gaussian-pixel",
    "laplace",
    "continuous-bernoulli",
)
Mass = Callable[[Tensor, Tensor, Tensor], Tensor]


def exponential(value: Tensor, rate: Tensor, log_scale: Tensor) -> Tensor:
    return exponential_mass(value, rate * torch.exp(log_scale))


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.double)


@pytest.mark.parametrize("mass", [normal_mass, laplace_mass, exponential])
@pytest.mark.parametrize("log_scale", [-12.0, -6.0, -2.0, 0.0, 3.0, 8.0])
def test_the_masses_of_256_levels_sum_to_one(mass: Mass, log_scale: float) -> None:
    for loc in (-30.0, -0.1, 0.0, 0.3, 1 / 510, 0.5, 1.0, 1.2, 40.0):
        log_mass = mass(LEVELS, scalar(loc), scalar(log_scale))
        assert log_mass.isfinite().all()
        assert log_mass.max().item() <= 1e-12
        assert log_mass.exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("mass", [normal_mass, laplace_mass])
def test_a_density_far_narrower_than_a_level_takes_no_bits_or_one(mass: Mass) -> None:
    at, between = (
        mass(LEVELS, LEVELS[7], scalar(-30.0)),
        mass(LEVELS, (LEVELS[7] + LEVELS[8]) / 2, scalar(-30.0)),
    )
    assert at[7].item() == pytest.approx(0, abs=1e-12)
    assert between[[7, 8]].tolist() == pytest.approx([-math.log(2)] * 2, abs=1e-3)


def test_far_tails_are_those_of_the_densities() -> None:
    """Far out the bin's near end is all: log Φ(−t) and −t of a Laplace, by their own formulas."""
    loc, scale = scalar(0.0), scalar(math.log(1e-3))
    edge = (255 - 0.5) / 255 / 1e-3  # 998 scales away
    asymptotic = -(edge**2) / 2 - math.log(edge * math.sqrt(2 * math.pi)) - 1 / edge**2
    assert normal_mass(LEVELS, loc, scale)[255].item() == pytest.approx(asymptotic, rel=1e-12)
    laplace = laplace_mass(LEVELS, loc, scale)[255].item()
    assert laplace == pytest.approx(-edge - math.log(2), rel=1e-12)


@pytest.mark.parametrize("log_scale", [-7.0, -4.0, -1.0, 1.0])
def test_normal_masses_are_those_of_scipy(log_scale: float) -> None:
    """In the logarithm, on both sides of the place where another formula takes over."""
    scale = math.exp(log_scale)
    upper, lower = (log_ndtr((LEVELS + half / 255 - 1.05).numpy() / scale) for half in (0.5, -0.5))
    known = torch.from_numpy(upper + np.log1p(-np.exp(lower - upper)))[1:-1]
    found = normal_mass(LEVELS, scalar(1.05), scalar(log_scale))[1:-1]
    torch.testing.assert_close(found, known, rtol=1e-9, atol=1e-9)
    mirrored = normal_mass(1 - LEVELS, scalar(-0.05), scalar(log_scale))[1:-1]
    torch.testing.assert_close(mirrored, known, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mass", [normal_mass, laplace_mass])
@pytest.mark.parametrize("log_scale", [-7.0, -5.0, -3.0, 0.0])
def test_the_dequantised_bound_lies_below_the_mass(mass: Mass, log_scale: float) -> None:
    """∫ log p(x + u) du + log 1/255 ≤ log P: by the midpoint rule over the bin."""
    values, loc, scale = LEVELS[1:-1], scalar(0.4), scalar(log_scale)
    u = ((torch.arange(2_000) + 0.5) / 2_000 - 0.5).double() / 255
    kind = torch.distributions.Normal if mass is normal_mass else torch.distributions.Laplace
    density: torch.Tensor = kind(loc, scale.exp()).log_prob(values[:, None] + u)  # type: ignore[no-untyped-call]
    log_p = density.mean(1) - math.log(255)
    exact = mass(values, loc, scale)
    assert (log_p <= exact + 1e-9).all()
    if log_scale == 0:
        torch.testing.assert_close(log_p, exact, rtol=0, atol=1e-4)
    if log_scale == -7:
        assert (exact - log_p).max() > 0.6


@pytest.mark.parametrize("name", DENSITIES)
def test_masses_are_integrals_of_the_density_of_each_likelihood(name: LikelihoodName) -> None:
    likelihood = build_likelihood(name, (1, 1, 1)).double()
    raw = 0.4 + torch.zeros(likelihood.channels, 1, 1, dtype=torch.double)
    given = likelihood(raw)
    x = (torch.arange(255_000) + 0.5).double().view(-1, 1, 1, 1) / 255_000
    bins = given.log_prob(x).exp().flatten()[500:-500].view(254, 1000).mean(1) / 255
    log_mass = given.log_mass(LEVELS.view(-1, 1, 1, 1))
    torch.testing.assert_close(log_mass[1:-1], bins.log(), rtol=0, atol=1e-5)
    assert log_mass.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_a_uniform_distribution_of_levels_takes_eight_bits() -> None:
    """A narrow component at every level, of equal weight: log P = log 1/256 for each of them."""
    likelihood = build_likelihood("logistic-mixture", (1, 1, 1), mixtures=256).double()
    raw = torch.zeros(256, 3, dtype=torch.double)
    raw[:, 1], raw[:, 2] = 2 * LEVELS - 1, -100
    log_p = likelihood(raw.view(-1, 1, 1)).log_prob(LEVELS.view(-1, 1, 1, 1))
    assert bits_per_dim(log_p, 1).tolist() == pytest.approx([8] * 256, abs=1e-4)
    raw[2:, 0] = -1e3  # two of them are left: one bit
    two = likelihood(raw.view(-1, 1, 1)).log_prob(LEVELS[:2].view(-1, 1, 1, 1))
    assert bits_per_dim(two, 1).tolist() == pytest.approx([1, 1], abs=0.05)
    uniform = torch.full((3,), -12 * math.log(256))
    assert bits_per_dim(uniform, 12).tolist() == pytest.approx([8, 8, 8])


def vae(likelihood: str, blind: bool = False, **values: object) -> Vae:
    torch.manual_seed(0)
    config = {"encoder": LINEAR, "latent_dim": 2, "likelihood": likelihood, **values}
    model = build_vae(ModelConfig.model_validate(config), Pixels(torch.full(SHAPE, 0.5))).eval()
    if blind:
        with torch.no_grad():
            linear_layer(model.decoder).weight.zero_()
            linear_layer(model.encoder).weight.zero_()
            linear_layer(model.encoder).bias.zero_()
    return model


@pytest.mark.parametrize("name", [*DENSITIES, "logistic-mixture"])
def test_every_bound_in_bits_says_the_same_of_a_decoder_that_ignores_z(name: str) -> None:
    """Then the rate is 0, and bits per dimension are the mean of −log₂ of known masses."""
    model, images = vae(name, blind=True), pixels(40)
    with torch.no_grad():
        given = model.decode(torch.zeros(1, 2))
        x = images.float() / 255
        log_mass = given.log_prob(x) if name == "logistic-mixture" else given.log_mass(x)  # type: ignore[attr-defined]
    known = float(bits_per_dim(log_mass, math.prod(SHAPE)).mean())
    result = evaluate(model, ImageSet(images), samples=3)
    found = [result.figures[f] for f in ("bits_per_dim", "bits_per_dim_iwae")]
    assert [figure.value for figure in found] == pytest.approx([known] * 2, abs=1e-4)
    assert all(figure.number.startswith("≤ ") for figure in found)
    assert {figure.unit for figure in found} == {"bits per dimension"}
    assert model.bits_per_dim(images).mean().item() == pytest.approx(known, abs=1e-4)
    trained = rate_distortion(model(as_batch(images)))["bits_per_dim"]
    assert trained.item() == pytest.approx(known, abs=1e-4)


@pytest.mark.parametrize("name", ["laplace", "logistic-mixture"])
def test_the_importance_weighted_bound_takes_fewer_bits(name: str) -> None:
    model, images = vae(name), ImageSet(pixels(300))
    with torch.no_grad():
        linear_layer(model.decoder).weight.mul_(3)
    figures = evaluate(model, images, samples=200, bound_images=300).figures
    assert figures["bits_per_dim_iwae"].value < figures["bits_per_dim"].value - 0.01
    if name == "logistic-mixture":  # a mass already
        for bits, nats in (("bits_per_dim", "elbo"), ("bits_per_dim_iwae", "log_prob")):
            known = -figures[nats].value / math.prod(SHAPE) / math.log(2)
            assert figures[bits].value == pytest.approx(known, abs=1e-5)


def test_a_sigma_far_below_a_level_gives_no_negative_bits() -> None:
    """Flat images, exactly reproduced: the density grows without bound, the mass does not."""
    model = vae("gaussian", blind=True, sigma=1e-5)
    with torch.no_grad():
        linear_layer(model.decoder).bias.fill_(51 / 255)
    figures = evaluate(model, ImageSet(torch.full((20, *SHAPE), 51).byte()), samples=3).figures
    assert -figures["elbo"].value / math.prod(SHAPE) / math.log(2) + 8 < -5
    assert figures["bits_per_dim"].value == pytest.approx(0, abs=1e-6)
    assert figures["bits_per_dim"].value >= 0


def test_bits_of_binarised_images_are_those_of_the_binary_image() -> None:
    model, images = binary_model("threshold"), pixels(30)
    figures = evaluate(model, ImageSet(images), samples=3).figures
    known = -figures["elbo"].value / math.prod(SHAPE) / math.log(2)
    assert figures["bits_per_dim"].value == pytest.approx(known, abs=1e-6)
    assert figures["bits_per_dim"].protocol.startswith("Bits of the binary image")


def test_a_bernoulli_likelihood_of_greys_has_no_bits_and_says_why() -> None:
    model, images = binary_model("none"), pixels(30)
    result = evaluate(model, ImageSet(images), samples=3)
    assert not [name for name in result.figures if name.startswith("bits")]
    assert any(
        note.startswith("Bits per dimension are not defined: a Bernoulli") for note in result.notes
    )
    assert "bits_per_dim" not in rate_distortion(model(as_batch(images)))
    with pytest.raises(ConfigError, match="not defined: a Bernoulli likelihood of grey levels"):
        model.bits_per_dim(images)


def test_verdict_and_page_say_bits_beside_the_elbo() -> None:
    result = evaluate(vae("laplace"), ImageSet(pixels(30)), samples=3)
    bits = result.figures["bits_per_dim"]
    assert verdict(result).endswith(f"(30 images, 95 % interval), ≤ {bits.number[2:]} {bits.unit}.")
    assert "bits" not in verdict(evaluate(binary_model("none"), ImageSet(pixels(30)), samples=3))
    entry = {"epoch": 3, "validation/elbo": -51.04, "validation/bits_per_dim": 4.56789}
    said = "Validation ELBO after epoch 3: −51.0 nats per image, ≤ 4.568 bits per dimension."
    assert preliminary([entry]).endswith(said)
    labels = [row["label"] for row in figure_rows(result)]
    assert labels.index("Bits per dimension") == labels.index("ELBO") + 1


def test_validation_logs_bits() -> None:
    model, images = vae("laplace", blind=True), pixels(6)
    objective = Objective({"distortion": Distortion(), "rate": Rate(constant(1.0))})
    figures = validate(model, objective, iter([as_batch(images)]), 0).figures
    known = evaluate(model, ImageSet(images), samples=1).figures["bits_per_dim"]
    assert figures["bits_per_dim"] == pytest.approx(known.value, rel=1e-5)


def test_numbers_that_are_no_levels_have_no_bits() -> None:
    result = evaluate(vae("gaussian"), ImageSet(pixels(9).float() / 255), samples=3)
    assert not [name for name in result.figures if name.startswith("bits")]
    assert any("not 8-bit levels" in note for note in result.notes)


def test_training_steps_do_not_pay_for_bits() -> None:
    model, batch = vae("gaussian").train(), as_batch(pixels(4))
    assert "bits_per_dim" not in rate_distortion(model(batch))
    trace = replace(model.eval()(batch), measured=False)
    assert "bits_per_dim" not in rate_distortion(trace)
