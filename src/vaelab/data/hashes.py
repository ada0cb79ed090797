"""Hashes of images that stay in a file: computed in one pass, and kept in the cache beside it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, from_numpy, int64

from vaelab import files
from vaelab.data.filed import FileImages
from vaelab.data.images import ImageSet
from vaelab.data.source import Source
from vaelab.errors import RunError


def hash_all(images: ImageSet, source: Source, cache: Path) -> None:
    """Have the hashes of all images of a source at hand; see `ImageSet.hashes`.

    Those of images in a cached file are taken from the cache, under what the file itself is known
    by: to read it again would take seconds a gigabyte.
    """
    if not isinstance(images.images, FileImages) or source.place is None:
        _ = images.hashes
        return
    about = f"{source.place}\0{source.digest}\0{source.geometry}\0{images.shape}"
    key = hashlib.sha256(about.encode(errors="surrogateescape")).hexdigest()[:32]
    path = cache / "hashes" / f"{key}.safetensors"
    with contextlib.suppress(RunError, KeyError):  # not there yet, or damaged
        kept, _ = files.load_tensors(path)
        check_hashes(kept, path)
        found = kept["hashes"].numpy()
        if found.shape == (len(images),):
            images.__dict__["hashes"] = found
            return
    values = from_numpy(images.hashes)
    with contextlib.suppress(OSError):  # a cache that cannot be written is done without
        files.save_tensors(path, {"hashes": values}, {"images": len(images)})


def check_hashes(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise `RunError` for hashes that are none: others would match no image, and say nothing."""
    for name, tensor in tensors.items():
        if tensor.dtype != int64 or tensor.ndim != 1:
            shape = tuple(tensor.shape)
            raise files.damaged(path, f"{name} is {tensor.dtype} of shape {shape}, not hashes")
