"""Figures of generated images: how close draws of a model are to images that it never saw."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from vaelab.data.batches import epoch_order
from vaelab.data.images import ImageSet, Splits
from vaelab.errors import DataError
from vaelab.evaluation.features import Features, find_features
from vaelab.evaluation.figures import Figure
from vaelab.evaluation.generation import frechet, kernel_distance, neighbourhoods
from vaelab.evaluation.record import Evaluation
from vaelab.evaluation.samplers import Sampler, find_sampler
from vaelab.models.model import seeded
from vaelab.models.vae import Vae
from vaelab.training.step import mix_seed

IMAGES, SETS, K = 10_000, 3, 5
"""Images a set at most, sets of generated images, and neighbours that span a ball."""

_LEAST = 20
_SEED = 3  # part of the seed: no other measure draws these numbers

UNITS = {
    "frechet": "squared feature units",
    "kernel": "squared kernel units",
    "precision": "share of generated images",
    "recall": "share of real images",
    "density": "real neighbourhoods, of 1 expected",
    "coverage": "share of real images",
}


def generation_figures(
    model: Vae,
    images: ImageSet,
    features: Features,
    sampler: Sampler,
    *,
    known: ImageSet | None = None,
    limit: int = IMAGES,
    sets: int = SETS,
    seed: int = 0,
    report: Callable[[int], None] = lambda decoded: None,
) -> dict[str, Figure]:
    """Compare generated images with real ones; see `generation` for the equations.

    Arguments:
        model: generates.
        images: real images that it was not trained on.
        features: where they are compared.
        sampler: of the codes.
        known: training images; with them the Fréchet distance of as many of these is given too,
            the floor that a perfect model would reach.
        limit: number of real images, and of generated ones in each set, at most.
        sets: independent sets of generated images, whose spread gives the standard errors.
        seed: of every draw.
        report: told the number of images made since the last call.

    Raises:
        DataError: fewer than 20 real images.
    """
    count = min(limit, len(images))
    if count < _LEAST:
        raise DataError(f"generation: {count} images are too few to compare with; {_LEAST} needed.")
    real = features.of(_some(images, count, seed))
    drawn: dict[str, list[float]] = {}
    for number in range(sets):
        with seeded(mix_seed(seed, _SEED, number), model.device):
            made = model.generate(sampler.draw(count))
        for name, value in _compare(real, features.of(made)).items():
            drawn.setdefault(name, []).append(value)
        report(count)
    how = (
        f"{count:,} generated images against {count:,} real ones that training did not see; mean "
        f"and standard error over {sets} such sets. Codes from {sampler.name}. Features: "
        f"{features.name}. Double precision, seed {seed}. Compare only figures made the same way."
    )
    ball = f" A neighbourhood reaches to the {K}th neighbour."
    figures = {
        name: _figure(values, count, UNITS[name], how + (ball if name in _BALLS else ""))
        for name, values in drawn.items()
    }
    if known is not None and len(known) >= count:
        floor = frechet(real, features.of(_some(known, count, seed)))
        what = f"{count:,} training images in place of generated ones: what a perfect model reaches"
        figures["frechet_floor"] = Figure(
            floor, None, count, UNITS["frechet"], f"{what}. Features: {features.name}."
        )
    return figures


def with_generation(
    evaluation: Evaluation,
    model: Vae,
    images: ImageSet,
    splits: Splits,
    network: Path | None,
    sampler: str,
    limit: int | None,
    seed: int,
) -> Evaluation:
    """Return an evaluation with the figures of generated images beside its own.

    Arguments:
        evaluation: of the same images.
        model: generates.
        images: what the evaluation is of.
        splits: whose training images the sampler and the feature network may use.
        network: an ONNX network to compare in, in place of a classifier of the data.
        sampler: name of the sampler.
        limit: number of real images, and of generated ones in each set, at most.
        seed: of every draw.
    """
    figures = generation_figures(
        model,
        images,
        find_features(splits, network),
        find_sampler(sampler, model, splits.train, seed=seed),
        known=splits.train,
        limit=limit or IMAGES,
        seed=seed,
    )
    return replace(evaluation, figures={**evaluation.figures, **figures})


_BALLS = ("precision", "recall", "density", "coverage")


def _some(images: ImageSet, count: int, seed: int) -> Tensor:
    return images.take(epoch_order(len(images), seed, 0)[:count].sort().values)


def _compare(real: Tensor, made: Tensor) -> dict[str, float]:
    return {
        "frechet": frechet(real, made),
        "kernel": kernel_distance(real, made),
        **asdict(neighbourhoods(real, made, K)),
    }


def _figure(values: list[float], count: int, unit: str, protocol: str) -> Figure:
    found = torch.tensor(values, dtype=torch.double)
    error = float(found.std()) / math.sqrt(len(found)) if len(found) > 1 else None
    return Figure(float(found.mean()), error, count, unit, protocol)
