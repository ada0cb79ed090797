"""Images larger than memory: a file of pixels, read a batch at a time."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaelab.errors import DataError


class PixelFile:
    """N images of one shape as raw bytes, one after another from the start of a file.

    Positional reads rather than a memory map: mapped pages count as memory of this process, and
    to give them back after every batch costs three times as much as reading what is needed.

    Arguments:
        path: of the file.
        shape: ``(N, C, H, W)``.
        sums: checksum of each image, which is compared when it is first read.
        repair: writes the file anew; without it a damaged image is an error.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int, int],
        sums: NDArray[np.uint64],
        repair: Callable[[], PixelFile] | None = None,
    ) -> None:
        self.shape = shape
        self._path, self._sums, self._repair = path, sums, repair
        self._checked = np.zeros(shape[0], bool)
        self._file = path.open("rb", buffering=0)  # stays whole when the name is taken away
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()

    def read(self, rows: NDArray[np.int64]) -> Tensor:
        """Images at ``rows``, uint8 ``(len(rows), C, H, W)``; neighbours in one go.

        Raises:
            DataError: an image is not what was written, and cannot be read anew.
        """
        images = self._read(rows)
        fresh = np.flatnonzero(~self._checked[rows])
        if len(fresh):
            some = images if len(fresh) == len(images) else images[fresh]
            if (sums_of(some) != self._sums[rows[fresh]]).any():
                self._renew()
                images = self._read(rows)
                if (sums_of(images) != self._sums[rows]).any():
                    raise self._damaged()
            self._checked[rows] = True
        return torch.from_numpy(images)

    def _renew(self) -> None:
        """Go on with the file as it is written anew from its source."""
        if self._repair is None:
            raise self._damaged()
        with self._lock:
            self._again = again = self._repair()  # which closes its file when it is gone
            self._file, self._sums = again._file, again._sums
            self._checked[:] = False

    def _damaged(self) -> DataError:
        return DataError(f"{self._path}: was damaged while in use. Load the data again.")

    def _read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        flat = images.reshape(len(rows), -1)
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1
        for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
            self._fill(flat[start:end].reshape(-1), int(rows[start]) * flat.shape[1])
        return images

    def announce(self, rows: NDArray[np.int64]) -> None:
        """Let the system fetch the images at ``rows`` from the disk while something else runs."""
        if hasattr(os, "posix_fadvise"):  # Linux; a thread instead would fight for Python's lock
            size = prod(self.shape[1:])
            for row in rows.tolist():
                os.posix_fadvise(self._file.fileno(), row * size, size, os.POSIX_FADV_WILLNEED)

    def _fill(self, buffer: NDArray[np.uint8], offset: int) -> None:
        while buffer.size:
            count = self._read_at(buffer, offset)
            if not count:
                raise DataError(f"{self._path}: was cut short while in use. Load the data again.")
            buffer, offset = buffer[count:], offset + count

    def _read_at(self, buffer: Any, offset: int) -> int:
        if hasattr(os, "preadv"):  # has no position that threads or forks would share
            return os.preadv(self._file.fileno(), [buffer], offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.readinto(buffer)


def sums_of(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Checksum of each image, ``(N,)``: Σ wᵢ xᵢ mod 2⁶⁴ over its 64-bit words, wᵢ odd and random.

    Any one changed word changes it, and two cancel with probability 2⁻⁶³ or so (a multilinear
    hash: Carter and Wegman, 1979). It is read as fast as memory is, ten times faster than CRC-32.
    """
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    words, rest = divmod(rows.shape[1], 8)
    weights = _weights(words + 1)
    sums: NDArray[np.uint64] = np.einsum("ij,j->i", rows[:, : 8 * words].view("<u8"), weights[:-1])
    if rest:
        last = np.zeros((len(rows), 8), np.uint8)
        last[:, :rest] = rows[:, 8 * words :]
        sums += last.view("<u8")[:, 0] * weights[-1]
    return sums


@functools.lru_cache(2)
def _weights(count: int) -> NDArray[np.uint64]:
    return np.random.PCG64(0).random_raw(count) | np.uint64(1)


class FileImages:
    """Rows of a `PixelFile`; takes the place of a uint8 tensor ``(N, C, H, W)``."""

    device = torch.device("cpu")

    def __init__(self, file: PixelFile, rows: Tensor | None = None) -> None:
        self.file = file
        self._rows = torch.arange(file.shape[0]) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> torch.Size:
        """As of a tensor: ``(N, C, H, W)``."""
        return torch.Size((len(self), *self.file.shape[1:]))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Copy some images into memory: uint8 ``(len(index), C, H, W)``; ``dim`` must be 0."""
        if dim != 0:
            raise ValueError("images of a file are taken along dimension 0")
        return self.file.read(self._rows.index_select(0, index).numpy())

    def announce(self, index: Tensor) -> None:
        """Say which images will be taken next, so that the disk is read meanwhile."""
        self.file.announce(self._rows.index_select(0, index).numpy())

    def with_rows(self, others: Sequence[FileImages]) -> FileImages:
        """These images and then others of the same file."""
        return FileImages(self.file, torch.cat([self._rows, *(each._rows for each in others)]))

    def view(self, index: Tensor) -> FileImages:
        """Some of the images, without copying them."""
        return FileImages(self.file, self._rows.index_select(0, index))
