"""Which image is which: a name for each image of a set, without a copy for every part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from vaelab.data.source import PARTS, Source


class Titles:
    """Names of N images: paths inside a folder, or numbers of rows of an array.

    Arguments:
        rows: number of each image in its source, int64 ``(N,)``.
        write: gives the name of a row.
        files: whether names are those of files, not numbers of rows.
    """

    def __init__(self, rows: Tensor, write: Callable[[int], str], files: bool = True) -> None:
        self.rows, self._write, self.files = rows, write, files

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> str:
        return self._write(int(self.rows[index]))

    def __iter__(self) -> Iterator[str]:
        return map(self._write, self.rows.tolist())

    def subset(self, index: Tensor) -> Titles:
        """Return the names of the images at ``index``."""
        return Titles(self.rows[index.to(self.rows.device)], self._write, self.files)

    def followed(self, others: Sequence[Titles]) -> Titles:
        """Return these names and then others of the same source."""
        rows = torch.cat([self.rows, *(each.rows for each in others)])
        return Titles(rows, self._write, self.files)


def titles(source: Source) -> Titles:
    """Return the names of all images of a source.

    They are its own, such as paths; else the number of the image, counted in each part from 0 and
    written ``test/3`` where the source has several parts.
    """
    rows = torch.arange(source.count)
    if type(source).title is not Source.title:
        return Titles(rows, tuple(map(source.title, range(source.count))).__getitem__)
    parts = source.parts
    if (parts == parts[0]).all():
        return Titles(rows, str, files=False)
    within = np.zeros(source.count, np.int64)
    for part in range(len(PARTS)):
        within[parts == part] = np.arange((parts == part).sum())
    return Titles(rows, lambda row: f"{PARTS[parts[row]]}/{within[row]}", files=False)


def listed(names: Sequence[str]) -> Titles:
    """Return names that are given one by one."""
    return Titles(torch.arange(len(names)), tuple(names).__getitem__)
