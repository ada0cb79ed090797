"""Images larger than memory: a file mapped into memory, read in constant memory."""

from __future__ import annotations

import mmap
import warnings
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

RESIDENT_BYTES = 32 * 2**20
"""A map gives its pages back once about this many bytes of them were touched."""

_FAULT_AROUND = 64 * 2**10  # Linux maps up to 16 pages around the one that was asked for


@dataclass
class _Map:
    """One mapped file, shared by all views of it; remembers how much of it was touched."""

    pixels: Tensor
    memory: mmap.mmap
    touched: int = field(default=0)

    def take(self, rows: Tensor) -> Tensor:
        images = self.pixels.index_select(0, rows)
        self.touched += len(rows) * (self.pixels[0].numel() + _FAULT_AROUND)
        if self.touched >= RESIDENT_BYTES:
            self.touched = 0
            if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
                self.memory.madvise(mmap.MADV_DONTNEED)
        return images


class MappedImages:
    """Rows of a mapped file of uint8 images; takes the place of a tensor ``(N, C, H, W)``.

    Mapped pages count as memory of this process until they are given back, so a pass over the
    whole file would fill the memory; `index_select` gives them back every `RESIDENT_BYTES`.
    """

    device = torch.device("cpu")

    def __init__(self, source: _Map, rows: Tensor) -> None:
        self._source = source
        self._rows = rows

    @classmethod
    def open(cls, path: Path, shape: tuple[int, int, int, int]) -> MappedImages:
        """Map the first ``N · C · H · W`` bytes of a file."""
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), prod(shape), access=mmap.ACCESS_READ)
        with warnings.catch_warnings():  # of memory that cannot be written: nothing here writes
            warnings.simplefilter("ignore", UserWarning)
            pixels = torch.from_numpy(np.frombuffer(memory, np.uint8).reshape(shape))
        return cls(_Map(pixels, memory), torch.arange(shape[0]))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> torch.Size:
        """As of a tensor: ``(N, C, H, W)``."""
        return torch.Size((len(self), *self._source.pixels.shape[1:]))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Copy some images into memory: uint8 ``(len(index), C, H, W)``; ``dim`` must be 0."""
        if dim != 0:
            raise ValueError("mapped images are taken along dimension 0")
        return self._source.take(self._rows.index_select(0, index))

    def view(self, index: Tensor) -> MappedImages:
        """Some of the images, without copying them."""
        return MappedImages(self._source, self._rows.index_select(0, index))
