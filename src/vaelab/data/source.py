"""What every reader offers: images in order, in pieces, and what is known about each."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vaelab.data.labels import ClassLabels, without_rows
from vaelab.data.levels import Levels
from vaelab.data.live import Live
from vaelab.data.pixels import Geometry, Pixels, Shape, as_array
from vaelab.data.sizes import middle
from vaelab.errors import DataError, counted

PARTS = ("train", "validation", "test")

Progress = Callable[[int, int], None]
"""Called as ``progress(images read, images in all)``."""


class Source(ABC):
    """N images that can be read front to back, once or again.

    Arguments:
        name: how messages call it.
        count: N, unreadable images included.
        geometry: the shape asked for.
    """

    def __init__(self, name: str, count: int, geometry: Geometry) -> None:
        if count == 0:
            raise DataError(f"{name}: holds no images. Point to images, or check the path.")
        self.name = name
        self.count = count
        self.geometry = geometry
        self.levels = Levels(geometry.range)
        """Which values are black and white, known once all images were read."""
        self.place: str | None = None
        """Where a cache of the images is kept; None if nothing says whether they changed."""
        self.digest = ""
        """Of the names, sizes and times of all files: changes when the images may have changed."""
        self.parts: NDArray[np.int8] = np.zeros(count, np.int8)
        """Index into `PARTS` of each image; all 0 without a split of its own."""
        self.bad: dict[int, str] = {}
        """Index and fault of each unreadable image, complete once all were read."""
        self.notes: list[str] = []
        self.conversion = ""
        """What `measure` decided to do to the images, in a sentence."""
        self.fitted: tuple[int, int] | None = None
        """Height and width that `measure` chose for images of several sizes."""
        self.groups: list[str] | None = None
        """What keeps images in one part of a split that is drawn; "" for an image on its own."""
        self.labels: NDArray[np.int64] | None = None
        self.attributes: NDArray[np.float32] | None = None
        self.class_names: tuple[str, ...] = ()
        self.attribute_names: tuple[str, ...] = ()

    @abstractmethod
    def measure(self) -> Shape:
        """Shape ``(C, H, W)`` that all images have in common after fitting."""

    def shapes(self) -> Mapping[Shape, int]:
        """How many images have which shape before fitting; empty where only reading would tell."""
        return {}

    @abstractmethod
    def chunks(self, size: int) -> Iterator[Pixels]:
        """All images in order, about ``size`` bytes at a time; zeros for an unreadable one."""

    def live(self, rows: Tensor) -> Live | None:
        """Where training reads the images at ``rows`` anew in every pass; None if it does not."""
        return None

    def title(self, index: int) -> str:
        """How messages call one image."""
        return f"image {index}"

    def keep_labels(self, labels: ClassLabels | None) -> None:
        """Take the classes of all images, and say what was assumed about them."""
        if labels is None:
            self.labels, self.class_names = None, ()
        else:
            self.labels, self.class_names = labels.numbers, labels.names
            self.notes += labels.notes

    def found(self, shape: Shape) -> list[str]:
        """Plain sentences on what was found while reading images that became ``shape``."""
        notes = self.levels.notes()
        if number := self.levels.transparent:
            which = f"{number:,} of {self.count:,} images have transparent parts"
            if shape[0] == 4:
                notes.append(f"{which}, kept as a fourth channel.")
            else:
                ground = self.geometry.background or "white"
                notes.append(f"{which}, composited on {ground}. --background names another colour.")
            if hidden := self.levels.hidden:
                other = "black" if ground == "white" else "white"
                notes.append(
                    f"{hidden:,} of these show nothing: what they hold has the colour of the "
                    f"background. Pass --background {other}."
                )
        if shape[0] not in (1, 3, 4):
            notes.append(
                f"The images have {shape[0]} channels; pictures show "
                + (
                    "the first as red and the second as green."
                    if shape[0] == 2
                    else "the first three as red, green and blue."
                )
            )
        return notes

    def keep_attributes(
        self, names: tuple[str, ...], values: NDArray[np.float32], where: str
    ) -> None:
        """Take ``values`` (N, A) as the attributes of all images, NaN where unknown."""
        if len({*names}) < len(names):
            raise DataError(f"{where}: two attributes have one name. Give each its own.")
        infinite = np.argwhere(np.isinf(values))
        if len(infinite):
            row, column = infinite[0]
            raise DataError(
                f"{where}: attribute {names[column]!r} of {self.title(row)} is infinite. Give a "
                "number, or NaN where it is unknown."
            )
        for name, column in zip(names, values.T, strict=True):
            known = column[~np.isnan(column)]
            if not len(known):
                self.notes.append(f"{where}: attribute {name!r} is known of no image.")
            elif len(column) > 1 and (known == known[0]).all():
                self.notes.append(
                    f"{where}: attribute {name!r} is {known[0]:g} in all images: nothing can be "
                    "learned from it."
                )
        self.attribute_names, self.attributes = names, values

    def read_signs(self, signed: Sequence[str]) -> None:
        """Read columns of -1 and 1 alone as 0 and 1, with a note, but for those ``signed``."""
        values = self.attributes
        if values is None:
            return
        signs = ((np.abs(values) == 1) | np.isnan(values)).all(0) & (values == -1).any(0)
        signs &= [name not in signed for name in self.attribute_names]
        values[:, signs] = (values[:, signs] + 1) / 2
        if signs.any():
            first = self.attribute_names[int(signs.argmax())]
            were = "was" if signs.sum() == 1 else "were"
            many = counted(int(signs.sum()), "attribute")
            self.notes.append(f"{many} of -1 and 1 {were} read as 0 and 1 (first: {first}).")

    def good(self) -> NDArray[np.bool_]:
        """Which images could be read, ``(N,)``."""
        good = np.ones(self.count, bool)
        good[list(self.bad)] = False
        return good

    def leave_out_bad(self) -> None:
        """Forget the classes of unreadable images alone, now that all images were read."""
        if self.bad and self.labels is not None:
            self.keep_labels(without_rows(self.labels, self.class_names, self.good(), self.name))

    def fault(self) -> str:
        """How many images are unreadable and why the first is."""
        first = min(self.bad)
        return (
            f"{self.name}: {len(self.bad)} of {self.count} images are unreadable "
            f"(first: {self.title(first)}, {self.bad[first]})"
        )

    def unreadable(self) -> DataError:
        """The error for unreadable images."""
        if len(self.bad) == self.count:
            has_remedy = ". " in self.bad[min(self.bad)]
            todo = "" if has_remedy else " Check the path, or convert them to PNG."
            return DataError(f"{self.fault()}.{todo}")
        return DataError(f"{self.fault()}. Pass --skip-bad to leave them out.")

    def sizes_differ(self, sizes: Mapping[tuple[int, int], int]) -> DataError:
        """The error for images of several sizes, given how many have which."""
        common = sorted(sizes, key=lambda size: (-sizes[size], size))
        listed = ", ".join(f"{sizes[size]} of {size[0]}×{size[1]}" for size in common[:3])
        more = f" and {len(common) - 3} more sizes" if len(common) > 3 else ""
        height, width = middle(sizes)
        return DataError(
            f"{self.name}: images differ in size ({listed}{more}; height×width). Pass "
            f"--size {height}x{width} to bring them to one."
        )


def fingerprint(files: Iterable[Path]) -> str:
    """Digest of name, size, times of change and inode of each file."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0{stamp(path.stat())}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def stamp(status: os.stat_result) -> str:
    """Return what tells a file from one that took its place.

    Size and time of change can be set to what they were; the inode and the time at which it was
    changed cannot.
    """
    return f"{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}"


def check_names(names: Any, count: int, where: str) -> tuple[str, ...]:
    """Return the names of ``count`` classes or attributes."""
    found = as_array(names)
    if found.ndim != 1 or found.dtype.kind != "U" or len(found) != count:
        raise DataError(f"{where}: must be a list of {count} names.")
    return tuple(str(name) for name in found)


def check_attributes(values: Any, count: int, where: str) -> NDArray[np.float32]:
    """Return float32 attributes ``(count, A)``, NaN where unknown."""
    array = as_array(values)
    if array.ndim != 2 or len(array) != count or array.shape[1] == 0:
        raise DataError(
            f"{where}: attributes have shape {array.shape}; pass one row for each of {count} "
            "images and one column an attribute."
        )
    if array.dtype.kind not in "buif":
        raise DataError(f"{where}: attributes are {array.dtype}. Save numbers, NaN for unknown.")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused
        return array.astype(np.float32)
