"""How well an attribute can be changed, what else changes with it, and where the latent holds it.

Whether an edited image has the attribute is measured on it where the attribute is one of
`vaelab.data.attributes.MEASURES`. Otherwise reference classifiers predict it: several, of different
architectures and seeds, trained on real images and no part of the model, for how many edits
succeed depends on who looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from vaelab.data.attributes import MEASURES, measure
from vaelab.data.batches import epoch_order
from vaelab.data.images import ImageSet, Splits, with_labels
from vaelab.errors import DataError
from vaelab.evaluation.figures import Figure, crossed, mean, share
from vaelab.evaluation.informed import latent_figures
from vaelab.models.classifier import FEWEST, ClassifierName
from vaelab.models.conditioning import LABEL, cut_at, cut_of
from vaelab.models.handles import Handle
from vaelab.models.model import seeded
from vaelab.models.vae import Vae
from vaelab.training.judge import Judge, trained_judge
from vaelab.training.progress import Progress

NETWORKS: tuple[ClassifierName, ...] = ("cnn-small", "cnn", "mlp")
"""Architectures of the reference classifiers; each has a seed of its own."""
SEEDS = (0, 2, 3)

SIDES = ("below", "above")
_CHUNK = 1_000
_COMPARED = 100


@dataclass(frozen=True)
class References:
    """What says whether an edited image has an attribute, and its class.

    Arguments:
        attribute: name.
        sides: reference classifiers of whether the attribute is above its cut; none where it is
            measured.
        classes: reference classifiers of the class; none where there are no classes.
        cut: above which the attribute counts as on; for one that is measured.
    """

    attribute: str
    sides: tuple[Judge, ...]
    classes: tuple[Judge, ...] = ()
    cut: float = 0.0

    @property
    def measured(self) -> bool:
        """Whether the attribute is measured on the edited image."""
        return not self.sides


def find_references(
    splits: Splits, attribute: str, cache: Path | None = None, progress: Progress | None = None
) -> References:
    """Return the references of an attribute; classifiers are trained if they are not cached."""
    small = prod(splits.train.shape[1:]) < FEWEST
    networks: tuple[ClassifierName, ...] = ("mlp", "mlp", "mlp") if small else NETWORKS

    def trained(which: Splits) -> tuple[Judge, ...]:
        pairs = zip(networks, SEEDS, strict=True)
        return tuple(trained_judge(which, cache, progress, seed, net) for net, seed in pairs)

    return References(
        attribute,
        () if is_measure(splits.train, attribute) else trained(with_sides(splits, attribute)),
        trained(splits) if len(splits.train.class_names) > 1 else (),
        cut_at(splits.train, attribute),
    )


def is_measure(images: ImageSet, attribute: str) -> bool:
    """Tell whether an attribute is what vaelab measures on the images under that name.

    A data set may have a ``width`` of its own that is something else; so up to 100 images are
    measured and compared.
    """
    if attribute not in MEASURES or images.attributes is None or not len(images):
        return False
    rows = torch.arange(min(len(images), _COMPARED)) * len(images) // min(len(images), _COMPARED)
    values = images.attributes[rows, images.attribute_names.index(attribute)]
    found = measure(images.take(rows), [attribute])[:, 0]
    return torch.allclose(found, values, rtol=1e-3, atol=1e-3, equal_nan=True)


def with_sides(splits: Splits, attribute: str) -> Splits:
    """Return the images labelled by which side of the cut an attribute is on, 0 or 1.

    The cut is that of the training images. Images of which it is unknown are left out.
    """
    at = cut_at(splits.train, attribute)

    def sided(images: ImageSet) -> ImageSet:
        values = cut_of(images, attribute, at)
        known = (~values.isnan()).nonzero().squeeze(1)
        labels = (values[known] > 0).long()
        return replace(images.subset(known), labels=labels, class_names=SIDES)

    return replace(
        splits,
        name=f"{splits.name} by {attribute}",
        train=sided(splits.train),
        validation=sided(splits.validation),
        test=sided(splits.test),
    )


def attribute_figures(
    model: Vae,
    splits: Splits,
    references: References,
    handle: Handle | None = None,
    *,
    limit: int = 10_000,
    seed: int = 0,
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, Figure]:
    """Measure one attribute on test images; every figure's name ends in ``:ATTRIBUTE``.

        probe_*   how much information about the attribute is in the latent, and where: see
                  `vaelab.evaluation.informed.latent_figures`
        gap       mutual information gap
        switch    share of images that, edited to the other side, have the attribute as requested:
                  by measuring it on the edited image, else by reference classifiers
        kept      share of them that reference classifiers still classify as the class of the image
        drift     how far an edit moves an image in the features of the first of these, on the
                  mean, in units of the mean distance between two images

    Edits are conditioned on no label of the image: a model that needs some infers them from it.

    Arguments:
        model: edits; see `Vae.edit`.
        splits: with the attribute.
        references: see `find_references`.
        handle: what moves the latents of a model without labels.
        limit: test images at most, at random.
        seed: of every choice.
        report: told the number of images edited since the last call.

    Raises:
        DataError: no test image of which the attribute is known.
    """
    name = references.attribute
    sides = with_sides(splits, name)
    order = epoch_order(len(sides.test), seed, 0)[:limit]
    if len(order) < 2:
        raise DataError(f"{name}: is known of {len(order)} test images; it cannot be measured.")
    test, known = sides.test.subset(order), with_classes(splits, name)
    figures = latent_figures(model, splits, known, name, order, seed)
    assert test.labels is not None
    found = _edited(model, test, known.test.subset(order), references, handle, report)
    where = f"Over {len(order):,} test images, seed {seed}."
    how = f"Every image edited to the other side of the cut of {name}."
    by = (
        f"Measured on the edited image: {MEASURES[name].summary}, the cut at {references.cut:.4g}."
        if references.measured
        else _readers("the attribute", references.sides, found["switch"])
    )
    figures["switch"] = crossed(found["switch"], f"{how} {where} {by}")
    if references.classes:
        if found["kept"].shape[1]:  # images whose class is known
            by = _readers("the class", references.classes, found["kept"])
            figures["kept"] = crossed(found["kept"], f"{how} {where} {by}")
        by = f"In the features of {references.classes[0].name}."
        figures["drift"] = mean(found["drift"], "of a mean distance", f"{how} {where} {by}")
    return {f"{key}:{name}": figure for key, figure in figures.items()}


def _readers(what: str, judges: tuple[Judge, ...], hits: Tensor) -> str:
    """Return which classifiers predict something, and the share of hits by each."""
    each = "; ".join(
        f"{share:.1%} by {judge.name}"
        for judge, share in zip(judges, hits.mean(1).tolist(), strict=True)
    )
    spread = " Their spread is in the interval." if len(judges) > 1 else ""
    plural = "s" if len(judges) > 1 else ""
    return f"Reference classifier{plural} of {what}: {each}.{spread}"


def with_classes(splits: Splits, attribute: str) -> Splits:
    """Return the images of which an attribute is known, with their own classes."""

    def known(images: ImageSet) -> ImageSet:
        return images.subset((~cut_of(images, attribute, 0.0).isnan()).nonzero().squeeze(1))

    return replace(
        splits,
        train=known(splits.train),
        validation=known(splits.validation),
        test=known(splits.test),
    )


def _edited(
    model: Vae,
    images: ImageSet,
    origin: ImageSet,
    references: References,
    handle: Handle | None,
    report: Callable[[int], None],
) -> dict[str, Tensor]:
    """Return what is found on the edited images: hits ``(K, N)`` of K references, drift ``(N,)``.

    Arguments:
        model: edits.
        images: labelled by the side that the attribute is on.
        origin: the same images with their classes.
        references: of attribute and class.
        handle: see `attribute_figures`.
        report: see `attribute_figures`.
    """
    assert images.labels is not None
    parts: dict[str, list[Tensor]] = {"switch": [], "kept": [], "drift": [], "apart": []}
    for rows in torch.arange(len(images)).split(_CHUNK):
        x, wanted = images.take(rows), images.labels[rows] == 0
        edited = model.edit(x, references.attribute, wanted.float(), handle=handle)
        parts["switch"].append(_switched(edited, wanted, references))
        if references.classes and origin.labels is not None:
            classes = _predicted(references.classes, edited)
            truth = origin.labels[rows]
            parts["kept"].append((classes == truth)[:, truth >= 0].double())
            first = references.classes[0].classifier
            before = first.features(model.reconstruct(x))
            parts["drift"].append((first.features(edited) - before).norm(dim=1).cpu())
            parts["apart"].append((before - before.roll(1, 0)).norm(dim=1).cpu())
        report(len(rows))
    found = {key: torch.cat(values, -1).double() for key, values in parts.items() if values}
    if "drift" in found:
        found["drift"] /= found["apart"].mean().clamp(min=1e-12)
    return found


def _switched(edited: Tensor, wanted: Tensor, references: References) -> Tensor:
    """Return 1 where an edited image has the attribute as wanted, ``(K, n)``; 0 where it has none.

    An image on which it cannot be measured, such as a black one, counts as not switched.
    """
    if references.sides:
        return ((_predicted(references.sides, edited) == 1) == wanted).double()
    values = measure(edited.cpu(), [references.attribute])[:, 0]
    return (((values > references.cut) == wanted) & ~values.isnan())[None].double()


def _predicted(judges: tuple[Judge, ...], images: Tensor) -> Tensor:
    """Return the most probable class of each image by each classifier, ``(K, n)``."""
    return torch.stack([j.classifier.predict(images).argmax(1).cpu() for j in judges])


def recognized(
    model: Vae,
    judge: Judge,
    images: ImageSet | None = None,
    *,
    count: int = 10_000,
    guidance: float = 1.0,
    seed: int = 0,
) -> dict[str, Figure]:
    """Return how well a judge of classes recognises what a model makes.

        recognized       share of samples of every class read as the class asked for; only of a
                         model that can be asked
        certainty        E max_k p(k|x) over samples: near 1 where each is plainly of some class
        recognized_back  share of reconstructions of test images read as the class of the image

    Arguments:
        model: generates.
        judge: of classes.
        images: test images, with classes; None leaves the reconstructions out.
        count: samples, evenly over the classes, and images, at most.
        guidance: see `Vae.guided`.
        seed: of the samples.
    """
    asks = model.asked_classes
    if asks and model.conditioning is not None:
        judge.classifier.check_classes(model.conditioning.class_names)
    right, certain = [], []
    asked = torch.arange(count) % max(1, model.classes)
    with seeded(seed, model.device):
        for labels in asked.split(_CHUNK):
            told = {LABEL: labels} if asks else {}
            said = judge.classifier.predict(model.sample(len(labels), guidance=guidance, **told))
            right.append(said.argmax(1).cpu() == labels)
            certain.append(said.max(1).values.cpu())
    by = f"Judge: {judge.name}."
    even = ", evenly over the classes" if asks else ""
    how = f"{count:,} samples{even}; prior p(z), guidance {guidance:g}, seed {seed}. {by}"
    figures = {"certainty": mean(torch.cat(certain).double(), "mean probability", how)}
    if asks:
        figures["recognized"] = share(torch.cat(right), how)
    images = None if images is None else with_labels(images)
    if images is not None and images.labels is not None and len(images):
        images, _ = judge.classifier.matched(images)
        assert images.labels is not None
        index = epoch_order(len(images), seed, 0)[:count].sort().values
        back = [
            judge.classifier.predict(model.reconstruct(images.take(rows))).argmax(1).cpu()
            for rows in index.split(_CHUNK)
        ]
        same = torch.cat(back) == images.labels[index]
        how = f"Decoded posterior means of {len(index):,} test images; nothing is told. {by}"
        figures["recognized_back"] = share(same, how)
    return figures


def editable(model: Vae) -> tuple[str, ...]:
    """Return the attributes that a model can edit by itself."""
    if model.subspaces:
        return tuple(model.subspaces)
    if model.conditioning is not None and "decoder" in model.told:
        return model.conditioning.attribute_names
    return ()
