"""Where images lie in the latent space, and plots of it against the prior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaelab.data.images import ImageSet
from vaelab.errors import RunError
from vaelab.evaluation.measure import batches
from vaelab.models.kl import kl_per_dimension
from vaelab.models.model import evaluating, seeded
from vaelab.models.posteriors import Dirac
from vaelab.models.priors import StandardNormal
from vaelab.models.vae import Vae
from vaelab.training.validation import ACTIVE_VARIANCE, variance_of_means

IMAGES = 5_000
"""At most so many images are encoded, evenly spread over the test images."""

_CHUNK = 500
_PRIOR_DRAWS = 2_000


@dataclass(frozen=True, eq=False)
class Latents:
    """The posteriors of N images, and draws from the prior.

    Arguments:
        means: of q(z|x), ``(N, D)``.
        deviations: standard deviations of q(z|x), ``(N, D)``; 0 for a point posterior.
        kl: mean rate of each dimension, ``(D,)`` nats; None where the rate does not divide.
        prior: draws from p(z), ``(n, D)``; None if the model was trained without one.
        standard: whether p(z) = N(0, I).
        labels: class of each image, ``(N,)``.
        names: name of each class.
        total: number of test images that these stand for.
    """

    means: Tensor
    deviations: Tensor
    kl: Tensor | None
    prior: Tensor | None
    standard: bool
    labels: Tensor | None
    names: tuple[str, ...]
    total: int

    @property
    def point(self) -> bool:
        """Whether every posterior is a point."""
        return not bool(self.deviations.any())

    @property
    def dims(self) -> int:
        """D."""
        return self.means.shape[1]

    @property
    def variance(self) -> Tensor:
        """Variance over images of each posterior mean, ``(D,)``."""
        return variance_of_means(self.means)

    @property
    def active(self) -> list[bool]:
        """Whether each dimension is in use (Burda et al., 2016)."""
        flags: list[bool] = (self.variance > ACTIVE_VARIANCE).tolist()
        return flags

    @property
    def order(self) -> list[int]:
        """Dimensions by their rate, largest first; by variance where the rate does not divide."""
        use = self.variance if self.kl is None else self.kl
        order: list[int] = use.argsort(descending=True, stable=True).tolist()
        return order

    def classes(self) -> list[tuple[int | None, Tensor]]:
        """Return each class that occurs, −1 for unknown, with the rows of its images.

        (None, all) without labels.
        """
        if self.labels is None:
            return [(None, torch.arange(len(self.means)))]
        found = self.labels.unique().tolist()
        return [(label, (self.labels == label).nonzero().squeeze(1)) for label in found]


@torch.no_grad()
def find_latents(model: Vae, images: ImageSet, seed: int = 0, limit: int = IMAGES) -> Latents:
    """Encode images (evenly spread if they are more than ``limit``) and draw from the prior.

    Raises:
        RunError: codes are not finite: training has diverged.
    """
    count = min(len(images), limit)
    index = torch.arange(count) * len(images) // count
    means, deviations, kls = [], [], []
    with seeded(seed, model.device), evaluating(model):
        for batch in batches(model, images, index, _CHUNK):
            posterior, prior = model.distributions(batch)
            parts = kl_per_dimension(posterior, prior)
            if parts is not None:
                kls.append(parts.double().cpu())
            means.append(posterior.mean.float().cpu())
            deviations.append(posterior.stddev.float().cpu())
        point = isinstance(posterior, Dirac)
        draws = None if point else model.marginal_prior().sample((_PRIOR_DRAWS,)).float().cpu()
    if not all(values.isfinite().all() for values in (*means, *deviations)):
        raise RunError(
            "report: the model's codes are not finite: training has diverged. Train again with a "
            "lower learning rate (training.lr) or with training.clip=1."
        )
    return Latents(
        torch.cat(means),
        torch.cat(deviations),
        torch.cat(kls).mean(0) if kls else None,
        draws,
        isinstance(prior, StandardNormal),
        None if images.labels is None else images.labels[index].cpu(),
        images.class_names,
        len(images),
    )


def sub(dim: int) -> str:
    """Return the number of a dimension as a subscript, counted from 0 as everywhere."""
    return str(dim).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
