"""The classifier and its loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from vaelab.api import configure
from vaelab.data.batches import Batch
from vaelab.data.images import Splits
from vaelab.data.load import load_data
from vaelab.data.warp import elastic, margin, shifted, warped
from vaelab.errors import ConfigError, RunError
from vaelab.models.classifier import build_classifier
from vaelab.models.model import seeded
from vaelab.objectives.classify import Classification, class_weights
from vaelab.objectives.variation import Variation
from vaelab.training.calibration import FEWEST, described, fitted_temperature
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
    objective = Classification(0.3, Variation(2)).eval()
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
    loss = Classification(0.0, Variation(1))(model, batch, 0)
    assert seen == {(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
    assert float(loss.total.detach()) == pytest.approx(math.log(2))


def still(n: int) -> dict[str, Any]:
    return {"by": torch.zeros(n, 2), "angle": torch.zeros(n), "zoom": torch.ones(n)}


def test_warps_have_known_results() -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 2, 7, 7)
    torch.testing.assert_close(warped(x, **still(4)), x)
    by = torch.tensor([[0, 0], [1, 0], [0, -2], [-1, 3]])
    moved = warped(x, **{**still(4), "by": by.float()})
    torch.testing.assert_close(moved, shifted(x, by))
    turned = warped(x, **{**still(4), "angle": torch.full((4,), 90.0)})
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)), atol=1e-5, rtol=0)
    line = torch.zeros(1, 1, 9, 9)
    line[0, 0, 4] = torch.linspace(-1, 1, 9)  # grows by 1/4 a pixel from the centre
    wide = warped(line, **{**still(1), "zoom": torch.tensor([2.0])})
    torch.testing.assert_close(wide[0, 0, 4], torch.linspace(-0.5, 0.5, 9))
    right = torch.zeros(4, 2, 7, 7)
    right[:, 1] = 1.0  # each pixel comes from one to its right: the image moves to the left
    bent = warped(x, **still(4), bend=right)
    torch.testing.assert_close(bent, shifted(x, torch.tensor([[0, -1]]).expand(4, 2)))


def test_a_wide_image_turns_about_its_centre_without_being_squeezed() -> None:
    x = torch.zeros(1, 1, 5, 9)
    x[0, 0, 2, 3:6] = 1
    turned = warped(x, **{**still(1), "angle": torch.tensor([90.0])})
    expected = torch.zeros(5, 9)
    expected[1:4, 4] = 1
    torch.testing.assert_close(turned[0, 0], expected, atol=1e-5, rtol=0)


def test_elastic_fields_are_smooth_and_of_unit_size() -> None:
    width = 2.0
    grown = 40 + 2 * margin(width)
    noise = torch.randn(50, 2, grown, grown, generator=torch.Generator().manual_seed(0))
    field = elastic(noise, width)
    assert field.shape == (50, 2, 40, 40)
    assert float(field.std()) == pytest.approx(1, abs=0.03)
    near = float((field[..., 1:] * field[..., :-1]).mean() / field.square().mean())
    assert near == pytest.approx(math.exp(-1 / (4 * width**2)), abs=0.01)  # Gaussian twice
    far = float((field[..., 16:] * field[..., :-16]).mean())
    assert abs(far) < 0.1


def test_variation_follows_the_seed_and_stays_within_its_limits() -> None:
    x = torch.zeros(64, 1, 21, 21)
    x[:, :, 10, 10] = 1
    device = torch.device("cpu")
    vary = Variation(shift=2, rotation=20, zoom=0.1, elastic=0.5)
    with seeded(1, device):
        one = vary(x)
    with seeded(1, device):
        again = vary(x)
    with seeded(2, device):
        other = vary(x)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(Variation()(x), x)
    only = Variation(shift=2, rotation=20)
    with seeded(0, device):
        moved = only(x)
    places = moved[:, 0].nonzero()[:, 1:] - 10
    assert int(places.abs().max()) <= 3  # bilinear: one pixel beyond


def test_rare_classes_weigh_more() -> None:
    labels = torch.tensor([0, 0, 0, 1, -1, -1])
    assert class_weights(labels, 3, 0.0).tolist() == [1, 1, 0]
    assert class_weights(labels, 2, 1.0).tolist() == pytest.approx([2 / 3, 2.0])
    assert class_weights(labels, 2, 0.5).tolist() == pytest.approx([(2 / 3) ** 0.5, 2**0.5])
    model = build_classifier((1, 8, 8), 2).eval()
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 0, 1])
    loss = Classification(0.0, Variation(), class_weights(y, 2, 1.0)).eval()(
        model, Batch(x, x, y, None, torch.arange(4)), 0
    )
    each = functional.cross_entropy(model(x), y, reduction="none")
    mean_of_classes = (each[:3].mean() + each[3]) / 2  # both classes count for one half
    assert float(loss.total.detach()) == pytest.approx(float(mean_of_classes.detach()), rel=1e-5)


def test_smoothing_does_not_favour_rare_classes() -> None:
    """Smoothed labels of a frequent class stay its own, however much a rare one weighs."""
    labels = torch.tensor([0] * 99 + [1])
    weights = class_weights(labels, 2, 1.0)
    objective = Classification(0.1, Variation(), weights).eval()
    model = build_classifier((1, 8, 8), 2).eval()
    x = torch.rand(100, 1, 8, 8)
    loss = objective(model, Batch(x, x, labels, None, torch.arange(100)), 0)
    smooth = 0.9 * functional.one_hot(labels, 2) + 0.05
    each = -(smooth * model(x).log_softmax(1)).sum(1)
    expected = (each[:99].mean() + each[99]) / 2
    assert float(loss.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    logits = torch.tensor([[math.log(0.95 / 0.05), 0.0]]).requires_grad_()
    model.forward = lambda x: logits.expand(len(x), 2)  # type: ignore[method-assign]
    common = Batch(x[:50], x[:50], labels[:50], None, torch.arange(50))
    objective(model, common, 0).total.backward()
    assert float(logits.grad.abs().max()) < 1e-6  # type: ignore[union-attr]  # 95 % is the best
    none = Classification(0.1, Variation(), torch.tensor([0.0, 2.0])).eval()
    assert float(none(model, common, 0).total.detach()) == 0  # a class without training images


def test_the_temperature_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(20_000, 4, generator=generator)
    labels = torch.multinomial(true.softmax(1), 1, generator=generator).squeeze(1)
    assert fitted_temperature(true, labels) == pytest.approx(1, abs=0.03)
    assert fitted_temperature(3 * true, labels) == pytest.approx(3, abs=0.1)
    sure = 5 * functional.one_hot(labels[:FEWEST], 4).double()
    chance = float((sure / fitted_temperature(sure, labels[:FEWEST])).softmax(1).max())
    assert 0.9 < chance < 0.999  # of 100 images without a mistake nobody can be sure of all
    for few in (0, 6, FEWEST - 1):
        assert fitted_temperature(sure[:few], labels[:few]) == 1
    assert "not fitted" in described(1.0)


@pytest.mark.parametrize("network", ["cnn-small", "cnn"])
@pytest.mark.parametrize("shape", [(3, 37, 53), (1, 2, 2), (1, 1, 9)])
def test_networks_take_images_of_any_size(network: str, shape: tuple[int, int, int]) -> None:
    model = build_classifier(shape, 3, network).train()  # type: ignore[arg-type]
    x = torch.rand(1, *shape)
    functional.cross_entropy(model(x), torch.tensor([1])).backward()  # a last batch of one image
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with pytest.raises(ConfigError, match="too small"):
        build_classifier((1, 1, 3), 2)


def test_few_labels_train_on_those_alone_and_a_run_is_calibrated(tmp_path: Path) -> None:
    splits, run = bars(1000), Run(tmp_path / "run")
    training = {"epochs": 3, "batch_size": 16, "lr": 3e-3, "device": "cpu", "labelled": 32}
    config = configure({"recipe": "classifier", "training": training})
    train_config(config, splits, run, Silent())
    assert run.read_log("epoch")[-1]["step"] == 3 * 2
    model = run.load_classifier()
    assert splits.validation.labels is not None
    logits = model.logits(splits.validation.take(torch.arange(len(splits.validation))))
    assert float(model.temperature) == pytest.approx(
        fitted_temperature(logits, splits.validation.labels), rel=1e-4
    )
    assert float(model.temperature) != 1
    before = run.model_file.read_bytes()
    train_config(config, splits, run, Silent())
    assert run.model_file.read_bytes() == before


def test_the_best_weights_are_those_that_are_calibrated(tmp_path: Path) -> None:
    splits, run = bars(1000), Run(tmp_path / "run")
    training = {"epochs": 4, "batch_size": 16, "device": "cpu", "patience": 4, "ema": 0.9}
    config = configure({"recipe": "classifier", "training": {**training, "lr": 0.02}})
    train_config(config, splits, run, Silent())
    model = run.load_classifier()
    assert splits.validation.labels is not None
    logits = model.logits(splits.validation.take(torch.arange(len(splits.validation))))
    assert float(model.temperature) == pytest.approx(
        fitted_temperature(logits, splits.validation.labels), rel=1e-4
    )
    assert float(model.temperature) != 1


def test_few_validation_images_calibrate_nothing_and_it_is_said(tmp_path: Path) -> None:
    splits, run = bars(60), Run(tmp_path / "run")
    config = configure({"recipe": "classifier", "training": {"epochs": 1, "device": "cpu"}})
    train_config(config, splits, run, Silent())
    assert float(run.load_classifier().temperature) == 1
    said = [note["text"] for note in run.read_log("note")]
    assert any("Only 6 validation images: too few to calibrate" in text for text in said)
