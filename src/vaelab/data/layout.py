"""Parts and classes by the folders that images lie in: a word on whatever was assumed.

photos/cat/1.png                a class a folder
photos/train/cat/1.png          parts above classes; also Training, valid, dev, test_set, …
photos/cat/train/1.png          or below them
photos/seg_train/cat/1.png      a word for a part joined to others, where all folders have one
photos/trainA/1.png             what is joined to it is the class where it differs
photos/photos/train/cat/1.png   a folder that holds nothing but one folder is gone into
photos/1.png, photos/unlabelled/1.png   beside class folders: images of no known class
photos/labelled/cat/1.png       beside unlabelled images: the classes are below
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vaelab.data.labels import UNKNOWN, alike_by_case, without_images
from vaelab.data.part_words import (
    is_labelled,
    is_predicted,
    is_unlabelled,
    part_of_word,
    split_part,
)
from vaelab.data.source import PARTS
from vaelab.errors import DataError, counted

_NO_CLASS = ("unlabelled",)
"""In place of the folders of an image that has no class."""

Dirs = tuple[str, ...]


@dataclass
class Layout:
    """What folders say of N images.

    Arguments:
        parts: index into `PARTS`, ``(N,)``; None without parts.
        labels: class of each image, `UNKNOWN` for none; None without classes.
        class_names: of the classes.
        notes: plain sentences about what was assumed.
    """

    parts: NDArray[np.int8] | None = None
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def read_layout(
    where: str, names: Sequence[str], folders: Sequence[str], left: dict[str, str]
) -> Layout:
    """Read parts and classes.

    Arguments:
        where: the place, in messages.
        names: of the images, with their folders.
        folders: all folders that there are.
        left: what lies in a folder in place of images, by folder.

    Raises:
        DataError: some images are in a part, and others in none.
    """
    found = Layout()
    dirs = [tuple(_composed(name).split("/")[:-1]) for name in names]
    dirs, wrapper = _unwrapped(dirs)
    if wrapper:
        found.notes.append(f"{where}: the images lie in {'/'.join(wrapper)}, the only folder.")
    dirs = _labelled(where, dirs, found.notes)
    parts, dirs, above = _joined_parts(where, dirs, found.notes) or _parts(where, names, dirs)
    if parts is not None:
        found.parts = np.array(parts, np.int8)
        if above:
            found.notes.append(f"{where}: the parts are the folders below those of the classes.")
        dirs = _unwrapped_parts(parts, dirs, found.notes)
        dirs = _labelled(where, dirs, found.notes)
        if 0 not in parts and len({*parts}) == 1:  # of two, `split_rows` says so
            found.notes.append(
                f"{where}: there are {PARTS[parts[0]]} images but no training images; all are "
                "taken as one set, and split."
            )
    _classes(where, names, dirs, parts, found)
    if found.class_names:
        known = {*found.class_names}
        full = {_composed(name)[:end] for name in names for end in _ends_of_folders(name)}
        folders = [folder for folder in map(_composed, folders) if folder not in full]
        left = {_composed(folder): what for folder, what in left.items()}
        empty = _class_folders(folders, len(wrapper), above, parts is not None) - known
        found.notes += without_images(sorted(name for name in empty if name not in left), where)
        found.notes += [
            f"{where}: Class {name} has no image that is read ({left[name]}) and was left out."
            for name in sorted(empty)
            if name in left
        ]
    return found


def _unwrapped(dirs: list[Dirs]) -> tuple[list[Dirs], Dirs]:
    """Take away the folders that hold nothing but one folder; also which these are."""
    wrapper: list[str] = []
    while all(len(each) > 1 for each in dirs) and len({each[0] for each in dirs}) == 1:
        if part_of_word(dirs[0][0]) is not None:
            break
        wrapper.append(dirs[0][0])
        dirs = [each[1:] for each in dirs]
    return dirs, tuple(wrapper)


def _parts(
    where: str, names: Sequence[str], dirs: list[Dirs]
) -> tuple[list[int] | None, list[Dirs], bool]:
    """Part of each image, its folders without that of the part, and whether classes are above."""
    tops = [part_of_word(each[0]) if each else None for each in dirs]
    if any(top is not None for top in tops):
        loose = [
            row
            for row, (top, each) in enumerate(zip(tops, dirs, strict=True))
            if top is None and not (each and _no_class(each[0]))
        ]
        if loose:
            part = dirs[next(row for row, top in enumerate(tops) if top is not None)][0]
            raise DataError(
                f"{where}: {names[loose[0]]} is beside {part}, so its part is unknown. Move it "
                f"into train, validation or test; or rename {part} if it is a class."
            )
        below = [
            each[1:] if top is not None else _NO_CLASS for each, top in zip(dirs, tops, strict=True)
        ]
        return [top or 0 for top in tops], below, False
    inner = [part_of_word(each[1]) if len(each) > 1 else None for each in dirs]
    if dirs and all(part is not None for part in inner):
        below = [(each[0], *each[2:]) for each in dirs]
        return [part or 0 for part in inner], below, True
    return None, dirs, False


def _labelled(where: str, dirs: list[Dirs], notes: list[str]) -> list[Dirs]:
    """Mark what has no class; go into the folder of the rest, where that is all it says."""
    dirs = [_NO_CLASS if each and is_unlabelled(each[0]) else each for each in dirs]
    tops = {each[:1] for each in dirs if each and each != _NO_CLASS}
    if len(tops) != 1 or not is_labelled((only := next(iter(tops)))[0]):
        return dirs
    notes.append(f"{where}: the classes are the folders in {only[0]}.")
    return [each[1:] if each[:1] == only else each for each in dirs]


def _joined_parts(
    where: str, dirs: list[Dirs], notes: list[str]
) -> tuple[list[int], list[Dirs], bool] | None:
    """Parts by folders that all join a word for a part to others; None where not all do so.

    The others are left out where they are the same in all, or each part has one folder; else they
    are the classes, unless these are below.
    """
    for level in (0, 1):
        if any(len(each) <= level and each != _NO_CLASS for each in dirs):
            return None
        tops = {each[level] for each in dirs if len(each) > level and not _no_class(each[level])}
        found = {top: split for top in sorted(tops) if (split := split_part(top)) is not None}
        if len(found) == len(tops) and _are_parts(found):
            return _taken(where, dirs, level, found, notes)
    return None


def _are_parts(found: dict[str, tuple[int, str]]) -> bool:
    """Whether folders of these parts and rests are parts, one of which is joined to a rest."""
    rests = {rest for _, rest in found.values()}
    parts = {part for part, _ in found.values()}
    mixed = "" in rests and len(parts) < len(found)  # test and test_labels
    return len(parts) > 1 and rests != {""} and not mixed


def _taken(
    where: str, dirs: list[Dirs], level: int, found: dict[str, tuple[int, str]], notes: list[str]
) -> tuple[list[int], list[Dirs], bool]:
    """Part of each image and its folders, of which that at ``level`` names the part."""
    rests = {rest for _, rest in found.values()}
    single = len({part for part, _ in found.values()}) == len(found)
    classes = level == 0 and len(rests) > 1 and not single and not _below(dirs, found)
    notes.append(_said_parts(where, dirs, level, found, classes))
    parts, below = [], []
    for each in dirs:
        top = each[level] if len(each) > level else ""
        part, rest = found.get(top, (0, ""))
        parts.append(part)
        kept = (rest,) if classes else each[:level]
        below.append((*kept, *each[level + 1 :]) if top in found else _NO_CLASS)
    return parts, below, level > 0


def _said_parts(
    where: str, dirs: list[Dirs], level: int, found: dict[str, tuple[int, str]], classes: bool
) -> str:
    """The note on folders that were read as parts though their names say more."""
    of = [[top for top, (part, _) in found.items() if part == number] for number in range(3)]
    said = [
        f"{', '.join(tops[:3])}{' …' if len(tops) > 3 else ''} as {name}"
        for name, tops in zip(PARTS, of, strict=True)
        if tops
    ]
    others = {each[level] for each in dirs if len(each) > level} - {*found} - {*_NO_CLASS}
    said += [f"{', '.join(sorted(others))} as images without labels"] if others else []
    rest = " What is joined to these words is the class." if classes else ""
    return f"{where}: folders are parts by their names: {'; '.join(said)}.{rest}"


def _below(dirs: list[Dirs], found: dict[str, tuple[int, str]]) -> bool:
    """Whether folders of several rests hold the same folders, which are the classes then."""
    of: dict[str, set[str]] = {}
    for each in dirs:
        if each[0] in found:
            of.setdefault(found[each[0]][1], set()).update(each[1:2])
    inner = set().union(*of.values())
    return len(inner) > 1 and len(inner) < sum(map(len, of.values()))


def _no_class(word: str) -> bool:
    """Whether images beside parts have no labels."""
    return is_unlabelled(word) or is_predicted(word)


def _unwrapped_parts(parts: list[int], dirs: list[Dirs], notes: list[str]) -> list[Dirs]:
    """Take away a folder within a part that repeats its name, or holds all of every part."""
    for part in {*parts}:
        pairs = [*zip(dirs, parts, strict=True)]
        first = {each[:1] for each, other in pairs if other == part and each != _NO_CLASS}
        word = next(iter(first)) if len(first) == 1 else ()
        if word and (split := split_part(word[0])) and split[0] == part:
            dirs = [e[1:] if e[:1] == word and other == part else e for e, other in pairs]
    while (tops := {each[:1] for each in dirs if each != _NO_CLASS}) and len(tops) == 1:
        if not all(len(each) > 1 for each in dirs if each != _NO_CLASS):
            break
        (top,) = tops
        notes.append(f"Within the parts the images lie in {top[0]}, the only folder.")
        dirs = [each if each == _NO_CLASS else each[1:] for each in dirs]
    return dirs


def _classes(
    where: str, names: Sequence[str], dirs: list[Dirs], parts: list[int] | None, found: Layout
) -> None:
    """Take the first folder of each image as its class."""
    words = [each[0] if each and each != _NO_CLASS else None for each in dirs]
    if parts is not None and 0 in parts:
        words = _without_odd_parts(words, parts, found.notes)
    known = {word for word in words if word is not None}
    if not known:
        return
    if all(name.isdecimal() for name in known):
        found.class_names = tuple(sorted(known, key=_by_number))
    else:
        found.class_names = tuple(sorted(known))
    found.notes += [*alike_by_case(where, found.class_names), *_like_parts(where, dirs)]
    if len(known) == 1:
        only = found.class_names[0]
        found.notes.append(
            f"{where}: {only} is the only folder, and the only class but for tables."
        )
    number = {name: index for index, name in enumerate(found.class_names)}
    found.labels = np.array([UNKNOWN if word is None else number[word] for word in words], np.int64)
    deeper = next((row for row, each in enumerate(dirs) if len(each) > 1 and words[row]), None)
    if deeper is not None:
        path = "/".join(dirs[deeper])
        found.notes.append(
            f"{where}: folders below a class belong to it ({path} to {dirs[deeper][0]})."
        )
    unknown = [row for row, word in enumerate(words) if word is None]
    if unknown:
        found.notes.append(
            f"{where}: {counted(len(unknown), 'image')} in no class folder (first: "
            f"{names[unknown[0]]}) {'has' if len(unknown) == 1 else 'have'} no label."
        )


def _by_number(name: str) -> tuple[int, str, str]:
    """Sorts digits as numbers, of which Python refuses to read long ones."""
    digits = name.lstrip("0")
    return len(digits), digits, name


def _like_parts(where: str, dirs: list[Dirs]) -> list[str]:
    """The note on folders that look like parts, and were taken as classes or parts of them."""
    found = {
        word: split[0] for each in dirs for word in each if (split := split_part(word)) is not None
    }
    folds = {each[0] for each in dirs if each and each != _NO_CLASS}
    if len(folds) > 1 and all(re.fullmatch(r"(?i)(cv)?fold[\W_]*\d+", name) for name in folds):
        return [f"{where}: classes {' and '.join(sorted(folds)[:2])} look like folds, not classes."]
    if len({*found.values()}) < 2:
        return []
    first = [min(w for w, part in found.items() if part == p) for p in sorted({*found.values()})]
    return [
        f"{where}: folders {' and '.join(first)} look like parts, but not all beside them do, so "
        "they were not taken as parts: their images are mixed. Name them train and test at the top."
    ]


def _without_odd_parts(
    words: list[str | None], parts: list[int], notes: list[str]
) -> list[str | None]:
    """Leave out the one folder of a part that holds no class of the training images."""
    of = {
        part: {word for word, other in zip(words, parts, strict=True) if other == part and word}
        for part in {*parts}
    }
    for part in {*parts} - {0}:
        if len(of[part]) == 1 and not of[part] & of[0]:
            (only,) = of[part]
            notes.append(f"Folder {only} of the {PARTS[part]} images was not taken as a class.")
            words = [
                None if other == part else word for word, other in zip(words, parts, strict=True)
            ]
    return words


def _class_folders(folders: Sequence[str], wrapped: int, above: bool, in_parts: bool) -> set[str]:
    """Names of all folders without images that are where classes are."""
    found = set()
    for folder in folders:
        inner = folder.split("/")[wrapped:]
        if in_parts and not above:
            if not inner or split_part(inner[0]) is None:
                continue
            inner = inner[1:]
            if inner and split_part(inner[0]) is not None:  # training_set/training_set/cat
                inner = inner[1:]
        if inner and is_labelled(inner[0]):
            inner = inner[1:]
        if inner and not is_unlabelled(inner[0]) and split_part(inner[0]) is None:
            found.add(inner[0])
    return found


def _ends_of_folders(name: str) -> list[int]:
    """Where the folders of a path end."""
    return [end for end, mark in enumerate(_composed(name)) if mark == "/"]


def _composed(path: str) -> str:
    """A path with its letters composed, as other systems may have taken them apart."""
    return unicodedata.normalize("NFC", path)
