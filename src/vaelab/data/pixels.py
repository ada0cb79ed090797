"""From any number, layout and image mode to uint8 ``(…, C, H, W)``.

Depth: 8 bits stay, 16 bits become ``round(x / 257)``, floats in [0, 1] become ``round(255 x)``.
Channels: grey is the luma of Rec. 601, ``0.299 R + 0.587 G + 0.114 B``; RGB of grey repeats it;
alpha is added as opaque and removed by compositing on black.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from vaelab.config import Fit
from vaelab.errors import DataError

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]  # channels, height, width

CHANNELS = (1, 3, 4)
COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
MAX_PIXELS = 2**26
"""More than this in one image (67 megapixels) is taken for a decompression bomb."""

_LUMA = np.array([19595, 38470, 7471], np.uint32)  # 0.299, 0.587, 0.114 in 1/65536
_CLOSE = 1e-5  # by which a resized float may leave [0, 1]


@dataclass(frozen=True)
class Geometry:
    """The shape that every image is brought to; None leaves it as it is.

    Arguments:
        size: height and width.
        channels: 1 grey, 3 RGB, 4 RGBA.
        fit: ``pad`` keeps all of the image and centres it on 0, ``crop`` fills the size and cuts
            what overlaps, ``stretch`` changes the aspect ratio.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    fit: Fit = "pad"

    def __post_init__(self) -> None:
        size = self.size
        if size is not None and (
            len(size) != 2
            or not all(isinstance(side, int) and side > 0 for side in size)
            or prod(size) > MAX_PIXELS
        ):
            raise DataError(
                f"size {size}: must be height and width in whole pixels, at most "
                f"{MAX_PIXELS:,} pixels in all. Pass for example --size 64x64."
            )
        if self.channels not in (None, *CHANNELS):
            raise DataError(f"channels {self.channels}: pass 1 (grey), 3 (RGB) or 4 (RGBA).")
        if self.fit not in ("pad", "crop", "stretch"):
            raise DataError(f"fit {self.fit!r}: pass pad, crop or stretch.")

    def shape(self, channels: int, height: int, width: int) -> Shape:
        """What an image of this shape becomes."""
        return (self.channels or channels, *(self.size or (height, width)))

    def image(self, image: Image.Image) -> Pixels:
        """Bring one opened image to ``(C, H, W)``."""
        pixels = np.asarray(self._resize(_plain(image)))
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        return set_channels(pixels, self.channels or len(pixels))

    def batch(self, pixels: Pixels) -> Pixels:
        """Bring ``(B, C, H, W)`` of any shape to the one asked for."""
        if self.size not in (None, pixels.shape[2:]):
            mode = slice(None) if pixels.shape[1] > 1 else 0  # PIL wants grey as (H, W)
            resized = [
                np.asarray(self._resize(Image.fromarray(np.ascontiguousarray(one[..., mode]))))
                for one in pixels.transpose(0, 2, 3, 1)
            ]
            pixels = np.stack(resized).reshape(len(pixels), *self.size, -1).transpose(0, 3, 1, 2)
        return set_channels(pixels, self.channels or pixels.shape[1])

    def _resize(self, image: Image.Image) -> Image.Image:
        if self.size is None or self.size == (image.height, image.width):
            return image
        height, width = self.size
        if self.fit == "crop":
            return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
        if self.fit == "stretch":
            return image.resize((width, height), Image.Resampling.BICUBIC)
        scale = min(height / image.height, width / image.width)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        canvas = Image.new(image.mode, (width, height), 0)
        canvas.paste(
            image.resize(inner, Image.Resampling.BICUBIC),
            ((width - inner[0]) // 2, (height - inner[1]) // 2),
        )
        return canvas


def set_channels(pixels: Pixels, channels: int) -> Pixels:
    """Convert ``(…, C, H, W)`` between grey, RGB and RGBA."""
    have = pixels.shape[-3]
    if have == channels:
        return pixels
    if have == 4:
        alpha = pixels[..., 3:, :, :].astype(np.uint16)
        pixels = ((pixels[..., :3, :, :] * alpha + 127) // 255).astype(np.uint8)
    if channels == 1:
        grey = np.einsum("...chw,c->...hw", pixels.astype(np.uint32), _LUMA)
        grey = ((grey + 2**15) >> 16).astype(np.uint8)
        return np.expand_dims(grey, -3)
    if have == 1:
        pixels = np.repeat(pixels, 3, axis=-3)
    if channels == 4:
        opaque = np.full_like(pixels[..., :1, :, :], 255)
        pixels = np.concatenate((pixels, opaque), axis=-3)
    return pixels


def native_shape(image: Image.Image) -> Shape:
    """Channels, height and width of an opened image when upright, from its header alone."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{width}×{height} pixels, taken for a decompression bomb")
    if isinstance(image, TiffImageFile):  # its size is upright at once in some versions of Pillow
        width, height = image.tag_v2[256], image.tag_v2[257]
    if image.format != "PNG" or "exif" in image.info:  # else a PNG would be decoded to look for it
        if image.getexif().get(0x0112, 1) >= 5:  # the orientation tag: turned by 90 degrees
            width, height = height, width
    return _channels(image), height, width


def _channels(image: Image.Image) -> int:
    if image.mode == "1" or image.mode[0] in "IF":
        return 1
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return 4
    return 1 if image.mode == "L" else 3


def _plain(image: Image.Image) -> Image.Image:
    """Decode to mode L, RGB or RGBA, upright."""
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        values: NDArray[Any] = np.asarray(image)
        if image.mode == "I":  # 32 bits that hold 16
            if values.min() < 0 or values.max() > 65535:
                raise DataError("32-bit integers outside [0, 65535]")
            values = values.astype(np.uint16)
        return Image.fromarray(to_uint8(values))
    return image.convert(MODES[_channels(image)])


def as_array(values: Any) -> NDArray[Any]:
    """A NumPy view of a tensor (bfloat16 is widened) or of anything array-like."""
    try:
        if isinstance(values, Tensor):
            values = values.detach().cpu()
            return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{type(values).__name__} is no array of numbers ({error})") from None


def channels_first(shape: tuple[int, ...]) -> tuple[Shape, tuple[int, ...]]:
    """Shape ``(C, H, W)`` of one image of ``shape``, and the axes in that order.

    Takes (H, W), (C, H, W) and (H, W, C). Where the last two are both possible, 1 or 3 channels
    go before 4, and channels first before channels last.
    """
    found: tuple[int, ...]
    axes: tuple[int, ...]
    if len(shape) == 2:
        found, axes = (1, *shape), (0, 1)
    elif len(shape) == 3 and (shape[0] in (1, 3) or (shape[0] == 4 and shape[2] not in (1, 3))):
        found, axes = shape, (0, 1, 2)
    elif len(shape) == 3 and shape[2] in CHANNELS:
        found, axes = (shape[2], shape[0], shape[1]), (2, 0, 1)
    else:
        raise DataError(
            f"each image has shape {shape}, not (H, W), (C, H, W) or (H, W, C) with 1, 3 or 4 "
            "channels. Reshape the array"
        )
    if not 0 < prod(found) <= 4 * MAX_PIXELS:
        raise DataError(f"each image has shape {shape}: no pixels, or too many. Reshape the array")
    channels, height, width = found
    return (channels, height, width), axes


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raise `DataError` unless these are plain numbers."""
    if dtype.hasobject:
        raise DataError("holds Python objects, which are never read. Save an array of numbers")
    if dtype.kind not in "buif":
        raise DataError(f"holds {dtype}, not pixels. Save uint8, uint16 or floats in [0, 1]")


def to_uint8(values: NDArray[Any]) -> Pixels:
    """Bring numbers to 8 bits; raises `DataError` when their range is not one of pixels."""
    check_dtype(values.dtype)
    if values.dtype == np.uint8 or values.size == 0:
        return values.astype(np.uint8, copy=False)
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    low, high = values.min(), values.max()
    if values.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise DataError(
                f"{values.dtype} numbers in [{low}, {high}]: integers must be in [0, 255], or "
                "uint16. Rescale them and convert with .astype('uint8')"
            )
        return values.astype(np.uint8)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError("holds NaN or infinite pixels. Replace or leave out those images")
    if low < -_CLOSE or high > 1 + _CLOSE:
        raise DataError(f"floats must be in [0, 1] but are in {_interval(low, high)}")
    scaled = values.astype(np.float32).clip(0, 1) * np.float32(255)
    return np.rint(scaled).astype(np.uint8)


def _interval(low: float, high: float) -> str:
    if low >= -1 and high <= 1:
        return "[-1, 1]. Rescale them: (images + 1) / 2"
    if low >= 0 and high <= 255:
        return "[0, 255]. Divide them by 255, or convert whole numbers with .astype('uint8')"
    return f"[{low:g}, {high:g}]. Rescale them: (images - low) / (high - low)"
