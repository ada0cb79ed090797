"""Probabilities of a classifier that are what they say, by one number fitted to held-out images.

    p(y|x) = softmax(logits / T)

Source: Guo et al., On calibration of modern neural networks, 2017.
"""

from __future__ import annotations

import math

from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

FEWEST = 100
"""Images that a temperature is fitted to, at least: fewer may all be right, and T runs away."""

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


def described(temperature: float) -> str:
    """Say where a temperature comes from: one that was not fitted is 1."""
    if temperature == 1:
        return (
            "The temperature is 1, not fitted: that takes validation images with labels, "
            f"{FEWEST} at least."
        )
    return f"The temperature is {temperature:.3g}, fitted to validation images."
