"""A training that ends worse than it began says so; one that is short, small or overfit is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vaelab
from tests.conftest import SMALL, blobs
from tests.test_cli import vaelab as command
from vaelab.data.images import Splits
from vaelab.data.load import load_data
from vaelab.errors import TrainingError
from vaelab.training.divergence import is_worse
from vaelab.training.progress import Silent
from vaelab.training.run import Run


def few(count: int) -> Splits:
    noise = np.random.default_rng(5).integers(0, 50, (count, 1, 12, 10))
    images = np.clip(blobs(count).astype(int) + noise, 0, 255).astype(np.uint8)
    return load_data((images, np.arange(count) % 2))


class Said(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def say(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("recipe", ["vae", "ae", "m2", "cvae", "vae-gan", "aae"])
@pytest.mark.parametrize("count", [12, 60])
def test_a_short_honest_training_has_not_diverged(recipe: str, count: int) -> None:
    vaelab.train(recipe, few(count), **{**SMALL, "epochs": 1})


@pytest.mark.parametrize("recipe", ["vae", "ae", "m2", "vae-gan"])
def test_too_high_a_learning_rate_is_told(recipe: str) -> None:
    with pytest.raises(TrainingError, match=r"diverged.*lower learning rate \(training.lr is 3\)"):
        vaelab.train(recipe, few(60), **{**SMALL, "epochs": 3, "lr": 3.0})


def test_the_run_says_it_and_can_be_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = tmp_path / "set.npz", tmp_path / "run"
    images = blobs(60)
    np.savez(path, images=images)
    given = ["--data", str(path), "--out", str(run), "--lr", "3", "--device", "cpu"]
    code, _, err = command(
        capsys, "train", "vae", *given, "--epochs", "2", "-s", "model.encoder.widths=[4]"
    )
    assert code == 1
    assert "Training has diverged. The validation ELBO was" in err
    assert f"kept in {run}" in err
    assert len(Run(run).diverged()) == 1
    code, out, _ = command(capsys, "evaluate", str(run))
    assert code == 0
    assert "Training has diverged" in out
    assert command(capsys, "report", str(run))[0] == 0
    assert "Training has diverged" in (run / "report.html").read_text()
    for _ in range(2):  # and again, of a run that is finished; the log says it once
        code, _, err = command(capsys, "train", "--resume", "--out", str(run))
        assert code == 1
        assert "diverged" in err
    assert len(Run(run).diverged()) == 1


def test_a_classifier_that_diverged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, run = tmp_path / "set.npz", tmp_path / "run"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (60, 12, 10), np.uint8),
             labels=np.arange(60) % 2)  # fmt: skip
    code, _, err = command(
        capsys, "classify", "train", "--data", str(path), "--out", str(run), "--lr", "100",
        *("--epochs", "2", "--device", "cpu"),
    )  # fmt: skip
    assert code == 1
    assert "validation loss was" in err


def test_overfitting_is_a_note() -> None:
    chance = np.random.default_rng(2)
    images = chance.choice([0, 255], (40, 1, 6, 6)).astype(np.uint8)  # nothing in common
    said = Said()
    network: dict[str, Any] = {"kind": "mlp", "hidden": [128], "activation": "tanh"}
    settings = {"encoder": network, "latent_dim": 20, "epochs": 400, "lr": 1e-2}
    vaelab.train("ae", load_data(images), progress=said, **{**SMALL, **settings})
    assert any("the model overfits" in note for note in said.notes), said.notes


@pytest.mark.parametrize(
    ("before", "after", "adversarial", "expected"),
    [
        ({"loss": 50.0, "elbo": -50.0}, {"loss": 53.0, "elbo": -53.0}, False, True),
        ({"loss": 50.0, "elbo": -50.0}, {"loss": 51.9, "elbo": -51.9}, False, False),  # the error
        ({"loss": 50.0, "elbo": -50.0}, {"loss": 53.0, "elbo": -49.0}, False, False),
        ({"loss": 50.0, "elbo": -50.0}, {"loss": 20.0, "elbo": -68.0}, False, False),  # capacity
        ({"loss": 0.1, "elbo": -53.0}, {"loss": 5.0, "elbo": -56.0}, True, False),  # a VAE-GAN
        ({"loss": 0.1, "elbo": -53.0}, {"loss": 0.0, "elbo": -80.0}, True, True),
        ({"loss": 50.0, "distortion": 50.0}, {"loss": 70.0, "distortion": 70.0}, True, True),
        ({"loss": 3.0, "accuracy": 0.5}, {"loss": 9.0, "accuracy": 0.9}, False, False),
        ({"loss": 3.0, "accuracy": 0.5}, {"loss": 9.0, "accuracy": 0.5}, False, True),
        ({"loss": 50.0, "elbo": -50.0}, {"loss": np.inf, "elbo": -np.inf}, False, True),
        ({}, {"loss": 3.0}, False, False),
    ],
)
def test_worse(
    before: dict[str, float], after: dict[str, float], adversarial: bool, expected: bool
) -> None:
    known = {**before, "error": 2.0} if before else {}
    assert is_worse(known, {**after, "error": 1e9}, adversarial, 500) is expected


def test_a_training_of_few_steps_has_to_be_worse_by_more() -> None:
    before = {"loss": 50.0, "elbo": -50.0, "error": 2.0}
    for loss, steps, expected in ((60.0, 99, False), (60.0, 100, True), (63.0, 5, True)):
        assert is_worse(before, {"loss": loss, "elbo": -loss}, False, steps) is expected


def test_images_of_one_colour_that_are_known_at_once_have_not_diverged() -> None:
    white = load_data(np.full((40, 12, 10), 255, np.uint8))
    vaelab.train("vae", white, **{**SMALL, "epochs": 1})
