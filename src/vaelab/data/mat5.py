"""Arrays of numbers and lists of text in MATLAB's MAT-files of level 5 (versions 5 to 7.2).

A file is a header of 128 bytes, then elements: a tag of type and length, then bytes, which may be
deflated. Neither shape nor length is believed before the bytes are there, and no structure, object
or function is looked into, nor a cell array that holds anything but text. Source: MathWorks,
MAT-File Format.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vaelab.errors import DataError
from vaelab.opening import open_regular

_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_CLASSES = {
    6: "f8",
    7: "f4",
    8: "i1",
    9: "u1",
    10: "i2",
    11: "u2",
    12: "i4",
    13: "u4",
    14: "i8",
    15: "u8",
}
_TEXTS = {1: "utf-8", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_KNOWN = {*_STORED, *_TEXTS}
_CELL, _CHAR = 1, 4
_MATRIX, _DEFLATED = 14, 15
_COMPLEX, _LOGICAL = 0x800, 0x200
_PIECE = 2**20
_MOST = 1000  # elements of a file
_MOST_TEXTS, _LONGEST = 10_000_000, 2**16  # of a list, and letters of one
_LARGEST = 2**28  # letters of a list


@dataclass(frozen=True)
class Entry:
    """One variable of a file.

    Arguments:
        name: of the variable.
        shape: its sides, as MATLAB has them.
        dtype: of its numbers; None for what is no array of real numbers.
        place: where its element begins in the file.
        kind: MATLAB's number of its class.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    place: int
    kind: int = 0

    @property
    def is_text(self) -> bool:
        """Whether it may be a list of text."""
        if self.kind == _CELL:
            return 0 < prod(self.shape) <= _MOST_TEXTS
        return self.kind == _CHAR and len(self.shape) == 2 and self.shape[1] <= _LONGEST

    @property
    def size(self) -> int:
        """Bytes of memory that it takes."""
        return 0 if self.dtype is None else prod(self.shape) * self.dtype.itemsize


