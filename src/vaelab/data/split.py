"""Train, validation and test: as the data says, and carved from train where it does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaelab.data.source import PARTS
from vaelab.errors import DataError, counted

FEWEST = 10
"""With fewer images than this nothing is held out."""


def check_shares(shares: Sequence[float]) -> None:
    """Raise `DataError` unless these are three shares that leave something to train on."""
    if len(shares) != 3 or not all(0 <= share <= 1 for share in shares) or not shares[0]:
        raise DataError(f"split {tuple(shares)}: pass three shares, the first above 0.")
    if abs(sum(shares) - 1) > 1e-6:
        raise DataError(f"split {tuple(shares)}: the shares must sum to 1.")


def split_rows(
    parts: NDArray[np.int8],
    shares: Sequence[float],
    seed: int,
    labels: NDArray[np.int64] | None = None,
) -> tuple[list[Tensor], bool, list[str]]:
    """Rows of train, validation and test, whether they share none, and what was done.

    A part that the data has is kept. A missing part of share s is drawn from train by ``seed``:
    ``round(N s / t)`` images, at least one, where t sums the shares of train and of all missing
    parts. Where that cannot be (fewer than `FEWEST` images, or s = 0) train stands in for it.

    With ``labels``, a rare class that the draw left out of a part is brought in by an exchange, if
    it has images enough: what nothing is trained or measured on would be believed to be good.
    """
    rows = [torch.from_numpy(np.flatnonzero(parts == part)) for part in range(3)]
    if not len(rows[0]):  # a part alone is a data set of its own
        rows = [torch.arange(len(parts)), *(torch.empty(0, dtype=torch.int64),) * 2]
    missing = [part for part in (1, 2) if not len(rows[part])]
    if not missing:
        return rows, True, []
    train = rows[0]
    notes = []
    if len(train) < FEWEST:
        drawn, standing = [], missing
        are = "is" if len(train) == 1 else "are"
        why = f"{counted(len(train), 'image')} {are} too few to hold any out"
    else:
        drawn = [part for part in missing if shares[part] > 0]
        standing = [part for part in missing if part not in drawn]
        why = "its share is 0"
    if drawn:
        total = shares[0] + sum(shares[part] for part in drawn)
        counts = [max(1, round(len(train) * shares[part] / total)) for part in drawn]
        counts[-1] -= max(0, sum(counts) - len(train) + 1)  # leave one to train on
        chance = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(train), generator=chance)
        ends = np.cumsum([len(train) - sum(counts), *counts])
        pieces = list(torch.tensor_split(order, ends[:-1].tolist()))
        moved = 0
        if labels is not None:
            moved = spread_classes(pieces, torch.from_numpy(labels)[train], chance)
        for part, piece in zip([0, *drawn], pieces, strict=True):
            rows[part] = train[piece.sort().values]
        names = " and ".join(
            f"{count} {PARTS[part]}" for part, count in zip(drawn, counts, strict=True)
        )
        one = len(drawn) == 1 and counts == [1]
        drew = "image was" if one else "images were"
        spread = ", classes spread over the parts as far as they go" if moved else ""
        notes.append(f"{names} {drew} drawn from the training images by seed {seed}{spread}.")
    for part in standing:
        rows[part] = rows[0]
        notes.append(f"The {PARTS[part]} images are the training images: {why}.")
    return rows, not standing, notes


def spread_classes(pieces: list[Tensor], labels: Tensor, chance: torch.Generator) -> int:
    """Exchange images between the parts until each has every class that there is room for.

    Returns the number of exchanges.

    The first part, to train on, comes first, then the last (test), then the others. A part takes an
    image of a class it lacks from one that comes after it, or that has two or more, and gives one
    of the class that it has most of.

    Arguments:
        pieces: numbers of the images of each part, in the order of the draw; changed in place.
        labels: class of each image, ``(N,)``; −1 where it is unknown.
        chance: decides which classes come first where there is not room for all.
    """
    kinds, moved = int(labels.max()) + 1, 0
    turn = torch.cat([torch.zeros(1).long(), 1 + torch.randperm(kinds, generator=chance)])
    turns = turn[labels + 1]  # 0: unknown
    counts = [torch.bincount(turns[piece], minlength=kinds + 1).numpy() for piece in pieces]
    order = [0, *range(len(pieces) - 1, 0, -1)]
    for place, part in enumerate(order):
        for kind in range(1, kinds + 1):
            if counts[part][kind]:
                continue
            givers = [p for n, p in enumerate(order) if counts[p][kind] > (n < place)]
            most = int(counts[part].argmax()) if givers else 0
            if not givers or counts[part][most] < 2:
                continue
            giver = max(givers, key=lambda p: int(counts[p][kind]))
            taken = int((turns[pieces[giver]] == kind).nonzero()[0])
            given = int((turns[pieces[part]] == most).nonzero()[0])
            pieces[giver][taken], pieces[part][given] = (
                int(pieces[part][given]),
                int(pieces[giver][taken]),
            )
            counts[part][[kind, most]] += [1, -1]
            counts[giver][[kind, most]] += [-1, 1]
            moved += 1
    return moved
