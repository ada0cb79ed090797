"""Labels, attributes, parts and groups from the tables that lie beside images.

A table is a text file (CSV, TSV, CelebA's lists) with a column that names images and others that
say something about them. What a column is, is told by its header and its cells (`roles`), and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vaelab.data.delimited import LARGEST, Table, parse
from vaelab.data.formats import SUFFIXES
from vaelab.data.gathered_columns import Columns, Read
from vaelab.data.json_lines import parse_lines
from vaelab.data.naming import SEVERAL, Found, Names
from vaelab.data.part_words import part_of_word, plain, split_part
from vaelab.data.places import Place
from vaelab.data.roles import (
    FILE_WORDS,
    find_roles,
    header_of,
    own_name,
)
from vaelab.data.source import Source
from vaelab.errors import ConfigError, DataError, counted
from vaelab.opening import shown

_SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl")
_LISTS = ("list_attr_celeba.txt", "list_eval_partition.txt", "labels.txt", "attributes.txt")
_BOX_WORDS = {
    *("x", "y", "w", "h", "xmin", "ymin", "xmax", "ymax", "x1", "y1", "x2", "y2", "x0", "y0"),
    *("left", "top", "right", "bottom", "width", "height", "area", "cx", "cy"),
    *("xcenter", "ycenter", "bboxx", "bboxy", "bboxw", "bboxh", "boxid", "bboxid", "objectid"),
}
_MEANT = ("label", "attribute", "annotation", "metadata", "class", "list_")


def is_table(name: str) -> bool:
    """Whether a file may be a table, by its name."""
    path = PurePosixPath(name.lower())
    return path.suffix in _SUFFIXES or path.name in _LISTS


class Tables:
    """All tables of a place.

    Arguments:
        place: where they lie.
        names: of the files that may be tables.
        files: names of the image files.

    Raises:
        DataError: a table cannot be read, names no image, or leaves open what it says.
    """

    def __init__(
        self, place: Place, names: Sequence[str], files: Sequence[str], group: str | None = None
    ) -> None:
        self._place, self._group = place, group
        self.known: set[str] = set()
        """Tables that were read, or of which a note says why they were not."""
        self.notes: list[str] = []
        self._tables: list[Read] = []
        index = Names(files if names else [])
        for name in names:
            if "submission" in own_name(name):  # a form to be filled in, whose labels are none
                continue
            found = self._read(name, index.below(_folder_of(name, files)))
            if found is not None:
                self._tables.append(found)

    def _read(self, name: str, index: Names) -> Read | None:
        self.known.add(name)
        where = shown(name)
        where = where if self._place.name == where else f"{self._place.name}/{where}"
        meant = any(word in own_name(name) for word in _MEANT)
        try:
            with self._place.open(name) as file:
                parser = parse_lines if name.lower().endswith(".jsonl") else parse
                table = parser(file.read(LARGEST + 1), where)
        except OSError as error:
            raise DataError(f"{where}: cannot be read ({error}). Check its permissions.") from None
        except DataError as error:
            if meant:
                raise
            self.notes.append(f"{error} It was left alone.")
            return None
        table = _with_header(table, index)
        column, found = _file_column(table, index)
        if column is None:
            first = table.rows[0][0] if table.rows else ""
            about = f"column {table.header[0]!r}, first cell {first!r}"
            if meant or plain(table.header[0]) in FILE_WORDS - {"id", "key", "name", "url"}:
                raise DataError(
                    f"{where}: names no image of {self._place.name} ({about}). A column must hold "
                    "the names of the image files; correct it, or move the table away."
                )
            self.notes.append(f"{where}: names no image ({about}) and was left alone.")
            return None
        roles = find_roles(table, column, self._group)
        read = Read(table, column, found, roles, index.by_number)
        self.notes += _without_boxes(read)
        return read

    def give(self, source: Source, rows: NDArray[np.int64]) -> None:
        """Give a source what the tables say of its images.

        Arguments:
            source: of N images.
            rows: file of each image, ``(N,)``; several images of a stack are of one file.
        """
        source.notes += self.notes
        headers = [name for read in self._tables for name in read.table.header if name]
        if self._group is not None and self._group not in headers:
            raise ConfigError(
                f"data.group: no table of {source.name} has a column {self._group!r}. Columns: "
                f"{', '.join(headers) or 'none'}."
            )
        if not self._tables:
            return
        maps = [_rows_of(read, source, rows, self._group) for read in self._tables]
        columns = Columns(source, self._tables, maps)
        columns.keep_groups(self._group)
        columns.keep_labels()
        columns.keep_attributes()
        columns.keep_parts()
        for read in self._tables:
            source.notes.append(_said(read, columns))
            source.notes += _odd_rows(read)
        unnamed = np.flatnonzero((np.stack(maps) < 0).all(0))
        if len(unnamed):
            source.notes.append(
                f"{source.name}: {counted(len(unnamed), 'image')} (first: "
                f"{source.title(int(unnamed[0]))}) {'has' if len(unnamed) == 1 else 'have'} no row "
                "in a table."
            )


def _with_header(table: Table, index: Names) -> Table:
    """A table whose first line names an image gets a header, and the line back."""
    found = [row for row, _ in index.column(table.header)]
    with_ending = [
        row is not None and PurePosixPath(cell).suffix.lower() in SUFFIXES
        for cell, row in zip(table.header, found, strict=True)
    ]
    ends = with_ending if any(with_ending) else _files_in_header(table, index, found)
    if not any(ends):
        return table
    others = len(ends) - sum(ends)
    words = {row[c] for row in [table.header, *table.rows] for c, end in enumerate(ends) if not end}
    are_parts = "partition" in own_name(table.where) or None not in map(part_of_word, words)
    lines = [table.lines[0] - 1 if table.lines else 1, *table.lines]
    whole = replace(table, rows=[table.header, *table.rows], lines=lines)
    header = [
        "file"
        if end
        else f"column {column + 1}"
        if others > 1
        else "partition"
        if are_parts
        else header_of(whole, column)
        for column, end in enumerate(ends)
    ]
    return replace(whole, header=header)


def _files_in_header(table: Table, index: Names, found: Sequence[int | None]) -> list[bool]:
    """Which cells of the first line name a file without ending, as those below them do.

    One that is named again below, or is a word for files, is a header all the same.
    """
    ends = []
    for column, (header, file) in enumerate(zip(table.header, found, strict=True)):
        below: list[int | None] = []
        if file is not None and plain(header) not in FILE_WORDS:
            below = [row for row, _ in index.column(table.column(column))]
        named = sum(row is not None for row in below)
        ends.append(2 * named > len(below) and file not in below)
    return ends


def _file_column(table: Table, index: Names) -> tuple[int | None, list[Found]]:
    """The column that names most images; of equals the one whose header says so."""
    best: tuple[int, bool, int] = (0, False, 0)
    chosen: tuple[int | None, list[Found]] = (None, [])
    by_number = False
    for column, header in enumerate(table.header):
        says = plain(header) in FILE_WORDS
        found = index.column(table.column(column), numbers=says)
        named = sum(row is not None for row, _ in found)
        rank = (named, says, -column)
        if named and rank > best:
            best, chosen, by_number = rank, (column, found), index.by_number
    index.by_number = by_number
    return chosen


def _rows_of(
    read: Read, source: Source, rows: NDArray[np.int64], group: str | None
) -> NDArray[np.int64]:
    """Row of the table for each image, −1 for none.

    Raises:
        DataError: a name fits several images, or one image has rows that differ.
    """
    table, mapped = read.table, np.full(source.count, -1, np.int64)
    order = np.argsort(rows, kind="stable")
    starts = np.searchsorted(rows[order], np.arange(rows.max() + 2))
    for row, (file, frame) in enumerate(read.found):
        if file is None:
            continue
        cell = table.rows[row][read.file]
        if file == SEVERAL:
            raise DataError(
                f"{table.where}: line {table.lines[row]}: {cell!r} names several images. Give "
                "their folders too."
            )
        images = order[starts[file] : starts[file + 1]]
        if frame is not None:
            images = images[[source.title(int(i)).endswith(f"#{frame + 1}") for i in images]]
        for image in images.tolist():
            before = int(mapped[image])
            if before >= 0 and (differ := _differ(read, before, row, group)):
                raise DataError(
                    f"{table.where}: line {table.lines[row]}: {cell!r} was named before, in line "
                    f"{table.lines[before]}, with another {differ}. Keep one line an image; of "
                    "boxes with labels of their own, cut out the boxes as images."
                )
            mapped[image] = row
    return mapped


def _differ(read: Read, one: int, other: int, group: str | None) -> str:
    """What two rows about an image say differently, of what is used; "" for nothing."""
    table, roles = read.table, read.roles
    used = [] if roles.label is None else [roles.label]
    used += [
        table.header.index(name) for name in (*roles.attributes, group) if name in table.header
    ]
    for column in used:
        a, b = table.rows[one][column], table.rows[other][column]
        if a != b:
            return f"{table.header[column]!r} ({a!r}, then {b!r})"
    differ = roles.split is not None and roles.split[one] != roles.split[other]
    return f"part ({roles.headers['split']})" if differ else ""


def _without_boxes(read: Read) -> list[str]:
    """Leave boxes alone where an image has several, as they are none of the image's attributes."""
    table, attributes = read.table, read.roles.attributes
    boxes = {name: table.header.index(name) for name in attributes if plain(name) in _BOX_WORDS}
    of: dict[Found, set[tuple[str, ...]]] = {}
    for row, found in zip(table.rows, read.found, strict=True):
        if found[0] is not None:
            of.setdefault(found, set()).add(tuple(row[column] for column in boxes.values()))
    several = sum(len(rows) > 1 for rows in of.values())
    if not several:
        return []
    for name in boxes:
        del attributes[name]
    read.roles.left += boxes
    has = "image has" if several == 1 else "images have"
    listed = ", ".join(map(repr, boxes))
    return [f"{table.where}: {several:,} {has} several boxes ({listed}), which were left alone."]


