"""Images as 8-bit numbers, with optional labels and attributes, split for honest measurement."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaelab.config import ValueRange
from vaelab.data.filed import FileImages
from vaelab.data.live import Live
from vaelab.errors import ConfigError, counted

if TYPE_CHECKING:
    from vaelab.data.titles import Titles

CHUNK_BYTES = 16 * 2**20
"""Of pixels that are hashed at a time."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """N images of one shape.

    Arguments:
        images: uint8, ``(N, C, H, W)``; a tensor, or rows of a file where the
            images are larger than memory. Read them with `take`, which serves both. Float32 is for
            `vaelab.sklearn`, whose rows are no images.
        labels: optional int64 class of each image, ``(N,)``.
        attributes: optional float32 ``(N, A)``: any finite number, NaN where unknown.
        class_names: name of each class, so that ``labels < len(class_names)``.
        attribute_names: name of each attribute.
        units: unit of each attribute, "" where it is not known.
        binary: whether each attribute is 0 or 1; see `binary_columns`. A subset keeps what holds
            for the whole data set, so that its parts agree.
        live: where training reads the images anew in every pass; None where it does not.
        names: name of each image, such as its path inside a folder; None where there are none.
    """

    images: Tensor | FileImages
    labels: Tensor | None = None
    attributes: Tensor | None = None
    class_names: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    binary: tuple[bool, ...] = ()
    live: Live | None = None
    names: Titles | None = None

    def __post_init__(self) -> None:
        if self.attributes is not None and not self.binary:
            object.__setattr__(self, "binary", binary_columns(self.attributes))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.images.shape[1:]
        return int(channels), int(height), int(width)

    def name(self, index: int) -> str:
        """Return the name of an image; its number where it has none."""
        return str(index) if self.names is None else self.names[index]

    def class_of_each(self) -> list[str]:
        """Return the name of the class of each image, "" where it is unknown."""
        if self.labels is None:
            return [""] * len(self)
        names = self.class_names or tuple(map(str, range(1 + int(self.labels.max()))))
        return [names[label] if label >= 0 else "" for label in self.labels.tolist()]

    def class_number(self, name: str) -> int:
        """Return the number of a class; raises `ConfigError` when there is none of that name."""
        if name not in self.class_names:
            known = ", ".join(self.class_names) or "none"
            raise ConfigError(f"label: there is no class {name!r}. Classes: {known}.")
        return self.class_names.index(name)

    def take(self, index: Tensor) -> Tensor:
        """Copy the images at ``index`` (int64, any order): uint8 ``(len(index), C, H, W)``."""
        return self.images.index_select(0, index.to(self.images.device))

    def chunks(self, size: int = 1024) -> Iterator[Tensor]:
        """All images in order, ``size`` at a time, in memory that does not grow."""
        for start in range(0, len(self), size):
            yield self.take(torch.arange(start, min(start + size, len(self))))

    def subset(self, index: Tensor) -> ImageSet:
        """The images at ``index`` with their labels and attributes; a view of a file."""
        images = self.images
        part = replace(
            self,
            images=images.view(index) if isinstance(images, FileImages) else self.take(index),
            labels=None if self.labels is None else self.labels[index],
            attributes=None if self.attributes is None else self.attributes[index],
            live=None if self.live is None else self.live.view(index),
            names=None if self.names is None else self.names.subset(index),
        )
        if "hashes" in self.__dict__:
            part.__dict__["hashes"] = self.hashes[index.cpu().numpy()]
        return part

    @cached_property
    def hashes(self) -> NDArray[np.int64]:
        """BLAKE2b of the pixels of each image, 8 bytes as a whole number, ``(N,)``.

        Two images have one hash if all their pixels are equal (another pair in a million images
        with a probability of 3 in 100 million). Computed once, in memory that does not grow, and
        kept by subsets.
        """
        found = []
        for chunk in self.chunks(max(1, CHUNK_BYTES // max(1, prod(self.shape)))):
            rows = chunk.cpu().numpy().reshape(len(chunk), -1)
            found += [hashlib.blake2b(row.data, digest_size=8).digest() for row in rows]
        return np.frombuffer(b"".join(found), "<i8").astype(np.int64)

    def relabelled(self, **changes: Any) -> ImageSet:
        """The same images with other labels, attributes or names; their hashes are kept."""
        other = replace(self, **changes)
        if "hashes" in self.__dict__:
            other.__dict__["hashes"] = self.hashes
        return other


def joined(parts: Sequence[ImageSet]) -> ImageSet:
    """Return parts of one data set as a whole, one after another."""
    first = parts[0]
    if len(parts) == 1:
        return first

    def together(values: list[Tensor | None]) -> Tensor | None:
        known = [each for each in values if each is not None]
        return torch.cat(known) if len(known) == len(values) else None

    pixels = [part.images for part in parts]
    files = [images for images in pixels if isinstance(images, FileImages)]
    tensors = [images for images in pixels if isinstance(images, Tensor)]
    names = [part.names for part in parts if part.names is not None]
    whole = replace(
        first,
        images=files[0].with_rows(files[1:]) if files else torch.cat(tensors),
        labels=together([part.labels for part in parts]),
        attributes=together([part.attributes for part in parts]),
        live=None,
        names=names[0].followed(names[1:]) if len(names) == len(parts) else None,
    )
    whole.__dict__["hashes"] = np.concatenate([part.hashes for part in parts])
    return whole


def binary_columns(attributes: Tensor) -> tuple[bool, ...]:
    """Whether all known values of each column of ``(N, A)`` are 0 or 1."""
    either = (attributes == 0) | (attributes == 1) | attributes.isnan()
    return tuple(either.all(0).tolist())


def labelled(images: ImageSet) -> tuple[Tensor, Tensor]:
    """Return the images whose class is known, uint8 ``(n, C, H, W)``, and their classes.

    Raises:
        ConfigError: there are none.
    """
    index = torch.zeros(0) if images.labels is None else (images.labels >= 0).nonzero().squeeze(1)
    if images.labels is None or len(index) == 0:
        raise ConfigError("data: none of the training images has a label.")
    return images.take(index), images.labels[index]


def with_labels(images: ImageSet) -> ImageSet:
    """Return the images whose class is known; the set itself if all are, or if none can be."""
    if images.labels is None or bool((images.labels >= 0).all()):
        return images
    return images.subset((images.labels >= 0).nonzero().squeeze(1))


def spread(images: ImageSet, most: int) -> ImageSet:
    """Return up to ``most`` images, spread evenly over a set."""
    count = min(len(images), most)
    return images.subset(torch.arange(count) * len(images) // max(1, count))


def with_few_labels(images: ImageSet, count: int, seed: int) -> ImageSet:
    """Return the set with the labels of ``count`` images, as evenly over the classes as can be.

    Which, is drawn by chance; all others are −1, for unknown.

    Raises:
        ConfigError: there are no labels, or fewer labels than classes, or more than there are, are
            asked for.
    """
    if images.labels is None or len(images.class_names) < 2:
        raise ConfigError("training.labelled: these images have no classes.")
    classes = len(images.class_names)
    if count < classes:
        raise ConfigError(f"training.labelled: {count} labels are too few for {classes} classes.")
    labels = images.labels.cpu()
    known = int((labels >= 0).sum())
    if count > known:
        raise ConfigError(
            f"training.labelled: {count} labels are asked for, and there are {known} among "
            f"{counted(len(labels), 'training image')}. Ask for {known} or fewer, or leave it out."
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    turn = torch.full((len(labels),), len(labels))  # how many of its class come before it
    for k in range(classes):
        rows = shuffled[labels[shuffled] == k]
        turn[rows] = torch.arange(len(rows))
    chosen = shuffled[turn[shuffled].argsort(stable=True)][:count]
    kept = torch.full_like(labels, -1)
    kept[chosen] = labels[chosen]
    return images.relabelled(labels=kept)


@dataclass(frozen=True, eq=False)
class Splits:
    """One data set in three parts that share no image, unless ``held_out`` is false.

    Arguments:
        name: how a reader should call it, such as ``mnist``.
        held_out: false when a part had to stand in for another (too few images, or a share of 0).
        notes: plain sentences about what was done on reading (images skipped, split made, …).
        range: values that were read as black and white, so that other images are read alike.
        size: height and width that were chosen for images of several sizes; None of others.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    held_out: bool = True
    notes: tuple[str, ...] = field(default=())
    range: ValueRange = "full"
    size: tuple[int, int] | None = None
