"""What is the image of an item, and what its label: tuples, mappings and their usual names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from vaelab.data.pixels import as_array

IMAGE_KEYS = ("image", "img", "pixel_values", "images", "imgs", "pixels", "picture", "x")
LABEL_KEYS = ("label", "labels", "target", "targets", "fine_label", "class", "y", "digit")
PART_KEYS = ("split", "set", "partition", "part", "subset", "usage", "phase")


class Misnamed(Exception):
    """An item that holds no image where one is looked for."""


@dataclass(frozen=True)
class Item:
    """One item of a data set.

    Arguments:
        image: of whatever kind.
        label: a number, text, a vector of numbers, or None.
        extra: what else the item holds and was left alone, in words.
        part: its word for the part that it belongs to.
        part_key: the name of that word; None where there is none.
    """

    image: Any
    label: Any = None
    extra: str = ""
    part: Any = None
    part_key: Any = None


def read_item(data: Any, index: int) -> Item:
    """Return item ``index`` of a data set.

    Raises:
        Misnamed: it holds no image under a usual name, or a label that is none.
    """
    found = read_raw(data[index], index, getattr(data, "features", None))
    if isinstance(found.image, (str, PathLike)):
        raise Misnamed(
            f"item {index} is the text {str(found.image)[:60]!r} where its image is looked for. "
            "Open it, PIL.Image.open(path), or pass a folder or a list of paths alone."
        )
    return found


def read_raw(item: Any, index: int, features: Any) -> Item:
    """Return what an item holds, be its image a path or none."""
    if isinstance(item, Mapping):
        return _of_mapping(item, index, features)
    if _is_tuple(item):
        first, *rest = item
        label = _label(rest[0], index) if rest else None
        extra = ""
        if rest and np.ndim(_plain(rest[0])) > 1:
            extra = f"{len(item)} members: the first was read as the image, no other as its label"
        elif len(rest) > 1:
            extra = (
                f"{len(item)} members: the first was read as the image, the second as its label, "
                "and the others were left alone"
            )
        return Item(first, label, extra)
    return Item(item)


def _is_tuple(item: Any) -> bool:
    """Whether an item is several things; a list of numbers is an image."""
    if isinstance(item, list) and item:
        first = item[0]
        return isinstance(first, Image.Image) or (
            isinstance(first, (np.ndarray, Tensor)) and first.ndim > 1
        )
    return isinstance(item, tuple) and len(item) > 0


def _of_mapping(item: Mapping[Any, Any], index: int, features: Any) -> Item:
    image_key = column(item, IMAGE_KEYS, features, "Image")
    if image_key is None:
        raise Misnamed(
            f"item {index} has the keys {', '.join(map(str, item))}, and none is an image's. Name "
            "its image `image`."
        )
    image = item[image_key]
    if isinstance(image, Mapping) and "bytes" in image:  # as Hugging Face stores files
        image = image["bytes"]
    label_key = column(item, LABEL_KEYS, features, "ClassLabel")
    label = None if label_key is None else _label(item[label_key], index)
    part_key = column(item, PART_KEYS)
    part = None if part_key is None else item[part_key]
    others = sorted(str(key) for key in item if key not in (image_key, label_key, part_key))
    used = f"`{image_key}` was read as the image" + (
        f", `{label_key}` as its label" if label_key is not None else ""
    )
    listed = ", ".join(others[:5])
    extra = f"{used}; {listed} left alone" if others else ""
    return Item(image, label, extra, part, part_key)


def column(keys: Any, names: Sequence[str], features: Any = None, kind: str | None = None) -> Any:
    """Return the key that has a usual name, else the only one whose feature is of a kind."""
    lower = {str(key).lower(): key for key in reversed(list(keys))}
    for name in names:
        if name in lower:
            return lower[name]
    of_kind = [
        key
        for key in keys
        if isinstance(features, Mapping) and type(features.get(key)).__name__ == kind
    ]
    return of_kind[0] if len(of_kind) == 1 else None


def _plain(value: Any) -> Any:
    return as_array(value) if isinstance(value, Tensor) or hasattr(value, "__array__") else value


def _label(value: Any, index: int) -> Any:
    """A label as a number, text, None or a vector; None of what cannot be one."""
    if value is None or isinstance(value, (str, bytes, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        raise Misnamed(
            f"item {index} has a {type(value).__name__} with {', '.join(map(str, value))} for a "
            "label. Give a number, a name, or None."
        )
    plain = _plain(value)
    if isinstance(plain, (list, tuple)):
        plain = np.asarray(plain)
    if isinstance(plain, np.generic) or (isinstance(plain, np.ndarray) and plain.size == 1):
        return plain.item()
    if isinstance(plain, np.ndarray):
        return plain if plain.ndim == 1 and plain.dtype.kind in "buif" else None
    if str(value).strip().lower() in ("nan", "<na>", "nat"):
        return None
    raise Misnamed(
        f"item {index} has a label of type {type(value).__name__}. Give a number, a name, or None."
    )


def kept_alone(name: str, extras: Counter[str]) -> list[str]:
    """The note on what items hold beside image and label, said once."""
    return [f"{name}: items have {extra}." if extra[0].isdigit() else f"{name}: {extra}."
            for extra, _ in extras.most_common(1)]  # fmt: skip


def class_names(data: Any) -> list[str] | None:
    """Names of the classes of a data set, if it has any; through subsets and joined sets."""
    features = getattr(data, "features", None)
    if isinstance(features, Mapping):
        key = column(features, LABEL_KEYS, features, "ClassLabel")
        names = getattr(features.get(key), "names", None)
        return _listed(names)
    names = _listed(getattr(data, "classes", None))
    if names is not None:
        return names
    if (whole := getattr(data, "dataset", None)) is not None:  # a Subset
        return class_names(whole)
    joined = getattr(data, "datasets", None)  # a ConcatDataset
    if isinstance(joined, (list, tuple)) and joined:
        each = [class_names(one) for one in joined]
        return each[0] if all(names == each[0] for names in each) else None
    return None


def _listed(names: Any) -> list[str] | None:
    if not isinstance(names, (list, tuple, np.ndarray)) or len(names) == 0:
        return None
    return [str(name) for name in names]
