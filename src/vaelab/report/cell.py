"""A cell of a table of figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A cell of the table: what it says, what it sorts by, and whether it is the best."""

    text: str
    sort: str
    best: bool = False
