"""What goes with images: labels, attributes and parts, brought to a source by one piece of code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaelab.data.fields import PART_KEYS, column
from vaelab.data.labels import UNKNOWN, is_one_hot, join_labels
from vaelab.data.part_columns import named_parts
from vaelab.data.part_words import part_of_word
from vaelab.data.source import Source, check_attributes, check_names
from vaelab.errors import DataError, counted

_SHORT = {"tr": 0, "te": 2}  # words of arrays; a folder of that name may be a class
_NOTHING = ("", "nan", "none", "<na>")


@dataclass(frozen=True)
class Beside:
    """What goes with some of the images of a source.

    Arguments:
        count: of these images.
        where: how messages call them.
        labels: a class an image, or several marks an image, which are attributes.
        attributes: numbers ``(count, A)``.
    """

    count: int
    where: str
    labels: NDArray[Any] | None = None
    attributes: NDArray[Any] | None = None


def attach(
    source: Source,
    besides: Sequence[Beside],
    class_names: Sequence[str] | None = None,
    attribute_names: Sequence[str] | None = None,
    columns: Sequence[str] = (),
    rows: NDArray[np.int64] | None = None,
) -> None:
    """Give a source its labels and attributes.

    Arguments:
        source: whose images these go with.
        besides: what goes with its images, one after another.
        class_names: of classes 0 … K − 1.
        attribute_names: of the attributes.
        columns: of labels in several columns: names of marks, or of one-hot classes.
        rows: which of them each image of the source has; None where they are one to one.
    """
    wide = [each.labels for each in besides if each.labels is not None and _is_wide(each)]
    if wide and all(each.attributes is None for each in besides):
        if not all(map(is_one_hot, wide)):
            besides = [replace(each, labels=None, attributes=each.labels) for each in besides]
            attribute_names = attribute_names or columns or None
            source.notes.append(f"{wide[0].shape[1]} marks an image were read as attributes.")
        else:
            class_names = class_names or columns or None
    parts = [(each.labels, each.count, each.where) for each in besides]
    found = join_labels(parts, source.name, class_names)
    if found is not None and rows is not None:
        found = replace(found, numbers=found.numbers[rows])
    source.keep_labels(found)
    values = _attributes(source, besides)
    if values is None:
        return
    titles = tuple(f"attribute {column}" for column in range(values.shape[1]))
    if attribute_names is not None:
        titles = check_names(list(attribute_names), len(titles), f"{source.name}: attribute names")
    source.keep_attributes(titles, values if rows is None else values[rows], source.name)


def _is_wide(beside: Beside) -> bool:
    """Whether there are several numbers an image where its label is looked for."""
    labels = beside.labels
    return (
        labels is not None
        and labels.ndim == 2
        and labels.shape[0] == beside.count
        and labels.shape[1] > 1
        and labels.dtype.kind in "buif"
    )


def _attributes(source: Source, besides: Sequence[Beside]) -> NDArray[np.float32] | None:
    """Attributes of all images, NaN where they have none; None where no image has any."""
    found = [
        None
        if each.attributes is None
        else check_attributes(each.attributes, each.count, each.where)
        for each in besides
    ]
    widths = {rows.shape[1] for rows in found if rows is not None}
    if not widths:
        return None
    if len(widths) > 1:
        raise DataError(
            f"{source.name}: its parts have {' and '.join(map(str, sorted(widths)))} attributes. "
            "Give all parts the same."
        )
    if count := sum(each.count for each, rows in zip(besides, found, strict=True) if rows is None):
        source.notes.append(f"{source.name}: {count:,} images have no attributes.")
    return np.concatenate(
        [
            np.full((each.count, *widths), np.nan, np.float32) if rows is None else rows
            for each, rows in zip(besides, found, strict=True)
        ]
    )


def part_of(word: str) -> int | None:
    """The part that a word names, or its short form, such as ``tr``; None for none."""
    return _SHORT.get(word.strip().lower(), part_of_word(word))


def part_key(names: Any) -> Any:
    """Return the one of some names that is usual for parts; None for none."""
    return column(names, PART_KEYS)


def read_parts(values: Sequence[Any], key: Any, where: str) -> NDArray[np.int8] | None:
    """Return the part that a column names for each image, `UNKNOWN` where it names none.

    None where none of its values is a part, so that it means something else: it is left alone. See
    `named_parts`.
    """
    words = [_word(value) for value in values]
    if not any(part_of(word) is not None or word[:1].isdigit() for word in {*words} - {""}):
        return None
    found = named_parts(str(key), words, lambda row: f"{where}: image {row}")
    return None if found is None else np.array(found.parts, np.int8)


def keep_parts(source: Source, parts: NDArray[np.int8], key: Any) -> None:
    """Give a source the parts that its column ``key`` names, and say so."""
    unknown = int((parts == UNKNOWN).sum())
    more = (
        f"; {counted(unknown, 'image')} without one {'is' if unknown == 1 else 'are'} among the "
        "training images"
    )
    source.notes.append(f"{source.name}: `{key}` names the parts{more if unknown else ''}.")
    source.parts = np.where(parts == UNKNOWN, 0, parts).astype(np.int8)


def _word(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    text = str(value).strip()
    return "" if value is None or text.lower() in _NOTHING else text
