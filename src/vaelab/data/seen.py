"""What a run has seen: the hashes of its images, by part, to know them again wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaelab.data.images import ImageSet, Splits

Hashes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Seen:
    """Hashes of the images of each part, in their order; see `ImageSet.hashes`.

    They know an image by its pixels at the model's shape: under any name, in any folder, order,
    split or lossless format, but not after a change of one level of one pixel.
    """

    train: Hashes
    validation: Hashes
    test: Hashes

    @staticmethod
    def of(splits: Splits) -> Seen:
        """Return the hashes of a data set."""
        return Seen(splits.train.hashes, splits.validation.hashes, splits.test.hashes)

    @staticmethod
    def read(tensors: Mapping[str, Tensor]) -> Seen:
        """Return what `tensors` gave; raises `KeyError` where a part is missing."""
        parts = (tensors[name].numpy() for name in ("train", "validation", "test"))
        return Seen(*parts)

    def tensors(self) -> dict[str, Tensor]:
        """Return the hashes by the name of the part, to be kept in a file."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        # copies: parts may be one, and an empty array may have strides that no file holds
        return {
            name: torch.from_numpy(values.copy()) if len(values) else torch.zeros(0).long()
            for name, values in parts.items()
        }

    def trained_on(self, images: ImageSet) -> Tensor:
        """Return which images are training images, bool ``(N,)``."""
        return torch.from_numpy(np.isin(images.hashes, self.train))

    def chosen_by(self, images: ImageSet) -> Tensor:
        """Return which are validation images and no training images, bool ``(N,)``."""
        return torch.from_numpy(np.isin(images.hashes, self.validation)) & ~self.trained_on(images)

    def rows(self, hashes: Hashes) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return which images of these hashes are of which part, each in the order of that part.

        None unless all of them are, some to train on and some to test on. A copy is of the first
        part that holds it as often.
        """
        every = np.concatenate([self.train, self.validation, self.test])
        if not np.isin(hashes, every).all():
            return None
        places: dict[int, list[int]] = {}
        for row, value in reversed(list(enumerate(hashes.tolist()))):
            places.setdefault(value, []).append(row)
        found: list[list[int]] = []
        for part in (self.train, self.validation, self.test):
            taken = (places.get(value) for value in part.tolist())
            found.append([rows.pop() for rows in taken if rows])
        train, test = set(self.train.tolist()), set(self.test.tolist())
        for value, rows in places.items():  # more copies than the run had
            found[0 if value in train else 2 if value in test else 1] += rows
        if not found[0] or not found[2]:
            return None
        first, second, third = (torch.tensor(rows, dtype=torch.int64) for rows in found)
        return first, second, third
