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
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml

from vaelab.errors import RunError, cut, refuse_pickle
from vaelab.opening import (
    inside,
    locked,
    open_in_place,
    open_regular,
    read_at_most,
    shown,
    sweep,
    whole_folder,
    write_atomic,
    write_text,
    writing,
)
from vaelab.parsing import MAX_BYTES, parse_json

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT = "1"  # of the safetensors files: raised when an older vaelab could not read them
_MAX_HEAD = 2**26  # bytes that name the tensors of a file and hold its metadata
_MAX_LINE = 2**20  # bytes of a line of a log
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_YAML_HEAD = "# Written by vaelab; checked on reading. To change it, copy it. sha256: "


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read; raises `RunError` when there is none, or a link leads away."""
    refuse_pickle(path)
    try:
        with open_regular(path, path.parent) as file:
            yield file
    except FileNotFoundError:
        raise RunError(f"{path}: is missing.") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}).") from None


def read_bytes(path: Path) -> bytes:
    """Return the content of a file of settings or results; raises `RunError` as `_opened` does."""
    with _opened(path) as file:
        return read_at_most(file, MAX_BYTES, path)


def damaged(path: Path, why: str) -> RunError:
    """Return the error for a file whose content is not what was written."""
    return RunError(f"{path}: is damaged ({cut(why)}). Restore it from a copy, or train again.")


def read_text(path: Path, key: str) -> str:
    """Return the text under a key of what `write_json` wrote."""
    value = read_json(path).get(key)
    if not isinstance(value, str):
        raise damaged(path, f"{key}: must be text (got {value!r:.60})")
    return value


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able metadata as one safetensors file, with a checksum over both."""
    from safetensors.torch import save

    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(meta, sort_keys=True)
    # one key, for safetensors writes several in any order, and equal runs shall have equal bytes
    write_atomic(path, save(kept, {"vaelab": f"{_FORMAT} {_digest(kept, text)} {text}"}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the metadata of a file that `save_tensors` wrote."""
    from safetensors.torch import load

    data = _read_tensors(path)
    version, digest, text = _stamp(path, data)
    if version != _FORMAT:
        raise RunError(f"{path}: has format {version}; this version of vaelab reads {_FORMAT}.")
    try:
        tensors = load(data)
        right = digest == _digest(tensors, text)
    except Exception as error:  # parsers of hostile bytes raise nearly anything
        raise damaged(path, f"not a safetensors file of vaelab: {error}") from None
    if not right:
        raise damaged(path, "its checksum does not match")
    return tensors, _parse(path, text.encode(), "metadata")


def read_meta(path: Path) -> dict[str, Any]:
    """Return the metadata of a file of `save_tensors`, without reading or checking its tensors."""
    return _parse(path, _stamp(path, _head(path))[2].encode(), "metadata")


def checksum(path: Path) -> str:
    """Return the checksum that a file of `save_tensors` carries, without checking it."""
    return _stamp(path, _head(path))[1]


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise `RunError` for weights that are NaN or infinite, with the name of the first."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        if tensor.dtype.itemsize < 2:
            raise damaged(path, f"{name} is {tensor.dtype}, and weights have 16 bits or more")
        if not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise damaged(path, f"{bad:,} of {tensor.numel():,} weights of {name} are not finite")


def _read_tensors(path: Path) -> bytes:
    """Return a safetensors file, once its header says how long it is: others may have no end."""
    with _opened(path) as file:
        head = _head_of(file, path)
        wanted = len(head) + _length(path, head)
        file.seek(0)
        if (size := os.fstat(file.fileno()).st_size) != wanted:
            raise damaged(path, f"it has {size:,} bytes, and its header says {wanted:,}")
        try:
            return file.read()
        except MemoryError:
            raise RunError(
                f"{path}: has {size:,} bytes, more than there is memory. Use another machine."
            ) from None


def _length(path: Path, head: bytes) -> int:
    """Return how many bytes a header says that its tensors have."""
    try:
        parts = parse_json(head[8:])
        return max((part["data_offsets"][1] + 0 for k, part in parts.items() if k[:2] != "__"),
                   default=0)  # fmt: skip
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise damaged(path, f"not a safetensors file of vaelab: {error}") from None


def _head(path: Path) -> bytes:
    """Return the header of a safetensors file."""
    with _opened(path) as file:
        return _head_of(file, path)


def _head_of(file: BinaryIO, path: Path) -> bytes:
    start = file.read(8)
    size = int.from_bytes(start, "little")
    if size > min(_MAX_HEAD, os.fstat(file.fileno()).st_size):
        raise damaged(path, "not a safetensors file of vaelab: its header has no end")
    return start + file.read(size)


def _stamp(path: Path, data: bytes) -> tuple[str, str, str]:
    """Return format, checksum and metadata, as text, from the header of a file."""
    try:
        (size,) = struct.unpack("<Q", data[:8])
        version, digest, text = parse_json(data[8 : 8 + size])["__metadata__"]["vaelab"].split(
            " ", 2
        )
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise damaged(path, f"not a safetensors file of vaelab: {error}") from None
    return version, digest, text


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
    with _opened(path) as file:
        number = 0
        while line := file.readline(_MAX_LINE):
            number += 1
            if line.endswith(b"\n"):
                yield _entry(path, line, f"line {number}")
            elif len(line) == _MAX_LINE:
                raise damaged(path, f"line {number}: longer than {_MAX_LINE // 2**20} MiB")


def _entry(path: Path, line: bytes, where: str) -> dict[str, Any]:
    values = _parse(path, line, where)
    if values.pop("crc", None) != zlib.crc32(_canonical(values)):
        raise damaged(path, f"{where}: its checksum does not match")
    return values


def append(path: Path, text: str) -> None:
    """Add to the end of a file that is written in place, as a log is."""
    with (
        writing(path),
        os.fdopen(open_in_place(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as file,
    ):
        file.write(text.encode())


def truncate(path: Path, length: int) -> None:
    """Cut a file that is written in place."""
    with writing(path), os.fdopen(open_in_place(path, os.O_RDWR), "r+b") as file:
        file.truncate(length)
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Make durable what was added to a file."""
    with writing(path), os.fdopen(open_in_place(path, os.O_RDWR), "r+b") as file:
        os.fsync(file.fileno())


def crc_of(path: Path, length: int, start: int = 0, crc: int = 0) -> int:
    """Return the CRC-32 of the first ``length`` bytes, of which that of ``start`` is known."""
    with _opened(path) as file:
        file.seek(start)
        while start < length and (data := file.read(min(2**20, length - start))):
            crc, start = zlib.crc32(data, crc), start + len(data)
    return crc


def begins(path: Path, length: int, crc: int | None) -> bool:
    """Tell whether a file begins with a whole line of that end, and that CRC-32 if it is known."""
    if crc is not None:
        return crc_of(path, length) == crc
    with _opened(path) as file:
        file.seek(length - 1)
        return file.read(1) == b"\n"


def last_entry(path: Path, within: int = 4096) -> dict[str, Any] | None:
    """Return the last whole entry of a log that is being written, or None if there is none yet."""
    with _opened(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - within))
        lines = read_at_most(file, 2 * within, path).split(b"\n")[:-1]
    try:
        return _entry(path, lines[-1], "last line") if lines else None
    except RunError:
        return None


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV, None as an empty cell.

    Text that a spreadsheet would take for a formula (OWASP, CSV injection) gets an apostrophe in
    front; numbers stay as they are, whether they are given as such or as text.
    """
    text = "".join(f"{','.join(map(_cell, row))}\n" for row in rows)
    return text.encode(errors="backslashreplace").decode()  # printed or written


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
        values = parse_json(data)
    except ValueError as error:
        raise damaged(path, f"{where}: {error}") from None
    if not isinstance(values, dict):
        raise damaged(path, f"{where}: not a JSON object")
    return values


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode()


__all__ = [
    "append",
    "begins",
    "check_finite",
    "check_yaml",
    "checksum",
    "crc_of",
    "csv_text",
    "damaged",
    "inside",
    "last_entry",
    "load_tensors",
    "locked",
    "log_line",
    "open_regular",
    "read_bytes",
    "read_json",
    "read_log",
    "read_meta",
    "read_text",
    "save_tensors",
    "shown",
    "sweep",
    "sync",
    "truncate",
    "whole_folder",
    "write_atomic",
    "write_json",
    "write_text",
    "write_yaml",
]
