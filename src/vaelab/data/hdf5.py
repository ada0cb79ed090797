"""Images of HDF5 files, if h5py is installed; MATLAB's version 7.3 is HDF5 with its axes reversed.

Only what the file itself holds is read: no link, external or virtual data set leads out of it.
Text of variable length is left alone: in a damaged file the HDF5 library looks for it for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaelab.data.arrays import ArraySource
from vaelab.data.named import named_source
from vaelab.data.pixels import Geometry
from vaelab.data.readers import Array, decoding
from vaelab.data.store import default_budget
from vaelab.errors import DataError

_MOST = 10_000  # names of a file that are looked at


def hdf5_source(path: Path, geometry: Geometry, matlab: bool = False) -> ArraySource:
    """Images of an .h5 file, streamed."""
    where = str(path)
    try:
        import h5py
    except ImportError:
        line = 'numpy.savez("a.npz", images=h5py.File(PATH)["NAME"][:])'
        raise DataError(
            f"{where}: is {'a MATLAB 7.3' if matlab else 'an HDF5'} file, which takes h5py. "
            f"Install it (pip install 'vaelab[hdf5]'), or convert the file: {line}."
        ) from None
    with decoding(where), h5py.File(path, "r") as file:
        found = dict(_walk(h5py, file, ""))
        arrays = {
            name: _array(h5py, path, name, found[name].shape, found[name].dtype)
            for name in found
            if found[name].shape
            and found[name].dtype.kind in "buif"
            and not (matlab and _is_letters(found[name]))
        }
        texts = {
            name: _text(found[name], f"{where}[{name}]")
            for name in found
            if found[name].dtype.kind == "S" and len(found[name].shape or ()) == 1
        }
    unread = sorted(name for name in found if name not in arrays and name not in texts)
    if matlab:
        from vaelab.data.matlab import matlab_source

        size = sum(prod(array.shape) * array.dtype.itemsize for array in arrays.values())
        if 2 * size > default_budget():
            raise DataError(f"{where}: needs {2 * size / 1e9:.1f} GB of memory. Save it as .npy.")
        values = {name: array.read().T for name, array in arrays.items()}
        return matlab_source(where, values, geometry, path, [*unread, *texts])
    named = {name.replace("/", "_"): array for name, array in (arrays | texts).items()}
    remedy = 'Save them with numpy.savez("a.npz", images=h5py.File(PATH)["NAME"][:]).'
    source = named_source(where, named, geometry, remedy, path)
    if unread:
        listed, are = ", ".join(unread[:8]), "it is" if len(unread) == 1 else "they are"
        source.notes.append(
            f"{where}: {listed} left alone, as {are} no arrays of numbers or of text of one length "
            "(numpy.array(words, 'S'))."
        )
    return source


def _is_letters(item: Any) -> bool:
    """Whether numbers are letters, as MATLAB marks them."""
    return item.dtype == np.uint16 and "MATLAB_int_decode" in item.attrs


def _walk(h5py: Any, group: Any, below: str) -> Iterator[tuple[str, Any]]:
    """Data sets by their path, with no link followed."""
    if below.count("/") > 4:
        return
    for count, name in enumerate(group):
        if count >= _MOST:
            raise DataError(f"{group.file.filename}: holds too many names. Save one array.")
        if name.startswith("#") or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _walk(h5py, item, f"{below}{name}/")
        elif isinstance(item, h5py.Dataset) and not item.is_virtual and not item.external:
            yield below + name, item


def _array(h5py: Any, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    def chunks(rows: int) -> Iterator[NDArray[Any]]:
        with decoding(str(path)), h5py.File(path, "r") as file:
            for start in range(0, shape[0], rows):
                yield file[name][start : start + rows]

    return Array(f"{path}[{name}]", shape, dtype, chunks)


def _text(item: Any, where: str) -> Array:
    """Names as an array of text, read when they are asked for, if they are few."""
    if item.shape[0] * item.dtype.itemsize > 2**26:
        raise DataError(f"{where}: holds {item.shape[0]:,} texts. Number the classes.")
    words = [word.decode(errors="replace") for word in item[:].tolist()]
    values = np.array(words, str)
    return Array(where, values.shape, values.dtype, lambda _: iter([values]))
