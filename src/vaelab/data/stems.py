"""Names of images that are parts of one thing: ``photo12_crop3.png`` is of ``photo12``."""

from __future__ import annotations

import re
from collections.abc import Sequence

BY_NAME = "file-name"
"""In place of a column of groups: images are of one group where their names say so."""

_NUMBERED = re.compile(r"(?P<stem>.*[^\W\d_].*?)[-_ .(]+(?:[a-z]{1,8}[-_ ]?)?\d{1,6}\)?", re.I)


def stem_of(name: str) -> str:
    """Return folder and name of an image up to its last number; "" where it ends on none.

    ``a/photo12`` of ``a/photo12_crop3.png``, ``walk.gif`` of the frame ``walk.gif#7``. A name that
    is nothing but numbers, such as a date, has none.
    """
    file, frame, _ = name.rpartition("#")
    if frame:
        return file
    folder, slash, last = name.rpartition("/")
    found = _NUMBERED.fullmatch(last.rpartition(".")[0] or last)
    return f"{folder}{slash}{found['stem']}" if found else ""


def groups_of(names: Sequence[str]) -> list[str] | None:
    """Return the group of each image by its name, "" of one alone; None where there is none.

    Names that share one stem, or one in each folder, number the images and tell nothing.
    """
    stems = [stem_of(name) for name in names]
    folders = {name.rpartition("/")[0] for name in names}
    known = {*stems} - {""}
    return stems if len(known) > len(folders) else None
