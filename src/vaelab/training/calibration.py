"""Single numbers that are fitted after the weights.

The temperature T of a classifier, p(y|x) = softmax(logits / T), makes its probabilities what they
say: it is fitted to held-out images (Guo et al., On calibration of modern neural networks, 2017).
The scale of a likelihood, where training images are augmented, is fitted to them as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from vaelab.data.batches import Batch
from vaelab.models.likelihoods import OneScale
from vaelab.models.model import Model, evaluating
from vaelab.models.vae import Vae

FEWEST = 100
"""Images that a temperature is fitted to, at least: fewer may all be right, and T runs away."""

SCALED = 256
"""Training images, at most, that a scale is fitted to after an epoch of augmented ones."""

LARGEST = 20.0
"""T lies between this and its inverse."""


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the T under which the labels are most probable; 1 of fewer than 100 images.

    Labels are smoothed by 1/(N + 2), so that N images of which none is taken for another do not
    make the classifier sure of everything (Platt, 1999).

    Arguments:
        logits: ``(N, K)``.
        labels: ``(N,)``.
    """
    if len(labels) < FEWEST:
        return 1.0
    logits, labels = logits.double().cpu(), labels.cpu()
    smoothing = 1 / (len(labels) + 2)

    def cost(log_t: float) -> float:
        scaled = logits / math.exp(log_t)
        return float(functional.cross_entropy(scaled, labels, label_smoothing=smoothing))

    reach = math.log(LARGEST)
    found = minimize_scalar(cost, bounds=(-reach, reach), method="bounded", options={"xatol": 1e-4})
    return math.exp(float(found.x))


@torch.no_grad()
def fit_scale(model: Model, batches: Iterable[Batch]) -> None:
    """Fit the scale of a likelihood that has a fitted one to images; other models stay as they are.

    As in training (see `Fitted`), but to the errors of the model as it is used.
    """
    if not isinstance(model, Vae) or not isinstance(model.likelihood, OneScale):
        return
    scale = model.likelihood.scale
    if not scale.free:
        return
    errors = []
    with evaluating(model):
        for batch in batches:
            each = (batch.target - model(batch).likelihood.mean).abs() ** scale.power
            errors.append(each.mean((0, 2, 3, 4)))
    scale.keep(torch.cat(errors).mean())


def described(temperature: float) -> str:
    """Say where a temperature comes from: one that was not fitted is 1."""
    if temperature == 1:
        return (
            "The temperature is 1, not fitted: that takes validation images with labels, "
            f"{FEWEST} at least."
        )
    return f"The temperature is {temperature:.3g}, fitted to validation images."
