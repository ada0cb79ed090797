"""Attributes: measured on shapes with known values, chosen by name, cached; the toy set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import make_swiss_roll

from tests.test_cli import vaelab
from tests.test_data import noise, save_images
from vaelab.config import DataConfig, parse_config
from vaelab.data import ImageSet, Splits, attributes, columns, load_config, load_data, summary
from vaelab.data.attributes import MEASURES, measure
from vaelab.data.images import binary_columns
from vaelab.data.toy import HIGH, LOW
from vaelab.errors import ConfigError, DataError

Inside = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.bool_]]
"""Whether points (x to the right, y downwards, in pixels from the middle) lie in a shape."""

FINE = 16  # points a pixel, each way, that shapes are drawn with


def drawn(inside: Inside, height: int = 41, width: int = 41) -> NDArray[np.float32]:
    """A white shape on black, each pixel its share of the shape: (height, width)."""
    y, x = ((np.arange(side * FINE) + 0.5) / FINE - side / 2 for side in (height, width))
    shares = inside(x[None, :], y[:, None]).reshape(height, FINE, width, FINE).mean((1, 3))
    white: NDArray[np.float32] = shares.astype(np.float32)
    return white


def bar(thickness: float, degrees: float = 0.0, length: float = 32.0) -> Inside:
    """An upright bar turned clockwise; off the grid, as a real one would be."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))

    def inside(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
        off = thickness % 2 / 2 if degrees == 0 else 0.3  # sharp edges when upright
        x, y = x + 0.5 + off, y + 0.5
        across, along = x * cosine + y * sine, x * sine - y * cosine
        within: NDArray[np.bool_] = (abs(across) < thickness / 2) & (abs(along) < length / 2)
        return within

    return inside


def disc(radius: float, x0: float = 0.0, y0: float = 0.0) -> Inside:
    return lambda x, y: (x - x0) ** 2 + (y - y0) ** 2 < radius**2


def ring(radius: float, inner: float, y0: float = 0.0) -> Inside:
    return lambda x, y: disc(radius, 0, y0)(x, y) & ~disc(inner, 0, y0)(x, y)


def eight(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
    return ring(7, 4, -6)(x, y) | ring(7, 4, 6)(x, y)


def sheared(degrees: float) -> Inside:
    """A bar of width 6 and height 24 whose top is shifted to the right."""
    slope = np.tan(np.radians(degrees))
    return lambda x, y: (abs(x + slope * y) < 3) & (abs(y) < 12)


def measured(name: str, *images: NDArray[np.float32]) -> list[float]:
    found: list[float] = measure(torch.from_numpy(np.stack(images))[:, None], [name])[:, 0].tolist()
    return found


# ------------------------------------------------------------------------------------------ shapes


@pytest.mark.parametrize("width", range(1, 9))
def test_thickness_of_an_upright_bar_is_its_width(width: int) -> None:
    # mean distance in a rectangle: (t/4) (1 - t / 3l); the ends are nearer than the sides
    exact = width * (1 - width / (3 * 32))
    assert measured("thickness", drawn(bar(width)))[0] == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("degrees", [10, 22.5, 30, 45, 60, 80, 135])
@pytest.mark.parametrize("width", [2, 2.5, 3, 4, 6, 8])
def test_thickness_of_a_turned_bar(width: float, degrees: float) -> None:
    exact = width * (1 - width / (3 * 32))
    found = measured("thickness", drawn(bar(width, degrees)))[0]
    assert found == pytest.approx(exact, rel=0.04)


def test_thickness_of_a_disc_and_of_a_ring() -> None:
    found = measured("thickness", drawn(disc(12)), drawn(ring(14, 10)))
    assert found == pytest.approx([4 * 12 / 3, 4.0], rel=0.02)  # mean distance r/3


@pytest.mark.parametrize("degrees", [-40, -15, 0, 5, 20, 45])
def test_slant_is_the_angle_of_the_shear(degrees: float) -> None:
    assert measured("slant", drawn(sheared(degrees)))[0] == pytest.approx(degrees, abs=0.3)


def test_slant_of_one_row_is_unknown() -> None:
    flat = np.zeros((9, 9), np.float32)
    flat[4, 2:7] = 0.3
    assert np.isnan(measured("slant", flat)[0])
    assert measured("slant", flat.T.copy())[0] == pytest.approx(0, abs=1e-6)


def test_box_and_area_in_pixels() -> None:
    box = drawn(lambda x, y: (abs(x - 0.5) < 6) & (abs(y + 0.5) < 4.5))  # between pixels
    round_, leaning = drawn(disc(10, 1.3, -0.4)), drawn(sheared(20))
    assert measured("width", box, round_) == pytest.approx([12, 20], abs=0.05)
    assert measured("height", box, round_, leaning) == pytest.approx([9, 20, 24], abs=0.05)
    reach = 6 + 24 * np.tan(np.radians(20))
    assert reach - 0.8 < measured("width", leaning)[0] < reach  # a tip is too thin to show
    found = measured("area", box, round_, leaning, drawn(bar(3, 45)))
    assert found == pytest.approx([108, 100 * np.pi, 144, 96], rel=0.01)


def test_loops_are_holes() -> None:
    broken = ring(9, 6)
    images = (
        drawn(disc(9)),
        drawn(ring(9, 6)),
        drawn(eight),
        drawn(lambda x, y: broken(x, y) & ~((x > 0) & (abs(y) < 1.5))),
        drawn(ring(4, 0.3)),  # a hole of a third of a pixel
        drawn(lambda x, y: ring(14, 12)(x, y) | ring(8, 6)(x, y)),  # the ground between is a hole
    )
    assert measured("loops", *images) == [0, 1, 2, 0, 0, 2]
    corner = np.zeros((9, 9), np.float32)
    corner[[2, 3, 3, 4], [3, 2, 4, 3]] = 1  # four pixels that touch at corners, around one
    assert measured("loops", corner) == [1]


@pytest.mark.parametrize("level", [1, 0.2])
def test_shapes_measure_the_same_at_any_brightness_place_and_size(level: float) -> None:
    image = np.zeros((37, 53), np.float32)
    image[3:34, 6:47] = drawn(eight, 31, 41)
    names = [name for name in MEASURES if name != "area"]
    alone = measure(torch.from_numpy(drawn(eight))[None, None], names)
    moved = measure(torch.from_numpy(image * level)[None, None], names)
    torch.testing.assert_close(moved, alone, rtol=1e-4, atol=1e-4)


def test_measures_of_black_white_and_tiny_images() -> None:
    black = measure(torch.zeros(2, 1, 8, 9, dtype=torch.uint8), list(MEASURES))
    assert [name for name, value in zip(MEASURES, black[0], strict=True) if not value.isnan()] == [
        "area",
        "loops",
    ]
    assert black.nansum() == 0
    white = measure(torch.full((1, 1, 8, 9), 255, dtype=torch.uint8), ["width", "height", "area"])
    assert white.tolist() == [[9, 8, 72]]
    assert measure(torch.ones(3, 3, 1, 1), ["width", "area", "loops"]).tolist() == [[1, 1, 0]] * 3


def test_colours_are_averaged_and_alpha_is_ignored() -> None:
    images = torch.from_numpy(noise(5, 4, 6, 7))
    grey = images[:, :3].float().mean(1, keepdim=True) / 255
    names = list(MEASURES)
    expected = measure(grey, names)
    torch.testing.assert_close(measure(images, names), expected, equal_nan=True)
    torch.testing.assert_close(measure(images[:, :3], names), expected, equal_nan=True)


def test_measures_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.from_numpy(noise(40, 1, 9, 7))
    whole = measure(images, list(MEASURES))
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(attributes, "_CHUNK", 1)
    alone = measure(images, list(MEASURES), lambda done, total: told.append((done, total)))
    torch.testing.assert_close(whole, alone, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert told == [(done, 40) for done in range(1, 41)]
    with pytest.raises(ConfigError, match="'size' is no measure"):
        measure(images, ["size"])


def test_measures_agree_with_morpho_mnist() -> None:
    # thickness (pixels) and slant (radians) of the first test digits, as published by Castro et
    # al.; their thickness is the mean along the skeleton
    published = np.array(
        [
            *((2.1106, 0.07097), (2.6501, -0.17389), (1.8666, 0.29039), (3.4805, 0.07237)),
            *((1.9515, -0.12877), (2.5627, 0.29599), (2.1251, -0.08664), (2.4243, -0.51618)),
            *((3.0968, 0.26414), (2.7860, 0.29025), (2.3754, 0.12330), (2.0875, -0.03643)),
        ]
    )
    digits = load_data("mnist").test.subset(torch.arange(len(published)))
    thickness, slant = measure(digits, ["thickness", "slant"]).numpy().T
    np.testing.assert_allclose(slant, np.degrees(published[:, 1]), atol=0.2)
    np.testing.assert_allclose(thickness, published[:, 0], rtol=0.08)
    assert np.mean(thickness / published[:, 0]) == pytest.approx(1, abs=0.03)


def test_measures_of_digits() -> None:
    digits = load_data("mnist").validation
    assert digits.labels is not None
    rows = torch.arange(2000)
    table = measure(digits.subset(rows), list(MEASURES))
    found = dict(zip(MEASURES, table.unbind(1), strict=True))
    labels = digits.labels[:2000]
    assert not table.isnan().any()
    assert (found["loops"][labels == 0] == 1).float().mean() > 0.75
    assert (found["loops"][labels == 8] == 2).float().mean() > 0.5
    assert (found["loops"][labels == 1] == 0).float().mean() > 0.99
    assert 3 < found["slant"].mean() < 9
    assert found["width"][labels == 1].mean() < 0.6 * found["width"][labels != 1].mean()
    assert 2 < found["thickness"].median() < 3.5
    assert 19 < found["height"].mean() < 20.1
    torch.testing.assert_close(
        found["area"], digits.take(rows).double().sum((1, 2, 3)).float() / 255
    )


# --------------------------------------------------------------------------- choosing and caching


def with_own(images: Any, values: Any, names: list[str], path: Path, test: Any = None) -> Path:
    """A file of images with attributes, and of test images if there are ``test`` attributes."""
    more: dict[str, Any] = {}
    if test is not None:
        more = {"test_images": noise(len(test), *images.shape[1:]), "test_attributes": test}
    np.savez(path, images=images, attributes=values, attribute_names=np.array(names), **more)
    return path


def test_own_attributes_go_before_measured_ones(tmp_path: Path) -> None:
    images = noise(30, 9, 7)
    own = np.stack([np.arange(30) / 7, np.arange(30) % 2], 1)
    path = with_own(images, own, ["slant", "smile"], tmp_path / "a.npz")
    splits = load_data(path, attributes=["area", "slant"], cache_dir=tmp_path)
    for part in (splits.train, splits.validation, splits.test):
        assert part.attribute_names == ("area", "slant")
        assert part.units == ("pixels", "")
        assert part.binary == (False, False)
        assert part.attributes is not None
        taken = part.take(torch.arange(len(part)))
        for image, (size, slant) in zip(taken, part.attributes, strict=True):
            (at,) = np.flatnonzero((images == image[0].numpy()).all((1, 2)))
            assert slant == np.float32(own[at, 0])
            assert size == pytest.approx(images[at].sum() / 255, rel=1e-5)
    plain = load_data(path).train
    assert plain.attribute_names == ("slant", "smile")
    assert plain.binary == (False, True)
    everything = load_data(path, attributes="all", cache_dir=tmp_path).train
    assert everything.attribute_names[:2] == ("slant", "smile")
    assert {*everything.attribute_names} == {"smile", *MEASURES}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["thicknes"], "no attribute 'thicknes'; did you mean thickness.* own: none. Measured"),
        (["smile"], r"no attribute 'smile'\. The data's own"),
        (["area", "area"], "'area' is named twice"),
    ],
)
def test_unknown_attributes_are_told(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_data(noise(12, 4, 4), attributes=names)


def test_config_names_attributes(tmp_path: Path) -> None:
    assert DataConfig(attributes="slant, area").attributes == ["slant", "area"]
    config = parse_config({"data": {"attributes": ["area"]}}).data
    splits = load_config(config, noise(12, 4, 4), cache_dir=tmp_path)
    assert splits.test.attribute_names == ("area",)
    with pytest.raises(ConfigError, match="attributes"):
        parse_config({"data": {"attributes": 3}})


@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("filed", [True, False])
def test_measured_attributes_are_cached(
    budget: int | None, filed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source: Any = noise(40, 9, 7)
    if filed:
        save_images(tmp_path / "photos", source)
        (tmp_path / "photos" / "003.png").write_text("no image")
        source = tmp_path / "photos"
    cache = tmp_path / "cache"

    def load() -> Splits:
        names = ["loops", "area"]
        options: dict[str, Any] = {"memory_budget": budget, "cache_dir": cache}
        return load_data(source, attributes=names, skip_bad=filed, **options)

    def values(splits: Splits) -> NDArray[np.float32]:
        parts = (splits.train.attributes, splits.validation.attributes, splits.test.attributes)
        return torch.cat([part for part in parts if part is not None]).numpy()

    first = values(load())
    assert first.shape == (40 - filed, 2)
    assert not np.isnan(first).any()
    files = sorted((cache / "attributes").iterdir())
    assert [file.name.split("-")[1] for file in files] == ["area", "loops"]
    calls: list[list[str]] = []

    def counted(images: ImageSet, names: list[str], progress: Any) -> torch.Tensor:
        calls.append(names)
        return measure(images, names, progress)

    monkeypatch.setattr(columns, "measure", counted)
    np.testing.assert_array_equal(values(load()), first)
    assert calls == []
    files[0].write_bytes(files[0].read_bytes()[:-3] + b"xyz")
    np.testing.assert_array_equal(values(load()), first)
    assert calls == [["area"]]
    np.testing.assert_array_equal(values(load()), first)
    monkeypatch.setattr(columns, "VERSION", 0)
    np.testing.assert_array_equal(values(load()), first)
    assert calls == [["area"], ["loops", "area"]]
    if not filed:
        source[0] = 0
        assert not np.array_equal(values(load()), first)
        assert len(calls) == 3


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "attributes").write_text("in the way")
    splits = load_data(noise(12, 4, 4), attributes=["area"], cache_dir=tmp_path)
    assert splits.train.attributes is not None


# ------------------------------------------------------------------------------- continuous values


def test_any_finite_number_is_an_attribute(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(30, 3))
    values[:, 1] = np.where(np.arange(30) % 2, 1.0, -1.0)
    values[4] = np.nan
    values[:, 2] = 7
    path = with_own(noise(30, 4, 4), values, ["age", "smile", "size"], tmp_path / "a.npz")
    splits = load_data(path)
    assert any(
        "1 attribute of -1 and 1 was read as 0 and 1 (first: smile)" in note
        for note in splits.notes
    )
    for part in (splits.train, splits.validation, splits.test):
        assert part.binary == (False, True, False)
    found = summary(splits)["attributes"]
    age = values[~np.isnan(values[:, 0]), 0]
    assert found["smile"] == {
        "unit": "",
        "binary": True,
        "known": 29,
        "unknown": 1,
        "share": pytest.approx(15 / 29),
    }
    assert found["age"]["mean"] == pytest.approx(age.mean())
    assert found["age"]["std"] == pytest.approx(age.std())
    assert found["age"]["quantiles"]["5"] == pytest.approx(np.quantile(age, 0.05))
    assert sum(found["age"]["histogram"]["counts"]) == 29
    assert found["size"]["histogram"]["counts"].count(0) == 23  # of one value
    json.dumps(found, allow_nan=False)


def test_parts_agree_on_what_is_binary(tmp_path: Path) -> None:
    def load(train: NDArray[Any], test: NDArray[Any]) -> Splits:
        path = with_own(noise(12, 4, 4), train, ["smile"], tmp_path / "a.npz", test=test)
        return load_data(path)

    splits = load(np.eye(12)[:, :1], np.full((3, 1), 0.5))
    assert splits.train.binary == splits.test.binary == (False,)
    splits = load(np.full((12, 1), -1), np.ones((3, 1)))
    assert splits.train.attributes is not None
    assert splits.train.attributes.unique().tolist() == [0]
    assert splits.test.binary == (True,)
    nan = float("nan")
    table = torch.tensor([[0.0, 1, nan, -1], [1, nan, nan, 1]])
    assert binary_columns(table) == (True, True, True, False)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_infinite_attributes_are_refused(value: float, tmp_path: Path) -> None:
    values = np.zeros((12, 2))
    values[5, 1] = value
    path = with_own(noise(12, 4, 4), values, ["smile", "age"], tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"a.npz: attribute 'age' of image 5 is infinite"):
        load_data(path)
    save_images(tmp_path / "b", noise(2, 4, 4))
    (tmp_path / "b" / "attributes.csv").write_text(f"file,smile,age\n001.png,1,{value}\n")
    message = r"attributes.csv: attribute 'age' of 001.png is infinite"
    with pytest.raises(DataError, match=message):
        load_data(tmp_path / "b")
    with_own(noise(12, 4, 4), values, ["age", "age"], path)
    with pytest.raises(DataError, match="two attributes have one name"):
        load_data(path)


def test_numbers_in_attributes_csv(tmp_path: Path) -> None:
    save_images(tmp_path, noise(3, 4, 4))
    text = "file,age,smile\n000.png,31.5,-1\n001.png,,1\n002.png,-2e1,nan\n"
    (tmp_path / "attributes.csv").write_text(text)
    found = load_data(tmp_path).train
    nan = float("nan")
    expected = torch.tensor([[31.5, 0], [nan, 1], [-20, nan]])
    torch.testing.assert_close(found.attributes, expected, equal_nan=True)
    assert found.binary == (False, True)


# ------------------------------------------------------------------------------------- Swiss roll


def test_swiss_roll_is_the_published_one() -> None:
    splits = load_data("swiss-roll")
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [8000, 1000, 1000]
    assert splits.train.shape == (3, 1, 1)
    assert splits.train.attribute_names == ("outer", "half")
    assert splits.train.binary == (True, True)
    assert splits.train.class_names == ("near", "far")
    pixels = torch.cat([part.take(torch.arange(len(part))) for part in parts])[:, :, 0, 0].numpy()
    found = np.concatenate([part.attributes for part in parts if part.attributes is not None])
    step = (HIGH - LOW) / 255
    points = LOW + pixels * step
    angle = np.hypot(points[:, 0], points[:, 2])  # of (t cos t, 21 v, t sin t)
    on_roll = np.stack([angle * np.cos(angle), angle * np.sin(angle)], 1)
    reach = step[0] * (1 + 4.5 * np.pi) / np.sqrt(2)  # rounding of the angle moves along the roll
    assert np.linalg.norm(on_roll - points[:, ::2], axis=1).max() < reach
    assert 1.5 * np.pi - step[0] < angle.min() < 1.55 * np.pi
    assert 4.45 * np.pi < angle.max() < 4.5 * np.pi + step[0]
    for column in (0, 1):
        sure = abs(points[:, column] - 10) > step[column] / 2
        assert sure.mean() > 0.98
        np.testing.assert_array_equal(found[sure, column], points[sure, column] >= 10)
    assert found.mean(0) == pytest.approx([0.137, 0.516], abs=0.001)
    labels = torch.cat([part.labels for part in parts if part.labels is not None])
    np.testing.assert_array_equal(labels, found[:, 1])
    known, _ = make_swiss_roll(10_000, random_state=0)
    rounded = np.rint(255 * (known - LOW) / (HIGH - LOW)).astype(np.uint8)
    np.testing.assert_array_equal(np.sort(rounded, 0), np.sort(pixels, 0))


# ----------------------------------------------------------------------------------- command line


def test_data_shows_attributes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path / "cache"))
    own = np.stack([np.arange(30) % 2, np.arange(30) / 3], 1)
    path = with_own(noise(30, 9, 7), own, ["smile", "age"], tmp_path / "a.npz")
    code, out, err = vaelab(capsys, "data", str(path), "--attributes", "area,smile")
    assert code == 0, err
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert lines["smile"] == ["smile", "0", "50.0%"]
    assert lines["area"][1:3] == ["pixels", "0"]
    assert "█" in lines["area"][-1] or "█" in " ".join(lines["area"])
    code, out, _ = vaelab(capsys, "--json", "data", str(path), "--attributes", "all")
    assert [*json.loads(out)["attributes"]] == ["smile", "age", *MEASURES]
    code, out, _ = vaelab(capsys, "data", str(path))
    assert "area" not in out
    assert "age" in out
    code, _, err = vaelab(capsys, "data", str(path), "--attributes", "ages")
    assert code == 1
    assert "did you mean age?" in err
    assert vaelab(capsys, "data", "swiss-roll")[0] == 0
