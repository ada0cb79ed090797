"""The range of values, transparency, and any number of channels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import vaelab
from tests.conftest import SMALL, blobs
from tests.test_cli import vaelab as run_vaelab
from tests.test_data import noise
from vaelab.data import Splits, load_data
from vaelab.data.pixels import channels_first
from vaelab.errors import DataError
from vaelab.explore.grids import as_colours
from vaelab.training.run import Run

Numbers = NDArray[Any]


def read(source: Any, **options: Any) -> tuple[Numbers, Splits]:
    """All images as they were read, in order."""
    splits = load_data(source, split=(1, 0, 0), **options)
    return splits.train.take(torch.arange(len(splits.train))).numpy(), splits


def ramp(low: float, high: float, kind: str) -> Numbers:
    """Images that hold the ends of an interval and what is between."""
    values = np.linspace(low, high, 12 * 4 * 5)
    return (
        (values.round() if np.dtype(kind).kind in "iu" else values).reshape(12, 4, 5).astype(kind)
    )


@pytest.mark.parametrize(
    ("values", "scale", "word"),
    [
        (ramp(0, 255, "u1"), (0, 255), ""),
        (ramp(0, 200, "u1"), (0, 255), ""),
        (ramp(0, 3, "u1"), (0, 3), r"0 to 3 of 255: 0 to 3 \(2 bits\)"),
        (ramp(0, 40, "u1"), (0, 63), r"\(6 bits\)"),
        (ramp(0, 65535, "u2"), (0, 65535), ""),
        (ramp(0, 40000, "u2"), (0, 65535), ""),
        (ramp(0, 4000, "u2"), (0, 4095), r"0 to 4,000 of 65,535: 0 to 4,095 \(12 bits\)"),
        (ramp(0, 1000, "u2"), (0, 1023), r"\(10 bits\)"),
        (ramp(0, 200, "u2"), (0, 255), r"\(8 bits\)"),
        (ramp(0, 250, "i8"), (0, 255), ""),
        (ramp(0, 60, "i8"), (0, 255), ""),
        (ramp(0, 3, "i4"), (0, 3), r"\(2 bits\)"),
        (ramp(0, 100000, "i4"), (0, 131071), r"\(17 bits\)"),
        (ramp(-1000, 3000, "i2"), (-1000, 3000), "-1,000 to 3,000 was scaled"),
        (ramp(0, 1, "f4"), (0, 1), ""),
        (ramp(0.2, 0.9, "f8"), (0, 1), ""),
        (ramp(-0.02, 1.02, "f4"), (0, 1), "lie outside 0 to 1 .*and were clipped"),
        (ramp(-1, 1, "f4"), (-1, 1), "-1 to 1 was scaled"),
        (ramp(0, 255, "f4"), (0, 255), "0 to 255 was scaled"),
        (ramp(0, 40, "f4"), (0, 40), "0 to 40 was scaled"),
        (ramp(-3, 9, "f8"), (-3, 9), "-3 to 9 was scaled"),
        (ramp(0, 0.1, "f8"), (0, 0.1), "0 to 0.1 was scaled"),
        (ramp(0, 1e6, "f8"), (0, 1e6), "0 to 1,000,000 was scaled"),
    ],
)
def test_auto_takes_the_range_of_the_whole_set_and_says_it(
    values: Numbers, scale: tuple[float, float], word: str
) -> None:
    pixels, splits = read(values)
    low, high = scale
    wanted = np.clip(255 * (values.astype(np.float64) - low) / (high - low), 0, 255)
    assert np.abs(pixels[:, 0] - wanted).max() <= 0.5001
    notes = " ".join(splits.notes[:-2])  # the last two are on the split
    if word:
        assert re.search(word, notes)
    else:
        assert notes == ""


@pytest.mark.parametrize("kind", ["png", "tif", "npy", "items"])
def test_one_rule_for_all_images_of_deep_files(kind: str, tmp_path: Path) -> None:
    deep = np.stack([np.full((5, 6), level, np.uint16) for level in (40, 900, 4000)] * 4)
    deep[:, 0, 0] = 0
    source: Any = tmp_path
    if kind == "npy":
        source = tmp_path / "a.npy"
        np.save(source, deep)
    elif kind == "items":
        source = list(deep)
    else:
        for number, image in enumerate(deep):
            Image.fromarray(image).save(tmp_path / f"{number:02}.{kind}")
    pixels, splits = read(source)
    assert pixels[:3, 0, 2, 2].tolist() == [2, 56, 249]  # 255 level / 4095
    assert splits.range == [0, 4095]
    assert "Only 4 of 256 levels" in " ".join(splits.notes)
    other, _ = read(source, range=splits.range)
    np.testing.assert_array_equal(other, pixels)


def test_eight_bits_keep_theirs_beside_deeper_images(tmp_path: Path) -> None:
    for number in range(6):
        Image.fromarray(np.full((5, 6), 2048, np.uint16)).save(tmp_path / f"{number}.png")
        Image.fromarray(np.full((5, 6), 200, np.uint8)).save(tmp_path / f"{number}b.png")
    pixels, splits = read(tmp_path)
    assert pixels[:2, 0, 0, 0].tolist() == [128, 200]
    again, _ = read(tmp_path, range=splits.range)
    np.testing.assert_array_equal(again, pixels)


def test_full_and_given_ranges() -> None:
    masks = ramp(0, 3, "u1")
    pixels, splits = read(masks, range="full")
    assert pixels.max() == 3
    assert "dark: the brightest pixel is 3 of 255" in " ".join(splits.notes)
    pixels, splits = read(masks, range=[1, 2])
    assert np.unique(pixels).tolist() == [0, 255]
    assert "lie outside 1 to 2" in " ".join(splits.notes)
    assert (splits.range, load_data(noise(12, 4, 4)).range) == ([1, 2], "full")
    with pytest.raises(DataError, match="have no full range"):
        read(ramp(0, 1e5, "i4"), range="full")
    with pytest.raises(
        DataError, match=r"nearly all values lie outside the range 0 to 10.*reach from 0"
    ):
        read(ramp(0, 200, "u1"), range=[0, 10])
    window, splits = read(ramp(0, 200, "u1"), range=[0, 50])  # most are brighter, as asked
    assert window.max() == 255
    assert "lie outside 0 to 50" in " ".join(splits.notes)


@pytest.mark.parametrize(
    ("wanted", "noted"), [([-100, 300], True), ([10.5, 200], True), ([10, 250], False)]
)
def test_a_range_that_8_bit_images_cannot_have_is_said(wanted: list[float], noted: bool) -> None:
    values = ramp(0, 200, "u1")
    pixels, splits = read(values, range=wanted)
    said = [note for note in splits.notes if "8-bit images were read as 0 to 255" in note]
    assert bool(said) == noted
    assert (pixels.max() == 200) == noted  # as they are


def test_a_file_of_its_own_remembers_range_and_notes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ramp(0, 4000, "u2"))
    options: dict[str, Any] = {"memory_budget": 0, "cache_dir": tmp_path / "cache"}
    first = load_data(tmp_path / "a.npy", **options)
    again = load_data(tmp_path / "a.npy", **options)
    full = load_data(tmp_path / "a.npy", range="full", **options)
    assert first.notes == again.notes
    assert (first.range, again.range, full.range) == ([0, 4095], [0, 4095], "full")
    rows = torch.arange(8)
    assert torch.equal(first.train.take(rows), again.train.take(rows))
    assert int(first.train.take(rows).max()) > 8 * int(full.train.take(rows).max())


def test_other_images_are_read_by_the_range_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spots = blobs(40).astype(np.uint16) * 16  # 12 bits
    np.save(tmp_path / "a.npy", spots)
    np.save(tmp_path / "dim.npy", spots[:20] // 8)  # would be 9 bits by itself
    vaelab.train("vae", tmp_path / "a.npy", tmp_path / "run", **SMALL)
    run = str(tmp_path / "run")
    assert Run(run).read_config().data.range == [0, 4095]
    code, _, err = run_vaelab(capsys, "evaluate", run, "--data", str(tmp_path / "dim.npy"))
    assert code == 0
    assert "brightest pixel is 32 of 255" in err
    assert run_vaelab(capsys, "evaluate", run)[0] == 0


# ------------------------------------------------------------------------------------ transparency


def sprite(folder: Path, count: int = 11) -> None:
    """Black squares on nothing; the ground is transparent black."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.zeros((8, 9, 4), np.uint8)
        pixels[2:5, 3:6, 3] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.mark.parametrize(
    ("background", "ground"), [(None, [255] * 3), ("#2040ff", [32, 64, 255]), ("black", [0] * 3)]
)
def test_transparent_images_stand_on_the_background(
    background: str | None, ground: list[int], tmp_path: Path
) -> None:
    sprite(tmp_path / "d")
    pixels, splits = read(tmp_path / "d", channels=3, background=background, size=(8, 15))
    assert pixels[0, :, 3, 7].tolist() == [0, 0, 0]
    for y, x in ((0, 4), (7, 14), (4, 0)):  # in the image and around it
        assert pixels[0, :, y, x].tolist() == ground
    shown = background or "white"
    assert f"11 of 11 images have transparent parts, composited on {shown}" in " ".join(
        splits.notes
    )


