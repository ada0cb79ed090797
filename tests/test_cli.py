"""The command line: what it prints, what it refuses, and how."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import blobs
from vaelab.cli.main import run as run_cli

PROGRAM = Path(sys.executable).parent / "vaelab"
QUICK = ["-s", "model.encoder.widths=[4]", "--batch-size", "16", "--epochs", "1", "--device", "cpu"]


def vaelab(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_cli([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "spots.npz"
    np.savez(path, images=blobs(60, 37, 53, 3), labels=np.arange(60) % 3)
    return path


@pytest.fixture
def trained(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "run"
    code, _, err = vaelab(
        capsys,
        "train",
        "vae",
        "--data",
        str(images),
        "--out",
        str(out),
        "--latent-dim",
        "3",
        *QUICK,
    )
    assert code == 0, err
    return out


def test_help_answers_at_once() -> None:
    def used() -> float:  # processor time: a busy machine must not fail the test
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(3):
        before = used()
        subprocess.run([PROGRAM, "--help"], check=True, capture_output=True)
        times.append(used() - before)
    assert min(times) < 0.5


def test_help_does_not_import_torch() -> None:
    code = "import sys, vaelab.cli.main; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_command_on_a_run(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = vaelab(capsys, "--json", "evaluate", str(trained), "--samples", "20")
    assert code == 0, err
    figures = json.loads(out)["figures"]
    assert figures["elbo"]["value"] == pytest.approx(
        -figures["rate"]["value"] - figures["distortion"]["value"], rel=1e-6
    )
    for command, more in {
        "sample": ["--n", "5"],
        "reconstruct": ["--n", "4"],
        "interpolate": ["--to", "3", "--how", "spherical"],
        "traverse": ["--image", "1"],
    }.items():
        made = tmp_path / f"{command}.png"
        code, out, err = vaelab(capsys, command, str(trained), *more, "--out", str(made))
        assert code == 0, err
        assert made.read_bytes().startswith(b"\x89PNG")
        assert str(made) in out
    arrays = tmp_path / "samples.npz"
    assert vaelab(capsys, "sample", str(trained), "--n", "5", "--out", str(arrays))[0] == 0
    assert np.load(arrays)["images"].shape == (5, 3, 37, 53)
    codes = tmp_path / "codes.csv"
    assert vaelab(capsys, "encode", str(trained), "--split", "train", "--out", str(codes))[0] == 0
    assert len(codes.read_text().splitlines()) == 49
    assert vaelab(capsys, "report", str(trained))[0] == 0
    assert (trained / "report.html").stat().st_size > 10_000


def test_generated_images_are_compared_and_drawn_by_class(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path / "cache"))
    few = vaelab(capsys, "evaluate", str(trained), "--samples", "5", "--generation")
    assert few[0] != 0
    assert "6 images are too few" in few[2]
    command = ["--json", "evaluate", str(trained), "--samples", "5", "--split", "train"]
    code, out, err = vaelab(capsys, *command, "--generation", "--sampler", "gmm")
    assert code == 0, err
    figures = json.loads(out)["figures"]
    assert "frechet_floor" not in figures  # these are the training images
    assert "that training used" in figures["frechet"]["protocol"]
    assert "a mixture of 10 normals" in figures["frechet"]["protocol"]
    drawn = tmp_path / "class.npz"
    command = ["sample", str(trained), "--sampler", "pool", "--n", "4", "--out", str(drawn)]
    assert vaelab(capsys, *command, "--label", "2")[0] == 0
    assert np.load(drawn)["images"].shape == (4, 3, 37, 53)
    code, _, err = vaelab(capsys, *command, "--label", "nine")
    assert code != 0
    assert "there is no class 'nine'. Classes: 0, 1, 2." in err
    code, _, err = vaelab(capsys, "sample", str(trained), "--label", "2")
    assert "the prior knows no classes; use the sampler gmm, flow or pool" in err


def test_other_images_are_fitted_to_the_model(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.npy"
    np.save(other, blobs(30, 20, 20))
    code, _, err = vaelab(capsys, "evaluate", str(trained), "--data", str(other), "--samples", "5")
    assert code == 0, err


def test_figures_of_other_images_are_not_kept_as_the_runs(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vaelab(capsys, "evaluate", str(trained), "--samples", "5")[0] == 0
    before = (trained / "evaluation.json").read_bytes()
    for split, begins in (("validation", "Validation ELBO"), ("train", "Training-set ELBO")):
        _, out, _ = vaelab(capsys, "evaluate", str(trained), "--samples", "5", "--split", split)
        assert out.startswith(begins)
    other = tmp_path / "other.npy"
    np.save(other, blobs(30, 20, 20))
    _, out, _ = vaelab(capsys, "evaluate", str(trained), "--data", str(other), "--samples", "5")
    assert " of " in out.splitlines()[0]
    assert "other" in out.splitlines()[0]
    assert (trained / "evaluation.json").read_bytes() == before


def test_images_that_changed_are_not_measured_as_held_out(
    trained: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(images, images=blobs(65, 37, 53, 3), labels=np.arange(65) % 3)
    for command in ("evaluate", "report", "reconstruct"):
        code, _, err = vaelab(capsys, command, str(trained))
        assert code == 1
        assert "has changed since" in err


def test_dry_run_writes_nothing(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = vaelab(capsys, "train", "--dry-run", "--data", str(images), *QUICK, "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["images"] == {"train": 48, "validation": 6, "test": 6, "shape": [3, 37, 53]}
    assert facts["steps"] == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_runs_are_numbered_when_no_folder_is_named(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert vaelab(capsys, "train", "ae", "--data", str(images), *QUICK, "-q")[0] == 0
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"ae-spots", "ae-spots-2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "nowhere"], "nowhere: does not exist"),
        (["train", "bvae"], "Did you mean vae"),
        (["train", "ae", "--beta", "2"], "beta is unknown"),
        (["train", "-s", "training.epoch=2"], "did you mean epochs"),
        (["train", "-s", "epochs"], "expected key=value"),
        (["train", "--optimizer", "adan"], "training.optimizer"),
        (["train", "--size", "big"], "give N or HEIGHTxWIDTH"),
        (["train", "--size", "0"], "size"),
        (["train", "--channels", "2"], "data.channels"),
        (["train", "--resume"], "--out runs/NAME"),
        (["train", "--resume", "--out", "nothing"], "is no run"),
        (["train", "-c", "none.yaml"], "none.yaml: cannot be read"),
        (["train", "--device", "warp"], "device: 'warp' is not usable"),
        (["evaluate", "nothing"], "is no run"),
        (["sample", "nothing", "--n", "0"], "--n"),
        (["frobnicate"], "No such command"),
    ],
)
def test_mistakes_get_a_line_and_no_traceback(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = vaelab(capsys, *arguments)
    assert code in (1, 2)
    assert message in err
    assert "Traceback" not in err + out
    assert not list(tmp_path.rglob("*.safetensors"))


def test_mistakes_on_a_run_get_a_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["sample", str(trained), "--out", "x.gif"], "x.gif: cannot write '.gif'"),
        (["interpolate", str(trained), "--to", "99"], "--to 99: there are 6 images"),
        (["encode", str(trained), "--split", "exam"], "choose train, validation or test"),
        (["interpolate", str(trained), "--how", "crooked"], "choose linear or spherical"),
        (["train", "--out", str(trained)], "already holds a run"),
    ):
        code, _, err = vaelab(capsys, *arguments)
        assert code == 1
        assert message in err, err


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = vaelab(capsys, "evaluate", "nothing", "--debug")
    assert "Traceback" in err
    assert "RunError" in err


def test_quiet_prints_nothing(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert vaelab(capsys, "train", "--data", str(images), "--out", out, *QUICK, "-q") == (0, "", "")