class MatFile:
    """The variables of a MAT-file; their numbers are read when they are asked for.

    Arguments:
        path: a regular file.

    Raises:
        DataError: it is no MAT-file of level 5, or it is cut.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_regular(path, error=DataError) as file:
            head = file.read(128)
            mark = head[126:128]
            if len(head) < 128 or mark not in (b"IM", b"MI"):
                raise DataError(
                    f"{path}: is no MAT-file of version 5 to 7.3. In MATLAB: save(…, '-v7')."
                )
            self._order = "<" if mark == b"IM" else ">"
            self.entries = list(self._survey(file))

    def read(self, entry: Entry) -> NDArray[Any]:
        """Return the numbers of a variable, in MATLAB's order of axes."""
        assert entry.dtype is not None
        with open_regular(self._path, error=DataError) as file:
            file.seek(entry.place)
            element = self._opened(file)
            assert element is not None
            self._described(element, entry.place)
            kind, length, data = element.tag()
            stored = np.dtype(self._order + _STORED.get(kind, "u1"))
            count = prod(entry.shape)
            if length != count * stored.itemsize:
                raise DataError(f"{self._path}: `{entry.name}` is damaged. Copy the file again.")
            values = np.frombuffer(data or element.take(length), stored, count)
        return values.astype(entry.dtype).reshape(entry.shape, order="F")

    def texts(self, entry: Entry) -> NDArray[Any] | None:
        """Return a cell array of text, or the rows of letters, as a list; None of other cells."""
        with open_regular(self._path, error=DataError) as file:
            file.seek(entry.place)
            element = self._opened(file)
            assert element is not None
            self._described(element, entry.place)
            if entry.kind == _CHAR:
                return np.array(self._letters(element, entry.shape), str)
            words = [self._cell(element) for _ in range(prod(entry.shape))]
        longest = max(0 if word is None else len(word) for word in words)
        return None if None in words or longest * len(words) > _LARGEST else np.array(words, str)

    def _cell(self, element: _Element) -> str | None:
        """The text of one cell, whose bytes are used up; None of anything else."""
        kind, length = struct.unpack(self._order + "II", element.take(8))
        if kind != _MATRIX:
            raise DataError(f"{self._path}: is truncated or damaged. Copy or download it again.")
        if not length:
            return ""
        if length > 8 * _LONGEST:
            return None
        inner = _Element(self._path, BytesIO(element.take(length)), length, self._order)
        about = self._described(inner, 0)
        if about.kind != _CHAR or len(about.shape) != 2 or about.shape[0] > 1:
            return None
        return "".join(self._letters(inner, about.shape))

    def _letters(self, element: _Element, shape: tuple[int, ...]) -> list[str]:
        """Rows of letters, without the spaces that fill them up."""
        if not prod(shape):
            return [""] * shape[0]
        kind, length, data = element.tag()
        if kind not in _TEXTS:
            raise DataError(f"{self._path}: a text is damaged. Copy or download it again.")
        code = _TEXTS[kind]
        code += "" if code == "utf-8" else ("-le" if self._order == "<" else "-be")
        letters = (data or element.take(length)).decode(code, errors="replace")
        if len(letters) != prod(shape):
            raise DataError(f"{self._path}: a text is damaged. Copy or download it again.")
        rows = np.array(list(letters)).reshape(shape, order="F").tolist()
        return ["".join(row).rstrip(" \0") for row in rows]

    def _survey(self, file: IO[bytes]) -> Iterator[Entry]:
        end = file.seek(0, 2)
        place = 128
        for _ in range(_MOST):
            if place + 8 > end:
                return
            file.seek(place)
            kind, length = struct.unpack(self._order + "II", file.read(8))
            if place + 8 + length > end:
                raise DataError(f"{self._path}: is truncated. Copy or download it again.")
            if kind in (_MATRIX, _DEFLATED):
                file.seek(place)
                element = self._opened(file)
                if element is not None:
                    yield self._described(element, place)
            place += 8 + length

    def _opened(self, file: IO[bytes]) -> _Element | None:
        """The bytes of a matrix, behind its own tag; None of another kind of element."""
        kind, length = struct.unpack(self._order + "II", file.read(8))
        if kind == _MATRIX:
            return _Element(self._path, file, length, self._order, deflated=False)
        element = _Element(self._path, file, length, self._order, deflated=True)
        inner, _ = struct.unpack(self._order + "II", element.take(8))
        return element if inner == _MATRIX else None

    def _described(self, element: _Element, place: int) -> Entry:
        flags = element.small(16)
        shape = element.small(8 * 32)
        name = element.small(256).rstrip(b"\0").decode("ascii", errors="replace")
        flag = struct.unpack(self._order + "I", flags[:4])[0] if len(flags) >= 4 else 0
        sides = struct.unpack(f"{self._order}{len(shape) // 4}i", shape[: len(shape) // 4 * 4])
        kind = _CLASSES.get(flag & 0xFF)
        text = flag & 0xFF in (_CELL, _CHAR)
        real = (kind is not None and not flag & _COMPLEX) or text
        plain = real and min(sides, default=-1) >= 0
        dtype = np.dtype("?" if flag & _LOGICAL else kind) if plain and not text else None
        if plain and prod(sides) > element.most:
            raise DataError(f"{self._path}: `{name}` is truncated. Copy or download it again.")
        return Entry(name, sides if plain else (), dtype, place, flag & 0xFF)


class _Element:
    """The bytes of one element, front to back."""

    def __init__(
        self, path: Path, file: IO[bytes], length: int, order: str, *, deflated: bool = False
    ) -> None:
        self._path, self._file, self._left, self._order = path, file, length, order
        self._packed = zlib.decompressobj() if deflated else None
        self.most = length * (1100 if deflated else 1)
        """Numbers that it can hold: no deflate stream expands more than 1032 times."""

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        if count > self.most:
            raise self._cut()
        found = bytearray()
        while len(found) < count:
            piece = self._piece(min(_PIECE, count - len(found)))
            if not piece:
                raise self._cut()
            found += piece
        return bytes(found)

    def _piece(self, count: int) -> bytes:
        if self._packed is None:
            data = self._file.read(min(count, self._left))
            self._left -= len(data)
            return data
        while not self._packed.eof:
            source = self._packed.unconsumed_tail
            if not source:
                source = self._file.read(min(_PIECE, self._left))
                self._left -= len(source)
                if not source:
                    return b""
            try:
                data = self._packed.decompress(source, count)
            except zlib.error as error:
                raise DataError(f"{self._path}: is damaged ({error}). Copy it again.") from None
            if data:
                return data
        return b""

    def tag(self) -> tuple[int, int, bytes]:
        """Return type and length of the next sub-element, and its bytes if they are in the tag."""
        head = self.take(8)
        first, second = struct.unpack(self._order + "II", head)
        if first >> 16:  # a small element
            kind, length = first & 0xFFFF, first >> 16
            if length > 4 or kind not in _KNOWN:
                raise self._cut()
            return kind, length, head[4 : 4 + length]
        if first not in _KNOWN:
            raise self._cut()
        return first, second, b""

    def small(self, most: int) -> bytes:
        """Return the bytes of the next sub-element, which are few."""
        _, length, data = self.tag()
        if length > most:
            raise self._cut()
        if data or not length:
            return data
        found = self.take(length)
        self.take(-length % 8)
        return found

    def _cut(self) -> DataError:
        return DataError(f"{self._path}: is truncated or damaged. Copy or download it again.")
