"""Train, validation and test: as the data says, and carved from train where it does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaelab.data.source import PARTS
from vaelab.errors import DataError, check_seed, counted

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
    groups: Sequence[str] | None = None,
) -> tuple[list[Tensor], bool, list[str]]:
    """Rows of train, validation and test, whether they share none, and what was done.

    A part that the data has is kept. A missing part of share s is drawn from train by ``seed``:
    ``round(N s / t)`` images, at least one, where t sums the shares of train and of all missing
    parts. Where that cannot be (fewer than `FEWEST` images, or s = 0) train stands in for it.

    With ``labels``, a rare class that the draw left out of a part is brought in by an exchange, if
    it has images enough: what nothing is trained or measured on would be believed to be good.

    With ``groups``, images of one group ("" is none) go into one part; parts are then as large as
    whole groups make them. A group in two parts that the data has is a leak, and said.

    Parts without one to train on are taken as one set, which is said if there are two.
    """
    rows = [torch.from_numpy(np.flatnonzero(parts == part)) for part in range(3)]
    untrained: list[str] = []
    if not len(rows[0]):  # a part alone is a data set of its own
        if len(rows[1]) and len(rows[2]):
            untrained = [
                "The data names validation and test images but none to train on: all are taken as "
                "one set, and split."
            ]
        rows = [torch.arange(len(parts)), *(torch.empty(0, dtype=torch.int64),) * 2]
    missing = [part for part in (1, 2) if not len(rows[part])]
    leaks = [] if groups is None else leaking(rows, groups)
    if not missing:
        return rows, True, leaks
    train = rows[0]
    notes = untrained + leaks
    kinds = None if groups is None else _numbered([groups[row] for row in train.tolist()])
    if len(train) < FEWEST:
        drawn, standing = [], missing
        are = "is" if len(train) == 1 else "are"
        why = f"{counted(len(train), 'image')} {are} too few to hold any out"
    else:
        drawn = [part for part in missing if shares[part] > 0]
        standing = [part for part in missing if part not in drawn]
        why = "its share is 0"
    if kinds is not None and drawn and len(kinds.unique()) <= len(drawn):
        few = len(kinds.unique())
        drawn, standing = drawn[len(drawn) - few + 1 :], [*standing, *drawn[: len(drawn) - few + 1]]
        why = f"{counted(few, 'group')} cannot be in {len(drawn) + len(standing) + 1} parts"
    if drawn:
        total = shares[0] + sum(shares[part] for part in drawn)
        counts = [max(1, round(len(train) * shares[part] / total)) for part in drawn]
        counts[-1] -= max(0, sum(counts) - len(train) + 1)  # leave one to train on
        check_seed(seed)
        chance = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(train), generator=chance)
        ends = np.cumsum([len(train) - sum(counts), *counts])
        pieces = list(torch.tensor_split(order, ends[:-1].tolist()))
        moved = 0
        if kinds is not None:
            known = None if labels is None else torch.from_numpy(labels)[train]
            pieces = grouped(kinds, counts, known, chance)
            notes += _large(kinds, counts, [groups[row] for row in train.tolist()])  # type: ignore[index]
            counts = [len(piece) for piece in pieces[1:]]
        elif labels is not None:
            moved = spread_classes(pieces, torch.from_numpy(labels)[train], chance)
        for part, piece in zip([0, *drawn], pieces, strict=True):
            rows[part] = train[piece.sort().values]
        mine = [*zip(drawn, counts, strict=True)]
        names = " and ".join(f"{count} {PARTS[part]}" for part, count in mine) + " images were"
        if 1 in counts:
            were = " was" if counts == [1] else " were"
            each = [counted(count, f"{PARTS[part]} image") for part, count in mine]
            names = " and ".join(each) + were
        spread = ", classes spread over the parts as far as they go" if moved else ""
        whole = ", whole groups at a time" if kinds is not None else ""
        notes.append(f"{names} drawn from the training images by seed {seed}{spread}{whole}.")
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


def leaking(rows: Sequence[Tensor], groups: Sequence[str]) -> list[str]:
    """The note on groups that lie in more than one part, if there are any."""
    of: dict[str, list[int]] = {}
    for part, index in enumerate(rows):
        for name in {groups[row] for row in index.tolist()} - {""}:
            of.setdefault(name, []).append(part)
    both = {name: parts for name, parts in of.items() if len(parts) > 1}
    if not both:
        return []
    first = min(both)
    where = " and ".join(PARTS[part] for part in both[first])
    lie = "lies" if len(both) == 1 else "lie"
    return [
        f"Leak: {len(both):,} of {len(of):,} groups {lie} in more than one part of the data "
        f"(first: {first!r}, in {where}), so test images are not new to the model."
    ]


def grouped(
    kinds: Tensor,
    counts: Sequence[int],
    labels: Tensor | None,
    chance: torch.Generator,
    tries: int = 20,
) -> list[Tensor]:
    """Draw parts of whole groups: rows of the first part, then of those of about ``counts``.

    Groups are gone through in a random order; one is taken where it brings the size of a part
    nearer to what was asked for. Of several such draws that is kept in which the parts lack the
    fewest classes, and of these the one nearest to the sizes.

    Arguments:
        kinds: group of each image, ``(N,)``, numbered from 0.
        counts: images of each part but the first.
        labels: class of each image, −1 unknown.
        chance: decides.
        tries: draws.
    """
    sizes = torch.bincount(kinds)
    best: tuple[int, int] | None = None
    for _ in range(tries):
        part = _whole_groups(sizes, counts, chance)[kinds]
        pieces = [(part == number).nonzero().squeeze(1) for number in range(len(counts) + 1)]
        lacking = 0
        if labels is not None:
            present = [{*labels[piece].tolist()} - {-1} for piece in pieces]
            lacking = sum(len(set.union(*present) - some) for some in present)
        off = sum(abs(len(p) - count) for p, count in zip(pieces[1:], counts, strict=True))
        if best is None or (lacking, off) < best:
            best, kept = (lacking, off), pieces
    return kept


def _whole_groups(sizes: Tensor, counts: Sequence[int], chance: torch.Generator) -> Tensor:
    """Part of each group, 0 for the first."""
    parts = torch.zeros(len(sizes), dtype=torch.int64)
    left = torch.randperm(len(sizes), generator=chance).tolist()
    for number, count in enumerate(counts, 1):
        have, taken = 0, []
        for group in left:
            size = int(sizes[group])
            if abs(have + size - count) < abs(have - count):
                have += size
                taken.append(group)
        spare = len(left) - (len(counts) - number) - 1  # a group for each part that is to come
        taken = (taken or [min(left, key=lambda group: int(sizes[group]))])[:spare]
        parts[taken] = number
        left = [group for group in left if group not in {*taken}]
    return parts


def _numbered(groups: Sequence[str]) -> Tensor:
    """A number for each group; an image without one is a group of its own."""
    number: dict[str, int] = {}
    return torch.tensor(
        [number.setdefault(name or f"\0{row}", len(number)) for row, name in enumerate(groups)]
    )


def _large(kinds: Tensor, counts: Sequence[int], names: Sequence[str]) -> list[str]:
    """The note on groups with more images than a part was to have."""
    sizes = torch.bincount(kinds)
    large = (sizes > min(counts)).nonzero().squeeze(1)
    if not len(large):
        return []
    most = int(sizes.argmax())
    name = names[int((kinds == most).nonzero()[0])]
    return [
        f"{counted(len(large), 'group')} {'is' if len(large) == 1 else 'are'} larger than the "
        f"{min(counts)} images of a part (largest: {name!r}, {int(sizes[most]):,} images), so the "
        "shares may be missed."
    ]
