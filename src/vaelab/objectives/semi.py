"""Learning a classifier from few labels: the class is a latent variable that is summed over."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from vaelab.data.batches import Batch, binarize
from vaelab.models import noise
from vaelab.models.model import Model
from vaelab.models.stacked import StackedVae, with_codes_of
from vaelab.models.vae import Vae
from vaelab.objectives.objective import Loss, Objective, Player
from vaelab.objectives.terms import Term
from vaelab.objectives.variation import Variation

SETTLES = 0.2
"""Share of the training in which a labeler learns from labels alone."""


class SemiSupervised(Objective):
    """M2: −log p(x, y) bounded where y is known, summed over y where it is not (Kingma, 2014).

        L(x, y) = E_q(z|x,y)[−log p(x|z,y)] + KL(q(z|x,y) ‖ p(z)) − log p(y),   p(y) = 1/K
        U(x)    = Σ_y q(y|x) L(x, y) + Σ_y q(y|x) log q(y|x)
        loss    = 1/N Σ_unlabelled U(x) + 1/N Σ_labelled L(x, y) − α E_labelled log q(y|x)

    which is the paper's sum (eq. 9) over N images, divided by N: its α is our α times N, and its
    0.1 N is α = 0.1. An image is in U or in L, never in both.

    Few labels would hardly ever be in a batch, so L and log q(y|x) are of images drawn beside it,
    as many as a batch holds, from the labelled ones with replacement: their mean of L times w, the
    share of images that have a label, is expected to be 1/N Σ_labelled L. While validating, the
    loss is U of all images, for a bound of log p(x).

    The labeler q(y|x) looks at varied copies of the images, in both terms. U is a bound for any
    q(y|·), so also for one that sees a copy; and as L is of the image itself, the classes of all
    its copies are drawn to one posterior. In the first `SETTLES` of the training the labeler learns
    from labels alone, while the model learns what its classes look like.

    Arguments:
        alpha: α, weight of the classifier on the labelled images.
        labelled: gives the labelled training images, 8-bit ``(n, C, H, W)``, and their classes.
        share: w.
        steps: of the whole training.
        variation: of the images that the labeler learns from.
        augment: varies the labelled images, as every batch is.
    """

    def __init__(
        self,
        alpha: float,
        labelled: Callable[[], tuple[Tensor, Tensor]],
        share: float,
        steps: int,
        variation: Variation,
        augment: Callable[[Tensor], Tensor] = lambda images: images,
    ) -> None:
        super().__init__({})
        self.augment = augment
        self.alpha, self.share, self.variation = alpha, share, variation
        self.starts = SETTLES * steps
        self._find = labelled
        self._labelled: tuple[Tensor, Tensor] | None = None

    def forward(self, model: Model, batch: Batch, step: int) -> Loss:
        """Return U over the batch or, in training, over what of it has no label, and L."""
        assert isinstance(model, Vae)
        if not self.training:
            return self.measured(model, batch)
        each, elbo = self._unlabelled(model, batch, step)
        if batch.labels is not None:  # of an image with a label there is L
            each = each * (batch.labels < 0)
        unknown = each.mean()
        labelled, right = self._with_labels(model, self.draw(model, batch))
        total = unknown + labelled
        figures = {"loss": total, "loss/unlabelled": unknown, "loss/labelled": labelled}
        figures |= {"elbo": elbo, "accuracy/labelled": right}
        return Loss(total, {name: value.detach() for name, value in figures.items()})

    def measured(self, model: Vae, batch: Batch) -> Loss:
        """Return U over the batch, and how many of the known classes are classified correctly."""
        each, elbo = self._unlabelled(model, batch, math.inf)
        unknown = each.mean()
        figures = {"loss": unknown.detach(), "elbo": elbo.detach()}
        known = None if batch.labels is None else batch.labels >= 0
        if batch.labels is None or known is None or not known.any():
            return Loss(unknown, figures)
        read = self._read(model, batch.images[known]).argmax(1)
        figures["accuracy"] = (read == batch.labels[known]).float().mean()
        return Loss(unknown, figures, {"accuracy": len(read)})

    def _read(self, model: Vae, images: Tensor) -> Tensor:
        """Return log q(y|x), ``(B, K)``, in training of a varied copy of each image."""
        assert model.labeler is not None
        raw: Tensor = model.labeler(self.variation(images) if self.training else images)
        return raw.log_softmax(1)

    def _unlabelled(self, model: Vae, batch: Batch, step: float) -> tuple[Tensor, Tensor]:
        """Return U of each image, and the mean ELBO under q(y|x)."""
        log_q = self._read(model, batch.images)
        if step < self.starts:
            log_q = log_q.detach()
        classes = log_q.shape[1]
        each = _of_classes(*_explained(model, batch), classes)
        mean = (log_q.exp() * each).sum(1)
        negative_entropy = (log_q.exp() * log_q).sum(1)
        return mean + math.log(classes) + negative_entropy, -mean.mean()

    def _with_labels(self, model: Vae, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.labels is not None
        log_q = self._read(model, batch.images)
        cost = torch.nn.functional.nll_loss(log_q, batch.labels)
        bound = _negative_elbo(*_explained(model, batch)).mean() + math.log(log_q.shape[1])
        right = (log_q.argmax(1) == batch.labels).float().mean()
        return self.share * bound + self.alpha * cost, right

    def draw(self, model: Vae, batch: Batch) -> Batch:
        """Return labelled training images, as many as a batch has and as a model sees them."""
        if self._labelled is None:
            images, labels = self._find()
            device = batch.images.device
            self._labelled = (images.to(device), labels.to(device))
        images, labels = self._labelled
        drawn = noise.uniform((len(batch),), batch_dim=0, device=images.device)
        rows = (drawn * len(images)).long().clamp(max=len(images) - 1)
        x = self.augment(images[rows].float() / 255)
        uniform = noise.uniform(x.shape, batch_dim=0, device=x.device)
        target = binarize(x, model.binarize, uniform)
        seen = x if model.binarize == "none" else target
        return Batch(seen, target, labels[rows], None, rows)

    def players(self, model: Model) -> dict[str, Player]:
        """Return one player, the labeler included: it learns from the bound as well."""

        def loss(batch: Batch, step: int) -> Loss:
            result: Loss = self(model, batch, step)
            return result

        own = {f"model.{name}": value for name, value in model.named_parameters()}
        return {"model": Player("model", own, loss)}


def _explained(model: Vae, batch: Batch) -> tuple[Vae, Batch]:
    """Return what explains a batch under a class, and what it explains: the images or codes."""
    if not isinstance(model, StackedVae):
        return model, batch
    codes = with_codes_of(model, batch.images)
    return model.upper, replace(batch, images=codes, target=codes)


def _of_classes(model: Vae, batch: Batch, classes: int) -> Tensor:
    """Return the negative ELBO of every image under every class, ``(B, K)`` nats."""
    numbers = torch.arange(classes, device=batch.images.device)
    rows = torch.arange(len(batch), device=batch.images.device).repeat_interleave(classes)
    many = replace(
        batch,
        images=batch.images[rows],
        target=batch.target[rows],
        labels=numbers.repeat(len(batch)),
        attributes=None if batch.attributes is None else batch.attributes[rows],
        index=batch.index[rows],
    )
    with noise.repeated(classes):
        return _negative_elbo(model, many).view(-1, classes)


def _negative_elbo(model: Vae, batch: Batch) -> Tensor:
    assert model.conditioning is not None
    trace = model.trace(batch, model.conditioning(batch))
    return (trace.rate - trace.log_px).mean(0)


class Stacked(Objective):
    """M1+M2: −ELBO of a VAE of the images, and M2 on draws of its codes as a second player.

    The first learns nothing from labels; the second follows the codes as they are, and the labeler
    is its own.

    Arguments:
        terms: of the first.
        second: M2's.
    """

    def __init__(self, terms: Mapping[str, Term], second: SemiSupervised) -> None:
        super().__init__(terms)
        self.second = second

    def forward(self, model: Model, batch: Batch, step: int) -> Loss:
        """Return the loss of the first; while validating, also how classes are read."""
        loss: Loss = super().forward(model, batch, step)
        if self.training:
            return loss
        upper: Loss = self.second(model, batch, step)
        right = {k: v for k, v in upper.figures.items() if k == "accuracy"}
        return Loss(loss.total, {**loss.figures, **right}, upper.counts)

    def players(self, model: Model) -> dict[str, Player]:
        """Return both; neither moves the other's parameters."""
        assert isinstance(model, StackedVae)
        first: dict[str, nn.Parameter] = {}
        second: dict[str, nn.Parameter] = {}
        for name, value in model.named_parameters():
            of_second = name.startswith(("upper.", "labeler."))
            (second if of_second else first)[f"model.{name}"] = value

        def lower(batch: Batch, step: int) -> Loss:
            result: Loss = self(model, batch, step)
            return result

        def upper(batch: Batch, step: int) -> Loss:
            result: Loss = self.second(model, batch, step)
            return result

        return {"model": Player("model", first, lower), "upper": Player("upper", second, upper)}
