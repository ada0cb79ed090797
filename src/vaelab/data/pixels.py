"""From any layout and image mode to uint8 ``(…, C, H, W)``; see `levels` for the range of values.

Channels: grey is the luma of Rec. 601, ``0.299 R + 0.587 G + 0.114 B``; RGB of grey repeats it;
alpha is added as opaque and removed by compositing on the background. Other numbers of channels
stay as they are.
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

from vaelab.config import Fit, ValueRange
from vaelab.data.deep import bands, deep_values
from vaelab.data.levels import Levels, to_uint8
from vaelab.data.tiff import Tiff
from vaelab.errors import DataError

Pixels = NDArray[np.uint8]
Shape = tuple[int, int, int]  # channels, height, width
Colour = tuple[int, int, int]

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
EVEN = 8
"""An image whose levels differ by less than this, of 255, shows next to nothing."""

MAX_PIXELS = 2**26
"""More than this in one image (67 megapixels) is taken for a decompression bomb."""

MAX_CHANNELS = 1024
WHITE: Colour = (255, 255, 255)

_COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}
_LUMA = np.array([19595, 38470, 7471], np.uint32)  # 0.299, 0.587, 0.114 in 1/65536


def colours(channels: int) -> str:
    """What images of so many channels are called."""
    return _COLOURS.get(channels, f"{channels} channels")


@dataclass(frozen=True)
class Geometry:
    """What every image is brought to; None leaves it as it is.

    Arguments:
        size: height and width.
        channels: 1 grey, 3 RGB, 4 RGBA; another number only where the images have it.
        fit: ``pad`` keeps all of the image and centres it on the background, ``crop`` fills the
            size and cuts what overlaps, ``stretch`` changes the aspect ratio.
        range: values that become black and white; see `levels`.
        background: ``white``, ``black`` or ``#rrggbb``, under transparent images and around padded
            ones. None: white under transparent images, and so around them; black around others.
        frames: of a stack or an animation: ``all``, ``first`` or ``every=K``.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    fit: Fit = "pad"
    range: ValueRange = "auto"
    background: str | None = None
    frames: str = "all"

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
        if self.channels is not None and not 1 <= self.channels <= MAX_CHANNELS:
            raise DataError(
                f"channels {self.channels}: pass 1 (grey), 3 (RGB), 4 (RGBA), or the number that "
                "the images have."
            )
        if self.fit not in ("pad", "crop", "stretch"):
            raise DataError(f"fit {self.fit!r}: pass pad, crop or stretch.")

    def shape(self, channels: int, height: int, width: int) -> Shape:
        """What an image of this shape becomes."""
        return (self.channels or channels, *(self.size or (height, width)))

    @property
    def ground(self) -> Colour:
        """The colour under transparent images."""
        named = {None: WHITE, "white": WHITE, "black": (0, 0, 0)}
        if self.background in named:
            return named[self.background]
        red, green, blue = bytes.fromhex(self.background[1:])  # type: ignore[index]
        return red, green, blue

    def image(self, image: Image.Image, levels: Levels) -> Pixels:
        """Bring one opened image to ``(C, H, W)``: grey or RGB, unless other channels are named."""
        if bands(image):
            return self._of_bands(image, levels)
        before = levels.transparent
        pixels = np.asarray(self._resize(_plain(image, levels)))
        pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        found = set_channels(pixels, self.channels or min(3, len(pixels)), self.ground)
        if levels.transparent > before and len(found) != 4:
            levels.hidden += int(hidden(found[None]).sum())
        return found

    def _of_bands(self, image: Image.Image, levels: Levels) -> Pixels:
        """Bring channels that are no colours to ``(C, H, W)``."""
        deep = deep_values(image)
        assert deep is not None
        values, _ = deep
        have = values.shape[-1]
        if self.channels not in (None, have):
            raise DataError(
                f"{have} channels that are not all colours cannot be made {colours(self.channels)}."
                " Save the channels that you want as .npy, or leave --channels out"
            )
        layers = levels.pixels(values).transpose(2, 0, 1)
        return np.stack(
            [np.asarray(self._resize(Image.fromarray(np.ascontiguousarray(x)))) for x in layers]
        )

    def batch(self, pixels: Pixels, levels: Levels | None = None) -> Pixels:
        """Bring ``(B, C, H, W)`` of any shape to the one asked for."""
        transparent = None
        if levels is not None and pixels.shape[1] == 4 and self.channels not in (None, 4):
            transparent = pixels[:, 3].min((1, 2)) < 255
            levels.transparent += int(transparent.sum())
        if self.size not in (None, pixels.shape[2:]):
            pixels = np.stack([self._resized(one) for one in pixels])
        found = set_channels(pixels, self.channels or pixels.shape[1], self.ground)
        if levels is not None and transparent is not None:
            levels.hidden += int(hidden(found[transparent]).sum())
        return found

    def _resized(self, pixels: Pixels) -> Pixels:
        """Bring ``(C, H, W)`` of any number of channels to the size."""
        whole = len(pixels) in (3, 4)
        layers = [pixels.transpose(1, 2, 0)] if whole else list(pixels)
        found = [
            np.asarray(self._resize(Image.fromarray(np.ascontiguousarray(layer))))
            for layer in layers
        ]
        return found[0].transpose(2, 0, 1) if whole else np.stack(found)

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
        canvas = Image.new(image.mode, (width, height), self._around(image.mode))
        canvas.paste(
            image.resize(inner, Image.Resampling.BICUBIC),
            ((width - inner[0]) // 2, (height - inner[1]) // 2),
        )
        return canvas

    def _around(self, mode: str) -> int | tuple[int, ...]:
        """What is around a padded image; nothing around a transparent one, until composited."""
        if self.background is None or mode == "RGBA":
            return 0
        return self.ground if mode == "RGB" else _grey(self.ground)


def hidden(pixels: Pixels) -> NDArray[np.bool_]:
    """Whether each image ``(B, C, H, W)`` shows next to nothing: every channel is even."""
    if not len(pixels):
        return np.zeros(0, bool)
    spread = pixels.max((2, 3)).astype(np.int16) - pixels.min((2, 3))
    even: NDArray[np.bool_] = spread.max(1) < EVEN
    return even


def _grey(colour: Colour) -> int:
    return int((np.array(colour, np.uint32) @ _LUMA + 2**15) >> 16)


def set_channels(pixels: Pixels, channels: int, background: Colour = WHITE) -> Pixels:
    """Convert ``(…, C, H, W)`` between grey, RGB and RGBA.

    Raises:
        DataError: the number of channels is another, and would have to change.
    """
    have = pixels.shape[-3]
    if have == channels:
        return pixels
    if have not in MODES or channels not in MODES:
        raise DataError(
            f"images of {colours(have)} cannot be made {colours(channels)}. Save the channels that "
            "you want, or leave --channels out"
        )
    if have == 4:
        alpha = pixels[..., 3:, :, :].astype(np.uint16)
        ground = np.array(background, np.uint16)[:, None, None]
        pixels = pixels[..., :3, :, :] * alpha + ground * (255 - alpha)
        pixels = ((pixels + 127) // 255).astype(np.uint8)
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
    channels = _channels(image)
    if channels > MAX_CHANNELS:
        raise DataError(f"{channels:,} channels, more than {MAX_CHANNELS:,}")
    return channels, height, width


def _channels(image: Image.Image) -> int:
    if number := bands(image):
        return number
    if isinstance(image, Tiff) and image.deep:
        return 4 if image.alpha else image.samples
    if image.mode == "1" or image.mode[0] in "IF":
        return 1
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return 4
    return 1 if image.mode == "L" else 3


def _plain(image: Image.Image, levels: Levels) -> Image.Image:
    """Decode to mode L, RGB or RGBA, upright, in 8 bits."""
    if (deep := deep_values(image)) is not None:
        return _of_colours(*deep, levels)
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        return Image.fromarray(levels.pixels(np.asarray(image)))
    image = image.convert(MODES[_channels(image)])
    values = np.asarray(image)
    if image.mode == "RGBA":
        return _of_colours(values, True, levels)
    found = levels.pixels(values)
    return image if found is values else Image.fromarray(found)


def _of_colours(values: NDArray[Any], has_alpha: bool, levels: Levels) -> Image.Image:
    """An image of numbers ``(H, W, C)``: grey, RGB, or either with alpha."""
    if not has_alpha:
        found = levels.pixels(values)
        return Image.fromarray(found[..., 0] if found.shape[-1] == 1 else found)
    colour, of = values[..., :-1], values[..., -1:]
    most = np.iinfo(of.dtype).max if of.dtype.kind in "ui" else 1
    opacity = to_uint8(of, (0.0, float(most)))
    opaque = bool(opacity.min() == 255)
    levels.transparent += not opaque
    found = levels.pixels(colour, opaque)
    found = np.repeat(found, 3, -1) if found.shape[-1] == 1 else found
    return Image.fromarray(np.concatenate((found, opacity), -1))


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
    go before 4, and channels first before channels last; another number of channels must be smaller
    than height and width.
    """
    found: tuple[int, ...]
    axes: tuple[int, ...]
    if len(shape) == 2:
        found, axes = (1, *shape), (0, 1)
    elif len(shape) == 3 and _channels_lead(shape):
        found, axes = shape, (0, 1, 2)
    elif len(shape) == 3 and (shape[2] in MODES or shape[2] < min(shape[:2])):
        found, axes = (shape[2], shape[0], shape[1]), (2, 0, 1)
    else:
        raise DataError(
            f"each image has shape {shape}, not (H, W), (C, H, W) or (H, W, C) with fewer channels "
            "than rows and columns. Reshape the array"
        )
    if not 0 < prod(found) <= 4 * MAX_PIXELS or found[0] > MAX_CHANNELS:
        raise DataError(f"each image has shape {shape}: no pixels, or too many. Reshape the array")
    channels, height, width = found
    return (channels, height, width), axes


def _channels_lead(shape: tuple[int, ...]) -> bool:
    """Whether the first of three axes holds the channels."""
    first, _, last = shape
    if first in (1, 3) or (first == 4 and last not in (1, 3)):
        return True
    return last not in MODES and first < min(shape[1:])
