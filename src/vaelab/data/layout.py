"""Parts and classes by the folders that images lie in: a word on whatever was assumed.

photos/cat/1.png                a class a folder
photos/train/cat/1.png          parts above classes; also Training, valid, dev, test_set, …
photos/cat/train/1.png          or below them
photos/photos/train/cat/1.png   a folder that holds nothing but one folder is gone into
photos/1.png, photos/unlabelled/1.png   beside class folders: images of no known class
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vaelab.data.labels import UNKNOWN, without_images
from vaelab.data.source import PARTS
from vaelab.errors import DataError, counted

_STEMS = {
    **dict.fromkeys(("train", "training", "trn"), 0),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "publictest"), 1),
    **dict.fromkeys(("test", "testing", "tst", "privatetest"), 2),
}
_UNLABELLED = ("unlabelled", "unlabeled", "nolabel", "nolabels")

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


def part_of_word(word: str) -> int | None:
    """The part that a word names, such as ``Training``, ``test_set`` or ``val``; None for none."""
    plain = re.sub(r"[^a-z]", "", word.lower())
    return _STEMS.get(plain, _STEMS.get(re.sub("(set|data|images|split)$", "", plain)))


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
    parts, dirs, above = _parts(where, names, dirs)
    if parts is not None:
        found.parts = np.array(parts, np.int8)
        if above:
            found.notes.append(f"{where}: the parts are the folders below those of the classes.")
        dirs = _unwrapped_parts(parts, dirs, found.notes)
        if 0 not in parts and len({*parts}) == 1:  # of two, `split_rows` says so
            found.notes.append(
                f"{where}: there are {PARTS[parts[0]]} images but no training images; all are "
                "taken as one set, and split."
            )
    _classes(where, names, dirs, parts, found)
    if found.class_names:
        known = {*found.class_names}
        folders = [_composed(folder) for folder in folders]
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
            for row, top in enumerate(tops)
            if top is None and not (dirs[row] and _is_unlabelled(dirs[row][0]))
        ]
        if loose:
            part = dirs[next(row for row, top in enumerate(tops) if top is not None)][0]
            raise DataError(
                f"{where}: {names[loose[0]]} is beside {part}, so its part is unknown. Move it "
                f"into train, validation or test; or rename {part} if it is a class."
            )
        below = [
            each[1:] if top is not None else each for each, top in zip(dirs, tops, strict=True)
        ]
        return [top or 0 for top in tops], below, False
    inner = [part_of_word(each[1]) if len(each) > 1 else None for each in dirs]
    if dirs and all(part is not None for part in inner):
        below = [(each[0], *each[2:]) for each in dirs]
        return [part or 0 for part in inner], below, True
    return None, dirs, False


def _unwrapped_parts(parts: list[int], dirs: list[Dirs], notes: list[str]) -> list[Dirs]:
    """Take away a folder within a part that repeats its name, or holds all of every part."""
    for part in {*parts}:
        mine = [each for each, other in zip(dirs, parts, strict=True) if other == part]
        first = {each[:1] for each in mine}
        if len(first) == 1 and (word := next(iter(first))) and part_of_word(word[0]) == part:
            dirs = [e[1:] if other == part else e for e, other in zip(dirs, parts, strict=True)]
    while all(len(each) > 1 for each in dirs) and len({each[0] for each in dirs}) == 1:
        notes.append(f"Within the parts the images lie in {dirs[0][0]}, the only folder.")
        dirs = [each[1:] for each in dirs]
    return dirs


def _classes(
    where: str, names: Sequence[str], dirs: list[Dirs], parts: list[int] | None, found: Layout
) -> None:
    """Take the first folder of each image as its class."""
    words = [each[0] if each and not _is_unlabelled(each[0]) else None for each in dirs]
    if parts is not None and 0 in parts:
        words = _without_odd_parts(words, parts, found.notes)
    known = {word for word in words if word is not None}
    if not known:
        return
    if all(name.isdecimal() for name in known):
        found.class_names = tuple(sorted(known, key=_by_number))
    else:
        found.class_names = tuple(sorted(known))
    found.notes += _alike(where, found.class_names)
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


def _alike(where: str, classes: Sequence[str]) -> list[str]:
    """The note on classes whose names differ by case alone."""
    of: dict[str, list[str]] = {}
    for name in classes:
        of.setdefault(name.casefold(), []).append(name)
    return [
        f"{where}: classes {' and '.join(same)} differ by case alone and are kept apart."
        for same in of.values()
        if len(same) > 1
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
    """Names of all folders where classes are, those without images too."""
    found = set()
    for folder in folders:
        inner = folder.split("/")[wrapped:]
        if in_parts and not above:
            if not inner or part_of_word(inner[0]) is None:
                continue
            inner = inner[1:]
            if inner and part_of_word(inner[0]) is not None:  # training_set/training_set/cat
                inner = inner[1:]
        if inner and not _is_unlabelled(inner[0]) and part_of_word(inner[0]) is None:
            found.add(inner[0])
    return found


def _composed(path: str) -> str:
    """A path with its letters composed, as other systems may have taken them apart."""
    return unicodedata.normalize("NFC", path)


def _is_unlabelled(word: str) -> bool:
    return re.sub(r"[^a-z]", "", word.lower()) in _UNLABELLED
