"""Codes of many images, as a table for other tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vaelab.data.images import ImageSet
from vaelab.explore.grids import save_arrays, unknown_suffix
from vaelab.files import csv_text, write_text
from vaelab.models.vae import Vae


def encode_to_file(model: Vae, images: ImageSet, path: Path | str) -> None:
    """Write mean and deviation of q(z|x) of every image, whole or not at all.

    ``.npz`` holds ``mu`` and ``sigma``, float32 ``(N, D)``, ``files``, the name of each image, and
    ``labels``, the name of its class, empty where unknown, where there are classes; ``.csv`` has
    the columns ``index, file, label, mu_0 … , sigma_0 …``, with digits that give back the same
    float32. Names that a spreadsheet would run are written as `vaelab.files.csv_text` does.

    Raises:
        ConfigError: the name ends otherwise.
        DataError: the images do not have the model's shape.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".csv"):
        raise unknown_suffix(path, ".csv for a table", ".npz for arrays")
    parts = [torch.stack(model.posterior(chunk), 1).cpu() for chunk in images.chunks(model.rows)]
    mu, sigma = torch.cat(parts).unbind(1)
    files = [images.name(index) for index in range(len(images))]
    labels = None if images.labels is None else images.class_of_each()
    if path.suffix == ".npz":
        known = {} if labels is None else {"labels": np.array(labels)}
        save_arrays(path, mu=mu.numpy(), sigma=sigma.numpy(), files=np.array(files), **known)
    else:
        table = _table(mu.numpy(), sigma.numpy(), files, labels or [""] * len(files))
        write_text(path, table)


def _table(
    mu: NDArray[np.float32], sigma: NDArray[np.float32], files: list[str], labels: list[str]
) -> str:
    dims = range(mu.shape[1])
    means, deviations = [f"mu_{d}" for d in dims], [f"sigma_{d}" for d in dims]
    rows: list[list[object]] = [["index", "file", "label", *means, *deviations]]
    for index, row in enumerate(np.hstack([mu, sigma])):
        rows.append([index, files[index], labels[index], *(f"{value:.9g}" for value in row)])
    return csv_text(rows)
