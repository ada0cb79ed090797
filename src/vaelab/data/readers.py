"""Arrays in memory, or streamed from .npy, .npz and IDX files in constant memory.

A file is a header that names dtype and shape, then the numbers; neither is believed before the
file was found to be long enough, and nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import gzip
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from vaelab.data.pixels import as_array
from vaelab.errors import DataError
from vaelab.opening import inside, open_regular

Opener = Callable[[], AbstractContextManager[IO[bytes]]]

_DEFLATE_RATIO = 1100  # no deflate stream expands more than 1032 times
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


@dataclass(frozen=True)
class Array:
    """An array that can be read front to back in pieces of some rows."""

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: Callable[[int], Iterator[NDArray[Any]]]

    def read(self) -> NDArray[Any]:
        """All of it."""
        pieces = list(self.chunks(max(1, self.shape[0]))) if self.shape else []
        return pieces[0] if pieces else np.empty(self.shape, self.dtype)


def in_memory(values: Any, where: str) -> Array:
    """An array or tensor as an `Array`."""
    array = as_array(values)

    def chunks(rows: int) -> Iterator[NDArray[Any]]:
        for start in range(0, len(array), rows):
            yield array[start : start + rows]

    return Array(where, array.shape, array.dtype, chunks)


@contextlib.contextmanager
def decoding(where: str) -> Iterator[None]:
    """Turn whatever a decoder raises on damaged bytes into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except EOFError:
        raise DataError(f"{where}: is truncated. Copy or download it again.") from None
    except PermissionError:
        raise DataError(f"{where}: may not be read. Change its permissions.") from None
    except Exception as error:  # parsers of hostile bytes raise nearly anything
        raise DataError(
            f"{where}: is damaged or of another format ({error}). Copy or download it again."
        ) from None


def _stream(
    where: str, opened: Opener, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """The rows that follow ``offset`` bytes of header."""
    row = prod(shape[1:]) * dtype.itemsize

    def chunks(rows: int) -> Iterator[NDArray[Any]]:
        with decoding(where), opened() as file:
            file.read(offset)
            for start in range(0, shape[0], rows):
                count = min(rows, shape[0] - start)
                data = file.read(count * row)
                if len(data) < count * row:
                    raise EOFError
                yield np.frombuffer(data, dtype).reshape(count, *shape[1:])
            if file.read(1):
                raise DataError(
                    f"{where}: goes on after its {shape[0]} rows. Copy or download it again."
                )

    return Array(where, shape, dtype, chunks)


def _open(path: Path) -> BinaryIO:
    return open_regular(path, error=DataError)


def _check_length(where: str, shape: tuple[int, ...], itemsize: int, limit: int) -> None:
    """Refuse a header that claims more bytes than its file can hold, before memory is asked for."""
    if not shape or any(not isinstance(side, int) or side < 0 for side in shape):
        raise DataError(f"{where}: has shape {shape}. Save one row an image.")
    if 0 in shape[1:]:
        raise DataError(f"{where}: has shape {shape}, so an image has no pixels. Check the file.")
    if prod(shape) * itemsize > limit:
        raise DataError(f"{where}: is truncated (shape {shape}). Copy or download it again.")


def idx(path: Path, where: str) -> Array:
    """An IDX file, gzipped or not, as MNIST and its kin come in (LeCun et al., 1998)."""
    with decoding(where):
        inside(path.parent, path, DataError)
        with _open(path) as file:
            packed = file.read(2) == b"\x1f\x8b"

        @contextlib.contextmanager
        def opened() -> Iterator[IO[bytes]]:
            with _open(path) as file:
                yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file

        with opened() as stream:
            zero, kind, dims = struct.unpack(">HBB", stream.read(4))
            if zero != 0 or kind not in _IDX_TYPES or not dims:
                raise DataError(f"{where}: does not start as an IDX file. Check what it is.")
            shape = struct.unpack(f">{dims}I", stream.read(4 * dims))
        dtype = np.dtype(_IDX_TYPES[kind])
        limit = path.stat().st_size * (_DEFLATE_RATIO if packed else 1)
        _check_length(where, shape, dtype.itemsize, limit)
        return _stream(where, opened, 4 + 4 * dims, shape, dtype)


def _npy(where: str, opened: Opener, limit: int) -> Array:
    with decoding(where):
        with opened() as file:
            version = np.lib.format.read_magic(file)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }.get(version)
            if header is None:
                raise DataError(f"{where}: is .npy version {version}. Save an array of numbers.")
            shape, fortran, dtype = header(file)
            offset = file.tell()
        if dtype.kind not in "biufU":
            raise DataError(
                f"{where}: holds {dtype}; objects are never read. Save an array of numbers."
            )
        _check_length(where, shape, dtype.itemsize, limit)
        if not fortran or len(shape) == 1:
            return _stream(where, opened, offset, shape, dtype)
        # A row of a column-major array is scattered over the file, so all of it has to be read.
        return in_memory(_stream(where, opened, offset, shape[::-1], dtype).read().T, where)


def npy(path: Path, where: str) -> Array:
    """A .npy file."""
    with decoding(where):
        return _npy(where, lambda: _open(path), path.stat().st_size)


def npz(path: Path, where: str) -> dict[str, Array]:
    """The arrays of a .npz file by name."""
    with decoding(where), _open(path) as file, zipfile.ZipFile(file) as archive:
        return {
            member.filename.removesuffix(".npy"): _member(path, member, where)
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }


def _member(path: Path, member: zipfile.ZipInfo, where: str) -> Array:
    where = f"{where}[{member.filename.removesuffix('.npy')}]"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where}: has an unknown compression. Save it with numpy.savez.")

    @contextlib.contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with _open(path) as whole, zipfile.ZipFile(whole) as archive:
            with archive.open(member.filename) as file:
                yield file

    return _npy(where, opened, min(member.file_size, path.stat().st_size * _DEFLATE_RATIO))
