"""The training set of one arm: real images with labels, and images made from no more than these."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vaelab import files
from vaelab.config import DataConfig, RunConfig, parse_config
from vaelab.data.attributes import MEASURES
from vaelab.data.batches import epoch_order
from vaelab.data.images import ImageSet, Splits, with_few_labels, with_labels
from vaelab.errors import BusyError, ConfigError
from vaelab.evaluation.figures import Figure
from vaelab.explore.augment import Made, Making, make_images
from vaelab.explore.grids import save_png
from vaelab.explore.labelled import neighbours
from vaelab.models.conditioning import LABEL
from vaelab.models.vae import Vae
from vaelab.studies.arms import ARMS, LEARNS_CLASSES, Mix, Sees, safe_name
from vaelab.training.fit import train_config
from vaelab.training.judge import trained_judge
from vaelab.training.progress import Silent
from vaelab.training.run import Run
from vaelab.training.step import mix_seed

_CHECKED, _SHOWN, _COLUMNS = 50, 2, 20
_WATCHED = 1_000  # images of a generator's validation


@dataclass(frozen=True)
class Mixture:
    """What a classifier of an arm is trained on.

    Arguments:
        splits: its training images; validation and test as they are.
        labels: number of real labels that went into it.
        figures: of the made images, if there are any.
        notes: what a reader should know of the labels.
    """

    splits: Splits
    labels: int
    figures: dict[str, Figure]
    notes: tuple[str, ...] = ()


def mixed(
    mix: Mix, splits: Splits, seed: int, folder: Path, read: Callable[[DataConfig], Splits]
) -> Mixture:
    """Return the training set of an arm for a seed, its generator trained first if it has one.

    Which images are labelled follows from fraction and seed alone: every arm has the same.

    Arguments:
        mix: what it is made of.
        splits: the real images.
        seed: of the run.
        folder: of the study; generators that several arms share are trained once, there.
        read: gives the images of a generator: the same ones, maybe with attributes.
    """
    few = labelled_part(splits.train, mix.fraction, seed)
    known = with_labels(few)
    notes = _raised(mix.fraction, with_labels(splits.train), len(known))
    made_count = round(mix.share * mix.images)
    real = tiled(known, mix.images - made_count, mix_seed(seed, 1))
    if not made_count:
        return Mixture(replace(splits, train=real), len(known), {}, notes)
    config = parse_config(mix.train, mix.generator)
    made, figures = _made(mix, config, read(config.data), seed, folder)
    extra = tiled(_as_set(made, known), made_count, mix_seed(seed, 2))
    return Mixture(replace(splits, train=_joined(real, extra)), len(known), figures, notes)


def _raised(fraction: float, known: ImageSet, used: int) -> tuple[str, ...]:
    """Say that more labels were used than a share of them is, where that is too few."""
    asked = round(fraction * len(known))
    if used <= asked:
        return ()
    return (
        f"{100 * fraction:g} % of {len(known):,} labels would be {asked}: {used} were used, the "
        "fewest that a study takes.",
    )


def labelled_part(images: ImageSet, fraction: float, seed: int) -> ImageSet:
    """Return all images, with the labels of a fraction, evenly over the classes; −1 for others.

    Where the label is unknown, so is every attribute that came with the images; measured ones
    (`vaelab.data.attributes.MEASURES`) tell no more than the images.

    Raises:
        ConfigError: the images have no classes.
    """
    if images.labels is None or len(images.class_names) < 2:
        raise ConfigError("data: an augmentation study needs images with two classes or more.")
    there = int((images.labels >= 0).sum())
    count = max(2 * len(images.class_names), round(fraction * there))  # a pool needs two
    few = with_few_labels(images, min(count, there), seed)
    own = [n for n, name in enumerate(few.attribute_names) if name not in MEASURES]
    if few.attributes is None or not own:
        return few
    assert few.labels is not None
    values = few.attributes.clone()
    hidden = (few.labels < 0).nonzero().to(values.device)
    values[hidden, torch.tensor(own, device=values.device)] = torch.nan
    return replace(few, attributes=values)


def tiled(images: ImageSet, count: int, seed: int) -> ImageSet:
    """Return ``count`` images: all in turn, each time in another order, as often as it takes."""
    if count == 0:
        return images.subset(torch.zeros(0, dtype=torch.int64))
    turns = range(math.ceil(count / len(images)))
    order = torch.cat([epoch_order(len(images), seed, turn) for turn in turns])
    return images.subset(order[:count])


def _made(
    mix: Mix, config: RunConfig, splits: Splits, seed: int, folder: Path
) -> tuple[Made, dict[str, Figure]]:
    few = labelled_part(splits.train, mix.fraction, seed)
    known = with_labels(few)
    seen = {
        "labelled": known,
        "images": few,
        "everything": splits.train,
        "unlabelled": _without_labels(splits.train),
    }[mix.sees]
    run = Run(files.inside(folder, folder / "generators" / _key(mix, seed)))
    _train(mix, config, splits, seen, seed, run)
    judge = None
    if mix.make.confidence > 0:
        judge = trained_judge(replace(splits, train=known), folder).classifier
    how = Making(**mix.make.model_dump(), seed=seed)
    wanted = math.ceil(mix.share * mix.images / len(known.class_names))
    model = run.load_model()
    if ARMS[mix.arm].sees == "everything":
        known = with_labels(splits.train)
    elif config.recipe in LEARNS_CLASSES:
        known = with_read_labels(model, seen)
    made = make_images(
        model,
        known,
        wanted,
        how,
        seen=seen,
        fresh=splits.validation if splits.held_out else None,
        judge=judge,
        checked=_CHECKED,
    )
    save_png(picture_of(mix, seed, folder), neighbours(made, seen, _SHOWN, _COLUMNS))
    near = made.nearness[~made.nearness.isnan()]
    how_near = (
        f"Median over {len(near):,} made images of the distance to the nearest of {len(seen):,} "
        "images that the generator saw, in units of the median of held-out real images."
    )
    return made, {"nearness": Figure(float(near.median()), None, len(near), "", how_near)}


def with_read_labels(model: Vae, images: ImageSet) -> ImageSet:
    """Return images whose class is what the model reads where it is unknown."""
    images, _ = model.matched(images)
    assert images.labels is not None
    labels = images.labels.cpu().clone()
    unknown = (labels < 0).nonzero().squeeze(1)
    for rows in unknown.split(_WATCHED):
        labels[rows] = model.labels(images.take(rows))[LABEL].cpu()
    return replace(images, labels=labels)


def picture_of(mix: Mix, seed: int, folder: Path) -> Path:
    """Return the picture of what a generator made for an arm, in the folder of a study."""
    name = f"{safe_name(mix.generator)}-{_part(ARMS[mix.arm].sees, mix.fraction)}.png"
    return files.inside(folder, folder / "generators" / _key(mix, seed)) / name


def _key(mix: Mix, seed: int) -> str:
    """Return the name of a generator's folder: what it sees, and so who shares it."""
    return f"{safe_name(mix.trained_as)}-{_part(mix.sees, mix.fraction)}-seed-{seed}"


