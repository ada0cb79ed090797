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
        labels: class of each training image, for the reference classifier.
        validation_labels: of each validation image, −1 where the training images have no such.
    """

    train: Pixels
    validation: Pixels
    test: Pixels
    labels: NDArray[np.int64]
    validation_labels: NDArray[np.int64]

    @property
    def held_out(self) -> Pixels:
        """At most 5,000 validation and test images."""
        both = np.concatenate([self.validation, self.test])
        return both[np.random.default_rng(0).permutation(len(both))[:5_000]]


def parts_of(name: str, folder: Path, data: str, settings: dict[str, Any]) -> tuple[Path, Parts]:
    """Return the folder of the arrays of a set, and them: vaelab's own split, written once."""
    import vaelab

    out = folder / "splits" / name
    if not out.is_dir():
        splits = vaelab.load_data(data, **settings)
        with fetch.whole(out) as partial:
            for part in ("train", "validation", "test"):
                images = np.asarray(getattr(splits, part).images)
                np.save(partial / f"{part}.npy", on_white(images))
                np.save(
                    partial / f"{part}-labels.npy", _labels(getattr(splits, part), splits.train)
                )
            np.save(partial / "test-as-read.npy", np.asarray(splits.test.images))
    arrays = [np.load(out / f"{part}.npy") for part in ("train", "validation", "test")]
    labels = [np.load(out / f"{part}-labels.npy") for part in ("train", "validation")]
    return out, Parts(*arrays, *labels)


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
