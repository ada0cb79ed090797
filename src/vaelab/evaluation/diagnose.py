"""Measures what the diagnoses of a run need, in a second or two, on validation images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scipy.special import digamma
from torch import Tensor

from vaelab.config import RunConfig
from vaelab.data.batches import binarize
from vaelab.data.images import ImageSet, Splits
from vaelab.data.stems import stem_of
from vaelab.data.warp import shrunk
from vaelab.evaluation.figures import Share
from vaelab.evaluation.measure import batches
from vaelab.evaluation.probes import balanced
from vaelab.evaluation.record import Evaluation
from vaelab.models.conditioning import LABEL
from vaelab.models.model import evaluating, seeded
from vaelab.models.priors import StandardNormal
from vaelab.models.vae import Vae
from vaelab.objectives.objective import is_point
from vaelab.objectives.subspaced import posteriors
from vaelab.training.diagnoses import findings
from vaelab.training.finding import Finding, Kin, LabelEffect, Measured
from vaelab.training.run import Run

IMAGES, MEANT, TRAINING = 500, 2_000, 5_000
"""At most: validation images that are encoded, training images that means are of, and those that
names are compared with."""

ADVERSARIES = {"critic", "discriminator"}
"""Players of objectives whose losses do not compare over time."""

_SAMPLES, _CLASSES, _SIDE, _GRID = 32, 20, 16, 4


def diagnose(
    run: Run, model: Vae, splits: Splits, evaluation: Evaluation | None = None, seed: int = 0
) -> list[Finding]:
    """Return what is wrong with a trained run, the gravest first, each with what helps.

    Arguments:
        run: the folder.
        model: its model.
        splits: its images.
        evaluation: metrics of it, where there are any.
        seed: of every draw.
    """
    log = run.read_log() if run.log_file.exists() else []
    images = of_images(model, model.matched_splits(splits), seed)
    measured = {**of_log(log), **images, **of_metrics(evaluation)}
    return findings(Measured(run.read_config(), str(run), **measured))


def of_evaluation(
    config: RunConfig, evaluation: Evaluation, run: str = "", steps: int | None = None
) -> list[Finding]:
    """Return what metrics alone show to be wrong."""
    return findings(Measured(config, run, steps=steps, **of_metrics(evaluation)))


def of_log(log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a log says of a training."""
    epochs = [entry for entry in log if entry["kind"] == "epoch"]
    players = {key.partition("/")[0] for e in log if e["kind"] == "step" for key in e if "/" in key}
    adversaries = players & ADVERSARIES
    steps = epochs[-1]["step"] if epochs else None
    return {"epochs": epochs, "steps": steps, "adversarial": bool(adversaries)}


def of_metrics(evaluation: Evaluation | None) -> dict[str, Any]:
    """Return what the metrics of an evaluation say of a model."""
    if evaluation is None:
        return {}
    figures = evaluation.figures
    found: dict[str, Any] = {}
    if "rate" in figures:
        found["rate"] = figures["rate"].value
    if "variance" in evaluation.latent:
        found["variance"] = torch.tensor(evaluation.latent["variance"], dtype=torch.double)
    if {"frechet", "frechet_floor"} <= figures.keys():
        found["frechet"] = figures["frechet"].value, figures["frechet_floor"].value
        protocol = figures["frechet"].protocol
        found["sampler"] = protocol.partition("Drawn from ")[2].partition(". Features")[0]
    return found


def of_images(model: Vae, splits: Splits, seed: int = 0) -> dict[str, Any]:
    """Return what up to 500 validation images, and samples of the model, say of it."""
    images, train = splits.validation, splits.train
    found: dict[str, Any] = {"numbers": math.prod(model.shape)}
    if model.mixture is not None:
        found["sampler"] = model.mixture.name
    if not len(images):
        return found
    with torch.no_grad(), evaluating(model), seeded(seed, model.device):
        found |= _of_latents(model, images, train)
        found["labels"] = label_effect(model, train, seed)
        found["flow"] = flow_accuracy(model, train, images)
    if splits.held_out:
        found["kin"] = kin_of(train, images)
    return found


