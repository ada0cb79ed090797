"""Whether a training ended worse than it began.

The same images are measured before the first step and after the last. A training has diverged where
the loss is worse on validation *and* on training images, beyond its standard error and by a share
that matters, and nothing else that it reports (ELBO, reconstruction, accuracy) is better. Worse on
validation images alone is overfitting.

Losses of recipes with an adversary do not compare over time, since the adversary learns too, and
the ELBO of a VAE-GAN may honestly fall by some per cent: these diverged where the ELBO, or the
distortion of an autoencoder, is worse by a quarter of what it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from math import prod

import torch
from scipy.special import stdtrit

from vaelab.data.batches import Batches
from vaelab.data.images import ImageSet, spread
from vaelab.models.model import Model
from vaelab.objectives.objective import Objective
from vaelab.training.step import VALIDATION, mix_seed, with_target
from vaelab.training.validation import validate

Means = Mapping[str, float]
"""Mean figures over images, and in ``error`` half of the 95 % interval of the mean loss."""

_LOOKED_AT, _PIECES = 1000, 16
_MATTERS, _GRAVE = 0.02, 0.25
_FEW = 100
"""Steps below which a loss has to be worse by the larger share."""

_NEAR = 0.005
"""Nats per number of an image: a loss that is worse by less is as good, as of images of one colour,
whose loss is near 0 before anything was learnt."""

_SINGLE = 0.1
"""Share of the loss that matters where there is one piece, and so no standard error."""


def look(
    model: Model, objective: Objective, images: ImageSet, step: int, seed: int
) -> dict[str, float]:
    """Return mean figures over up to 1,000 images spread over a set, always the same.

    The standard error is that of the means of some pieces, since a loss is one of a batch.
    """
    count = min(len(images), _LOOKED_AT)
    size = max(2, -(-count // _PIECES))
    if count % size == 1 and count > 1:  # one image has no covariance
        count -= 1
    some = spread(images, count)
    assert model.config is not None
    how = model.config.data.binarize
    found: list[dict[str, float]] = []
    sizes: list[int] = []
    with torch.random.fork_rng(enabled=model.device.type != "mps"):
        torch.manual_seed(mix_seed(seed, VALIDATION))
        for batch in Batches(some, size, device=model.device, shuffle=False):
            piece = iter([with_target(batch, how)])
            found.append(validate(model, objective, piece, step).figures)
            sizes.append(len(batch.images))
    if not found:
        return {}
    means = {}
    for name in ("loss", "elbo", "distortion", "accuracy"):  # the last of pieces with labels alone
        known = [(n, each[name]) for n, each in zip(sizes, found, strict=True) if name in each]
        if known:
            means[name] = sum(n * value for n, value in known) / sum(n for n, _ in known)
    error = _SINGLE * abs(means["loss"])
    floor = _NEAR * prod(images.shape) if {"elbo", "distortion"} & means.keys() else 0.0
    if len(found) > 1:
        losses = torch.tensor([figures["loss"] for figures in found], dtype=torch.float64)
        error = float(stdtrit(len(found) - 1, 0.975)) * float(losses.std()) / math.sqrt(len(found))
    found_all = {**means, "error": max(error, floor)}
    return found_all if all(map(math.isfinite, found_all.values())) else {}


def is_worse(before: Means, after: Means, adversarial: bool, steps: int) -> bool:
    """Tell whether figures are worse than they were, all of them, and by more than chance.

    A training of few ``steps`` has to be worse by more: its first steps may lead away at first.
    """
    bound = "elbo" if "elbo" in before else "distortion" if "distortion" in before else "loss"
    sign = 1 if bound == "elbo" else -1
    if not {"loss", bound} <= before.keys() & after.keys():
        return False
    if adversarial:
        return sign * (before[bound] - after[bound]) > _GRAVE * abs(before[bound])
    matters = _GRAVE if steps < _FEW else _MATTERS
    margin = max(before["error"], matters * abs(before["loss"]))
    if not after["loss"] - before["loss"] > margin:
        return False
    if bound != "loss":
        return sign * (before[bound] - after[bound]) >= 0
    return not after.get("accuracy", 0) > before.get("accuracy", 1)


def change(before: Means, after: Means) -> str:
    """Say what a figure was and is."""
    name, unit = ("ELBO", "elbo") if "elbo" in before else ("loss", "loss")
    return f"{name} was {_number(before[unit])} nats before the first step and is now " + (
        f"{_number(after[unit])}"
    )


def _number(value: float) -> str:
    return (f"{value:,.4g}" if abs(value) >= 1e4 else f"{value:.4g}").replace("-", "−")
