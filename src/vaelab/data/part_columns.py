"""Columns of a table that say in which part an image is: by words, by codes, or by yes and no."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaelab.data.delimited import Table
from vaelab.data.part_words import part_of_word, plain
from vaelab.data.source import PARTS
from vaelab.errors import DataError

Numbers = Callable[[int], NDArray[np.float64] | None]
"""Values of a column, NaN where unknown; None for words."""

_ALWAYS = {
    *("split", "set", "partition", "part", "subset", "phase"),
    *("datasplit", "splitname", "traintestsplit"),
}
_OFTEN = {"usage", "dataset"}  # may also say where images are from
_CODES = {"0": 0, "1": 1, "2": 2}  # of CelebA's list of partitions
_FLAGS = {
    **dict.fromkeys(("train", "training", "istrain", "istraining", "intrain"), 0),
    **dict.fromkeys(("validation", "isvalid", "isval", "isvalidation", "inval", "isdev"), 1),
    **dict.fromkeys(("test", "testing", "istest", "istesting", "intest"), 2),
}


@dataclass(frozen=True)
class PartColumn:
    """A column that names parts.

    Arguments:
        parts: index into `PARTS` for each row, −1 unknown.
        said: the header, and what was read as which part where that is not plain.
    """

    parts: list[int]
    said: str


def part_column(table: Table, column: int, own_name: str) -> PartColumn | None:
    """Parts that a column of a table names; see `named_parts`."""

    def place(row: int) -> str:
        return f"{table.where}: line {table.lines[row]}"

    return named_parts(table.header[column], table.column(column), place, own_name)


def named_parts(
    name: str, cells: Sequence[str], place: Callable[[int], str], own_name: str = ""
) -> PartColumn | None:
    """Parts that the words or the codes of a column name; None if it names none.

    Arguments:
        name: of the column.
        cells: "" where nothing is known.
        place: how messages call a row.
        own_name: of a table that holds nothing else.

    Raises:
        DataError: the header says that these are parts, and a cell is none.
    """
    header = plain(name)
    cells = [re.sub(r"\.0+$", "", cell) for cell in cells]  # codes of pandas, with gaps
    known = {cell for cell in cells if cell}
    named = header in _ALWAYS or (header and "partition" in own_name)
    if named and known <= {*_CODES}:
        codes = ", ".join(f"{code} {PARTS[_CODES[code]]}" for code in sorted(known))
        return PartColumn([_CODES.get(cell, -1) for cell in cells], f"{name!r} ({codes})")
    bad = [cell for cell in cells if cell and part_of_word(cell) is None]
    often = header in _OFTEN and any(part_of_word(cell) is not None for cell in known)
    if bad and (header in _ALWAYS or often):
        raise DataError(
            f"{place(cells.index(bad[0]))}, column {name!r}: {bad[0]!r} names no part. Write "
            "train, val or test; or rename the column, to `label` if it is the class."
        )
    if bad or not (named or header in _OFTEN or len(known) > 1):
        return None
    parts = [part_of_word(cell) if cell else -1 for cell in cells]
    return PartColumn([-1 if part is None else part for part in parts], repr(name))


def flag_columns(table: Table, columns: Sequence[int], numbers: Numbers) -> list[int]:
    """Columns such as ``is_test`` that are 1 or 0, yes or no."""
    found = []
    for column in columns:
        if plain(table.header[column]) in _FLAGS and (values := numbers(column)) is not None:
            found += [column] if np.isin(values[~np.isnan(values)], (0, 1)).all() else []
    return found


def flagged(table: Table, columns: Sequence[int], numbers: Numbers) -> PartColumn | None:
    """Parts by columns of yes and no, one a part; what is in none of them is in the first other.

    Raises:
        DataError: a row is in two parts.
    """
    if not columns:
        return None
    parts = np.full(len(table.rows), -1)
    unknown = np.zeros(len(parts), bool)
    for column in columns:
        values = numbers(column)
        assert values is not None
        inside = values == 1
        if (twice := inside & (parts >= 0)).any():
            line = table.lines[int(twice.argmax())]
            raise DataError(
                f"{table.where}: line {line} is in two parts, by column {table.header[column]!r} "
                "and by one before it. Leave one."
            )
        parts[inside] = _FLAGS[plain(table.header[column])]
        unknown |= np.isnan(values)
    flags = [_FLAGS[plain(table.header[column])] for column in columns]
    other = next((part for part in (0, 2, 1) if part not in flags), -1)
    parts[(parts < 0) & ~unknown] = other
    headers = " and ".join(repr(table.header[column]) for column in columns)
    rest = f" (else {PARTS[other]})" if other >= 0 else ""
    return PartColumn(parts.tolist(), headers + rest)


def joined(table: Table, found: Sequence[PartColumn]) -> PartColumn | None:
    """One of several columns that agree.

    Raises:
        DataError: they do not.
    """
    if not found:
        return None
    parts = np.array(found[0].parts)
    for other in found[1:]:
        new = np.array(other.parts)
        if (differ := (parts >= 0) & (new >= 0) & (parts != new)).any():
            raise DataError(
                f"{table.where}: line {table.lines[int(differ.argmax())]}: columns {found[0].said} "
                f"and {other.said} name different parts. Leave one of them."
            )
        parts = np.where(parts < 0, new, parts)
    return PartColumn(parts.tolist(), " and ".join(each.said for each in found))
