"""Images from any object with ``len(data)`` and ``data[index]``, such as a torchvision data set."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
from PIL import Image

from vaelab.data.pixels import Geometry, Pixels, Shape, as_array, channels_first, to_uint8
from vaelab.data.source import Source, check_labels, check_names
from vaelab.errors import DataError


class ItemSource(Source):
    """Items that are an image, ``(image, label)`` or ``{"image": …, "label": …}``.

    An image is of Pillow, or an array or tensor (H, W), (C, H, W) or (H, W, C).
    """

    def __init__(self, data: Any, geometry: Geometry) -> None:
        self._data = data
        self._shape: Shape | None = None
        try:
            count = len(data)
        except TypeError as error:
            raise DataError(
                f"{type(data).__name__}: has no length ({error}). Pass a map-style data set."
            ) from None
        super().__init__(type(data).__name__, count, geometry)

    def measure(self) -> Shape:
        """Shape of the first readable image."""
        for index in range(self.count):
            if self._shape is not None:
                break
            self._item(index)
        if self._shape is None:
            raise self.unreadable()
        return self._shape

    def chunks(self, size: int) -> Iterator[Pixels]:
        """All images in order, and their labels once all were read."""
        shape = self.measure()
        rows = max(1, size // prod(shape))
        labels: list[Any] = []
        for start in range(0, self.count, rows):
            pixels = np.zeros((min(rows, self.count - start), *shape), np.uint8)
            for row in range(len(pixels)):
                item = self._item(start + row)
                if item is None:
                    labels.append(0)  # left out with its image
                else:
                    pixels[row], label = item
                    labels.append(label)
            yield pixels
        self._keep(labels)

    def _keep(self, labels: list[Any]) -> None:
        good = [label for index, label in enumerate(labels) if index not in self.bad]
        if all(label is None for label in good):
            return
        if any(label is None for label in good):
            raise DataError(f"{self.name}: only some items have a label. Give all one, or none.")
        self.labels = check_labels(np.array(labels), self.count, self.name)
        classes = int(self.labels.max()) + 1
        names = getattr(self._data, "classes", None)
        if isinstance(names, (list, tuple)) and len(names) >= classes:
            self.class_names = check_names(
                [str(name) for name in names], len(names), f"{self.name}.classes"
            )
        else:
            self.class_names = tuple(str(label) for label in range(classes))

    def _item(self, index: int) -> tuple[Pixels, int | None] | None:
        try:
            item = self._data[index]
            label = None
            if isinstance(item, Mapping):
                item, label = item.get("image", item.get("img")), item.get("label")
            elif isinstance(item, tuple) and len(item) == 2:
                item, label = item
            pixels = self._pixels(item)
        except Exception as error:  # from the code of the data set
            self.bad[index] = str(error) or type(error).__name__
            return None
        try:
            number = None if label is None else operator.index(label)
        except TypeError:
            raise DataError(
                f"{self.name}: item {index} has label {label!r}. Labels must be whole numbers."
            ) from None
        if self._shape is None:
            self._shape = (len(pixels), pixels.shape[1], pixels.shape[2])
        elif pixels.shape[1:] != self._shape[1:]:
            raise self.sizes_differ({self._shape[1:]: index, (pixels.shape[1], pixels.shape[2]): 1})
        elif len(pixels) != self._shape[0]:
            raise DataError(
                f"{self.name}: images have {self._shape[0]} and {len(pixels)} channels. "
                f"Pass --channels {max(self._shape[0], 3)}."
            )
        return pixels, number

    def _pixels(self, item: Any) -> Pixels:
        if isinstance(item, Image.Image):
            return self.geometry.image(item)
        values = as_array(item)
        _, axes = channels_first(values.shape)
        pixels = to_uint8(values)
        pixels = pixels[None] if len(axes) == 2 else pixels.transpose(axes)
        fitted: Pixels = self.geometry.batch(pixels[None])[0]
        return fitted
