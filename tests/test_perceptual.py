"""Distances beside the pixels' own: closed forms, gradients, what a term of an objective pays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

import vaelab
from tests.conftest import SMALL
from tests.test_cli import vaelab as command
from vaelab.api import configure
from vaelab.data.batches import Batch
from vaelab.data.images import Splits
from vaelab.errors import ConfigError, RunError
from vaelab.models.classifier import Activations, build_classifier
from vaelab.models.similarity import SCALES, ms_ssim, ssim
from vaelab.models.vae import Trace
from vaelab.objectives.perceptual import (
    Compared,
    Distance,
    FeatureDistance,
    dissimilarity,
    focal_frequency,
)
from vaelab.recipes import RECIPES
from vaelab.training.fit import train_config
from vaelab.training.judge import GUIDES, Judge
from vaelab.training.progress import Silent
from vaelab.training.run import Run, check_same


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def channel(network: nn.Module) -> FeatureDistance:
    return FeatureDistance(lambda: network)


class Two(nn.Module):
    """Two layers of features: of channels at each place, and of the whole image."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.cat([x, 1 - x], 1), x.flatten(1)]


DISTANCES: dict[str, Distance] = {
    "focal-frequency": focal_frequency,
    "ms-ssim": dissimilarity,
    "features": channel(Two()),
}


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (2, 3, 13, 37), (2, 4, 5, 4), (1, 2, 1, 3)])
def test_equal_images_have_no_distance_and_others_have_one(
    name: str, shape: tuple[int, ...]
) -> None:
    x, y = images(*shape), images(*shape, seed=1)
    distance = DISTANCES[name]
    assert distance(x, x).tolist() == pytest.approx([0.0] * len(x), abs=1e-5)
    apart = distance(x, y)
    assert apart.shape == (len(x),)
    assert (apart > 1e-3).all()
    for place in range(len(x)):  # an image's distance is its own
        alone = distance(x[place : place + 1], y[place : place + 1])
        assert float(alone) == pytest.approx(float(apart[place]), rel=1e-4)


@pytest.mark.parametrize("name", DISTANCES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """The weights of frequencies are constants: their gradient is that of weights held still."""
    x, y = (images(1, 1, 12, 12, seed=seed, dtype=torch.float64) for seed in (0, 1))
    distance = DISTANCES[name]
    if name == "focal-frequency":
        spectrum = torch.fft.fft2(x - y, norm="ortho").abs()
        weight = spectrum / spectrum.max()

        def held(x: Tensor) -> Tensor:
            error: Tensor = torch.fft.fft2(x - y, norm="ortho").abs()
            paid: Tensor = (weight * error.square()).mean()
            return paid
    else:

        def held(x: Tensor) -> Tensor:
            return distance(x, y).sum()

    start = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distance(start, y).sum(), start)
    for place in ((0, 0, 0, 0), (0, 0, 5, 7), (0, 0, 11, 3)):
        step = torch.zeros_like(x)
        step[place] = 1e-6
        difference = (held(x + step) - held(x - step)) / 2e-6
        assert float(slope[place]) == pytest.approx(float(difference), rel=1e-4, abs=1e-9)


def test_the_frequency_distance_of_one_sinusoid() -> None:
    """a·cos has two frequencies of size a √(HW) / 2 each, both the largest: d = a² / 2."""
    height, width, size = 8, 12, 0.3
    rows = torch.arange(height)[:, None] / height
    columns = torch.arange(width) / width
    wave = size * torch.cos(2 * math.pi * (2 * rows + 3 * columns))
    x = images(1, 2, height, width)
    y = x.clone()
    y[:, 0] += wave  # one channel of two
    assert float(focal_frequency(y, x)) == pytest.approx(size**2 / 2 / 2, rel=1e-4)


def test_of_two_sinusoids_the_weaker_counts_by_its_share_of_the_stronger() -> None:
    place = torch.arange(16) / 16
    strong, weak = (torch.cos(2 * math.pi * k * place).expand(1, 1, 16, 16) for k in (1, 5))
    both = float(focal_frequency(0.4 * strong + 0.1 * weak, torch.zeros(1, 1, 16, 16)))
    assert both == pytest.approx(0.4**2 / 2 + (0.1 / 0.4) * 0.1**2 / 2, rel=1e-4)


def test_blur_costs_several_scales_little_and_the_finest_much() -> None:
    x = images(2, 1, 64, 64)
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    assert ((ms_ssim(blurred, x) - ssim(blurred, x)) > 0.1).all()


@pytest.mark.parametrize(("side", "scales"), [(200, 5), (64, 3), (28, 2), (11, 1), (4, 1)])
def test_constant_images_differ_in_luminance_at_the_coarsest_scale(side: int, scales: int) -> None:
    """There cs_j = 1, so MS-SSIM = l^w of the last of the scales that fit."""
    x, y = torch.full((1, 2, side, side), 0.2), torch.full((1, 2, side, side), 0.6)
    luminance = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    share = SCALES[scales - 1] / sum(SCALES[:scales])
    assert float(ms_ssim(x, y)) == pytest.approx(luminance**share, abs=2e-3)


