"""The command line: what it prints, what it refuses, and how."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from importlib.metadata import version
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
    assert "training used some or all" in figures["frechet"]["protocol"]
    assert "a mixture of 10 normals" in figures["frechet"]["protocol"]
    drawn = tmp_path / "class.npz"
    command = ["sample", str(trained), "--sampler", "pool", "--n", "4", "--out", str(drawn)]
    assert vaelab(capsys, *command, "--label", "2")[0] == 0
    assert np.load(drawn)["images"].shape == (4, 3, 37, 53)
    code, _, err = vaelab(capsys, *command, "--label", "nine")
    assert code != 0
    assert "there is no class 'nine'. Classes: 0, 1, 2." in err
    code, _, err = vaelab(capsys, "sample", str(trained), "--sampler", "prior", "--label", "2")
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
        (["train", "--channels", "0"], "data.channels"),
        (["train", "--channels", "2"], "images of grey cannot be made 2 channels"),
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


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert vaelab(capsys, "--version") == (0, f"vaelab {version('vaelab')}\n", "")


def test_a_run_is_not_written_among_other_files(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in (".lock", "a.png"):
        (photos / name).touch()
    given = ["--data", str(images), "--out", str(photos), *QUICK]
    for command in (["train"], ["classify", "train"], ["demo"]):
        code, _, err = vaelab(capsys, *command, *(given if command != ["demo"] else given[2:4]))
        assert code == 1
        assert "holds other files (such as a.png)" in err
    code, _, err = vaelab(capsys, "report", str(photos))
    assert code == 1
    assert "--out runs/NAME" in err  # not into photos
    assert {path.name for path in photos.iterdir()} == {".lock", "a.png"}
    (photos / "a.png").unlink()
    assert vaelab(capsys, "train", *given)[0] == 0  # a lock alone is no other file


def test_a_refused_training_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain.npy"
    np.save(plain, blobs(30))
    mine = tmp_path / "mine"
    mine.mkdir()
    for out in (tmp_path / "runs" / "new", mine):
        code, _, err = vaelab(
            capsys, "train", "cvae", "--data", str(plain), "--out", str(out), *QUICK
        )
        assert code == 1
        assert "needs labels" in err
    assert {path.name for path in tmp_path.iterdir()} == {"plain.npy", "mine"}


def test_a_loss_that_explodes_ends_with_a_line_and_no_model(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    given = ["--data", str(images), "--out", str(out), *QUICK, "--lr", "1e9", "--epochs", "3"]
    code, _, err = vaelab(capsys, "train", "vae", *given)
    assert code == 1
    assert "validation loss is not finite after step 9" in err
    assert "Try a lower learning rate (training.lr is 1e+09), training.clip=1" in err
    assert not (out / "model.safetensors").exists()
    code, _, err = vaelab(capsys, "sample", str(out))
    assert code == 1
    assert "no trained model" in err
    code, _, err = vaelab(capsys, "train", "--resume", "--out", str(out), "--epochs", "2")
    assert code == 1
    assert "not finite after step 6" in err


def test_few_steps_are_said_first(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    _, _, err = vaelab(capsys, "train", "ae", "--data", str(images), "--out", str(out), *QUICK)
    assert "48 images in batches of 16: 3 steps in all, few for a network; more --epochs" in err
    (tmp_path / "run").rename(tmp_path / "old")
    settings = [*QUICK, "--epochs", "200"]
    _, out_, err = vaelab(capsys, "train", "--dry-run", "--json", "--data", str(images), *settings)
    assert json.loads(out_)["steps"] == 600
    assert "steps in all" not in err
    blank = tmp_path / "blank.npy"
    np.save(blank, np.zeros((60, 8, 8), np.uint8))
    _, _, err = vaelab(capsys, "train", "ae", "--data", str(blank), "--out", str(out), *QUICK)
    said = f"reconstructions look alike. Try: vaelab train --resume --out {out} --epochs 167"
    assert said in err  # 3 steps, and 501 then
    _, printed, _ = vaelab(capsys, "evaluate", str(out))
    assert f"Noted before ({out}/log.jsonl): posterior collapse." in printed
    assert said not in printed


def test_data_is_found_from_another_folder(
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert vaelab(capsys, "train", "vae", "--data", images.name, *QUICK)[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = tmp_path / "runs" / "vae-spots"
    code, _, err = vaelab(capsys, "report", str(run))
    assert code == 0, err
    images.rename(tmp_path / "gone.npz")
    for command in (["report"], ["sample", "--sampler", "pool"]):
        code, _, err = vaelab(capsys, *command, str(run))
        assert code == 1
        assert "spots.npz: does not exist" in err
        assert "Run this in the folder where it was trained." in err
        assert "--data" not in err
    _, _, err = vaelab(capsys, "reconstruct", str(run))
    assert "name them with --data" in err
    _, _, err = vaelab(capsys, "edit", str(run), "--attribute", "width")
    assert "--data" not in err
    np.savez(images, images=blobs(65, 37, 53, 3), labels=np.arange(65) % 3)
    _, _, err = vaelab(capsys, "report", str(run))
    assert "Bring it back as it was." in err  # found, but not what it was trained on


def test_resuming_says_what_there_was(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resume = ["--resume", "--out", str(trained)]
    code, out, _ = vaelab(capsys, "train", *resume)
    assert code == 0
    assert out.startswith("vae: finished already, after 1 epoch in ")
    code, out, _ = vaelab(capsys, "train", *resume, "--epochs", "2")
    assert code == 0
    assert out.startswith("vae: 2 epochs in ")
    code, _, err = vaelab(capsys, "train", "cvae", *resume)
    assert code == 1
    assert "is a run of the recipe vae, not cvae" in err


def test_attributes_are_looked_for_before_measuring(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object, **__: object) -> None:
        raise AssertionError("measured first")

    monkeypatch.setattr("vaelab.evaluation.evaluate.evaluate", measured)
    code, _, err = vaelab(capsys, "evaluate", str(trained), "--attributes")
    assert code == 1
    assert "the images have no attributes" in err


def test_data_without_classes_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "plain.npy", blobs(1))
    _, out, err = vaelab(capsys, "data", str(tmp_path / "plain.npy"))
    assert ["classes", "none"] in [line.split() for line in out.splitlines()]
    assert "1 image is too few to hold any out" in err


def test_quiet_prints_nothing(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    assert vaelab(capsys, "train", "--data", str(images), "--out", out, *QUICK, "-q") == (0, "", "")