def _folder_of(name: str, files: Sequence[str]) -> str:
    """The folder that a table is about: that of its part, as ``train/`` for ``train.csv``."""
    path = PurePosixPath(name)
    part, above = split_part(path.stem), path.parts[:-1]
    found = set()
    for file in files if part is not None else ():
        inner = file.split("/")[:-1]
        if (*inner[: len(above)],) != above:
            continue
        for end in range(len(above) + 1, len(inner) + 1):
            if split := split_part(inner[end - 1]):  # the first that names a part
                found |= {"/".join(inner[:end])} if part and split[0] == part[0] else set()
                break
    return found.pop() if len(found) == 1 else str(path.parent)


def _said(read: Read, columns: Columns) -> str:
    """The note on what the columns were taken for."""
    header, roles = read.table.header, read.roles
    what = f"column {header[read.file]!r}" if header[read.file] else f"column {read.file + 1}"
    said = [f"{what} names the images" + (" by number" if read.by_number else "")]
    if roles.label is not None and read.table.where not in columns.labels_unused:
        said.append(f"{roles.headers['label']!r} is the class")
    elif roles.label is not None:
        roles.left.append(roles.headers["label"])
    if roles.split is not None:
        said.append(f"{roles.headers['split']} names the parts")
    if names := list(roles.attributes):
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        are = "is an attribute" if len(names) == 1 else "are attributes"
        said.append(f"{', '.join(map(repr, names[:5]))}{more} {are}")
    if roles.left:
        said.append(f"{', '.join(map(repr, roles.left[:5]))} left alone")
    return f"{read.table.where}: {'; '.join(said)}."


def _odd_rows(read: Read) -> list[str]:
    """Notes on rows that name no image, and on those that repeat another."""
    notes, table = [], read.table
    without = [row for row, (file, _) in enumerate(read.found) if file is None]
    if without:
        first = without[0]
        name = "names" if len(without) == 1 else "name"
        notes.append(
            f"{table.where}: {counted(len(without), 'row')} {name} no image (first: line "
            f"{table.lines[first]}, {table.rows[first][read.file]!r}) and "
            f"{'was' if len(without) == 1 else 'were'} left out."
        )
    repeated = len(table.rows) - len(without) - len({f for f, _ in read.found if f is not None})
    if repeated > 0 and not any(frame is not None for _, frame in read.found):
        rows = "row repeats" if repeated == 1 else "rows repeat"
        notes.append(f"{table.where}: {repeated:,} {rows} another.")
    return notes
