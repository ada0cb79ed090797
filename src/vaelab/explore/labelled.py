"""A folder of made images with their labels, that any other tool can train on.

DIR/images/CLASS/00000.png  or DIR/images.npz with ``images``, ``labels`` and ``class_names``
DIR/neighbours.png          some of them, each beside the training image that it is the nearest to
DIR/manifest.yaml           how they were made
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from vaelab import files
from vaelab.data.images import ImageSet
from vaelab.errors import ConfigError
from vaelab.explore.augment import Made
from vaelab.explore.grids import grid, png, save_arrays, save_png
from vaelab.opening import DEVICES

Format = Literal["folder", "npz"]
_SHOWN = 5  # of each class
_HIDDEN = r"\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(rf'[/\\<>:"|?*{_HIDDEN}]+' if os.name == "nt" else rf"[/\\{_HIDDEN}]+")


def check_empty(folder: Path) -> None:
    """Raise `ConfigError` when a folder holds something already.

    What a killed call left is removed: it begins anew.
    """
    files.sweep(folder if folder.is_dir() else folder.parent)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is not empty. Choose another --out.")


def write_labelled(
    folder: Path, made: Made, seen: ImageSet, manifest: Mapping[str, Any], form: Format = "folder"
) -> Path:
    """Write made images, some beside their nearest training images, and the manifest.

    All of it appears at once, so that no half of a set is ever taken for a set. Returns what to
    give to ``--data``.

    Arguments:
        folder: new or empty.
        made: the images.
        seen: the images that ``made.nearest`` counts.
        manifest: how they were made; counts and measures are added.
        form: a folder for each class, or one npz.
    """
    check_empty(folder)
    names = seen.class_names
    counts = torch.bincount(made.labels, minlength=len(names)).tolist()
    measures = {
        "made": made.tried,
        "kept": len(made.labels),
        "images of each class": dict(zip(names, counts, strict=True)),
        "median nearness": round(float(made.nearness.median()), 4),
        "least nearness": round(float(made.nearness.min()), 4),
    }
    if made.confidence is not None:
        measures["mean confidence"] = round(float(made.confidence.mean()), 4)
    images = "images" if form == "folder" else "images.npz"
    with files.whole_folder(folder, last="manifest.yaml") as place:
        _write_images(place / images, made, names, form)
        save_png(place / "neighbours.png", neighbours(made, seen))
        files.write_yaml(place / "manifest.yaml", {**manifest, **measures})
    return folder / images


def _write_images(place: Path, made: Made, names: tuple[str, ...], form: Format) -> None:
    if form == "npz":
        pixels, labels = made.images.numpy(), made.labels.numpy()
        save_arrays(place, images=pixels, labels=labels, class_names=list(names))
        return
    for label, name in enumerate(folder_names(names)):
        rows = (made.labels == label).nonzero().squeeze(1)
        for number, row in enumerate(rows.tolist()):
            files.write_atomic(place / name / f"{number:05}.png", as_png(made.images[row]))


def as_png(image: torch.Tensor) -> bytes:
    """Return one 8-bit image ``(C, H, W)`` as a PNG file of its own size."""
    pixels = image.permute(1, 2, 0).numpy()
    return png(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def neighbours(made: Made, seen: ImageSet, each: int = _SHOWN, columns: int = 2 * _SHOWN) -> Any:
    """Return the first made images of each class, each left of its nearest training image."""
    rows = torch.cat(
        [(made.labels == k).nonzero().squeeze(1)[:each] for k in made.labels.unique().tolist()]
    )
    pairs = torch.stack([made.images[rows], seen.take(made.nearest[rows]).cpu()], 1)
    return grid(pairs.flatten(0, 1), min(columns, 2 * len(pairs)))


def folder_names(classes: tuple[str, ...]) -> list[str]:
    """Return a name of a folder for each class: the class where that can be, and always unique.

    Also where the file system does not tell capital letters from small ones.
    """
    found: list[str] = []
    taken = {"", "train", "val", "valid", "validation", "test", *DEVICES}
    for number, name in enumerate(classes):
        safe = _UNSAFE.sub("_", unicodedata.normalize("NFC", name))[:60].strip(" .")
        while safe.casefold() in taken:
            safe = f"{safe or 'class'}-{number}"
        taken.add(safe.casefold())
        found.append(safe)
    return found
