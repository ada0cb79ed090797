"""Which image a cell of a table names: with or without ending, folders, accents in either form."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from vaelab.data.formats import SUFFIXES

SEVERAL = -1
"""In place of a file: more than one has that name."""

_FEW = 500  # cells by which a column is known to name files

Found = tuple[int | None, int | None]
"""Row of a file (None for none, or `SEVERAL`), and the frame in it, from 0, if one is named."""


class Names:
    """Finds files by what people call them.

    A name may leave out folders at the head of a path, and the ending. It is looked for as it is
    written, then in either case of letters; with its ending, then without. A whole path comes
    before the end of another.

    Arguments:
        files: paths of the files.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._sorted = sorted((file, row) for row, file in enumerate(files))
        self._rest: Names | None = None
        self._index_all([(file, row) for row, file in enumerate(files)])

    def below(self, folder: str) -> Names:
        """Names as a table in a folder means them: of its own files, else of all."""
        start = bisect_left(self._sorted, (folder + "/",))
        own = self._sorted[start : bisect_left(self._sorted, (folder + chr(ord("/") + 1),))]
        if not own or folder in ("", "."):
            return self
        names = Names([])
        names._rest = self
        names._index_all([(file[len(folder) + 1 :], row) for file, row in own])
        return names

    def _index_all(self, files: Sequence[tuple[str, int]]) -> None:
        self._index: list[dict[str, int]] = [{}, {}, {}, {}]
        self._numbers: dict[str, int] = {}
        self.by_number = False
        """Whether the last column named files by number alone."""
        forms = [(_forms("/".join(_parts(file))), row) for file, row in files]
        for each, row in forms:
            for index, form in zip(self._index, each, strict=True):
                _add(index, form, row)
        paths = [{*index} for index in self._index]
        for each, row in forms:
            for index, form, taken in zip(self._index, each, paths, strict=True):
                for tail in _tails(form):
                    if tail not in taken:
                        _add(index, tail, row)
            last = each[1].rpartition("/")[2]
            if last.isdecimal():
                _add(self._numbers, last.lstrip("0") or "0", row)

    def column(self, cells: Sequence[str], numbers: bool = False) -> list[Found]:
        """Find what each cell of a column names.

        As many folders at the head of all cells are passed over as make most of them names: those
        above the place, such as ``/home/me/photos``.

        Arguments:
            cells: of the column.
            numbers: whether 7 may name 0007.png.
        """
        if not numbers and len(cells) > _FEW:  # so that a wide table is looked through in time
            some = [cells[k * len(cells) // _FEW] for k in range(_FEW)]
            if all(row is None for row, _ in self.column(some)):
                return [(None, None)] * len(cells)
        parts = [_parts(cell) for cell in cells]
        best: list[Found] = []
        most = -1
        for dropped in range(max(map(len, parts), default=0)):
            found = [self._find("/".join(each[dropped:]) or each[-1]) for each in parts if each]
            named = sum(row is not None for row, _ in found)
            if named > most:
                best, most = found, named
            if named == len(found):
                break
        rest = iter(best)
        self.by_number = False
        whole = [next(rest) if each else (None, None) for each in parts]
        if numbers and all(re.fullmatch(r"\d{1,18}", cell) for cell in cells if cell):
            counted = [self._number(cell) if cell else None for cell in cells]
            if sum(row is not None and row >= 0 for row in counted) > max(most, 0):
                self.by_number = True
                return [(row, None) for row in counted]
        return whole

    def _number(self, cell: str) -> int | None:
        row = self._numbers.get(cell.lstrip("0") or "0")
        return self._rest._number(cell) if row is None and self._rest is not None else row

    def _find(self, name: str) -> Found:
        row, frame = self._file(name), None
        if row is None and (match := re.fullmatch(r"(.+)#(\d{1,9})", name)):
            row, frame = self._file(match[1]), int(match[2]) - 1
        return row, frame

    def _file(self, name: str) -> int | None:
        stem = _stem(name)
        stem = stem if name[len(stem) :].lower() in SUFFIXES else name
        forms = (name, stem, name.casefold(), stem.casefold())
        for index, form in zip(self._index, forms, strict=True):
            if (row := index.get(form)) is not None:
                return row
        return None if self._rest is None else self._rest._file(name)


def _parts(name: str) -> list[str]:
    """The folders and the name of a path, its letters composed."""
    text = unicodedata.normalize("NFC", name.strip()).replace("\\", "/")
    return [part for part in text.split("/") if part not in ("", ".", "..")]


def _stem(name: str) -> str:
    """A path without its ending."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and "/" not in ending and stem and not stem.endswith("/") else name


def _forms(name: str) -> tuple[str, str, str, str]:
    """A path with and without its ending, then in small letters."""
    stem = _stem(name)
    return name, stem, name.casefold(), stem.casefold()


def _tails(name: str) -> Iterator[str]:
    """What is left of a path without folders at its head."""
    parts = name.split("/")
    return ("/".join(parts[start:]) for start in range(1, len(parts)))


def _add(index: dict[str, int], key: str, row: int) -> None:
    if index.setdefault(key, row) != row:
        index[key] = SEVERAL
