"""Images from any object with ``len(data)`` and ``data[index]``, such as a torchvision data set."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vaelab.data.companions import keep_parts, read_parts
from vaelab.data.encoded import decoded
from vaelab.data.fields import Item, Misnamed, class_names, kept_alone, read_item
from vaelab.data.labels import UNKNOWN, join_labels
from vaelab.data.live import PROBED, Live, drawing
from vaelab.data.pixels import Geometry, Pixels, Shape, as_array, channels_first
from vaelab.data.source import Source
from vaelab.errors import DataError


@dataclass(frozen=True)
class Items:
    """A data set whose items belong to one part (index into `PARTS`)."""

    data: Any
    part: int = 0


class ItemSource(Source):
    """Items that are an image, ``(image, label, …)`` or ``{"image": …, "label": …}``.

    An image is of Pillow, the bytes of an image file, or an array or tensor (H, W), (C, H, W) or
    (H, W, C).

    Arguments:
        sets: the data sets, one after another.
        geometry: the shape asked for.
        live: whether training reads them anew in every pass.
    """

    def __init__(self, sets: Sequence[Items], geometry: Geometry, live: bool = False) -> None:
        self._sets = sets
        self._shape: Shape | None = None
        self._extras: Counter[str] = Counter()
        self._part_key: Any = None
        try:
            counts = [len(each.data) for each in sets]
        except TypeError as error:
            raise DataError(
                f"{type(sets[0].data).__name__}: has no length ({error}). Pass a map-style data "
                "set, or read it into a list first: list(data)."
            ) from None
        name = type(sets[0].data).__name__
        super().__init__(name, sum(counts), geometry)
        self._starts = np.cumsum([0, *counts]).tolist()
        self.parts = np.repeat(np.array([each.part for each in sets], np.int8), counts)
        self.lives = live

    def unreadable(self) -> DataError:
        """The error for items that give no image."""
        remedy = "Mend them" if len(self.bad) == self.count else "Pass skip_bad to leave them out"
        return DataError(
            f"{self.fault()}. {remedy}: an item is an image of Pillow, an array (H, W) or "
            "(H, W, C), or a tuple or mapping that holds one."
        )

    def live(self, rows: Tensor) -> Live | None:
        """Where the images at ``rows`` are read from in training; None if they are not."""
        return Live(self._pixels_at, rows) if self.lives else None

    def measure(self) -> Shape:
        """Shape of the first readable image."""
        for index in range(self.count):
            if self._shape is not None:
                break
            with drawing(0, index):
                self._item(index)
        if self._shape is None:
            raise self.unreadable()
        return self._shape

    def chunks(self, size: int) -> Iterator[Pixels]:
        """All images in order, and their labels once all were read."""
        shape = self.measure()
        chance = self._gives_others()
        rows = max(1, size // prod(shape))
        labels: list[Any] = []
        words: list[Any] = []
        for start in range(0, self.count, rows):
            pixels = np.zeros((min(rows, self.count - start), *shape), np.uint8)
            for row in range(len(pixels)):
                number = start + row
                if chance:  # so that the one reading that is kept is the same in every run
                    with drawing(0, number):
                        item = self._item(number)
                else:
                    item = self._item(number)
                if item is not None:
                    pixels[row] = item.image
                labels.append(None if item is None else item.label)
                words.append(None if item is None else item.part)
            yield pixels
        self._keep(labels)
        self._keep_parts(words)
        self.notes += kept_alone(self.name, self._extras)

    def _gives_others(self) -> bool:
        """Whether an item gives another image when it is read again; says so unless it is live."""
        differ = False
        for index in range(min(PROBED, self.count)):
            first, second = (self._drawn(seed, index) for seed in (0, 1))
            differ |= first is not None and second is not None and not np.array_equal(first, second)
        if differ and not self.lives:
            self.notes.append(
                f"{self.name}: gives another image each time it is read; one reading of each was "
                "kept. Pass live=True to read the training images anew in every epoch."
            )
        if self.lives:
            self.notes.append(
                f"{self.name}: training images are read anew in every epoch, which takes as long "
                "as the data set needs for them; validation and test images were read once."
            )
        return differ

    def _drawn(self, seed: int, index: int) -> Pixels | None:
        with drawing(seed, index):
            item = self._item(index)
        return None if item is None else item.image

    def _keep(self, labels: list[Any]) -> None:
        vectors = [np.ndim(label) == 1 for label in labels if label is not None]
        if any(vectors):
            self._keep_vectors(labels, all(vectors))
            return
        names = [class_names(each.data) for each in self._sets]
        good, parts, kept = self.good(), [], names[0]
        if any(each != kept for each in names):  # each part numbers its classes in its own way
            labels = [self._by_name(k, label, names) for k, label in enumerate(labels)]
            kept = None
        for start, end in pairwise(self._starts):
            found = [labels[index] for index in range(start, end) if good[index]]
            empty = all(label is None for label in found)
            parts.append((None if empty else _objects(found), len(found), self.name))
        known = [label for label in labels if isinstance(label, int)]
        if kept is not None and known and max(known) >= len(kept):
            kept = None  # they name something else
        read = join_labels(parts, self.name, kept)
        if read is not None:
            numbers = np.full(self.count, UNKNOWN)
            numbers[good] = read.numbers
            self.keep_labels(replace(read, numbers=numbers))

    def _keep_parts(self, words: list[Any]) -> None:
        """Take the parts that items name, unless they are of several sets, which are the parts."""
        if self._part_key is None:
            return
        found = None if self.parts.any() else read_parts(words, self._part_key, self.name)
        if found is None:
            self.notes.append(f"{self.name}: `{self._part_key}` of the items was left alone.")
        else:
            keep_parts(self, found, self._part_key)

    def _by_name(self, index: int, label: Any, names: Sequence[list[str] | None]) -> Any:
        own = names[bisect_right(self._starts, index) - 1]
        known = own is not None and isinstance(label, int) and 0 <= label < len(own)
        return own[label] if own is not None and known else label

    def _keep_vectors(self, labels: list[Any], all_: bool) -> None:
        """Several marks an image: one-hot rows are classes, others attributes."""
        widths = {len(label) for label in labels if label is not None}
        if not all_ or len(widths) > 1:
            raise DataError(
                f"{self.name}: labels differ in shape. Give one class an item, or equally many "
                "marks."
            )
        rows = np.full((self.count, *widths), np.nan, np.float32)
        for row, label in enumerate(labels):
            if label is not None:
                rows[row] = label
        known = rows[~np.isnan(rows).all(1)]
        if rows.shape[1] > 1 and ((known == 0) | (known == 1)).all() and (known.sum(1) == 1).all():
            numbers = np.where(np.isnan(rows).all(1), UNKNOWN, np.nan_to_num(rows).argmax(1))
            parts = [(numbers, self.count, self.name)]
            self.keep_labels(join_labels(parts, self.name, class_names(self._sets[0].data)))
            self.notes.append(f"{self.name}: one-hot rows were read as classes.")
            return
        names = getattr(self._sets[0].data, "attr_names", None)  # as torchvision's CelebA has them
        names = [str(name) for name in names or () if str(name)]
        if len(names) != rows.shape[1]:
            names = [f"attribute {column}" for column in range(rows.shape[1])]
        self.keep_attributes(tuple(names), rows, self.name)
        self.notes.append(f"{self.name}: {rows.shape[1]} marks an item were read as attributes.")

    def _read(self, index: int) -> Item:
        place = bisect_right(self._starts, index) - 1
        each = self._sets[place]
        return read_item(each.data, index - self._starts[place])

    def _item(self, index: int) -> Item | None:
        """One item with its image as pixels, or None where it is unreadable."""
        try:
            item = self._read(index)
            pixels = self._pixels(item.image)
        except Misnamed as error:
            raise DataError(f"{self.name}: {error}") from None
        except Exception as error:  # from the code of the data set
            self.bad[index] = str(error) or type(error).__name__
            return None
        if item.extra:
            self._extras[item.extra] += 1
        self._check(pixels, index)
        self._part_key = item.part_key if self._part_key is None else self._part_key
        return replace(item, image=pixels)

    def _pixels_at(self, index: int) -> Pixels:
        """One image for a pass of training."""
        try:
            pixels = self._pixels(self._read(index).image)
        except Exception as error:
            raise DataError(
                f"{self.name}: item {index} could not be read again ({error}). Mend the data set, "
                "or train without live."
            ) from None
        if pixels.shape != self._shape:
            raise DataError(
                f"{self.name}: item {index} has shape {pixels.shape} now, and had {self._shape}. "
                "Pass a size, or let the data set crop to one."
            )
        return pixels

    def _check(self, pixels: Pixels, index: int) -> None:
        if self._shape is None:
            self._shape = (len(pixels), pixels.shape[1], pixels.shape[2])
        elif pixels.shape[1:] != self._shape[1:]:
            raise self.sizes_differ({self._shape[1:]: index, (pixels.shape[1], pixels.shape[2]): 1})
        elif len(pixels) != self._shape[0]:
            raise DataError(
                f"{self.name}: images have {self._shape[0]} and {len(pixels)} channels. "
                f"Pass --channels {max(self._shape[0], 3)}."
            )

    def _pixels(self, item: Any) -> Pixels:
        if isinstance(item, (bytes, bytearray)):
            return decoded(bytes(item), self.geometry, self.levels)
        if isinstance(item, Image.Image):
            return self.geometry.image(item, self.levels)
        values = as_array(item)
        _, axes = channels_first(values.shape)
        pixels = self.levels.pixels(values)
        pixels = pixels[None] if len(axes) == 2 else pixels.transpose(axes)
        fitted: Pixels = self.geometry.batch(pixels[None], self.levels)[0]
        return fitted


def _objects(values: list[Any]) -> NDArray[Any]:
    array = np.empty(len(values), object)
    array[:] = values
    return array
