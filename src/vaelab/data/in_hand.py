"""What people have in a Python session: arrays, tuples of them, data sets, tables, lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from vaelab.data.accompanied import (
    Given,
    given_source,
    is_array,
    is_column,
    is_frame,
    kind_of,
)
from vaelab.data.companions import part_key, part_of
from vaelab.data.fields import IMAGE_KEYS, LABEL_KEYS, column, read_raw
from vaelab.data.framed import table_source
from vaelab.data.items import Items, ItemSource
from vaelab.data.named import ATTRIBUTES, IMAGES, LABELS, MORE, named_source, part_index, sort_names
from vaelab.data.pixels import Geometry, channels_first
from vaelab.data.readers import in_memory
from vaelab.data.source import Source
from vaelab.errors import DataError

_ORDER = (
    "Read are (images, labels), ((images, labels), (images, labels)) with the test part last, and "
    '{"train": (images, labels), "test": (images, labels)}'
)


def source_in_hand(source: Any, geometry: Geometry, live: bool = False) -> Source:
    """Return the images of any object that is no path.

    Raises:
        DataError: it holds none in a form that can be read; says which line makes one.
    """
    if isinstance(source, Image.Image):
        source = [source]
    if is_frame(source):
        return table_source(source, geometry, live)
    if isinstance(source, TensorDataset):
        source = source.tensors
    if isinstance(source, Mapping):
        return _mapping(source, geometry, live)
    if (found := _given(source)) is not None:
        given, notes = found
        return given_source(given, geometry, notes=notes, live=live)
    _refuse_streams(source)
    if isinstance(source, (list, tuple)):
        _refuse_order(source)
    if hasattr(source, "__getitem__") and not isinstance(source, (str, bytes)):
        return ItemSource([Items(source)], geometry, live)
    raise DataError(
        f"{type(source).__name__}: is no source of images. Pass a path, an array, or an object "
        "with len() and [index]."
    )


def _given(source: Any) -> tuple[list[Given], list[str]] | None:
    """Images alone, with what goes with them, or in parts as Keras has them; None for others."""
    kind = kind_of(source)
    if kind == "array" or kind == "paths" or (is_array(source) and kind is None):
        if isinstance(source, Tensor) and source.ndim == 3 and source.shape[0] == 3:
            raise DataError(
                f"images: a tensor of shape {tuple(source.shape)} is one image of 3 channels or 3 "
                "images of one. Pass tensor[None] for one image, or tensor[:, None] for three."
            )
        return [Given(source)], []
    if not isinstance(source, (tuple, list)) or not source:
        return None
    pairs = [each for each in source if isinstance(each, (tuple, list)) and len(each) == 2]
    if len(pairs) == len(source) in (2, 3):
        found = [_together(tuple(pair)) for pair in pairs]
        parts = (0, 2) if len(pairs) == 2 else (0, 1, 2)  # as Keras loads its data sets
        if all(each is not None and _fits(each[0]) for each in found):
            both = [each for each in found if each is not None]
            given = [replace(one, part=part) for (one, _), part in zip(both, parts, strict=True)]
            return given, list(dict.fromkeys(note for _, notes in both for note in notes))
    if (together := _together(source)) is not None:
        return [together[0]], together[1]
    return _items_of_paths(source)


def _fits(given: Given) -> bool:
    return given.labels is None or len(given.labels) == len(given.images)


def _together(source: Sequence[Any]) -> tuple[Given, list[str]] | None:
    """Images and what goes with them, ``(images, labels, …)``; None for anything else."""
    images, *rest = source
    kind = kind_of(images)
    if kind is None or (kind == "array" and not _is_stack(images, rest)):
        return None
    if not rest:
        return (Given(images), []) if isinstance(source, tuple) else None
    if not all(each is None or is_column(each) for each in rest[:2]):
        return None
    sides = _sides(rest[0])
    if isinstance(source, list) and (len(source) != 2 or len(sides) > 1):
        return None  # a list of images rather than of two columns
    if len(source) > 2 and any(is_column(each) and len(each) != len(images) for each in rest[:2]):
        return None
    notes = []
    if len(sides) > 2:
        notes.append("The second array was left alone: it has the shape of images.")
        rest[0] = None
    if len(rest) > 1:
        notes.append(f"{len(rest) - 1} of {len(rest) + 1} arrays were left alone.")
    return Given(images, labels=rest[0]), notes


def _is_stack(images: Any, rest: Sequence[Any]) -> bool:
    """Whether an array is of several images, by its shape and what stands beside it."""
    sides = _sides(rest[0]) if rest else ()
    if len(images.shape) == 2:  # rows of pixels, which is said
        return len(sides) == 1 and sides[0] == len(images)
    if len(sides) > 2 and len(images.shape) == 3:  # two images of colours, or images and masks
        return bool(images.shape[2] > 4 and images.shape[0] not in (1, 3))
    return len(images.shape) > 2


def _sides(value: Any) -> tuple[int, ...]:
    """The shape of what goes with images, as far as it is known without reading it."""
    if is_array(value) or is_frame(value):
        return tuple(value.shape) if hasattr(value, "shape") else (len(value), len(value.columns))
    if not isinstance(value, (list, tuple)):
        return ()
    inner = value[0] if len(value) else None
    if isinstance(inner, Image.Image):
        return (len(value), inner.height, inner.width)
    return (len(value), *_sides(inner))


def _items_of_paths(source: Sequence[Any]) -> tuple[list[Given], list[str]] | None:
    """Pairs of a path and a label, or mappings with a path, as columns; None for other items."""
    first = source[0]
    if not isinstance(first, (tuple, Mapping)):
        return None
    if isinstance(first, tuple) and not (first and isinstance(first[0], (str, PathLike))):
        return None
    if isinstance(first, Mapping) and not isinstance(
        first.get(column(first, IMAGE_KEYS)), (str, PathLike)
    ):
        return None
    items = [read_raw(item, row, None) for row, item in enumerate(source)]
    labels = None if all(item.label is None for item in items) else [i.label for i in items]
    parts = None
    if items[0].part_key is not None:
        parts = (items[0].part_key, [item.part for item in items])
    extras = [item.extra for item in items if item.extra]
    notes = [f"list: items have {extras[0]}." if extras[0][0].isdigit() else f"list: {extras[0]}."
             for _ in extras[:1]]  # fmt: skip
    return [Given([item.image for item in items], labels=labels, parts=parts)], notes


def _refuse_order(source: Sequence[Any]) -> None:
    """Raise `DataError` for a few stacks of images and columns in an order that is not read."""
    if not 2 <= len(source) <= 8:
        return
    shapes = [tuple(each.shape) if is_array(each) else None for each in source]
    if any(shape is not None and _is_no_image(shape) and len(shape) > 2 for shape in shapes):
        members = ", ".join(
            type(each).__name__ if shape is None else f"{shape}"
            for each, shape in zip(source, shapes, strict=True)
        )
        raise DataError(
            f"{type(source).__name__} of {members}: is in no order that is read. {_ORDER}."
        )


def _is_no_image(shape: tuple[int, ...]) -> bool:
    try:
        channels_first(shape)
    except DataError:
        return True
    return False


# ------------------------------------------------------------------------------------- by name


def _mapping(source: Mapping[Any, Any], geometry: Geometry, live: bool) -> Source:
    """Images by name with what goes with them, or data sets by the name of their part."""
    name = type(source).__name__
    if (parted := _parted(source)) is not None:
        given, names, notes = parted
        return given_source(given, geometry, name, *names, notes=notes, live=live)
    if any(part_of(str(key)) is None for key in source) and (found := _named(source, name)):
        given, names, notes = found
        return given_source(given, geometry, name, *names, notes=notes, live=live)
    arrays = {
        str(key): in_memory(value, str(key)) for key, value in source.items() if is_array(value)
    }
    if arrays:
        return named_source(name, arrays, geometry, 'Pass {"images": …, "labels": …}.')
    return _sets(source, geometry, live)


def _parted(
    source: Mapping[Any, Any],
) -> tuple[list[Given], tuple[Any, Any], list[str]] | None:
    """Images by the name of their part, alone or with what goes with them; None for others.

    ``{"train": x, "test": x}``, ``{"train": (x, y), …}`` or ``{"train": {"images": x, …}, …}``.
    """
    given, notes = [], []
    names: tuple[Any, Any] = (None, None)
    for key, value in source.items():
        part = 0 if str(key).lower() in MORE else part_of(str(key))
        found = None if part is None else _part(value, f"{type(source).__name__}[{key}]")
        if found is None or part is None:
            return None
        images, own, said = found
        given.append(replace(images, part=part, where=str(key)))
        names = own if names == (None, None) else names
        notes += said
    given.sort(key=lambda each: each.part)
    return (given, names, list(dict.fromkeys(notes))) if given else None


def _part(value: Any, name: str) -> tuple[Given, tuple[Any, Any], list[str]] | None:
    """The images of one part, with names and notes; None for a data set or anything else."""
    kind = kind_of(value)
    if kind == "paths" or (kind == "array" and len(value.shape) > 2):
        return Given(value), (None, None), []
    if isinstance(value, Mapping):
        named = _named(value, name)
        return (named[0][0], *named[1:]) if named is not None and len(named[0]) == 1 else None
    if not isinstance(value, (tuple, list)) or not value:
        return None
    if (together := _together(value)) is not None:
        return together[0], (None, None), together[1]
    of_paths = _items_of_paths(value)
    return None if of_paths is None else (of_paths[0][0], (None, None), of_paths[1])


def _named(
    source: Mapping[Any, Any], name: str
) -> tuple[list[Given], tuple[Any, Any], list[str]] | None:
    """Images by their usual names, with labels, attributes and names of these; None for others."""
    keys = {str(key): key for key in source}
    usual = sort_names([*keys])
    found = dict(usual.found)
    if not any(kind == IMAGES for _, kind in found):
        image, label = column(source, IMAGE_KEYS), column(source, LABEL_KEYS)
        if image is None:
            return None
        found[0, IMAGES] = str(image)
        found |= {(0, LABELS): str(label)} if label is not None else {}
    split = part_key(source)
    names = {kind: key for kind, key in usual.names.items() if is_column(source[keys[key]])}
    given = []
    for part in sorted({part for part, kind in found if kind == IMAGES}):
        beside = {}
        for kind in (IMAGES, LABELS, ATTRIBUTES):
            if (part, kind) in found:
                beside[kind] = _member(source[keys[found[part, kind]]], found[part, kind], kind)
        where = f"{name}[{found[part, IMAGES]}]"
        given.append(Given(**beside, part=part_index(part), where=where))
    used = {*names.values()} | {key for (part, _), key in found.items() if (part, IMAGES) in found}
    if split is not None and len(given) == 1 and is_column(source[split]):
        given[0] = replace(given[0], parts=(split, source[split]))
        used.add(str(split))
    others = [key for key in keys if key not in used]
    notes = [f"{name}: {', '.join(others)} left alone, beside the images."] if others else []
    values = (source[keys[names[kind]]] if kind in names else None for kind in (LABELS, ATTRIBUTES))
    class_names, attribute_names = values
    return given, (class_names, attribute_names), notes


def _member(value: Any, key: str, kind: str) -> Any:
    """What a key holds, if it can be what the key says.

    Raises:
        DataError: it cannot; names the key.
    """
    fits = value is None if kind != IMAGES else False
    if kind == IMAGES and kind_of(value) is None and isinstance(value, (list, tuple)):
        value = _numbers_in(value)
    fits |= kind_of(value) is not None if kind == IMAGES else is_column(value)
    if not fits:
        holds = f"`{key}` is {type(value).__name__}"
        needs = "an array of images, or a list of images or paths" if kind == IMAGES else (
            f"an array or a list with {kind} for each image"
        )  # fmt: skip
        raise DataError(f"{holds}, which holds no {kind}. Pass {needs}.")
    return value


def _numbers_in(value: Sequence[Any]) -> Any:
    """Lists of lists of numbers as an array of images; as they are where they are none."""
    try:
        array = in_memory(value, "images").read()
    except (DataError, ValueError):
        return value
    return array if array.ndim > 2 and array.dtype.kind in "buif" else value


def _sets(source: Mapping[Any, Any], geometry: Geometry, live: bool) -> Source:
    """Data sets by the name of their part."""
    name = type(source).__name__
    sets, unknown = [], []
    for key, value in source.items():
        word = str(key).lower()
        part = 0 if word in MORE or len(source) == 1 else part_of(word)
        if isinstance(value, (str, PathLike)) and part is not None:
            raise DataError(
                f"{name}: part {str(key)!r} is the path {str(value)[:60]!r}, and paths are not "
                "read as parts. Pass the folder that holds the parts, a list of paths for each, "
                "or load each by itself."
            )
        if not hasattr(value, "__getitem__") or isinstance(value, (str, bytes)):
            _refuse_streams(value)
            unknown.append(str(key))
        elif part is None:
            unknown.append(str(key))
        else:
            sets.append(Items(value, part))
    if not sets:
        raise DataError(
            f"{name}: has the keys {', '.join(map(str, source)) or 'none'}. Name its parts train, "
            "validation and test, or its images `images`."
        )
    sets.sort(key=lambda each: each.part)
    found = ItemSource(sets, geometry, live)
    if unknown:
        found.notes.append(f"{', '.join(unknown)}: left alone, being no train, validation or test.")
    return found


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
