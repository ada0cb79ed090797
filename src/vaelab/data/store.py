"""Where images are kept once read: in memory, or, larger than a budget, in a file.

A cache file holds the pixels, then a checksum of each image, then a JSON description, then a fixed
footer with the description's length and checksum. It is written beside its place and renamed, so a
file with a sound footer and the right length is complete. Its name says which source and options it
is for, its digest whether the source still is what it was. An image is checked when it is first
read; where it is damaged, the cache is written anew from the source.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from vaelab.config import ValueRange
from vaelab.data.filed import FileImages, PixelFile, sums_of
from vaelab.data.levels import ValuesError
from vaelab.data.pixels import Pixels, Shape
from vaelab.data.source import Progress, Source
from vaelab.errors import DataError
from vaelab.opening import open_regular

RANGE: TypeAdapter[ValueRange] = TypeAdapter(ValueRange)

CHUNK_BYTES = 16 * 2**20  # of pixels read at a time

_FOOTER = struct.Struct("<8sQI")
_MAGIC = b"vaelab\0\3"
_TEMPORARY = ".pixels.tmp"
_ABANDONED = 3600.0  # seconds without a write after which a temporary file has no writer


@dataclass(frozen=True)
class Stored:
    """All images of a source, the range of values that they were read by, and notes on that."""

    images: Tensor | FileImages
    range: ValueRange
    notes: list[str]


def default_budget() -> int:
    """Half of the memory that is free, in bytes; of a container's limit where there is one."""
    try:
        import psutil

        free = int(psutil.virtual_memory().available)
    except ImportError:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return free // 2


def default_cache() -> Path:
    """``$VAELAB_CACHE``, or ``vaelab`` in the user's cache folder."""
    named = os.environ.get("VAELAB_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vaelab"


def store(
    source: Source, budget: int | None, cache: Path | None, progress: Progress | None
) -> Stored:
    """Read all images of a source to where they fit.

    ``budget`` is what loading may hold at most, in bytes: twice the images, as read and as split.
    """
    folder = default_cache() if cache is None else cache
    path = _cache_path(source, folder)
    stored = None if path is None else _open_cache(path, source, folder)
    if stored is not None:
        return stored
    shape = source.measure()
    if 2 * source.count * prod(shape) > (default_budget() if budget is None else budget):
        return _write_cache(source, shape, path, folder, progress)
    images = np.empty((source.count, *shape), np.uint8)

    def keep(done: int, chunk: Pixels) -> None:
        images[done : done + len(chunk)] = chunk

    _read(source, keep, progress)
    return Stored(torch.from_numpy(images), source.levels.range, source.found(shape))


def _read(source: Source, keep: Callable[[int, Pixels], object], progress: Progress | None) -> None:
    """Read all images in order; once more where the range of all is not that of the first."""
    try:
        for _ in range(3):
            done = 0
            for chunk in _chunks(source, progress):
                keep(done, chunk)
                done += len(chunk)
            if source.levels.settled():
                return
    except ValuesError as error:
        raise DataError(f"{source.name}: {error}.") from None
    raise DataError(f"{source.name}: changes from one reading to the next. Save its images.")


def _chunks(source: Source, progress: Progress | None) -> Iterator[Pixels]:
    source.levels.begin()
    done = 0
    for chunk in source.chunks(CHUNK_BYTES):
        done += len(chunk)
        yield chunk
        if progress is not None:
            progress(done, source.count)


def _cache_path(source: Source, folder: Path) -> Path | None:
    if source.place is None:
        return None
    key = hashlib.sha256(f"{source.place}\0{source.geometry}".encode(errors="surrogateescape"))
    return folder / f"{key.hexdigest()[:32]}.pixels"


def _open_cache(path: Path, source: Source, folder: Path) -> Stored | None:
    """The images in a cache file, or None unless it is whole and still true of the source."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(size - _FOOTER.size)
            magic, length, checksum = _FOOTER.unpack(file.read())
            start = file.seek(size - _FOOTER.size - length - 8 * source.count)
            sums = np.frombuffer(file.read(8 * source.count), "<u8")
            text = file.read(length)
        if magic != _MAGIC or zlib.crc32(text, zlib.crc32(sums.tobytes())) != checksum:
            return None
        about = json.loads(text)
        channels, height, width = map(int, about["shape"])
        shape = (channels, height, width)
        if about["digest"] != source.digest or source.count * prod(shape) != start:
            return None
        source.conversion = str(about["conversion"])
        if about.get("fitted"):
            source.fitted = (shape[1], shape[2])
        source.bad = {int(index): str(fault) for index, fault in about["bad"].items()}
        images = _images(path, source, shape, sums, path, folder)
        values = RANGE.validate_python(about["range"])
        return Stored(images, values, [str(note) for note in about["notes"]])
    except Exception:  # whatever is wrong with it: it is written anew
        return None


def _images(
    file: Path,
    source: Source,
    shape: Shape,
    sums: NDArray[np.uint64],
    path: Path | None,
    folder: Path,
) -> FileImages:
    def again() -> PixelFile:
        images = _write_cache(source, shape, path, folder, None).images
        assert isinstance(images, FileImages)
        return images.file

    repair = None if path is None else again
    return FileImages(PixelFile(file, (source.count, *shape), sums, repair))


def _write_cache(
    source: Source, shape: Shape, path: Path | None, folder: Path, progress: Progress | None
) -> Stored:
    """Stream the images to a file in constant memory.

    Without ``path`` the file has no name that lasts: it is gone when the images are.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = source.count * prod(shape), shutil.disk_usage(folder).free
        if needed > free:
            raise DataError(
                f"{source.name}: needs {needed / 1e9:.1f} GB of cache but {folder} has "
                f"{free / 1e9:.1f} GB free. Set VAELAB_CACHE to a larger disk, or pass a smaller "
                "--size."
            )
        _remove_abandoned(folder)
        handle, name = tempfile.mkstemp(_TEMPORARY, dir=folder)
        beside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                about, sums = _write(file, source, shape, progress)
            images = _images(beside, source, shape, sums, path, folder)
            if path is not None:
                beside.replace(path)
            return Stored(images, about["range"], about["notes"])
        finally:
            with contextlib.suppress(OSError):  # renamed, or on Windows still open
                beside.unlink()
    except OSError as error:
        raise DataError(
            f"{source.name}: the cache in {folder} cannot be written ({error.strerror or error}). "
            "Set VAELAB_CACHE to a folder that can."
        ) from None


def _write(
    file: BinaryIO, source: Source, shape: Shape, progress: Progress | None
) -> tuple[dict[str, Any], NDArray[np.uint64]]:
    sums = np.zeros(source.count, "<u8")

    def keep(done: int, chunk: Pixels) -> None:
        rows = np.ascontiguousarray(chunk)
        if not done:
            file.seek(0)
        file.write(rows.data)
        sums[done : done + len(rows)] = sums_of(rows)

    _read(source, keep, progress)
    about = {
        "shape": shape,
        "digest": source.digest,
        "bad": source.bad,
        "conversion": source.conversion,
        "fitted": source.fitted is not None,
        "range": source.levels.range,
        "notes": source.found(shape),
    }
    text = json.dumps(about).encode()
    checksum = zlib.crc32(text, zlib.crc32(sums.tobytes()))
    file.write(sums.tobytes() + text + _FOOTER.pack(_MAGIC, len(text), checksum))
    file.flush()
    os.fsync(file.fileno())
    return about, sums


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(f"*{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()
