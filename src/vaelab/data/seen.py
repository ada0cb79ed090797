"""What a run has seen: the hashes of its images, by part, to know them again wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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

    Arguments:
        train, validation, test: the parts.
        earlier: of the training images of the runs that the weights come from (``--from``).
    """

    train: Hashes
    validation: Hashes
    test: Hashes
    earlier: Hashes = field(default_factory=lambda: np.zeros(0, np.int64))

    @staticmethod
    def of(splits: Splits, before: Seen | None = None) -> Seen:
        """Return the hashes of a data set, and of what was seen ``before`` it."""
        parts = (splits.train.hashes, splits.validation.hashes, splits.test.hashes)
        if before is None:
            return Seen(*parts)
        return Seen(*parts, np.union1d(before.train, before.earlier))

    @staticmethod
    def read(tensors: Mapping[str, Tensor]) -> Seen:
        """Return what `tensors` gave; raises `KeyError` where a part is missing."""
        parts = (tensors[name].numpy() for name in ("train", "validation", "test"))
        earlier = [tensors["earlier"].numpy()] if "earlier" in tensors else []
        return Seen(*parts, *earlier)

    def tensors(self) -> dict[str, Tensor]:
        """Return the hashes by the name of the part, to be kept in a file."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        parts |= {"earlier": self.earlier} if len(self.earlier) else {}
        # copies: parts may be one, and an empty array may have strides that no file holds
        return {
            name: torch.from_numpy(values.copy()) if len(values) else torch.zeros(0).long()
            for name, values in parts.items()
        }

    def trained_on(self, images: ImageSet) -> Tensor:
        """Return which images the weights were trained on, bool ``(N,)``."""
        return torch.from_numpy(np.isin(images.hashes, self.train)) | self.trained_earlier(images)

    def trained_earlier(self, images: ImageSet) -> Tensor:
        """Return which images the weights were trained on before this run, bool ``(N,)``."""
        return torch.from_numpy(np.isin(images.hashes, self.earlier))

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


def trained_before(number: int, of: str) -> str:
    """Say that images that are held out now were trained on before."""
    were = "was a training image" if number == 1 else "were training images"
    return f"{number:,} of {of} {were} of a run that the weights come from."
