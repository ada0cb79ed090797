"""Labels, attributes, parts and groups from the tables that lie beside images.

A table is a text file (CSV, TSV, CelebA's lists) with a column that names images and others that
say something about them. What a column is, is told by its header and its cells (`roles`), and said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vaelab.data.delimited import LARGEST, Table, parse
from vaelab.data.formats import SUFFIXES
from vaelab.data.labels import UNKNOWN, ClassLabels, read_labels
from vaelab.data.naming import SEVERAL, Found, Names
from vaelab.data.part_words import part_of_word
from vaelab.data.places import Place
from vaelab.data.roles import (
    FILE_WORDS,
    UNKNOWN_WORDS,
    Roles,
    find_roles,
    is_label_word,
    own_name,
    plain,
)
from vaelab.data.source import PARTS, Source
from vaelab.errors import ConfigError, DataError, counted
from vaelab.opening import shown

_SUFFIXES = (".csv", ".tsv", ".tab")
_LISTS = ("list_attr_celeba.txt", "list_eval_partition.txt", "labels.txt", "attributes.txt")
_NO_LABEL = UNKNOWN_WORDS - {"unknown", "none", "nil"}  # which may be names of classes
_MEANT = ("label", "attribute", "annotation", "metadata", "class", "list_")


def is_table(name: str) -> bool:
    """Whether a file may be a table, by its name."""
    path = PurePosixPath(name.lower())
    return path.suffix in _SUFFIXES or path.name in _LISTS


@dataclass(frozen=True)
class _Read:
    """A table whose rows name images: which each names, and what its columns are."""

    table: Table
    file: int
    found: list[Found]
    roles: Roles
    by_number: bool


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
        self._tables: list[_Read] = []
        index = Names(files if names else [])
        for name in names:
            if "submission" in own_name(name):  # a form to be filled in, whose labels are none
                continue
            found = self._read(name, index.below(str(PurePosixPath(name).parent)))
            if found is not None:
                self._tables.append(found)

    def _read(self, name: str, index: Names) -> _Read | None:
        self.known.add(name)
        where = shown(name)
        where = where if self._place.name == where else f"{self._place.name}/{where}"
        meant = any(word in own_name(name) for word in _MEANT)
        try:
            with self._place.open(name) as file:
                table = parse(file.read(LARGEST + 1), where)
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
        return _Read(table, column, found, roles, index.by_number)

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
        maps = [_rows_of(read, source, rows) for read in self._tables]
        columns = _Columns(source, self._tables, maps)
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


class _Columns:
    """The columns of all tables, brought together."""

    def __init__(
        self, source: Source, tables: Sequence[_Read], maps: Sequence[NDArray[np.int64]]
    ) -> None:
        self.source, self.tables, self.maps = source, tables, maps
        self.labels_unused: set[str] = set()

    def keep_groups(self, group: str | None) -> None:
        """Take the cells of the column that keeps images together."""
        for read, mapped in zip(self.tables, self.maps, strict=True):
            if group in read.table.header:
                cells = np.array([*read.table.column(read.table.header.index(group)), ""], object)
                old = self.source.groups or [""] * self.source.count
                self.source.groups = [
                    new or before for new, before in zip(cells[mapped], old, strict=True)
                ]

    def keep_labels(self) -> None:
        """Take the labels, in place of what folders say unless only words suggest them."""
        labels: list[str] | None = None
        by = ""
        for read, mapped in zip(self.tables, self.maps, strict=True):
            if read.roles.label is None:
                continue
            header = read.roles.headers["label"]
            if len(self.source.class_names) > 1 and not is_label_word(header):
                self.labels_unused.add(read.table.where)
                continue
            new = ["" if row < 0 else read.table.rows[row][read.roles.label] for row in mapped]
            new = ["" if cell.lower() in _NO_LABEL else cell for cell in new]
            if all(
                re.fullmatch(r"-?\d+\.0+", cell) for cell in new if cell
            ):  # of pandas, with gaps
                new = [cell.partition(".")[0] for cell in new]
            if labels is not None:
                new = _merged(labels, new, f"{by} and {read.table.where}", self.source)
            labels, by = new, read.table.where
        if labels is None:
            return
        folders = len(self.source.class_names)
        found = read_labels(np.array(labels), self.source.count, by)
        if found is None:
            return
        if folders > 1:
            of_folders = self._words_of_folders(labels, found.numbers)
            if of_folders is None:
                self.source.notes.append(
                    f"The classes are those of {by}; the {folders} class folders say otherwise and "
                    "were not used."
                )
            else:
                found = self._filled(labels, of_folders, by) or found
        self.source.labels, self.source.class_names = found.numbers, found.names
        self.source.notes += found.notes

    def _words_of_folders(
        self, labels: Sequence[str], numbers: NDArray[np.int64]
    ) -> list[str] | None:
        """What a table calls the class of each folder; None where they say different things."""
        own = self.source.labels
        assert own is not None
        both = np.flatnonzero((numbers >= 0) & (own >= 0))
        pairs = {(int(numbers[image]), int(own[image])): labels[image] for image in both.tolist()}
        words = {folder: word for (_, folder), word in pairs.items()}
        if len({number for number, _ in pairs}) != len(pairs) or len(words) != len(pairs):
            return None
        every = [words.get(k, name) for k, name in enumerate(self.source.class_names)]
        return every if len({*every}) == len(every) else None

    def _filled(self, labels: list[str], of_folders: list[str], by: str) -> ClassLabels | None:
        """Labels of a table, and of the folders for images that have no row in it."""
        own = self.source.labels
        assert own is not None
        maps = [
            mapped
            for read, mapped in zip(self.tables, self.maps, strict=True)
            if read.roles.label is not None and read.table.where not in self.labels_unused
        ]
        left = np.flatnonzero((np.stack(maps) < 0).all(0) & (own >= 0))
        if not len(left):
            return None
        for image in left.tolist():
            labels[image] = of_folders[own[image]]
        keep = "image keeps" if len(left) == 1 else "images keep"
        self.source.notes.append(
            f"{by}: {len(left):,} {keep} the class of the folder, having no row."
        )
        return read_labels(np.array(labels), self.source.count, by)

    def keep_attributes(self) -> None:
        """Take the attributes of all tables."""
        found: dict[str, NDArray[np.float32]] = {}
        for read, mapped in zip(self.tables, self.maps, strict=True):
            for name, values in read.roles.attributes.items():
                with np.errstate(over="ignore"):  # becomes infinite, which is refused
                    column = np.append(values, np.nan)[mapped].astype(np.float32)
                old = found.get(name)
                if old is not None:
                    both = ~np.isnan(old) & ~np.isnan(column)
                    if (old[both] != column[both]).any():
                        image = int(np.flatnonzero(both)[(old[both] != column[both]).argmax()])
                        raise DataError(
                            f"{read.table.where}: column {name!r} gives {column[image]:g} for "
                            f"{self.source.title(image)}, and another table {old[image]:g}. Remove "
                            "one of the columns."
                        )
                    column = np.where(np.isnan(column), old, column)
                found[name] = column
        if found:
            where = " and ".join(r.table.where for r in self.tables if r.roles.attributes)
            self.source.keep_attributes(tuple(found), np.stack([*found.values()], 1), where)

    def keep_parts(self) -> None:
        """Take the parts that a column names, or that tables are named by."""
        parts = np.full(self.source.count, UNKNOWN, np.int8)
        for read, mapped in zip(self.tables, self.maps, strict=True):
            if read.roles.split is not None:
                parts = _joined(parts, np.append(read.roles.split, -1)[mapped], read.table.where)
        if (parts < 0).all() and len(self.tables) > 1:
            named = [part_of_word(PurePosixPath(r.table.where).stem) for r in self.tables]
            if None not in named and len({*named}) > 1:
                for read, mapped, part in zip(self.tables, self.maps, named, strict=True):
                    new = np.where(mapped >= 0, part or 0, UNKNOWN)
                    parts = _joined(parts, new, read.table.where)
                self.source.notes.append("The parts are those that the tables are named by.")
        if (parts < 0).all():
            return
        own = self.source.parts
        if own.any() and (own != parts)[parts >= 0].any():
            image = int(((own != parts) & (parts >= 0)).argmax())
            raise DataError(
                f"{self.source.name}: {self.source.title(image)} is among the {PARTS[own[image]]} "
                f"images by its folder and {PARTS[parts[image]]} by a table. Correct one of them."
            )
        unknown = int((parts < 0).sum())
        if unknown and not own.any():
            self.source.notes.append(
                f"{counted(unknown, 'image')} without a part in the table "
                f"{'is' if unknown == 1 else 'are'} among the training images."
            )
        self.source.parts = np.where(parts < 0, own, parts).astype(np.int8)


def _joined(old: NDArray[np.int8], new: NDArray[np.int64], where: str) -> NDArray[np.int8]:
    if ((old >= 0) & (new >= 0) & (old != new)).any():
        raise DataError(
            f"{where}: puts images into another part than another table does. Keep one."
        )
    return np.where(new >= 0, new, old).astype(np.int8)


def _merged(old: list[str], new: list[str], where: str, source: Source) -> list[str]:
    for image, (one, other) in enumerate(zip(old, new, strict=True)):
        if one and other and one != other:
            raise DataError(
                f"{where}: give {source.title(image)} the labels {one!r} and {other!r}. Remove one "
                "of the tables."
            )
    return [one or other for one, other in zip(old, new, strict=True)]


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
    name = "partition" if are_parts else "label"
    header = [
        "file" if end else name if others == 1 else f"column {column + 1}"
        for column, end in enumerate(ends)
    ]
    lines = [table.lines[0] - 1 if table.lines else 1, *table.lines]
    return replace(table, header=header, rows=[table.header, *table.rows], lines=lines)


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


def _rows_of(read: _Read, source: Source, rows: NDArray[np.int64]) -> NDArray[np.int64]:
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
            if before >= 0 and not _alike(table, before, row, read.file):
                raise DataError(
                    f"{table.where}: line {table.lines[row]}: {cell!r} was named before, in line "
                    f"{table.lines[before]}, with other values. Remove one of the lines."
                )
            mapped[image] = row
    return mapped


def _alike(table: Table, one: int, other: int, file: int) -> bool:
    """Whether two rows say the same, but for a number that counts them."""
    return all(
        a == b
        for column, (a, b) in enumerate(zip(table.rows[one], table.rows[other], strict=True))
        if column != file and plain(table.header[column]) not in ("", "unnamed", "index")
    )


def _said(read: _Read, columns: _Columns) -> str:
    """The note on what the columns were taken for."""
    header, roles = read.table.header, read.roles
    what = f"column {header[read.file]!r}" if header[read.file] else f"column {read.file + 1}"
    said = [f"{what} names the images" + (" by number" if read.by_number else "")]
    if roles.label is not None and read.table.where not in columns.labels_unused:
        said.append(f"{roles.headers['label']!r} is the class")
    elif roles.label is not None:
        roles.left.append(roles.headers["label"])
    if roles.split is not None:
        said.append(f"{roles.headers['split']!r} names the parts")
    if names := list(roles.attributes):
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        are = "is an attribute" if len(names) == 1 else "are attributes"
        said.append(f"{', '.join(map(repr, names[:5]))}{more} {are}")
    if roles.left:
        said.append(f"{', '.join(map(repr, roles.left[:5]))} left alone")
    return f"{read.table.where}: {'; '.join(said)}."


def _odd_rows(read: _Read) -> list[str]:
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
