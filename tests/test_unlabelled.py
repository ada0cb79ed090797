"""Images of unknown class or attribute: used where they can be, and never taken for a class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vaelab import api
from vaelab.data import ImageSet, Splits, load_data, summary
from vaelab.data.batches import Batch
from vaelab.data.images import with_labels
from vaelab.errors import ConfigError
from vaelab.evaluation.neighbours import neighbour_figures
from vaelab.models.conditioning import Balance, Conditioning, Told
from vaelab.models.model import Model
from vaelab.objectives.objective import Loss, Objective
from vaelab.report.latent_plots import legend
from vaelab.report.latents import Latents
from vaelab.report.palette import class_color
from vaelab.report.pictures import shown
from vaelab.training.progress import Silent
from vaelab.training.run import Run
from vaelab.training.validation import validate

TINY: dict[str, Any] = {
    "latent_dim": 3,
    "epochs": 1,
    "batch_size": 32,
    "config": {"model": {"encoder": {"kind": "mlp", "hidden": [16]}}},
}


def mixed(count: int = 90, known: float = 0.3) -> dict[str, NDArray[Any]]:
    """RGB images of 6 × 9 pixels with one bright line, upright or level; most are unlabelled."""
    chance = np.random.default_rng(4)
    images = chance.integers(0, 50, (count, 6, 9, 3)).astype(np.uint8)
    kinds = np.arange(count) % 2
    for image, kind in zip(images, kinds, strict=True):
        image[(slice(None), chance.integers(9)) if kind else chance.integers(6)] = (250, 90, 20)
    attributes = np.stack([kinds * 1.0, images.mean((1, 2, 3))], 1).astype(np.float32)
    attributes[chance.random((count, 2)) < 0.4] = np.nan
    return {
        "images": images,
        "labels": np.where(chance.random(count) < known, kinds, -1),
        "class_names": np.array(["level", "upright"]),
        "attributes": attributes,
        "attribute_names": np.array(["turned", "light"]),
        "truth": kinds,
    }


@pytest.fixture
def lines() -> Splits:
    arrays = mixed()
    del arrays["truth"]
    return load_data(arrays)


def test_a_summary_counts_unlabelled_images_beside_the_classes(lines: Splits) -> None:
    assert lines.train.labels is not None
    about = summary(lines)
    labels = lines.train.labels
    assert about["unlabelled"]["train"] == int((labels == -1).sum()) > 0
    known = {"level": int((labels == 0).sum()), "upright": int((labels == 1).sum())}
    assert about["classes"]["train"] == known
    assert "unlabelled" not in summary(replace(lines, train=with_labels(lines.train),
        validation=with_labels(lines.validation), test=with_labels(lines.test)))  # fmt: skip


@pytest.mark.parametrize("recipe", ["cvae", "csvae", "m2", "m1+m2"])
def test_each_recipe_trains_samples_and_reads_images_of_which_some_are_unlabelled(
    recipe: str, lines: Splits
) -> None:
    model = api.train(recipe, lines, **TINY)
    assert torch.isfinite(model.sample(5)).all()
    said = model.labels(lines.test.take(torch.arange(5)).float() / 255)
    assert all(torch.isfinite(values.float()).all() for values in said.values())
    if "label" in said:
        assert {*said["label"].tolist()} <= {0, 1}


def test_a_model_samples_like_the_labelled_images_alone() -> None:
    labels = torch.tensor([-1, 1, -1, -1, 0, 1, -1, 1])
    attributes = torch.tensor([[2.0], [3.0], [torch.nan], [5.0], [4.0], [torch.nan], [1.0], [6.0]])
    told = Told(("a", "b"), ("size",), labels, attributes)
    conditioning = Conditioning(told, ("label", "size"))
    said = conditioning.say(conditioning.rows)
    assert {*said["label"].tolist()} == {0, 1}
    assert not said["size"].isnan().any()
    shares = conditioning.rows[:, :2].mean(0)  # of images 1, 4 and 7, the only whole ones
    assert torch.allclose(shares, torch.tensor([1 / 3, 2 / 3]), atol=0.01)


def test_an_unknown_class_is_said_to_be_unknown_and_not_the_first() -> None:
    told = Told(("a", "b"), (), torch.tensor([0, 1, -1]), torch.zeros(3, 0))
    conditioning = Conditioning(told, ("label",))
    contexts = conditioning.encode(torch.tensor([-1, 1, 0]), torch.zeros(3, 0))
    assert conditioning.say(contexts)["label"].tolist() == [-1, 1, 0]


def test_weights_of_an_unknown_class_are_the_mean_of_those_of_the_classes() -> None:
    labels = torch.tensor([0] * 4 + [1] * 4)
    attributes = torch.tensor([0.0, 0, 0, 1, 0, 1, 1, 1])[:, None]
    told = Told(("a", "b"), ("on",), labels, attributes)
    balance = Balance(told, Conditioning(told, ("label", "on"), cut=True))
    ones = torch.ones(3, 1)
    weights = balance(torch.tensor([0, 1, -1]), ones)[:, 0]
    assert weights.tolist() == pytest.approx([2.0, 2 / 3, (2 + 2 / 3) / 2])


class Counting(Objective):
    """Its accuracy is over the known images of a batch."""

    def __init__(self) -> None:
        super().__init__({})

    def forward(self, model: Model, batch: Batch, step: int) -> Loss:
        assert batch.labels is not None
        known = batch.labels[batch.labels >= 0].float()
        figures = {"loss": batch.images.mean()}
        if not len(known):
            return Loss(figures["loss"], figures)
        return Loss(
            figures["loss"], {**figures, "accuracy": known.mean()}, {"accuracy": len(known)}
        )


def test_a_figure_over_some_images_of_a_batch_is_their_mean_over_all_batches() -> None:
    def batch(labels: list[int], level: float) -> Batch:
        x = torch.full((len(labels), 1, 2, 2), level)
        return Batch(x, x, torch.tensor(labels), None, torch.arange(len(labels)))

    batches = [batch([1, -1, -1, 0, 0], 0.5), batch([-1] * 3, 0.1), batch([1, 1], 0.9)]
    found = validate(torch.nn.Identity(), Counting(), iter(batches), 0)  # type: ignore[arg-type]
    assert found.figures["accuracy"] == pytest.approx(3 / 5)
    assert found.figures["loss"] == pytest.approx((5 * 0.5 + 3 * 0.1 + 2 * 0.9) / 10)


def test_m2_counts_the_classes_that_are_known_alone(lines: Splits, tmp_path: Path) -> None:
    api.train("m2", lines, tmp_path / "run", **{**TINY, "epochs": 3})
    logged = Run(tmp_path / "run").read_log("epoch")[-1]["validation/accuracy"]
    assert lines.validation.labels is not None
    known = int((lines.validation.labels >= 0).sum())
    assert 0 < known < len(lines.validation)
    assert logged * known == pytest.approx(round(logged * known))  # so many of them are right


def test_neighbours_are_counted_over_labelled_images(lines: Splits) -> None:
    model = api.train("vae", lines, **TINY)
    both = ImageSet(lines.train.images, lines.train.labels, class_names=lines.train.class_names)
    found = neighbour_figures(model, both, both)["neighbour_accuracy"]
    alone = neighbour_figures(model, with_labels(both), with_labels(both))["neighbour_accuracy"]
    assert found.value == alone.value
    assert both.labels is not None
    assert found.n == int((both.labels >= 0).sum())


def test_pages_show_no_unlabelled_image_under_the_name_of_the_last_class(lines: Splits) -> None:
    index = shown(lines.train, 6)
    assert lines.train.labels is not None
    assert lines.train.labels[index].tolist() == [0, 0, 0, 1, 1, 1]
    labels = torch.tensor([1, -1, 0])
    latents = Latents(torch.zeros(3, 2), torch.ones(3, 2), None, None, True, labels, ("a", "b"), 3)
    assert legend(latents) == [
        ("a", class_color(0)),
        ("b", class_color(1)),
        ("unlabelled", "var(--neutral)"),
    ]


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_classifier_says_that_it_leaves_unlabelled_images_out(lines: Splits) -> None:
    from vaelab.recipes import resolve
    from vaelab.training.fit import train_config

    config = resolve({"recipe": "classifier", "training": {"epochs": 1}}, "test")
    heard = Heard()
    train_config(config, lines, None, heard)
    assert lines.train.labels is not None
    count, of = int((lines.train.labels >= 0).sum()), len(lines.train)
    first = f"{count} training images of {of} have a label, and a classifier learns from no others"
    assert any(text.startswith(first) for text in heard.said)
    none = replace(lines.train, labels=torch.full_like(lines.train.labels, -1))
    with pytest.raises(ConfigError, match=f"none of {of} training images has a label"):
        train_config(config, replace(lines, train=none), None, heard)
    blind = replace(lines.validation, labels=torch.full((len(lines.validation),), -1))
    train_config(config, replace(lines, validation=blind), None, heard)
    assert any("No validation image has a label" in text for text in heard.said)


@pytest.mark.parametrize("recipe", ["m2", "cvae", "m1+m2"])
def test_no_model_of_classes_is_trained_where_no_training_image_has_one(
    recipe: str, lines: Splits
) -> None:
    labels = torch.full((len(lines.train),), -1)
    none = replace(lines.train, labels=labels, attributes=None, attribute_names=(), binary=())
    with pytest.raises(ConfigError, match=r"none of \d+ training images has a label, so a model"):
        api.train(recipe, replace(lines, train=none), **TINY)


@pytest.mark.parametrize("recipe", ["cvae", "csvae", "cvae-info"])
def test_attributes_that_tell_nothing_are_refused_by_name(recipe: str) -> None:
    arrays = mixed()
    del arrays["truth"]
    arrays["attributes"][:, 1] = 0.25
    splits = load_data(arrays)
    assert any("attribute 'light' is 0.25 in all images" in note for note in splits.notes)
    with pytest.raises(ConfigError, match=r"'light' is 0.25 in all.*data.attributes=\[turned\]"):
        api.train(recipe, splits, **TINY)
    arrays["attributes"][:, 1] = np.nan
    splits = load_data(arrays)
    assert any("attribute 'light' is known of no image" in note for note in splits.notes)
    with pytest.raises(ConfigError, match="attribute 'light' is known of no training image"):
        api.train(recipe, splits, **TINY)
    api.train("vae", splits, **TINY)  # which is not conditioned on it


def test_training_reads_live_images_anew_and_resumes_exactly(tmp_path: Path) -> None:
    class Noisy:
        """Images that are drawn anew each time."""

        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> NDArray[np.uint8]:
            return np.random.randint(0, 256, (4, 5)).astype(np.uint8)

    def weights(name: str, epochs: int, **more: Any) -> torch.Tensor:
        settings = {**TINY, "epochs": epochs, "schedule": "constant", **more}
        model = api.train("vae", Noisy(), tmp_path / name, **settings)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    whole = weights("whole", 3, live=True)
    weights("parts", 1, live=True)
    assert torch.equal(whole, weights("parts", 3, live=True, resume=True))
    assert not torch.equal(whole, weights("frozen", 3))
