"""Files that are whole or absent, and that know when they were damaged.

Everything is written beside its place, flushed to disk and renamed, so that a kill at any moment
leaves the old file or the new one. Every file carries a checksum of its content; reading one that
does not match is a `RunError`, never a wrong value. Tensors are safetensors files: reading them
cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import yaml

from vaelab.errors import RunError, refuse_pickle

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT = "1"  # of the safetensors files: raised when an older vaelab could not read them
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_YAML_HEAD = "# Written by vaelab; checked on reading. To change it, copy it. sha256: "


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the file ``path`` by ``data``, or leave it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # makes the rename itself durable
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a lock file while the context lasts; yields False when another process holds it.

    The system lets go of the lock when a process ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        yield _lock(file)


def _lock(file: IO[str]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # another process has it
        return False
    except OSError as error:
        raise RunError(
            f"{file.name}: cannot be locked ({error.strerror}). Use another file system."
        ) from None
    return True


def read_bytes(path: Path) -> bytes:
    """Return the content of a file; raises `RunError` when there is none."""
    refuse_pickle(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path}: is missing.") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}).") from None


def damaged(path: Path, why: str) -> RunError:
    """Return the error for a file whose content is not what was written."""
    return RunError(f"{path}: is damaged ({why}). Restore it from a copy, or train again.")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able metadata as one safetensors file, with a checksum over both."""
    from safetensors.torch import save

    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(meta, sort_keys=True)
    # one key, for safetensors writes several in any order, and equal runs shall have equal bytes
    write_atomic(path, save(kept, {"vaelab": f"{_FORMAT} {_digest(kept, text)} {text}"}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the metadata of a file that `save_tensors` wrote."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_bytes(path)
    try:
        tensors = load(data)
        (size,) = struct.unpack("<Q", data[:8])
        both = json.loads(data[8 : 8 + size])["__metadata__"]["vaelab"]
        version, digest, text = both.split(" ", 2)
    except (
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        struct.error,
    ) as error:
        raise damaged(path, f"not a safetensors file of vaelab: {error}") from None
    if version != _FORMAT:
        raise RunError(f"{path}: has format {version}; this version of vaelab reads {_FORMAT}.")
    if digest != _digest(tensors, text):
        raise damaged(path, "its checksum does not match")
    values: dict[str, Any] = json.loads(text)
    return tensors, values


def checksum(path: Path) -> str:
    """Return the checksum that a file of `save_tensors` carries, without checking it."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise RunError(f"{path}: is missing.")
    try:
        with safe_open(path, "pt") as file:
            return str(file.metadata()["vaelab"]).split(" ")[1]
    except (SafetensorError, OSError, KeyError, TypeError, IndexError) as error:
        raise damaged(path, f"not a safetensors file of vaelab: {error}") from None


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    import torch

    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object with a checksum in ``sha256``."""
    digest = hashlib.sha256(_canonical(values)).hexdigest()
    text = json.dumps({**values, "sha256": digest}, indent=2, allow_nan=False)
    write_atomic(path, text.encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return what `write_json` wrote."""
    values = _parse(path, read_bytes(path))
    if values.pop("sha256", None) != hashlib.sha256(_canonical(values)).hexdigest():
        raise damaged(path, "its checksum does not match")
    return values


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Write a YAML mapping under a comment that holds its checksum."""
    body = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    write_atomic(path, f"{_YAML_HEAD}{digest}\n{body}".encode())


def check_yaml(path: Path) -> None:
    """Raise `RunError` unless the file is exactly what `write_yaml` wrote."""
    head, _, body = read_bytes(path).partition(b"\n")
    if head.decode(errors="replace") != _YAML_HEAD + hashlib.sha256(body).hexdigest():
        raise damaged(path, "its checksum does not match: it was changed since vaelab wrote it")


def log_line(values: Mapping[str, Any]) -> str:
    """Return one line of a log: JSON with a checksum in ``crc``."""
    crc = zlib.crc32(_canonical(values))
    return json.dumps({**values, "crc": crc}) + "\n"


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a log; a half-written last line, as a kill leaves it, is left out."""
    lines = read_bytes(path).split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        values = _parse(path, line, f"line {number}")
        if values.pop("crc", None) != zlib.crc32(_canonical(values)):
            raise damaged(path, f"line {number}: its checksum does not match")
        yield values


def last_entry(path: Path, within: int = 4096) -> dict[str, Any] | None:
    """Return the last whole entry of a log that is being written, or None if there is none yet."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - within))
        lines = file.read().split(b"\n")[:-1]
    try:
        values = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV, None as an empty cell.

    Text that a spreadsheet would take for a formula (OWASP, CSV injection) gets an apostrophe in
    front; numbers stay as they are, whether they are given as such or as text.
    """
    text = "".join(f"{','.join(map(_cell, row))}\n" for row in rows)
    return text.encode(errors="backslashreplace").decode()  # names of files may be any bytes


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        try:
            float(value)
        except ValueError:
            text = f"'{value}"
    quoted = text.replace('"', '""')
    return f'"{quoted}"' if any(mark in text for mark in ',"\r\n') else text  # csv leaves \r bare


def _parse(path: Path, data: bytes, where: str = "content") -> dict[str, Any]:
    try:
        values = json.loads(data)
    except ValueError as error:
        raise damaged(path, f"{where}: {error}") from None
    if not isinstance(values, dict):
        raise damaged(path, f"{where}: not a JSON object")
    return values


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode()
