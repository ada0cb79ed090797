"""A classifier in the loss: on the code, on reconstructions, and on samples of an asked class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from typing_extensions import override

from vaelab.data.batches import Batch
from vaelab.models import noise
from vaelab.models.classifier import Classifier
from vaelab.models.conditioning import LABEL
from vaelab.models.global_batch import weighted_mean
from vaelab.models.model import Model
from vaelab.models.vae import Trace, Vae
from vaelab.objectives.objective import Loss, Objective, Player, rate_distortion
from vaelab.objectives.terms import Term

UNKNOWN = -1


@dataclass(frozen=True)
class Weights:
    """How much each classification counts, in units of its cross-entropy in nats.

    Arguments:
        head: of a classifier of the code that is trained with the model.
        reconstructions: of a fixed classifier of images, on reconstructions.
        samples: of the same, on draws from the prior under the labels of the batch.
    """

    head: float
    reconstructions: float
    samples: float


class Guided(Objective):
    """An ELBO with classifiers that ask for what is recognisable.

        loss = terms − h E log p_head(y|z) − r E log p_c(y|x̃) − s E log p_c(y|x_s)

    x̃ decodes a draw from q(z|x), x_s a draw from the prior under the label y. The classifier p_c
    was trained on real images and stays as it is.

    Arguments:
        terms: of the ELBO.
        weights: h, r and s.
        dim: of the code.
        classes: how many.
        judge: gives the fixed classifier when it is needed first.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        weights: Weights,
        dim: int,
        classes: int,
        judge: Callable[[], Classifier],
    ) -> None:
        super().__init__(terms)
        self.weights, self._find = weights, judge
        self._judge: tuple[Classifier, ...] = ()  # in a tuple, so that it is no part of this module
        self.head = nn.Linear(dim, classes) if weights.head else None

    def forward(self, model: Model, batch: Batch, step: int) -> Loss:
        """Run the model over a batch and sum terms and classifications."""
        assert isinstance(model, Vae)
        trace: Trace = model(batch)
        shares = self.shares(trace, step)
        if batch.labels is not None:
            shares |= self._classified(model, trace, batch.labels)
        total = torch.stack(list(shares.values())).sum()
        figures = {f"loss/{name}": share.detach() for name, share in shares.items()}
        return Loss(total, {"loss": total.detach(), **figures, **rate_distortion(trace)})

    def _classified(self, model: Vae, trace: Trace, labels: Tensor) -> dict[str, Tensor]:
        found = {}
        weights, z = self.weights, trace.latents["z"].value
        if self.head is not None:
            found["head"] = weights.head * _cost(self.head(z[0]), labels)
        if weights.reconstructions:
            made = trace.likelihood.mean[0]
            found["reconstructions"] = weights.reconstructions * self._read(made, labels)
        if weights.samples:
            drawn = noise.normal(z[0].shape, batch_dim=0, device=z.device)
            made = model.decode(drawn, trace.context).mean
            found["samples"] = weights.samples * self._read(made, labels)
        return found

    @override
    def given(self, model: Model) -> tuple[str, ...]:
        return tuple(dict.fromkeys((LABEL, *super().given(model))))

    def players(self, model: Model) -> dict[str, Player]:
        """Return as `Objective.players` does, once the classifier is found.

        Now, for it may have to be trained, and that in a step would change the step's noise.
        """
        if self.weights.reconstructions or self.weights.samples:
            self._classifier(model.device)
        return super().players(model)

    def _classifier(self, device: torch.device) -> Classifier:
        if not self._judge:
            self._judge = (self._find().eval().requires_grad_(False),)
        return self._judge[0].to(device)

    def _read(self, images: Tensor, labels: Tensor) -> Tensor:
        return _cost(self._classifier(images.device)(images), labels)


def _cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the images whose class is known; 0 if there is none."""
    each = cross_entropy(logits.float(), labels, ignore_index=UNKNOWN, reduction="none")
    return weighted_mean(each, labels != UNKNOWN)
