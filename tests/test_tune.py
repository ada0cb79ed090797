"""The search for settings: what it proposes, keeps, ends early and takes up again."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

from tests.conftest import blobs
from vaelab.cli.main import run
from vaelab.config import read_yaml
from vaelab.errors import ConfigError, RunError
from vaelab.recipes import resolve
from vaelab.studies.tune import read_space, tune


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "spots.npy"
    np.save(path, blobs(120))
    return path


def space(images: Path, where: Mapping[str, Any] | None = None, **more: Any) -> Any:
    base = {
        "data": {"spec": str(images)},
        "model": {"encoder": {"widths": [4], "hidden": [8]}},
        "training": {"epochs": 3, "batch_size": 16, "device": "cpu", "precision": "fp32"},
    }
    declared = where or {
        "training.lr": {"low": 1e-4, "high": 3e-2, "log": True},
        "model.latent_dim": {"low": 1, "high": 4},
        "model.encoder.widths": [[4], [8, 8]],
    }
    return read_space({"title": "t", "base": base, "space": declared, **more}, "here", {})


def test_a_search_finds_settings_and_goes_on(images: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = tune(space(images), tmp_path / "s", 5, say=said.append)
    assert found.trials + found.pruned + found.failed == 5
    assert len(said) == 5
    assert 1e-4 <= found.config.training.lr <= 3e-2
    assert found.config.model.latent_dim in (1, 2, 3, 4)
    assert found.config.model.encoder.widths in ([4], [8, 8])
    kept = resolve(read_yaml(tmp_path / "s" / "best.yaml"))
    assert kept.training == found.config.training
    logged = [e["validation/elbo"] for e in found.run.read_log("epoch")]
    assert found.value == pytest.approx(max(logged))
    more = tune(space(images), tmp_path / "s", 6, say=said.append)
    assert len(said) == 6  # one more, none again
    assert more.value >= found.value


def test_the_same_seed_proposes_the_same(images: Path, tmp_path: Path) -> None:
    one, other = (tune(space(images), tmp_path / name, 3, seed=4) for name in "ab")
    assert one.value == other.value
    assert one.config == other.config


def test_bad_trials_end_early(images: Path, tmp_path: Path) -> None:
    where = {"training.lr": [0.003, 1e-9]}
    said: list[str] = []
    tune(space(images, where), tmp_path / "s", 8, say=said.append)
    ended = [text for text in said if "ended early" in text]
    assert ended
    assert all("1e-09" in text for text in ended)


def test_a_trial_whose_worker_died_goes_on_in_its_folder(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    tune(space(images), folder, 1)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    storage = optuna.storages.journal.JournalStorage(backend)
    study = optuna.load_study(study_name="t", storage=storage)
    dead = study.ask()
    dead.set_user_attr("run", "trial-0001")
    dead.set_user_attr("where", f"{platform.node()}:{folder.resolve()}")
    lr = dead.suggest_float("training.lr", 1e-4, 3e-2, log=True)
    dead.suggest_int("model.latent_dim", 1, 4)
    dead.suggest_categorical("model.encoder.widths", ["[4]", "[8, 8]"])
    said: list[str] = []
    found = tune(space(images), folder, 2, say=said.append)
    assert found.trials == 2
    assert len(said) == 1
    assert f"training.lr={lr}" in said[0]
    assert (folder / "runs" / "trial-0001" / "model.safetensors").exists()
    assert not (folder / "runs" / "trial-0002").exists()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"training.lr": {"low": 1, "high": 0.1}}, "low must be below high"),
        ({"training.lr": {"low": 0, "high": 0.1, "log": True}}, "above 0"),
        ({}, "name at least one"),
    ],
)
def test_spaces_that_cannot_be_are_named(where: dict[str, Any], message: str, images: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_space({"title": "t", "space": where}, "here", {})


def test_what_cannot_be_searched_is_named(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no trial was finished.*did you mean lr"):
        tune(space(images, {"training.lrr": [1, 2]}), tmp_path / "a", 1)
    with pytest.raises(ConfigError, match=r"no trial was finished.*no figure 'frechet'"):
        tune(space(images, lead="frechet"), tmp_path / "b", 1)
    with pytest.raises(ConfigError, match="'elboo' does not tell better from worse"):
        space(images, lead="elboo")
    with pytest.raises(RunError, match="holds another search"):
        tune(space(images), tmp_path / "b", 1)
    with pytest.raises(ConfigError, match="--storage"):
        tune(space(images), tmp_path / "c", 1, storage="nosuch://here/x")


def test_a_database_is_a_storage(images: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    assert tune(space(images), tmp_path / "s", 2, storage=url).trials == 2
    assert not (tmp_path / "s" / "journal.log").exists()


def test_the_command(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "space.yaml"
    declared = {"title": "t", "space": {"training.lr": {"low": 0.001, "high": 0.01}}}
    path.write_text(yaml.safe_dump(declared))
    settings = ["-s", "training.epochs=1", "-s", "model.encoder.widths=[4]"]
    with pytest.raises(SystemExit) as ended:
        run(
            [
                *("tune", str(path), "--trials", "2", "--data", str(images)),
                *("--out", str(tmp_path / "s"), *settings),
            ]
        )
    assert ended.value.code in (0, None)
    out = capsys.readouterr().out
    assert "Best validation elbo of 2 trials" in out
    assert "training.lr" in out
