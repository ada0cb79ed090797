"""Images laid out in a grid, and files of images."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vaelab.errors import ConfigError
from vaelab.files import write_atomic

GROUND = 128
"""Grey level around the images: neither black nor white images melt into it."""

GAP = 2
"""Pixels of ground around every image."""

VISIBLE = 64
"""The longer side of a shown image has at least this many pixels."""


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Return images ``(N, C, H, W)``, uint8 or float in [0, 1], as 8-bit numbers, rounded."""
    images = images.detach().cpu()
    if images.dtype != torch.uint8:
        images = images.clamp(0, 1).mul(255).round().to(torch.uint8)
    return images.numpy()


def as_colours(images: Tensor) -> NDArray[np.uint8]:
    """Return images as they can be shown, 8 bits in 1, 3 or 4 channels.

    Of other numbers of channels the first three are red, green and blue; of two, blue is black.
    """
    pixels = to_uint8(images)
    count, channels, height, width = pixels.shape
    if channels in (1, 3, 4):
        return pixels
    shown = np.zeros((count, 3, height, width), np.uint8)
    shown[:, :channels] = pixels[:, :3]
    return shown


def grid(images: Tensor, columns: int | None = None, scale: int | None = None) -> NDArray[np.uint8]:
    """Lay images out row by row, with equal gaps of a neutral grey.

    Arguments:
        images: ``(N, C, H, W)``, uint8 or float in [0, 1]; see `as_colours` for C.
        columns: images in a row; by default about as many as there are rows.
        scale: pixels of the picture for each pixel of an image, along a side; by default as many as
            make small images visible. Pixels stay crisp.

    Returns:
        NDArray: uint8 ``(H', W', 3)``, or ``(H', W', 4)`` for images with an alpha channel.

    Raises:
        ConfigError: no images, or a count below 1.
    """
    n, _, height, width = images.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    scale = max(1, math.ceil(VISIBLE / max(height, width))) if scale is None else scale
    if n == 0 or columns < 1 or scale < 1:
        raise ConfigError(
            f"grid: needs an image, a column and a scale of 1 ({n=} {columns=} {scale=})."
        )
    pixels = as_colours(images).transpose(0, 2, 3, 1).repeat(scale, 1).repeat(scale, 2)
    if pixels.shape[3] == 1:
        pixels = pixels.repeat(3, 3)
    rows, high, wide = math.ceil(n / columns), height * scale + GAP, width * scale + GAP
    sheet = np.full((rows * high + GAP, columns * wide + GAP, pixels.shape[3]), GROUND, np.uint8)
    sheet[..., 3:] = 255
    for place, image in enumerate(pixels):
        row, column = divmod(place, columns)
        top, left = row * high + GAP, column * wide + GAP
        sheet[top : top + high - GAP, left : left + wide - GAP] = image
    return sheet


def png(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture ``(H, W, 3)`` or ``(H, W, 4)`` as a PNG file."""
    memory = io.BytesIO()
    Image.fromarray(picture).save(memory, format="png", optimize=True)
    return memory.getvalue()


def save_png(path: Path | str, picture: NDArray[np.uint8]) -> None:
    """Write a picture ``(H, W, 3)`` or ``(H, W, 4)``, whole or not at all."""
    write_atomic(Path(path), png(picture))


def save_images(path: Path | str, images: Tensor, columns: int | None = None, **about: Any) -> None:
    """Write images ``(N, C, H, W)``, whole or not at all, in the way that the name ends.

    ``.png`` is one picture with all of them in a grid of ``columns``; ``.npz`` holds them as
    ``images``, uint8 ``(N, C, H, W)``, beside arrays of what else is known ``about`` each, and can
    be read as a data set.

    Raises:
        ConfigError: the name ends otherwise.
    """
    path = Path(path)
    if path.suffix == ".png":
        save_png(path, grid(images, columns))
    elif path.suffix == ".npz":
        save_arrays(path, images=to_uint8(images), **about)
    else:
        raise unknown_suffix(path, ".png for a picture", ".npz for numbers")


def save_arrays(path: Path, /, **arrays: Any) -> None:
    """Write arrays as a compressed ``.npz`` file, whole or not at all."""
    memory = io.BytesIO()
    np.savez_compressed(memory, **arrays)
    write_atomic(path, memory.getvalue())


def unknown_suffix(path: Path, *known: str) -> ConfigError:
    """Return the error for a file whose name does not say which format to write."""
    return ConfigError(
        f"{path}: cannot write {path.suffix or 'no suffix'!r}. Use {' or '.join(known)}."
    )
