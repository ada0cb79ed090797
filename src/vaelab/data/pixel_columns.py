"""Which columns of a table are pixels, in which order, and which are labels or parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isqrt

from vaelab.data.fields import LABEL_KEYS, PART_KEYS
from vaelab.data.numbering import alike, in_order
from vaelab.data.pixels import MAX_PIXELS
from vaelab.errors import DataError

_LABELS = (*LABEL_KEYS, "emotion", "category", "character", "species")
_NUMBERS = ("", "id", "index", "row", "unnamed: 0", "imageid")  # columns that count rows


@dataclass(frozen=True)
class Layout:
    """Which columns of a table are what.

    Arguments:
        pixels: their numbers, in order; one alone if a cell holds all pixels of an image.
        label: number of the column of labels, or None.
        usage: number of the column that names parts, or None.
        notes: what was assumed.
    """

    pixels: tuple[int, ...]
    label: int | None = None
    usage: int | None = None
    notes: list[str] = field(default_factory=list)


def layout(
    where: str, names: Sequence[str] | None, rows: Sequence[Sequence[str]], above: int = 0
) -> Layout:
    """Tell the columns of a table apart.

    Arguments:
        where: what messages call it.
        names: of the columns; None where there is no header.
        rows: the first ones.
        above: rows before them that are neither names nor images.

    Raises:
        DataError: the columns make no square image.
    """
    width = len(names if names is not None else rows[0])
    for number, row in enumerate(rows, 1 + above + (names is not None)):
        check_width(where, number, row, width)
    if names is None:
        return _unnamed(where, width, rows)
    lower = [name.strip().lower() for name in names]
    label = next((lower.index(name) for name in _LABELS if name in lower), None)
    usage = next((lower.index(name) for name in PART_KEYS if name in lower), None)
    counts = [k for k, name in enumerate(lower) if name in _NUMBERS]
    left = [k for k in range(width) if k not in (label, usage, *counts)]
    if len(left) == 1 and rows and " " in rows[0][left[0]].strip():
        return Layout((left[0],), label, usage)
    notes = []
    if counts:
        notes.append(f"{where}: column {names[counts[0]]!r} counts rows and was left alone.")
    odd = [k for k in left if rows and not is_number(rows[0][k])]
    if len(odd) == 1 and label is None:  # text beside numbers
        label = odd[0]
        notes.append(f"{where}: column {names[label]!r} was read as the label.")
        left.remove(label)
    elif odd:
        raise _no_pixels(where, names[odd[0]], rows[0][odd[0]])
    pixels, label = _pixels(where, names, left, label, notes)
    check_square(where, len(pixels), label == 0 and len(pixels) == width - 1)
    return Layout(tuple(pixels), label, usage, notes)


def _pixels(
    where: str, names: Sequence[str], left: list[int], label: int | None, notes: list[str]
) -> tuple[list[int], int | None]:
    """Columns of pixels in their order, and that of the label, which may be the one beside them."""
    numbered = [left[k] for k in alike([names[k] for k in left])]
    others = [k for k in left if k not in {*numbered}] if numbered else []
    pixels = numbered or left
    if label is None and not others and not square_side(len(left)) and square_side(len(left) - 1):
        others, pixels = pixels[:1], pixels[1:]
    if label is None and len(others) == 1:
        label = others.pop()
        notes.append(f"{where}: column {names[label]!r} was read as the label.")
    if others:
        listed = ", ".join(repr(names[k]) for k in others[:5])
        notes.append(f"{where}: {listed} left alone, beside the pixels.")
    if not numbered:
        return pixels, label
    return [pixels[k] for k in in_order([names[k] for k in pixels], where)], label


def _unnamed(where: str, width: int, rows: Sequence[Sequence[str]]) -> Layout:
    if square_side(width):
        return Layout(tuple(range(width)))
    check_square(where, width - 1)
    first, last = ([row[k] for row in rows] for k in (0, -1))
    if _like_labels(last) > _like_labels(first):
        notes = [f"{where}: its columns have no names; the last column was read as the label."]
        return Layout(tuple(range(width - 1)), width - 1, notes=notes)
    notes = [f"{where}: its columns have no names; the first column was read as the label."]
    return Layout(tuple(range(1, width)), 0, notes=notes)


def counts_columns(row: Sequence[str]) -> bool:
    """Whether a row numbers the columns, as pandas heads a table whose columns have no names."""
    cells = [cell.strip() for cell in row]
    first = cells[0] if cells else ""
    if len(cells) <= 3 or first not in ("0", "1"):
        return False
    return cells == [str(int(first) + k) for k in range(len(cells))]


def is_shuffled(row: Sequence[str]) -> bool:
    """Whether a row numbers the columns in another order, such as that of text: 0, 1, 10, 100, …"""
    cells = [cell.strip() for cell in row]
    if len(cells) <= 16 or not all(cell.isdecimal() and len(cell) < 9 for cell in cells):
        return False
    numbers = sorted(map(int, cells))
    return numbers[0] <= 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _like_labels(column: Sequence[str]) -> tuple[bool, bool, int]:
    """How much a column looks like labels: text, numbers without a gap, few of them."""
    kinds = {value.strip() for value in column}
    text = any(not is_number(value) for value in kinds)
    numbers = set() if text else {float(value) for value in kinds}
    even = len(numbers) > 1 and max(numbers) - min(numbers) == len(numbers) - 1
    return text, even, -len(kinds) if len(kinds) > 1 else -len(column) - 1


def square_side(count: int) -> int:
    """The side of a square of so many pixels, 0 if there is none."""
    side = isqrt(max(0, count))
    return side if side > 1 and side * side == count else 0


def is_number(text: str) -> bool:
    """Whether a cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_width(where: str, number: int, row: Sequence[str], width: int) -> None:
    """Raise `DataError` for a row that is longer or shorter than the first."""
    if len(row) != width:
        raise DataError(
            f"{where}: row {number} has {len(row)} columns, not {width}. Mend or remove it."
        )


def check_square(where: str, count: int, label_first: bool = False) -> None:
    """Raise `DataError` for pixels that make no square image."""
    if not square_side(count) or count > MAX_PIXELS:
        pixels, labels = ("table[:, 1:]", ", labels=table[:, 0]") if label_first else ("pixels", "")
        raise DataError(
            f"{where}: {count:,} columns of pixels are no square image. Give them their height and "
            f'width: numpy.savez("images.npz", images={pixels}.reshape(-1, HEIGHT, WIDTH){labels}).'
        )


def _no_pixels(where: str, name: str, value: str) -> DataError:
    return DataError(
        f"{where}: column {name!r} holds {value[:40]!r}, which is no pixel. A table of pixels has "
        "numbers alone beside a column `label`; a table of files belongs beside them, and the "
        "folder is passed."
    )