def _part(sees: Sees | None, fraction: float) -> str:
    return f"{sees}-{fraction:g}" if sees in ("labelled", "images") else str(sees)


def _train(
    mix: Mix,
    config: RunConfig,
    splits: Splits,
    seen: ImageSet,
    seed: int,
    run: Run,
) -> None:
    """Train a generator on all that it may see, or wait for the worker that does.

    Few images are repeated; of many fewer passes are made, so that the steps stay about as many.
    """
    images = max(mix.generator_images, len(seen))
    epochs = max(1, round(config.training.epochs * mix.generator_images / images))
    training = config.training.model_copy(update={"seed": seed, "epochs": epochs})
    config = config.model_copy(update={"training": training})
    known = with_labels(seen)
    some = known if len(known) else seen
    watched = tiled(some, min(len(some), _WATCHED), seed)  # no label that the arm has not
    own = replace(
        splits,
        name=f"{splits.name}, {len(known):,} labels",
        train=tiled(seen, images, mix_seed(seed, 3)),
        validation=watched,
        test=watched,
    )
    while True:
        try:
            train_config(config, own, run, Silent())
            return
        except BusyError:
            time.sleep(1)


def _without_labels(images: ImageSet) -> ImageSet:
    assert images.labels is not None
    return replace(images, labels=torch.full_like(images.labels, -1))


def _as_set(made: Made, like: ImageSet) -> ImageSet:
    return ImageSet(made.images, made.labels, class_names=like.class_names)


def _joined(one: ImageSet, other: ImageSet) -> ImageSet:
    """Return the images of both with their labels."""
    if not len(one):
        return other
    assert one.labels is not None
    assert other.labels is not None

    def every(images: ImageSet) -> Tensor:
        return images.take(torch.arange(len(images))).cpu()

    labels = torch.cat([one.labels.cpu(), other.labels])
    images = torch.cat([every(one), every(other)])
    return ImageSet(images, labels, class_names=one.class_names)
