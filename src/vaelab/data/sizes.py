"""One size for images of several: a middle one, in the shape that most of them have.

    side = median of the shorter sides, within [16, 256], in steps of 4 (of 8 from 64 on)

The size is that of more than half of the images where there is one. Else it is a square; or, where
nine of ten images have nearly one aspect ratio, of that ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median_low

from vaelab.config import Fit
from vaelab.errors import counted

Size = tuple[int, int]  # height, width
Sizes = Mapping[Size, int]
"""How many images have each size."""

SMALLEST, LARGEST = 16, 256  # pixels of the shorter side

_NEARLY = 1.25  # the factor by which aspect ratios differ that are nearly one
_MOST = 0.9  # of the images
_LONG = 2.0  # the factor by which an aspect ratio differs that leaves half of the size empty


def middle(sizes: Sizes) -> Size:
    """Return the size to bring all images to; see the module."""
    common = max(sizes, key=lambda size: (sizes[size], size))
    if 2 * sizes[common] > sum(sizes.values()) and min(common) <= LARGEST:
        return common
    side = min(max(_median(sizes, min), SMALLEST), LARGEST)
    ratio = _median(sizes, _ratio)
    if _near(sizes, 1.0) >= _MOST or _near(sizes, ratio) < _MOST:
        ratio = 1.0
    return _stepped(side * max(1.0, 1 / ratio)), _stepped(side * max(1.0, ratio))


_BARS = {
    "pad": "they get bars, and --fit crop cuts off what is too long",
    "crop": "half of them or more is cut off, and --fit pad keeps all",
}


def fitted(sizes: Sizes, size: Size, fit: Fit) -> str:
    """Return what to say of images of several sizes that are brought to one."""
    shorter = [min(each) for each in sizes]
    text = (
        f"The images have {len(sizes):,} sizes, with shorter sides of {min(shorter):,} to "
        f"{max(shorter):,} pixels: all are fitted to {size[0]}×{size[1]} ({fit}). --size names "
        "another size."
    )
    long = round((1 - _near(sizes, _ratio(size), _LONG)) * sum(sizes.values()))
    if not long or fit not in _BARS:
        return text
    are = f"{counted(long, 'image')} {'is' if long == 1 else 'are'}"
    return f"{text} {are} more than twice as wide or as high for that: {_BARS[fit]}."


def _stepped(side: float) -> int:
    step = 8 if side >= 64 else 4
    return round(side / step) * step


def _ratio(size: Size) -> float:
    return size[1] / size[0]


def _median(sizes: Sizes, of: Callable[[Size], float]) -> float:
    return median_low(of(size) for size, count in sizes.items() for _ in range(count))


def _near(sizes: Sizes, ratio: float, factor: float = _NEARLY) -> float:
    """Return the share of images whose aspect ratio is within a factor of one."""
    near = sum(
        count for size, count in sizes.items() if 1 / factor <= _ratio(size) / ratio <= factor
    )
    return near / sum(sizes.values())
