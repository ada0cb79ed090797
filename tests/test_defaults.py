"""Settings that nobody named: what is chosen for which images, and that what is named stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vaelab
from tests.conftest import blobs
from tests.test_cli import vaelab as command
from vaelab.api import configure, settings_to_config
from vaelab.config import RunConfig
from vaelab.data.images import ImageSet, Splits
from vaelab.defaults import PRESETS, with_defaults
from vaelab.errors import ConfigError
from vaelab.recipes import resolved_options
from vaelab.training.run import Run

STEPS = PRESETS["base"].steps


def images(count: int, *shape: int, values: tuple[int, int] = (0, 256)) -> ImageSet:
    generator = torch.Generator().manual_seed(count)
    return ImageSet(torch.randint(*values, (count, *shape), generator=generator, dtype=torch.uint8))


def chosen(of: ImageSet, recipe: str = "vae", **settings: Any) -> RunConfig:
    return with_defaults(configure({**settings_to_config(settings), "recipe": recipe}), of)


@pytest.mark.parametrize(
    ("shape", "widths", "dim"),
    [
        ((1, 16, 16), [16, 32], 16),
        ((1, 28, 28), [16, 32, 64], 64),
        ((3, 32, 32), [16, 32, 64], 64),
        ((3, 64, 64), [16, 32, 64, 128], 64),
        ((3, 128, 96), [16, 32, 64, 128, 128], 128),
        ((1, 256, 256), [16, 32, 64, 128, 128, 128], 128),
    ],
)
def test_networks_halve_images_until_four_pixels_are_left(
    shape: tuple[int, int, int], widths: list[int], dim: int
) -> None:
    found = chosen(images(1100, *shape)).model
    assert found.encoder.widths == found.decoder.widths == widths
    assert (found.encoder.normalization, found.latent_dim) == ("batch", dim)
    left = min(shape[1:])
    for _ in widths:
        left = -(-left // 2)
    assert 3 <= left <= 6
    assert (found.likelihood, found.output, found.standardize) == ("gaussian", "sigmoid", True)


def test_small_and_few_images_get_small_models() -> None:
    assert chosen(images(400, 3, 1, 1)).model.encoder.kind == "mlp"
    assert chosen(images(400, 1, 5, 40)).model.encoder.kind == "mlp"
    assert chosen(images(80, 3, 64, 64)).model.latent_dim == 10
    assert chosen(images(2, 3, 64, 64)).model.latent_dim == 2


@pytest.mark.parametrize("count", [20, 33, 1524, 9_953, 55_000])
def test_a_training_has_about_so_many_steps(count: int) -> None:
    training = chosen(ImageSet(torch.zeros(count, 1, 8, 8, dtype=torch.uint8))).training
    steps = training.epochs * -(-count // training.batch_size)
    assert STEPS <= steps < 1.2 * STEPS or training.epochs == 2
    assert count % training.batch_size != 1
    assert (training.optimizer, training.schedule, training.lr) == ("muon", "cosine", 1.5e-2)


def test_images_in_black_and_white_are_bernoulli() -> None:
    binary = 255 * images(40, 1, 8, 8, values=(0, 2)).take(torch.arange(40))
    assert chosen(ImageSet(binary)).model.likelihood == "bernoulli"
    assert chosen(ImageSet(binary.expand(40, 3, 8, 8))).model.likelihood == "bernoulli"
    assert chosen(vaelab.load_data("mnist").train).model.likelihood == "gaussian"
    binary[3, 0, 2, 2] = 254
    assert chosen(ImageSet(binary)).model.likelihood == "gaussian"
    assert chosen(images(40, 1, 8, 8)).model.likelihood == "gaussian"
    assert chosen(images(40, 1, 8, 8), binarize="dynamic").model.likelihood == "bernoulli"


def test_what_is_named_stays() -> None:
    of = images(200, 3, 64, 64)
    named: dict[str, Any] = {"latent_dim": 3, "likelihood": "laplace", "epochs": 7, "lr": 0.5}
    named["batch_size"] = 9
    found = chosen(of, **named)
    assert (found.model.latent_dim, found.model.likelihood) == (3, "laplace")
    assert (found.training.epochs, found.training.lr, found.training.batch_size) == (7, 0.5, 9)
    plain = chosen(of, encoder={"widths": [8]}, optimizer="sgd")
    assert (plain.model.encoder.widths, plain.model.encoder.normalization) == ([8], "none")
    assert (plain.training.optimizer, plain.training.schedule) == ("sgd", "constant")
    assert chosen(of, "ae").model.posterior == "dirac"
    for recipe in ("vae-gan", "m2", "csvae", "classifier"):
        assert chosen(of, recipe) == configure({"recipe": recipe})
    for flow in ({"prior": "nsf"}, {"posterior": "flow"}):  # which would overfit by Muon
        training = chosen(of, **flow).training
        assert (training.optimizer, training.lr) == ("adamw", 3e-3)
    lonely = chosen(images(61, 1, 16, 16), batch_size=20)
    assert lonely.model.encoder.normalization == "group"


def test_classifications_weigh_by_the_likelihood_and_are_written_out() -> None:
    """Beside a Bernoulli as ever; beside a Gaussian by n/2 nats of error in place of 90."""
    of = images(400, 1, 24, 24)
    assert chosen(of, "cvae").options["asked"] == 0.0
    assert chosen(of, "cvae", likelihood="bernoulli").options["asked"] == 15.0
    assert chosen(of, "cvae", asked=3).options["asked"] == 3.0
    gaussian = configure({"recipe": "csvae", "model": {"likelihood": "gaussian"}})
    assert resolved_options(gaussian, 24 * 24)["edits"] == 16.0  # 24 · 24 / 36
    assert resolved_options(configure({"recipe": "csvae"}), 24 * 24)["edits"] == 5.0
    named = configure({"recipe": "csvae", "options": {"edits": 2}})
    assert resolved_options(named, 24 * 24)["edits"] == 2.0


def test_presets_choose_size_and_steps_and_what_is_named_stays() -> None:
    of = images(3200, 3, 64, 64)
    plain, base = chosen(of), chosen(of, preset="base")
    assert (plain.preset, base.preset) == (None, "base")
    assert (plain.model, plain.training) == (base.model, base.training)
    small, large = chosen(of, preset="small"), chosen(of, preset="large")
    assert small.model == base.model  # narrower networks are no faster to the same error
    assert large.model.encoder.widths == large.model.decoder.widths == [32, 64, 128, 256]
    assert [each.training.epochs for each in (small, base, large)] == [15, 60, 200]
    named = chosen(of, preset="large", epochs=3, encoder={"widths": [8]}, latent_dim=5)
    assert (named.training.epochs, named.model.encoder.widths) == (3, [8])
    assert named.model.latent_dim == 5
    with pytest.raises(ConfigError, match=r"preset: input should be 'small', 'base' or 'large'"):
        chosen(of, preset="huge")
    with pytest.raises(ConfigError, match="preset: `m2` has settings of its own"):
        chosen(of, "m2", preset="small")


def test_a_run_keeps_its_preset_and_another_begins_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", blobs(60, 16, 16, 3))
    run, data = str(tmp_path / "run"), ["--data", str(tmp_path / "x.npy"), "--device", "cpu"]
    words = ["train", *data, "--out", run, "--preset", "large"]
    code, _, err = command(capsys, *words, "--epochs", "1")
    assert code == 0, err
    config = Run(run).read_config()
    assert (config.preset, config.model.encoder.widths) == ("large", [32, 64])
    again = ["train", "--resume", "--out", run, "--epochs", "2"]
    code, _, err = command(capsys, *again, "--preset", "small")
    assert (code, "preset is 'small', but the weights were trained with 'large'" in err) == (
        1,
        True,
    )
    code, _, err = command(capsys, *again)
    assert (code, Run(run).read_config().preset) == (0, "large"), err
    start = ["train", "--from", run, *data, "--out", str(tmp_path / "next"), "--epochs", "1"]
    code, _, err = command(capsys, *start, "--preset", "small")
    assert (code, "chooses networks, and these are the run's" in err) == (1, True)
    code, _, err = command(capsys, *start)
    assert code == 0, err
    following = Run(tmp_path / "next").read_config()
    assert (following.preset, following.model) == (None, config.model)


def test_a_run_writes_what_was_chosen_and_goes_on_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", blobs(60, 16, 16, 3))
    run = tmp_path / "run"
    words = ["--data", str(tmp_path / "x.npy"), "--out", str(run), "--device", "cpu"]
    code, _, err = command(capsys, "train", *words, "--epochs", "1")
    assert code == 0, err
    config = Run(run).read_config()
    assert config.model.encoder.widths == [16, 32]
    assert config.model.standardize
    code, _, err = command(capsys, "train", "--resume", *words, "--epochs", "2")
    assert code == 0, err
    assert Run(run).read_config().model == config.model
    code, out, _ = command(capsys, "--json", "train", "--dry-run", *words[:2])
    assert json.loads(out)["config"]["training"]["epochs"] == STEPS // 2


def test_two_images_train(tmp_path: Path) -> None:
    two = images(2, 3, 37, 53)
    model = vaelab.train("vae", Splits("two", two, two, two, held_out=False), epochs=2)
    assert model.sample(3).shape == (3, 3, 37, 53)


def test_a_run_keeps_the_size_that_was_chosen_for_images_of_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, side in enumerate([20, 24, 28, 36, 40, 44] * 6):
        picture = Image.fromarray(blobs(1, side, side, 3)[0].transpose(1, 2, 0))
        place = tmp_path / ("few" if number < 4 else "all") / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        picture.save(place)
    run, data = str(tmp_path / "run"), str(tmp_path / "all")
    words = ["train", "--data", data, "--out", run, "--device", "cpu"]
    code, _, err = command(capsys, *words, "--epochs", "1")
    assert code == 0, err
    assert "sizes, with shorter sides of 20 to 44 pixels: all are fitted to 36×36 (pad)" in err
    config = Run(run).read_config()
    assert config.data.size == [36, 36]
    code, _, err = command(capsys, *words, "--epochs", "2", "--resume")
    assert (code, "sizes" in err) == (0, False), err
    assert Run(run).read_config().data == config.data
    code, _, err = command(capsys, "evaluate", run, "--data", str(tmp_path / "few"))
    assert code == 0, err  # whose own middle is another
