"""Where images lie in the latent space, and what the page shows beside the networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaelab.data.batches import Batch, fetch
from vaelab.data.images import ImageSet, Splits
from vaelab.errors import ConfigError, RunError
from vaelab.explore.directions import find_direction
from vaelab.explorer.graph import Weights
from vaelab.explorer.sheets import fitting, sheet
from vaelab.models.kl import kl_per_dimension
from vaelab.models.model import evaluating
from vaelab.models.posteriors import Dirac
from vaelab.models.vae import Vae
from vaelab.training.validation import ACTIVE_VARIANCE, variance_of_means

MOST = 2_000
"""At most so many test images, and so many training images, are in the page."""

_PLAIN, _INK = 0.95, 0.1


@torch.no_grad()
def points(model: Vae, images: ImageSet, weights: Weights) -> dict[str, Any]:
    """Return test images with their posteriors, and how much each dimension tells of them.

    Raises:
        RunError: codes are not finite: training has diverged.
    """
    index, exact = fitting(images, MOST)
    means, deviations, rates, contexts = _encode(model, images, index)
    if not (means.isfinite().all() and deviations.isfinite().all()):
        raise RunError(
            "explorer: the model's codes are not finite: training has diverged. Train again with "
            "a lower learning rate (training.lr) or with training.clip=1."
        )
    variance = variance_of_means(means)
    use = variance if rates is None else rates
    labels = None if images.labels is None else images.labels[index].tolist()
    return {
        "points": {
            "count": len(index),
            "total": len(images),
            "index": index.tolist(),
            "means": weights.half(means),
            "deviations": weights.half(deviations) if bool(deviations.any()) else None,
            "contexts": weights.half(contexts) if contexts.shape[1] else None,
            "labels": labels,
            "attributes": _attributes(images, index),
            "sheet": sheet(images.take(index), exact),
        },
        "dimensions": {
            "rates": None if rates is None else _short(rates),
            "variances": _short(variance),
            "active": (variance > ACTIVE_VARIANCE).tolist(),
            "order": use.argsort(descending=True, stable=True).tolist(),
        },
        "layouts": _layouts(means) if means.shape[1] > 2 else {},
    }


def _encode(
    model: Vae, images: ImageSet, index: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return means, deviations, mean rate by dimension, and what the decoder is told.

    Greys stay grey, as they do in the page, also where the model was trained on binary images.
    """
    means, deviations, rates, contexts = [], [], [], []
    with evaluating(model):
        for rows in index.split(model.rows):
            batch: Batch = fetch(images, rows, model.device)
            context = model.context(batch)
            posterior, prior = model.distributions(batch)
            parts = None if isinstance(posterior, Dirac) else kl_per_dimension(posterior, prior)
            if parts is not None:
                rates.append(parts.double().cpu())
            means.append(posterior.mean.float().cpu())
            deviations.append(posterior.stddev.float().cpu())
            contexts.append(means[-1][:, :0] if context is None else context.float().cpu())
    mean_rates = torch.cat(rates).mean(0) if rates else None
    return torch.cat(means), torch.cat(deviations), mean_rates, torch.cat(contexts)


def _attributes(images: ImageSet, index: Tensor) -> dict[str, list[float | None]]:
    """Return the values of each attribute by name, null where unknown."""
    if images.attributes is None:
        return {}
    rows = images.attributes[index]
    return {
        name: [round(float(v), 4) if v == v else None for v in rows[:, place]]
        for place, name in enumerate(images.attribute_names)
    }


def _layouts(means: Tensor) -> dict[str, Any]:
    """Return planes to look at codes of more than two dimensions: two components, and t-SNE.

    Sources: Pearson (1901); van der Maaten and Hinton, Visualizing data using t-SNE, 2008.
    """
    from sklearn.manifold import TSNE

    centre = means.double().mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(means.double().T))
    top = vectors[:, [-1, -2]].T
    top = top * top.gather(1, top.abs().argmax(1, keepdim=True)).sign()  # one of two signs
    found: dict[str, Any] = {
        "pca": {
            "centre": _short(centre),
            "components": [_short(row) for row in top],
            "shares": _short(values[[-1, -2]] / values.sum().clamp(min=1e-12)),
        }
    }
    if len(means) > 30 and bool((means.var(0) > 0).any()):
        made = TSNE(perplexity=min(30, len(means) // 4), init="pca", random_state=0, max_iter=500)
        places = torch.from_numpy(made.fit_transform(means.numpy()))
        places = places / places.abs().max().clamp(min=1e-9)
        found["tsne"] = [_short(row) for row in places]
    return found


def neighbours(images: ImageSet, known: ImageSet) -> dict[str, Any]:
    """Return an even sample of training images, to look for those nearest to a decoded one.

    ``typical`` is the median over the test images of the distance to the nearest of the sample:
    root mean square of the pixels' differences. What is much nearer is remembered.
    """
    index, exact = fitting(known, MOST)
    sample = known.take(index)
    some = images.take(fitting(images, 500)[0]).flatten(1).float() / 255
    near = torch.cdist(some, sample.flatten(1).float() / 255).amin(1) / some.shape[1] ** 0.5
    return {
        "count": len(index),
        "total": len(known),
        "typical": float(near.median()),
        "labels": None if known.labels is None else known.labels[index].tolist(),
        "sheet": sheet(sample, exact),
    }


def handles(model: Vae, splits: Splits) -> list[dict[str, Any]]:
    """Return a direction of the latent space for each attribute that the model was not told."""
    found = []
    for name in splits.train.attribute_names:
        if model.conditioning is not None and name in model.conditioning.names:
            continue
        try:
            each = find_direction(model, splits.train, name)
        except ConfigError:  # all images are on one side of it
            continue
        found.append({"name": name, "vector": _short(each.vector), "means": list(each.means)})
    return found


def ink(images: ImageSet) -> dict[str, Any] | None:
    """Return where marks on a plain ground lie, and how large they are; None for other images.

    ``ground`` is the grey of nearly all borders, ``extent`` the median of the longer side of what
    differs from it, ``centre`` its mean centre of mass (row, column).
    """
    index = torch.arange(min(len(images), 500)) * len(images) // min(len(images), 500)
    x = images.take(index).float().mean(1) / 255  # (n, H, W)
    if images.shape[0] != 1 or min(x.shape[1:]) < 8:
        return None
    border = torch.cat([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], 1)
    ground = float(border.median())
    if ((border - ground).abs() < _INK).float().mean() < _PLAIN:
        return None
    mass = (x - ground).abs()
    mass = mass[(mass > _INK).flatten(1).any(1)]
    if not len(mass):
        return None
    on = mass > _INK
    extents = torch.stack([_length(on.any(2)), _length(on.any(1))]).amax(0)
    total = mass.sum((1, 2)).clamp(min=1e-6)
    rows, columns = torch.arange(x.shape[1]) + 0.5, torch.arange(x.shape[2]) + 0.5
    return {
        "ground": round(ground, 3),
        "extent": float(extents.median()),
        "centre": [
            float(((mass.sum(2) @ rows) / total).mean()),
            float(((mass.sum(1) @ columns) / total).mean()),
        ],
    }


def _length(marked: Tensor) -> Tensor:
    """Return from the first to the last mark of each row ``(n, L)``, both included."""
    places = torch.arange(marked.shape[1]).expand_as(marked)
    far = torch.where(marked, places, -1).amax(1)
    near = torch.where(marked, places, marked.shape[1]).amin(1)
    return (far - near + 1).float()


def _short(values: Tensor) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]
