"""Images of more bits or channels than Pillow reads: every value is that of the file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests.test_data_levels import read
from vaelab.data import load_data
from vaelab.data.deep import deep_values, open_image
from vaelab.errors import DataError

Numbers = NDArray[Any]

CHANCE = np.random.default_rng(5)


def write_tiff(path: Path, values: Numbers, photometric: int = 1, **how: Any) -> None:
    """Write ``(H, W, C)``: extra, planar, rows a strip, tile, deflate, predictor, big, format."""
    height, width, samples = values.shape
    order: Literal["<", ">"] = ">" if how.get("big") else "<"
    planes = [values[..., k : k + 1] for k in range(samples)] if how.get("planar") else [values]
    pieces = []
    for plane in planes:
        if tile := how.get("tile"):
            down, across = -height % tile, -width % tile
            whole = np.pad(plane, ((0, down), (0, across), (0, 0)))
            blocks = [
                whole[y : y + tile, x : x + tile]
                for y in range(0, whole.shape[0], tile)
                for x in range(0, whole.shape[1], tile)
            ]
        else:
            rows = int(how.get("rows") or height)
            blocks = [plane[y : y + rows] for y in range(0, height, rows)]
        for block in blocks:
            if how.get("predictor"):
                block = np.diff(block, axis=1, prepend=np.zeros_like(block[:, :1]))
            data = block.astype(block.dtype.newbyteorder(order)).tobytes()
            pieces.append(zlib.compress(data) if how.get("deflate") else data)
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags: dict[int, tuple[str, Sequence[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [values.dtype.itemsize * 8] * samples),
        259: ("H", [8 if how.get("deflate") else 1]),
        262: ("H", [photometric]),
        277: ("H", [samples]),
        284: ("H", [2 if how.get("planar") else 1]),
        317: ("H", [2 if how.get("predictor") else 1]),
        339: ("H", [kind] * samples),
        274: ("H", [int(how.get("orientation") or 1)]),
    }
    if "extra" in how:
        tags[338] = ("H", how["extra"])
    starts = [8 + sum(map(len, pieces[:k])) for k in range(len(pieces))]
    lengths = [len(piece) for piece in pieces]
    if how.get("tile"):
        tags |= {322: ("I", [how["tile"]]), 323: ("I", [how["tile"]])}
        tags |= {324: ("I", starts), 325: ("I", lengths)}
    else:
        tags |= {
            278: ("I", [int(how.get("rows") or height)]),
            273: ("I", starts),
            279: ("I", lengths),
        }
    body, table = b"".join(pieces), b""
    body += bytes(len(body) % 2)
    for tag, (form, numbers) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(numbers)}{form}", *numbers)
        if len(data) > 4:
            at = struct.pack(f"{order}I", 8 + len(body))
            body += data + bytes(len(data) % 2)
            data = at
        kinds = struct.pack(f"{order}HHI", tag, 3 if form == "H" else 4, len(numbers))
        table += kinds + data.ljust(4, b"\0")
    head = (b"MM" if how.get("big") else b"II") + struct.pack(f"{order}HI", 42, 8 + len(body))
    path.write_bytes(head + body + struct.pack(f"{order}H", len(tags)) + table + bytes(4))


def values_of(path: Path) -> Numbers | None:
    with path.open("rb") as file, open_image(file) as image:
        found = deep_values(image)
        return None if found is None else found[0]


def some(kind: str, samples: int) -> Numbers:
    """13 × 19 pixels of any value of a type."""
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return CHANCE.normal(size=(13, 19, samples)).astype(dtype)
    info = np.iinfo(dtype)
    found = CHANCE.integers(info.min, info.max, (13, 19, samples), dtype, endpoint=True)
    return found


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"rows": 4},
        {"planar": True, "rows": 5},
        {"tile": 16},
        {"planar": True, "tile": 16, "deflate": True, "predictor": True},
        {"deflate": True, "predictor": True, "rows": 3},
        {"tile": 16, "deflate": True, "predictor": True, "big": True},
        {"big": True},
    ],
)
@pytest.mark.parametrize(
    ("kind", "samples"), [("u1", 2), ("u1", 5), ("u2", 4), ("i2", 3), ("u4", 1), ("u2", 13)]
)
def test_every_sample_of_a_tiff_is_read(
    kind: str, samples: int, how: dict[str, Any], tmp_path: Path
) -> None:
    values = some(kind, samples)
    write_tiff(tmp_path / "a.tif", values, extra=[0] * (samples - 1), **how)
    found = values_of(tmp_path / "a.tif")
    assert found is not None
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("kind", "samples", "photometric"), [("f8", 1, 1), ("f4", 3, 2), ("f2", 2, 1), ("i1", 1, 1)]
)
def test_floats_and_signed_samples(
    kind: str, samples: int, photometric: int, tmp_path: Path
) -> None:
    values = some(kind, samples)
    write_tiff(tmp_path / "a.tif", values, photometric, deflate=True, rows=6)
    found = values_of(tmp_path / "a.tif")
    assert found is not None
    np.testing.assert_array_equal(found, values)


def test_orientation_white_and_alpha_of_a_tiff(tmp_path: Path) -> None:
    values = some("u2", 2)
    for number in range(1, 9):
        write_tiff(tmp_path / "a.tif", values, extra=[0], orientation=number)
        found = values_of(tmp_path / "a.tif")
        plain = Image.fromarray(values[..., 0] // 256)
        exif = plain.getexif()
        exif[274] = number
        plain.convert("L").save(tmp_path / "b.png", exif=exif)
        with Image.open(tmp_path / "b.png") as image:
            wanted = np.asarray(ImageOps.exif_transpose(image))
        assert found is not None
        np.testing.assert_array_equal(found[..., 0] // 256, wanted)
    write_tiff(tmp_path / "a.tif", values[..., :1], 0)
    found = values_of(tmp_path / "a.tif")
    assert found is not None
    np.testing.assert_array_equal(found, 65535 - values[..., :1])
    half = np.full((5, 6, 4), 30000, np.uint16)
    half[..., 3] = 40000
    write_tiff(tmp_path / "a.tif", half, 2, extra=[1])  # premultiplied
    found = values_of(tmp_path / "a.tif")
    assert found is not None
    assert found[0, 0].tolist() == [49151, 49151, 49151, 40000]


def test_channels_of_a_tiff_are_kept_or_refused_with_the_remedy(tmp_path: Path) -> None:
    images = CHANCE.integers(0, 256, (12, 9, 8, 4), np.uint8)
    for number, image in enumerate(images):
        write_tiff(tmp_path / f"{number:02}.tif", image, 2, extra=[0])
    pixels, splits = read(tmp_path)
    np.testing.assert_array_equal(pixels, images.transpose(0, 3, 1, 2))
    assert "fourth channel of the images is not said to be alpha" in " ".join(splits.notes)
    wide, _ = read(tmp_path, size=(9, 16))
    np.testing.assert_array_equal(wide[..., 4:12], pixels)
    with pytest.raises(DataError, match=r"4 channels that are not all colours cannot be made RGB"):
        load_data(tmp_path, channels=3)
    write_tiff(tmp_path / "00.tif", images[0][..., :2], extra=[0])
    with pytest.raises(DataError, match=r"differ in channels \(1 of 2, 11 of 4\)"):
        load_data(tmp_path)


def test_a_kind_that_is_not_read_is_named(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", some("u2", 5), extra=[0] * 4)
    data = (tmp_path / "a.tif").read_bytes()
    lzma = data.replace(
        struct.pack("<HHIHH", 259, 3, 1, 1, 0), struct.pack("<HHIHH", 259, 3, 1, 7, 0)
    )
    (tmp_path / "a.tif").write_bytes(lzma)
    with pytest.raises(DataError) as caught:
        load_data(tmp_path)
    assert "a TIFF of 5 samples of 16 bits, compression 7, which is not read" in str(caught.value)
    assert str(caught.value).endswith("Save the images as .npy or .npz).")


def write_png(path: Path, values: Numbers, clear: Sequence[int] = ()) -> None:
    """Write 16-bit ``(H, W, C)``, row k by filter k mod 5."""
    rows = values.astype(">u2").view(np.uint8).reshape(len(values), -1).astype(int)
    step, before, data = values.shape[2] * 2, np.zeros_like(rows[0]), b""
    for number, row in enumerate(rows):
        left = np.concatenate((np.zeros(step, int), row[:-step]))
        corner = np.concatenate((np.zeros(step, int), before[:-step]))
        guess = left + before - corner
        near = np.stack([abs(guess - each) for each in (left, before, corner)]).argmin(0)
        paeth = np.choose(near, (left, before, corner))
        of = (0 * row, left, before, (left + before) // 2, paeth)[number % 5]
        data += bytes([number % 5]) + ((row - of) % 256).astype(np.uint8).tobytes()
        before = row
    height, width, channels = values.shape
    colour = {2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    if len(clear):
        chunks.insert(1, (b"tRNS", struct.pack(">3H", *clear)))
    text = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + text)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_16_bits_in_a_png(channels: int, tmp_path: Path) -> None:
    values = some("u2", channels)
    write_png(tmp_path / "a.png", values)
    found = values_of(tmp_path / "a.png")
    assert found is not None
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("suffix", [".png", ".ppm", ".tif"])
def test_colours_of_12_bits_keep_their_levels(suffix: str, tmp_path: Path) -> None:
    images = CHANCE.integers(0, 4096, (12, 7, 6, 3)).astype(np.uint16)
    images[0, 0, 0] = 4095
    for number, image in enumerate(images):
        path = tmp_path / f"{number:02}{suffix}"
        if suffix == ".png":
            write_png(path, image)
        elif suffix == ".tif":
            write_tiff(path, image, 2)
        else:
            path.write_bytes(b"P6\n# of a camera\n6 7\n65535\n" + image.astype(">u2").tobytes())
    pixels, splits = read(tmp_path)
    np.testing.assert_array_equal(pixels, np.rint(images / 4095 * 255).transpose(0, 3, 1, 2))
    assert splits.range == [0, 4095]
    assert "of 65,535: 0 to 4,095 (12 bits) was scaled" in " ".join(splits.notes)
    full, splits = read(tmp_path, range="full")
    assert full.max() == 16
    assert "Only 17 of 256 levels" in " ".join(splits.notes)


def test_transparent_colours_of_16_bits_are_composited(tmp_path: Path) -> None:
    image = np.zeros((5, 6, 4), np.uint16)
    image[2:, :, 3] = 65535
    image[4, :, :3] = 40092
    for number in range(11):
        write_png(tmp_path / f"{number:02}.png", image)
    pixels, splits = read(tmp_path)
    assert pixels[0, 0, :, 0].tolist() == [255, 255, 0, 0, 156]
    assert "11 of 11 images have transparent parts" in " ".join(splits.notes)
    pixels, _ = read(tmp_path, channels=4)
    assert pixels[0, 3, :, 0].tolist() == [0, 0, 255, 255, 255]
    for number in range(11):
        write_png(tmp_path / f"{number:02}.png", image[..., :3], clear=(0, 0, 0))
    pixels, _ = read(tmp_path)
    assert pixels[0, 0, :, 0].tolist() == [255, 255, 255, 255, 156]


def test_floats_that_are_nothing_say_so(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(np.full((5, 6), np.nan, np.float32)).save(tmp_path / f"{number}.tif")
    with pytest.raises(DataError) as caught:
        load_data(tmp_path)
    assert "0.tif, holds NaN or infinite pixels. Replace" in str(caught.value)
    assert "convert them to PNG" not in str(caught.value)


def test_damaged_tiffs_are_errors_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_tiff(path, some("u2", 5), extra=[0] * 4, tile=16, deflate=True)
    whole = path.read_bytes()
    start = int.from_bytes(whole[4:8], "little")
    for at in range(start, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            load_data(tmp_path)
        except DataError as error:
            assert "a.tif" in str(error)  # noqa: PT017
