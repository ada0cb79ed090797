"""A classifier in the loss: the equation by hand, each weight alone, labels that nobody knows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.test_conditional import pixels, shades
from vaelab.data.batches import Batch
from vaelab.data.summary import Pixels
from vaelab.errors import ConfigError
from vaelab.models.classifier import Classifier
from vaelab.models.conditioning import Told
from vaelab.models.model import seeded
from vaelab.models.vae import Vae
from vaelab.objectives.guided import Guided
from vaelab.recipes import Setup, build, resolve

CPU = torch.device("cpu")
PARTS = ("head", "reconstructions", "samples")


class Halves(nn.Module):
    """Images to the mean of their left and of their right half, ``(n, 2)``."""

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, -1)
        return torch.stack([left.mean((1, 2, 3)), right.mean((1, 2, 3))], 1)


def judge() -> Classifier:
    """A fixed classifier of shades: logits ±4 (right − ½); in training its dropout takes all."""
    head = nn.Linear(2, 2)
    head.weight = nn.Parameter(torch.tensor([[0.0, -4.0], [0.0, 4.0]]))
    head.bias = nn.Parameter(torch.tensor([2.0, -2.0]))
    return Classifier(Halves(), nn.Sequential(nn.Dropout(1.0), head), (1, 8, 8))


def built(
    *weights: float, found: list[Classifier] | None = None, told: Told | None = None
) -> tuple[Vae, Guided]:
    def find() -> Classifier:
        with torch.random.fork_rng(devices=[]):  # as a judge that is read from its folder
            made = judge()
        if found is not None:
            found.append(made)
        return made

    config = resolve(
        {
            "recipe": "guided-vae",
            "model": {"latent_dim": 2, "encoder": {"kind": "mlp", "hidden": [16]}},
            "options": dict(zip(PARTS, weights, strict=True)),
        }
    )
    torch.manual_seed(0)
    known = told or Told.by(shades().train)
    setup = Setup(config.model, "none", Pixels(torch.full((1, 8, 8), 0.5)), 100, known, judge=find)
    model, objective = build(config, setup)
    assert isinstance(model, Vae)
    assert isinstance(objective, Guided)
    return model, objective


def batch(labels: list[int] | None) -> Batch:
    x = pixels(shades().train)[:4].float() / 255
    rows = torch.arange(4)
    return Batch(x, x, None if labels is None else torch.tensor(labels), None, rows)


def figures(model: Vae, objective: Guided, given: Batch) -> dict[str, Tensor]:
    with seeded(0, CPU):
        return objective.forward(model, given, 0).figures


def cost(logits: Tensor, labels: list[int]) -> float:
    """The mean of −log softmax over the images whose class is known, in plain numbers."""
    rows: list[tuple[list[float], int]] = [
        (row.tolist(), k) for row, k in zip(logits, labels, strict=True) if k >= 0
    ]
    each = [math.log(sum(math.exp(v) for v in row)) - row[k] for row, k in rows]
    return sum(each) / len(each)


@pytest.mark.parametrize("weights", [(2, 0, 0), (0, 3, 0), (0, 0, 5), (2, 3, 5)])
def test_the_loss_is_the_bound_and_each_classification_by_its_weight(
    weights: tuple[float, float, float],
) -> None:
    labels = [0, 1, -1, 1]
    model, objective = built(*weights)
    given = batch(labels)
    found = figures(model, objective, given)
    classifier = judge().eval()
    with torch.no_grad(), seeded(0, CPU):
        trace = model(given)
        z = trace.latents["z"].value[0]
        expected = {"rate": trace.rate.mean(), "distortion": -trace.log_px.mean()}
        if objective.head is not None:
            expected["head"] = weights[0] * cost(objective.head(z), labels)
        if weights[1]:
            expected["reconstructions"] = weights[1] * cost(
                classifier(trace.likelihood.mean[0]), labels
            )
        if weights[2]:
            made = model.decode(torch.randn(4, 2), model.context(given)).mean
            expected["samples"] = weights[2] * cost(classifier(made), labels)
    assert found.keys() == {f"loss/{name}" for name in expected} | {
        "loss", "rate", "distortion", "elbo",
    }  # fmt: skip
    for name, value in expected.items():
        assert float(found[f"loss/{name}"]) == pytest.approx(float(value), rel=1e-5), name
    assert float(found["loss"]) == pytest.approx(float(sum(expected.values())), rel=1e-5)
    assert float(found["elbo"]) == pytest.approx(
        -float(expected["rate"] + expected["distortion"]), rel=1e-5
    )


def test_unknown_labels_are_left_out() -> None:
    model, objective = built(1, 1, 1)
    nothing = figures(model, objective, batch([-1] * 4))
    assert [float(nothing[f"loss/{name}"]) for name in PARTS] == [0, 0, 0]
    with seeded(0, CPU):
        objective(model, batch([-1] * 4), 0).total.backward()
    assert objective.head is not None
    assert not objective.head.weight.grad.any()  # type: ignore[union-attr]
    silent = figures(model, objective, batch(None))
    assert not {f"loss/{name}" for name in PARTS} & silent.keys()


def test_each_classification_moves_what_it_is_of() -> None:
    """The head moves the encoder, samples the decoder, reconstructions both; none the judge."""
    moved = {}
    for place, name in enumerate(PARTS):
        found: list[Classifier] = []
        model, objective = built(*[float(k == place) for k in range(3)], found=found)
        with seeded(0, CPU):
            given = batch([0, 1, 0, 1])
            trace = model(given)
            assert given.labels is not None
            objective._classified(model, trace, given.labels)[name].backward()
        moved[name] = {
            key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None
        }
        for classifier in found:
            assert not classifier.training
            assert all(p.grad is None for p in classifier.parameters())
        assert not [key for key, _ in objective.named_parameters() if "judge" in key]
        assert (objective.head is not None) == (name == "head")
    assert moved == {
        "head": {"encoder"},
        "reconstructions": {"encoder", "decoder"},
        "samples": {"decoder"},
    }


def test_the_judge_is_looked_for_once_and_only_if_it_is_needed() -> None:
    found: list[Classifier] = []
    model, objective = built(1, 0, 0, found=found)
    figures(model, objective, batch([0, 1, 0, 1]))
    assert found == []
    assert model.conditioning is None  # nothing is asked for, so it need not be told
    model, objective = built(0, 1, 1, found=found)
    for _ in range(2):
        figures(model, objective, batch([0, 1, 0, 1]))
    assert len(found) == 1
    assert model.decoding_names == ("label",)


def test_without_classes_there_is_nothing_to_guide_by() -> None:
    with pytest.raises(ConfigError, match="two classes or more"):
        built(1, 1, 1, told=Told(("only",), labels=torch.zeros(4, dtype=torch.int64)))
