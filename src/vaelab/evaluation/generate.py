"""Figures of generated images: how close draws of a model are to images that it never saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict

import torch
from torch import Tensor

from vaelab.data.batches import epoch_order
from vaelab.data.images import ImageSet
from vaelab.errors import DataError, counted
from vaelab.evaluation.features import Features
from vaelab.evaluation.figures import Figure, Share, rounded
from vaelab.evaluation.generation import detail, frechet, kernel_distance, neighbourhoods
from vaelab.evaluation.record import origin
from vaelab.evaluation.samplers import Sampler
from vaelab.models.model import seeded
from vaelab.training.diagnoses import FAR
from vaelab.training.step import mix_seed

IMAGES, SETS, K = 10_000, 3, 5
"""Images a set at most, sets of generated images, and neighbours that span a ball."""

_LEAST, _CHUNK = 20, 1_000

FEW, SURE = 1_000, 0.9
"""Images, and accuracy of the feature network, below which the figures mean little: the five
nearest of 100 images are a twentieth of all, and a Fréchet distance is mostly the bias of few."""

WEAK = "Feature metrics mean little here"
_SEED = 3  # part of the seed: no other measure draws these numbers

UNITS = {
    "frechet": "squared feature units",
    "kernel": "squared kernel units",
    "precision": "share of generated images",
    "recall": "share of real images",
    "density": "real neighbourhoods, of 1 expected",
    "coverage": "share of real images",
    "sharpness": "of real images' detail",
}


def generation_figures(
    images: ImageSet,
    features: Features,
    sampler: Sampler,
    *,
    known: ImageSet | None = None,
    held_out: bool | None = True,
    limit: int = IMAGES,
    sets: int = SETS,
    seed: int = 0,
    report: Callable[[int], None] = lambda decoded: None,
) -> dict[str, Figure]:
    """Compare generated images with real ones; see `generation` for the equations.

    Arguments:
        images: real images, usually some that it was not trained on.
        features: where they are compared.
        sampler: makes the images.
        known: training images; with them the Fréchet distance of as many of these is given too,
            the floor that a perfect model would reach.
        held_out: whether the real images were kept from training; the protocol says it.
        limit: number of real images, and of generated ones in each set, at most.
        sets: independent sets of generated images, whose spread gives the standard errors.
        seed: of every draw.
        report: told the number of images made since the last call.

    Raises:
        DataError: fewer than 20 real images.
    """
    count = check_enough(images, limit)
    chosen = epoch_order(len(images), seed, 0)[:count]
    real = _features(images, chosen, features)
    fine = torch.cat([detail(images.take(rows) / 255) for rows in chosen.split(_CHUNK)]).mean()
    drawn: dict[str, list[float]] = {}
    for number in range(sets):
        with seeded(mix_seed(seed, _SEED, number), sampler.model.device):
            made, energy = _made(sampler, count, features)
        found = {**_compare(real, made), "sharpness": float(energy / fine.clamp(min=1e-12))}
        for name, value in found.items():
            drawn.setdefault(name, []).append(value)
        report(count)
    how = (
        f"{count:,} generated images against {count:,} real ones, {origin(held_out)}; mean over "
        f"{sets} such sets, whose spread gives the standard error. Drawn from {sampler.name}. "
        f"Features: {features.name}. Double precision, seed {seed}. Compare only figures made the "
        "same way."
    )
    figures = {
        name: _figure(name, values, count, how + _ABOUT.get(name, ""))
        for name, values in drawn.items()
    }
    if known is not None and len(known) >= count:
        floor = frechet(real, _features(known, epoch_order(len(known), seed, 1)[:count], features))
        what = f"{count:,} training images in place of generated ones: what a perfect model reaches"
        figures["frechet_floor"] = Figure(
            floor, None, count, UNITS["frechet"], f"{what}. Features: {features.name}."
        )
    first = [name for name in ("frechet", "frechet_floor") if name in figures]
    return {**{name: figures[name] for name in first}, **figures}


def generation_notes(figures: Mapping[str, Figure], features: Features) -> tuple[str, ...]:
    """Say in plain sentences what keeps `generation_figures` from meaning what they seem to.

    Arguments:
        figures: what it returned.
        features: where images were compared.
    """
    why, notes = [], []
    count = figures["frechet"].n
    if count < FEW:
        why.append(f"only {count:,} real images were compared with")
    if features.images is not None and features.images < FEW:
        why.append(f"the feature network was trained on {counted(features.images, 'image')}")
    if features.accuracy is not None and features.accuracy < SURE:
        why.append(f"it classifies only {features.accuracy:.0%} of validation images correctly")
    if why:
        notes.append(
            f"{WEAK}: {', and '.join(why)}. Look at the images, and at the Fréchet distance "
            "beside its floor."
        )
    values = {name: figure.value for name, figure in figures.items()}
    floor = values.get("frechet_floor")
    far = values["recall"] < 0.5 if floor is None else values["frechet"] > FAR * floor
    if far and max(values["precision"], values["density"]) >= SURE:
        beside = "" if floor is None else f" (of as many real images: {rounded(floor, None)})"
        notes.append(
            f"Precision {values['precision']:.2f} and density {values['density']:.2f} ask only "
            "whether generated images lie among real ones, as images that are all alike can. What "
            f"is missing shows in the recall, {values['recall']:.2f}, and in the Fréchet distance, "
            f"{rounded(values['frechet'], None)}{beside}."
        )
    return tuple(notes)


def check_enough(images: ImageSet, limit: int = IMAGES) -> int:
    """Return how many images are compared; raises `DataError` when these are too few."""
    count = min(limit, len(images))
    if count < _LEAST:
        are = "is" if count == 1 else "are"
        raise DataError(
            f"generation: {counted(count, 'image')} {are} too few to compare with; {_LEAST} needed."
        )
    return count


_BALL = f" A neighbourhood reaches to the {K}th neighbour."
_ABOUT = {
    "frechet": " Biased upwards for few images; its floor, of as many, has the same bias.",
    **dict.fromkeys(("precision", "recall", "density", "coverage"), _BALL),
}
_SHARES = ("precision", "recall", "coverage")


def _features(images: ImageSet, index: Tensor, features: Features) -> Tensor:
    return torch.cat([features.of(images.take(rows)).cpu() for rows in index.split(_CHUNK)])


def _made(sampler: Sampler, count: int, features: Features) -> tuple[Tensor, Tensor]:
    """Return the features and the mean detail of generated images, which are not kept."""
    seen, fine = [], []
    for start in range(0, count, _CHUNK):
        images = sampler.images(min(_CHUNK, count - start))
        seen.append(features.of(images).cpu())
        fine.append(detail(images.cpu()))
    return torch.cat(seen), torch.cat(fine).mean()


def _compare(real: Tensor, made: Tensor) -> dict[str, float]:
    return {
        "frechet": frechet(real, made),
        "kernel": kernel_distance(real, made),
        **asdict(neighbourhoods(real, made, K)),
    }


def _figure(name: str, values: list[float], count: int, protocol: str) -> Figure:
    found = torch.tensor(values, dtype=torch.double)
    error = float(found.std()) / math.sqrt(len(found)) if len(found) > 1 else None
    value, freedom = float(found.mean()), len(found) - 1 or None
    ends = Share(round(value * count), count).interval if name in _SHARES else None
    return Figure(value, error, count, UNITS[name], protocol, freedom, ends)
