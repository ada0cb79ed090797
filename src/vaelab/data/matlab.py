"""Images of MATLAB files, versions 5 to 7.2; those of 7.3 are HDF5 files.

SVHN has ``X`` (32, 32, 3, N) and ``y`` (N, 1). The axis that counts images follows from the labels,
or from the images that are left: SciPy saves (N, H, W), and MATLAB (H, W, N).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaelab.data.arrays import ArraySource, is_plausible
from vaelab.data.mat5 import MatFile
from vaelab.data.named import IMAGES, LABELS, named_source, sort_names
from vaelab.data.pixel_columns import square_side
from vaelab.data.pixel_table import whole
from vaelab.data.pixels import Geometry, channels_first
from vaelab.data.readers import decoding, in_memory
from vaelab.data.store import default_budget
from vaelab.errors import DataError
from vaelab.opening import open_regular


def mat_source(path: Path, geometry: Geometry) -> ArraySource:
    """Images of a .mat file. Numbers alone are read: no object, no function."""
    with open_regular(path, error=DataError) as file:
        head = file.read(128)
    if head.startswith((b"MATLAB 7.3", b"\x89HDF")):
        from vaelab.data.hdf5 import hdf5_source

        return hdf5_source(path, geometry, matlab=True)
    where = str(path)
    with decoding(where):
        file_ = MatFile(path)
        plain = [entry for entry in file_.entries if entry.dtype is not None and entry.shape]
        size = sum(entry.size for entry in plain)
        if 2 * size > default_budget():
            raise DataError(
                f"{where}: needs {2 * size / 1e9:.1f} GB of memory, more than is free. Save it as "
                '.npy: numpy.save("images.npy", scipy.io.loadmat(PATH)["X"]).'
            )
        values = {entry.name: file_.read(entry) for entry in plain}
        for entry in file_.entries:
            if entry.is_text and (words := file_.texts(entry)) is not None:
                values[entry.name] = words
    others = sorted({entry.name for entry in file_.entries if entry.name} - {*values})
    return matlab_source(where, values, geometry, path, others)


def matlab_source(
    where: str,
    values: dict[str, NDArray[Any]],
    geometry: Geometry,
    path: Path,
    unread: list[str],
) -> ArraySource:
    """Images of MATLAB's arrays, their axes in the order of MATLAB."""
    usual, notes = sort_names(list(values)), []
    found = dict(usual.found)
    if not any(kind == IMAGES for _, kind in found):
        large = [n for n, a in values.items() if a.ndim in (3, 4) and a.dtype.kind != "U"]
        if len(large) == 1:
            found[0, IMAGES] = large[0]
            notes.append(f"{where}: `{large[0]}` was read as the images.")
    arrays = {}
    for (part, kind), name in found.items():
        array = values[name]
        if kind == IMAGES:
            labels = values.get(found.get((part, LABELS), ""))
            array, said = images_first(array, _count(labels), name)
            notes.append(f"{where}: {said}")
            array = whole(array)
        elif kind == LABELS and min(array.shape, default=0) == 1:
            array = array.ravel()
        prefix = ("", "val_", "test_", "unlabeled_")[part]
        arrays[f"{prefix}{kind}"] = in_memory(array, f"{where}[{name}]")
    for kind, name in usual.names.items():
        if values[name].dtype.kind == "U":
            arrays["class_names" if kind == LABELS else "attribute_names"] = in_memory(
                values[name], f"{where}[{name}]"
            )
    remedy = 'Save them with numpy.savez("a.npz", images=scipy.io.loadmat(PATH)["NAME"]).'
    if not any(name.endswith(IMAGES) for name in arrays):
        listed = ", ".join(sorted([*values, *unread])) or "nothing"
        raise DataError(f"{where}: holds {listed}, and none is named as images are. {remedy}")
    source = named_source(where, arrays, geometry, remedy, path, counted=True)
    left = sorted({*values} - {*found.values(), *usual.names.values()} | {*unread})
    if left:
        notes.append(f"{where}: {', '.join(left[:8])} left alone.")
    source.notes[:0] = notes
    return source


