"""Tables with a column for each pixel: Kaggle's ``label,pixel0,…``, in CSV or TSV, or a DataFrame.

Also FER2013's ``emotion,pixels,Usage``, where one cell holds all pixels of an image.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vaelab.data.arrays import ArraySource, Piece
from vaelab.data.companions import keep_parts, read_parts
from vaelab.data.pixel_columns import (
    Layout,
    check_square,
    check_width,
    counts_columns,
    is_number,
    is_shuffled,
    layout,
    square_side,
)
from vaelab.data.pixels import Geometry
from vaelab.data.readers import Array, decoding, in_memory
from vaelab.errors import DataError
from vaelab.opening import open_regular

_LONGEST = 2**26  # bytes of a line
_LOOK = 200  # lines by which the place of the labels is told


def frame_source(frame: Any, geometry: Geometry) -> ArraySource:
    """Images of a DataFrame with a column for each pixel."""
    where, names = type(frame).__name__, [str(name) for name in frame.columns]
    if not len(frame):
        raise DataError(f"{where}: has no rows. Pass a table with one row an image.")
    head = [[str(value) for value in row] for row in np.asarray(frame[:_LOOK], object).tolist()]
    about = layout(where, None if counts_columns(names) else names, head)
    columns = [frame.columns[k] for k in about.pixels]
    if len(columns) == 1:
        values = np.stack([np.array(cell.split(), np.float64) for cell in frame[columns[0]]])
    else:
        values = np.asarray(frame[columns])
    side = square_side(values.shape[1])
    if not side or values.dtype.kind not in "buif":
        raise DataError(f"{where}: its columns hold {values.dtype}, no pixels. Pass numbers.")
    images = in_memory(whole(values).reshape(-1, side, side), where)
    labels = None if about.label is None else frame[frame.columns[about.label]]
    usage = None
    if about.usage is not None:
        usage = names[about.usage], list(frame[frame.columns[about.usage]])
    return _source(where, images, labels, usage, geometry, about.notes)


def whole(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers that are whole and in [0, 255], with one above 1, as 8 bits; others as they are."""
    if values.dtype.kind == "f" and values.size and values.max() > 1:
        if values.min() >= 0 and values.max() <= 255 and (values == np.rint(values)).all():
            return values.astype(np.uint8)
    return values


def csv_source(path: Path, geometry: Geometry) -> ArraySource:
    """Images of a CSV or TSV file with a column for each pixel, streamed."""
    where = str(path)
    head = [line for line, _ in zip(_lines(path), range(_LOOK + 1), strict=False)]
    if not head or not head[0].strip():
        raise DataError(f"{where}: is empty. Pass a table with one row an image.")
    comma = max(",;\t", key=head[0].count)
    with decoding(where):
        rows = list(_parsed(head, comma))
    named = not all(is_number(cell) for cell in rows[0]) and not _text_row(rows)
    counted = not named and len(rows) > 1 and counts_columns(rows[0])
    named |= not counted and len(rows) > 1 and is_shuffled(rows[0])
    skip = int(named or counted)
    about = layout(where, rows[0] if named else None, rows[skip:], int(counted))
    if counted:
        about.notes.append(
            f"{where}: its first row numbers the columns, {rows[0][0]} to {rows[0][-1].strip()}, "
            "and was taken as a header."
        )
    table = _Table(path, comma, about, skip, len(rows[0]))
    with decoding(where):
        table.survey()
    images = Array(where, (table.count, table.side, table.side), table.dtype, table.chunks)
    usages = None
    if about.usage is not None and table.usages is not None:
        usages = rows[0][about.usage].strip(), table.usages
    return _source(where, images, table.labels, usages, geometry, about.notes, path)


