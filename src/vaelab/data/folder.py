"""A folder of image files: sub-folders are classes, train/validation/test above them the split."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vaelab.data.inflight import DECODING
from vaelab.data.pixels import Geometry, Pixels, Shape, native_shape
from vaelab.data.source import Source, stamp
from vaelab.errors import DataError, counted
from vaelab.opening import open_regular

T = TypeVar("T")

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
ATTRIBUTES = "attributes.csv"

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
_PARTS = {"train": 0, "val": 1, "valid": 1, "validation": 1, "test": 2}
_THREADS = min(16, os.cpu_count() or 1)
_AHEAD = 4096  # files that wait for a thread
_DEEPEST = 64  # folders below one another


class FolderSource(Source):
    """The images of a folder, in the order of their names whatever the file system's."""

    def __init__(self, root: Path, geometry: Geometry) -> None:
        self._root = root
        self._files: list[str] = []
        self._shape: Shape | None = None
        digest = hashlib.sha256()
        others = []
        for name, status in _walk(root):
            if PurePosixPath(name).suffix.lower() in _SUFFIXES:
                line = f"{name}\0{stamp(status)}\n"
                digest.update(line.encode(errors="surrogateescape"))
                self._files.append(name)
            elif name != ATTRIBUTES:
                others.append(name)
        super().__init__(_shown(root), len(self._files), geometry)
        self.place, self.digest = str(root.resolve()), digest.hexdigest()
        if others:
            first = _shown(others[0])
            are = "is no image and was" if len(others) == 1 else "are no images and were"
            self.notes.append(f"{counted(len(others), 'file')} {are} left alone (first: {first}).")
        folders = [PurePosixPath(name).parts[:-1] for name in self._files]
        if any(parts[:1] == ("train",) for parts in folders):
            folders = self._split(folders)
        self._classes(folders)
        if (root / ATTRIBUTES).exists():
            path = root / ATTRIBUTES
            self.keep_attributes(*_attributes(path, self._files), _shown(path))

    def title(self, index: int) -> str:
        """The path of an image inside the folder."""
        return _shown(self._files[index])

    def _split(self, folders: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        for name, parts in zip(self._files, folders, strict=True):
            if not parts or parts[0] not in _PARTS:
                raise DataError(
                    f"{self.name}: {_shown(name)} is beside train, so its part is unknown. "
                    "Move it into train, validation or test."
                )
        self.parts = np.array([_PARTS[parts[0]] for parts in folders], np.int8)
        return [parts[1:] for parts in folders]

    def _classes(self, folders: list[tuple[str, ...]]) -> None:
        if all(folders):
            self.class_names = tuple(sorted({parts[0] for parts in folders}))
            number = {name: index for index, name in enumerate(self.class_names)}
            self.labels = np.array([number[parts[0]] for parts in folders], np.int64)
        elif any(folders):
            loose = [name for name, parts in zip(self._files, folders, strict=True) if not parts]
            lie = "image lies" if len(loose) == 1 else "images lie"
            self.notes.append(
                f"{len(loose):,} {lie} in no class folder (first: {_shown(loose[0])}), so the "
                "folders were not used as labels. Move such images away, or into a folder."
            )

    def measure(self) -> Shape:
        """Shape that all images share; raises `DataError` where sizes differ and none was given."""
        if self._shape is not None:
            return self._shape
        size, channels = self.geometry.size, self.geometry.channels
        if size is not None and channels is not None:
            self._shape = (channels, *size)
            return self._shape
        sizes: Counter[tuple[int, int]] = Counter()
        kinds: Counter[int] = Counter()
        for index, found in enumerate(_parallel(self._probe, self._files, _AHEAD)):
            if isinstance(found, str):
                self.bad[index] = found
            else:
                sizes[found[1:]] += 1
                kinds[found[0]] += 1
        if not sizes:
            raise self.unreadable()
        if size is None and len(sizes) > 1:
            raise self.sizes_differ(sizes)
        if channels is None:
            channels = max(kinds) if len(kinds) == 1 else 3
            if len(kinds) > 1:
                self.conversion = "Grey, RGB and RGBA images are mixed; all were converted to RGB."
        self._shape = (channels, *(size or next(iter(sizes))))
        self.geometry = Geometry(size, channels, self.geometry.fit)
        return self._shape

    def shapes(self) -> Counter[Shape]:
        """How many images have which shape before fitting, by their headers."""
        probed = _parallel(self._probe, self._files, _AHEAD)
        return Counter(shape for shape in probed if not isinstance(shape, str))

    def chunks(self, size: int) -> Iterator[Pixels]:
        """All images in order, decoded by several threads."""
        shape = self.measure()
        rows = max(1, size // prod(shape))
        batch: list[Pixels] = []
        for index, found in enumerate(_parallel(self._decode, self._files, rows)):
            if not isinstance(found, str) and found.shape != shape:
                found = f"{found.shape[1]}×{found.shape[2]} unlike its header"
            if isinstance(found, str):
                self.bad[index] = found
                found = np.zeros(shape, np.uint8)
            batch.append(found)
            if len(batch) == rows or index == self.count - 1:
                yield np.stack(batch)
                batch = []

    def _probe(self, name: str) -> Shape | str:
        return self._try(name, native_shape)

    def _decode(self, name: str) -> Pixels | str:
        def decode(image: Image.Image) -> Pixels:
            native_shape(image)  # refuses a decompression bomb before it goes off
            if self.geometry.size is not None:  # a JPEG decodes faster at a fraction of its size
                image.draft(None, (2 * max(self.geometry.size),) * 2)
            with DECODING.share(prod(image.size)):
                return self.geometry.image(image)

        return self._try(name, decode)

    def _try(self, name: str, use: Callable[[Image.Image], T]) -> T | str:
        """What ``use`` makes of an image, or why the image is unreadable."""
        path = self._root / name
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                return "not a regular file"
            with (
                open_regular(path, error=DataError) as file,
                Image.open(file, formats=FORMATS) as image,
            ):
                return use(image)
        except DataError as error:
            return str(error)
        except UnidentifiedImageError:
            return "empty" if path.stat().st_size == 0 else "not a PNG, JPEG, BMP, WebP or TIFF"
        except Image.DecompressionBombError:
            return "taken for a decompression bomb"
        except PermissionError:
            return "may not be read"
        except FileNotFoundError:
            return "missing"
        except Exception as error:  # decoders of hostile bytes raise nearly anything
            return "truncated" if "truncated" in str(error).lower() else f"damaged: {error}"


def _parallel(function: Callable[[str], T], names: Sequence[str], ahead: int) -> Iterator[T]:
    """Map in order with threads (Pillow decodes outside the interpreter lock)."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(names), ahead):
            yield from pool.map(function, names[start : start + ahead])


def _walk(top: Path, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Visible files of a folder by name, with links followed to files inside it alone."""
    root = top.resolve()
    if below.count("/") > _DEEPEST:
        raise DataError(f"{_shown(top)}: goes deeper than {_DEEPEST} folders. Name one inside it.")
    try:
        with os.scandir(top / below) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{_shown(top / below)}: cannot be listed ({error.strerror}).") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name = below + entry.name
        link = entry.is_symlink()
        if link:
            target = Path(os.path.realpath(entry.path))
            if not target.is_relative_to(root):
                raise DataError(
                    f"{_shown(top)}: {_shown(name)} is a link to {_shown(target)}, outside the "
                    "folder. Copy the file in, or remove the link."
                )
            if target.is_dir():
                raise DataError(
                    f"{_shown(top)}: {_shown(name)} is a link to a folder. Move the folder there."
                )
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(top, name + "/")
        else:
            yield name, entry.stat(follow_symlinks=link and target.exists())


def _shown(path: str | Path) -> str:
    """A path in messages: names that are no valid text must not break printing them."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _attributes(path: Path, files: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Names and values ``(N, A)`` of attributes.csv: ``file,name,…``, then numbers or nothing."""
    where = _shown(path)
    rows = {name: row for row, name in enumerate(files)}
    seen = set()
    try:
        with (
            open_regular(path, path.parent, DataError) as file,
            io.TextIOWrapper(file, "utf-8-sig", newline="") as text,
        ):
            lines = csv.reader(text, strict=True)
            first, *names = next(lines, [""])
            if first != "file" or not names or "" in names or len({*names}) < len(names):
                raise DataError(
                    f"{where}: line 1 must be file,name,… with a name for each attribute, once."
                )
            values = np.full((len(files), len(names)), np.nan, np.float32)
            for line in lines:
                at = f"{where}: line {lines.line_num}"
                if not line:
                    continue
                name, *marks = line
                numbers = _numbers(marks)
                if len(marks) != len(names) or numbers is None:
                    raise DataError(
                        f"{at} must hold a file and {len(names)} values that are numbers, or empty "
                        "where unknown."
                    )
                inside = PurePosixPath(name)
                if inside.is_absolute() or ".." in inside.parts:
                    raise DataError(f"{at}: {name!r} leaves the folder. Name files inside it.")
                if str(inside) not in rows:
                    raise DataError(
                        f"{at}: {name!r} is no image of the folder. Correct or remove the line."
                    )
                if str(inside) in seen:
                    raise DataError(f"{at}: {name!r} was named before. Remove one of the lines.")
                seen.add(str(inside))
                values[rows[str(inside)]] = numbers
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where}: cannot be read ({error}). Save it as UTF-8 CSV.") from None
    return tuple(names), values


def _numbers(marks: list[str]) -> list[float] | None:
    """What the cells of a line hold, NaN for an empty one; None if one is no number."""
    try:
        return [float(mark) if mark else np.nan for mark in marks]
    except ValueError:
        return None
