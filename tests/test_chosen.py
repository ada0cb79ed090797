"""Images named on the command line: all of them, which is which, and one by its name."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import vaelab
from tests.test_cli import vaelab as command
from vaelab.data.gathered import gathered, whole
from vaelab.data.images import ImageSet
from vaelab.data.load import load_data
from vaelab.files import csv_text
from vaelab.training.run import Run

SIZE = (21, 17)  # width, height


def drawn(path: Path, number: int, size: tuple[int, int] = SIZE, mode: str = "RGB") -> Path:
    """Write an image of a line whose place and colour are those of a number."""
    chance = np.random.default_rng(number)
    image = Image.new("RGB", size, (10, 20, 30))
    ends = [int(value) for value in chance.integers(0, min(size), 4)]
    ImageDraw.Draw(image).line(ends, fill=tuple(chance.integers(90, 255, 3).tolist()), width=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number in range(48):
        drawn(root / ("fern", "=moss")[number % 2] / f"{number:03}.png", number)
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "vae"
    vaelab.train("vae", photos, out, encoder={"widths": [4]}, epochs=1, batch_size=16, latent_dim=3)
    return out


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("others")
    for number in range(30):
        drawn(root / ("fern", "ivy")[number % 2] / f"-{number:02}.png", 900 + number)
    return root


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]


def test_every_other_image_is_encoded_under_its_name(
    run: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, arrays = tmp_path / "codes.csv", tmp_path / "codes.npz"
    for out in (table, arrays):
        code, _, err = command(capsys, "encode", str(run), "--data", str(others), "--out", str(out))
        assert code == 0, err
    model = vaelab.load(run)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == sorted(
        str(path.relative_to(others)) for path in others.rglob("*.png")
    )
    assert {row["label"] for row in rows} == {"fern", "ivy"}
    for row in (rows[0], rows[17], rows[29]):
        assert row["label"] == row["file"].split("/")[0]
        mean = model.posterior(pixels(others / row["file"]))[0][0]
        got = [float(row[f"mu_{d}"]) for d in range(3)]
        assert got == pytest.approx(mean.tolist(), abs=1e-5)
    with np.load(arrays, allow_pickle=False) as file:
        assert file["files"].tolist() == [row["file"] for row in rows]
        assert file["labels"].tolist() == [row["label"] for row in rows]


def test_a_part_and_a_runs_own_images_are_encoded_with_names(
    run: Path, photos: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "codes.csv"
    assert command(capsys, "encode", str(run), "--out", str(out))[0] == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    test = load_data(photos).test
    assert test.names is not None
    names = list(test.names)
    assert [row["file"] for row in rows] == ["'" * name.startswith("=") + name for name in names]
    assert any(name.startswith("=moss/") for name in names)  # and a spreadsheet would run it
    assert all(row["file"][0] not in "=+-@" and row["label"][0] not in "=+-@" for row in rows)
    assert command(
        capsys, "encode", str(run), "--data", str(others), "--split", "test", "--out", str(out)
    )[0] == 0  # fmt: skip
    assert len(out.read_text().splitlines()) == 1 + 3  # a tenth of 30


def test_rows_of_an_array_have_numbers(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(3).integers(0, 255, (25, 17, 21, 3), np.uint8)
    names = np.array(["+a", "b", "c"])
    labels = np.arange(25) % 3
    np.savez(tmp_path / "set.npz", images=images, labels=labels, class_names=names)
    out = tmp_path / "codes.csv"
    code, _, err = command(
        capsys, "encode", str(run), "--data", str(tmp_path / "set.npz"), "--out", str(out)
    )
    assert code == 0, err
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(k) for k in range(25)]
    assert [row["label"] for row in rows[:4]] == ["'+a", "b", "c", "'+a"]


def test_parts_come_together_in_the_order_of_the_source(tmp_path: Path) -> None:
    for number in range(14):
        drawn(tmp_path / ("train", "test")[number % 3 == 0] / "x" / f"{number:02}.png", number)
    every = whole(load_data(tmp_path))
    paths = sorted(tmp_path.rglob("*.png"))
    assert every.names is not None
    assert list(every.names) == [str(path.relative_to(tmp_path)) for path in paths]
    for number in (0, 5, 13):
        assert torch.equal(every.take(torch.tensor([number])), pixels(paths[number]))
    kept = every.subset(torch.tensor([4, 2]))
    assert [kept.name(0), kept.name(1)] == [every.name(4), every.name(2)]


def test_parts_in_a_file_come_together(photos: Path, tmp_path: Path) -> None:
    held = whole(load_data(photos))
    filed = whole(load_data(photos, memory_budget=1, cache_dir=tmp_path))
    index = torch.arange(len(held))
    assert torch.equal(held.take(index), filed.take(index))
    assert held.names is not None
    assert filed.names is not None
    assert list(held.names) == list(filed.names)


def test_classes_of_several_sources_are_one_by_name() -> None:
    def some(label: list[int], names: tuple[str, ...]) -> ImageSet:
        pixels = torch.zeros(len(label), 1, 2, 2, dtype=torch.uint8)
        return ImageSet(pixels, torch.tensor(label), class_names=names)

    every = gathered([some([0, 1, -1], ("b", "c")), some([0, 1], ("a", "b"))])
    assert every.labels is not None
    assert every.class_names == ("a", "b", "c")
    assert every.labels.tolist() == [1, 2, -1, 0, 1]


def test_files_and_folders_are_scored_and_classified_by_name(
    run: Path, photos: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = [str(photos / "fern/002.png"), str(photos / "=moss/001.png")]
    out = tmp_path / "odd.csv"
    code, text, err = command(
        capsys, "--json", "score", str(run), *two, str(others), "--steps", "2", "--draws", "2",
        "--out", str(out),
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(text)["images"] == 32
    with out.open(newline="") as file:
        names = {row["name"] for row in csv.DictReader(file)}
    assert names >= {*two, f"{others}/fern/-00.png"}

    classifier = tmp_path / "classifier"
    code, _, err = command(
        capsys, "classify", "train", "--data", str(photos), "--out", str(classifier),
        *("--epochs", "1", "--device", "cpu"),
    )  # fmt: skip
    assert code == 0, err
    code, text, err = command(capsys, "--json", "classify", "predict", str(classifier), *two)
    assert code == 0, err
    found = json.loads(text)["images"]
    assert [row["image"] for row in found] == two
    chances = Run(classifier).load_classifier().predict(pixels(Path(two[1])))[0].tolist()
    assert list(found[1]["probabilities"].values()) == pytest.approx(chances, abs=1e-5)


@pytest.mark.parametrize("kind", ["number", "name", "ending", "file"])
def test_a_walk_starts_at_the_image_that_is_meant(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    test = load_data(photos).test
    first, last = test.name(1), test.name(3)
    named = {
        "number": ("1", "3"),
        "name": (first, last),
        "ending": (first.split("/")[1], last.split("/")[1]),
        "file": (str(photos / first), str(photos / last)),
    }[kind]
    out = tmp_path / "walk.npz"
    code, text, err = command(
        capsys, "--json", "interpolate", str(run), "--from", named[0], "--to", named[1],
        "--steps", "3", "--out", str(out),
    )  # fmt: skip
    assert code == 0, err
    facts = json.loads(text)
    assert facts["from"].endswith(first)
    assert facts["to"].endswith(last)
    model = vaelab.load(run)
    ends = torch.stack([pixels(photos / first)[0], pixels(photos / last)[0]])
    expected = model.reconstruct(ends).cpu().mul(255).round()
    with np.load(out) as file:
        np.testing.assert_allclose(file["images"][[0, 2]], expected.numpy(), atol=1)


def test_a_name_of_the_training_part_is_found(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = load_data(photos).train.name(5)
    code, text, _ = command(capsys, "traverse", str(run), "--image", name)
    assert code == 0
    assert f"image {name}\n" in text


def test_one_file_is_reconstructed(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = photos / "fern/004.png", tmp_path / "pair.npz"
    for named in ([str(path)], ["--data", str(path)]):
        code, _, err = command(capsys, "reconstruct", str(run), *named, "--out", str(out))
        assert code == 0, err
        with np.load(out) as file:
            assert len(file["images"]) == 2
            np.testing.assert_array_equal(file["images"][0], pixels(path)[0].numpy())


def test_all_other_images_are_reconstructed(
    run: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs.npz"
    code, text, err = command(
        capsys, "--json", "reconstruct", str(run), "--data", str(others), "--out", str(out)
    )
    assert code == 0, err
    with np.load(out) as file:
        assert len(file["images"]) == 60
        assert file["kinds"].tolist() == ["image", "reconstruction"] * 30
        assert file["files"][::2].tolist() == file["files"][1::2].tolist()
        for row in (0, 34):
            shown = pixels(others / file["files"][row])[0].numpy()
            np.testing.assert_array_equal(file["images"][row], shown)
            assert file["files"][row].startswith(file["labels"][row])
    assert len(json.loads(text)["files"]) == 30


def test_other_images_are_read_as_options_say(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a faint array of 12 bits, and of a stack; the run's own images take none."""
    image = np.asarray(Image.open(photos / "fern/004.png"))
    np.save(tmp_path / "faint.npy", np.stack([image] * 12).astype(np.uint16) * 8)
    out = tmp_path / "pairs.npz"
    named = [str(tmp_path / "faint.npy"), "--out", str(out), "--range", "0,2040"]
    code, _, err = command(capsys, "reconstruct", str(run), *named)
    assert code == 0, err
    with np.load(out) as file:
        np.testing.assert_array_equal(file["images"][0], image.transpose(2, 0, 1))
    code, _, err = command(capsys, "reconstruct", str(run), "--range", "full")
    assert code == 1
    assert "--range full: says how other images are read" in err
    code, _, err = command(capsys, "evaluate", str(run), "--data", named[0], "--range", "9,1")
    assert code == 1
    assert "LOW below HIGH" in err


