"""How well the latent code tells the classes apart."""

from __future__ import annotations

import torch
from torch import Tensor

from vaelab.data.batches import epoch_order
from vaelab.data.images import ImageSet, with_labels
from vaelab.data.names import matched
from vaelab.evaluation.figures import Figure, share
from vaelab.evaluation.measure import codes_of
from vaelab.models.vae import Vae

NEIGHBOURS, KNOWN = 10, 20_000
_ROWS = 500


def neighbour_figures(
    model: Vae, known: ImageSet, images: ImageSet, seed: int = 0, limit: int = KNOWN
) -> dict[str, Figure]:
    """Return the accuracy of the ten nearest neighbours in the latent space; empty without labels.

    The class of an image is the most frequent one (the smallest number of a tie) among those of
    the ten training images whose posterior means are nearest to its own.

    Arguments:
        model: encodes.
        known: training images; those with a label count.
        images: others; those with a label count.
        seed: chooses ``limit`` of the training images, if they are more.
        limit: of the training images that are searched.
    """
    known, images = with_labels(known), with_labels(images)
    if known.labels is None or images.labels is None:
        return {}
    if len(known) <= NEIGHBOURS or not len(images):
        return {}
    images, _ = matched(images, known.class_names)
    assert images.labels is not None
    chosen = epoch_order(len(known), seed, 0)[:limit].sort().values
    there = codes_of(model, known, chosen)
    here = codes_of(model, images, torch.arange(len(images)))
    found = vote(here, there, known.labels[chosen], len(known.class_names))
    right = found == images.labels
    how = (
        f"Posterior means of {len(right):,} images, each given the most frequent class of its "
        f"{NEIGHBOURS} nearest among {len(chosen):,} training images."
    )
    return {"neighbour_accuracy": share(right, how)}


def vote(points: Tensor, known: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the most frequent label among the nearest of ``known``, ``(n,)``."""
    found = []
    for rows in points.split(_ROWS):
        near = torch.cdist(rows, known).topk(NEIGHBOURS, largest=False).indices
        votes = torch.nn.functional.one_hot(labels.to(near.device)[near], classes).sum(1)
        found.append(votes.argmax(1).cpu())
    return torch.cat(found)