def _of_latents(model: Vae, images: ImageSet, train: ImageSet) -> dict[str, Any]:
    """Return what posteriors of images, and their decoded means, say of a model."""
    index = _spread(len(images), IMAGES)
    means, drawn, rates, errors = [], [], [], []
    for batch in batches(model, images, index, model.rows):
        trace = model(batch)
        latent = trace.latents["z"]
        decoded = model.decode(latent.posterior.mean, trace.context).mean
        means.append(latent.posterior.mean.double().cpu())
        drawn.append(latent.value[0].cpu())
        rates.append(torch.zeros(0) if is_point(latent.posterior) else trace.rate.mean(0).cpu())
        errors.append((decoded - batch.images).square().flatten(1).mean(1).cpu())
    rate = torch.cat(rates)
    found: dict[str, Any] = {"rate": float(rate.mean()) if len(rate) else None}
    found["mse"] = float(torch.cat(errors).mean()), mean_image_error(model, images, index, train)
    if len(index) > 1:
        found["variance"] = torch.cat(means).var(0)
    latents = torch.cat(drawn)
    if isinstance(latent.prior, StandardNormal) and len(latents) > 2 * latents.shape[1] + 1:
        gap, low, high = normal_gap(latents)
        found |= {"prior_gap": gap, "deviations": (low, high)}
    return found


def _spread(count: int, most: int) -> Tensor:
    """Return up to so many rows, evenly spread."""
    kept = min(count, most)
    return torch.arange(kept) * count // max(1, kept)


def _pixels(images: ImageSet, index: Tensor) -> Tensor:
    """Return images at ``index`` in [0, 1], ``(n, C, H, W)``."""
    taken = images.take(index).cpu()
    return taken.float() if taken.is_floating_point() else taken.float() / 255


def mean_image_error(model: Vae, images: ImageSet, index: Tensor, train: ImageSet) -> float:
    """Return the mean squared error of the mean training image in place of ``images[index]``.

    Both are binarised where the model was trained on binary images.
    """

    def pixels(some: ImageSet, rows: Tensor) -> Tensor:
        x = _pixels(some, rows)
        return binarize(x, model.binarize, torch.rand_like(x))

    rows = _spread(len(train), MEANT)
    mean = torch.stack([pixels(train, part).sum(0) for part in rows.split(IMAGES)]).sum(0)
    return float((pixels(images, index) - mean / len(rows)).square().mean())


def normal_gap(latents: Tensor) -> tuple[float, float, float]:
    """Return KL(N(m, S) ‖ N(0, I)) of latents with mean m and covariance S, and their spread.

        ½ (tr S + |m|² − D − log|S|),   log|S| freed of the bias of few: Σ_i ψ((N − i)/2) and so on

    It is no more than KL(q(z) ‖ p(z)), of which it is the part that a normal distribution shows.

    Arguments:
        latents: a draw from q(z|x) of each image, ``(N, D)``, N > D.

    Returns:
        tuple: nats, and the least and greatest standard deviation in any direction.
    """
    latents = latents.double()
    n, dims = latents.shape
    mean, cov = latents.mean(0), torch.cov(latents.T).reshape(dims, dims)
    spread = torch.linalg.eigvalsh(cov).clamp(min=1e-12)
    bias = sum(digamma((n - i) / 2) for i in range(1, dims + 1)) + dims * math.log(2 / (n - 1))
    squared = float(mean.square().sum()) - float(spread.sum()) / n  # of the true mean
    gap = 0.5 * (float((spread - spread.log()).sum()) + squared - dims + float(bias))
    return gap, float(spread[0].sqrt()), float(spread[-1].sqrt())


def label_effect(model: Vae, train: ImageSet, seed: int) -> LabelEffect | None:
    """Return how far the class moves samples; None of a model that samples no requested class.

    The same noise is decoded under each of up to 20 classes. Nor of one whose samples come from a
    mixture for each class, which differ as the classes do.
    """
    if (
        model.mixture is not None
        or not model.asked_classes
        or train.labels is None
        or model.conditioning is None
    ):
        return None
    rows = _spread(len(train), MEANT)
    labels = train.labels.cpu()[rows]
    kept = [k for k in range(model.classes) if int((labels == k).sum()) > 1][:_CLASSES]
    if len(kept) < 2:
        return None
    samples = torch.stack([shrunk(_of_class(model, k, seed), _SIDE) for k in kept])
    moments = [_moments(train, rows[labels == k]) for k in kept]
    between = float(torch.stack([mean for mean, _ in moments]).var(0).mean())
    chance = sum(error for _, error in moments) / len(kept)
    names = model.conditioning.class_names
    effect = float(samples.var(0).mean())
    return LabelEffect(effect, between - chance, chance, names[kept[0]])


