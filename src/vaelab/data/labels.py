"""Class labels as people have them: numbers or names, from 0 or not, some of them unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaelab.data.pixels import as_array
from vaelab.errors import DataError, counted

UNKNOWN = -1
"""The label of an image whose class is not known."""

MAX_CLASSES = 100_000

# what Python, NumPy and pandas write for nothing, as they write it: "none" may be a class
_EMPTY = ("", "nan", "NaN", "None", "<NA>")


@dataclass(frozen=True)
class ClassLabels:
    """Classes of N images.

    Arguments:
        numbers: int64 ``(N,)``, an index into ``names``, `UNKNOWN` where it is not known.
        names: of the classes that occur, in order: numbers by size, text by alphabet.
        notes: plain sentences about what was assumed.
    """

    numbers: NDArray[np.int64]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_labels(
    values: Any, count: int, where: str, names: Sequence[str] | None = None
) -> ClassLabels | None:
    """Read one label for each of ``count`` images; None where all are unknown.

    Classes without an image are left out, so that none is trained, drawn or measured; the others
    keep the name or the number that they have in the data.

    Arguments:
        values: ``(N,)`` or ``(N, 1)`` of whole numbers or text, or one-hot rows ``(N, K)``.
            −1, NaN, None and empty text are unknown.
        count: N.
        where: what messages call them.
        names: of classes 0 … K − 1, where the data has names for its numbers.

    Raises:
        DataError: they are no labels; says which, and what to do.
    """
    notes: list[str] = []
    array = _column(values, count, where, notes)
    numbers, found = _numbered(array, where) if _numeric(array) else _named(array)
    if len(found) > MAX_CLASSES:
        raise DataError(f"{where}: {len(found):,} classes are more than {MAX_CLASSES:,}.")
    if not len(found):
        return None
    if names is not None:
        found, more = _given_names(found, names, where)
        notes += more
    notes += alike_by_case(where, [str(name) for name in found])
    if unknown := int((numbers == UNKNOWN).sum()):
        notes.append(f"{where}: {unknown:,} of {counted(count, 'image')} have no label.")
    return ClassLabels(numbers, tuple(str(name) for name in found), tuple(notes))


def join_labels(
    parts: Sequence[tuple[Any, int, str]], where: str, names: Sequence[str] | None = None
) -> ClassLabels | None:
    """Read the labels of several parts as those of one data set, numbered alike.

    A part without labels, beside others that have some, is of unknown classes.

    Arguments:
        parts: labels (None where a part has none), number of images, and what messages call it.
        where: what messages call them all.
        names: of classes 0 … K − 1.

    Raises:
        DataError: as `read_labels`.
    """
    if all(values is None for values, _, _ in parts):
        return None
    notes: list[str] = []
    columns = [
        np.full(count, UNKNOWN) if values is None else _column(values, count, part, notes)
        for values, count, part in parts
    ]
    if all(_numeric(column) for column in columns):
        joined = np.concatenate(columns)
    else:
        joined = np.array([value for column in columns for value in column.tolist()], object)
    found = read_labels(joined, len(joined), where, names)
    return found if found is None else replace(found, notes=(*notes, *found.notes))


def _column(values: Any, count: int, where: str, notes: list[str]) -> NDArray[Any]:
    """One value for each of ``count`` images, whatever the shape they came in."""
    array = _plain(as_array(values))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and array.shape[0] == 1 != count and array.shape[1] == count:
        array = array[0]  # a row, as MATLAB may save it
    elif array.ndim == 2 and is_one_hot(array):
        array = array.argmax(1)
        notes.append(f"{where}: one-hot rows were read as classes.")
    if array.ndim != 1:
        raise DataError(
            f"{where}: labels have shape {array.shape}, not ({count},). Pass one class an image, "
            "or several marks an image as attributes."
        )
    if len(array) != count:
        raise DataError(f"{where}: {len(array)} labels for {count} images. Pass one an image.")
    return array


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Objects that are whole numbers or nothing as numbers, so that they stay numbers."""
    if array.dtype != object:
        return array
    values = [UNKNOWN if _nothing(value) else value for value in array.ravel().tolist()]
    if not all(isinstance(value, (int, float, np.number, np.bool_)) for value in values):
        return array
    return np.array(values).reshape(array.shape)


def _nothing(value: Any) -> bool:
    return value is None or str(value).strip() in _EMPTY


