"""Many small images as one picture, which a browser decodes at once."""

from __future__ import annotations

import io
import math
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vaelab.data.images import ImageSet
from vaelab.explore.grids import to_uint8
from vaelab.explorer.graph import base64_of

BUDGET = 700_000
"""Bytes of a sheet."""

FEWEST_EXACT = 400
"""Where fewer images than this would fit without loss, they are compressed with a little."""

_QUALITY = 85
_EFFORT = 50  # more takes ten times as long for 2 % less
_PROBED = 32


def spread(total: int, count: int) -> Tensor:
    """Return the places of ``count`` of ``total`` images, evenly spread."""
    count = min(total, count)
    return torch.arange(count) * total // count


def fitting(images: ImageSet, most: int, budget: int = BUDGET) -> tuple[Tensor, bool]:
    """Return which images fit into a sheet, evenly spread, and whether without loss."""
    probe = images.take(spread(len(images), _PROBED))
    for exact in (True, False):
        each = max(1.0, len(_webp(probe, exact)) / len(probe))
        count = max(1, min(most, len(images), int(budget / each)))
        if exact and count >= min(FEWEST_EXACT, len(images)):
            return spread(len(images), count), True
    return spread(len(images), count), False


def sheet(images: Tensor, exact: bool = True) -> dict[str, Any]:
    """Return images, 8-bit ``(N, C, H, W)``, as a WebP picture with ``columns`` in a row."""
    data = _webp(images, exact)
    return {
        "columns": _columns(images),
        "exact": exact,
        "data": base64_of(torch.frombuffer(bytearray(data), dtype=torch.uint8).numpy()),
    }


def _planes(images: Tensor) -> Tensor:
    """Images of channels that no picture has, as grey planes one below another."""
    if images.shape[1] in (1, 3, 4):
        return images
    return images.flatten(1, 2)[:, None]


def _columns(images: Tensor) -> int:
    count, _, height, width = _planes(images).shape
    return max(1, min(count, round(math.sqrt(count * height / width))))


def _webp(images: Tensor, exact: bool) -> bytes:
    columns = _columns(images)
    shown = torch.from_numpy(to_uint8(_planes(images)))
    count, channels, height, width = shown.shape
    rows = -(-count // columns)
    whole = torch.zeros(rows * columns, channels, height, width, dtype=torch.uint8)
    whole[:count] = shown
    tiles = whole.view(rows, columns, channels, height, width)
    pixels = tiles.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    array = pixels.squeeze(2) if channels == 1 else pixels
    memory = io.BytesIO()
    picture = Image.fromarray(array.contiguous().numpy())
    picture.save(memory, "webp", lossless=exact, quality=_EFFORT if exact else _QUALITY, exact=True)
    return memory.getvalue()
