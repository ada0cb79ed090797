"""What a classifier minimises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vaelab.data.batches import Batch
from vaelab.models import noise
from vaelab.models.classifier import Classifier, shifted
from vaelab.models.model import Model
from vaelab.objectives.objective import Loss, Objective


class Classification(Objective):
    """Cross-entropy −log p(y|x), with smoothed labels and images shifted by chance.

        −Σ_k t_k log p(k|x),   t_k = (1 − s)·[k = y] + s/K

    Source of the smoothing: Szegedy et al., Rethinking the Inception architecture, 2016.

    Arguments:
        smoothing: s.
        shift: largest number of pixels that a training image is moved by, each way.
    """

    def __init__(self, smoothing: float, shift: int) -> None:
        super().__init__({})
        self.smoothing, self.shift = smoothing, shift

    def forward(self, model: Model, batch: Batch, step: int) -> Loss:
        """Run the classifier over a batch; in training its images are shifted first."""
        assert isinstance(model, Classifier)
        assert batch.labels is not None
        images = batch.images
        if self.training and self.shift:
            images = shifted(images, self._shifts(images))
        logits = model(images).float()
        total = functional.cross_entropy(logits, batch.labels, label_smoothing=self.smoothing)
        with torch.no_grad():
            right = (logits.argmax(1) == batch.labels).float().mean()
        return Loss(total, {"loss": total.detach(), "accuracy": right})

    def _shifts(self, images: Tensor) -> Tensor:
        drawn = noise.uniform((len(images), 2), batch_dim=0, device=images.device)
        return (drawn * (2 * self.shift + 1)).long() - self.shift