def _of_class(model: Vae, label: int, seed: int) -> Tensor:
    """Return images of a class, of the same noise for every class."""
    with seeded(seed, model.device):
        context = model.told_of(_SAMPLES, {LABEL: label}, draw=True)
        return model.decoded(model.draw(context), context).cpu()


def _moments(images: ImageSet, rows: Tensor) -> tuple[Tensor, float]:
    """Return the mean of reduced images, and the variance of that mean."""
    reduced = torch.cat([shrunk(_pixels(images, part), _SIDE) for part in rows.split(IMAGES)])
    return reduced.mean(0), float(reduced.var(0).mean()) / len(rows)


def flow_accuracy(model: Vae, train: ImageSet, images: ImageSet) -> tuple[str, float] | None:
    """Return the attribute that z tells most of behind a conditional flow, and how surely.

    A linear discriminant of the means of z of training images predicts that of validation images,
    balanced; what is returned is the lower end of the accuracy's 95 % interval.
    """
    if model.transport is None:
        return None
    known, u = _through_flow(model, train.subset(_spread(len(train), 2 * IMAGES)))
    tested, v = _through_flow(model, images.subset(_spread(len(images), IMAGES)))
    found = []
    for number, name in enumerate(model.subspaces):
        column = number - len(model.subspaces)
        rows = balanced(v[:, column] > 0)
        hits = _discriminated(known, u[:, column] > 0, tested[rows]) == (v[rows, column] > 0)
        found.append((name, Share(int(hits.sum()), len(rows)).interval[0]))
    return max(found, key=lambda each: each[1])


def _through_flow(model: Vae, images: ImageSet) -> tuple[Tensor, Tensor]:
    """Return the means of z, ``(N, D)``, and the labels, ``(N, L)``."""
    assert model.transport is not None
    loc, _, u = posteriors(model, images)
    z = model.transport.do(loc, u)[0][:, : model.plain_dims]
    return z.cpu(), u.cpu()


def _discriminated(known: Tensor, on: Tensor, tested: Tensor) -> Tensor:
    """Return which of ``tested`` a linear discriminant (Fisher, 1936) takes to be ``on``."""
    if not on.any() or on.all():
        return torch.zeros(len(tested), dtype=torch.bool)
    one, other = known[on].mean(0), known[~on].mean(0)
    within = torch.cat([known[on] - one, known[~on] - other])
    cov = within.T @ within / len(within) + 1e-4 * torch.eye(known.shape[1])
    scores: Tensor = (tested - (one + other) / 2) @ torch.linalg.solve(cov, one - other)
    return scores > 0


def kin_of(train: ImageSet, images: ImageSet) -> Kin | None:
    """Return which held-out images seem to be parts of the same photos as training images.

    None where names are not those of files, or number the images alone.
    """
    if train.names is None or images.names is None or not images.names.files:
        return None
    rows, index = _spread(len(train), TRAINING), _spread(len(images), IMAGES)
    stems = [stem_of(train.name(row)) for row in rows.tolist()]
    mine = [stem_of(images.name(row)) for row in index.tolist()]
    places = {stem: place for place, stem in enumerate(stems) if stem}
    kin = [k for k, stem in enumerate(mine) if stem in places]
    if not kin:
        return None
    like, other = (_colours(some, which) for some, which in ((images, index[kin]), (train, rows)))
    nearest = torch.cdist(like, other).argmin(1).tolist()
    same = sum(stems[place] == mine[k] for k, place in zip(kin, nearest, strict=True))
    counts = Counter(stems)
    chance = sum(counts[mine[k]] for k in kin) / len(kin) / len(rows)
    pair = images.name(int(index[kin[0]])), train.name(int(rows[places[mine[kin[0]]]]))
    return Kin(len(index), len(kin), same / len(kin), chance, pair)


def _colours(images: ImageSet, index: Tensor) -> Tensor:
    """Return the colours of images on a grid of 4 × 4 and their spread, ``(n, 17 C)``."""
    parts = []
    for rows in index.split(IMAGES):
        x = _pixels(images, rows)
        parts.append(torch.cat([shrunk(x, _GRID).flatten(1), x.flatten(2).std(2)], 1))
    return torch.cat(parts)
