"""How unusual a trained model finds images: four scores of each, higher for odder ones.

`improbability`
    −log p(x) by the importance-weighted bound, nats. What "improbable under the model" says, and
    known to fail: a simple image (a bare stroke, an empty page) can be more probable than any
    training image (Nalisnick et al., Do deep generative models know what they don't know?, 2019).
`regret`
    Likelihood regret, nats: how much the ELBO gains when the posterior is fitted to this one image.
    The encoder was trained to be right about images like those of training, so that little is left
    to gain for them (Xiao, Yan and Amit, 2020).
`error`
    Mean squared error of the reconstruction, per pixel.
`distance`
    Mahalanobis distance of the code from the aggregate posterior of the training images, in its
    standard deviations.

Where the model can be told labels it is told none: it takes them from the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaelab.data.batches import Batch
from vaelab.data.images import ImageSet
from vaelab.errors import ConfigError, DataError, RunError, whole_number
from vaelab.evaluation.bounds import binary_target
from vaelab.evaluation.evaluate import choose, single_precision
from vaelab.evaluation.latents import aggregate_moments
from vaelab.evaluation.measure import batches
from vaelab.evaluation.reconstruction import mse
from vaelab.models.model import evaluating, seeded
from vaelab.models.posteriors import DiracPosterior
from vaelab.models.vae import MOST_SAMPLES, Vae

Progress = Callable[[int, int], None]
"""Told how many images are scored, and how many there are."""

SCORES = {
    "improbability": "nats",
    "regret": "nats",
    "error": "squared error per pixel",
    "distance": "standard deviations",
}
"""Every score and its unit."""

DRAWS, STEPS, RATE = 50, 100, 0.1
"""Of the importance-weighted bound; of the search for a better posterior, and its step size."""

JUDGED = 16
"""Draws that both posteriors of a regret are judged by: the same ones."""

FLOOR = 1e-6
"""Least variance of a direction of the code, in parts of the greatest: no division by 0."""

POINT = "A point posterior (autoencoder) has no likelihood: improbability and regret are left out."


@dataclass(frozen=True)
class Reference:
    """The codes that a distance is from: the aggregate posterior of training images.

    Arguments:
        mean: ``(D,)``.
        whitening: takes differences from the mean to units of the standard deviation, ``(D, D)``.
        images: how many it is from.
    """

    mean: Tensor
    whitening: Tensor
    images: int

    def distance(self, codes: Tensor) -> Tensor:
        """Return the Mahalanobis distance of codes ``(N, D)``, ``(N,)``.

        d(z) = √((z − m)ᵀ C⁻¹ (z − m))
        """
        return ((codes.double() - self.mean) @ self.whitening).square().sum(1).sqrt()


@torch.no_grad()
def reference_codes(model: Vae, images: ImageSet, limit: int = 10_000, seed: int = 0) -> Reference:
    """Return mean and covariance of E_x q(z|x) over training images, one draw of z for each.

    Raises:
        DataError: fewer than two images, or codes that are not finite.
    """
    if len(images) < 2:
        raise DataError(f"distance: needs two training images at least (got {len(images)}).")
    index = choose(len(images), limit, seed)
    with evaluating(model), seeded(seed, model.device):
        parts = [
            model.infer(batch.images, _context(model, batch)).sample().cpu()
            for batch in batches(model, images, index, model.rows)
        ]
    mean, covariance = aggregate_moments(torch.cat(parts))
    if not covariance.isfinite().all():
        raise DataError("distance: codes of training images are not finite: training diverged.")
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=max(float(values.max()) * FLOOR, 1e-30))
    return Reference(mean, vectors / values.sqrt(), len(index))


def score(
    model: Vae,
    images: ImageSet,
    reference: Reference | None = None,
    *,
    scores: Iterable[str] | None = None,
    draws: int = DRAWS,
    steps: int = STEPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Return how unusual images are, by name of the score: each ``(N,)``, higher is odder.

    Scores that the model does not have are left out: a point posterior has no likelihood, and
    without a ``reference`` there is no distance.

    Arguments:
        model: any `Vae`.
        images: to score, of the model's shape.
        reference: of `reference_codes`.
        scores: which ones, of `SCORES`; all by default.
        draws: of z for each image, in the bound of log p(x).
        steps: of the search for the posterior of an image, for its regret.
        seed: of every draw: the same seed gives the same scores.
        progress: told how far it is.

    Raises:
        ConfigError: an unknown score, or a count below 1.
        DataError: no images, or of another shape.
        RunError: the model's scores are not numbers, as after a training that diverged.
    """
    wanted = measurable(model, reference, scores)
    whole_number("draws", draws, 1, MOST_SAMPLES)
    whole_number("steps", steps, 1, MOST_SAMPLES)
    if len(images) == 0 or images.shape != model.shape:
        raise DataError(
            f"score: {len(images)} images of shape {images.shape}; this model needs some of shape "
            f"{model.shape}."
        )
    found: dict[str, list[Tensor]] = {name: [] for name in wanted}
    done = 0
    with evaluating(model), single_precision(), seeded(seed, model.device):
        for batch in batches(model, images, torch.arange(len(images)), model.rows // 4):
            context = _context(model, batch)
            for name in wanted:
                values = _measure(name, model, batch, context, reference, draws, steps)
                found[name].append(values.double().cpu())
            done += len(batch)
            if progress is not None:
                progress(done, len(images))
    whole = {name: torch.cat(parts) for name, parts in found.items()}
    bad = [name for name, values in whole.items() if values.isnan().any()]
    if bad:
        raise RunError(
            f"score: {bad[0]} is no number for some images: training has diverged. Train again "
            "with a lower learning rate (training.lr) or with training.clip=1."
        )
    return whole


def likelihood_regret(
    model: Vae, batch: Batch, context: Tensor | None, steps: int = STEPS, draws: int = JUDGED
) -> Tensor:
    """Return the likelihood regret of each image of a batch, ``(B,)`` nats ≥ 0.

        LR(x) = max_q ELBO(x; q) − ELBO(x; q(z|x))

    q starts as the encoder's posterior and stays in its family: what is searched by Adam, with a
    step size that falls to 0, is what the encoder's network would have said of this image. Adam
    works number by number, so that images of a batch do not touch one another. Both posteriors are
    judged by draws from the same noise, new to both, and a search that found nothing better counts
    as 0. Source: Xiao, Yan and Amit, Likelihood regret, 2020, its variant that moves the posterior
    in place of the encoder's weights.
    """
    with torch.no_grad():
        start = model.features_of(batch.images, context).float()

    def bound(features: Tensor, samples: int) -> Tensor:
        posterior = model.posterior_from(features, context)
        trace = model.trace_under(posterior, batch, context, samples)
        return (trace.log_px - trace.rate).mean(0)

    found = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([found], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.enable_grad():
        for _ in range(steps):
            loss = -bound(found, 1).sum()
            (found.grad,) = torch.autograd.grad(loss, [found])
            optimizer.step()
            schedule.step()
    numbers = torch.randint(2**62, (draws,)).tolist()

    def judged(features: Tensor) -> Tensor:
        total = torch.zeros(len(batch), device=features.device)
        for number in numbers:
            with seeded(number, features.device):
                total = total + bound(features, 1) / draws
        return total

    with torch.no_grad():
        best, first = judged(found.detach()), judged(start)
    return torch.where(best.isnan(), torch.zeros_like(best), best - first).clamp(min=0)


def _measure(
    name: str,
    model: Vae,
    batch: Batch,
    context: Tensor | None,
    reference: Reference | None,
    draws: int,
    steps: int,
) -> Tensor:
    if name == "regret":
        return likelihood_regret(model, batch, context, steps)
    with torch.no_grad():
        if name == "improbability":
            return -model.bounds(binary_target(model, batch), draws, context)[1]
        mean = model.infer(batch.images, context).mean
        if name == "error":
            return mse(batch.images, model.decode(mean, context).mean.clamp(0, 1))
        assert reference is not None
        return reference.distance(mean.cpu())


@torch.no_grad()
def _context(model: Vae, batch: Batch) -> Tensor | None:
    """Return what the model takes the labels of a batch to be, when nobody says."""
    told = model.told_of(len(batch), {}).to(batch.images.device)
    return None if model.conditioning is None else model.filled(batch.images, told)


def measurable(
    model: Vae, reference: Reference | None, scores: Iterable[str] | None = None
) -> tuple[str, ...]:
    """Return which of the scores asked for a model has; raises `ConfigError` for an unknown one."""
    asked = tuple(SCORES if scores is None else scores)
    unknown = [name for name in asked if name not in SCORES]
    if unknown or not asked:
        raise ConfigError(f"score: {unknown[0]!r} is unknown. Known: {', '.join(SCORES)}.")
    missing = set() if reference is not None else {"distance"}
    if isinstance(model.encoder.family, DiracPosterior):
        missing |= {"improbability", "regret"}
    return tuple(name for name in asked if name not in missing)
