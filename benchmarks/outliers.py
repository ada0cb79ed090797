"""Images that are no digits, of the digits' size: what `oddities.py` mixes among them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 28
LETTERS = "ABCDEFGHJKLMNPQRTUVWXYZabcdefghkmnpqrtwxy"
"""Latin letters but those drawn like a digit (O, I, S, …); Z, B, b or q still resemble one."""

Pixels = NDArray[np.uint8]


def letters(count: int, seed: int = 0) -> Pixels:
    """Return letters in Pillow's default font, uint8 ``(count, 1, 28, 28)``.

    Drawn large, with strokes about as thick as the digits', turned and slanted by chance, shrunk
    into 20 × 20 pixels and placed by their centre of mass, as the digits of MNIST were.
    """
    generator = np.random.default_rng(seed)
    font = ImageFont.load_default(size=120)
    return np.stack(
        [_letter(str(letter), font, generator) for letter in generator.choice(list(LETTERS), count)]
    )[:, None]


def _letter(letter: str, font: ImageFont.FreeTypeFont, generator: np.random.Generator) -> Pixels:
    sheet = Image.new("L", (240, 240))
    thick = int(generator.integers(0, 7))
    ImageDraw.Draw(sheet).text((120, 120), letter, 255, font, anchor="mm", stroke_width=thick)
    slant = float(generator.uniform(-0.3, 0.3))
    sheet = sheet.transform(
        sheet.size,
        Image.Transform.AFFINE,
        (1, slant, -120 * slant, 0, 1, 0),
        Image.Resampling.BICUBIC,
    ).rotate(float(generator.uniform(-12, 12)), Image.Resampling.BICUBIC)
    return _centred(sheet.crop(sheet.getbbox()))


def _centred(image: Image.Image) -> Pixels:
    """Bring an image into 20 × 20 pixels, then its centre of mass into the middle of 28 × 28."""
    scale = 20 / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    small = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS), np.float64)
    rows, columns = np.mgrid[:height, :width] * small / small.sum()
    top, left = round(13.5 - rows.sum()), round(13.5 - columns.sum())
    page = np.zeros((2 * SIDE, 2 * SIDE))
    page[SIDE // 2 + top :, SIDE // 2 + left :][:height, :width] = small
    return page[SIDE // 2 :, SIDE // 2 :][:SIDE, :SIDE].astype(np.uint8)


def strokes(count: int, seed: int = 0) -> Pixels:
    """Return single short straight strokes, each at its own place: simpler than any digit."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        middle, angle = generator.uniform(8, 20, 2), generator.uniform(0, np.pi)
        reach = generator.uniform(2, 5) * np.array([np.cos(angle), np.sin(angle)])
        sheet = Image.new("L", (8 * SIDE, 8 * SIDE))
        ends = [tuple(8 * (middle - reach)), tuple(8 * (middle + reach))]
        ImageDraw.Draw(sheet).line(ends, 255, int(8 * generator.uniform(1.5, 3)))
        blurred = sheet.filter(ImageFilter.GaussianBlur(3))
        made.append(np.asarray(blurred.resize((SIDE, SIDE), Image.Resampling.BOX)))
    return np.stack(made)[:, None]


def noise(count: int, seed: int = 0) -> Pixels:
    """Return images whose pixels are independent and uniform."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 1, SIDE, SIDE), np.uint8)


def inverted(digits: Pixels) -> Pixels:
    """Return digits black on white."""
    return 255 - digits


def faint(digits: Pixels) -> Pixels:
    """Return digits at a quarter of their intensity."""
    return digits // 4


def empty(count: int) -> Pixels:
    """Return images without ink."""
    return np.zeros((count, 1, SIDE, SIDE), np.uint8)
