"""What a model is before its first step: the mean image, whitened pixels, scales that fit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.distributions import Laplace, Normal

import vaelab
from vaelab.api import configure, settings_to_config
from vaelab.config import LikelihoodName
from vaelab.data.images import ImageSet, Splits
from vaelab.data.summary import Pixels, pixels_of
from vaelab.models.likelihoods import (
    LOG_SIGMA_FLOOR,
    GaussianLikelihood,
    LaplaceLikelihood,
    build_likelihood,
)
from vaelab.models.networks import Whitening
from vaelab.models.vae import Vae
from vaelab.recipes import Setup, build
from vaelab.training.loop import Trainer
from vaelab.training.progress import Silent

NAMES: tuple[LikelihoodName, ...] = get_args(LikelihoodName)
LOCATED: tuple[LikelihoodName, ...] = ("gaussian", "gaussian-scalar", "gaussian-pixel", "laplace")
SHAPES = [(1, 28, 28), (3, 37, 53), (3, 8, 8), (2, 16, 5), (1, 3, 1)]
NETWORKS: list[dict[str, Any]] = [
    {"kind": "conv", "widths": [6, 8], "normalization": "batch"},
    {"kind": "residual", "widths": [6], "normalization": "group"},
    {"kind": "mlp", "hidden": [16]},
]


def pictures(shape: tuple[int, int, int], count: int = 64) -> ImageSet:
    """Images that share a gradient and a colour, each brighter or darker, with some noise."""
    generator = torch.Generator().manual_seed(math.prod(shape))
    channels, height, width = shape
    colour = torch.linspace(0.2, 0.6, channels)[:, None, None]
    slope = 0.3 * torch.linspace(0, 1, height)[:, None].expand(height, width)
    light = 0.3 * torch.rand(count, 1, 1, 1, generator=generator) - 0.15
    noise = 0.05 * torch.randn(count, *shape, generator=generator)
    x = (colour + slope + light + noise).clamp(0, 1)
    return ImageSet((255 * x).round().to(torch.uint8))


def fresh(images: ImageSet, likelihood: str, network: dict[str, Any], output: str) -> Vae:
    """Return an untrained model of images."""
    settings = {"likelihood": likelihood, "encoder": network, "standardize": True, "output": output}
    config = configure({**settings_to_config(settings), "recipe": "vae"})
    torch.manual_seed(0)
    model, _ = build(config, Setup(config.model, "none", pixels_of(images), 10))
    assert isinstance(model, Vae)
    return model.eval()


def cost_of_the_mean(name: LikelihoodName, x: Tensor) -> float:
    """Nats per image of the mean image, under the best of one scale for all pixels."""
    mean, numbers = x.mean(0), x[0].numel()
    errors = x - mean
    if name == "laplace":
        return numbers * (math.log(2 * float(errors.abs().mean())) + 1)
    if name.startswith("gaussian"):
        return 0.5 * numbers * math.log(2 * math.pi * math.e * float(errors.square().mean()))
    if name == "logistic-mixture":
        single = build_likelihood(name, tuple(x.shape[1:]), sigma=None, mixtures=1)  # type: ignore[arg-type]
        raw = single.start(mean, float(errors.square().mean().sqrt()))
        return -float(single(raw).log_prob(x).mean())
    likelihood = build_likelihood(name, tuple(x.shape[1:]))  # type: ignore[arg-type]
    return -float(likelihood(likelihood.start(mean)).log_prob(x).mean())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("name", "output"),
    [(name, "linear") for name in NAMES] + [(name, "sigmoid") for name in LOCATED],
)
@torch.no_grad()
def test_no_likelihood_starts_worse_than_the_mean_image(
    name: LikelihoodName, output: str, shape: tuple[int, int, int]
) -> None:
    images = pictures(shape)
    x = images.take(torch.arange(len(images))).float() / 255
    best = cost_of_the_mean(name, x)
    for network in NETWORKS:
        model = fresh(images, name, network, output)
        shown = model.reconstruct(x)
        torch.testing.assert_close(shown, x.mean(0).expand_as(x), rtol=0, atol=2e-3)
        z = torch.randn(len(x), model.latent_dim)
        cost = -float(model.decode(z).log_prob(x).mean())
        # a Laplace starts with the deviation, not the mean error; a mixture is no single logistic
        slack = {"laplace": 0.05, "logistic-mixture": 0.05}.get(name, 1e-3) * math.prod(shape)
        assert cost <= best + slack


@pytest.mark.parametrize("name", LOCATED)
def test_a_sigmoid_keeps_means_between_black_and_white(name: LikelihoodName) -> None:
    likelihood = build_likelihood(name, (1, 1, 3), sigma=0.1, output="sigmoid")
    mean = torch.tensor([[[0.1, 0.5, 0.8]]])
    raw = likelihood.start(mean)
    torch.testing.assert_close(likelihood(raw).mean, mean)
    assert float(raw[0, 0, 1]) == pytest.approx(0, abs=1e-7)
    near = raw + 1e-3  # ½ (1 + tanh 2 r): slope 1 at ½, 4 μ (1 − μ) elsewhere
    slope = (likelihood(near).mean - mean) / 1e-3
    torch.testing.assert_close(slope, 4 * mean * (1 - mean), rtol=0, atol=3e-3)
    far = likelihood(1e3 * torch.sign(raw + 0.1))
    assert far.mean.min() >= 0
    assert far.mean.max() == 1
    assert bool(
        likelihood(likelihood.start(torch.tensor([[[0.0, 1.0, 0.5]]]))).mean.isfinite().all()
    )


def test_pixels_are_measured() -> None:
    images = pictures((3, 9, 7), 50)
    x = images.take(torch.arange(50)).double() / 255
    found = pixels_of(images)
    assert found.covariance is not None
    flat = x.transpose(0, 1).flatten(1)
    torch.testing.assert_close(found.mean.double(), x.mean(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.covariance.double(), flat.cov(correction=0), rtol=0, atol=1e-6)
    assert found.deviation == pytest.approx(float((x - x.mean(0)).square().mean().sqrt()), abs=1e-6)


def test_whitened_pixels_have_covariance_one_and_keep_their_hue() -> None:
    torch.manual_seed(1)
    mixing = torch.tensor([[0.2, 0.0, 0.0], [0.15, 0.05, 0.0], [0.18, 0.02, 0.03]])
    x = 0.5 + torch.einsum("ij,njhw->nihw", mixing, torch.randn(400, 3, 8, 8))
    flat = x.transpose(0, 1).flatten(1)
    pixels = Pixels(x.mean(0), flat.cov(correction=0))
    white = Whitening(pixels)(x)
    covariance = white.transpose(0, 1).flatten(1).cov(correction=0)
    torch.testing.assert_close(covariance, torch.eye(3), rtol=0, atol=0.05)  # but for ε
    matrix = Whitening(pixels).matrix
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(white.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)


def test_images_of_one_colour_stay_finite() -> None:
    grey = torch.full((8, 3, 5, 5), 0.4)
    flat = grey.transpose(0, 1).flatten(1)
    white = Whitening(Pixels(grey.mean(0), flat.cov(correction=0)))(grey)
    assert white.abs().max() < 1e-3
    coloured = Whitening(Pixels(grey.mean(0), 0.04 * torch.ones(3, 3)))(grey + 0.2)
    assert coloured.abs().max() < 3  # channels that are always equal are not blown up


@pytest.mark.parametrize("samples", [(), (4,)])
def test_the_fitted_scale_of_a_batch_makes_it_most_probable(samples: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, loc = torch.rand(6, 3, 5, 4), torch.rand(*samples, 6, 3, 5, 4)
    for likelihood, family in (
        (GaussianLikelihood((3, 5, 4), None), Normal),
        (LaplaceLikelihood((3, 5, 4), None), Laplace),
    ):
        likelihood.train()
        found = likelihood(loc).log_prob(x)
        assert found.shape == (*samples, 6)
        at = [float(family(loc, s).log_prob(x).sum()) for s in torch.linspace(0.1, 0.9, 4001)]  # type: ignore[no-untyped-call]
        assert float(found.sum()) == pytest.approx(max(at), rel=1e-5)


def test_the_gradient_of_a_fitted_scale_is_that_of_the_best_one() -> None:
    """Detached or not, σ is where the loss is least."""
    x = torch.rand(5, 1, 4, 4)
    loc = torch.rand(5, 1, 4, 4, requires_grad=True)
    likelihood = GaussianLikelihood((1, 4, 4), None).train()
    (found,) = torch.autograd.grad(likelihood(loc).log_prob(x).sum(), loc)
    mse = (x - loc).square().mean()
    (expected,) = torch.autograd.grad(-0.5 * x.numel() * mse.log(), loc)
    torch.testing.assert_close(found, expected)


def test_the_scale_that_is_kept_is_the_running_mean_of_the_errors() -> None:
    likelihood = GaussianLikelihood((1, 4, 4), None).train()
    torch.manual_seed(3)
    errors = [0.02 + 0.1 * torch.rand(7, 1, 4, 4) for _ in range(150)]
    kept = 0.0
    for number, each in enumerate(errors):
        likelihood(torch.zeros(1, 4, 4)).log_prob(each)
        kept += (float(each.square().mean()) - kept) * max(1 / (number + 1), 0.01)
    likelihood.eval()
    scale = likelihood(torch.zeros(1, 4, 4)).base_dist.scale
    assert float(scale.flatten()[0]) == pytest.approx(math.sqrt(kept), rel=1e-4)
    likelihood(torch.zeros(1, 4, 4)).log_prob(errors[0])  # outside of training nothing is learnt
    assert torch.equal(scale, likelihood(torch.zeros(1, 4, 4)).base_dist.scale)


def test_a_step_that_is_skipped_leaves_no_trace_in_the_scale() -> None:
    """Its buffers are among those that `Update` puts back where a loss is not finite."""
    images = pictures((1, 12, 10), 32)
    settings = {"likelihood": "gaussian", "encoder": NETWORKS[0], "batch_size": 8, "device": "cpu"}
    config = configure({**settings_to_config(settings), "recipe": "vae"})
    trainer = Trainer(config, Splits("pictures", images, images, images), Silent())
    parts = iter(trainer._groups())
    trainer._step(next(parts))
    state = {name: value.clone() for name, value in trainer.model.named_buffers()}
    assert state["decoder.family.scale.seen"] == 1
    (part,) = next(parts)
    bad = torch.full_like(part.batch.images, torch.nan)
    trainer._step([replace(part, batch=replace(part.batch, images=bad, target=bad))])
    assert int(trainer.updates["model"].skipped) == 1
    for name, value in trainer.model.named_buffers():
        assert torch.equal(value, state[name]) or "num_batches" in name, name
    trainer._step(next(parts))
    assert trainer.model.get_buffer("decoder.family.scale.seen") == 2


def test_a_perfect_reconstruction_has_a_bounded_density() -> None:
    x = torch.rand(3, 1, 6, 6)
    likelihood = GaussianLikelihood((1, 6, 6), None).train()
    for _ in range(3):
        density = likelihood(x).log_prob(x)
    assert density.isfinite().all()
    likelihood.eval()
    scale = float(likelihood(x).base_dist.scale.flatten()[0])
    assert scale >= math.exp(LOG_SIGMA_FLOOR) - 1e-9


def test_a_run_keeps_its_scale_and_goes_on_with_it(tmp_path: Any) -> None:
    images = pictures((3, 12, 10), 96)
    rows = torch.arange(96).split(32)
    first, second, third = (images.subset(part) for part in rows)
    splits = Splits("pictures", first, second, third)
    settings: dict[str, Any] = {
        "latent_dim": 2, "encoder": NETWORKS[0], "standardize": True, "likelihood": "gaussian",
        "epochs": 30, "batch_size": 16, "lr": 3e-3, "optimizer": "adamw", "device": "cpu",
        "precision": "fp32",
    }  # fmt: skip
    model = vaelab.train("vae", splits, tmp_path / "run", **settings)
    again = vaelab.load(tmp_path / "run")
    x = images.take(rows[2])
    torch.testing.assert_close(again.reconstruct(x), model.reconstruct(x))
    real = x.float() / 255
    error = float((again.reconstruct(x) - real).square().mean().sqrt())
    scale = float(again.decode(torch.zeros(1, 2)).base_dist.scale.flatten()[0])  # type: ignore[attr-defined]
    assert error < 0.9 * float((real - real.mean(0)).square().mean().sqrt())
    assert scale == pytest.approx(error, rel=0.3)