def is_one_hot(array: NDArray[Any]) -> bool:
    """Whether each row of ``(N, K)`` numbers is 1 at one place and 0 at all others."""
    if array.dtype.kind not in "buif" or array.shape[1] < 2 or not len(array):
        return False
    return bool(((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all())


def _numeric(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "buif"


def _numbered(array: NDArray[Any], where: str) -> tuple[NDArray[np.int64], list[Any]]:
    """Numbers of classes that are whole numbers, and these in order."""
    known = ~np.isnan(array) if array.dtype.kind == "f" else np.ones(len(array), bool)
    kept = array[known]
    if array.dtype.kind == "f" and (np.isinf(kept).any() or (kept != np.rint(kept)).any()):
        odd = kept[np.isinf(kept) | (kept != np.rint(kept))][0]
        raise DataError(
            f"{where}: label {odd:g} is no whole number. Number the classes, or pass the values as "
            "attributes."
        )
    whole = np.full(len(array), UNKNOWN, np.int64)
    if kept.size and int(kept.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{where}: label {kept.max()} is too large. Number the classes from 0.")
    if kept.size and kept.min() < UNKNOWN:
        raise DataError(
            f"{where}: label {kept.min():.15g} is negative. Number the classes from 0; −1 is "
            "unknown."
        )
    whole[known] = kept.astype(np.int64)
    found, numbers = np.unique(whole, return_inverse=True)
    unknown = len(found) > 0 and found[0] == UNKNOWN
    return numbers.astype(np.int64) - int(unknown), found[int(unknown) :].tolist()


def _named(array: NDArray[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Numbers of classes that are names, and these in order."""
    text = [_text(value) for value in array.tolist()]
    if all(name is None or name.isdecimal() for name in text):
        found = sorted({name for name in text if name}, key=_by_size)
    else:
        found = sorted({name for name in text if name})
    number: dict[str | None, int] = {name: k for k, name in enumerate(found)}
    return np.array([number.get(name, UNKNOWN) for name in text], np.int64), found


def _by_size(digits: str) -> tuple[int, str, str]:
    """The order of whole numbers as text, of any length: int() takes 4,300 digits at most."""
    short = digits.lstrip("0")
    return len(short), short, digits


def _text(value: Any) -> str | None:
    """The name of a class, or None where it is unknown; −1 is, in words and in numbers."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = str(value).strip()
    return None if name in _EMPTY or name in ("-1", "−1") else name


def _given_names(
    found: Sequence[Any], names: Sequence[str], where: str
) -> tuple[list[str], list[str]]:
    """Names of the classes that occur, and a note on those that do not."""
    if all(isinstance(value, str) for value in found):
        return [str(value) for value in found], []
    if len({*names}) < len(names):
        raise DataError(f"{where}: two classes have one name. Give each its own.")
    notes = []
    if found[0] >= 1 and found[-1] == len(names):  # as MATLAB counts
        found = [value - 1 for value in found]
        notes.append(f"{where}: labels count from 1, so class 1 was named {names[0]}.")
    if found[-1] >= len(names):
        raise DataError(
            f"{where}: label {found[-1]} has no name among {counted(len(names), 'class name')}. "
            "Name every class, from 0 on."
        )
    empty = [str(name) for number, name in enumerate(names) if number not in {*found}]
    return [str(names[number]) for number in found], [*notes, *without_images(empty, where)]


def without_rows(
    numbers: NDArray[np.int64], names: Sequence[str], kept: NDArray[np.bool_], where: str
) -> ClassLabels | None:
    """Classes of all images once some were left out: those of none that is kept are none."""
    there = np.unique(numbers[kept])
    there = there[there != UNKNOWN]
    if not len(there):
        return None
    order = np.full(len(names) + 1, UNKNOWN)  # the last is the place of unknown
    order[there] = np.arange(len(there))
    gone = [name for number, name in enumerate(names) if number not in {*there.tolist()}]
    numbers, names = order[numbers], tuple(names[number] for number in there)
    return ClassLabels(numbers, names, tuple(without_images(gone, where)))


def without_images(names: Sequence[str], where: str) -> list[str]:
    """The note on classes that have no image, if there are any."""
    if not names:
        return []
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    has = "Class {} has" if len(names) == 1 else "Classes {} have"
    were = "was" if len(names) == 1 else "were"
    return [f"{where}: {has.format(listed)} no image and {were} left out."]


def alike_by_case(where: str, classes: Sequence[str]) -> list[str]:
    """The note on classes whose names differ by case alone."""
    of: dict[str, list[str]] = {}
    for name in classes:
        of.setdefault(name.casefold(), []).append(name)
    return [
        f"{where}: classes {' and '.join(same)} differ by case alone and are kept apart."
        for same in of.values()
        if len(same) > 1
    ]
