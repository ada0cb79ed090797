"""What a data set holds, in numbers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaelab.data.images import ImageSet, Splits
from vaelab.errors import counted

SAMPLE = 100_000
"""Pixel moments of a larger set are those of this many images, evenly spaced."""

QUANTILES = (5, 25, 50, 75, 95)
"""Percentages at which the distribution of an attribute is shown."""

FEWEST_NUMBERS = 16
"""In an image, below which equal images are no surprise."""

_AT_ONCE = 1 << 23  # numbers

BINS = 24
"""Of its histogram."""


def pixel_moments(images: ImageSet) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, in [0, 1]."""
    counts = np.zeros(256, np.int64)
    for chunk in images.chunks():
        counts += np.bincount(chunk.cpu().numpy().ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = float(counts @ values / counts.sum())
    return mean, sqrt(float(counts @ (values - mean) ** 2 / counts.sum()))


@dataclass(frozen=True)
class Pixels:
    """What networks may know of the images before they see one.

    Arguments:
        mean: the mean image, ``(C, H, W)`` in [0, 1].
        covariance: of the channels of a pixel, over all pixels, ``(C, C)``; None if not known.
        deviation: root of the mean squared difference from the mean image; None if not known.
    """

    mean: Tensor
    covariance: Tensor | None = None
    deviation: float | None = None

    @property
    def colour(self) -> Tensor:
        """The mean of every channel, ``(C,)``."""
        return self.mean.mean((1, 2))


def pixels_of(images: ImageSet, limit: int = 10_000) -> Pixels:
    """Measure mean, covariance and deviation; of ``limit`` evenly spread images if more."""
    count = min(len(images), limit)
    index = torch.arange(count) * len(images) // count
    total = torch.zeros(images.shape, dtype=torch.float64)
    products = torch.zeros(images.shape[0], images.shape[0], dtype=torch.float64)
    for rows in index.split(max(1, min(1000, _AT_ONCE // prod(images.shape)))):
        taken = images.take(rows).cpu()
        some = taken.float() if taken.is_floating_point() else taken.float() / 255
        total += some.sum(0, dtype=torch.float64)
        flat = some.transpose(0, 1).flatten(1)
        products += flat @ flat.T
    mean = total / count
    pixels = count * prod(images.shape[1:])
    colour = mean.mean((1, 2))
    squares = products.diagonal().sum() / (count * prod(images.shape))
    deviation = sqrt(max(0.0, float(squares - mean.square().mean())))
    covariance = products / pixels - torch.outer(colour, colour)
    return Pixels(mean.float(), covariance.float(), deviation)


def fingerprint(splits: Splits) -> str:
    """Digest of a data set and its split, to tell whether it is the one that a model saw.

    It covers every image of every part, their order, labels, attributes, and the names of both.
    """
    parts = (splits.train, splits.validation, splits.test)
    text = "".join(digest_of(images) for images in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest_of(images: ImageSet) -> str:
    """Digest of images, their order, labels, attributes, and the names of both."""
    sha = hashlib.sha256()
    names = [list(images.shape), images.class_names, images.attribute_names, images.units]
    sha.update(json.dumps(names).encode())
    for values in (torch.from_numpy(images.hashes), images.labels, images.attributes):
        sha.update(b"none" if values is None else values.contiguous().cpu().numpy().tobytes())
    return sha.hexdigest()[:32]


def is_same(splits: Splits, known: str) -> bool:
    """Tell whether images have a fingerprint; one of an older vaelab is of a sample of them."""
    return known == (_sampled(splits) if len(known) == 16 else fingerprint(splits))


def _sampled(splits: Splits, sample: int = 1000) -> str:
    """Return the fingerprint that runs of vaelab 0.1 hold."""
    sha = hashlib.sha256()
    for images in (splits.train, splits.validation, splits.test):
        count = min(len(images), sample)
        sha.update(f"{len(images)} {images.shape}".encode())
        rows = torch.arange(count) * len(images) // max(1, count)
        sha.update(images.take(rows).cpu().numpy().tobytes())
        if images.labels is not None:
            sha.update(images.labels.cpu().numpy().tobytes())
    return sha.hexdigest()[:16]


def repeats_note(splits: Splits) -> str:
    """Say how many images of one part are in another too, pixel by pixel; empty if none is.

    Of images of a few numbers nothing is said: many are equal by chance.
    """
    if prod(splits.train.shape) < FEWEST_NUMBERS:
        return ""
    parts = {"validation": splits.validation, "test": splits.test}
    parts = {name: part for name, part in parts.items() if part is not splits.train}
    found = []
    known, where = splits.train.hashes, "training"
    for name, part in parts.items():
        count = int(np.isin(part.hashes, known).sum())
        if count:
            found.append(f"{count:,} of {counted(len(part), f'{name} image')} among the {where}")
        known, where = np.concatenate([known, part.hashes]), "training or validation"
    if not found:
        return ""
    return (
        f"Equal in every pixel: {' images, '.join(found)} images. On these, figures say nothing of "
        "new images; keep copies in one part."
    )


def summary(splits: Splits) -> dict[str, Any]:
    """Counts, shape, classes, attributes and pixels of a data set, as plain data.

    ``classes`` counts the images of each class in each part, ``unlabelled`` those of no known
    class, if there are any beside others; ``attributes`` describes, over all
    parts, the known values of each: the share of 1 where it is binary, else mean, standard
    deviation, quantiles and a histogram; ``pixels`` describes the training images.
    """
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    train = splits.train
    rows = torch.linspace(0, len(train) - 1, min(SAMPLE, len(train)), dtype=torch.float64).long()
    sample = train if len(rows) == len(train) else train.subset(rows)
    mean, std = pixel_moments(sample)
    channels, height, width = train.shape
    unlabelled = {part: _unlabelled(images) for part, images in parts.items()}
    return {
        "name": splits.name,
        "images": {part: len(images) for part, images in parts.items()},
        "held_out": splits.held_out,
        "shape": {"channels": channels, "height": height, "width": width},
        "classes": {part: _classes(images) for part, images in parts.items()},
        **({"unlabelled": unlabelled} if any(unlabelled.values()) else {}),
        "attributes": _attributes(list(parts.values()) if splits.held_out else [train]),
        "pixels": {"mean": mean, "std": std, "images": len(sample)},
        "notes": list(splits.notes),
    }


def _unlabelled(images: ImageSet) -> int:
    return 0 if images.labels is None else int((images.labels < 0).sum())


def _classes(images: ImageSet) -> dict[str, int]:
    if images.labels is None:
        return {}
    known = images.labels[images.labels >= 0]
    counts = torch.bincount(known, minlength=len(images.class_names)).tolist()
    return dict(zip(images.class_names, counts, strict=True))


def _attributes(parts: list[ImageSet]) -> dict[str, dict[str, Any]]:
    found = [images.attributes for images in parts if images.attributes is not None]
    if not found:
        return {}
    first, values = parts[0], torch.cat(found).numpy().astype(np.float64)
    units = first.units or ("",) * len(first.attribute_names)
    described = zip(first.attribute_names, units, first.binary, values.T, strict=True)
    return {name: _attribute(unit, binary, row) for name, unit, binary, row in described}


def _attribute(unit: str, binary: bool, values: NDArray[np.float64]) -> dict[str, Any]:
    """Distribution of one attribute: share of 1 if it is binary, else moments and histogram."""
    known = values[~np.isnan(values)]
    about = {
        "unit": unit,
        "binary": binary,
        "known": len(known),
        "unknown": len(values) - len(known),
    }
    if binary or not len(known):
        return {**about, "share": float(known.mean()) if len(known) else None}
    quantiles = np.quantile(known, np.array(QUANTILES) / 100)
    counts, edges = np.histogram(known, BINS, _range(known))
    return {
        **about,
        "mean": float(known.mean()),
        "std": float(known.std()),
        "quantiles": dict(zip(map(str, QUANTILES), quantiles.tolist(), strict=True)),
        "histogram": {
            "low": float(edges[0]),
            "high": float(edges[-1]),
            "counts": counts.tolist(),
        },
    }


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """From the least value to the greatest, a little wider where they are one."""
    low, high = float(values.min()), float(values.max())
    spare = 0.0 if high > low else max(1.0, abs(low)) / 2
    return low - spare, high + spare
