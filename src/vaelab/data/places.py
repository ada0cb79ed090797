"""Where image files lie: a folder, a list of paths, a zip archive. Each lists names and opens them.

No name leads out of its place: links go to files inside a folder alone, and names in an archive
that are absolute or climb are refused.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import re
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from vaelab.data.source import stamp
from vaelab.errors import DataError, refuse_pickle
from vaelab.opening import expanded, open_regular, shown

LARGEST = 2**30
"""Bytes of the largest file that is unpacked from an archive."""

_RATIO = 200  # above, and above `LARGEST` in all, an archive is a bomb
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError),
    *(NotImplementedError, RuntimeError, EOFError),
)
"""What `zipfile` raises for members that cannot be unpacked."""
_DEEPEST = 64  # folders below one another
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_LEFT = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what systems leave behind


@dataclass(frozen=True)
class Entry:
    """A file: its name in its place, what changes when the file does, and whether it is one."""

    name: str
    stamp: str
    regular: bool = True


class Place(ABC):
    """Files that have names."""

    name: str
    """How messages call the place."""
    key: str
    """What a cache knows it by."""
    folders: Sequence[str] = ()
    """All folders in it, once `entries` were listed."""

    @abstractmethod
    def entries(self) -> list[Entry]:
        """All files, by name; hidden ones and what systems leave behind are passed over."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Open a file; raises `OSError` or `DataError`."""

    def head(self, name: str, size: int) -> bytes:
        """The first bytes of a file."""
        with self.open(name) as file:
            return file.read(size)


class Folder(Place):
    """All files of a folder and of those in it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.name, self.key = shown(root), str(root.resolve())

    def entries(self) -> list[Entry]:
        """Visible files by name, with links followed to files inside the folder alone."""
        self.folders = []
        return list(self._walk(self.folders))

    def open(self, name: str) -> IO[bytes]:
        """Open a file."""
        return open_regular(self._root / name, error=DataError)

    def _walk(self, folders: list[str], below: str = "") -> Iterator[Entry]:
        root = self._root.resolve()
        if below.count("/") > _DEEPEST:
            raise DataError(
                f"{self.name}: goes deeper than {_DEEPEST} folders. Name one inside it."
            )
        try:
            with os.scandir(self._root / below) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            where = shown(self._root / below)
            raise DataError(f"{where}: cannot be listed ({error.strerror}).") from None
        for entry in entries:
            if _hidden(entry.name):
                continue
            name, link = below + entry.name, entry.is_symlink()
            target = Path(os.path.realpath(entry.path)) if link else None
            if target is not None and not target.is_relative_to(root):
                raise DataError(
                    f"{self.name}: {shown(name)} is a link to {shown(target)}, outside the "
                    "folder. Copy the file in, or remove the link."
                )
            if target is not None and target.is_dir():
                raise DataError(
                    f"{self.name}: {shown(name)} is a link to a folder. Move the folder there."
                )
            if entry.is_dir(follow_symlinks=False):
                folders.append(name)
                yield from self._walk(folders, name + "/")
            else:
                status = entry.stat(follow_symlinks=target is not None and target.exists())
                regular = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
                yield Entry(name, stamp(status), regular)


class Paths(Place):
    """Files that were listed, each by its own path."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._paths = [str(path) for path in paths]
        for path in self._paths:
            refuse_pickle(path)
            if _URL.match(path):
                raise DataError(
                    f"{path[:80]}: is a URL, and nothing is downloaded. Download it, and pass the "
                    "path of the file."
                )
        self.name = shown(self._paths[0]) if len(paths) == 1 else f"{len(paths):,} paths"
        real = "\0".join(str(expanded(path).absolute()) for path in self._paths)
        self.key = "paths " + hashlib.sha256(os.fsencode(real)).hexdigest()

    def entries(self) -> list[Entry]:
        """The files in the order of the list, also those that are not there."""
        found = []
        for path in self._paths:
            try:
                status = expanded(path).stat()
                if stat.S_ISDIR(status.st_mode):
                    raise DataError(
                        f"{shown(path)}: is a folder in a list of paths. Pass one folder alone, "
                        f'or its images: sorted(pathlib.Path("{shown(path)}").rglob("*.png")).'
                    )
                found.append(Entry(path, stamp(status), stat.S_ISREG(status.st_mode)))
            except (OSError, ValueError):
                found.append(Entry(path, "missing"))
        return found

    def open(self, name: str) -> IO[bytes]:
        """Open a file."""
        return open_regular(expanded(name), error=DataError)


class Archive(Place):
    """The files of a zip archive, unpacked one at a time in memory."""

    def __init__(self, path: Path) -> None:
        self.name, self.key = shown(path), str(path.resolve())
        try:
            self._archive = zipfile.ZipFile(path)
            members = self._archive.infolist()
            size = path.stat().st_size
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise DataError(f"{self.name}: is no zip archive that can be read ({error}).") from None
        total = sum(member.file_size for member in members)
        if total > LARGEST and total > _RATIO * size:
            raise DataError(
                f"{self.name}: would unpack to {total / 1e9:,.1f} GB from {size / 1e6:,.1f} MB, "
                "and is taken for a bomb. Unpack it yourself if you trust it."
            )
        self._members: dict[str, zipfile.ZipInfo] = {}
        folders: dict[str, None] = {}
        for member in members:
            parts = self._parts(member.filename)
            if any(_hidden(part) for part in parts):
                continue
            whole = [*parts] if member.is_dir() else parts[:-1]
            folders |= {"/".join(whole[:end]): None for end in range(1, len(whole) + 1)}
            if not member.is_dir():
                self._check(member)
                self._members["/".join(parts)] = member
        self.folders = list(folders)

    def entries(self) -> list[Entry]:
        """The files by name."""
        return [
            Entry(name, f"{member.file_size}\0{member.CRC}")
            for name, member in sorted(self._members.items())
        ]

    def open(self, name: str) -> IO[bytes]:
        """Unpack a file into memory."""
        try:
            return io.BytesIO(self._archive.read(self._members[name]))
        except _DAMAGED as error:
            raise DataError(f"damaged in the archive: {error}") from None

    def head(self, name: str, size: int) -> bytes:
        """The first bytes of a file, without unpacking the rest."""
        try:
            with self._archive.open(self._members[name]) as file:
                return file.read(size)
        except _DAMAGED as error:
            raise DataError(f"damaged in the archive: {error}") from None

    def _parts(self, name: str) -> list[str]:
        inside = PurePosixPath(name.replace("\\", "/"))
        if inside.is_absolute() or ".." in inside.parts or ":" in name[:2]:
            raise DataError(
                f"{self.name}: {name!r} leads out of the archive. Pack it anew from its folder."
            )
        return list(inside.parts)

    def _check(self, member: zipfile.ZipInfo) -> None:
        if member.flag_bits & 1:
            raise DataError(
                f"{self.name}: {member.filename!r} is encrypted. Unpack it with its password."
            )
        if member.file_size > LARGEST:
            raise DataError(
                f"{self.name}: {member.filename!r} has {member.file_size / 1e9:,.1f} GB, too much "
                "to unpack in memory. Unpack the archive."
            )


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _LEFT
