"""Images of Parquet files whose cells are image files, as Hugging Face writes them.

A column of ``{bytes, path}`` or of bytes, one of labels, and the names of the classes in the
metadata; shards such as ``data/train-00000-of-00001.parquet`` belong to the part they name.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.data.companions import keep_parts, part_key, part_of, read_parts
from vaelab.data.encoded import decoded
from vaelab.data.fields import IMAGE_KEYS, LABEL_KEYS, column
from vaelab.data.labels import UNKNOWN, join_labels
from vaelab.data.pixels import Geometry, Pixels, Shape
from vaelab.data.readers import decoding
from vaelab.data.source import Source, fingerprint
from vaelab.errors import DataError

_SHARD = re.compile(r"[-_.]\d+[-_]of[-_]\d+$")
_ROWS = 64  # images of a file that are decoded at a time


def shards(folder: Path) -> list[Path]:
    """Parquet files of a folder, or of its sub-folder ``data``; links are not followed."""
    for below in (folder, folder / "data"):
        if below.is_dir() and not (below != folder and below.is_symlink()):
            found = sorted(
                Path(entry.path)
                for entry in os.scandir(below)
                if entry.name.endswith(".parquet") and entry.is_file(follow_symlinks=False)
            )
            if found:
                return found
    return []


class ParquetSource(Source):
    """The images of Parquet files, one after another."""

    def __init__(self, name: str, files: Sequence[Path], place: Path, geometry: Geometry) -> None:
        self._parquet = _pyarrow(name)
        self._files, self._column = files, ""
        self._found: Shape | None = None
        self._left: list[str] = []
        counts, labels, names = [], [], None
        words: list[Any] = []
        for path in files:
            with decoding(str(path)), self._parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
                key = column(schema.names, IMAGE_KEYS)
                if key is None or (self._column and key != self._column):
                    raise DataError(
                        f"{path}: has the columns {', '.join(schema.names[:10])}, and none is "
                        "named image. Rename the one that holds image files."
                    )
                self._column = key
                label = column(schema.names, LABEL_KEYS)
                names = names or _names(schema.metadata, label)
                split = part_key(schema.names)
                counts.append(file.metadata.num_rows)
                labels.append(None if label is None else self._labels(file, label, path))
                words.append(None if split is None else (split, _cells(file, split)))
                others = [n for n in schema.names if n not in (key, label, split)]
                if others and not self._left:
                    self._left.append(f"{path.name}: {', '.join(others[:8])} left alone.")
        super().__init__(name, sum(counts), geometry)
        self.place, self.digest = str(place.resolve()), fingerprint(files)
        self.notes += self._left[:1]
        parts = [_part(path.stem) for path in files]
        odd = [path.name for path, part in zip(files, parts, strict=True) if part is None]
        if odd and len(files) > 1 and len({*parts}) > 1:
            self.notes.append(f"{name}: {odd[0]} names no part and was read as training images.")
        self.parts = np.repeat(np.array([part or 0 for part in parts], np.int8), counts)
        self._keep_parts(words, counts)
        self._starts = np.cumsum([0, *counts]).tolist()
        given = zip(labels, counts, map(str, files), strict=True)
        self.keep_labels(join_labels(list(given), name, names))

    def _labels(self, file: Any, label: str, path: Path) -> Any:
        if file.schema_arrow.field(label).type.num_fields:  # several marks an image, or boxes
            self._left.append(f"{path.name}: column {label!r} is nested and was left alone.")
            return None
        return np.array(_cells(file, label), object)

    def _keep_parts(self, words: Sequence[Any], counts: Sequence[int]) -> None:
        """Take the parts of a column, where files are not named by their parts."""
        key, cells = next((each for each in words if each is not None), (None, None))
        if cells is None:
            return
        every = [
            cell
            for each, count in zip(words, counts, strict=True)
            for cell in ([None] * count if each is None else each[1])
        ]
        parts = read_parts(every, key, self.name)
        if parts is None:
            self.notes.append(f"{self.name}: column {key!r} names no parts and was left alone.")
        elif self.parts.any() and ((parts != self.parts) & (parts != UNKNOWN)).any():
            raise DataError(
                f"{self.name}: column {key!r} puts images into another part than the name of the "
                "file. Correct one of them."
            )
        elif not self.parts.any():
            keep_parts(self, parts, key)

    def title(self, index: int) -> str:
        """The file and the row in it."""
        place = bisect_right(self._starts, index) - 1
        return f"{self._files[place].name} row {index - self._starts[place]}"

    def measure(self) -> Shape:
        """Shape of the first readable image."""
        if self._found is None:
            for _ in self._images():
                if self._found is not None:
                    break
        if self._found is None:
            raise self.unreadable()
        return self._found

    def chunks(self, size: int) -> Iterator[Pixels]:
        """All images in order."""
        shape = self.measure()
        rows = max(1, size // prod(shape))
        batch: list[Pixels] = []
        for index, pixels in enumerate(self._images()):
            batch.append(np.zeros(shape, np.uint8) if pixels is None else pixels)
            if len(batch) == rows or index == self.count - 1:
                yield np.stack(batch)
                batch = []

    def _images(self) -> Iterator[Pixels | None]:
        index = 0
        for path in self._files:
            with decoding(str(path)), self._parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS, columns=[self._column]):
                    for cell in batch.column(0):
                        yield self._image(index, cell.as_py())
                        index += 1

    def _image(self, index: int, cell: Any) -> Pixels | None:
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            there = isinstance(cell, dict) and cell.get("path")
            self.bad[index] = "a path without an image" if there else "no bytes of an image"
            return None
        try:
            pixels = decoded(data, self.geometry, self.levels)
        except Exception as error:  # decoders of hostile bytes raise nearly anything
            self.bad[index] = str(error) or type(error).__name__
            return None
        if self._found is None:
            self._found = (len(pixels), pixels.shape[1], pixels.shape[2])
        elif pixels.shape[1:] != self._found[1:]:
            raise self.sizes_differ({self._found[1:]: index, (pixels.shape[1], pixels.shape[2]): 1})
        elif len(pixels) != self._found[0]:
            raise DataError(
                f"{self.name}: images have {self._found[0]} and {len(pixels)} channels. Pass "
                f"--channels {max(self._found[0], 3)}."
            )
        return pixels


def parquet_source(path: Path, files: Sequence[Path], geometry: Geometry) -> ParquetSource:
    """Images of these Parquet files, which are ``path`` or lie in it."""
    return ParquetSource(str(path), files, path, geometry)


def _pyarrow(name: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"{name}: is Parquet, which takes pyarrow. Install it (pip install 'vaelab[parquet]'), "
            'or pass the data set itself in Python: vaelab.train("vae", dataset).'
        ) from None
    return pyarrow.parquet


def _cells(file: Any, name: str) -> list[Any]:
    found: list[Any] = file.read(columns=[name]).column(0).to_pylist()
    return found


def _part(stem: str) -> int | None:
    return part_of(_SHARD.sub("", stem))


def _names(metadata: Any, label: str | None) -> list[str] | None:
    """Names of the classes, as Hugging Face's ``datasets`` notes them in the schema."""
    try:
        about = json.loads((metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
        return [str(name) for name in names] if isinstance(names, list) else None
    except (KeyError, ValueError, TypeError):
        return None
