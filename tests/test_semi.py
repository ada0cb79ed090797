"""Few labels: what M2 costs, what it and M1+M2 learn from ten labels, who moves what."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.test_conditional import QUICK, pixels, shades
from vaelab import train
from vaelab.data.batches import Batch
from vaelab.data.images import with_few_labels
from vaelab.data.summary import Pixels
from vaelab.errors import ConfigError
from vaelab.evaluation.evaluate import evaluate
from vaelab.models.conditioning import Told
from vaelab.models.model import seeded
from vaelab.models.stacked import StackedVae
from vaelab.models.vae import Vae
from vaelab.objectives.semi import SemiSupervised, Stacked
from vaelab.recipes import Setup, build, resolve

LABELLED = 10
SMALL: dict[str, Any] = {
    "model": {"latent_dim": 2, "encoder": {"kind": "mlp", "hidden": [16]}},
    "options": {},
}


def built(recipe: str, few: int = 0, **options: Any) -> tuple[Any, Any]:
    splits = shades().train
    config = resolve({"recipe": recipe, **SMALL, "options": options})
    known = splits.subset(torch.arange(LABELLED))
    assert known.labels is not None
    labels = known.labels
    setup = Setup(
        config.model,
        "none",
        Pixels(torch.full((1, 8, 8), 0.5)),
        100,
        Told.by(with_few_labels(splits, few, 0) if few else splits),
        labelled=lambda: (pixels(known), labels),
    )
    torch.manual_seed(0)
    return build(config, setup)


def batch() -> Batch:
    splits = shades().train
    x = pixels(splits)[:32].float() / 255
    return Batch(x, x, torch.full((32,), -1), None, torch.arange(32))


PLAIN: dict[str, Any] = {"shift": 0, "rotation": 0.0, "zoom": 0.0, "elastic": 0.0}


def test_m2_costs_what_the_equation_says() -> None:
    """U = Σ_y q(y|x) (L(x, y) + log q(y|x)), L with p(y) = ½, and −log q(y|x) weighed by α."""
    model, objective = built("m2", alpha=7.0, **PLAIN)
    assert isinstance(objective, SemiSupervised)
    model.eval()  # no dropout; the objective still trains
    unknown = batch()
    with seeded(3, torch.device("cpu")), torch.no_grad():
        found = objective(model, unknown, 0).figures
    with seeded(3, torch.device("cpu")), torch.no_grad():
        q = model.labeler(unknown.images).softmax(1)
        x = unknown.images.repeat_interleave(2, 0)
        twice = Batch(x, x, None, None, torch.arange(64))
        context = torch.eye(2).repeat(32, 1)
        trace = model.trace(twice, context)
        each = (trace.rate - trace.log_px)[0].view(32, 2) + math.log(2)
        u = (q * (each + q.log())).sum(1).mean()
        known = objective.draw(model, unknown)
        assert known.labels is not None
        context = torch.nn.functional.one_hot(known.labels, 2).float()
        trace = model.trace(known, context)
        bound = (trace.rate - trace.log_px).mean() + math.log(2)
        log_q = model.labeler(known.images).log_softmax(1)[torch.arange(32), known.labels]
    torch.testing.assert_close(found["loss/unlabelled"], u)
    images = shades().train  # all of them have a label, so the weight of L is 1
    assert images.labels is not None
    assert (images.labels >= 0).all()
    torch.testing.assert_close(found["loss/labelled"], bound - 7 * log_q.mean())


def test_the_loss_is_kingmas_sum_over_all_images() -> None:
    """An image that has a label is in L, no other is; the sum over images divided by their number.

    With α times N in the place of the paper's α.
    """
    model, objective = built("m2", few=LABELLED, alpha=0.1, **PLAIN)
    model.eval()
    labels = torch.full((32,), -1)
    labels[:5] = torch.tensor([0, 1, 1, 0, 1])
    some = replace(batch(), labels=labels)
    with seeded(3, torch.device("cpu")), torch.no_grad():
        found = objective(model, some, 0).figures
    with seeded(3, torch.device("cpu")), torch.no_grad():
        q = model.labeler(some.images).softmax(1)
        x = some.images.repeat_interleave(2, 0)
        trace = model.trace(Batch(x, x, None, None, torch.arange(64)), torch.eye(2).repeat(32, 1))
        each = (trace.rate - trace.log_px)[0].view(32, 2) + math.log(2)
        u = (q * (each + q.log())).sum(1)
        beside = objective.draw(model, some)
        assert beside.labels is not None
        trace = model.trace(beside, torch.nn.functional.one_hot(beside.labels, 2).float())
        bounds = (trace.rate - trace.log_px)[0] + math.log(2)
        costs = -model.labeler(beside.images).log_softmax(1)[torch.arange(32), beside.labels]
    count = 32.0  # as if the batch were all images; 4 of 300 and so on for the labelled ones
    summed = u[5:].sum() / count + objective.share * bounds.mean() + 0.1 * costs.mean()
    torch.testing.assert_close(found["loss"], summed)
    assert abs(float(u[:5].sum() / count)) > 0.1  # so that to count them too would show


def test_the_bound_of_few_labels_weighs_what_they_are() -> None:
    model, objective = built("m2", few=LABELLED, alpha=0.0, **PLAIN)
    model.eval()
    labelled, every = (share * objective.share for share in (1.0, 4.0))
    assert labelled == pytest.approx(LABELLED / len(shades().train))
    found = []
    for objective.share in (labelled, every):
        with seeded(3, torch.device("cpu")), torch.no_grad():
            found.append(objective(model, batch(), 0).figures["loss/labelled"])
    torch.testing.assert_close(4 * found[0], found[1])


@pytest.mark.parametrize("recipe", ["m2", "m1+m2"])
def test_at_first_the_labeler_learns_from_labels_alone(recipe: str) -> None:
    """Before `SETTLES` U moves the model, not the labeler; after, both."""
    options: dict[str, Any] = {"second": 3, "hidden": 8} if recipe == "m1+m2" else {}
    model, objective = built(recipe, alpha=0.0, **options)
    second = objective if recipe == "m2" else objective.second
    for step, moves in ((19, False), (20, True)):  # of 100
        model.zero_grad()
        second(model, batch(), step).total.backward()
        grads = [p.grad for n, p in model.named_parameters() if n.startswith("labeler.")]
        assert any(g is not None and bool(g.any()) for g in grads) == moves
        part = model if recipe == "m2" else model.upper
        assert any(p.grad is not None and bool(p.grad.any()) for p in part.decoder.parameters())


def test_the_labeler_sees_varied_copies_and_the_model_the_images() -> None:
    model, objective = built("m2", **{**PLAIN, "shift": 2})
    seen: dict[str, list[Tensor]] = {"labeler": [], "encoder": []}
    model.labeler.register_forward_pre_hook(lambda _, x: seen["labeler"].append(x[0]))
    model.encoder.register_forward_pre_hook(lambda _, x: seen["encoder"].append(x[0]))
    images = batch().images
    objective(model, batch(), 0)
    assert not torch.equal(seen["labeler"][0], images)
    assert torch.equal(seen["encoder"][0], images.repeat_interleave(2, 0))  # for either class
    seen["labeler"].clear()
    objective.eval()
    objective(model, batch(), 0)
    assert torch.equal(seen["labeler"][0], images)


def test_it_draws_only_images_that_have_a_label() -> None:
    model, objective = built("m2")
    train_set = shades().train
    own = {x.numpy().tobytes() for x in pixels(train_set)[:LABELLED]}
    assert train_set.labels is not None
    drawn = objective.draw(model, batch())
    assert {(x * 255).round().to(torch.uint8).numpy().tobytes() for x in drawn.images} <= own
    for x, label in zip(drawn.images, drawn.labels, strict=True):
        assert (x[0, :, 4:].mean() > 0.5) == (label == 1)


def test_the_second_model_moves_nothing_of_the_first() -> None:
    model, objective = built("m1+m2", second=3, hidden=8)
    assert isinstance(model, StackedVae)
    assert isinstance(objective, Stacked)
    players = objective.players(model)
    names = [set(player.parameters) for player in players.values()]
    assert names[0].isdisjoint(names[1])
    assert {f"model.{name}" for name, _ in model.named_parameters()} == names[0] | names[1]
    for name, player in players.items():
        model.zero_grad()
        player.loss(batch(), 0).total.backward()
        for key, value in model.named_parameters():
            if f"model.{key}" not in player.parameters:
                assert value.grad is None or not value.grad.any(), f"{name} moves {key}"


@pytest.mark.parametrize("recipe", ["m2", "m1+m2"])
def test_ten_labels_teach_the_class_of_all(recipe: str) -> None:
    options: dict[str, Any] = {"second": 2, "hidden": 16} if recipe == "m1+m2" else {}
    options |= PLAIN  # images of 8 × 8 pixels are not to be moved
    settings: dict[str, Any] = {**QUICK, "latent_dim": 2, "epochs": 60, "labelled": LABELLED}
    model = train(recipe, shades(), **settings, **options)
    assert isinstance(model, Vae)
    test = shades().test
    assert test.labels is not None
    read = model.labels(pixels(test))["label"]
    right = (read == test.labels).float().mean()
    assert right > 0.95
    figures = evaluate(model, test, samples=2).figures
    assert figures["label_read"].value == pytest.approx(float(right))
    unknown = replace(test, labels=torch.full((len(test),), -1))
    assert "label_read" not in evaluate(model, unknown, samples=2).figures

    def brightness(images: Tensor) -> float:
        return float(images[..., 4:].mean())

    torch.manual_seed(0)
    dark, bright = (brightness(model.sample(200, label=name)) for name in ("dark", "bright"))
    assert dark < 0.35 < 0.6 < bright


def test_a_last_batch_of_one_image_is_refused() -> None:
    """The labeler normalises over a batch; the model's own networks do not."""
    images = shades()
    odd = replace(images, train=images.train.subset(torch.arange(33)))
    with pytest.raises(ConfigError, match="leaves a last batch of one image"):
        train("m2", odd, **{**QUICK, "batch_size": 16, "epochs": 1})