def _count(labels: NDArray[Any] | None) -> int | None:
    """How many images there are by their labels: a row, a column, or rows of several."""
    if labels is None:
        return None
    return labels.size if min(labels.shape, default=0) <= 1 else len(labels)


def images_first(array: NDArray[Any], count: int | None, name: str) -> tuple[NDArray[Any], str]:
    """Bring the axis that counts images to the front; returns the array and what was assumed.

    It is the one as long as there are labels; else the first, as NumPy has it, or the last, as
    MATLAB has it, whichever leaves square images, or else images of a likely shape. Rows or columns
    of pixels become square images.

    Raises:
        DataError: no axis fits, or several do.
    """
    if array.ndim == 2:
        return _square_rows(array, count, name)
    if count is None and array.ndim == 3 and array.shape[2] in (3, 4):
        if is_plausible(*array.shape[:2]):
            return array[None], f"`{name}` {array.shape} was read as one image."
    axis = _counting(array.shape, count, name)
    why = f"as there are {count:,} labels" if count is not None else "which leaves images of "
    if count is None:
        why += "×".join(str(side) for k, side in enumerate(array.shape) if k != axis)
    said = f"axis {axis + 1} of `{name}` {array.shape} counts the images, {why}."
    return np.moveaxis(array, axis, 0), said


def _fits(shape: tuple[int, ...], count: int | None, name: str) -> list[int]:
    """The axes that can count the images."""
    if count is None:
        return [0, len(shape) - 1]
    fits = [axis for axis, side in enumerate(shape) if side == count]
    if not fits:
        raise DataError(
            f"{name}: has shape {shape} and there are {count:,} labels: no axis fits. Save one "
            "label an image."
        )
    return fits


def _counting(shape: tuple[int, ...], count: int | None, name: str) -> int:
    """The axis that counts images, by what is left of the others."""
    ranks = {axis: _rank(shape[:axis] + shape[axis + 1 :]) for axis in _fits(shape, count, name)}
    best = [axis for axis, rank in ranks.items() if rank == max(ranks.values())]
    if len(best) > 1:
        sides = " or ".join(str(axis + 1) for axis in best)
        raise DataError(
            f"{name}: has shape {shape}, and axis {sides} may count the images. Save them with "
            f'the images first: numpy.savez("a.npz", images=scipy.io.loadmat(PATH)["{name}"]), '
            "with .transpose(2, 0, 1) if the last axis counts them."
        )
    return best[0]


def _rank(shape: tuple[int, ...]) -> int:
    """How likely this is the shape of one image: 3 square, 2 likely, 1 long, 0 none."""
    try:
        (_, height, width), _ = channels_first(shape)
    except DataError:
        return 0
    return 3 if height == width else 2 if is_plausible(height, width) else 1


def _square_rows(array: NDArray[Any], count: int | None, name: str) -> tuple[NDArray[Any], str]:
    """Rows or columns of pixels as square images."""
    fits = [axis for axis in _fits(array.shape, count, name) if square_side(array.shape[1 - axis])]
    if len(fits) == 2:
        raise DataError(
            f"{name}: has shape {array.shape}, and its rows or its columns may be the images. "
            'Reshape it: numpy.savez("a.npz", images=array.reshape(-1, HEIGHT, WIDTH)), with '
            "array.T for columns."
        )
    axis = fits[0] if fits else _fits(array.shape, count, name)[-1]
    rows = np.moveaxis(array, axis, 0)
    side = square_side(rows.shape[1])
    if not side:
        raise DataError(
            f"{name}: {rows.shape[1]:,} numbers an image are no square. Reshape it: "
            f'numpy.savez("a.npz", images=array.reshape(-1, HEIGHT, WIDTH)).'
        )
    said = f"`{name}` {array.shape} was read as {len(rows):,} images of {side}×{side}, row by row."
    return rows.reshape(-1, side, side), said
