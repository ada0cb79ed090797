"""The contract of every recipe, and the terms of objectives against numbers done by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.distributions import Independent, Normal

from tests.conftest import SMALL
from vaelab.api import configure, settings_to_config, train
from vaelab.data.batches import Batch
from vaelab.data.images import Splits
from vaelab.data.summary import pixels_of
from vaelab.errors import ConfigError
from vaelab.evaluation.evaluate import evaluate
from vaelab.models.classifier import Classifier, build_classifier
from vaelab.models.conditioning import Told
from vaelab.models.flows import FLOWS
from vaelab.models.posteriors import DiagonalNormal
from vaelab.models.priors import NormalPrior
from vaelab.models.vae import Latent, Trace
from vaelab.objectives.schedules import constant, linear
from vaelab.objectives.terms import Capacity, Distortion, ImportanceWeighted, Rate
from vaelab.recipes import RECIPES, Setup, build, resolve

CONTRACT: list[tuple[str, dict[str, Any]]] = [
    ("ae", {}),
    ("vae", {}),
    ("vae", {"posterior": "full", "prior": "mixture", "samples": 2}),
    ("vae", {"prior": "nsf", "likelihood": "gaussian-scalar"}),
    ("vae", {"free_bits": 0.1, "likelihood": "logistic-mixture"}),
    ("vae", {"encoder": {"kind": "residual", "widths": [4]}, "likelihood": "gaussian-pixel"}),
    ("vae", {"encoder": {"kind": "mlp", "hidden": [8]}, "likelihood": "continuous-bernoulli"}),
    ("vae", {"posterior": "flow", "samples": 2}),
    ("beta-vae", {"warmup": 0.5}),
    ("annealed-vae", {}),
    ("iwae", {"samples": 3, "binarize": "dynamic"}),
    ("cvae", {}),
    ("cvae", {"given": ["label", "size"], "learned_prior": True, "dropout": 0.5}),
    ("cvae-info", {"encoder": {"kind": "mlp", "hidden": [8]}}),
    ("csvae", {"attributes": ["size"]}),
    ("csvae", {"independence": "critic", "width": 1, "scales": [1.0, 0.5], "critic_steps": 1}),
    ("vae-gan", {"r1": 1.0, "ms_ssim": 0.1}),
    ("vae-gan", {"spectral": True, "pixels": 0.5, "gan": 20.0}),
    ("aae", {}),
    ("m2", {}),
    ("m1+m2", {"latent_dim": 4, "hidden": 8, "second": 3}),
    ("guided-vae", {}),
    ("guided-vae", {"samples": 0.0, "head": 0.0}),
    ("classifier", {}),
    ("classifier", {"network": "cnn", "rotation": 10.0, "elastic": 1.0}),
]


def test_every_recipe_is_under_contract() -> None:
    assert {name for name, _ in CONTRACT} == set(RECIPES)


@pytest.mark.parametrize(("name", "settings"), CONTRACT, ids=lambda v: str(v))
def test_gradients_reach_every_parameter(
    name: str, settings: dict[str, Any], spots: Splits
) -> None:
    torch.manual_seed(0)
    config = configure({**settings_to_config({**SMALL, **settings}), "recipe": name})
    sizes = torch.rand(len(spots.train), 1)

    def judge() -> Classifier:
        return build_classifier(spots.train.shape, 2)

    told = Told(("a", "b"), ("size",), torch.arange(len(spots.train)) % 2, sizes)

    def some() -> tuple[torch.Tensor, torch.Tensor]:
        return spots.train.take(torch.arange(4)), torch.arange(4) % 2

    labels = told.labels
    whole = replace(
        spots.train, labels=labels, attributes=sizes, class_names=("a", "b"),
        attribute_names=("size",), binary=(),
    )  # fmt: skip
    setup = Setup(
        config.model,
        config.data.binarize,
        pixels_of(spots.train),
        10,
        told,
        judge,
        some,
        lambda: whole,
    )
    model, objective = build(config, setup)
    rows = torch.arange(16)
    x = spots.train.take(rows).float() / 255
    owned: set[str] = set()
    for player in objective.players(model).values():
        loss = player.loss(Batch(x, x, rows % 2, sizes[:16], rows), 9)
        assert loss.total.isfinite()
        loss.total.backward(inputs=list(player.parameters.values()))
        for parameter_name, parameter in player.parameters.items():
            assert parameter.grad is not None, f"{parameter_name} has no gradient"
            assert parameter.grad.abs().sum() > 0, f"the gradient of {parameter_name} is zero"
            assert parameter_name not in owned, f"{parameter_name} has two owners"
            owned.add(parameter_name)
        figures = loss.figures
        assert figures["loss"] == pytest.approx(float(loss.total.detach()))
        if "rate" in figures:
            assert figures["elbo"] == pytest.approx(
                float(-figures["distortion"] - figures["rate"]), rel=1e-5
            )
    assert owned == {f"model.{n}" for n, _ in model.named_parameters()} | {
        f"objective.{n}" for n, _ in objective.named_parameters()
    }


def hand_trace() -> tuple[Trace, torch.Tensor, torch.Tensor]:
    """Two images, three samples, D = 2: unit-variance likelihood of a 1×1×1 image."""
    torch.manual_seed(1)
    posterior = DiagonalNormal(
        torch.tensor([[0.5, -1.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.5], [0.1, 1.0]])
    )
    prior = NormalPrior(2)()
    z = posterior.rsample(torch.Size([3]))
    x = torch.tensor([0.2, 0.9]).reshape(2, 1, 1, 1)
    mean = z[..., :1, None, None]
    likelihood = Independent(Normal(mean, 1.0, validate_args=False), 3, validate_args=False)
    batch = Batch(x, x, None, None, torch.arange(2))
    trace = Trace(batch, {"z": Latent(z, posterior, prior)}, likelihood)
    log_px = -0.5 * (x[:, 0, 0, 0] - z[..., 0]) ** 2 - 0.5 * math.log(2 * math.pi)
    rate = 0.5 * (posterior.loc**2 + posterior.scale**2 - 1) - posterior.scale.log()
    return trace, log_px, rate


def test_distortion_and_rate_are_what_the_equations_say() -> None:
    trace, log_px, rate = hand_trace()
    torch.testing.assert_close(Distortion()(trace, 0), -log_px.mean(0))
    torch.testing.assert_close(Rate(constant(1.0))(trace, 0), rate.sum(1))
    torch.testing.assert_close(Rate(linear(0, 4, 10))(trace, 5), 2 * rate.sum(1))


def test_free_bits_let_each_dimension_have_its_nats() -> None:
    trace, _, rate = hand_trace()
    expected = 3.0 * rate.mean(0).clamp(min=1.0).sum()
    assert rate.mean(0).min() < 1.0 < rate.mean(0).max()
    torch.testing.assert_close(Rate(constant(3.0), 1.0)(trace, 0), expected.expand(2))


def test_capacity_costs_the_distance_to_its_target() -> None:
    trace, _, rate = hand_trace()
    mean = rate.sum(1).mean()
    for step, target in ((0, 0.0), (5, 12.5), (20, 25.0)):
        cost = Capacity(linear(0, 25, 10), 3.0)(trace, step)
        torch.testing.assert_close(cost, (3 * (mean - target).abs()).expand(2))


def test_importance_weighted_bound_weighs_the_better_samples_more() -> None:
    trace, log_px, _ = hand_trace()
    latent = trace.latents["z"]
    log_w = log_px + latent.prior.log_prob(latent.value) - latent.posterior.log_prob(latent.value)
    torch.testing.assert_close(
        ImportanceWeighted(constant(1.0))(trace, 0), -log_w.exp().mean(0).log()
    )
    log_w = log_w.detach().requires_grad_()
    (-torch.logsumexp(log_w, 0) + math.log(3)).sum().backward()
    assert log_w.grad is not None
    assert torch.equal(log_w.grad.argmin(0), log_w.argmax(0))


def test_options_are_checked_by_the_recipe() -> None:
    with pytest.raises(ConfigError, match="ae: beta is unknown"):
        resolve({"recipe": "ae", "options": {"beta": 2}})
    with pytest.raises(ConfigError, match="did you mean free_bits"):
        resolve({"options": {"freebits": 2}})
    with pytest.raises(ConfigError, match="beta: input should be greater than or equal to 0"):
        resolve({"options": {"beta": -1}})
    with pytest.raises(ConfigError, match="Did you mean beta-vae"):
        resolve({"recipe": "betavae"})
    assert resolve({"recipe": "beta-vae"}).options["beta"] == 4.0
    assert resolve({"recipe": "ae"}).model.posterior == "dirac"


@pytest.mark.parametrize("name", sorted(FLOWS))
def test_every_flow_prior_trains_and_is_measured(name: str, spots: Splits) -> None:
    model = train(data=spots, prior=name, **{**SMALL, "epochs": 1})
    figures = evaluate(model, spots.test, samples=3).figures
    assert math.isfinite(figures["log_prob"].value)
    assert figures["rate"].value > 0


def test_misplaced_keys_are_told_their_place() -> None:
    with pytest.raises(ConfigError, match=r"did you mean training\.lr\?"):
        resolve({"lr": 0.1})
    with pytest.raises(ConfigError, match=r"did you mean model\.latent_dim\?"):
        configure(settings_to_config({"latent_dims": 3}))
    assert resolve({"data": {"size": "37x53"}}).data.size == [37, 53]


@pytest.mark.parametrize("name", ["vae", "beta-vae", "annealed-vae", "iwae"])
def test_point_posteriors_have_no_rate(name: str, spots: Splits) -> None:
    config = resolve({"recipe": name, "model": {"posterior": "dirac"}})

    def some() -> tuple[torch.Tensor, torch.Tensor]:
        return spots.train.take(torch.arange(4)), torch.arange(4) % 2

    setup = Setup(config.model, "none", pixels_of(spots.train), 10)
    with pytest.raises(ConfigError, match="infinite for the point posterior"):
        build(config, setup)
