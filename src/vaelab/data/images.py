"""Images in memory: 8-bit, with optional labels and attributes, split for honest measurement."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """N images of one shape.

    Arguments:
        images: uint8, ``(N, C, H, W)``, C one of 1, 3, 4.
        labels: optional int64 class of each image, ``(N,)``.
        attributes: optional float32 ``(N, A)``: 0 or 1 for binary ones, NaN where unknown.
        class_names: name of each class, so that ``labels < len(class_names)``.
        attribute_names: name of each attribute.
    """

    images: Tensor
    labels: Tensor | None = None
    attributes: Tensor | None = None
    class_names: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.images.shape[1:]
        return int(channels), int(height), int(width)


@dataclass(frozen=True)
class Splits:
    """One data set in three parts that share no image, unless ``held_out`` is false.

    Arguments:
        name: how a reader should call it, such as ``mnist``.
        held_out: false when there were too few images, so that all parts are the same.
        notes: plain sentences about what was done on reading (images skipped, split made, …).
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    held_out: bool = True
    notes: tuple[str, ...] = field(default=())
