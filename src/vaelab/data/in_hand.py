"""What people have in a Python session: arrays, tuples of them, data sets, tables, lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from vaelab.data.arrays import ArraySource, Piece
from vaelab.data.fields import IMAGE_KEYS, LABEL_KEYS, column
from vaelab.data.items import Items, ItemSource
from vaelab.data.labels import is_one_hot
from vaelab.data.named import named_source, part_of
from vaelab.data.pixel_table import frame_source
from vaelab.data.pixels import Geometry, as_array
from vaelab.data.readers import Array, in_memory
from vaelab.data.source import Source
from vaelab.errors import DataError

_MORE = ("extra", "unlabeled", "unlabelled", "unsupervised")  # of training images


def source_in_hand(source: Any, geometry: Geometry, live: bool = False) -> Source:
    """Return the images of any object that is no path.

    Raises:
        DataError: it holds none in a form that can be read; says which line makes one.
    """
    if isinstance(source, Image.Image):
        source = [source]
    if _is_frame(source):
        return _table(source, geometry)
    if isinstance(source, TensorDataset):
        source = source.tensors
    arrays = _arrays(source, geometry)
    if arrays is not None:
        if live:
            raise DataError("live: arrays give the same image each time. Leave live out.")
        return arrays
    if isinstance(source, Mapping):
        return _mapping(source, geometry, live)
    _refuse_streams(source)
    if isinstance(source, tuple) and len(source) == 2 and _lists(*source):
        source = list(zip(*source, strict=True))
    if hasattr(source, "__getitem__") and not isinstance(source, (str, bytes)):
        return ItemSource([Items(source)], geometry, live)
    raise DataError(
        f"{type(source).__name__}: is no source of images. Pass a path, an array, or an object "
        "with len() and [index]."
    )


def _is_array(value: Any) -> bool:
    """Whether this is an array of any library: NumPy's, PyTorch's, JAX's, TensorFlow's."""
    if isinstance(value, (np.ndarray, Tensor)):
        return True
    return hasattr(value, "__array__") and hasattr(value, "shape") and not _is_frame(value)


def _is_frame(value: Any) -> bool:
    """Whether this is a table with named columns, such as a DataFrame of pandas."""
    return hasattr(value, "columns") and hasattr(value, "to_numpy")


def _is_images(value: Any) -> bool:
    return _is_array(value) and len(value.shape) > 2


def _is_column(value: Any) -> bool:
    """Whether this can be what goes with images: an array, a list, a column of a table."""
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes, Mapping))


def _arrays(source: Any, geometry: Geometry) -> ArraySource | None:
    """Images in arrays, with or without labels, in one part or several; None for others."""
    if _is_array(source) and not _objects(source):
        return ArraySource("images", [Piece(in_memory(source, "images"))], geometry)
    if not isinstance(source, tuple) or not source:
        return None
    if _is_images(source[0]) and all(
        _is_column(each) and len(each) == len(source[0]) for each in source[1:3]
    ):
        return _pieces([source], (0,), geometry)
    if len(source) == 2 and _is_images(source[0]) and _is_column(source[1]):
        return _pieces([source], (0,), geometry)  # lengths differ: says so
    pairs = [each for each in source if isinstance(each, (tuple, list)) and len(each) == 2]
    if len(pairs) == len(source) in (2, 3) and all(
        _is_images(x) and _is_column(y) and len(x) == len(y) for x, y in pairs
    ):  # as Keras loads its data sets: train and test, or train, validation and test
        return _pieces(pairs, (0, 2) if len(pairs) == 2 else (0, 1, 2), geometry)
    return None


def _objects(source: Any) -> bool:
    """Whether this is a list of images in the form of an array."""
    return isinstance(source, np.ndarray) and source.dtype == object and source.ndim == 1


def _pieces(pairs: Sequence[Any], parts: Sequence[int], geometry: Geometry) -> ArraySource:
    """Images with what goes with them: the second member is labels or attributes."""
    pieces, notes = [], []
    for (images, *rest), part in zip(pairs, parts, strict=True):
        piece = {}
        if rest:
            values = as_array(rest[0])
            marks = values.ndim == 2 and values.shape[1] > 1 and values.dtype.kind in "buif"
            if values.ndim > 2:
                notes.append("The second array was left alone: it has the shape of images.")
            elif marks and len(values) == len(images) and not is_one_hot(values):
                piece["attributes"] = in_memory(values, "attributes")
                notes.append(f"{values.shape[1]} marks an image were read as attributes.")
            else:
                piece["labels"] = in_memory(values, "labels")
        if len(rest) > 1:
            notes.append(f"{len(rest) - 1} of {len(rest) + 1} arrays were left alone.")
        pieces.append(Piece(in_memory(images, "images"), part, **piece))
    return ArraySource("images", pieces, geometry, notes=list(dict.fromkeys(notes)))


def _lists(images: Any, labels: Any) -> bool:
    """Whether these are a list of images and a list of their labels."""
    return _is_column(labels) and _pictures(images) and len(labels) == len(images)


def _pictures(images: Any) -> bool:
    """Whether this is a list of images, of one size or several."""
    if not isinstance(images, (list, tuple)) and not _objects(images):
        return False
    first: Any = images[0] if len(images) else None
    if isinstance(first, Mapping):
        first = first.get("bytes")
    return isinstance(first, (Image.Image, bytes)) or (_is_array(first) and len(first.shape) > 1)


def _rows(images: Sequence[Any], labels: Any = None) -> Items:
    """A list of images, with one of labels."""
    images = [each.get("bytes") if isinstance(each, Mapping) else each for each in images]
    return Items(images if labels is None else list(zip(images, labels, strict=True)))


def _parted(source: Mapping[Any, Any], geometry: Geometry) -> ArraySource | None:
    """Arrays of images by the name of their part, each alone or with its labels; None for others.

    ``{"train": x, "test": x}`` or ``{"train": (x, y), "test": (x, y)}``.
    """
    found = [
        (part, value if isinstance(value, tuple) else (value,))
        for name, value in source.items()
        if (part := part_of(str(name))) is not None
    ]
    if not found or len(found) < len(source) or not all(v and _is_images(v[0]) for _, v in found):
        return None
    found.sort(key=lambda each: each[0])
    return _pieces([value for _, value in found], [part for part, _ in found], geometry)


def _listed(source: Mapping[Any, Any], key: Any, geometry: Geometry, live: bool) -> Source:
    """Lists by name: of images and of labels, as a slice of a Hugging Face data set has them."""
    label = column(source, LABEL_KEYS)
    labels, count = None if label is None else source[label], len(source[key])
    if labels is not None and not (_is_column(labels) and len(labels) == count):
        size = f"{len(labels)} labels" if _is_column(labels) else f"no list `{label}`"
        raise DataError(
            f"{type(source).__name__}: has {size} for {count} images. Pass one label an image."
        )
    found = ItemSource([_rows(source[key], labels)], geometry, live)
    found.name = type(source).__name__
    if others := [str(name) for name in source if name not in (key, label)]:
        found.notes.append(f"{', '.join(others)}: left alone, beside the images in `{key}`.")
    return found


def _mapping(source: Mapping[Any, Any], geometry: Geometry, live: bool) -> Source:
    """Arrays by name, lists by name, or data sets by the name of their part."""
    key = column(source, IMAGE_KEYS)
    if key is not None and _pictures(source[key]):
        return _listed(source, key, geometry, live)
    if (parted := _parted(source, geometry)) is not None:
        return parted
    arrays: dict[str, Array] = {}
    for name, value in source.items():
        if _is_array(value) or (isinstance(value, list) and value and np.isscalar(value[0])):
            values = as_array(value)
            if values.dtype != object or values.ndim == 1:  # text labels with gaps, say
                arrays[str(name)] = in_memory(values, str(name))
    if arrays:
        remedy = 'Pass {"images": …, "labels": …}.'
        return named_source(type(source).__name__, arrays, geometry, remedy)
    sets, unknown = [], []
    for name, value in source.items():
        word = str(name).lower()
        part = 0 if word in _MORE or len(source) == 1 else part_of(word)
        if not hasattr(value, "__getitem__") or isinstance(value, (str, bytes)):
            _refuse_streams(value)
            unknown.append(str(name))
        elif part is None:
            unknown.append(str(name))
        else:
            sets.append(Items(value, part))
    if not sets:
        raise DataError(
            f"{type(source).__name__}: has the keys {', '.join(map(str, source)) or 'none'}. Name "
            "its parts train, validation and test, or pass one of them."
        )
    sets.sort(key=lambda each: each.part)
    found = ItemSource(sets, geometry, live)
    if unknown:
        found.notes.append(f"{', '.join(unknown)}: left alone, being no train, validation or test.")
    return found


def _table(frame: Any, geometry: Geometry) -> Source:
    """Rows of a table: a column of images with one of labels, or a column for each pixel."""
    names = [str(name) for name in frame.columns]
    key = column(names, IMAGE_KEYS)
    if key is None or len(names) > 100:
        return frame_source(frame, geometry)
    label = column(names, LABEL_KEYS)
    rows = _rows(list(frame[key]), None if label is None else frame[label])
    return ItemSource([rows], geometry)


def _refuse_streams(source: Any) -> None:
    """Raise `DataError` for what can be read front to back alone, with the line that helps."""
    kind = type(source).__name__
    if isinstance(source, DataLoader):
        raise DataError(f"{kind}: gives batches. Pass its data set: loader.dataset.")
    if hasattr(source, "as_numpy_iterator"):  # tf.data.Dataset
        raise DataError(
            f"{kind}: gives its items in one order alone. Read them into a list first: "
            "list(data.as_numpy_iterator())."
        )
    endless = isinstance(source, (Iterator, IterableDataset))
    if endless or (hasattr(source, "__iter__") and not hasattr(source, "__getitem__")):
        streamed = hasattr(source, "features")  # of Hugging Face
        more = " Or load it without streaming." if streamed else ""
        raise DataError(
            f"{kind}: gives its items in one order alone, and has no [index]. Read them into a "
            f"list first: list(data), or list(itertools.islice(data, 10_000)).{more}"
        )
