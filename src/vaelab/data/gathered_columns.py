"""What the columns of all tables say of the images, brought together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vaelab.data.delimited import Table
from vaelab.data.labels import UNKNOWN, ClassLabels, read_labels
from vaelab.data.naming import Found
from vaelab.data.part_words import split_part
from vaelab.data.roles import UNKNOWN_WORDS, Roles, is_label_word
from vaelab.data.source import PARTS, Source
from vaelab.errors import DataError, counted

_OFTEN = 0.01  # of the images: a word that may be a class


@dataclass(frozen=True)
class Read:
    """A table whose rows name images: which each names, and what its columns are."""

    table: Table
    file: int
    found: list[Found]
    roles: Roles
    by_number: bool


class Columns:
    """The columns of all tables, brought together."""

    def __init__(
        self, source: Source, tables: Sequence[Read], maps: Sequence[NDArray[np.int64]]
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
            self.source.notes += _unknown_words(new, read.table.where, header)
            new = ["" if cell.lower() in UNKNOWN_WORDS else cell for cell in new]
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
            named = [split_part(PurePosixPath(r.table.where).stem) for r in self.tables]
            found = [split[0] for split in named if split is not None]
            if len(found) == len(named) and len({*found}) > 1:
                for read, mapped, part in zip(self.tables, self.maps, found, strict=True):
                    new = np.where(mapped >= 0, part, UNKNOWN)
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


def _unknown_words(cells: Sequence[str], where: str, header: str) -> list[str]:
    """Notes on words that were read as no label, and how they become a class."""
    counts = Counter(cell for cell in cells if cell)
    found = {cell: count for cell, count in counts.items() if cell.lower() in UNKNOWN_WORDS}
    words = any(not re.fullmatch(r"[-+\d.]+", cell) for cell in counts if cell not in found)
    notes = []
    for cell, count in sorted(found.items()):
        plausible = words and count > _OFTEN * len(cells)
        other = " If it is a class, write another word in these cells."
        images = "image has" if count == 1 else "images have"
        notes.append(
            f"{where}: {count:,} {images} {cell!r} in column {header!r} and so no label."
            f"{other if plausible else ''}"
        )
    return notes


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
