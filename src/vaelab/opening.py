"""How files and folders that may come from elsewhere are opened, written, locked and cleared.

A link that leads out of its folder is not followed, a pipe or a device is not opened, and what is
half written lies beside its place under a name that says which process writes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import shutil
import stat
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from vaelab.errors import DiskError, RunError, VaelabError, WriteError

_PART = re.compile(r"\..*\.vaelab-([0-9a-f]{8})-(\d{1,10})\.part", re.DOTALL)
_OLD_PART = re.compile(r"\.(model|state)\.safetensors\.\d+\.part")  # up to 0.1
_ABANDONED = 86_400.0  # seconds after which a part of another machine has no writer
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_OWN = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer would be waited for
_swept: set[str] = set()

DEVICES = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}
)
"""Names that no file or folder can have on Windows, in small letters, whatever their ending."""


def shown(path: str | Path) -> str:
    """Return a path for messages: names that are no valid text must not break printing them."""
    return os.fsencode(path).decode(errors="backslashreplace")


def expanded(path: str | Path) -> Path:
    """Return a path with the home of ``~`` or ``~user``; as it is where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def inside(folder: Path, path: Path, error: type[VaelabError] = RunError) -> Path:
    """Return ``path``; raises ``error`` if links lead it out of ``folder``.

    The folder itself may be a link. A folder of the Hub's cache consists of links to the files
    beside it, which are inside too.
    """
    try:
        root, target = os.path.realpath(folder), Path(os.path.realpath(path))
    except (OSError, ValueError) as fault:  # a name with NUL, or one that is too long
        raise error(f"{shown(path)}: is no usable path ({fault}).") from None
    hub = Path(root).parent.parent if Path(root).parent.name == "snapshots" else None
    if target.is_relative_to(root) or (hub and target.is_relative_to(hub / "blobs")):
        return path
    raise error(
        f"{shown(path)}: is or lies behind a link to {shown(target)}, outside {shown(folder)}. "
        "Remove the link, or put what it points to in its place."
    )


def open_regular(
    path: Path,
    folder: Path | None = None,
    error: type[VaelabError] = RunError,
    pipes: bool = False,
) -> BinaryIO:
    """Open a file to read its bytes; raises `OSError` as ``open`` does.

    Arguments:
        path: of the file.
        folder: that it must be in once links are followed; None for a file that the user named.
        error: raised for a link that leads out, and for what is no regular file.
        pipes: whether a pipe of this process, such as ``/dev/stdin``, is read too.
    """
    if folder is not None:
        inside(folder, path, error)
    try:
        fd = None
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            fd = os.open(path, os.O_RDONLY | _OWN | _AT_ONCE)
            mode = os.fstat(fd).st_mode
    except ValueError as fault:
        raise error(f"{shown(path)}: is no usable path ({fault}).") from None
    if fd is not None and stat.S_ISREG(mode):
        file = os.fdopen(fd, "rb")
        if os.fstat(fd).st_size or _is_empty(fd):
            return file
        file.close()
        raise error(f"{shown(path)}: is a file of the system, without a length. Copy it first.")
    if fd is not None:
        os.close(fd)
    if pipes and stat.S_ISFIFO(mode) and str(path).startswith(("/dev/stdin", "/dev/fd/")):
        return path.open("rb")
    raise error(f"{shown(path)}: is {_kind(mode)}, not a regular file. Put a file in its place.")


def _is_empty(fd: int) -> bool:
    """Tell whether a file of no length gives nothing: those of the system may, or wait for more."""
    try:
        return not os.read(fd, 1)
    except OSError:
        return False


