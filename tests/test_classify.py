"""Measuring a classifier against counts done by hand, and ``vaelab classify`` from end to end."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import blobs
from tests.test_cli import vaelab
from vaelab import files
from vaelab.data.images import ImageSet
from vaelab.errors import DataError
from vaelab.evaluation.classification import (
    calibration_error,
    classified,
    confusion,
    per_class,
    reliability,
    uneven,
)
from vaelab.evaluation.figures import Share
from vaelab.evaluation.record import read
from vaelab.models.classifier import Classifier
from vaelab.training.run import Run

QUICK = ["--epochs", "1", "--batch-size", "16", "--device", "cpu"]


def test_confusion_precision_and_recall_by_hand() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    said = torch.tensor([0, 0, 1, 1, 0, 0])
    counts = confusion(labels, said, 4)
    assert counts.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    shares = [(p.value, r.value) for p, r in per_class(counts)]
    assert shares == [(0.5, 2 / 3), (0.5, 0.5), (None, 0.0), (None, None)]


def test_intervals_of_shares() -> None:
    assert Share(8, 10).interval == pytest.approx((0.4902, 0.9433), abs=1e-3)  # as tables have it
    assert Share(10, 10).interval[1] == 1
    assert Share(10, 10).interval[0] == pytest.approx(0.7225, abs=1e-3)
    assert Share(0, 0).interval == (0, 1)


def test_calibration_error_by_hand() -> None:
    chances = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    labels = torch.tensor([0, 0, 1, 1])
    bins = reliability(chances, labels, 10)
    assert [n for *_, n in bins] == [1, 3]
    expected = 0.25 * abs(1 - 0.6) + 0.75 * abs(2 / 3 - 0.9)
    assert calibration_error(chances, labels, 10) == pytest.approx(expected, abs=1e-6)


class Fixed(Classifier):
    """Says for every image what its first pixel holds."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity(), torch.nn.Linear(1, 1), (1, 2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        which = (x[:, 0, 0, 0] * 255).round().long()
        return 4.0 * torch.nn.functional.one_hot(which, 3)


