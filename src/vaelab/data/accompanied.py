"""Images in Python with what goes with them: arrays, pictures or paths, each with its labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vaelab.data.arrays import ArraySource, Piece
from vaelab.data.companions import Beside, attach, keep_parts, read_parts
from vaelab.data.folder import FolderSource
from vaelab.data.items import Items, ItemSource
from vaelab.data.pixels import Geometry, as_array
from vaelab.data.places import Paths
from vaelab.data.readers import in_memory
from vaelab.data.source import Source
from vaelab.errors import DataError

Kind = Literal["array", "pictures", "paths"]


@dataclass(frozen=True)
class Given:
    """Images of one part, with what goes with them, of whatever kind.

    Arguments:
        images: an array of them, a list of pictures, or a list of paths.
        part: index into `PARTS`.
        labels: classes, or several marks an image.
        attributes: numbers ``(N, A)``, or a table of them.
        parts: the name of a column, and its word for the part of each image.
        where: how messages call them.
    """

    images: Any
    part: int = 0
    labels: Any = None
    attributes: Any = None
    parts: tuple[Any, Any] | None = None
    where: str = "images"


def is_frame(value: Any) -> bool:
    """Whether this is a table with named columns, such as a DataFrame of pandas."""
    return hasattr(value, "columns") and hasattr(value, "to_numpy")


def is_array(value: Any) -> bool:
    """Whether this is an array of any library: NumPy's, PyTorch's, JAX's, TensorFlow's."""
    if isinstance(value, (np.ndarray, Tensor)):
        return True
    return hasattr(value, "__array__") and hasattr(value, "shape") and not is_frame(value)


def is_column(value: Any) -> bool:
    """Whether this can be what goes with images: an array, a list, a column or a table."""
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes, Mapping))


def listed(value: Any) -> Sequence[Any] | None:
    """The members of a list, a tuple, an array of objects or text, or a column of a table."""
    if isinstance(value, (list, tuple)):
        return value
    if not is_array(value) or isinstance(value, Tensor) or len(value.shape) != 1:
        return None
    if as_array(value).dtype.kind not in "OU":
        return None
    return value.tolist() if isinstance(value, np.ndarray) else list(value)


def kind_of(value: Any) -> Kind | None:
    """What kind of images these are: an array, a list of pictures or of paths; None for none."""
    members = listed(value)
    if members is None:
        return "array" if is_array(value) and len(value.shape) > 1 else None
    first: Any = members[0] if len(members) else None
    if isinstance(first, Mapping):
        first = first.get("bytes")
    if isinstance(first, (str, PathLike)):
        return "paths"
    if isinstance(first, (Image.Image, bytes)) or (is_array(first) and len(first.shape) > 1):
        return "pictures"
    return None


def given_source(
    given: Sequence[Given],
    geometry: Geometry,
    name: str = "images",
    class_names: Any = None,
    attribute_names: Any = None,
    notes: Sequence[str] = (),
    live: bool = False,
) -> Source:
    """Return the images of several parts as one source.

    Raises:
        DataError: they are of different kinds, or what goes with them does not fit.
    """
    columns, besides = _beside(given)
    names = _names(class_names, "class_names")
    titles = _names(attribute_names, "attribute_names") or columns.get("attributes")
    kinds = {kind_of(each.images) for each in given}
    if "paths" in kinds and len(kinds) > 1:
        raise DataError(f"{name}: holds paths and images. Pass paths alone, or open them all.")
    if live and "pictures" not in kinds:
        what = "paths" if "paths" in kinds else "arrays"
        raise DataError(f"live: {what} give the same image each time. Leave live out.")
    source, rows = _images(given, kinds, geometry, name, live)
    attach(source, besides, names, titles, columns.get("labels", ()), rows)
    _keep_parts(source, given, besides, rows)
    source.notes += notes
    return source


def _images(
    given: Sequence[Given], kinds: set[Kind | None], geometry: Geometry, name: str, live: bool
) -> tuple[Source, NDArray[np.int64] | None]:
    """The images, and which of those that were given each is, if not one to one."""
    if kinds == {"paths"}:
        found = FolderSource(Paths(_paths(given)), geometry)
        return found, found.files
    if kinds == {"array"} or (stacks := _stacks(given)) is not None:
        arrays = [each.images for each in given] if kinds == {"array"} else stacks
        assert arrays is not None
        lone = len(given) == 1 and given[0].labels is given[0].attributes is given[0].parts is None
        pieces = [
            Piece(in_memory(images, each.where), each.part)
            for images, each in zip(arrays, given, strict=True)
        ]
        return ArraySource(name, pieces, geometry, counted=not lone), None
    items = ItemSource([Items(_pictures(each.images), each.part) for each in given], geometry, live)
    items.name = name
    return items, None


def _pictures(images: Any) -> list[Any]:
    members = listed(images)
    members = images if members is None else members
    return [each.get("bytes") if isinstance(each, Mapping) else each for each in members]


def _stacks(given: Sequence[Given]) -> list[NDArray[Any]] | None:
    """Arrays where some images are in arrays, and the others lists of arrays of one shape."""
    found = []
    for each in given:
        if kind_of(each.images) == "pictures":
            members = listed(each.images) or ()
            if not all(map(is_array, members)) or len({tuple(m.shape) for m in members}) != 1:
                return None
            found.append(np.stack([as_array(member) for member in members]))
        else:
            found.append(as_array(each.images))
    return found if any(kind_of(each.images) == "array" for each in given) else None


def _paths(given: Sequence[Given]) -> list[str | Path]:
    paths: list[str | Path] = []
    for each in given:
        for row, path in enumerate(listed(each.images) or ()):
            if not isinstance(path, (str, PathLike)):
                raise DataError(
                    f"{each.where}: member {row} is {type(path).__name__} among paths. Give the "
                    "path of an image for each."
                )
            paths.append(os.fspath(path))
    return paths


def _beside(given: Sequence[Given]) -> tuple[dict[str, tuple[str, ...]], list[Beside]]:
    """What goes with the images as arrays, and the names of the columns of each."""
    names: dict[str, tuple[str, ...]] = {}
    besides = []
    for each in given:
        found: dict[str, NDArray[Any] | None] = {}
        for kind in ("labels", "attributes"):
            value = getattr(each, kind)
            where = each.where if each.where.endswith(kind) else f"{each.where}: {kind}"
            columns, array = _columns(value, names.get(kind, ()), where, kind == "attributes")
            found[kind] = array
            if columns and array is not None:
                names[kind] = columns
        besides.append(Beside(len(each.images), each.where, found["labels"], found["attributes"]))
    return names, besides


def _columns(
    value: Any, known: tuple[str, ...], where: str, single: bool
) -> tuple[tuple[str, ...], NDArray[Any] | None]:
    """The columns of what goes with images by name, in the order of ``known``, if they have any."""
    if value is None:
        return (), None
    if not is_frame(value):
        array = _array(value, where)
        name = getattr(value, "name", None)
        if single and array.ndim == 1:
            return ((str(name),) if isinstance(name, str) else ()), _numbers(array, where)[:, None]
        return (), array
    names = [str(column) for column in value.columns]
    if len(names) == 1 and not single:
        return (), as_array(value[value.columns[0]])
    if known and {*names} != {*known}:
        raise DataError(
            f"{where}: has the columns {', '.join(names)}, and another part has "
            f"{', '.join(known)}. Give all parts the same."
        )
    order = known or tuple(names)
    columns = [value[value.columns[names.index(name)]] for name in order]
    return order, np.stack(
        [
            _numbers(as_array(c), f"{where}, column {n!r}")
            for n, c in zip(order, columns, strict=True)
        ],
        1,
    )


def _array(value: Any, where: str) -> NDArray[Any]:
    """A column, a list of lists or a list of numbers of any library as an array."""
    try:
        found = as_array(value)
        if found.dtype == object and found.ndim == 1 and len(found) and is_array(found[0]):
            found = np.stack([as_array(each) for each in found])
    except (DataError, ValueError) as error:
        raise DataError(
            f"{where}: {error}. Give one label, or equally many marks, an image."
        ) from None
    return found


def _numbers(values: NDArray[Any], where: str) -> NDArray[Any]:
    """A column of attributes as numbers, NaN where there is none."""
    if values.dtype.kind in "buif":
        return values
    try:
        return np.array([np.nan if str(v) in ("<NA>", "None", "NaT") else v for v in values], float)
    except (TypeError, ValueError):
        odd = next(v for v in values.tolist() if not isinstance(v, (int, float)))
        raise DataError(
            f"{where}: {str(odd)[:40]!r} is no number. Pass the labels alone, as one column, or "
            "numbers as attributes."
        ) from None


def _names(value: Any, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    found = _array(value, where)
    if found.ndim != 1 or found.dtype.kind not in "UO":
        raise DataError(f"{where}: must be a list of names.")
    return tuple(str(name) for name in found)


def _keep_parts(
    source: Source,
    given: Sequence[Given],
    besides: Sequence[Beside],
    rows: NDArray[np.int64] | None,
) -> None:
    """Give a source the parts of its images: of each piece, or of each image by a word."""
    counts = [each.count for each in besides]
    parts = np.repeat(np.array([each.part for each in given], np.int8), counts)
    source.parts = parts if rows is None else parts[rows]
    if given[0].parts is None:
        return
    key, words = given[0].parts
    if len(words) != counts[0]:
        raise DataError(
            f"{source.name}: {len(words)} parts for {counts[0]} images in `{key}`. Pass one an "
            "image."
        )
    found = read_parts(as_array(words).tolist(), key, source.name)
    if found is None:
        source.notes.append(f"{source.name}: `{key}` names no parts and was left alone.")
    else:
        keep_parts(source, found if rows is None else found[rows], key)
