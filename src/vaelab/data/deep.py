"""Images of more bits or channels than Pillow has modes for, as numbers.

Pillow decodes colours of 16 bits to 8: to the upper byte, which of 12-bit values leaves 16 levels.
A PNG is decoded twice here, for the upper and for the lower bytes.
"""

from __future__ import annotations

import io
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from vaelab.data.formats import FORMATS, searched
from vaelab.data.tiff import Tiff, Values, upright
from vaelab.errors import DataError

_ORIENTATION = 274
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_image(file: IO[bytes]) -> Image.Image:
    """Open an image file; raises what Pillow does."""
    head = file.read(4)
    file.seek(0)
    if head not in _TIFF_HEADS:
        return Image.open(searched(file), formats=FORMATS)
    try:
        return Tiff(file)
    except SyntaxError as error:  # as `Image.open` has it
        raise UnidentifiedImageError(str(error)) from None


def bands(image: Image.Image) -> int:
    """Channels of an image that are no colours, such as near infrared; 0 for colours."""
    return image.samples if isinstance(image, Tiff) and image.deep and not _coloured(image) else 0


def deep_values(image: Image.Image) -> tuple[Values, bool] | None:
    """All samples ``(H, W, C)`` of an image, upright, and whether the last is alpha.

    None where Pillow reads all there is.
    """
    if isinstance(image, Tiff):
        return (image.values(), image.alpha) if image.deep else None
    if _deep_png(image):
        return _png(image), image.mode == "RGBA" or "transparency" in image.info
    return (_pnm(image), False) if _deep_pnm(image) else None


def _coloured(image: Tiff) -> bool:
    return image.alpha or image.samples in (1, 3)


def _raw_mode(image: Image.Image) -> str:
    """How Pillow means to unpack the pixels of an image that is not loaded yet."""
    tile = getattr(image, "tile", None)
    args = tile[0][3] if tile else ""
    return str(args[0] if isinstance(args, tuple) else args)


def _deep_png(image: Image.Image) -> bool:
    of_colours = _raw_mode(image) in ("RGB;16B", "RGBA;16B", "LA;16B")
    return isinstance(image, PngImageFile) and of_colours and not image.is_animated


def _png(image: Image.Image) -> Values:
    """Decode a PNG of 16-bit colours."""
    raw = _raw_mode(image)
    if raw == "LA;16B":  # as wide as one of four 8-bit channels
        pairs = np.ascontiguousarray(_unpacked(image, "RGBA"))
        found: NDArray[np.uint16] = pairs.view(">u2").astype(np.uint16)
    else:
        upper, lower = (_unpacked(image, raw[:-1] + end) for end in "BL")
        found = upper.astype(np.uint16) * np.uint16(256) + lower
    if "transparency" in image.info:  # one colour is
        clear = (found == np.array(image.info["transparency"], np.uint16)).all(-1, keepdims=True)
        found = np.concatenate((found, np.where(clear, 0, 65535).astype(np.uint16)), -1)
    return found


def _unpacked(image: Image.Image, raw: str) -> NDArray[np.uint8]:
    file = getattr(image, "fp", None)
    assert file is not None
    file.seek(0)
    with PngImageFile(io.BytesIO(file.read())) as again:
        again.tile = [again.tile[0]._replace(args=raw)]
        again.load()
        return upright(np.array(again), again.getexif().get(_ORIENTATION, 1))


def _deep_pnm(image: Image.Image) -> bool:
    tile = getattr(image, "tile", None)
    args = tile[0][3] if tile else None
    deep = isinstance(args, tuple) and isinstance(args[-1], int) and args[-1] > 255
    return image.format == "PPM" and image.mode == "RGB" and deep


def _pnm(image: Image.Image) -> Values:
    """Decode a PPM of 16-bit colours, which has them in plain bytes behind its head."""
    file, tile = getattr(image, "fp", None), getattr(image, "tile", [])
    assert file is not None
    file.seek(0)
    if file.read(2) != b"P6":
        raise DataError("a PPM of 16-bit colours as text, which is not read. Save it as PNG")
    file.seek(tile[0][2])
    size = image.width * image.height * 6
    data = file.read(size)
    if len(data) < size:
        raise DataError("truncated")
    return np.frombuffer(data, ">u2").reshape(image.height, image.width, 3).astype(np.uint16)
