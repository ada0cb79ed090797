"""A picture to look at: rows of images, each with a caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from own_split import Pixels
from PIL import Image, ImageDraw

COLUMNS, GAP, CAPTION = 14, 2, 16


def sheet(rows: Sequence[tuple[str, Pixels]], path: Path) -> None:
    """Write a PNG of rows of images; of samples and reconstructions the first of each.

    Arguments:
        rows: captions and images ``(N, C, H, W)``.
        path: of the picture.
    """
    side = rows[0][1].shape[2]
    shown = side * max(1, 64 // side)
    step = shown + GAP
    height = (2 * step + CAPTION) * len(rows)
    picture = Image.new("RGB", (COLUMNS * step + GAP, height), "white")
    pen = ImageDraw.Draw(picture)
    for row, (caption, images) in enumerate(rows):
        top = row * (2 * step + CAPTION)
        pen.text((GAP, top + 2), caption, "black")
        for i, image in enumerate(picked(images)):
            y = top + CAPTION + i // COLUMNS * step
            picture.paste(tile(image, shown), (GAP + i % COLUMNS * step, y))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def picked(images: Pixels) -> Pixels:
    """Return two rows of images, spread evenly over all of them."""
    index = np.linspace(0, len(images) - 1, min(2 * COLUMNS, len(images))).astype(int)
    chosen: Pixels = images[index]
    return chosen


def tile(image: Pixels, side: int) -> Image.Image:
    """Return one image ``(C, H, W)``, enlarged without blurring."""
    array = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    return Image.fromarray(array).convert("RGB").resize((side, side), Image.Resampling.NEAREST)
