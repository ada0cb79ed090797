"""Tables in text files: whatever delimiter, encoding and quoting a program has written."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass

from vaelab.errors import DataError

LARGEST = 2**28
"""Bytes of the largest table that is read."""

_SNIFFED = 200  # lines by which the delimiter is found


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Arguments:
        where: the file, in messages.
        header: a name for each column, "" where it has none; made up if the file names none.
        rows: cells, as many in each as the header has.
        lines: number of the line in the file that each row ends on.
        delimiter: what stands between cells.
    """

    where: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    delimiter: str

    def column(self, index: int) -> list[str]:
        """The cells of a column."""
        return [row[index] for row in self.rows]


def parse(data: bytes, where: str) -> Table:
    """Read a table; raises `DataError` when its rows are no rows of one table."""
    if len(data) > LARGEST:
        raise DataError(f"{where}: has {len(data) / 1e6:,.0f} MB, too many for a table. Split it.")
    text = _decoded(data, where).replace("\r\n", "\n").replace("\r", "\n")
    start = 0
    if named := re.match(r"\s*sep=(.)\n", text):  # as Excel writes it
        start, text = 1, text[named.end() :]
    if count := re.match(
        r"\s*\d+[ \t]*\n(?=[^\n]*[^\d\s])", text
    ):  # of the images, as CelebA's list begins
        start, text = text[: count.end()].count("\n"), text[count.end() :]
    delimiter = named[1] if named else _delimiter(text)
    lines, rows = [], []
    try:
        if delimiter == " ":
            for number, line in enumerate(text.split("\n"), 1):
                rows.append(line.split())
                lines.append(number + start)
        else:
            reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
            for row in reader:
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num + start)
    except csv.Error as error:
        raise DataError(
            f"{where}: line {len(lines) + 1 + start} cannot be read ({error}). Save it as CSV anew."
        ) from None
    kept = [(line, row) for line, row in zip(lines, rows, strict=True) if any(row)]
    if not kept:
        raise DataError(f"{where}: is empty. Remove it, or save it anew.")
    return _squared(where, [row for _, row in kept], [line for line, _ in kept], delimiter)


def _squared(where: str, rows: list[list[str]], lines: list[int], delimiter: str) -> Table:
    """Make all rows as long as the header, which may lack the name of the first column."""
    header, rows, first = rows[0], rows[1:], lines[1:]
    one_more = delimiter in " \t" and all(len(row) == len(header) + 1 for row in rows)
    if one_more:  # the names of rows have no header: R and CelebA write so
        header = ["", *header]
    while header and not header[-1] and all(not any(r[len(header) - 1 :]) for r in rows):
        header = header[:-1]  # empty columns at the right, as spreadsheets leave them
    for line, row in zip(first, rows, strict=True):
        if any(row[len(header) :]):
            raise DataError(
                f"{where}: line {line} has {len(row)} cells and the header has {len(header)} (cell "
                f"{row[len(header)]!r} is too many). Quote cells that hold {delimiter!r}."
            )
    width = len(header)
    even = [row[:width] + [""] * (width - len(row)) for row in rows]
    return Table(where, header, even, first, delimiter)


def _decoded(data: bytes, where: str) -> str:
    """Text in UTF-8, UTF-16 or, where it is neither, cp1252."""
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        if len(data) > 3 and data[1:4:2] == b"\0\0":
            return data.decode("utf-16-le")
        if len(data) > 3 and data[0:3:2] == b"\0\0":
            return data.decode("utf-16-be")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: is damaged UTF-16 ({error}). Save it as UTF-8.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _delimiter(text: str) -> str:
    """What splits the first lines into the same number of cells, two at least."""
    lines = [line for line in text.split("\n")[:_SNIFFED] if line.strip()]
    best, found = (0, 0), ","
    for mark in "\t;,|":
        try:
            counts = [len(row) for row in csv.reader(lines, delimiter=mark) if row]
        except csv.Error:
            continue
        width, often = Counter(counts).most_common(1)[0] if counts else (0, 0)
        if width > 1 and (often, width) > best:
            best, found = (often, width), mark
    if not best[0] and lines and all(len(line.split()) > 1 for line in lines):
        return " "
    return found
