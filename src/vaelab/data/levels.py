"""Which numbers are black and white: one rule for a whole data set, and from it 8 bits.

    pixel = round(255 (x - low) / (high - low)), clipped to [0, 255]

``full`` takes what the kind of number says: 255, 65,535, or for floats the first of [0, 1], [-1, 1]
and [0, 255] that holds them. ``auto`` looks at the values of all images: whole numbers end at the
power of two above the greatest (at 255 if that is below it and above its fifth, so that ordinary
8-bit images stay as they are), floats that are in none of these intervals at their own ends.

The range is known once everything was read. So images are read by what the first of them suggest,
and read once more if the rest says otherwise.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaelab.config import ValueRange
from vaelab.errors import DataError, counted

Pixels = NDArray[np.uint8]
Interval = tuple[float, float]

DARK = 51
"""An image set whose brightest level is below this fifth of 255 is dark, and that is said."""

FEW_LEVELS = 64
"""8-bit levels below which what was made of deeper images is said to be coarse."""

_EIGHT, _WHOLE, _FLOAT = "8-bit", "whole", "float"
_UNIT, _SIGNED, _BYTES = (0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)
_BEYOND = 0.1  # by which resampling overshoots the ends of an interval of length 1
_EXACT = 1e-5  # less is rounding, and is not worth a word


_MOST = 0.9
"""Of the values, that lie outside a range that is not theirs; a window may leave many outside."""


class ValuesError(DataError):
    """Values that no range fits; without a name, for whoever knows where they are from."""


@dataclass
class Seen:
    """The values of one kind that were read."""

    low: float
    high: float
    count: int = 0
    outside: int = 0
    sixteen: bool = False  # 16 bits by their type

    def add(self, low: float, high: float, count: int, outside: int, sixteen: bool) -> None:
        """Take in some more."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.count, self.outside = self.count + count, self.outside + outside
        self.sixteen |= sixteen


