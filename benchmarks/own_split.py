"""vaelab's own split of a set, written once as arrays, so that all contenders have the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fetch
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Images ``(N, C, H, W)``."""


@dataclass(frozen=True)
class Parts:
    """One split of a set, the same for all contenders.

    Arguments:
        train: images that all train on.
        validation: images that nothing here trains on.
        test: images that are reconstructed.
        reference: at most 5,000 real images that samples are compared with: validation and test
            images; of photos, other crops of the photos trained on, as samples cannot be like
            photos that no model has seen.
        labels: class of each training image, for the reference classifier.
        reference_labels: of each reference image, −1 where the training images have no such.
    """

    train: Pixels
    validation: Pixels
    test: Pixels
    reference: Pixels
    labels: NDArray[np.int64]
    reference_labels: NDArray[np.int64]


def parts_of(out: Path, data: str, settings: dict[str, Any], more: Path | None = None) -> Parts:
    """Return vaelab's own split of a set, written as arrays where ``out`` is not there yet.

    more: a folder of other crops of the same photos.
    """
    if not out.is_dir():
        with fetch.whole(out) as partial:
            _write(partial, data, settings, more)
    names = ("train", "validation", "test", "reference", "train-labels", "reference-labels")
    return Parts(*(np.load(out / f"{part}.npy") for part in names))


def _write(out: Path, data: str, settings: dict[str, Any], more: Path | None) -> None:
    import vaelab

    splits = vaelab.load_data(data, **settings)
    for part in ("train", "validation", "test"):
        np.save(out / f"{part}.npy", on_white(np.asarray(getattr(splits, part).images)))
    np.save(out / "test-as-read.npy", np.asarray(splits.test.images))
    np.save(out / "train-labels.npy", _labels(splits.train, splits.train))
    whole = splits if more is None else vaelab.load_data(more)
    parts = [whole.validation, whole.test, *([] if more is None else [whole.train])]
    images = np.concatenate([on_white(np.asarray(part.images)) for part in parts])
    labels = np.concatenate([_labels(part, splits.train) for part in parts])
    seen = np.flatnonzero(labels >= 0) if more is not None else np.arange(len(labels))
    index = np.random.default_rng(0).permutation(seen)[:5_000]
    np.save(out / "reference.npy", images[index])
    np.save(out / "reference-labels.npy", labels[index])


def _labels(images: Any, train: Any) -> Any:
    """Return the class of each image for the reference classifier; of crops, their photo."""
    if images.labels is not None:
        return images.labels.numpy()
    known = {photo: i for i, photo in enumerate(sorted({_photo(each) for each in train.names}))}
    return np.array([known.get(_photo(each), -1) for each in images.names])


def _photo(name: str) -> str:
    return name.rsplit("-", 1)[0]


def on_white(images: Pixels) -> Pixels:
    """Return images ``(N, C, H, W)`` without the fourth of four channels."""
    if images.shape[1] != 4:
        return images
    alpha = images[:, 3:] / 255.0
    pixels: Pixels = np.round(images[:, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return pixels
