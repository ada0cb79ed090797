"""Tables of figures: cases by columns."""

from __future__ import annotations

from dataclasses import dataclass

MEANS = (
    "Means over seeds ± 95 % interval; the best of a column is in bold, which does not mean that "
    "it is decided."
)
"""How to read the cells of most tables."""


@dataclass(frozen=True)
class Cell:
    """A cell of the table: what it says, what it sorts by, and whether it is in bold."""

    text: str
    sort: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a study.

    Arguments:
        title: its heading.
        heads: name and unit of every column.
        rows: name of the case, number of its runs, and a cell for each column.
        caption: how to read it.
    """

    title: str
    heads: list[tuple[str, str]]
    rows: list[tuple[str, int, list[Cell]]]
    caption: str = MEANS
