"""Training that starts from the weights of another run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaelab
from tests.conftest import SMALL, blobs
from tests.test_cli import vaelab as command
from vaelab.api import configure
from vaelab.data.load import load_data
from vaelab.errors import ConfigError, DataError, RunError
from vaelab.files import checksum
from vaelab.training.loop import Trainer
from vaelab.training.progress import Silent
from vaelab.training.run import Run
from vaelab.training.start import take_weights

STILL: dict[str, Any] = {"lr": 1e-30, "epochs": 1}  # Adam moves a weight by lr at most


def saved(path: Path, count: int, labels: list[int], names: str, seed: int = 0) -> Path:
    chance = np.random.default_rng(seed)
    images = np.roll(blobs(count), chance.integers(0, 9), -1)
    drawn = np.array(labels)[chance.integers(0, len(labels), count)]
    np.savez(path, images=images, labels=drawn, class_names=np.array(list(names)))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("start")


@pytest.fixture(scope="module")
def one(folder: Path) -> Path:
    return saved(folder / "one.npz", 60, [0, 1, 2], "abc")


@pytest.fixture(scope="module")
def conditional(folder: Path, one: Path) -> Path:
    vaelab.train("cvae", one, folder / "cvae", **{**SMALL, "latent_dim": 3})
    return folder / "cvae"


def test_all_weights_are_taken_and_nothing_else(folder: Path, one: Path) -> None:
    network = {**SMALL["encoder"], "normalization": "batch"}
    first = vaelab.train(
        "vae",
        one,
        folder / "normal",
        **{**SMALL, "encoder": network, "likelihood": "gaussian-scalar"},
    )
    two = saved(folder / "two.npz", 40, [0], "z", 3)
    second = vaelab.train(None, two, folder / "normal-2", start=folder / "normal", **STILL, ema=0.9)
    for name, value in first.state_dict().items():  # σ among them
        got = second.state_dict()[name]
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(got, value, atol=1e-6), name
    seen = Run(folder / "normal-2").read_config()
    assert seen.start is not None
    assert (seen.start.run, seen.start.weights) == (
        str(folder / "normal"),
        checksum(folder / "normal" / "model.safetensors"),
    )
    assert seen.training.lr == 1e-30
    assert seen.training.batch_size == SMALL["batch_size"]
    assert seen.model == Run(folder / "normal").read_config().model


def test_running_means_go_on_from_where_they_were(folder: Path, one: Path) -> None:
    network = {**SMALL["encoder"], "normalization": "batch"}
    first = vaelab.train("vae", one, folder / "means", **{**SMALL, "encoder": network})
    config = configure({"training": {"epochs": 1}}, None, None, Run(folder / "means"))
    trainer = Trainer(config, load_data(one), Silent())
    fresh = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert config.start is not None
    take_weights(trainer.model, config.start)
    means = [name for name in fresh if name.endswith("running_mean")]
    assert means
    for name in means:
        assert not torch.equal(fresh[name], first.state_dict()[name])
        assert torch.equal(trainer.model.state_dict()[name], first.state_dict()[name])


def test_it_is_better_from_the_start(
    folder: Path, one: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {**SMALL, "epochs": 25, "lr": 3e-3}
    vaelab.train("vae", one, folder / "long", **settings)
    out = str(folder / "goes-on")
    code, _, err = command(
        capsys, "train", "--from", str(folder / "long"), "--lr", "1e-4", "--epochs", "1",
        "--out", out,
    )  # fmt: skip
    assert code == 0, err
    last = Run(folder / "long").read_log("epoch")[-1]["validation/elbo"]
    new = Run(out).read_log("epoch")[-1]["validation/elbo"]
    untrained = Run(folder / "long").read_log("epoch")[0]["validation/elbo"]
    assert new == pytest.approx(last, abs=0.5)
    assert last - untrained > 3
    assert Run(out).read_config().data.spec == str(one)  # as it was


def test_resuming_does_not_need_the_run(folder: Path, one: Path) -> None:
    vaelab.train("vae", one, folder / "gone", **SMALL)
    vaelab.train(None, None, folder / "heir", start=folder / "gone", epochs=1)
    shutil.rmtree(folder / "gone")
    vaelab.train(None, None, folder / "heir", resume=True, epochs=2)
    assert Run(folder / "heir").read_log("epoch")[-1]["epoch"] == 2
    again = Run(folder / "heir").read_config().model_dump()
    with pytest.raises(RunError, match="gone is not there"):
        vaelab.train(None, None, folder / "other", config=again)
    assert vaelab.load(folder / "heir").shape == (1, 12, 10)


def test_other_weights_than_recorded_are_refused(folder: Path, one: Path) -> None:
    vaelab.train("vae", one, folder / "changed", **SMALL)
    config = configure({}, None, None, Run(folder / "changed"))
    shutil.rmtree(folder / "changed")
    vaelab.train("vae", one, folder / "changed", **{**SMALL, "lr": 0.01})
    with pytest.raises(RunError, match="has other weights now"):
        vaelab.train(None, None, None, config=config.model_dump())


def test_classes_go_by_name(folder: Path, conditional: Path) -> None:
    other = saved(folder / "cb.npz", 40, [0, 1], "cb", 5)
    model = vaelab.train(None, other, folder / "cb", start=conditional, **STILL)
    config = Run(folder / "cb").read_config()
    splits = load_data(other)
    trainer = Trainer(config, splits, Silent())
    assert trainer.images.class_names == ("a", "b", "c")
    assert splits.train.labels is not None
    assert trainer.images.labels is not None
    assert trainer.images.labels.tolist() == [2 - k for k in splits.train.labels.tolist()]
    codes, old = torch.zeros(1, 3), vaelab.load(conditional)
    assert torch.allclose(
        model.generate(codes, label="c"), old.generate(codes, label="c"), atol=1e-6
    )
    with pytest.raises(DataError, match=r"--from .*class 'd' is none that this model knows"):
        vaelab.train(
            None, saved(folder / "d.npz", 40, [0, 1], "ad"), None, start=conditional, epochs=1
        )


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ([0, 2], "Class b has no training image here: what the weights know of it may be lost."),
        ([1], "Classes a, c have no training image here: what the weights know of them may be"),
        ([0, 1, 2], ""),
    ],
)
def test_classes_of_the_weights_without_an_image_are_said(
    folder: Path, conditional: Path, labels: list[int], note: str
) -> None:
    other = saved(folder / "lost.npz", 40, labels, "abc", 5)
    out = folder / f"lost-{labels}"
    vaelab.train(None, other, out, start=conditional, **STILL)
    said = [str(each["text"]) for each in Run(out).read_log("note")]
    wrong = [each for each in said if "weights know" in each or "no labels" in each]
    assert [each[: len(note)] for each in wrong] == ([note] if note else [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 4}, "model.latent_dim is 4, and the weights are of a model with 3"),
        ({"likelihood": "gaussian"}, "model.likelihood is 'gaussian'"),
        ({"encoder": {"widths": [8]}}, "model.(de|en)coder.widths"),
        ({"size": 20}, r"data.size is \[20, 20\], and the weights are of a model with \[12, 10\]"),
        ({"channels": 3}, "data.channels is 3"),
        ({"recipe": "classifier"}, "recipe is 'classifier'"),
        ({"binarize": "dynamic"}, "data.binarize"),
    ],
)
def test_what_does_not_fit_is_named(
    conditional: Path, settings: dict[str, Any], message: str
) -> None:
    recipe = settings.pop("recipe", None)
    with pytest.raises(ConfigError, match=message):
        vaelab.train(recipe, None, None, start=conditional, **settings)


def test_weights_of_another_recipe_fit_or_say_so(
    folder: Path, one: Path, conditional: Path
) -> None:
    vaelab.train("vae", one, folder / "plain", **{**SMALL, "latent_dim": 3})
    model = vaelab.train("beta-vae", None, None, start=folder / "plain", beta=2.0, **STILL)
    plain = vaelab.load(folder / "plain").state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(value, plain[name], atol=1e-6)
    with pytest.raises(RunError, match="weights do not fit this model"):
        vaelab.train("vae", None, None, start=conditional, epochs=1)


def test_images_of_another_size_are_fitted(folder: Path, conditional: Path) -> None:
    large = folder / "large.npz"
    np.savez(large, images=blobs(30, 24, 20, 3), labels=np.arange(30) % 3,
             class_names=np.array(list("abc")))  # fmt: skip
    model = vaelab.train(None, large, None, start=conditional, **STILL)
    assert model.shape == (1, 12, 10)


def test_a_classifier_goes_on(folder: Path, one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = str(folder / "c"), str(folder / "c2")
    given = ["--data", str(one), "--device", "cpu"]
    command(capsys, "classify", "train", *given, "--epochs", "2", "--out", first)
    code, _, err = command(
        capsys, "classify", "train", "--from", first, "--lr", "1e-30", "--epochs", "1",
        "--out", second,
    )  # fmt: skip
    assert code == 0, err
    old, new = (Run(path).load_classifier().state_dict() for path in (first, second))
    for name, value in old.items():
        if name != "temperature" and "running" not in name and "num_batches" not in name:
            assert torch.allclose(new[name], value, atol=1e-6), name
    code, _, err = command(capsys, "classify", "train", "--resume", "--out", first, "--lr", "0.1")
    assert code == 1
    assert f"vaelab classify train --from {first}" in err
    code, _, err = command(capsys, "train", "--resume", "--from", first, "--out", second)
    assert code == 1
    assert "Pass one of them" in err


def test_a_classifier_of_partly_labelled_images_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is said before the first step is no entry of another run."""
    data = saved(folder / "partly.npz", 60, [0, 1, -1], "ab", 7)
    out = folder / "partly"
    given = ("cnn-small", "--data", str(data), "--out", str(out), "--epochs", "1")
    assert command(capsys, "classify", "train", *given)[0] == 0
    said = [str(note["text"]) for note in Run(out).read_log("note")]
    assert any("a classifier learns from no others" in text for text in said)
