"""The order of columns of pixels, by the numbers in their names: ``pixel10`` is behind ``pixel9``.

Kaggle's ``pixel0`` …, OpenML's ``pixel1`` …, scikit-learn's ``pixel_0_0`` … and ``1x1`` … are told
apart by what stands around the numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import prod

from vaelab.errors import DataError

_NUMBER = re.compile(r"\d+")


def alike(names: Sequence[str]) -> list[int]:
    """Return which names are numbered alike, ``[0, …]`` in their order: of most, at least half."""
    frames = [_frame(name) for name in names]
    counts = Counter(frame for frame in frames if "#" in frame)
    if not counts:
        return []
    frame, count = counts.most_common(1)[0]
    return [k for k, each in enumerate(frames) if each == frame] if 2 * count > len(names) else []


def in_order(names: Sequence[str], where: str) -> list[int]:
    """Return the order of columns that are numbered alike, as indices into ``names``.

    One number counts pixels row by row, from 0 or 1; two are row and column, or x and y.

    Raises:
        DataError: a number is missing, or there twice.
    """
    swapped = re.search(r"x\W*#.*y\W*#", _frame(names[0])) is not None
    keys = [tuple(map(int, _NUMBER.findall(name))) for name in names]
    keys = [key[::-1] for key in keys] if swapped else keys
    place = {key: k for k, key in enumerate(keys)}
    sides = [sorted({*axis}) for axis in zip(*keys, strict=True)]
    if len(place) < len(keys):
        twice = next(name for name, key in zip(names, keys, strict=True) if keys.count(key) > 1)
        raise DataError(f"{where}: column {twice!r} is there twice. Keep one.")
    first = [axis[0] for axis in sides]
    whole = [axis == list(range(axis[0], axis[0] + len(axis))) for axis in sides]
    if len(sides) == 1 and not all(whole):
        gap = next(number for number in range(first[0], sides[0][-1]) if (number,) not in place)
        raise DataError(
            f"{where}: the columns {names[0]!r} … are numbered from {first[0]} to {sides[0][-1]}, "
            f"and number {gap} is missing. Put it back: an image needs all its pixels."
        )
    if max(first) > 1 or not all(whole) or prod(map(len, sides)) != len(keys):
        raise DataError(
            f"{where}: the columns {names[0]!r} … {names[-1]!r} do not number the pixels of an "
            "image from 0 or 1. Put back those that are missing, or number them pixel0, pixel1, …."
        )
    return [place[key] for key in sorted(place)]


def _frame(name: str) -> str:
    return _NUMBER.sub("#", name.strip().lower())