def read_at_most(
    file: BinaryIO, most: int, path: Path, error: type[VaelabError] = RunError
) -> bytes:
    """Return the rest of a file; raises ``error`` for one that is too long, or has no end."""
    found = file.read(most + 1)
    if len(found) > most:
        raise error(
            f"{shown(path)}: is longer than {most / 2**20:g} MiB, which no file of its kind is. "
            "Put the right one in its place."
        )
    return found


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def open_in_place(path: Path, flags: int) -> int:
    """Open a file to change it where it lies; returns its descriptor.

    A link is refused, and of a file that has other names its content is copied first: those names
    may lie anywhere.
    """
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            raise RunError(
                f"{shown(path)}: is a link to {shown(os.path.realpath(path))}, and vaelab writes "
                "through none. Remove it, or put the file in its place."
            )
        if not stat.S_ISREG(found.st_mode):
            raise RunError(f"{shown(path)}: is {_kind(found.st_mode)}. Remove it.")
        if found.st_nlink > 1:
            write_atomic(path, path.read_bytes())
    fd = os.open(path, flags | _OWN | _NO_LINK | _AT_ONCE, 0o666)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise RunError(f"{shown(path)}: is no regular file. Remove it.")


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the file ``path`` by ``data``, or leave it as it was; raises as `writing` does."""
    with writing(path):
        _write(path, data)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says about writing into our errors, which name the file.

    Raises:
        WriteError: the folder may only be read.
        DiskError: the disk is full, or another fault.
    """
    try:
        yield
    except VaelabError:
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise WriteError(
                f"{shown(path)}: cannot be written, as its folder may only be read "
                f"({error.strerror}). Name another place with --out."
            ) from None
        raise DiskError(
            f"{shown(path)}: cannot be written ({error.strerror or error}). Free some space, or "
            "name another place with --out."
        ) from None


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text as `write_atomic` does; names of files may be any bytes."""
    write_atomic(path, text.encode(errors="backslashreplace"))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if (folder := os.path.abspath(path.parent)) not in _swept:
        _swept.add(folder)
        sweep(path.parent)
    beside = _beside(path)
    try:
        beside.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OWN | _NO_LINK
        with os.fdopen(os.open(beside, flags, 0o666), "wb") as file:
            _lock(file)  # says that the writer lives
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # of a folder that may only be read
            beside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder durable."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def whole_folder(path: Path, last: str = "") -> Iterator[Path]:
    """Yield a hidden folder whose content appears as ``path`` when the context ends without error.

    A folder that is not there appears at once. Into one that is there, what was written is moved
    entry by entry, in place of what had the same name, and the entry ``last`` behind the others.
    """
    path = Path(os.path.abspath(path))
    there = path.exists()
    staging = _beside(path / path.name if there else path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path if there else path.parent)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
    try:
        yield staging
        with writing(path):
            _appear(staging, path, last if there else None)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _appear(staging: Path, path: Path, last: str | None) -> None:
    """Rename a folder, or move its entries into one that is there, ``last`` behind the others."""
    if last is None:
        staging.rename(path)
    else:
        for entry in sorted(staging.iterdir(), key=lambda entry: entry.name == last):
            _move(entry, path / entry.name)
    sync_folder(path)


def _move(entry: Path, place: Path) -> None:
    if entry.is_dir() and place.is_dir() and not place.is_symlink():
        for below in entry.iterdir():
            _move(below, place / below.name)
    else:
        entry.replace(place)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.vaelab-{_machine()}-{os.getpid()}.part")


def _machine() -> str:
    """Return what tells machines and containers apart, whose processes have the same numbers."""
    space = "/proc/self/ns/pid"
    number = os.stat(space).st_ino if os.path.exists(space) else 0
    return f"{zlib.crc32(f'{platform.node()} {number}'.encode(errors='replace')):08x}"


def sweep(folder: Path) -> None:
    """Remove what processes left in a folder that were killed while they wrote."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _PART.fullmatch(entry.name)
            if not match and not _OLD_PART.fullmatch(entry.name):
                continue
            with contextlib.suppress(OSError):
                old = time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED
                gone = match and match[1] == _machine() and not _alive(int(match[2]))
                if not (old or gone) or _written(entry):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def _alive(pid: int) -> bool:
    if sys.platform == "win32":  # where the question would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _written(entry: os.DirEntry[str]) -> bool:
    """Tell whether a part is held by whoever writes it."""
    if not entry.is_file(follow_symlinks=False):
        return False
    with os.fdopen(os.open(entry.path, os.O_RDWR | _OWN | _NO_LINK | _AT_ONCE), "r+b") as file:
        return _lock(file) is False


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a lock file while the context lasts; yields False when another process holds it.

    The system lets go of the lock when a process ends, however it ends.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open_in_place(path, os.O_RDWR | os.O_CREAT)
    with os.fdopen(handle, "r+b") as file:
        mine = _lock(file)
        if mine is None:
            raise RunError(f"{shown(path)}: cannot be locked. Use another file system.")
        yield mine


def _lock(file: IO[bytes]) -> bool | None:
    """Tell whether a file is now locked; None where the file system has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # another process has it
        return False
    except OSError:
        return None
    return True