@pytest.mark.parametrize("size", [None, (20, 20)])
def test_drawings_in_the_colour_of_the_background_are_said(
    size: tuple[int, int] | None, tmp_path: Path
) -> None:
    pixels = np.full((11, 9, 8, 4), 255, np.uint8)
    pixels[:, :, :4, 3] = 0
    pixels[:3, 4, 6, :3] = 90  # three show something
    for number, one in enumerate(pixels):
        (tmp_path / "d").mkdir(exist_ok=True)
        Image.fromarray(one).save(tmp_path / "d" / f"{number}.png")
    for source in (tmp_path / "d", pixels):
        said = " ".join(read(source, channels=1, size=size)[1].notes)
        assert "8 of these show nothing" in said
        assert "Pass --background black." in said
        said = " ".join(read(source, channels=1, size=size, background="black")[1].notes)
        assert "show nothing" not in said


def test_transparency_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    sprite(tmp_path / "d")
    pixels, splits = read(tmp_path / "d", channels=4)
    assert pixels[0, 3, 3, 3] == 255
    assert pixels[0, 3, 0, 0] == 0
    assert "kept as a fourth channel" in " ".join(splits.notes)


def test_transparent_images_of_all_sources_stand_on_white(tmp_path: Path) -> None:
    sprite(tmp_path / "d")
    opened = [Image.open(path) for path in sorted((tmp_path / "d").iterdir())]
    mixed = [*opened[:5], *(image.convert("RGB") for image in opened[5:])]
    for source in (tmp_path / "d", opened, mixed):
        pixels, _ = read(source)
        assert pixels.shape[1:] == (3, 8, 9)
        assert pixels[0, :, 0, 0].tolist() == [255] * 3
        assert pixels[0, :, 3, 4].tolist() == [0] * 3


