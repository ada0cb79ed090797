"""Images of tables with named columns, such as a DataFrame of pandas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from vaelab.data.accompanied import Given, given_source, kind_of, listed
from vaelab.data.companions import part_key
from vaelab.data.fields import IMAGE_KEYS, LABEL_KEYS, column
from vaelab.data.formats import SUFFIXES
from vaelab.data.part_words import plain
from vaelab.data.pixel_columns import is_number
from vaelab.data.pixel_table import frame_source
from vaelab.data.pixels import Geometry
from vaelab.data.roles import FILE_WORDS, is_label_word
from vaelab.data.source import Source


def table_source(frame: Any, geometry: Geometry, live: bool) -> Source:
    """Return the rows of a DataFrame as images.

    A column of images or paths goes with one of labels and one of parts; else each column is a
    pixel. Other columns are named in a note.
    """
    keys = {str(name): name for name in frame.columns}
    image = _image_column(frame, keys) if len(keys) <= 100 else None
    if image is None:
        return frame_source(frame, geometry)
    label = column(keys, LABEL_KEYS) or next((key for key in keys if is_label_word(key)), None)
    split = part_key(keys)
    given = Given(
        frame[keys[image]],
        labels=None if label is None else frame[keys[label]],
        parts=None if split is None else (split, list(frame[keys[split]])),
        where=image,
    )
    others = [key for key in keys if key not in (image, label, split)]
    name = type(frame).__name__
    notes = [f"{name}: {', '.join(others[:8])} left alone, beside the images."] if others else []
    return given_source([given], geometry, name, notes=notes, live=live)


def _image_column(frame: Any, keys: Mapping[str, Any]) -> str | None:
    """The column that holds images, or paths of them; None where there is none."""
    if not len(frame):
        return None
    found = column(keys, IMAGE_KEYS)
    named = [key for key in keys if plain(key) in FILE_WORDS]
    kinds = {key: kind_of(frame[keys[key]]) for key in {found, *named} - {None}}
    if found is not None and kinds[found] == "pictures":
        return str(found)
    paths = [key for key in [found, *named] if key is not None and kinds[key] == "paths"]
    first = {key: str((listed(frame[keys[key]]) or [""])[0]) for key in paths}
    paths = [key for key in paths if not all(map(is_number, first[key].split()))]
    ended = [key for key in paths if PurePath(first[key]).suffix.lower() in SUFFIXES]
    return next(iter([*ended, *paths]), None)
