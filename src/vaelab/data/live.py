"""Images that are read anew in every pass, from a data set whose transforms are random.

An image of a pass is a function of (seed, epoch, number of the image), as far as the data set draws
from the generators that Python, NumPy and PyTorch share: so a run that was killed goes on exactly.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vaelab.data.pixels import Pixels

PROBED = 16
"""Items that are read twice, to see whether they are the same."""


@dataclass(frozen=True, eq=False)
class Live:
    """Where the images of a set are read from in training.

    Arguments:
        read: gives an image, uint8 ``(C, H, W)``, by its number in the data set.
        rows: number of each image in the data set, ``(N,)``.
    """

    read: Callable[[int], Pixels]
    rows: Tensor

    def view(self, index: Tensor) -> Live:
        """Some of the images."""
        return Live(self.read, self.rows[index.to(self.rows.device)])

    def take(self, index: Tensor, seed: int, epoch: int) -> Tensor:
        """Read the images at ``index`` for one pass: uint8 ``(len(index), C, H, W)``."""
        images = []
        for row in self.rows[index.to(self.rows.device)].tolist():
            with drawing(seed, epoch, row):
                images.append(self.read(row))
        return torch.from_numpy(np.stack(images))


@contextmanager
def drawing(*key: int) -> Iterator[None]:
    """Seed the shared generators of Python, NumPy and PyTorch by a key, and restore them after."""
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    number = int.from_bytes(digest[:4], "big")
    python, numpy = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state()
    try:
        random.seed(number)
        np.random.seed(number)
        torch.default_generator.manual_seed(number)  # of the CPU alone, where transforms draw
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_state)
