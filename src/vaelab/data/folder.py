"""Image files of a folder, a list of paths or an archive: what is read, and how it is decoded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from os import cpu_count
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vaelab.data.deep import bands, open_image
from vaelab.data.formats import FRAMES, HEAD, READ, SUFFIXES, conversion, kind_of, unread
from vaelab.data.inflight import DECODING
from vaelab.data.layout import read_layout
from vaelab.data.part_words import part_of_word
from vaelab.data.pixels import Geometry, Pixels, Shape, native_shape
from vaelab.data.places import Archive, Folder, Paths, Place
from vaelab.data.sizes import fitted, middle
from vaelab.data.source import Source
from vaelab.data.tables import Tables, is_table
from vaelab.errors import DataError, counted
from vaelab.opening import open_regular, shown

T = TypeVar("T")

_THREADS = min(16, cpu_count() or 1)
_AHEAD = 4096  # files that wait for a thread
_MOST_FRAMES = 2**20
_REDUCED = 254  # the tag of a TIFF page that is a smaller copy of another, if its first bit is set


def path_source(path: Path, geometry: Geometry, group: str | None) -> FolderSource | None:
    """Images of a folder, a zip archive or one image file; None for another file."""
    if path.is_dir():
        return FolderSource(Folder(path), geometry, group)
    if not path.is_file():
        return None
    kind = _kind_of_file(path)
    if kind == "zip" and path.suffix.lower() != ".npz":
        return FolderSource(Archive(path), geometry, group)
    if kind in READ or path.suffix.lower() in SUFFIXES:
        return FolderSource(Paths([path]), geometry, group)
    if kind and (line := conversion(kind, path.name)):
        raise DataError(f"{shown(path)}: is {kind}, which is not read. Convert it with: {line}.")
    return None


def is_image(path: Path) -> bool:
    """Tell whether a file begins as an image does, whatever its name."""
    return path.is_file() and _kind_of_file(path) in READ


def _kind_of_file(path: Path) -> str:
    with open_regular(path, error=DataError) as file:
        return kind_of(path.name, file.read(HEAD))


class FolderSource(Source):
    """The images of a place, in the order of their names whatever the file system's."""

    def __init__(self, place: Place, geometry: Geometry, group: str | None = None) -> None:
        self._place = place
        self._files: list[str] = []
        self._shape: Shape | None = None
        self._bands = False
        """Whether some images have channels that are no colours."""
        entries = place.entries()
        self._irregular = {entry.name for entry in entries if not entry.regular}
        found_kinds = _parallel(self._kind, [entry.name for entry in entries], _AHEAD)
        self._kinds = {e.name: kind for e, kind in zip(entries, found_kinds, strict=True)}
        listed = isinstance(place, Paths)  # these were all meant to be images
        images = [e for e in entries if listed or _is_image(e.name, self._kinds[e.name])]
        counts = list(_parallel(self._pages, [entry.name for entry in images], _AHEAD))
        self._files = [entry.name for entry in images]
        self._stacks = {row for row, pages in enumerate(counts) if pages != [0]}
        kept = [_chosen(pages, geometry.frames) for pages in counts]
        self._file = np.repeat(np.arange(len(kept)), [len(pages) for pages in kept])
        self._frame = np.array([page for pages in kept for page in pages], np.int64)
        taken = {*self._files}
        others = [entry.name for entry in entries if entry.name not in taken]
        tables = [name for name in others if is_table(name) and not self._kinds[name]]
        if not self._files:
            raise self._empty([e.name for e in entries])
        super().__init__(place.name, len(self._file), geometry)
        digest = hashlib.sha256()
        for entry in images:
            digest.update(f"{entry.name}\0{entry.stamp}\n".encode(errors="surrogateescape"))
        self.place, self.digest = place.key, digest.hexdigest()
        self._frames_note(counts)
        found = Tables(place, tables, self._files, group)
        self._others([name for name in others if name not in found.known])
        if not listed:
            self._layout(others)
        elif len({PurePosixPath(name).parent for name in self._files}) > 1:
            self.notes.append("The folders of a list of paths were not taken as classes.")
        found.give(self, self._file)

    def title(self, index: int) -> str:
        """The path of an image inside the place; a frame of a stack is ``path#12``, from 1 on."""
        row = int(self._file[index])
        name = shown(self._files[row])
        return f"{name}#{self._frame[index] + 1}" if row in self._stacks else name

    @property
    def files(self) -> NDArray[np.int64]:
        """The file of each image, ``(N,)``: several images of a stack are of one."""
        return self._file

    def _kind(self, name: str) -> str:
        if name in self._irregular:
            return ""
        try:
            return kind_of(name, self._place.head(name, HEAD))
        except (OSError, DataError, ValueError):
            return ""

    def _pages(self, name: str) -> list[int]:
        """Numbers of the images within a file; ``[0]`` for one alone."""
        kind = self._kinds[name]
        if kind not in FRAMES:
            return [0]

        def pages(image: Image.Image) -> list[int]:
            if kind == "TIFF":
                return _whole_pages(image) or [0]
            return list(range(min(getattr(image, "n_frames", 1), _MOST_FRAMES)))

        if kind == "PNG" and not self._animated(name):
            return [0]
        found = self._try(name, pages)
        return [0] if isinstance(found, str) else found

    def _animated(self, name: str) -> bool:
        """Whether a PNG says before its pixels that it has frames."""
        try:
            with self._place.open(name) as file:
                file.seek(8)
                while (kind := (head := file.read(8))[4:]).isalpha() and kind != b"IDAT":
                    if kind == b"acTL":
                        return True
                    file.seek(int.from_bytes(head[:4], "big") + 4, 1)
        except (OSError, DataError, ValueError):
            pass
        return False

    def _frames_note(self, counts: Sequence[Sequence[int]]) -> None:
        if not self._stacks:
            return
        stacks, pages = len(self._stacks), sum(len(counts[row]) for row in self._stacks)
        taken = int(np.isin(self._file, list(self._stacks)).sum())
        read = "all are images of their own" if taken == pages else f"{taken:,} of them were read"
        holds = "file holds" if stacks == 1 else "files hold"
        self.notes.append(
            f"{stacks:,} {holds} {pages:,} pages or frames: {read} (--frames all, first, every=K)."
        )

    def _others(self, names: Sequence[str]) -> None:
        """Say what was not read, and what would convert it."""
        known = [(kind, shown(name)) for name in names if (kind := self._kinds[name])]
        if note := unread(known):
            self.notes.append(note)
        plain = [name for name in names if not self._kinds[name]]
        if plain:
            are = "is no image and was" if len(plain) == 1 else "are no images and were"
            self.notes.append(
                f"{counted(len(plain), 'file')} {are} left alone (first: {shown(plain[0])})."
            )

    def _empty(self, names: Sequence[str]) -> DataError:
        """The error for a place without an image that is read, which says what lies there."""
        where = self._place.name
        if note := unread([(kind, shown(name)) for name in names if (kind := self._kinds[name])]):
            return DataError(f"{where}: holds no images that are read. {note}")
        tables = [name for name in names if PurePosixPath(name).suffix.lower() in (".csv", ".tsv")]
        if tables:
            table = max(tables, key=lambda name: part_of_word(PurePosixPath(name).stem) == 0)
            return DataError(
                f"{where}: holds no images but {counted(len(names), 'other file')}, a table among "
                f"them. If its rows are images, pass it itself: {where}/{shown(table)}."
            )
        if names:
            return DataError(
                f"{where}: holds no images but {counted(len(names), 'other file')} (first: "
                f"{shown(names[0])}). Point to a folder of images, or check the path."
            )
        return DataError(f"{where}: holds no images: it is empty. Check the path.")

    def _layout(self, others: Sequence[str]) -> None:
        left: dict[str, Counter[str]] = {}
        for name in others:
            for folder in PurePosixPath(name).parts[:-1]:
                left.setdefault(folder, Counter())[self._kinds[name] or "other"] += 1
        said = {
            shown(folder): ", ".join(counted(n, f"{kind} file") for kind, n in counts.items())
            for folder, counts in left.items()
        }
        names = [shown(self._files[row]) for row in self._file.tolist()]
        found = read_layout(self.name, names, [shown(f) for f in self._place.folders], said)
        self.notes += found.notes
        if found.parts is not None:
            self.parts = found.parts
        self.labels, self.class_names = found.labels, found.class_names

    def measure(self) -> Shape:
        """Shape that all images share; of several sizes a middle one where none was given."""
        if self._shape is not None:
            return self._shape
        size, channels = self.geometry.size, self.geometry.channels
        if size is not None and channels is not None:
            self._shape = (channels, *size)
            return self._shape
        sizes: Counter[tuple[int, int]] = Counter()
        kinds: Counter[int] = Counter()
        for index, found in enumerate(self._probed()):
            if isinstance(found, str):
                self.bad[index] = found
            else:
                sizes[found[1:]] += 1
                kinds[found[0]] += 1
        if not sizes:
            raise self.unreadable()
        if size is None and len(sizes) > 1:
            size = self.fitted = middle(sizes)
            self.conversion = fitted(sizes, size, self.geometry.fit)
        if channels is None:
            channels = 1 if {*kinds} == {1} else 3  # what is transparent is composited
            if self._bands:
                channels = self._one_kind(kinds)
            elif len(kinds) > 1:
                mixed = "Grey, RGB and RGBA images are mixed; all were converted to RGB."
                self.conversion = f"{self.conversion} {mixed}".strip()
        self._shape = (channels, *(size or next(iter(sizes))))
        self.geometry = replace(self.geometry, channels=channels, size=size)
        return self._shape

    def _one_kind(self, kinds: Counter[int]) -> int:
        """The number of channels of images whose channels are not all colours."""
        if len(kinds) > 1:
            listed = ", ".join(f"{count:,} of {kind}" for kind, count in sorted(kinds.items()))
            raise DataError(
                f"{self.name}: images differ in channels ({listed}), and not all of these are "
                "colours. Move those of another kind away, or save all as .npy."
            )
        (only,) = kinds
        if only == 4:
            kept = "The fourth channel of the images is not said to be alpha: all four are kept."
            self.conversion = f"{self.conversion} {kept}".strip()
        return only

    def shapes(self) -> Counter[Shape]:
        """How many images have which shape before fitting, by their headers."""
        return Counter(shape for shape in self._probed() if not isinstance(shape, str))

    def chunks(self, size: int) -> Iterator[Pixels]:
        """All images in order, decoded by several threads."""
        shape = self.measure()
        rows = max(1, size // prod(shape))
        batch: list[Pixels] = []
        for index, found in enumerate(self._each(self._pixels, rows)):
            if not isinstance(found, str) and found.shape != shape:
                found = f"{found.shape[1]}×{found.shape[2]} unlike its header"
            if isinstance(found, str):
                self.bad[index] = found
                found = np.zeros(shape, np.uint8)
            batch.append(found)
            if len(batch) == rows or index == self.count - 1:
                yield np.stack(batch)
                batch = []

    def _probed(self) -> Iterator[Shape | str]:
        return self._each(self._header, _AHEAD, alike=True)

    def _header(self, image: Image.Image) -> Shape:
        shape = native_shape(image)
        self._bands |= bands(image) > 0
        if image.format == "GIF" and shape[0] == 4:  # one colour of many that is left out
            return (3, *shape[1:])
        return shape

    def _pixels(self, image: Image.Image) -> Pixels:
        native_shape(image)  # refuses a decompression bomb before it goes off
        if self.geometry.size is not None:  # a JPEG decodes faster at a fraction of its size
            image.draft(None, (2 * max(self.geometry.size),) * 2)
        with DECODING.share(prod(image.size)):
            return self.geometry.image(image, self.levels)

    def _each(
        self, use: Callable[[Image.Image], T], ahead: int, alike: bool = False
    ) -> Iterator[T | str]:
        """Use every image in order: files by several threads, a stack front to back by one.

        With ``alike`` the frames of an animation, which share a size, are used once for all.
        """
        alone: list[int] = []
        for row in range(len(self._files)):
            if row not in self._stacks:
                alone.append(row)
                continue
            yield from self._alone(alone, use, ahead)
            alone = []
            yield from self._stack(row, use, alike and self._kinds[self._files[row]] != "TIFF")
        yield from self._alone(alone, use, ahead)

    def _alone(
        self, rows: Sequence[int], use: Callable[[Image.Image], T], ahead: int
    ) -> Iterator[T | str]:
        names = [self._files[row] for row in rows]
        return _parallel(lambda name: self._try(name, use), names, ahead)

    def _stack(self, row: int, use: Callable[[Image.Image], T], alike: bool) -> Iterator[T | str]:
        """Use the frames of one file, which is opened once and never sought back."""
        frames = self._frame[self._file == row].tolist()
        done = 0
        try:
            with self._opened(self._files[row]) as image:
                for frame in frames[:1] if alike else frames:
                    found = _said(lambda: _sought(image, frame, use))  # noqa: B023  # used at once
                    for _ in frames if alike else [frame]:
                        done += 1
                        yield found
        except Exception as error:
            yield from [_fault(error)] * (len(frames) - done)

    @contextmanager
    def _opened(self, name: str) -> Iterator[Image.Image]:
        if name in self._irregular:
            raise DataError("not a regular file")
        with self._place.open(name) as file:
            if not file.read(1):
                raise DataError("empty")
            file.seek(0)
            with open_image(file) as image:
                yield image

    def _try(self, name: str, use: Callable[[Image.Image], T]) -> T | str:
        """What ``use`` makes of an image, or why the image is unreadable."""
        kind = self._kinds[name]
        if kind and kind not in READ:
            line = conversion(kind, shown(name))
            return f"{kind}, which is not read" + (f"; convert it with {line}" if line else "")

        def used() -> T:
            with self._opened(name) as image:
                return use(image)

        return _said(used)


def _sought(image: Image.Image, frame: int, use: Callable[[Image.Image], T]) -> T:
    image.seek(frame)
    return use(image)


def _said(use: Callable[[], T]) -> T | str:
    """What ``use`` gives, or why it cannot."""
    try:
        return use()
    except Exception as error:  # decoders of hostile bytes raise nearly anything
        return _fault(error)


def _fault(error: Exception) -> str:
    """Why an image is unreadable."""
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return f"not an image that is read ({', '.join(READ)})"
    if isinstance(error, Image.DecompressionBombError):
        return "taken for a decompression bomb"
    if isinstance(error, PermissionError):
        return "may not be read"
    if isinstance(error, FileNotFoundError):
        return "missing"
    return "truncated" if "truncated" in str(error).lower() else f"damaged: {error}"


def _is_image(name: str, kind: str) -> bool:
    return kind in READ or PurePosixPath(name).suffix.lower() in SUFFIXES


def _chosen(pages: list[int], frames: str) -> list[int]:
    """The pages that ``--frames`` asks for."""
    if frames == "first":
        return pages[:1]
    return pages[:: int(frames.removeprefix("every="))] if frames != "all" else pages


def _whole_pages(image: Image.Image) -> list[int]:
    """Numbers of the pages of a TIFF that are no smaller copies; one that is broken ends them."""
    found: list[int] = []
    for page in range(_MOST_FRAMES):
        try:
            image.seek(page)
        except EOFError:
            break
        except Exception:  # of decoders; is raised again when the page is read, and said then
            return [*found, page]
        tags = getattr(image, "tag_v2", {})
        if not int(tags.get(_REDUCED, 0)) & 1:
            found.append(page)
    return found


def _parallel(function: Callable[[str], T], names: Sequence[str], ahead: int) -> Iterator[T]:
    """Map in order with threads (Pillow decodes outside the interpreter lock)."""
    if not names:
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(names), ahead):
            yield from pool.map(function, names[start : start + ahead])
