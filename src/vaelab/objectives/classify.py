"""What a classifier minimises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from vaelab.data.batches import Batch
from vaelab.models.classifier import Classifier
from vaelab.models.conditioning import LABEL
from vaelab.models.global_batch import weighted_mean
from vaelab.models.model import Model
from vaelab.objectives.objective import Loss, Objective
from vaelab.objectives.variation import Variation


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

    @override
    def given(self, model: Model) -> tuple[str, ...]:
        return (LABEL,)

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
