"""What a classifier minimises, and how its training images are varied."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vaelab.data.batches import Batch
from vaelab.data.warp import elastic, margin, shifted, warped
from vaelab.models import noise
from vaelab.models.classifier import Classifier
from vaelab.models.global_batch import weighted_mean
from vaelab.models.model import Model
from vaelab.objectives.objective import Loss, Objective

SMOOTH = 1 / 7
"""Width of the Gaussian that makes elastic bending smooth, of the shorter side of an image."""


@dataclass(frozen=True)
class Variation:
    """Classical augmentation: how far chance may change a training image, alike in each direction.

    Shifts alone are by whole pixels; with any of the others the image is interpolated, once.

    Arguments:
        shift: pixels at most.
        rotation: degrees at most.
        zoom: share of the size at most.
        elastic: typical displacement of a pixel (root mean square) by smooth random bending.
    """

    shift: int = 0
    rotation: float = 0.0
    zoom: float = 0.0
    elastic: float = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        """Return images ``(B, C, H, W)`` varied; draws follow the seed of the step."""
        if self.rotation or self.zoom or self.elastic:
            by, angle, zoom = self._drawn(images, 4).split([2, 1, 1], 1)
            bend = self._bend(images) if self.elastic else None
            turn, size = self.rotation * angle[:, 0], 1 + self.zoom * zoom[:, 0]
            return warped(images, self.shift * by, turn, size, bend)
        if not self.shift:
            return images
        drawn = noise.uniform((len(images), 2), batch_dim=0, device=images.device)
        return shifted(images, (drawn * (2 * self.shift + 1)).long() - self.shift)

    @staticmethod
    def _drawn(images: Tensor, count: int) -> Tensor:
        """Return numbers uniform on [−1, 1), ``(B, count)``."""
        drawn = noise.uniform((len(images), count), batch_dim=0, device=images.device)
        return 2 * drawn - 1

    def _bend(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        smooth = max(0.5, SMOOTH * min(height, width))
        reach = 2 * margin(smooth)
        shape = (len(images), 2, height + reach, width + reach)
        field = elastic(noise.normal(shape, batch_dim=0, device=images.device), smooth)
        return self.elastic * field


class Classification(Objective):
    """Cross-entropy −log p(y|x), with weighted classes, smoothed labels and varied images.

        −Σ_i w(y_i) Σ_k t_ik log p(k|x_i) / Σ_i w(y_i),   t_ik = (1 − s)·[k = y_i] + s/K

    Source of the smoothing: Szegedy et al., Rethinking the Inception architecture, 2016.

    Arguments:
        smoothing: s.
        variation: what is done to training images.
        weights: w, one for each class; see `class_weights`. Without, all are 1.
    """

    weights: Tensor | None

    def __init__(
        self, smoothing: float, variation: Variation, weights: Tensor | None = None
    ) -> None:
        super().__init__({})
        self.smoothing, self.variation = smoothing, variation
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, model: Model, batch: Batch, step: int) -> Loss:
        """Run the classifier over a batch; in training its images are varied first."""
        assert isinstance(model, Classifier)
        assert batch.labels is not None
        images = self.variation(batch.images) if self.training else batch.images
        logits = model(images).float()
        each = functional.cross_entropy(
            logits, batch.labels, label_smoothing=self.smoothing, reduction="none"
        )
        # Torch's own class weights would multiply the smoothed share of every class by the weight
        # of that class: among a hundred images to one, all would be taken for the rare class.
        total = (
            each.mean() if self.weights is None else weighted_mean(each, self.weights[batch.labels])
        )
        with torch.no_grad():
            right = (logits.argmax(1) == batch.labels).float().mean()
        return Loss(total, {"loss": total.detach(), "accuracy": right})


def class_weights(labels: Tensor, classes: int, balance: float) -> Tensor:
    """Return the weight of each class, ``(K,)``: rare ones count for more.

        w_k = (N / (K n_k))^b

    Arguments:
        labels: of the training images, ``(N,)``; −1 where unknown.
        classes: K.
        balance: b: 0 weighs all images alike, 1 all classes. A class without images weighs 0.
    """
    counts = torch.bincount(labels[labels >= 0], minlength=classes).float()
    even = counts.sum() / classes
    return torch.where(counts > 0, (even / counts.clamp(min=1)) ** balance, 0.0)
