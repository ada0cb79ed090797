"""What a data set holds, in numbers."""

from __future__ import annotations

import hashlib
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.data.images import ImageSet, Splits

SAMPLE = 100_000
"""Pixel moments of a larger set are those of this many images, evenly spaced."""


def pixel_moments(images: ImageSet) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, in [0, 1]."""
    counts = np.zeros(256, np.int64)
    for chunk in images.chunks():
        counts += np.bincount(chunk.cpu().numpy().ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = float(counts @ values / counts.sum())
    return mean, sqrt(float(counts @ (values - mean) ** 2 / counts.sum()))


def mean_image(images: ImageSet, limit: int = 10_000) -> Tensor:
    """Mean of the images, ``(C, H, W)`` in [0, 1]; of ``limit`` evenly spread ones if more."""
    count = min(len(images), limit)
    index = torch.arange(count) * len(images) // count
    total = torch.zeros(images.shape, dtype=torch.float64)
    for rows in index.split(1000):
        total += images.take(rows).cpu().sum(0, dtype=torch.float64)
    return (total / count / 255).float()


def fingerprint(splits: Splits, sample: int = 1000) -> str:
    """Short digest of a data set and its split, to tell whether it is the one a model saw.

    It covers size, shape and labels of every part, and up to ``sample`` evenly spread images.
    """
    sha = hashlib.sha256()
    for images in (splits.train, splits.validation, splits.test):
        count = min(len(images), sample)
        sha.update(f"{len(images)} {images.shape}".encode())
        sha.update(
            images.take(torch.arange(count) * len(images) // max(1, count)).cpu().numpy().tobytes()
        )
        if images.labels is not None:
            sha.update(images.labels.cpu().numpy().tobytes())
    return sha.hexdigest()[:16]


def summary(splits: Splits) -> dict[str, Any]:
    """Counts, shape, classes, attributes and pixels of a data set, as plain data.

    ``classes`` counts the images of each class in each part; ``attributes`` gives, over all parts,
    the share of 1 among the known values and how many are known; ``pixels`` describes the
    training images.
    """
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    train = splits.train
    rows = torch.linspace(0, len(train) - 1, min(SAMPLE, len(train)), dtype=torch.float64).long()
    sample = train if len(rows) == len(train) else train.subset(rows)
    mean, std = pixel_moments(sample)
    channels, height, width = train.shape
    return {
        "name": splits.name,
        "images": {part: len(images) for part, images in parts.items()},
        "held_out": splits.held_out,
        "shape": {"channels": channels, "height": height, "width": width},
        "classes": {part: _classes(images) for part, images in parts.items()},
        "attributes": _attributes(list(parts.values()) if splits.held_out else [train]),
        "pixels": {"mean": mean, "std": std, "images": len(sample)},
        "notes": list(splits.notes),
    }


def _classes(images: ImageSet) -> dict[str, int]:
    if images.labels is None:
        return {}
    counts = torch.bincount(images.labels, minlength=len(images.class_names)).tolist()
    return dict(zip(images.class_names, counts, strict=True))


def _attributes(parts: list[ImageSet]) -> dict[str, dict[str, float | int | None]]:
    found = [images.attributes for images in parts if images.attributes is not None]
    if not found:
        return {}
    values = torch.cat(found)
    known = (~values.isnan()).sum(0).tolist()
    ones = values.nansum(0).tolist()
    return {
        name: {"share": one / count if count else None, "known": count}
        for name, one, count in zip(parts[0].attribute_names, ones, known, strict=True)
    }
