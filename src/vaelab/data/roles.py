"""What the columns of a table are: label, attribute, part; by their headers and by their cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vaelab.data.delimited import Table
from vaelab.data.part_columns import flag_columns, flagged, joined, part_column
from vaelab.data.part_words import plain
from vaelab.errors import DataError

FILE_WORDS = {
    *("file", "files", "filename", "filenames", "fname", "image", "images", "img", "imagename"),
    *("imageid", "imgid", "imagefile", "imagepath", "path", "filepath", "name", "id", "picture"),
    *("datei", "dateiname", "bild", "bildname", "fichier", "photo", "uri", "url", "key"),
}
_LABEL_WORDS = {
    *("label", "labels", "class", "classes", "classname", "classid", "category", "categories"),
    *("target", "y", "species", "klasse", "kategorie", "labelname", "labelid", "categoryname"),
    *("categoryid", "diagnosis", "classe", "etikett", "groundtruth", "truth"),
}
_INDEX_WORDS = {
    "",
    "unnamed0",
    "level0",
    "index",
    "idx",
    "id",
    "nr",
    "no",
    "number",
    "row",
    "rowid",
}
_GROUP_WORDS = {
    *("group", "groupid", "patient", "patientid", "subject", "subjectid", "slide", "slideid"),
    *("person", "personid", "participant", "participantid", "session", "sessionid", "scan"),
    *("fold", "folds", "foldid", "kfold", "cvfold"),
}
_YES = {"yes", "true", "y", "t", "ja", "j", "wahr", "oui", "vrai", "si", "sí", "sim", "on"}
_NO = {"no", "false", "n", "f", "nein", "falsch", "non", "faux", "não", "nao", "off"}
UNKNOWN_WORDS = {"", "na", "n/a", "nan", "none", "null", "?", "-", "<na>", "unknown", "nil"}

_MANY = 100
_MOSTLY = 0.5  # of the cells are numbers in a column whose other cells are faults
_NUMBER = re.compile(r"[-+−]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?inf(inity)?", re.IGNORECASE)


@dataclass
class Roles:
    """Columns of a table by what they are: indices, or values of each row."""

    label: int | None = None
    split: list[int] | None = None  # part of each row, −1 unknown
    attributes: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)


def own_name(where: str) -> str:
    """Name of a table in small letters, without its folders, which say nothing of its cells."""
    return PurePosixPath(where).name.lower()


def is_label_word(header: str) -> bool:
    """Whether a header says that a column holds labels."""
    return plain(header) in _LABEL_WORDS


def find_roles(table: Table, file: int, group: str | None) -> Roles:
    """Tell what every column but that of the files is.

    A column of persons, folds or the like, or the one named ``group``, is neither label nor
    attribute.

    Raises:
        DataError: two columns could be the labels, or a cell is no number among numbers.
    """
    roles = Roles()
    texts: list[int] = []
    attributes_only = table.where.lower().endswith("attributes.csv")
    named: list[int] = []
    of_parts = _find_parts(table, [*_told(table, file, group)], roles)
    for column in _told(table, file, group, roles.left):
        name = table.header[column]
        if column in of_parts:
            continue
        is_label = _is_label(table, column)
        values = _numbers(table, column, strict=not is_label)
        if is_label and (values is None or (_is_whole(values) and not attributes_only)):
            named.append(column)
        elif values is None:
            texts.append(column)
        elif name in roles.attributes:
            raise DataError(f"{table.where}: two columns are named {name!r}. Rename one.")
        elif not name:
            roles.left.append(f"column {column + 1}")
        else:
            roles.attributes[name] = values
    _choose_label(table, roles, named, texts)
    return roles


def _told(
    table: Table, file: int, group: str | None, left: list[str] | None = None
) -> Iterator[int]:
    """Columns that may say something of the images; those of groups are added to ``left``."""
    for column, name in enumerate(table.header):
        cells = table.column(column)
        if column == file or not any(cells) or _is_index(name, cells):
            continue
        if name != group and plain(name) not in _GROUP_WORDS:
            yield column
        elif left is not None and name != group:
            left.append(name)


def _find_parts(table: Table, columns: Sequence[int], roles: Roles) -> set[int]:
    """Read the parts; also which columns name them."""

    def numbers(column: int) -> NDArray[np.float64] | None:
        return _numbers(table, column, strict=False)

    columns = [column for column in columns if not is_label_word(table.header[column])]
    found = {c: part_column(table, c, own_name(table.where)) for c in columns}
    words = {column: part for column, part in found.items() if part is not None}
    flags = flag_columns(table, [c for c in columns if c not in words], numbers)
    both = [*words.values(), flagged(table, flags, numbers)]
    if (parts := joined(table, [part for part in both if part is not None])) is not None:
        roles.split, roles.headers["split"] = parts.parts, parts.said
    return {*words, *flags}


def _is_label(table: Table, column: int) -> bool:
    """Whether a header says that a column holds labels; beside x, y is a place."""
    header = plain(table.header[column])
    return header in _LABEL_WORDS and not (header == "y" and "x" in map(plain, table.header))


def _choose_label(table: Table, roles: Roles, named: list[int], texts: list[int]) -> None:
    """Take the column that is named like a label, else the one of few words."""
    few = [column for column in texts if _is_few(table.column(column))]
    found = named or few
    only = list(roles.attributes)
    lists_labels = re.search("label|class|klasse", own_name(table.where))
    if not found and len(only) == 1 and lists_labels and like_classes(roles.attributes[only[0]]):
        found = [table.header.index(only[0])]
        del roles.attributes[only[0]]
    if len(found) > 1:
        found = _same(table, found)
    if len(found) > 1:
        first, second = (table.header[column] for column in found[:2])
        raise DataError(
            f"{table.where}: columns {first!r} and {second!r} could both be the labels. Write "
            "`label` as the header of the one to use, and another word as that of the other."
        )
    if found:
        roles.label, roles.headers["label"] = found[0], table.header[found[0]]
    roles.left += [table.header[c] for c in [*named, *texts] if c not in found]


def _same(table: Table, found: list[int]) -> list[int]:
    """Of columns that name the same classes, such as number and word, the one with words."""
    exact = [c for c in found if plain(table.header[c]) == "label"]
    pairs = {tuple(row[c] for c in found) for row in table.rows}
    if all(len({pair[k] for pair in pairs}) == len(pairs) for k in range(len(found))):
        words = [c for c in found if _numbers(table, c, strict=False) is None]
        return (words or found)[:1]
    return exact if len(exact) == 1 else found


def _is_few(cells: Sequence[str]) -> bool:
    """Whether words repeat as those of classes do."""
    known = [cell for cell in cells if cell.lower() not in UNKNOWN_WORDS]
    return len(known) > 0 and len({*known}) <= max(2, len(known) / 2)


def _is_whole(values: NDArray[np.float64]) -> bool:
    """Whether numbers may be those of classes."""
    known = values[~np.isnan(values)]
    return bool(len(known) and (known == np.rint(known)).all() and known.min() >= -1)


def like_classes(values: NDArray[np.float64]) -> bool:
    """Whether whole numbers repeat as those of classes do: by `_is_few`, or few of each are many.

    More than 100 numbers with gaps between them and fewer than 5 images each are no classes.
    """
    if not _is_whole(values):
        return False
    known = values[~np.isnan(values)]
    distinct = np.unique(known)
    sparse = len(distinct) > _MANY and len(known) < 5 * len(distinct)
    gaps = len(distinct) < distinct[-1] - distinct[0] + 1
    return len(distinct) <= max(2, len(known) / 2) and not (sparse and gaps)


def header_of(table: Table, column: int) -> str:
    """The header of a column that has none: ``value`` for numbers that are no classes."""
    values = _numbers(table, column, strict=False)
    return "label" if values is None or like_classes(values) else "value"


def _is_index(name: str, cells: Sequence[str]) -> bool:
    """Whether a column counts the rows."""
    if plain(name) not in _INDEX_WORDS or not all(cell.isdecimal() for cell in cells):
        return False
    return len({*cells}) == len(cells)


def _numbers(table: Table, column: int, strict: bool) -> NDArray[np.float64] | None:
    """Values of a column of numbers or of yes and no, NaN where unknown; None for words.

    With ``strict`` a word among numbers is an error.
    """
    cells = table.column(column)
    known = [cell for cell in cells if cell.lower() not in UNKNOWN_WORDS]
    words = {cell.lower() for cell in known}
    if words and words <= _YES | _NO:
        marks = {**dict.fromkeys(_YES, 1.0), **dict.fromkeys(_NO, 0.0)}
        return np.array([marks.get(cell.lower(), np.nan) for cell in cells])
    commas = _commas(known, table.delimiter)
    values = [_number(cell, commas) for cell in known]
    bad = [cell for cell, value in zip(known, values, strict=True) if value is None]
    if not known or len(bad) > (1 - _MOSTLY) * len(known):
        return None
    if bad and not strict:
        return None
    if bad:
        line = table.lines[cells.index(bad[0])]
        raise DataError(
            f"{table.where}: line {line}, column {table.header[column]!r}: {bad[0]!r} is no number "
            "among numbers. Correct it, or leave the cell empty where the value is unknown."
        )
    found = iter(values)
    return np.array(
        [np.nan if c.lower() in UNKNOWN_WORDS else next(found) for c in cells], np.float64
    )


def _commas(cells: Sequence[str], delimiter: str) -> str:
    """What a comma within numbers is: ``decimal``, ``thousands`` or ""."""
    with_comma = [cell for cell in cells if "," in cell]
    if not with_comma:
        return ""
    thousands = all(re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", cell) for cell in with_comma)
    return "thousands" if thousands and delimiter == "," else "decimal"


def _number(cell: str, commas: str) -> float | None:
    text = cell.replace(",", {"decimal": ".", "thousands": ""}.get(commas, ","))
    if not _NUMBER.fullmatch(text):
        return None
    return float(text.replace("−", "-"))
