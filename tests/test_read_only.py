"""A run that may only be read can be used: figures are printed, files go where --out says."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vaelab
from tests.conftest import SMALL, blobs
from tests.test_cli import PROGRAM
from tests.test_cli import vaelab as command


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "spots.npz"
    names = np.array(["left", "right"])
    np.savez(path, images=blobs(60), labels=np.arange(60) % 2, class_names=names)
    return path


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "vae"
    vaelab.train("vae", images, out, **SMALL)
    return out


@pytest.fixture
def sealed(run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The run, in which nothing can be written."""
    opened = os.open

    def refuse(path: str | Path, flags: int, *more: int, **also: int) -> int:
        inside = isinstance(path, (str, os.PathLike)) and Path(path).is_relative_to(run)
        if inside and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *more, **also)

    def no_folder(path: str | Path, *more: int, **also: int) -> None:
        if Path(path).is_relative_to(run) and not Path(path).exists():
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        made(path, *more, **also)

    made = os.mkdir
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "mkdir", no_folder)
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    yield run
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before


def test_figures_are_printed_and_out_is_named(
    sealed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = command(capsys, "evaluate", str(sealed))
    assert code == 0
    assert "ELBO" in out
    assert "may only be read" in err
    assert "--out" in err
    place = tmp_path / "figures.json"
    code, out, err = command(capsys, "--json", "evaluate", str(sealed), "--out", str(place))
    assert code == 0, err
    assert json.loads(place.read_text())["figures"] == json.loads(out)["figures"]

    given = ["score", str(sealed), "--steps", "2", "--draws", "2"]
    code, out, err = command(capsys, *given)
    assert code == 0
    assert "regret" in out
    assert "--out" in err
    assert command(capsys, *given, "--out", str(tmp_path / "odd.csv"))[0] == 0
    assert (tmp_path / "odd.html").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "page.html"),
        ("explore", "page.html"),
        ("sample", "a.png"),
        ("reconstruct", "a.png"),
        ("interpolate", "a.png"),
        ("traverse", "a.png"),
        ("encode", "a.csv"),
    ],
)
def test_files_go_where_out_says(
    sealed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str]
) -> None:
    name, place = arguments
    code, _, err = command(capsys, name, str(sealed))
    assert code == 1
    assert "may only be read" in err
    assert "--out" in err
    assert ".part" not in err
    code, _, err = command(capsys, name, str(sealed), "--out", str(tmp_path / place))
    assert code == 0, err
    assert (tmp_path / place).stat().st_size > 0


def test_a_classifier_is_measured(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, place = tmp_path / "c", tmp_path / "figures.json"
    given = ["--data", str(images), "--epochs", "1", "--device", "cpu", "--out", str(run)]
    assert command(capsys, "classify", "train", *given)[0] == 0
    code, _, err = command(capsys, "classify", "evaluate", str(run), "--out", str(place))
    assert code == 0, err
    assert place.exists()
    assert place.with_suffix(".html").exists()
    assert not (run / "evaluation.json").exists()


def test_figures_are_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = command(capsys, "evaluate", str(run), "--out", "figures.csv")
    assert code == 1
    assert "ends in .json" in err


def test_a_folder_without_the_right_to_write(run: Path) -> None:
    drop = [] if os.geteuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    try:
        if drop:
            subprocess.run([*drop, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("root cannot give up its rights here")
    kept = {path: path.stat().st_mode for path in (run, *run.rglob("*"))}
    try:
        for path, mode in kept.items():
            path.chmod(mode & ~0o222)
        given = [*drop, str(PROGRAM), "evaluate", str(run)]
        found = subprocess.run(given, capture_output=True, text=True, check=False)
    finally:
        for path, mode in kept.items():
            path.chmod(mode)
    assert found.returncode == 0, found.stderr
    assert "ELBO" in found.stdout
    assert "may only be read" in found.stderr
