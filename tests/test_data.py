from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from torch import Tensor

from vaelab.config import DataConfig
from vaelab.data import ImageSet, Splits, load_config, load_data, summary
from vaelab.data.images import with_few_labels
from vaelab.data.levels import Levels
from vaelab.data.load import MNIST
from vaelab.data.pixels import Geometry, set_channels
from vaelab.data.sizes import fitted, middle
from vaelab.data.split import split_rows
from vaelab.data.summary import pixel_moments
from vaelab.errors import ConfigError, DataError

Pixels = NDArray[np.uint8]


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(array: NDArray[Any], kind: int = 8) -> bytes:
    big = array.astype(array.dtype.newbyteorder(">"))
    header = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
    return header + big.tobytes()


def save_images(folder: Path, images: Pixels, suffix: str = ".png", **options: Any) -> None:
    """Write (N, H, W) or (N, H, W, C) as 000.png, 001.png, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03}{suffix}", **options)


def all_images(splits: Splits) -> Tensor:
    """Images of all parts in no order that matters: sorted by their bytes."""
    parts = (splits.train, splits.validation, splits.test)
    rows = [row for part in parts for row in part.take(torch.arange(len(part)))]
    return torch.stack(sorted(rows, key=lambda row: row.numpy().tobytes()))


def expect_images(splits: Splits, images: Pixels) -> None:
    """The parts together hold exactly ``images`` (N, C, H, W)."""
    rows = sorted(images, key=lambda row: row.tobytes())
    assert torch.equal(all_images(splits), torch.from_numpy(np.stack(rows)))


# ------------------------------------------------------------------------------------------ MNIST


def test_mnist_is_the_published_data_in_its_usual_split() -> None:
    splits = load_data("mnist")
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [55000, 5000, 10000]
    assert splits.held_out
    assert splits.name == "mnist"
    assert splits.train.shape == (1, 28, 28)
    labels = torch.cat([splits.train.labels, splits.validation.labels])  # type: ignore[list-item]
    published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(labels).tolist() == published
    images = torch.cat(
        [part.take(torch.arange(len(part))) for part in (splits.train, splits.validation)]
    )
    mean, std = pixel_moments(ImageSet(images))
    assert round(mean, 4) == 0.1307
    assert round(std, 4) == 0.3081
    assert splits.test.labels is not None
    assert splits.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_mnist_split_depends_on_its_seed_alone() -> None:
    first, again = load_data("mnist"), load_data("mnist", split=(0.5, 0.25, 0.25))
    other = load_data("mnist", split_seed=1)
    rows = torch.arange(5000)
    assert torch.equal(first.validation.take(rows), again.validation.take(rows))
    assert not torch.equal(first.validation.take(rows), other.validation.take(rows))
    assert torch.equal(first.test.take(rows), other.test.take(rows))


def test_load_config_reads_the_data_section(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, noise(20, 8, 5))
    config = DataConfig(
        spec=str(path),
        size=[6, 6],
        channels=3,
        fit="stretch",
        split=[0.5, 0.25, 0.25],
        split_seed=4,
    )
    found = load_config(config)
    expected = load_data(
        path, size=(6, 6), channels=3, fit="stretch", split=(0.5, 0.25, 0.25), split_seed=4
    )
    assert found.train.shape == (3, 6, 6)
    assert torch.equal(found.train.take(torch.arange(10)), expected.train.take(torch.arange(10)))


# ------------------------------------------------------------------------- arrays, files, data sets


@pytest.mark.parametrize("layout", ["nhw", "nchw", "nhwc"])
@pytest.mark.parametrize("kind", ["array", "tensor", "npy", "npz", "idx", "items", "fortran"])
def test_arrays_come_back_identical(layout: str, kind: str, tmp_path: Path) -> None:
    images = noise(23, 3, 9, 5) if layout != "nhw" else noise(23, 1, 9, 5)
    given = {"nhw": images[:, 0], "nchw": images, "nhwc": images.transpose(0, 2, 3, 1)}[layout]
    source: Any = given
    if kind == "tensor":
        source = torch.from_numpy(given.copy())
    elif kind in ("npy", "fortran"):
        source = tmp_path / "a.npy"
        np.save(source, np.asfortranarray(given) if kind == "fortran" else given)
    elif kind == "npz":
        source = tmp_path / "a.npz"
        np.savez_compressed(source, images=given)
    elif kind == "idx":
        source = tmp_path
        (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(given))
    elif kind == "items":
        source = list(given)
    expect_images(load_data(source), images)


@pytest.mark.parametrize(
    "name", ["{}-images-idx3-ubyte.gz", "{}-images.idx3-ubyte", "emnist-a-{}-images-idx3-ubyte"]
)
def test_idx_folder_with_labels(name: str, tmp_path: Path) -> None:
    train, test = noise(20, 4, 6), noise(12, 4, 6, seed=1)
    for part, images in (("train", train), ("t10k", test)):
        pack = gzip.compress if name.endswith(".gz") else bytes
        labels = name.replace("images", "labels").replace("idx3", "idx1").format(part)
        (tmp_path / name.format(part)).write_bytes(pack(idx_bytes(images)))
        (tmp_path / labels).write_bytes(pack(idx_bytes(np.arange(len(images), dtype=np.uint8) % 3)))
    splits = load_data(tmp_path)
    assert torch.equal(splits.test.take(torch.arange(12))[:, 0], torch.from_numpy(test))
    assert splits.test.labels is not None
    assert splits.test.labels.tolist() == [0, 1, 2] * 4
    assert splits.train.class_names == ("0", "1", "2")
    assert (len(splits.train), len(splits.validation)) == (18, 2)  # 1/9 of 20


def test_npz_keeps_labels_attributes_names_and_test_part(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    images, test = noise(30, 4, 4, 3), noise(7, 4, 4, 3, seed=1)
    labels = images[:, 0, 0, 0].astype(np.int64) % 2
    attributes = rng.choice([0, 1, np.nan], (30, 2))
    np.savez(
        tmp_path / "a.npz",
        images=images,
        labels=labels,
        attributes=attributes,
        test_images=test,
        test_labels=np.ones(7, np.int32),
        test_attributes=np.ones((7, 2), bool),
        class_names=np.array(["even", "odd"]),
        attribute_names=np.array(["left", "right"]),
    )
    splits = load_data(tmp_path / "a.npz")
    assert splits.train.class_names == ("even", "odd")
    assert splits.train.attribute_names == ("left", "right")
    assert len(splits.test) == 7
    for part in (splits.train, splits.validation):
        assert part.labels is not None
        assert part.attributes is not None
        taken = part.take(torch.arange(len(part)))
        assert torch.equal(part.labels, taken[:, 0, 0, 0].long() % 2)
        for image, row in zip(taken, part.attributes, strict=True):
            (at,) = np.flatnonzero((images == image.numpy().transpose(1, 2, 0)).all((1, 2, 3)))
            np.testing.assert_array_equal(row.numpy(), attributes[at].astype(np.float32))
    found = summary(splits)
    known = int((~np.isnan(attributes[:, 0])).sum()) + 7
    ones = int((attributes[:, 0] == 1).sum()) + 7
    assert found["attributes"]["left"]["share"] == pytest.approx(ones / known)
    assert found["attributes"]["left"]["known"] == known
    assert found["classes"]["test"] == {"even": 0, "odd": 7}


class Pairs:
    """A map-style data set of (image, label)."""

    classes = ("cat", "dog")

    def __init__(self, images: list[Any], labels: list[Any]) -> None:
        self.pairs = list(zip(images, labels, strict=True))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.pairs[index]


@pytest.mark.parametrize("kind", ["pil", "array", "tensor", "float", "mapping"])
def test_map_style_data_sets(kind: str) -> None:
    images = noise(12, 5, 7, 3)
    given: list[Any] = {
        "pil": [Image.fromarray(image) for image in images],
        "array": list(images),
        "tensor": [torch.from_numpy(image).permute(2, 0, 1) for image in images],
        "float": [torch.from_numpy(image).permute(2, 0, 1) / 255 for image in images],
        "mapping": list(images),
    }[kind]
    labels = [number % 2 for number in range(12)]
    source: Any = Pairs(given, labels)
    if kind == "mapping":
        source = [
            {"image": image, "label": label} for image, label in zip(given, labels, strict=True)
        ]
    splits = load_data(source)
    expect_images(splits, images.transpose(0, 3, 1, 2))
    assert splits.train.class_names == (("0", "1") if kind == "mapping" else ("cat", "dog"))
    parts = (splits.train, splits.validation, splits.test)
    assert sum(int(part.labels.sum()) for part in parts if part.labels is not None) == 6


def test_tuple_of_images_and_labels() -> None:
    images = noise(30, 4, 4)
    splits = load_data((images, images[:, 0, 0] // 128))
    assert splits.train.labels is not None
    assert torch.equal(
        splits.train.labels, splits.train.take(torch.arange(24))[:, 0, 0, 0].long() // 128
    )


# ---------------------------------------------------------------------------------- depth and range


def test_depths_become_eight_bits() -> None:
    def to_uint8(values: NDArray[Any]) -> Pixels:
        return Levels().pixels(values)

    sixteen = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(to_uint8(sixteen), np.rint(sixteen / 257))
    eight = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(eight / np.float64(255)), eight)
    np.testing.assert_array_equal(to_uint8((eight / 255).astype(np.float16)), eight)
    np.testing.assert_array_equal(to_uint8(eight.astype(np.int64)), eight)
    np.testing.assert_array_equal(to_uint8(np.array([False, True])), [0, 255])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((12, 4, 4), np.nan), "NaN or infinite"),
        (np.full((12, 4, 4), np.inf), "NaN or infinite"),
        (np.full((12, 4, 4), None), "Python objects"),
        (np.full((12, 4, 4), 1j), "holds complex128"),
        (np.full((12, 4, 4), -1), r"all values are -1. Pass --range LOW,HIGH"),
        (np.full((12, 4, 4), 7.5), r"all values are 7.5. Pass --range LOW,HIGH"),
        (noise(12, 16), r"shape \(12, 16\), no images.*reshape"),
        (noise(12, 5, 4, 6), r"shape \(5, 4, 6\).*fewer channels than rows and columns"),
        (noise(0, 4, 4), "no images"),
        (noise(12, 0, 4), "no pixels"),
        ((noise(12, 4, 4), np.arange(11)), "11 labels for 12 images"),
        ((noise(12, 4, 4), np.arange(12) / 2), "label 0.5 is no whole number"),
        ((noise(12, 4, 4), np.arange(12) - 2), "label -2 is negative"),
        (object(), "no source of images"),
        ([noise(4, 4), noise(5, 4)] * 6, r"differ in size.*--size 16x16"),
        ([noise(4, 4), noise(4, 4, 3)] * 6, "1 and 3 channels.*--channels 3"),
        ([(noise(4, 4), {"boxes": 1})] * 12, "dict with boxes for a label"),
        ([{"photo": noise(4, 4), "id": 1}] * 12, "keys photo, id, and none is an image's"),
    ],
)
def test_faults_of_arrays_name_the_remedy(images: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(images)


# --------------------------------------------------------------------------------- image folders


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_folder_comes_back_identical(suffix: str, channels: int, tmp_path: Path) -> None:
    images = noise(14, 37, 53, 3) if channels == 3 else noise(14, 37, 53)
    options = {"lossless": True} if suffix == ".webp" else {}
    save_images(tmp_path, images, suffix, **options)
    splits = load_data(tmp_path, channels=channels)
    expect_images(splits, images.transpose(0, 3, 1, 2) if channels == 3 else images[:, None])
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [12, 1, 1]


def test_folder_names_give_split_and_classes(tmp_path: Path) -> None:
    for number, (part, kind) in enumerate(
        (part, kind) for part in ("train", "val", "test") for kind in ("b", "a")
    ):
        save_images(tmp_path / part / kind, np.full((number + 1, 4, 4), 40 * number, np.uint8))
    (tmp_path / "readme.txt").write_text("no image")
    splits = load_data(tmp_path)
    found = summary(splits)
    assert found["images"] == {"train": 3, "validation": 7, "test": 11}
    assert found["classes"]["validation"] == {"a": 4, "b": 3}
    assert found["held_out"] is True
    assert splits.test.labels is not None
    level = splits.test.take(torch.arange(11))[:, 0, 0, 0]
    assert torch.equal(level, torch.tensor([200, 160])[splits.test.labels].to(torch.uint8))
    assert any("1 file is no image" in note and "readme.txt" in note for note in splits.notes)


def test_stray_image_beside_train_is_an_error(tmp_path: Path) -> None:
    save_images(tmp_path / "train", noise(3, 4, 4))
    save_images(tmp_path / "extra", noise(3, 4, 4))
    with pytest.raises(DataError, match=r"extra/000.png is beside train"):
        load_data(tmp_path)


def test_split_does_not_depend_on_the_order_of_the_file_system(tmp_path: Path) -> None:
    images = noise(40, 4, 4)
    for folder, order in (("a", range(40)), ("b", reversed(range(40)))):
        (tmp_path / folder).mkdir()
        for number in order:
            Image.fromarray(images[number]).save(tmp_path / folder / f"{number:03}.png")
    first, second = load_data(tmp_path / "a"), load_data(tmp_path / "b")
    assert torch.equal(first.test.take(torch.arange(4)), second.test.take(torch.arange(4)))
    assert torch.equal(first.train.take(torch.arange(32)), second.train.take(torch.arange(32)))


def test_modes_of_image_files(tmp_path: Path) -> None:
    colour = Image.fromarray(noise(6, 8, 3))
    alpha = Image.fromarray(np.full((6, 8), 128, np.uint8))
    grey = colour.convert("L")
    kinds = {
        "bit": (grey.convert("1"), 1),
        "grey": (grey, 1),
        "palette": (colour.quantize(8), 3),
        "la": (Image.merge("LA", (grey, alpha)), 4),
        "rgba": (Image.merge("RGBA", (*colour.split(), alpha)), 4),
    }
    for name, (image, channels) in kinds.items():
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "a.png")
        splits = load_data(tmp_path / name, channels=channels)
        found = splits.train.take(torch.tensor([0]))[0].numpy()
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        expected = np.asarray(image.convert(mode)).reshape(6, 8, channels).transpose(2, 0, 1)
        np.testing.assert_array_equal(found, expected)
    (tmp_path / "cmyk").mkdir()
    colour.convert("CMYK").save(tmp_path / "cmyk" / "a.tiff")
    found = load_data(tmp_path / "cmyk").train.take(torch.tensor([0]))[0].numpy()
    np.testing.assert_array_equal(found, np.asarray(colour).transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bit_files(suffix: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (9, 7), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    found = load_data(tmp_path).train.take(torch.tensor([0]))[0, 0].numpy()
    np.testing.assert_array_equal(found, np.rint(values / 257))


def test_exif_orientation_is_respected(tmp_path: Path) -> None:
    pixels = noise(8, 16, 3)
    for name in ("a.png", "b.tiff"):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be seen turned by 90 degrees clockwise
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    splits = load_data(tmp_path)
    upright = torch.from_numpy(np.rot90(pixels, -1).transpose(2, 0, 1).copy())
    assert splits.train.shape == (3, 16, 8)
    assert torch.equal(splits.train.take(torch.tensor([0, 1])), torch.stack([upright, upright]))


def test_mixed_channels_become_rgb_with_a_note(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 4)).save(tmp_path / "a.png")
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "b.png")
    splits = load_data(tmp_path)
    assert splits.train.shape == (3, 4, 4)
    assert any("converted to RGB" in note for note in splits.notes)


def test_files_of_several_sizes_are_fitted_to_a_middle_one(tmp_path: Path) -> None:
    save_images(tmp_path / "photos" / "a", noise(3, 6, 4))
    save_images(tmp_path / "photos" / "b", noise(2, 5, 4))
    splits = load_data(tmp_path / "photos")
    assert (splits.train.shape, splits.size) == ((1, 6, 4), (6, 4))
    note = "The images have 2 sizes, with shorter sides of 4 to 4 pixels: all are fitted to 6×4"
    assert any(note in line for line in splits.notes)
    named = load_data(tmp_path / "photos", size=(6, 4))
    assert (named.train.shape, named.size) == ((1, 6, 4), None)
    rows = torch.arange(len(splits.train))
    assert torch.equal(splits.train.take(rows), named.train.take(rows))
    assert not any("sizes" in line for line in named.notes)
    cache: dict[str, Any] = {"memory_budget": 1, "cache_dir": tmp_path / "cache"}
    cached = [load_data(tmp_path / "photos", **cache) for _ in "12"]
    assert [each.size for each in cached] == [(6, 4), (6, 4)]
    assert cached[0].notes == cached[1].notes == splits.notes


def test_unreadable_images_are_counted_and_can_be_left_out(tmp_path: Path) -> None:
    images = noise(20, 16, 16)
    save_images(tmp_path, images)
    whole = (tmp_path / "003.png").read_bytes()
    (tmp_path / "003.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "007.png").write_bytes(b"")
    (tmp_path / "008.png").write_text("text")
    with pytest.raises(
        DataError, match=r"3 of 20 images are unreadable \(first: 003.png, trunc.*--skip-bad"
    ):
        load_data(tmp_path)
    splits = load_data(tmp_path, skip_bad=True)
    expect_images(splits, np.delete(images, [3, 7, 8], 0)[:, None])
    assert "3 of 20" in splits.notes[0]


def test_all_images_unreadable_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(DataError, match="1 of 1 images are unreadable"):
        load_data(tmp_path, skip_bad=True)


def test_decompression_bombs_are_refused_whatever_pillow_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(noise(4, 4)).save(tmp_path / "a.png")
    bomb = bytearray((tmp_path / "a.png").read_bytes())
    bomb[16:24] = struct.pack(">II", 30000, 30000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    (tmp_path / "b.png").write_bytes(bytes(bomb))
    for limit in (1000, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=r"b.png, .*decompression bomb"):
            load_data(tmp_path)


def test_links_must_stay_inside(tmp_path: Path) -> None:
    save_images(tmp_path / "in", noise(3, 4, 4))
    save_images(tmp_path / "out", noise(3, 4, 4))
    inside = tmp_path / "in" / "a.png"
    inside.symlink_to(tmp_path / "in" / "000.png")
    assert len(load_data(tmp_path / "in").train) == 4
    for target in (tmp_path / "out" / "000.png", tmp_path / "out", Path("../out/none.png")):
        inside.unlink()
        inside.symlink_to(target)
        with pytest.raises(DataError, match=r"a.png is a link to .*outside"):
            load_data(tmp_path / "in", skip_bad=True)


def test_empty_and_missing_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        load_data(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_data(tmp_path / "none")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"no file of images that is read: .npy, .npz, .csv"):
        load_data(str(tmp_path / "a.txt"))


# --------------------------------------------------------------------------------- attributes.csv


def test_attributes_of_a_folder(tmp_path: Path) -> None:
    save_images(tmp_path / "train" / "x", noise(3, 4, 4))
    save_images(tmp_path / "test" / "x", noise(2, 4, 4))
    save_images(tmp_path / "val" / "x", noise(1, 4, 4))
    (tmp_path / "attributes.csv").write_text(
        "\ufefffile,smile,glasses\ntrain/x/001.png,1,\n\n./test/x/000.png,0,1\n", encoding="utf-8"
    )
    splits = load_data(tmp_path)
    nan = float("nan")
    assert splits.train.attribute_names == ("smile", "glasses")
    assert splits.train.attributes is not None
    assert splits.test.attributes is not None
    torch.testing.assert_close(
        splits.train.attributes, torch.tensor([[nan, nan], [1, nan], [nan, nan]]), equal_nan=True
    )
    torch.testing.assert_close(
        splits.test.attributes, torch.tensor([[0, 1], [nan, nan]]), equal_nan=True
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,a\n", "names no image of .*column 'name', first cell ''"),
        ("", "is empty"),
        ("file,a,a\n000.png,1,2", "two columns are named 'a'"),
        ("file,a\n000.png,1,2\n", "line 2 has 3 cells and the header has 2 .cell '2' is too many"),
        ("file,a\nnone.png,1\n", "names no image of .*column 'file', first cell 'none.png'"),
        ("file,a\n/etc/passwd,1\n", "names no image of .*'/etc/passwd'"),
        ("file,a\n000.png,1\n000.png,0\n", "line 3: '000.png' was named before, in line 2, with"),
        ("file,a\n\xff", "first cell 'ÿ'"),
    ],
)
def test_faults_of_attributes_name_the_line(text: str, message: str, tmp_path: Path) -> None:
    save_images(tmp_path, noise(2, 4, 4))
    (tmp_path / "attributes.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        load_data(tmp_path)


# ------------------------------------------------------------------------------- shape and channels


def test_fit_pads_crops_or_stretches() -> None:
    wide = np.full((1, 1, 10, 20), 200, np.uint8)
    padded = Geometry((20, 20)).batch(wide)[0, 0]
    assert (padded[5:15] == 200).all()
    assert (padded[:5] == 0).all()
    assert (padded[15:] == 0).all()
    left_right = np.repeat(np.array([0, 80, 160, 240], np.uint8), 5)[None, None, None].repeat(10, 2)
    cropped = Geometry((10, 10), fit="crop").batch(left_right)[0, 0]
    np.testing.assert_array_equal(cropped, left_right[0, 0, :, 5:15])
    stretched = Geometry((20, 20), fit="stretch").batch(wide)[0, 0]
    assert (stretched == 200).all()
    assert Geometry((4, 4)).batch(noise(1, 3, 1, 1000)).shape == (1, 3, 4, 4)


def test_channels_convert() -> None:
    rgb = noise(3, 5, 6)
    grey = set_channels(rgb, 1)
    pillow = Image.fromarray(rgb.transpose(1, 2, 0)).convert("L")
    np.testing.assert_array_equal(grey[0], np.asarray(pillow))
    np.testing.assert_array_equal(set_channels(set_channels(grey, 3), 1), grey)
    rgba = set_channels(rgb, 4)
    assert (rgba[3] == 255).all()
    np.testing.assert_array_equal(set_channels(rgba, 3), rgb)
    rgba[3] = 51
    np.testing.assert_array_equal(set_channels(rgba, 3, (0, 0, 0)), np.rint(rgb / 5))
    np.testing.assert_array_equal(set_channels(rgba, 3), np.rint(204 + rgb / 5))


@pytest.mark.parametrize(
    "options",
    [
        {"size": (0, 4)},
        {"size": (4, -1)},
        {"size": (10**6, 10**6)},
        {"size": (4.5, 4)},
        {"channels": 2},
        {"channels": 0},
        {"fit": "squeeze"},
        {"split": (0.5, 0.5)},
        {"split": (0.5, 0.5, 0.5)},
        {"split": (0.0, 0.5, 0.5)},
        {"split": (float("nan"), 0.5, 0.5)},
    ],
)
def test_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        load_data(noise(12, 4, 4), **options)


# ------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize("count", [1, 2, 9])
def test_few_images_are_not_held_out(count: int) -> None:
    splits = load_data((noise(count, 4, 4), np.zeros(count, np.int64)))
    assert splits.train is splits.validation is splits.test
    assert not splits.held_out
    assert len(splits.train) == count
    assert any("too few" in note for note in splits.notes)
    assert splits.train.class_names == ("0",)


@pytest.mark.parametrize(
    ("split", "sizes"),
    [
        ((0.8, 0.1, 0.1), [80, 10, 10]),
        ((0.5, 0.3, 0.2), [50, 30, 20]),
        ((0.01, 0.5, 0.49), [1, 50, 49]),
    ],
)
def test_shares_are_met_and_parts_share_nothing(split: tuple[float, ...], sizes: list[int]) -> None:
    images = noise(100, 6, 6)
    splits = load_data(images, split=split)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == sizes
    expect_images(splits, images[:, None])


@pytest.mark.parametrize("seed", range(20))
def test_rare_classes_are_in_every_part_that_can_have_them(seed: int) -> None:
    counts = np.array([60, 24, 6, 3, 2, 1])
    labels = np.repeat(np.arange(6), counts)
    images = noise(len(labels), 4, 4)
    splits = load_data((images, labels), split_seed=seed)
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [76, 10, 10]
    expect_images(splits, images[:, None])
    found = np.stack([np.bincount(part.labels, minlength=6) for part in parts])  # type: ignore[arg-type]
    assert (found.sum(0) == counts).all()
    assert found[0].min() > 0
    assert (found[:, :4] > 0).all()
    assert found[:, 4].tolist() == [1, 0, 1]
    assert found[:, 5].tolist() == [1, 0, 0]
    assert "classes spread over the parts" in splits.notes[-1]


def test_no_class_is_tested_more_often_than_others_where_there_is_no_room() -> None:
    labels = np.repeat(np.arange(20), 3)
    parts = np.zeros(60, np.int8)
    tested = np.zeros(20)
    for seed in range(400):
        (_, _, test), _, _ = split_rows(parts, (0.8, 0.1, 0.1), seed, labels)
        tested += np.bincount(labels[test], minlength=20)
    assert stats.chisquare(tested).pvalue > 0.001  # with classes in their order: 1e-70


def test_classes_that_are_everywhere_change_no_split() -> None:
    images, labels = noise(200, 4, 4), np.arange(200) % 2
    one, other = load_data(images), load_data((images, labels))
    assert torch.equal(one.test.take(torch.arange(20)), other.test.take(torch.arange(20)))


def test_more_classes_than_a_part_has_images_leave_some_out() -> None:
    splits = load_data((noise(60, 4, 4), np.arange(60) // 2))
    assert splits.test.labels is not None
    assert splits.train.labels is not None
    assert len(splits.train.labels.unique()) == 30
    assert len(splits.test.labels.unique()) == 6


def test_a_share_of_zero_is_stood_in_for() -> None:
    splits = load_data(noise(20, 4, 4), split=(0.9, 0.1, 0.0))
    assert splits.test is splits.train
    assert len(splits.validation) == 2
    assert not splits.held_out


# ------------------------------------------------------------------------------- damaged files


def corrupted() -> Iterator[Any]:
    good = idx_bytes(noise(12, 4, 4))
    packed = gzip.compress(good)
    for name, data, message in (
        ("magic", b"\x01" + good[1:], "does not start as an IDX"),
        ("short", good[:-1], "truncated"),
        ("header", good[:7], "damaged"),
        ("empty", b"", "damaged"),
        ("long", good + b"x", "goes on after its 12 rows"),
        ("gz-short", packed[:-20], "truncated"),
        ("gz-sum", packed[:-8] + b"\0" * 8, "damaged"),
        ("gz-long", packed + b"junk", "damaged"),
        ("gz-more", gzip.compress(good + b"x"), "goes on after"),
        ("huge", struct.pack(">HBB3I", 0, 8, 3, *(2**32 - 1,) * 3), "truncated"),
    ):
        yield pytest.param(data, message, id=name)


@pytest.mark.parametrize(("data", "message"), list(corrupted()))
def test_damaged_idx_files(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(data)
    with pytest.raises(DataError, match=f"train-images-idx3-ubyte: .*{message}"):
        load_data(tmp_path)


def test_two_sets_in_one_idx_folder(tmp_path: Path) -> None:
    for name in ("a-train-images-idx3-ubyte", "b-train-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(idx_bytes(noise(12, 4, 4)))
    with pytest.raises(DataError, match="Keep one data set a folder"):
        load_data(tmp_path)


def test_npz_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, words=np.array(["a"]), rows=noise(3, 4))
    with pytest.raises(DataError, match="holds rows, words, and none is named as images"):
        load_data(path)
    np.savez(path, images=np.array([noise(4, 4), None], dtype=object))
    with pytest.raises(DataError, match=r"a.npz\[images\]: holds object; objects are never read"):
        load_data(path)
    np.savez(path, images=noise(12, 4, 4), labels=np.arange(9))
    with pytest.raises(DataError, match=r"\[labels\]: 9 labels for 12 images"):
        load_data(path)
    np.savez(path, images=noise(12, 4, 4), attributes=np.full((12, 1), "yes"))
    with pytest.raises(DataError, match=r"attributes are <U3. Save numbers, NaN for unknown"):
        load_data(path)
    np.savez(path, images=noise(12, 4, 4), test_images=noise(12, 5, 4))
    with pytest.raises(DataError, match="differ in size"):
        load_data(path)


def test_damaged_mnist_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaelab.data import load

    for file in MNIST.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damaged = tmp_path / "t10k-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(load, "MNIST", tmp_path)
    load._check_mnist.cache_clear()
    with pytest.raises(DataError, match=r"t10k-labels.*SHA-256"):
        load_data("mnist")
    load._check_mnist.cache_clear()


def test_summary_of_known_pixels() -> None:
    images = np.zeros((4, 3, 2, 2), np.uint8)
    images[:2] = 255
    found = summary(load_data(images))
    assert found["pixels"] == {"mean": 0.5, "std": 0.5, "images": 4}
    assert found["shape"] == {"channels": 3, "height": 2, "width": 2}
    assert found["classes"] == {"train": {}, "validation": {}, "test": {}}


def test_pillow_objects_given_by_the_user_stay_as_they_are() -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(buffer, "jpeg")
    image = Image.open(buffer)
    load_data([image], size=(8, 8))
    assert image.size == (64, 64)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7, 5), (1, 7, 5)),
        ((3, 7, 5), (3, 7, 5)),
        ((7, 5, 3), (3, 7, 5)),
        ((4, 4, 3), (3, 4, 4)),
        ((3, 8, 4), (3, 8, 4)),
        ((4, 8, 4), (4, 8, 4)),
        ((8, 8, 4), (4, 8, 8)),
    ],
)
def test_layout_of_arrays(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert load_data(noise(3, *shape)).train.shape == expected


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({(10, 12): 1, (20, 22): 1, (30, 32): 3}, (30, 32)),  # that of most
        ({(size, size + 2): 1 for size in (50, 10, 20, 14, 40)}, (20, 20)),
        ({(3000, 2000): 9, (1000, 1500): 8}, (256, 256)),  # upright and not
        ({(3000, 4000): 9, (1200, 1600): 8, (60, 60): 1}, (256, 344)),  # nearly all 4:3
        ({(400, 300): 2, (200, 150): 2, (130, 100): 2}, (200, 152)),
        ({(5, 7): 1, (6, 6): 1}, (16, 16)),
        ({(1, 8): 1, (70, 70): 1, (75, 70): 1}, (72, 72)),
    ],
)
def test_a_middle_size_is_that_of_most_or_of_the_median(
    sizes: dict[tuple[int, int], int], expected: tuple[int, int]
) -> None:
    assert middle(sizes) == expected


def test_images_that_are_long_for_the_size_are_counted() -> None:
    sizes = {(64, 64): 3, (64, 60): 2, (64, 140): 2, (300, 60): 1}
    assert "3 images are more than twice as wide or as high for that: they get bars" in fitted(
        sizes, (64, 64), "pad"
    )
    assert "half of them or more is cut off" in fitted(sizes, (64, 64), "crop")
    assert "twice" not in fitted(sizes, (64, 64), "stretch")
    assert "twice" not in fitted({(64, 64): 3, (64, 127): 2}, (64, 64), "pad")


def test_more_labels_than_there_are_is_an_error() -> None:
    images = load_data((noise(40, 4, 4), np.arange(40) % 2)).train
    assert len(images) == 32
    with pytest.raises(ConfigError, match="200 labels are asked for, and there are 32 among 32"):
        with_few_labels(images, 200, 0)
    few = with_few_labels(images, 6, 0)
    assert few.labels is not None
    again = with_few_labels(few, 6, 1)  # unknown labels are none
    assert again.labels is not None
    assert torch.equal(again.labels, few.labels)
