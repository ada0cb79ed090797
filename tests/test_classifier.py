"""The classifier and its loss."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from vaelab.api import configure
from vaelab.data.batches import Batch
from vaelab.data.images import Splits
from vaelab.data.load import load_data
from vaelab.errors import ConfigError, RunError
from vaelab.models.classifier import build_classifier, shifted
from vaelab.objectives.classify import Classification
from vaelab.training.fit import train_config
from vaelab.training.progress import Silent
from vaelab.training.run import Run


def bars(n: int = 200) -> Splits:
    """Images of a bright row or a bright column: the class is which."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 80, (n, 9, 11)).astype(np.uint8)
    labels = np.arange(n) % 2
    for image, label, place in zip(images, labels, generator.integers(2, 7, n), strict=True):
        if label:
            image[place] = 255
        else:
            image[:, place] = 255
    return load_data((images, labels))


def test_a_classifier_learns_and_is_read_back(tmp_path: Path) -> None:
    splits, run = bars(), Run(tmp_path / "run")
    training = {"epochs": 8, "batch_size": 16, "lr": 3e-3, "device": "cpu"}
    config = configure({"recipe": "classifier", "training": training})
    train_config(config, splits, run, Silent())
    model = run.load_classifier()
    images = splits.test.take(torch.arange(len(splits.test)))
    chances = model.predict(images)
    assert torch.allclose(chances.sum(1), torch.ones(len(images)))
    assert splits.test.labels is not None
    assert (chances.argmax(1) == splits.test.labels).float().mean() > 0.9
    assert model.features(images).shape == (len(images), 128)
    assert run.read_log("epoch")[-1]["validation/accuracy"] > 0.9
    with pytest.raises(RunError, match="holds a classifier"):
        run.load_model()


def test_images_without_classes_are_named() -> None:
    plain = load_data(np.zeros((40, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match="two classes or more"):
        train_config(configure({"recipe": "classifier"}), plain, None, Silent())


def test_shifts_move_by_whole_pixels() -> None:
    x = torch.arange(1.0, 13).view(1, 1, 3, 4).repeat(3, 1, 1, 1)
    moved = shifted(x, torch.tensor([[0, 0], [1, 0], [0, -2]]))
    assert torch.equal(moved[0], x[0])
    assert moved[1, 0].tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert moved[2, 0].tolist() == [[3, 4, 0, 0], [7, 8, 0, 0], [11, 12, 0, 0]]


def test_the_loss_is_cross_entropy_with_smoothed_labels() -> None:
    torch.manual_seed(0)
    model = build_classifier((1, 8, 8), 3).eval()
    objective = Classification(0.3, shift=2).eval()
    x = torch.rand(5, 1, 8, 8)
    labels = torch.tensor([0, 1, 2, 0, 1])
    loss = objective(model, Batch(x, x, labels, None, torch.arange(5)), 0)
    log_p = model(x).log_softmax(1)
    smooth = 0.7 * functional.one_hot(labels, 3) + 0.1
    assert float(loss.total.detach()) == pytest.approx(
        float(-(smooth * log_p).sum(1).mean().detach()), rel=1e-5
    )
    right = (log_p.argmax(1) == labels).float().mean()
    assert float(loss.figures["accuracy"]) == pytest.approx(float(right))


def test_training_images_are_shifted_by_every_amount() -> None:
    seen = set()

    def look(x: torch.Tensor) -> torch.Tensor:
        for image in x:
            row, column = (image[0] == 1).nonzero()[0].tolist()
            seen.add((row - 4, column - 4))
        return torch.zeros(len(x), 2, requires_grad=True)

    model = build_classifier((1, 9, 9), 2)
    model.forward = look  # type: ignore[method-assign]
    x = torch.zeros(400, 1, 9, 9)
    x[:, 0, 4, 4] = 1
    torch.manual_seed(0)
    batch = Batch(x, x, torch.zeros(400).long(), None, torch.arange(400))
    loss = Classification(0.0, shift=1)(model, batch, 0)
    assert seen == {(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert float(loss.total.detach()) == pytest.approx(math.log(2))
