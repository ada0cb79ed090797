"""Codes of many images, as a table for other tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vaelab.data.images import ImageSet
from vaelab.explore.grids import save_arrays, unknown_suffix
from vaelab.files import csv_text, write_atomic
from vaelab.models.vae import Vae


def encode_to_file(model: Vae, images: ImageSet, path: Path | str) -> None:
    """Write mean and deviation of q(z|x) of every image, whole or not at all.

    ``.npz`` holds ``mu`` and ``sigma``, float32 ``(N, D)``, and ``labels`` ``(N,)`` where there are
    some; ``.csv`` has the columns ``index, label, mu_0 … , sigma_0 …``, with digits that give back
    the same float32.

    Raises:
        ConfigError: the name ends otherwise.
        DataError: the images do not have the model's shape.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".csv"):
        raise unknown_suffix(path, ".csv for a table", ".npz for arrays")
    parts = [torch.stack(model.posterior(chunk), 1).cpu() for chunk in images.chunks(model.rows)]
    mu, sigma = torch.cat(parts).unbind(1)
    labels = None if images.labels is None else images.labels.cpu().numpy()
    if path.suffix == ".npz":
        known = {} if labels is None else {"labels": labels}
        save_arrays(path, mu=mu.numpy(), sigma=sigma.numpy(), **known)
    else:
        write_atomic(path, _table(mu.numpy(), sigma.numpy(), labels).encode())


def _table(
    mu: NDArray[np.float32], sigma: NDArray[np.float32], labels: NDArray[np.int64] | None
) -> str:
    dims = range(mu.shape[1])
    rows: list[list[object]] = [
        ["index", "label", *(f"mu_{d}" for d in dims), *(f"sigma_{d}" for d in dims)]
    ]
    for index, row in enumerate(np.hstack([mu, sigma])):
        label = None if labels is None else int(labels[index])
        rows.append([index, label, *(f"{value:.9g}" for value in row)])
    return csv_text(rows)
