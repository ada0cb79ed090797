"""Images of MATLAB files, versions 5 to 7.2; those of 7.3 are HDF5 files.

SVHN has ``X`` (32, 32, 3, N) and ``y`` (N, 1). Which axis counts the images is told by the labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaelab.data.arrays import ArraySource
from vaelab.data.mat5 import MatFile
from vaelab.data.named import IMAGES, LABELS, named_source, sort_names
from vaelab.data.pixel_table import square_side, whole
from vaelab.data.pixels import Geometry
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
    told, notes = sort_names(list(values)), []
    found = dict(told.found)
    if not any(kind == IMAGES for _, kind in found):
        large = [name for name, array in values.items() if array.ndim in (3, 4)]
        if len(large) == 1:
            found[0, IMAGES] = large[0]
            notes.append(f"{where}: `{large[0]}` was read as the images.")
    arrays = {}
    for (part, kind), name in found.items():
        array = values[name]
        if kind == IMAGES:
            labels = values.get(found.get((part, LABELS), ""))
            array, said = images_first(array, None if labels is None else labels.size, name)
            notes.append(f"{where}: {said}")
            array = whole(array)
        elif kind == LABELS and min(array.shape, default=0) == 1:
            array = array.ravel()
        prefix = ("", "val_", "test_")[part]
        arrays[f"{prefix}{kind}"] = in_memory(array, f"{where}[{name}]")
    remedy = 'Save them with numpy.savez("a.npz", images=scipy.io.loadmat(PATH)["NAME"]).'
    if not any(name.endswith(IMAGES) for name in arrays):
        listed = ", ".join(sorted([*values, *unread])) or "nothing"
        raise DataError(f"{where}: holds {listed}, and none is named as images are. {remedy}")
    source = named_source(where, arrays, geometry, remedy, path)
    left = sorted({*values} - {*found.values()} | {*unread})
    if left:
        notes.append(f"{where}: {', '.join(left[:8])} left alone.")
    source.notes[:0] = notes
    return source


def images_first(array: NDArray[Any], count: int | None, name: str) -> tuple[NDArray[Any], str]:
    """Bring the axis that counts images to the front; returns the array and what was assumed.

    It is the one as long as there are labels, the last of several, as MATLAB has it; without labels
    the last. Rows or columns of pixels become square images.

    Raises:
        DataError: no axis fits.
    """
    fits = [axis for axis, side in enumerate(array.shape) if side == count]
    if count is not None and not fits:
        raise DataError(
            f"{name}: has shape {array.shape} and there are {count:,} labels: no axis fits. Save "
            "one label an image."
        )
    axis = fits[-1] if fits else array.ndim - 1
    why = f"as there are {count:,} labels" if fits else "as usual in MATLAB"
    if array.ndim == 2:
        if not fits and not square_side(array.shape[0]):
            axis = 0
        rows = np.moveaxis(array, axis, 0)
        side = square_side(rows.shape[1])
        if not side:
            raise DataError(
                f"{name}: {rows.shape[1]:,} numbers an image are no square. Reshape it: "
                f'numpy.savez("a.npz", images=array.reshape(-1, HEIGHT, WIDTH)).'
            )
        said = (
            f"`{name}` {array.shape} was read as {len(rows):,} images of {side}×{side}, row by row."
        )
        return rows.reshape(-1, side, side), said
    said = f"axis {axis + 1} of `{name}` {array.shape} counts the images, {why}."
    return np.moveaxis(array, axis, 0), said
