"""Labelled images made by a model, for other models to train on, and how new they are.

A model may repeat what it has seen. So every made image is compared with the images that the model
was trained on:

    nearness(x) = min_i ‖x − x_i‖ / median over held-out x' of min_i ‖x' − x_i‖

It is 1 where made images are as far from the training images as new real ones are, and 0 for a
copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaelab.data.batches import epoch_order
from vaelab.data.images import ImageSet
from vaelab.errors import ConfigError, DataError, check_seed, within
from vaelab.evaluation.samplers import find_sampler
from vaelab.models.classifier import Classifier
from vaelab.models.conditioning import LABEL
from vaelab.models.model import seeded
from vaelab.models.vae import MOST_FACTOR, Vae
from vaelab.training.step import mix_seed

ROUNDS = 10
"""Times as many images as are wanted are made at most, where filters leave some out."""

_FRESH, _CHUNK, _STIFF = 500, 512, 0.1


@dataclass(frozen=True)
class Making:
    """How labelled images are made of a trained model.

    Arguments:
        sampler: ``prior`` for a conditional model; ``pool``, ``gmm`` or ``flow`` draw the codes of
            each class from those of its labelled images, see `find_sampler`.
        temperature: factor on the prior's noise.
        guidance: how far a conditional model follows the class: see `Vae.guided`.
        confidence: least probability that a classifier must give the class asked for.
        farther: least nearness: images closer to the training images are left out.
        seed: of every draw.
    """

    sampler: str = "prior"
    temperature: float = 1.0
    guidance: float = 1.0
    confidence: float = 0.0
    farther: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        within("temperature", self.temperature, 0, MOST_FACTOR)
        within("guidance", self.guidance, -MOST_FACTOR, MOST_FACTOR)
        within("confidence", self.confidence, 0, 1)
        within("farther", self.farther, 0, 1e9)
        check_seed(self.seed)


@dataclass(frozen=True)
class Made:
    """Labelled images that a model made.

    Arguments:
        images: uint8 ``(N, C, H, W)``, class by class.
        labels: ``(N,)``.
        confidence: probability that the classifier gives each for its class, ``(N,)``; None
            without one.
        nearness: of each, ``(N,)``.
        nearest: which training image is the nearest, ``(N,)``.
        tried: images made in all, those left out included.
    """

    images: Tensor
    labels: Tensor
    confidence: Tensor | None
    nearness: Tensor
    nearest: Tensor
    tried: int


def make_images(
    model: Vae,
    known: ImageSet,
    per_class: int,
    how: Making,
    *,
    seen: ImageSet | None = None,
    fresh: ImageSet | None = None,
    judge: Classifier | None = None,
    checked: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Made:
    """Make so many images of every class; fewer where the filters leave too few.

    None of a class without a labelled image: the model has never been told what it looks like.

    Arguments:
        model: trained.
        known: real images with labels; codes of a class are drawn from theirs.
        per_class: images of each class.
        how: see `Making`.
        seen: the images that the model was trained on; ``known`` if not given.
        fresh: held-out images, the measure of nearness; without them it is in units of pixels'
            distances.
        judge: a classifier that has seen no other labels.
        checked: find the nearest training image of only the first so many of each class, for
            speed; others have the nearness NaN. A filter by nearness needs all.
        report: told how many classes are done, and how many there are.

    Raises:
        ConfigError: settings without a meaning for this model.
        DataError: a class of which the filters leave no image.
    """
    known, _ = model.matched(known)
    if judge is not None:
        judge.check_classes(known.class_names)
    classes = len(known.class_names)
    _check(model, how, classes, judge)
    assert known.labels is not None
    there = known.labels[known.labels >= 0].unique().tolist()
    near = Near(seen or known, fresh)
    parts: list[dict[str, Tensor]] = []
    tried = 0
    for label in there:
        draw = _drawing(model, known, label, how)
        kept: list[dict[str, Tensor]] = []
        for turn in range(ROUNDS):
            with seeded(mix_seed(how.seed, label, turn), model.device):
                images = draw(per_class).cpu().mul(255).round().to(torch.uint8)
            tried += len(images)
            kept.append(_passed(images, label, how, near, judge))
            if sum(len(part["labels"]) for part in kept) >= per_class:
                break
        joined = {name: torch.cat([part[name] for part in kept])[:per_class] for name in kept[0]}
        if not len(joined["labels"]):
            asked = [f"confidence {how.confidence:g}"] if how.confidence else []
            asked += [f"nearness {how.farther:g}"] if how.farther else []
            raise DataError(
                f"class {known.class_names[label]}: of {ROUNDS * per_class:,} images made none has "
                f"{' and '.join(asked)} or more. Ask for less, or train the model longer."
            )
        if "nearness" not in joined:
            joined |= _nearest(joined["images"], near, checked)
        parts.append(joined)
        report(len(parts), len(there))
    every = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    confidence = every.get("confidence")
    return Made(
        every["images"], every["labels"], confidence, every["nearness"], every["nearest"], tried
    )


class Near:
    """Finds the nearest of the images that a model has seen, and how near it is.

    Arguments:
        seen: these images.
        fresh: real images that are not among them; distances are in units of the median of theirs.
    """

    def __init__(self, seen: ImageSet, fresh: ImageSet | None = None) -> None:
        self.seen = torch.cat([part.cpu().flatten(1).float() for part in seen.chunks()])
        self.unit = 1.0
        if fresh is not None and len(fresh):
            some = fresh.take(epoch_order(len(fresh), 0, 0)[:_FRESH])
            self.unit = max(float(self._search(some)[0].median()), 1e-9)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return nearness and number of the nearest seen image for each, ``(n,)``."""
        distance, index = self._search(images)
        return distance / self.unit, index

    def _search(self, images: Tensor) -> tuple[Tensor, Tensor]:
        flat = images.cpu().flatten(1).float()
        found = [torch.cdist(rows, self.seen).min(1) for rows in flat.split(_CHUNK)]
        return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def hardly_vary(made: Made, known: ImageSet) -> str | None:
    """Say that made images of a class are nearly all alike, if they are.

    So much: the mean over the pixels of their standard deviation is below a tenth of that of the
    real images of the class, as of a model whose posterior has collapsed.
    """
    assert known.labels is not None
    labels = known.labels.cpu()
    for label in made.labels.unique().tolist():
        rows = (labels == label).nonzero().squeeze(1)[:_FRESH]
        mine = made.images[made.labels == label]
        if len(rows) < 2 or len(mine) < 2:
            continue
        real = float(known.take(rows).cpu().float().std(0).mean())
        own = float(mine.float().std(0).mean())
        if own < _STIFF * real:
            return (
                f"Made images of {known.class_names[label]} are nearly all alike: they vary "
                f"{own / real:.0%} as much as the real ones. Has the posterior collapsed? See: "
                "vaelab evaluate RUN"
            )
    return None


