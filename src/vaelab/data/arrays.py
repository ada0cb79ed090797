"""Images from arrays, one after another, and the arrays of IDX files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaelab.data.companions import Beside, attach
from vaelab.data.labels import MAX_CLASSES
from vaelab.data.levels import check_dtype
from vaelab.data.part_words import part_of_word
from vaelab.data.pixels import Geometry, Pixels, Shape, channels_first
from vaelab.data.readers import Array, idx
from vaelab.data.source import (
    PARTS,
    Source,
    check_names,
    fingerprint,
)
from vaelab.errors import DataError

_LONG = 4  # times as long as wide is the longest image that is taken for one
_LARGE = 2**28  # bytes of labels that are always read

_IDX_NAME = re.compile(
    r"(?P<set>.*?)[-_.]?(?P<part>train(ing)?|t10k|test(ing)?|dev|val(id(ation|ate)?)?)[-_.]"
    r"(?P<kind>images|labels)[-_.]idx\d[-_.]ubyte(?P<gz>\.gz)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Piece:
    """Images that belong to one part (index into `PARTS`), with what goes with them."""

    images: Array
    part: int = 0
    labels: Array | None = None
    attributes: Array | None = None


class ArraySource(Source):
    """Images from arrays, one after another.

    Arguments:
        name: how messages call it.
        pieces: the arrays.
        geometry: the shape asked for.
        place: the file or folder that holds them.
        files: by whose times of change a cache is kept.
        class_names: of classes 0 … K − 1.
        attribute_names: of the attributes.
        notes: what was assumed.
        counted: whether the first axis is known to count the images.
    """

    def __init__(
        self,
        name: str,
        pieces: Sequence[Piece],
        geometry: Geometry,
        place: Path | None = None,
        files: Sequence[Path] = (),
        class_names: Array | None = None,
        attribute_names: Array | None = None,
        notes: Sequence[str] = (),
        counted: bool = True,
    ) -> None:
        if not counted and len(pieces) == 1:
            pieces, notes = stacked(pieces[0], notes)
        self._pieces = pieces
        for piece in pieces:
            if not piece.images.shape or piece.images.shape[0] == 0:
                raise DataError(f"{piece.images.where}: holds no images. Check the file.")
        counts = [piece.images.shape[0] for piece in pieces]
        super().__init__(name, sum(counts), geometry)
        self.notes += notes
        self.parts = np.repeat(np.array([piece.part for piece in pieces], np.int8), counts)
        if place is not None:
            self.place, self.digest = str(place.resolve()), fingerprint(files)
        attach(
            self,
            [_beside(piece) for piece in pieces],
            None if class_names is None else names_of(class_names),
            None if attribute_names is None else names_of(attribute_names),
        )

    def measure(self) -> Shape:
        """Shape after fitting; raises `DataError` where parts differ."""
        sizes: dict[tuple[int, int], int] = {}
        shapes = set()
        for piece in self._pieces:
            shape = self._layout(piece.images)[0]
            sizes[shape[1:]] = sizes.get(shape[1:], 0) + piece.images.shape[0]
            shapes.add(self.geometry.shape(*shape))
        if len({shape[1:] for shape in shapes}) > 1:
            raise self.sizes_differ(sizes)
        if len(shapes) > 1:
            raise DataError(f"{self.name}: parts differ in channels. Pass --channels 1, 3 or 4.")
        return shapes.pop()

    def shapes(self) -> Counter[Shape]:
        """How many images have which shape before fitting."""
        found: Counter[Shape] = Counter()
        for piece in self._pieces:
            found[self._layout(piece.images)[0]] += piece.images.shape[0]
        return found

    def chunks(self, size: int) -> Iterator[Pixels]:
        """All images in order; raises `DataError` for numbers that are no pixels."""
        for piece in self._pieces:
            array = piece.images
            shape, axes = self._layout(array)
            row = max(prod(shape) * array.dtype.itemsize, prod(self.geometry.shape(*shape)))
            for values in array.chunks(max(1, size // row)):
                try:
                    pixels = self.levels.pixels(values)
                    if len(axes) == 2:
                        pixels = pixels[:, None]
                    else:
                        pixels = pixels.transpose(0, *(axis + 1 for axis in axes))
                    fitted = self.geometry.batch(pixels, self.levels)
                except DataError as error:
                    raise DataError(f"{array.where}: {error}.") from None
                yield fitted

    def _layout(self, array: Array) -> tuple[Shape, tuple[int, ...]]:
        if len(array.shape) == 2:
            raise DataError(
                f"{array.where}: has shape {array.shape}, no images (N, H, W). If it is one image, "
                "pass array[None]; if each row is one, pass array.reshape(-1, HEIGHT, WIDTH)."
            )
        try:
            check_dtype(array.dtype)
            return channels_first(array.shape[1:])
        except DataError as error:
            raise DataError(f"{array.where}: {error}.") from None


def _beside(piece: Piece) -> Beside:
    labels, attributes = (
        None if each is None else bounded(each, piece.images)
        for each in (piece.labels, piece.attributes)
    )
    where = (piece.labels or piece.attributes or piece.images).where
    return Beside(piece.images.shape[0], where, labels, attributes)


def stacked(piece: Piece, notes: Sequence[str]) -> tuple[list[Piece], list[str]]:
    """A lone array as images: one image (H, W, C) is not taken for H images (W, C).

    Raises:
        DataError: it may be the one or the other.
    """
    array, where, shape = piece.images, piece.images.where, piece.images.shape
    if piece.labels is not None or piece.attributes is not None:
        return [piece], [*notes]
    if len(shape) != 3:
        return [piece], [*notes]
    first, second, last = shape
    as_one, as_several = "array[None]", f"{first:,} images of {second}×{last}"
    if second > 4 >= last:
        one, several = is_plausible(first, second), second <= _LONG * last
        if one == several:
            raise DataError(
                f"{where}: has shape {shape}, which is one image of {last} channels or "
                f"{as_several}. Pass {as_one} for one image, or array[:, None] for several."
            )
        if one:
            said = f"{where}: shape {shape} was read as one image; array[:, None] is {as_several}."
            return [replace(piece, images=alone(array))], [*notes, said]
    elif not (first in (3, 4) and min(second, last) > 4):
        return [piece], [*notes]
    said = f"{where}: shape {shape} was read as {as_several}; {as_one} is one image."
    return [piece], [*notes, said]


def is_plausible(height: int, width: int) -> bool:
    """Whether these are the sides of an image: no more than four to one, and none below five."""
    return min(height, width) > 4 and max(height, width) <= _LONG * min(height, width)


def alone(array: Array) -> Array:
    """One image as an array of one."""
    return Array(array.where, (1, *array.shape), array.dtype, lambda _: iter([array.read()[None]]))


def bounded(array: Array, images: Array) -> NDArray[Any]:
    """What goes with images, read only if it has one row an image and is no larger than that."""
    count = images.shape[0]
    rows = array.shape[1] if array.shape == (1, count) else array.shape[0] if array.shape else 0
    if rows != count:
        raise DataError(f"{array.where}: {rows} labels for {count} images. Pass one an image.")
    size = prod(array.shape) * array.dtype.itemsize
    if size > max(_LARGE, prod(images.shape) * images.dtype.itemsize):
        raise DataError(
            f"{array.where}: is larger ({size:,} bytes) than the images it goes with. Pass one "
            "class an image."
        )
    return array.read()


def names_of(array: Array) -> tuple[str, ...]:
    """Names of classes or attributes in a list of text."""
    if len(array.shape) != 1 or array.shape[0] > MAX_CLASSES:
        raise DataError(f"{array.where}: must be a list of names, at most {MAX_CLASSES:,}.")
    return check_names(array.read(), array.shape[0], array.where)


def is_idx(folder: Path) -> bool:
    """Whether a folder holds images in IDX files."""
    return any(
        (match := _IDX_NAME.fullmatch(name)) and match["kind"].lower() == "images"
        for name in os.listdir(folder)
    )


def idx_source(folder: Path, geometry: Geometry) -> ArraySource:
    """Images and labels of the IDX files in a folder, such as ``train-images-idx3-ubyte.gz``."""
    found: dict[tuple[int, str], Path] = {}
    for path in sorted(folder.iterdir(), reverse=True):  # so that x stands in for x.gz
        match = _IDX_NAME.fullmatch(path.name)
        if match is None:
            continue
        part = part_of_word(match["part"])
        key = (2 if part is None else part, match["kind"].lower())  # t10k, as MNIST has it
        if key in found and found[key].name != f"{path.name}.gz":
            raise DataError(
                f"{folder}: {path.name} and {found[key].name} are both {key[1]} for "
                f"{PARTS[key[0]]}. Keep one data set a folder."
            )
        found[key] = path
    pieces = [
        Piece(
            idx(path, str(path)),
            part,
            idx(found[part, "labels"], str(found[part, "labels"]))
            if (part, "labels") in found
            else None,
        )
        for (part, kind), path in sorted(found.items())
        if kind == "images"
    ]
    source = ArraySource(str(folder), pieces, geometry, folder, sorted(found.values()))
    if any(path.name.lower().startswith("emnist") for path in found.values()):
        source.notes.append(
            f"{folder}: EMNIST stores its images transposed, and they were read as they are. In "
            "Python, images.transpose(0, 2, 1) turns an array (N, H, W) of them."
        )
    return source
