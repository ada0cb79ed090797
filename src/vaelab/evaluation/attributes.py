"""How well an attribute can be changed, what else changes with it, and where the code tells it.

Images are judged by classifiers of real images that have no part in the model: one reads the
attribute (above or below its cut), one the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vaelab.data.batches import epoch_order
from vaelab.data.images import ImageSet, Splits, with_labels
from vaelab.errors import DataError
from vaelab.evaluation.figures import Figure, mean, share
from vaelab.evaluation.measure import codes_of
from vaelab.evaluation.probes import Probe, balanced, information_gap, probe, right
from vaelab.models.conditioning import LABEL, cut_at, cut_of
from vaelab.models.handles import Handle
from vaelab.models.model import seeded
from vaelab.models.vae import Vae
from vaelab.training.judge import Judge, trained_judge
from vaelab.training.progress import Progress

PROBED = 30_000
"""Training images that a probe learns from, at most."""

_CHUNK = 1_000
SIDES = ("below", "above")


@dataclass(frozen=True)
class Judges:
    """Who judges the images of one attribute.

    Arguments:
        attribute: name.
        side: reads whether the attribute is above its cut.
        kind: reads the class; None where there are no classes.
    """

    attribute: str
    side: Judge
    kind: Judge | None


def find_judges(
    splits: Splits, attribute: str, cache: Path | None = None, progress: Progress | None = None
) -> Judges:
    """Return the judges of an attribute, trained on the training images if they are not cached."""
    sides = with_sides(splits, attribute)
    classes = len(splits.train.class_names) > 1
    return Judges(
        attribute,
        trained_judge(sides, cache, progress),
        trained_judge(splits, cache, progress) if classes else None,
    )


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
    judges: Judges,
    handle: Handle | None = None,
    *,
    limit: int = 10_000,
    seed: int = 0,
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, Figure]:
    """Measure one attribute on test images; every figure's name ends in ``:ATTRIBUTE``.

        switch    share of images whose attribute, edited to the other side, the judge reads so
        kept      share of them whose class the judge of classes still reads rightly
        drift     how far an edit moves an image in the features of the judge of classes, on the
                  mean, in units of the mean distance between two images
        leak_*    accuracy of a fresh probe, on balanced labels, that reads the attribute from the
                  part of the code that should not tell it
        told      accuracy of a fresh MLP on the part of the code that should (CSVAE)
        gap       mutual information gap

    Edits are told no label: a model that needs some reads them from the image. Codes are those that
    the encoder makes knowing the labels, if it was trained so; ``leak_mlp_read`` and ``told_read``
    are the same for codes of images of which nothing is told.

    Arguments:
        model: edits; see `Vae.edit`.
        splits: with the attribute.
        judges: see `find_judges`.
        handle: what moves the codes of a model without labels.
        limit: test images at most, by chance.
        seed: of every choice.
        report: told the number of images edited since the last call.

    Raises:
        DataError: no test image of which the attribute is known.
    """
    name = judges.attribute
    sides = with_sides(splits, name)
    order = epoch_order(len(sides.test), seed, 0)[:limit]
    if len(order) < 2:
        raise DataError(f"{name}: is known of {len(order)} test images; it cannot be measured.")
    test = sides.test.subset(order)
    known = with_classes(splits, name)
    origin = known.test.subset(order)
    assert test.labels is not None
    on = test.labels == 1
    found = _edited(model, test, origin, judges, handle, on, report)
    where = f"Over {len(order):,} test images, seed {seed}. Judge: {judges.side.name}."
    how = f"Every image edited to the other side of the cut of {name}. "
    figures = {"switch": share(found["switch"], how + where)}
    if judges.kind is not None:
        kind = f"Judge of the class: {judges.kind.name}."
        if len(found["kept"]):
            figures["kept"] = share(found["kept"], f"{how}{kind} {where}")
        figures["drift"] = mean(found["drift"], "of a mean distance", f"{how}{kind} {where}")
    figures |= _told(model, sides, known, order, name, seed)
    return {f"{key}:{name}": figure for key, figure in figures.items()}


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


def unlabelled(images: ImageSet) -> ImageSet:
    """Return the same images, of which nothing is told."""
    return replace(images, labels=None, attributes=None, class_names=(), attribute_names=())


def _edited(
    model: Vae,
    images: ImageSet,
    origin: ImageSet,
    judges: Judges,
    handle: Handle | None,
    on: Tensor,
    report: Callable[[int], None],
) -> dict[str, Tensor]:
    """Return one value for each image and figure: what the judges say of the edited images."""
    parts: dict[str, list[Tensor]] = {"switch": [], "kept": [], "drift": [], "apart": []}
    for rows in torch.arange(len(images)).split(_CHUNK):
        x, to = images.take(rows), (~on[rows]).float()
        edited = model.edit(x, judges.attribute, to, handle=handle)
        said = judges.side.classifier.predict(edited).argmax(1) == 1
        parts["switch"].append((said.cpu() != on[rows]).double())
        if judges.kind is not None and origin.labels is not None:
            kind = judges.kind.classifier
            right_ = kind.predict(edited).argmax(1).cpu() == origin.labels[rows]
            parts["kept"].append(right_[origin.labels[rows] >= 0])
            before = kind.features(model.reconstruct(x))
            parts["drift"].append((kind.features(edited) - before).norm(dim=1).cpu())
            parts["apart"].append((before - before.roll(1, 0)).norm(dim=1).cpu())
        report(len(rows))
    found = {key: torch.cat(values).double() for key, values in parts.items() if values}
    if "drift" in found:
        found["drift"] /= found["apart"].mean().clamp(min=1e-12)
    return found


def _told(
    model: Vae, sides: Splits, origin: Splits, order: Tensor, name: str, seed: int
) -> dict[str, Figure]:
    """Return what fresh probes read from the code, and the mutual information gap."""
    assert sides.train.labels is not None
    assert sides.test.labels is not None
    known, on = sides.train.labels == 1, sides.test.labels[order] == 1
    index = balanced(known, origin.train.labels, seed)
    index = index[epoch_order(len(index), seed, 1)[:PROBED]].sort().values
    classes = None if origin.test.labels is None else origin.test.labels[order]
    rows = balanced(on, classes, seed)
    if len(index) < 2 or len(rows) < 2:
        return {}
    within = "" if classes is None else " of every class"
    over = (
        f"A fresh probe of the posterior mean, trained on {len(index):,} training images, read "
        f"{len(rows):,} test images, half of them{within} on either side: chance is 0.5. Seed "
        f"{seed}."
    )

    def read(kind: Probe, part: slice, codes: Tensor, here: Tensor, how: str) -> Figure:
        judge = probe(codes[:, part], known[index], kind, seed)
        found = right(judge, here[:, part], on[rows])
        return share(found, f"{over} Probe: {kind}. {how}")

    plain = slice(0, model.plain_dims)
    own = model.subspaces[name].dims if name in model.subspaces else None
    encodes_labels = "encoder" in model.told
    how = "The encoder was told the labels." if encodes_labels else ""
    codes = codes_of(model, origin.train, index)
    here = codes_of(model, origin.test, order[rows])
    figures = {
        "leak_linear": read("linear", plain, codes, here, how),
        "leak_mlp": read("mlp", plain, codes, here, how),
    }
    if own is not None:
        figures["told"] = read("mlp", own, codes, here, how)
    if encodes_labels:
        how = "The encoder was told nothing."
        unknown = [unlabelled(s) for s in (origin.train, origin.test)]
        codes = codes_of(model, unknown[0], index)
        seen = codes_of(model, unknown[1], order[rows])
        figures["leak_mlp_read"] = read("mlp", plain, codes, seen, how)
        if own is not None:
            figures["told_read"] = read("mlp", own, codes, seen, how)
    gap = information_gap(here, on[rows], [space.dims for space in model.subspaces.values()])
    how = "Mutual information gap (Chen et al., 2018), a subspace being one unit; 20 bins."
    figures["gap"] = Figure(gap, None, len(rows), "of the label's entropy", how)
    return figures


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
