"""Which of several arrays are the images, which their labels, by the names that people give them.

``images``, ``labels`` and ``test_images``; Keras' ``x_train``, ``y_train``; MedMNIST's
``val_images``; MATLAB's ``X`` and ``y``; scikit-learn's ``data``, ``target``, ``target_names``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vaelab.data.arrays import ArraySource, Piece
from vaelab.data.companions import part_of
from vaelab.data.pixels import Geometry
from vaelab.data.readers import Array
from vaelab.errors import DataError

MORE = ("extra", "unlabeled", "unlabelled", "unsupervised")
"""Words for more training images."""
MORE_IMAGES = 3
"""Their place among the parts of arrays, behind train, validation and test."""

IMAGES, LABELS, ATTRIBUTES = "images", "labels", "attributes"
_KINDS = {
    **dict.fromkeys(("images", "image", "imgs", "img", "x", "pixels", "inputs"), IMAGES),
    **dict.fromkeys(("labels", "label", "y", "targets", "target"), LABELS),
    **dict.fromkeys(("attributes", "attrs"), ATTRIBUTES),
}
_NAMES = {
    **dict.fromkeys(("class names", "target names", "label names", "list classes"), LABELS),
    **dict.fromkeys(("attribute names", "attr names"), ATTRIBUTES),
}
_FILLERS = {"set", "data", "all", "fine", "orig"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True)
class Named:
    """Arrays by what they are.

    Arguments:
        found: name of an array by part and kind.
        names: name of the array that names classes (`LABELS`) or attributes.
        others: names that say nothing.
    """

    found: dict[tuple[int, str], str]
    names: dict[str, str]
    others: tuple[str, ...]


def part_index(part: int) -> int:
    """The part of a data set that images of a part of arrays belong to."""
    return 0 if part == MORE_IMAGES else part


def sort_names(names: list[str]) -> Named:
    """Tell by their names what arrays are; of two for one thing, the plainer name is taken."""
    found: dict[tuple[int, str], str] = {}
    named: dict[str, str] = {}
    others = []
    plainest = sorted(names, key=lambda name: ("data" in _words(name), len(_words(name)), name))
    for name in plainest:
        words = _words(name)
        kind, part = _kind(words), _part(words)
        if " ".join(words) in _NAMES:
            named.setdefault(_NAMES[" ".join(words)], name)
        elif kind is None or part is None or (part, kind) in found:
            others.append(name)
        else:
            found[part, kind] = name
    return Named(found, named, tuple(sorted(others)))


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def _part(words: list[str]) -> int | None:
    if {*words} & {*MORE}:
        return MORE_IMAGES
    parts = {part for word in words if (part := part_of(word)) is not None}
    return None if len(parts) > 1 else next(iter(parts), 0)


def _kind(words: list[str]) -> str | None:
    rest = [word for word in words if part_of(word) is None and word not in MORE]
    kinds = [_KINDS[word] for word in rest if word in _KINDS]
    if len(kinds) == 1 and all(word in _KINDS or word in _FILLERS for word in rest):
        return kinds[0]
    return IMAGES if rest in (["data"], ["set"]) else None


def named_source(
    where: str,
    arrays: Mapping[str, Array],
    geometry: Geometry,
    remedy: str,
    path: Path | None = None,
    counted: bool = False,
) -> ArraySource:
    """Images of arrays with names, and what goes with them.

    Arguments:
        where: what holds the arrays, as messages call it.
        arrays: by name.
        geometry: the shape asked for.
        remedy: what to do where none is found to be the images.
        path: the file that they are in, if they are.
        counted: whether the first axis of images is known to count them.

    Raises:
        DataError: none is, or arrays do not fit one another.
    """
    told = sort_names(list(arrays))
    found, notes = dict(told.found), []
    others = [name for name in told.others if name in arrays]
    if not any(kind == IMAGES for _, kind in found):
        guess = _guess(arrays)
        if guess is None:
            raise DataError(
                f"{where}: holds {_listed(arrays) or 'no arrays'}, and none is named as images "
                f"are. {remedy}"
            )
        found = {(0, kind): name for kind, name in guess.items()}
        others = [name for name in arrays if name not in guess.values()]
        notes += [f"{where}: `{name}` was read as the {kind}." for kind, name in guess.items()]
    lonely = [name for (part, kind), name in found.items() if (part, IMAGES) not in found]
    texts = {name for name, array in arrays.items() if array.dtype.kind == "U"}
    class_names, attribute_names = (
        arrays[told.names[kind]] if told.names.get(kind) in texts else None
        for kind in (LABELS, ATTRIBUTES)
    )
    others += lonely
    if others:
        were = "was" if len(others) == 1 else "were"
        notes.append(f"{where}: {_listed(others)} {were} left alone.")
    pieces = [
        Piece(
            arrays[name],
            part_index(part),
            *(_of(arrays, found, part, kind) for kind in (LABELS, ATTRIBUTES)),
        )
        for (part, kind), name in sorted(found.items())
        if kind == IMAGES
    ]
    files = [] if path is None else [path]
    given = (geometry, path, files, class_names, attribute_names, notes)
    return ArraySource(where, pieces, *given, counted=counted)


def _of(
    arrays: Mapping[str, Array], found: Mapping[tuple[int, str], str], part: int, kind: str
) -> Array | None:
    name = found.get((part, kind))
    return None if name is None else arrays[name]


def _guess(arrays: Mapping[str, Array]) -> dict[str, str] | None:
    """The one array that can be images, and the one that can be their labels."""
    like = [name for name, array in arrays.items() if len(array.shape) in (3, 4)]
    if len(like) != 1 or arrays[like[0]].dtype.kind not in "buif":
        return None
    count = arrays[like[0]].shape[0]
    flat = [
        name
        for name, array in arrays.items()
        if array.shape in ((count,), (count, 1)) and array.dtype.kind in "iuUS"
    ]
    return {IMAGES: like[0], **({LABELS: flat[0]} if len(flat) == 1 else {})}


def _listed(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return ", ".join(listed[:8]) + more
