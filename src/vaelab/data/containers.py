"""Files that hold many images, by their ending; what is not read is named, with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vaelab.data.arrays import ArraySource, Piece
from vaelab.data.hdf5 import hdf5_source
from vaelab.data.matlab import mat_source
from vaelab.data.named import named_source
from vaelab.data.parquet import parquet_source
from vaelab.data.pixel_table import csv_source
from vaelab.data.pixels import Geometry
from vaelab.data.readers import npy, npz
from vaelab.data.source import Source
from vaelab.errors import DataError, PickleError
from vaelab.opening import open_regular


def npy_source(path: Path, geometry: Geometry) -> ArraySource:
    """Images of a .npy file."""
    pieces = [Piece(npy(path, str(path)))]
    return ArraySource(str(path), pieces, geometry, path, [path], counted=False)


def npz_source(path: Path, geometry: Geometry) -> ArraySource:
    """Images of a .npz file with ``images`` and what goes with them.

    It may also hold ``labels``, ``attributes``, ``class_names``, ``attribute_names``, and
    ``test_images``, ``test_labels``, ``test_attributes``; or have the names of Keras or MedMNIST.
    """
    remedy = "Save them with numpy.savez(path, images=...)."
    return named_source(str(path), npz(path, str(path)), geometry, remedy, path)


READERS: dict[str, Callable[[Path, Geometry], Source]] = {
    ".npy": npy_source,
    ".npz": npz_source,
    ".csv": csv_source,
    ".tsv": csv_source,
    ".mat": mat_source,
    ".h5": hdf5_source,
    ".hdf5": hdf5_source,
    ".hdf": hdf5_source,
    ".he5": hdf5_source,
    ".parquet": lambda path, geometry: parquet_source(path, [path], geometry),
}
"""How a file is read, by its ending in small letters."""

UNREAD = {
    ".tfrecord": 'a TFRecord, which names no shapes. In TensorFlow: numpy.save("images.npy", '
    "numpy.stack(list(data.as_numpy_iterator())))",
    ".tar": "an archive. Unpack it: tar -xf {name}",
    ".tgz": "an archive. Unpack it: tar -xzf {name}",
    ".gz": "a compressed file. Unpack it: gunzip {name}, or tar -xzf {name} for a .tar.gz",
    ".bz2": "a compressed file. Unpack it: bunzip2 {name}, or tar -xjf {name} for a .tar.bz2",
    ".xz": "a compressed file. Unpack it: unxz {name}, or tar -xJf {name} for a .tar.xz",
    ".zst": "a compressed file. Unpack it: unzstd {name}",
    ".7z": "an archive. Unpack it: 7z x {name}",
    ".rar": "an archive. Unpack it: unrar x {name}",
    ".zip": "an archive. Unpack it: unzip {name}",
    ".mdb": "an LMDB. Write its images to a folder: open(name, 'wb').write(value) for each value",
    ".lmdb": "an LMDB. Write its images to a folder: open(name, 'wb').write(value) for each value",
    ".arrow": 'an Arrow file. In Python: vaelab.train("vae", datasets.Dataset.from_file("{name}"))',
    ".feather": 'a Feather file. In Python: vaelab.train("vae", pandas.read_feather("{name}"))',
    ".xlsx": "a workbook. Save the sheet as CSV",
    ".dcm": 'DICOM. Convert it: imageio.imwrite("a.png", pydicom.dcmread("{name}").pixel_array)',
    ".nii": 'NIfTI. Save its slices: numpy.save("images.npy", '
    'nibabel.load("{name}").get_fdata().transpose(2, 0, 1)), scaled to [0, 1]',
    ".fits": 'FITS. Save its numbers: numpy.save("images.npy", astropy.io.fits.getdata("{name}")'
    "), scaled to [0, 1]",
    ".zarr": 'Zarr. Save its numbers: numpy.save("images.npy", zarr.open("{name}")[:])',
    ".safetensors": "safetensors. Save its images: numpy.savez"
    '("images.npz", **safetensors.numpy.load_file("{name}"))',
    ".mp4": "a video. Save its frames: ffmpeg -i {name} frames/%05d.png",
    ".avi": "a video. Save its frames: ffmpeg -i {name} frames/%05d.png",
    ".mov": "a video. Save its frames: ffmpeg -i {name} frames/%05d.png",
}
"""What a file is that is not read, and what turns it into one that is."""

_PICKLED = {
    ".pt": 'numpy.savez("images.npz", images=torch.load("{name}", weights_only=True).numpy())',
    ".pth": 'numpy.savez("images.npz", images=torch.load("{name}", weights_only=True).numpy())',
    "": 'numpy.savez("images.npz", images=pickle.load(open("{name}", "rb"), encoding="bytes")'
    '[b"data"].reshape(-1, 3, 32, 32))',
}


def file_source(path: Path, geometry: Geometry) -> Source:
    """Images of a file that holds many.

    Raises:
        DataError: it is of no kind that is read; says which, and what converts it.
    """
    suffix = path.suffix.lower()
    if suffix in READERS:
        return READERS[suffix](path, geometry)
    refuse_pickled_images(path)
    if suffix in UNREAD:
        raise DataError(f"{path}: is {UNREAD[suffix].format(name=path.name)}.")
    head = _head(path)
    if head[:3] in (b"\0\0\x08", b"\0\0\x0d") or "ubyte" in path.name:
        raise DataError(f"{path}: is an IDX file. Pass the folder that it is in.")
    raise DataError(
        f"{path}: is no image, and no file of images that is read: {', '.join(READERS)}. Pass an "
        "image, one of these, or a folder of images or IDX files."
    )


def refuse_pickled_images(path: Path) -> None:
    """Raise `PickleError` for images in pickle, with the line that converts them."""
    suffix = path.suffix.lower()
    if suffix in READERS:
        return
    if _head(path)[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        line = _PICKLED.get(suffix, _PICKLED[""]).format(name=path.name)
        raise PickleError(
            f"{path}: is pickle, which runs any code that the file holds as soon as it is opened, "
            f"so vaelab opens none. If you trust it, convert it: {line}."
        )


def _head(path: Path) -> bytes:
    with open_regular(path, error=DataError) as file:
        return file.read(16)