def test_images_that_contradict_each_other_have_a_finite_gradient() -> None:
    x = images(1, 1, 32, 32).requires_grad_()
    (slope,) = torch.autograd.grad(ms_ssim(x, 1 - x.detach()).sum(), x)
    assert slope.isfinite().all()


def test_features_are_compared_by_direction_at_each_place() -> None:
    """Turned by a right angle: ‖a − b‖² = 2 at each place; of twice the length: 0."""

    class Turn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    east = torch.tensor([30.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    north = torch.tensor([0.0, 30.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    mixed = torch.where(torch.arange(3) < 1, north, east)
    distance = channel(Turn())
    assert float(distance(north, east)) == pytest.approx(2, rel=1e-4)
    assert float(distance(2 * east, east)) == pytest.approx(0, abs=1e-5)
    assert float(distance(mixed, east)) == pytest.approx(2 / 3, rel=1e-4)


@pytest.mark.parametrize(("network", "layers"), [("cnn-small", 3), ("cnn", 6), ("mlp", 2)])
def test_the_activations_of_a_classifier_end_in_its_features(network: Any, layers: int) -> None:
    torch.manual_seed(0)
    classifier = build_classifier((1, 12, 10), 3, network).eval()
    x = images(4, 1, 12, 10)
    found = Activations(classifier.body).eval()(x)
    assert len(found) == layers
    last = found[-1] if found[-1].ndim == 2 else found[-1].mean((2, 3))  # its mean over places
    torch.testing.assert_close(last, classifier.features(x))


def test_the_network_of_a_distance_stays_as_it_is() -> None:
    torch.manual_seed(0)
    classifier = build_classifier((1, 12, 10), 3)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    x = images(4, 1, 12, 10).requires_grad_()
    distance = channel(Activations(classifier.body.train()))
    distance(x, images(4, 1, 12, 10, seed=1)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in classifier.parameters())
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, before[name]), name


def squared(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().flatten(1).mean(1)


def test_a_term_costs_w_times_half_the_numbers_times_the_log_distance() -> None:
    """Of the squared error and w = 1 it is the likelihood of a Gaussian whose σ fits."""
    x = images(5, 2, 3, 4)
    means = images(2, 5, 2, 3, 4, seed=1).requires_grad_()
    batch = Batch(x, x, None, None, torch.arange(5))
    trace = Trace(batch, {}, Independent(Normal(means, 1.0), 3))
    found = Compared(squared, 0.5)(trace, 0)
    mean = (means - x).square().mean()
    assert found.shape == (5,)
    assert found.tolist() == pytest.approx([6 * math.log(float(mean.detach()) + 1e-6)] * 5)
    (slope,) = torch.autograd.grad(found.mean(), means)
    sigma = mean.detach().sqrt()
    (expected,) = torch.autograd.grad(
        -0.5 * Normal(means, sigma).log_prob(x).flatten(2).sum(2).mean(), means
    )
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("recipe", [name for name, one in RECIPES.items() if one.compares])
def test_every_recipe_that_compares_logs_each_term(
    recipe: str, tmp_path: Path, spots: Splits
) -> None:
    weights: dict[str, Any] = {"perceptual": 0.1, "focal_frequency": 0.2, "ms_ssim": 0.3}
    vaelab.train(recipe, spots, tmp_path, **{**SMALL, "epochs": 1}, features=Two(), **weights)
    last = Run(tmp_path).read_log("epoch")[-1]
    terms = {"perceptual", "focal-frequency", "ms-ssim"}
    parts = {key for key in last if key.startswith("validation/loss/")}
    assert {f"validation/loss/{name}" for name in terms} <= parts
    if recipe != "vae-gan":  # whose rate is not among its shares
        assert last["validation/loss"] == pytest.approx(sum(last[key] for key in parts), rel=1e-4)
    if recipe == "vae":  # and the reported bound is the bound
        bound = -last["validation/distortion"] - last["validation/rate"]
        assert last["validation/elbo"] == pytest.approx(bound, rel=1e-5)


def test_only_these_recipes_compare() -> None:
    names = {name for name, one in RECIPES.items() if one.compares}
    assert names == {"ae", "vae", "beta-vae", "annealed-vae", "cvae", "vae-gan"}


def test_without_weights_a_training_is_what_it_was(spots: Splits) -> None:
    plain = vaelab.train("vae", spots, **{**SMALL, "epochs": 1})
    off = vaelab.train("vae", spots, **{**SMALL, "epochs": 1}, perceptual=0, ms_ssim=0.0)
    on = vaelab.train("vae", spots, **{**SMALL, "epochs": 1}, ms_ssim=1.0)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, off.state_dict()[name]), name
    assert any(not torch.equal(v, on.state_dict()[n]) for n, v in plain.state_dict().items())


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory, spots: Splits) -> Path:
    """The run of a classifier of the spots."""
    run = Run(tmp_path_factory.mktemp("classes") / "run")
    small = {"epochs": 1, "batch_size": 16, "device": "cpu", "precision": "fp32"}
    config = configure({"recipe": "classifier", "training": small})
    train_config(config, spots, run, Silent())
    return run.path


def test_features_are_those_of_the_classifier_that_is_named(
    classes: Path, tmp_path: Path, spots: Splits
) -> None:
    settings: dict[str, Any] = {**SMALL, "perceptual": 2.0, "lr": 1e-30, "epochs": 1}
    model = vaelab.train("ae", spots, tmp_path, **settings, features=classes)
    last = Run(tmp_path).read_log("epoch")[-1]
    x = spots.validation.take(torch.arange(len(spots.validation))).float() / 255
    body = Run(classes).load_classifier().body
    with torch.no_grad():
        each = channel(Activations(body))(model.reconstruct(x), x)
    assert len(x) <= SMALL["batch_size"]  # one batch, whose mean it is
    expected = 2.0 * x[0].numel() / 2 * math.log(float(each.mean()) + 1e-6)
    assert last["validation/loss/perceptual"] == pytest.approx(expected, rel=1e-4)
    assert Run(tmp_path).read_config().options["features"] == str(classes)


def test_without_a_name_they_are_those_of_a_classifier_of_the_images_own_classes(
    spots: Splits,
) -> None:
    asked: list[int] = []

    def judge(splits: Splits, *, seed: int) -> Judge:
        asked.append(seed)
        return Judge("none", build_classifier(splits.train.shape, 2))

    settings: dict[str, Any] = {**SMALL, "epochs": 1}
    with patch("vaelab.training.loop.trained_judge", judge):
        vaelab.train("vae", spots, **settings, perceptual=0.0)
        assert asked == []  # it costs nothing when off
        vaelab.train("vae", spots, **settings, perceptual=1.0)
    assert asked == [GUIDES]  # never the one that measures


def test_a_training_in_features_goes_on_as_if_it_had_not_stopped(
    tmp_path: Path, spots: Splits
) -> None:
    settings: dict[str, Any] = {**SMALL, "perceptual": 1.0, "ms_ssim": 0.5, "features": Two()}
    whole = vaelab.train("vae", spots, tmp_path / "whole", **settings)
    vaelab.train("vae", spots, tmp_path / "parts", **{**settings, "epochs": 1})
    with pytest.raises(ConfigError, match=r"Pass it again: .*features=network"):
        vaelab.train(None, spots, tmp_path / "parts", resume=True, epochs=2)
    again = vaelab.train(None, spots, tmp_path / "parts", resume=True, epochs=2, features=Two())
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_run_that_is_older_than_the_options_goes_on(tmp_path: Path, spots: Splits) -> None:
    vaelab.train("vae", spots, tmp_path, **{**SMALL, "epochs": 1})
    run = Run(tmp_path)
    config = run.read_config()
    kept = {key: value for key, value in config.options.items() if key in ("beta", "warmup")}
    check_same(config.model_copy(update={"options": kept}), config, run.config_file)
    changed = config.model_copy(update={"options": {**config.options, "ms_ssim": 1.0}})
    with pytest.raises(RunError, match=r"options\.ms_ssim is 1\.0"):
        check_same(config.model_copy(update={"options": kept}), changed, run.config_file)


def test_networks_that_cannot_be_compared_in_are_named_with_the_remedy(
    classes: Path, tmp_path: Path, spots: Splits
) -> None:
    settings: dict[str, Any] = {**SMALL, "epochs": 1, "perceptual": 1.0}
    (tmp_path / "net.onnx").write_bytes(b"")
    wide = vaelab.load_data((torch.zeros(40, 1, 12, 12, dtype=torch.uint8), torch.arange(40) % 2))
    bare = vaelab.load_data(torch.zeros(40, 1, 12, 12, dtype=torch.uint8))
    vaelab.train("vae", spots, tmp_path / "vae", **{**SMALL, "epochs": 1})
    for data, features, said in (
        (spots, tmp_path / "net.onnx", "no gradient passes through onnxruntime.*PyTorch module"),
        (wide, classes, "of images of 1 × 12 × 10 .* these are 1 × 12 × 12.*classify train"),
        (bare, None, "these images have no classes.*--features"),
    ):
        with pytest.raises(ConfigError, match=said):
            vaelab.train("vae", data, **settings, features=features)
    with pytest.raises(RunError, match="holds a VAE, and this needs a classifier"):
        vaelab.train("vae", spots, **settings, features=tmp_path / "vae")


def test_the_command_line_names_a_network(
    classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = command(capsys, "train", "vae", "--features", str(classes), "--dry-run")
    assert code == 1
    assert "the weight of its distance, perceptual, is 0" in err
    assert "Traceback" not in err
    code, _, err = command(capsys, "train", "iwae", "-s", "options.ms_ssim=1", "--dry-run")
    assert code == 1
    assert "ms_ssim is unknown" in err