def test_a_page_of_a_stack_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [Image.open(drawn(tmp_path / f"{number}.png", number)) for number in range(4)]
    stack = tmp_path / "stack.tif"
    pages[0].save(stack, save_all=True, append_images=pages[1:])
    out = tmp_path / "pairs.npz"
    code, _, err = command(capsys, "reconstruct", str(run), f"{stack}#2", "--out", str(out))
    assert code == 0, err
    with np.load(out) as file:
        assert len(file["images"]) == 2
        np.testing.assert_array_equal(file["images"][0], pixels(tmp_path / "1.png")[0].numpy())
    walk = ["interpolate", str(run), "--from", f"{stack}#1", "--to", f"{stack}#4"]
    code, _, err = command(capsys, *walk, "--out", str(tmp_path / "walk.png"))
    assert code == 0, err
    code, _, err = command(capsys, "reconstruct", str(run), f"{stack}#9", "--out", str(out))
    assert code == 1
    assert "stack.tif#9: there is no such image" in err


def test_a_file_of_another_size_and_colour_is_fitted_and_it_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = drawn(tmp_path / "large.png", 4, (90, 90), "L")
    code, _, err = command(
        capsys, "encode", str(run), str(path), "--out", str(tmp_path / "codes.csv")
    )
    assert code == 0
    assert "1 image was made RGB and fitted to 17×21 pixels (pad), as the model needs." in err


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("missing.png", "missing.png: does not exist"),
        ("notes.txt", r"notes\.txt(: is no image|, not a PNG)"),
        ("empty.png", r"empty\.png(: is no image|, empty)"),
    ],
)
def test_what_is_no_image_is_named(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    which: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no image")
    Path("empty.png").touch()
    drawn(Path("good.png"), 1)
    for arguments in ([which], ["good.png", which]):
        code, _, err = command(capsys, "encode", str(run), *arguments)
        assert code == 1
        assert re.search(message, err)
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("fern/00.png", "no image of this name"),
        ("fern", "is a folder"),
        ("99", "there are 5 images, numbered from 0"),
    ],
)
def test_no_such_image_is_named(
    run: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    which: str,
    message: str,
) -> None:
    monkeypatch.chdir(photos)
    code, _, err = command(capsys, "interpolate", str(run), "--from", which)
    assert code == 1
    assert message in err


def test_images_are_named_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = command(capsys, "encode", str(run), "a.png", "--data", "b.png")
    assert code == 1
    assert "as arguments or by --data" in err


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "\rx"])
def test_text_that_a_spreadsheet_would_run_is_quoted(text: str) -> None:
    written = next(csv.reader(io.StringIO(csv_text([[text, f"a{text}", -1.5]]), newline="")))
    assert written == [f"'{text}", f"a{text}", "-1.5"]