def labelled(said: list[int], labels: list[int]) -> ImageSet:
    images = torch.zeros(len(said), 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(said)
    return ImageSet(images, torch.tensor(labels), class_names=("a", "b", "c"))


def test_figures_of_a_known_classifier() -> None:
    result, chances = classified(Fixed().eval(), labelled([0, 1, 1, 2, 0], [0, 1, 0, 2, -1]))
    assert result.images == 4
    assert result.confusion == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    figures = {name: figure.value for name, figure in result.figures.items()}
    assert figures["accuracy"] == 0.75
    assert figures["balanced_accuracy"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert figures["recall:a"] == 0.5
    assert figures["precision:b"] == 0.5
    e = np.exp(4)
    right, wrong = -np.log(e / (e + 2)), -np.log(1 / (e + 2))
    assert figures["log_loss"] == pytest.approx((3 * right + wrong) / 4, rel=1e-5)
    assert chances.shape == (4, 3)
    seen, _ = classified(
        Fixed().eval(), labelled([0], [0]), looked_at=True, what="validation images"
    )
    assert seen.figures["log_loss"].protocol.endswith(
        "1 validation images held out from training, though calibration and patience may look at "
        "them."
    )
    with pytest.raises(DataError, match="none has a label"):
        classified(Fixed().eval(), labelled([0], [-1]))


def test_the_share_of_the_commonest_class_is_told_where_classes_are_uneven() -> None:
    assert not uneven([10, 9, 6])
    assert not uneven([4, 1])  # as chance may have it
    assert uneven([40, 10])
    assert not uneven([892, 1135])  # the digits
    result, _ = classified(Fixed().eval(), labelled([0] * 44, [0] * 33 + [1] * 11))
    assert result.notes == (
        "No image of c to measure on.",
        "Saying a of every image would be right in 75.0 % of them.",
    )


def test_few_images_leave_every_share_open() -> None:
    found, _ = classified(Fixed(), labelled([0, 0, 1, 1], [0, 0, 1, 1]))
    assert str(found.figures["accuracy"]) == "1.00 (0.51 to 1.00) share of images"
    balanced = found.figures["balanced_accuracy"]
    least = 1 - math.hypot(1 - 0.3424, 1 - 0.3424) / 2  # Wilson's lower end of 2 of 2, twice
    assert balanced.ends == pytest.approx((least, 1), abs=1e-3)
    assert "± 0" not in balanced.number


def test_a_classifier_finds_classes_by_their_names() -> None:
    fixed = Fixed()
    fixed.class_names = ("a", "b", "c")
    images = labelled([0, 1, 2, 2], [0, 1, 2, 2])
    other = replace(images, class_names=("b", "a", "c"))  # the classifier says a, b, c, c
    found, _ = classified(fixed, other)
    assert found.figures["accuracy"].value == 0.5
    assert found.confusion == [[0, 1, 0], [1, 0, 0], [0, 0, 2]]
    fewer = replace(labelled([2, 1, 1], [0, 1, 1]), class_names=("c", "b"))
    found, _ = classified(fixed, fewer)
    assert found.confusion == [[0, 0, 0], [0, 2, 0], [0, 0, 1]]
    with pytest.raises(DataError, match="class 'e' is none that this model knows: a, b, c"):
        classified(fixed, replace(images, class_names=("b", "e", "c")))
    with pytest.raises(DataError, match="no labels"):
        classified(fixed, ImageSet(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 37 × 53 RGB images: three classes, one of them rare."""
    root = tmp_path / "photos"
    for number, pixels in enumerate(blobs(60, 37, 53, 3).transpose(0, 2, 3, 1)):
        kind = "rare <&>" if number % 15 == 0 else ("left", "right")[number % 2]
        shade = {"left": (255, 0, 0), "right": (0, 255, 0)}.get(kind, (0, 0, 255))
        path = root / kind / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels // 2 + np.array(shade) // 2).astype(np.uint8)).save(path)
    return root


def test_train_evaluate_predict(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    for network in ("cnn-small", "cnn"):
        path = str(out) + network
        code, _, err = vaelab(
            capsys, "classify", "train", network, "-d", str(photos), "-o", path, *QUICK
        )
        assert code == 0, err
        code, text, err = vaelab(capsys, "classify", "evaluate", path, "--json")
        assert code == 0, err
        said: dict[str, Any] = json.loads(text)
        run = Run(path)
        result = read(run)
        _, text, _ = vaelab(capsys, "classify", "evaluate", path)
        assert "Recall of left  " in text
        assert "Mean recall of the classes  " in text
        assert "log_loss" not in text
        assert said["figures"]["accuracy"]["value"] == result.figures["accuracy"].value
        assert sum(map(sum, result.confusion or [])) == result.images
        page = run.report_file.read_text()
        assert "Worst errors" in page
        assert 'tabindex="0"><table class="by-class">' in page  # scrolls where there is no room
        assert "rare &lt;&amp;&gt;" in page
        assert "<script" not in page
        assert "Training is not finished" not in page
        table = tmp_path / "said.csv"
        code, _, err = vaelab(capsys, "classify", "predict", path, str(photos), "-o", str(table))
        assert code == 0, err
        rows = list(csv.DictReader(table.read_text().splitlines()))
        assert len(rows) == 60
        assert rows[0]["image"].startswith("left/")
        names = ("left", "rare <&>", "right")
        for row in rows:
            chances = [float(row[name]) for name in names]
            assert sum(chances) == pytest.approx(1, abs=1e-4)
            assert row["class"] == names[int(np.argmax(chances))]


def test_what_cannot_be_classified_is_said_plainly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, bare, other = (tmp_path / f"{name}.npz" for name in ("one", "two", "bare", "other"))
    np.savez(one, images=blobs(20), labels=np.zeros(20, int))
    np.savez(two, images=blobs(2), labels=np.arange(2))
    np.savez(bare, images=blobs(20))
    np.savez(other, images=255 - blobs(2), labels=np.arange(2))
    for path in (one, bare):
        code, _, err = vaelab(
            capsys, "classify", "train", "-d", str(path), "-o", str(tmp_path / "x"), *QUICK
        )
        assert code == 1
        assert "two classes or more" in err
        assert "Traceback" not in err
    out = str(tmp_path / "tiny")
    code, _, err = vaelab(capsys, "classify", "train", "-d", str(two), "-o", out, *QUICK)
    assert code == 0, err
    code, text, err = vaelab(capsys, "classify", "evaluate", out)
    assert code == 0, err
    assert "Training-set accuracy" in text
    assert float(Run(out).load_classifier().temperature) == 1  # nothing was held out to fit it
    code, text, err = vaelab(capsys, "classify", "evaluate", out, "-d", str(other))
    assert code == 0, err
    assert "Test accuracy" in text  # too few to split, but none that training used
    code, _, err = vaelab(capsys, "evaluate", out)
    assert code == 1
    assert "vaelab classify evaluate" in err
    code, _, err = vaelab(capsys, "classify", "evaluate", out, "-d", str(bare))
    assert code == 1
    assert "no labels" in err


def test_a_run_of_a_vae_is_no_classifier_to_go_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "blobs.npz", str(tmp_path / "vae")
    np.savez(data, images=blobs(30), labels=np.arange(30) % 2)
    assert vaelab(capsys, "train", "vae", "-d", str(data), "-o", out, *QUICK)[0] == 0
    code, _, err = vaelab(capsys, "classify", "train", "--resume", "-o", out)
    assert code == 1
    assert "holds a VAE. Go on with: vaelab train --resume" in err
    code, _, err = vaelab(capsys, "evaluate", out, "--generation")
    assert code == 1
    assert "too few to compare with" in err
    assert "Training a reference" not in err  # which takes long


def test_all_of_other_images_are_measured_unless_they_name_a_test_part(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other, parts = str(tmp_path / "run"), tmp_path / "other.npz", tmp_path / "parts"
    arguments = ["-d", str(photos), "-o", path, *QUICK]
    assert vaelab(capsys, "classify", "train", *arguments)[0] == 0
    names = np.array(["left", "rare <&>", "right"])
    images = blobs(50, 37, 53, 3)
    np.savez(other, images=images, labels=np.arange(50) % 3, class_names=names)
    for number, pixels in enumerate(images.transpose(0, 2, 3, 1)):
        place = parts / ("train" if number < 43 else "test") / str(names[number % 3])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")

    def measured(*more: str) -> tuple[int, str]:
        code, text, err = vaelab(capsys, "classify", "evaluate", path, *more, "--json")
        assert code == 0, err
        assert "are the training images" not in err
        result = json.loads(text)
        return result["images"], result["figures"]["accuracy"]["protocol"]

    assert measured("-d", str(other)) == (
        50, f"Over 50 test images of {other} held out from training."
    )  # fmt: skip
    assert measured("-d", str(parts))[0] == 7
    assert measured("-d", str(other), "--split", "validation") == (
        5, f"Over 5 validation images of {other} held out from training."
    )  # fmt: skip
    assert measured() == (6, "Over 6 test images held out from training.")
    assert measured("-d", str(photos))[0] == 6  # some of the run's own were trained on
    assert "training used 48 of them" in measured("-d", str(photos), "--split", "train")[1]


def test_no_image_that_may_have_been_trained_on_is_called_held_out(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    path, parts = str(tmp_path / "run"), tmp_path / "parts"
    for number, file in enumerate(sorted(photos.rglob("*.png"))):
        place = parts / ("test" if number % 4 == 0 else "train") / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    arguments = ["-d", str(parts), "-o", path, *QUICK]
    assert vaelab(capsys, "classify", "train", *arguments)[0] == 0
    monkeypatch.setenv("HOME", str(tmp_path))

    def protocol(*more: str) -> str:
        code, text, err = vaelab(capsys, "classify", "evaluate", path, *more, "--json")
        assert code == 0, err
        return str(json.loads(text)["figures"]["accuracy"]["protocol"])

    assert "15 test images held out" in protocol()
    assert "15 test images of ~/parts held out" in protocol("--data=~/parts").replace(
        str(tmp_path), "~"
    )
    assert "15 test images" in protocol("-d", str(parts / "test"))
    assert "held out" in protocol("-d", str(parts / "test"))
    assert "held out" in protocol("-d", str(parts / "train" / ".."))
    assert "training used 40 of them" in protocol("-d", str(parts / "train"))
    seen = next((parts / "train").rglob("*.png"))
    shutil.copy(seen, parts / "test" / seen.parent.name / "new.png")
    assert "15 test images" in protocol("-d", str(parts))  # the copy is an image to train on
    strange = parts / "test" / seen.parent.name / "strange.png"
    Image.fromarray(255 - np.asarray(Image.open(seen))).save(strange)
    assert "Over 17 images" in protocol("-d", str(parts))
    assert "training used" in protocol("-d", str(parts))


def test_broken_images_can_be_left_out(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "run")
    arguments = ["-d", str(photos), "-o", path, *QUICK]
    assert vaelab(capsys, "classify", "train", *arguments)[0] == 0
    (photos / "left" / "zz.png").write_bytes(b"no picture")
    for command in (["predict", path, str(photos)], ["evaluate", path, "-d", str(photos)]):
        code, _, err = vaelab(capsys, "classify", *command)
        assert code == 1
        assert "Pass --skip-bad" in err
        code, _, err = vaelab(capsys, "classify", *command, "--skip-bad")
        assert code == 0, err


def test_few_images_are_passed_over_more_often(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "run")
    code, _, err = vaelab(
        capsys, "classify", "train", "-d", str(photos), "-o", path, "--device", "cpu",
        "--labelled", "20", "--batch-size", "1",
    )  # fmt: skip
    assert code == 0, err
    assert "20 images in batches of 1: 25 passes in place of 5" in err
    assert Run(path).last_epoch()["step"] == 500  # type: ignore[index]
    code, _, err = vaelab(capsys, "classify", "train", "cnn", "--resume", "-o", path)
    assert code == 1
    assert "holds a cnn-small" in err


def test_an_unfinished_classifier_is_said_to_be_one(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    path = str(tmp_path / "run")
    arguments = ["-d", str(photos), "-o", path, "--epochs", "3", *QUICK[2:]]
    with monkeypatch.context() as patch:
        patch.setattr("vaelab.training.loop.Trainer._over", lambda self: self.position.epoch >= 2)
        assert vaelab(capsys, "classify", "train", *arguments)[0] == 0
    state = Run(path).state_file
    tensors, meta = files.load_tensors(state)
    meta["position"]["finished"] = False
    files.save_tensors(state, tensors, meta)
    step = meta["position"]["step"]
    said = f"Training is not finished (2 of 3 epochs, step {step}): these are the weights of a "
    said += "checkpoint. Go on with: vaelab classify train --resume"
    assert said in vaelab(capsys, "classify", "evaluate", path)[1]
    assert said in Run(path).report_file.read_text()
