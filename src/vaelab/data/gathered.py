"""Several sets of images as one: the parts of a data set, or what was named on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vaelab.data.images import ImageSet, Splits, joined
from vaelab.data.titles import listed


def whole(splits: Splits) -> ImageSet:
    """Return all images of a data set, in the order in which its source has them."""
    parts = [splits.train]
    for part in (splits.validation, splits.test):
        if not any(part is other for other in parts):
            parts.append(part)
    every = joined(parts)
    if len(parts) == 1 or every.names is None:
        return every
    return every.subset(every.names.rows.argsort(stable=True))


def gathered(sets: Sequence[ImageSet]) -> ImageSet:
    """Return images of several sources one after another; classes of one name are one class.

    Attributes are left out.
    """
    if len(sets) == 1:
        return sets[0]
    classes = tuple(sorted({name for each in sets for name in each.class_names}))
    alike = [
        replace(
            each,
            images=each.take(torch.arange(len(each))),
            labels=_renumbered(each, classes) if classes else None,
            attributes=None,
            class_names=classes,
            attribute_names=(),
            units=(),
        )
        for each in sets
    ]
    names = [each.name(k) for each in sets for k in range(len(each))]
    return replace(joined(alike), names=listed(names))


def _renumbered(images: ImageSet, classes: tuple[str, ...]) -> Tensor:
    """Return the labels of images as numbers of these classes; −1 where they are unknown."""
    if images.labels is None:
        return torch.full((len(images),), -1)
    number = torch.tensor([*(classes.index(name) for name in images.class_names), -1])
    return number[images.labels.cpu()]  # −1 takes the last, which is −1