def _text_row(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row is data though it holds text: a label at its one end."""
    if len(rows) < 2 or len(rows[0]) < 5:
        return False
    words = [k for k, cell in enumerate(rows[0]) if not is_number(cell)]
    return words in ([0], [len(rows[0]) - 1]) and not is_number(rows[1][words[0]])


def _source(
    where: str,
    images: Array,
    labels: Any,
    usages: tuple[str, Sequence[str]] | None,
    geometry: Geometry,
    notes: list[str],
    path: Path | None = None,
) -> ArraySource:
    values = None if labels is None else _objects(labels)
    side = images.shape[1]
    notes = [*notes, f"{where}: rows of {side * side:,} pixels were read as {side}×{side} images."]
    found = ArraySource(
        where,
        [Piece(images, 0, None if values is None else in_memory(values, f"{where}: labels"))],
        geometry,
        path,
        [path] if path else [],
        notes=notes,
    )
    if usages is not None:
        key, words = usages
        parts = read_parts(words, key, where)
        if parts is None:
            found.notes.append(f"{where}: column {key!r} names no parts and was left alone.")
        else:
            keep_parts(found, parts, key)
    return found


def _objects(labels: Any) -> NDArray[Any]:
    """Labels as numbers where all are, else as they are."""
    values = np.asarray(labels)
    if values.dtype.kind in "US":
        try:
            numbers = np.array([float(value) if value.strip() else np.nan for value in values])
        except ValueError:
            return values
        return numbers
    return values


def _lines(path: Path) -> Iterator[str]:
    """Lines that are not empty."""
    with open_regular(path, error=DataError) as file:
        yield from _decoded(file, path)


def _parsed(lines: Iterable[str], comma: str) -> Iterator[list[str]]:
    """Rows of lines; a cell may be as long as a line, where csv takes 131,072 characters."""
    reader = csv.reader(lines, delimiter=comma)
    while True:
        before = csv.field_size_limit(_LONGEST)  # of the whole process
        try:
            row = next(reader, None)
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        yield row


def _decoded(file: IO[bytes], path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(_LONGEST):
        number += 1
        if len(line) == _LONGEST:
            raise DataError(f"{path}: line {number} is longer than {_LONGEST:,} bytes. Check it.")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{path}: line {number} is no text. Save it as UTF-8 CSV.") from None
        if text.strip():
            yield text


class _Table:
    """A CSV file that is looked through once for its labels and range, then read in pieces."""

    def __init__(self, path: Path, comma: str, about: Layout, skip: int, width: int) -> None:
        self._path, self._comma, self._about = path, comma, about
        self._skip, self._width = skip, width
        self.labels: list[str] | None = None if about.label is None else []
        self.usages: list[str] | None = None if about.usage is None else []
        self.count = self.side = 0
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)

    def survey(self) -> None:
        """Count rows, keep labels, and find out what the numbers are."""
        low, high, whole = np.inf, -np.inf, True
        for rows in self._rows(256):
            values = self._values(rows)
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            whole = whole and bool((values == np.rint(values)).all())
            for row in rows:
                if self.labels is not None and self._about.label is not None:
                    self.labels.append(row[self._about.label])
                if self.usages is not None and self._about.usage is not None:
                    self.usages.append(row[self._about.usage])
            self.count += len(rows)
        if not self.count:
            raise DataError(f"{self._path}: has a header and no rows. Check the file.")
        if not (low >= 0 and high <= (255 if whole else 1)):
            raise DataError(
                f"{self._path}: holds {'whole numbers' if whole else 'numbers'} in "
                f"[{low:g}, {high:g}]. Pixels are whole numbers in [0, 255], or in [0, 1]."
            )
        self.dtype = np.dtype(np.uint8 if whole else np.float32)

    def chunks(self, size: int) -> Iterator[NDArray[Any]]:
        """All images in order, ``size`` at a time."""
        for rows in self._rows(size):
            with decoding(str(self._path)):
                values = self._values(rows)
            yield values.astype(self.dtype).reshape(-1, self.side, self.side)

    def _rows(self, size: int) -> Iterator[list[list[str]]]:
        rows: list[list[str]] = []
        for number, row in enumerate(_parsed(_lines(self._path), self._comma)):
            if number < self._skip:
                continue
            check_width(str(self._path), number + 1, row, self._width)
            rows.append(row)
            if len(rows) == size:
                yield rows
                rows = []
        if rows:
            yield rows

    def _values(self, rows: list[list[str]]) -> NDArray[np.float64]:
        pixels = self._about.pixels
        if len(pixels) == 1:
            cells = [row[pixels[0]].split() for row in rows]
        else:
            start, end = pixels[0], pixels[0] + len(pixels)
            if pixels == tuple(range(start, end)):
                cells = [row[start:end] for row in rows]
            else:
                cells = [[row[k] for k in pixels] for row in rows]
        try:
            values = np.array(cells, np.float64)
        except ValueError:
            raise DataError(
                f"{self._path}: a row after row {self.count + self._skip} holds what is no number "
                "where pixels are, or a row is shorter. Mend or remove it."
            ) from None
        self.side = square_side(values.shape[1])
        check_square(str(self._path), values.shape[1])
        if not np.isfinite(values).all():
            raise DataError(f"{self._path}: holds pixels that are NaN or infinite. Mend them.")
        return values