class Levels:
    """The range of values of a data set, found while it is read; safe to use from threads.

    Arguments:
        wanted: ``auto``, ``full`` or ``[low, high]``; see the module.
    """

    def __init__(self, wanted: ValueRange = "auto") -> None:
        self.wanted = wanted
        self.transparent = 0
        """Images with pixels that are not opaque."""
        self.hidden = 0
        """Those among them that show nothing on the background."""
        self._scales: dict[str, Interval] = {}
        self._seen: dict[str, Seen] = {}
        self._used = np.zeros(256, bool)
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Forget what was seen, before everything is read."""
        self._seen, self.transparent, self.hidden = {}, 0, 0
        self._used[:] = False

    def pixels(self, values: NDArray[Any], opaque: bool = True) -> Pixels:
        """Bring numbers to 8 bits, and remember them.

        Arguments:
            values: of images, of any shape.
            opaque: whether they are seen as they are; the ground under others is not in them.

        Raises:
            DataError: these are no numbers of pixels.
        """
        check_dtype(values.dtype)
        if values.dtype.kind == "b" or values.size == 0:
            return values.astype(np.uint8) * np.uint8(255)
        low, high = values.min().item(), values.max().item()
        if not np.isfinite(low) or not np.isfinite(high):
            raise DataError("holds NaN or infinite pixels. Replace or leave out those images")
        kind = _kind(values.dtype)
        sixteen = values.dtype == np.uint16
        with self._lock:
            if kind not in self._scales:
                first = Seen(low, high, sixteen=sixteen)
                self._scales[kind] = self._scale(kind, first, kind != _EIGHT)
            scale = self._scales[kind]
        outside = _outside(values, low, high, scale)
        found = to_uint8(values, scale)
        with self._lock:
            seen = self._seen.setdefault(kind, Seen(low, high))
            seen.add(low, high if opaque else max(high, 255), values.size, outside, sixteen)
            if kind == _WHOLE:
                self._used[found.ravel()] = True
        return found

    def settled(self) -> bool:
        """Whether all images were read by the range of all; else they are to be read again.

        Raises:
            ValuesError: no range fits the values.
        """
        scales = {
            kind: self._scale(kind, seen, len(self._seen) == 1) for kind, seen in self._seen.items()
        }
        done = scales == {kind: self._scales[kind] for kind in scales}
        self._scales = scales
        if done:
            self._check()
        return done

    @property
    def range(self) -> ValueRange:
        """What to read other images by, so that they are read as these were."""
        if not isinstance(self.wanted, str):
            return self.wanted
        odd = self._odd()
        return list(odd[0][1]) if odd else "full"

    def notes(self) -> list[str]:
        """Plain sentences on how values were taken, where that could be otherwise."""
        found = []
        for kind, seen in self._seen.items():
            scale = self._scales[kind]
            if isinstance(self.wanted, str):
                found += _taken(kind, seen, scale)
            elif kind == _EIGHT and scale != tuple(self.wanted):
                found.append(
                    f"8-bit images were read as 0 to 255, not as {_shown(*self.wanted)}: LOW,HIGH "
                    "for them are whole numbers in [0, 255]."
                )
            if seen.outside:
                found.append(
                    f"{seen.outside:,} of {seen.count:,} values lie outside {_shown(*scale)} (they "
                    f"reach from {_number(seen.low)} to {_number(seen.high)}) and were clipped."
                )
        found += self._dark()
        used, deepest = int(self._used.sum()), self._seen.get(_WHOLE)
        if deepest is not None and deepest.high > 255 and used < FEW_LEVELS:
            found.append(
                f"Only {used} of 256 levels are used by these images of more than 8 bits: they are "
                "coarse. --range LOW,HIGH spreads the values that matter."
            )
        return found

    def _scale(self, kind: str, seen: Seen, alone: bool) -> Interval:
        if not isinstance(self.wanted, str):
            low, high = self.wanted
            if kind != _EIGHT or (0 <= low < high <= 255 and low == int(low) and high == int(high)):
                return low, high
            return _BYTES  # a range of deeper values says nothing about 8 bits
        full = _full(kind, seen)
        if self.wanted == "full" or (kind == _EIGHT and not (alone and 0 < seen.high < DARK)):
            return full or (seen.low, seen.high)
        if seen.high == 0 == seen.low:
            return full or _UNIT
        if kind == _FLOAT:
            bright = full is not None and max(abs(seen.low), seen.high) * 5 >= full[1]
            return full if full is not None and bright else (seen.low, seen.high)
        if seen.low < 0:
            return seen.low, seen.high
        if DARK <= seen.high <= 255:  # bytes in a wider type
            return _BYTES
        return 0.0, float(2 ** max(1, int(seen.high).bit_length()) - 1)

    def _odd(self) -> list[tuple[str, Interval]]:
        """The kinds of numbers that do not have the range that their kind says."""
        return [
            (kind, scale)
            for kind, scale in self._scales.items()
            if kind in self._seen and scale != _plain(kind, self._seen[kind])
        ]

    def _check(self) -> None:
        for kind, seen in self._seen.items():
            low, high = self._scales[kind]
            about = f"values from {_number(seen.low)} to {_number(seen.high)}"
            if self.wanted == "full" and _full(kind, seen) is None:
                raise ValuesError(
                    f"{about} have no full range. Pass --range auto, or --range LOW,HIGH"
                )
            if not low < high:
                raise ValuesError(f"all values are {_number(low)}. Pass --range LOW,HIGH")
            if not isinstance(self.wanted, str) and seen.outside > _MOST * seen.count:
                raise ValuesError(
                    f"nearly all values lie outside the range {_shown(low, high)}: they reach from "
                    f"{_number(seen.low)} to {_number(seen.high)}. Pass the --range of these "
                    "images, or save them with the values of those that the range is of"
                )
        deep = [kind for kind in self._seen if kind != _EIGHT]
        if len(deep) > 1 and isinstance(self.wanted, str) and self._odd():
            raise ValuesError(
                "whole numbers and floats are mixed, and their range is not plain. Pass --range "
                "LOW,HIGH, or save all images in one type"
            )

    def _dark(self) -> list[str]:
        if not self._seen:
            return []
        brightest = max(_level(seen.high, self._scales[kind]) for kind, seen in self._seen.items())
        if brightest >= DARK:
            return []
        if brightest == 0:
            return ["Every pixel is black: check the images, and --range."]
        return [
            f"The images are dark: the brightest pixel is {brightest} of 255. --range auto, or "
            "--range LOW,HIGH, spreads the values over all levels."
        ]


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raise `DataError` unless these are plain numbers."""
    if dtype.hasobject:
        raise DataError("holds Python objects, which are never read. Save an array of numbers")
    if dtype.kind not in "buif":
        raise DataError(f"holds {dtype}, not pixels. Save uint8, uint16 or floats in [0, 1]")


