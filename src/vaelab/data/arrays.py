"""Images from arrays: given in Python, or in .npy, .npz and IDX files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vaelab.data.pixels import Geometry, Pixels, Shape, channels_first, check_dtype, to_uint8
from vaelab.data.readers import Array, idx, npy, npz
from vaelab.data.source import (
    PARTS,
    Source,
    check_attributes,
    check_labels,
    check_names,
    fingerprint,
)
from vaelab.errors import DataError

Number = TypeVar("Number", bound=np.number[Any])

_IDX_PARTS = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "t10k": 2}
_IDX_NAME = re.compile(
    r"(?P<set>.*?)[-_.]?(?P<part>train|t10k|test|val|valid|validation)[-_.](?P<kind>images|labels)"
    r"[-_.]idx\d[-_.]ubyte(?P<gz>\.gz)?",
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
    """Images from arrays, one after another."""

    def __init__(
        self,
        name: str,
        pieces: Sequence[Piece],
        geometry: Geometry,
        place: Path | None = None,
        files: Sequence[Path] = (),
        class_names: Array | None = None,
        attribute_names: Array | None = None,
    ) -> None:
        self._pieces = pieces
        for piece in pieces:
            if not piece.images.shape or piece.images.shape[0] == 0:
                raise DataError(f"{piece.images.where}: holds no images. Check the file.")
        counts = [piece.images.shape[0] for piece in pieces]
        super().__init__(name, sum(counts), geometry)
        self.parts = np.repeat(np.array([piece.part for piece in pieces], np.int8), counts)
        if place is not None:
            self.place, self.digest = str(place.resolve()), fingerprint(files)
        labels = self._joined([piece.labels for piece in pieces], check_labels)
        if labels is not None:
            self.labels = labels
            classes = int(labels.max()) + 1
            self.class_names = tuple(str(label) for label in range(classes))
            if class_names is not None:
                self.class_names = check_names(class_names.read(), classes, class_names.where)
        attributes = self._joined([piece.attributes for piece in pieces], check_attributes)
        if attributes is not None:
            columns = attributes.shape[1]
            names = tuple(f"attribute {column}" for column in range(columns))
            if attribute_names is not None:
                names = check_names(attribute_names.read(), columns, attribute_names.where)
            self.keep_attributes(names, attributes, name)

    def _joined(
        self, arrays: Sequence[Array | None], check: Callable[[Any, int, str], NDArray[Number]]
    ) -> NDArray[Number] | None:
        """Checked rows of all pieces, or None where no piece has any."""
        found = [
            check(array.read(), piece.images.shape[0], array.where)
            for array, piece in zip(arrays, self._pieces, strict=True)
            if array is not None
        ]
        if not found:
            return None
        if len(found) < len(arrays) or len({rows.shape[1:] for rows in found}) > 1:
            raise DataError(
                f"{self.name}: the labels or attributes of its parts do not match. Give all parts "
                "the same, or none."
            )
        return np.concatenate(found)

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
                    pixels = to_uint8(values)
                except DataError as error:
                    raise DataError(f"{array.where}: {error}.") from None
                if len(axes) == 2:
                    pixels = pixels[:, None]
                else:
                    pixels = pixels.transpose(0, *(axis + 1 for axis in axes))
                yield self.geometry.batch(pixels)

    def _layout(self, array: Array) -> tuple[Shape, tuple[int, ...]]:
        try:
            check_dtype(array.dtype)
            return channels_first(array.shape[1:])
        except DataError as error:
            raise DataError(f"{array.where}: {error}.") from None


def npy_source(path: Path, geometry: Geometry) -> ArraySource:
    """Images of a .npy file, or of a .npz file with ``images`` and what goes with them.

    A .npz file may also hold ``labels``, ``attributes``, ``class_names``, ``attribute_names``, and
    ``test_images``, ``test_labels``, ``test_attributes``.
    """
    if path.suffix == ".npy":
        return ArraySource(str(path), [Piece(npy(path, str(path)))], geometry, path, [path])
    arrays = npz(path, str(path))
    if "images" not in arrays:
        raise DataError(
            f"{path}: holds {', '.join(sorted(arrays)) or 'no arrays'} but no `images`. "
            "Save them with numpy.savez(path, images=...)."
        )
    pieces = [
        Piece(
            arrays[f"{prefix}images"],
            part,
            *map(arrays.get, (f"{prefix}labels", f"{prefix}attributes")),
        )
        for prefix, part in (("", 0), ("test_", 2))
        if f"{prefix}images" in arrays
    ]
    names = (arrays.get("class_names"), arrays.get("attribute_names"))
    return ArraySource(str(path), pieces, geometry, path, [path], *names)


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
        key = (_IDX_PARTS[match["part"].lower()], match["kind"].lower())
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
    return ArraySource(str(folder), pieces, geometry, folder, sorted(found.values()))