def test_padding_is_black_unless_a_background_is_named() -> None:
    white = np.full((11, 4, 4, 3), 200, np.uint8)
    for background, ground in ((None, 0), ("white", 255), ("#808080", 128)):
        pixels, _ = read(white, size=(4, 8), background=background)
        assert pixels[0, :, 0, 0].tolist() == [ground] * 3
        grey, _ = read(white[..., 0], size=(4, 8), background=background)
        assert grey[0, 0, 0, 0] == ground


# ---------------------------------------------------------------------------------------- channels


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 9, 7), (2, 9, 7)),
        ((9, 7, 2), (2, 9, 7)),
        ((5, 9, 7), (5, 9, 7)),
        ((9, 7, 5), (5, 9, 7)),
        ((13, 32, 32), (13, 32, 32)),
    ],
)
def test_channels_are_the_axis_that_is_smallest(
    shape: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    assert channels_first(shape)[0] == expected
    images = noise(12, *shape)
    pixels, _ = read(images)
    wanted = images if shape == expected else images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(pixels, wanted)


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 7, 8)])
def test_volumes_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(DataError, match="with fewer channels than rows and columns"):
        load_data(noise(12, *shape))


def test_other_channels_are_never_made_up() -> None:
    with pytest.raises(DataError, match="images of 5 channels cannot be made RGB"):
        load_data(noise(12, 5, 9, 8), channels=3)
    pixels, _ = read(noise(12, 5, 9, 8), channels=5, size=(12, 12))
    assert pixels.shape == (12, 5, 12, 12)


@pytest.mark.parametrize("channels", [2, 5])
def test_any_number_of_channels_is_trained_on_and_shown(
    channels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spots = blobs(40, 12, 10, channels)
    spots[:, 1:] = spots[:, 1:, ::-1]
    np.save(tmp_path / "a.npy", spots)
    run = str(tmp_path / "run")
    vaelab.train("vae", tmp_path / "a.npy", run, **SMALL)
    for command in ("evaluate", "report", "explore", "score"):
        code, _, err = run_vaelab(capsys, command, run)
        assert code == 0, err
    for command in ("sample", "reconstruct"):
        picture = tmp_path / f"{command}.png"
        assert run_vaelab(capsys, command, run, "--n", "4", "--out", str(picture))[0] == 0
        with Image.open(picture) as shown:
            assert shown.mode == "RGB"


def test_pictures_show_the_first_three_channels() -> None:
    pixels = noise(2, 5, 3, 4)
    np.testing.assert_array_equal(as_colours(torch.from_numpy(pixels)), pixels[:, :3])
    two = as_colours(torch.from_numpy(pixels[:, :2]))
    np.testing.assert_array_equal(two[:, :2], pixels[:, :2])
    assert two.shape == (2, 3, 3, 4)
    assert two[:, 2].max() == 0
    for same in (pixels[:, :1], pixels[:, :3], pixels[:, :4]):
        np.testing.assert_array_equal(as_colours(torch.from_numpy(same)), same)