def to_uint8(values: NDArray[Any], scale: Interval) -> Pixels:
    """Bring numbers to 8 bits: ``scale`` becomes 0 to 255, what is outside is clipped."""
    low, high = scale
    if scale == _BYTES and values.dtype == np.uint8:
        return values
    if scale == (0.0, 65535.0) and values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not low < high:
        return np.zeros(values.shape, np.uint8)
    short = values.dtype.itemsize <= 2 or values.dtype == np.float32
    exact: NDArray[Any] = values.astype(np.float32 if short else np.float64)
    exact = (exact - exact.dtype.type(low)) * exact.dtype.type(255 / (high - low))
    found: Pixels = np.rint(exact.clip(0, 255)).astype(np.uint8)
    return found


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype == np.uint8:
        return _EIGHT
    return _FLOAT if dtype.kind == "f" else _WHOLE


def _full(kind: str, seen: Seen) -> Interval | None:
    """The range that a kind of number has by itself; None where its values fit no such range."""
    if kind == _EIGHT:
        return _BYTES
    if kind == _WHOLE:
        if seen.low < 0 or seen.high > 65535:
            return None
        return (0.0, 65535.0) if seen.sixteen or seen.high > 255 else _BYTES
    for low, high in (_UNIT, _SIGNED):
        if seen.low >= low - _BEYOND and seen.high <= high + _BEYOND:
            return low, high
    fits = seen.low >= -5 and DARK <= seen.high <= 260
    return _BYTES if fits else None


def _plain(kind: str, seen: Seen) -> Interval | None:
    """The range that needs no word, and by which other images of any kind can be read."""
    return _UNIT if kind == _FLOAT else _full(kind, seen)


def _outside(values: NDArray[Any], low: float, high: float, scale: Interval) -> int:
    spare = _EXACT * (scale[1] - scale[0]) if values.dtype.kind == "f" else 0
    below, above = scale[0] - spare, scale[1] + spare
    if low >= below and high <= above:
        return 0
    return int(np.count_nonzero((values < below) | (values > above)))


def _level(value: float, scale: Interval) -> int:
    low, high = scale
    return round(255 * min(max((value - low) / (high - low), 0), 1))


def _taken(kind: str, seen: Seen, scale: Interval) -> list[str]:
    """The note on a range that is not the plain one."""
    if scale == _plain(kind, seen):
        return []
    bits = int(scale[1]).bit_length()
    as_bits = f" ({counted(bits, 'bit')})" if kind != _FLOAT and scale[0] == 0 else ""
    full = _full(kind, seen)
    of = f" of {full[1]:,.0f}" if full is not None and kind != _FLOAT else ""
    what = "Floats" if kind == _FLOAT else "Values"
    return [
        f"{what} reach from {_number(seen.low)} to {_number(seen.high)}{of}: {_shown(*scale)}"
        f"{as_bits} was scaled to black to white. --range sets another range: LOW,HIGH or full."
    ]


def _shown(low: float, high: float) -> str:
    return f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"