def usual_sampler(model: Vae) -> str:
    """Return the prior for a model that can be told a class, and else pools of codes."""
    return "prior" if model.asked_classes else "pool"


def _check(model: Vae, how: Making, classes: int, judge: Classifier | None) -> None:
    if classes < 2:
        raise ConfigError("augment: needs images labelled with two classes or more.")
    if how.sampler == "prior" and not model.asked_classes:
        raise ConfigError(
            "sampler: the prior of this model knows no classes; use pool or gmm, or train a "
            "conditional model (cvae)."
        )
    if how.sampler != "prior" and (how.guidance != 1 or how.temperature != 1):
        raise ConfigError(f"guidance, temperature: only the prior has them, not {how.sampler}.")
    if how.confidence > 0 and judge is None:
        raise ConfigError("confidence: needs a classifier to judge by.")


def _drawing(model: Vae, known: ImageSet, label: int, how: Making) -> Callable[[int], Tensor]:
    if how.sampler == "prior":
        given: dict[str, Any] = {LABEL: label}
        return lambda n: model.sample(n, how.temperature, how.guidance, sampler="prior", **given)
    return find_sampler(how.sampler, model, known, label=label, seed=how.seed).images


def _passed(
    images: Tensor, label: int, how: Making, near: Near, judge: Classifier | None
) -> dict[str, Tensor]:
    """Return the images that the filters leave, with what the filters measured."""
    found = {"images": images, "labels": torch.full((len(images),), label)}
    if judge is not None:
        found["confidence"] = judge.predict(images)[:, label].cpu()
        found = _where(found["confidence"] >= how.confidence, found)
    if how.farther:
        found |= _nearest(found["images"], near)
        found = _where(found["nearness"] >= how.farther, found)
    return found


def _where(good: Tensor, found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values[good] for name, values in found.items()}


def _nearest(images: Tensor, near: Near, count: int | None = None) -> dict[str, Tensor]:
    """Return nearness and nearest training image of the first images, or of all."""
    nearness, nearest = torch.full((len(images),), torch.nan), torch.zeros(len(images)).long()
    nearness[:count], nearest[:count] = near(images[:count])
    return {"nearness": nearness, "nearest": nearest}
