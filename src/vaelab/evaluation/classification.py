"""How good a classifier is: overall, class by class, and whether its probabilities can be believed.

N images, K classes. Labels that are unknown (−1) are left out by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vaelab.data.images import ImageSet, with_labels
from vaelab.errors import DataError
from vaelab.evaluation.figures import Figure, Share, mean, share
from vaelab.evaluation.record import Evaluation, origin, subject
from vaelab.models.classifier import Classifier
from vaelab.training.calibration import described

BINS = 15
"""Of confidence, in the expected calibration error (Guo et al., 2017)."""

_LEAST = 1e-12


def confusion(labels: Tensor, said: Tensor, classes: int) -> Tensor:
    """Return how many images of each class (row) were taken for each class (column), ``(K, K)``."""
    return torch.bincount(labels * classes + said, minlength=classes**2).view(classes, classes)


def per_class(counts: Tensor) -> list[tuple[Share, Share]]:
    """Return precision and recall of each class from a confusion matrix.

    precision: of the images taken for the class, the share that is of it
    recall: of the images of the class, the share that was taken for it
    """
    rows = zip(counts.diag().tolist(), counts.sum(0).tolist(), counts.sum(1).tolist(), strict=True)
    return [(Share(hit, taken), Share(hit, there)) for hit, taken, there in rows]


def reliability(
    chances: Tensor, labels: Tensor, bins: int = BINS
) -> list[tuple[float, float, int]]:
    """Return for each bin of confidence its mean confidence, its accuracy, and its images.

    Empty bins are left out.

    Arguments:
        chances: probabilities ``(N, K)``.
        labels: ``(N,)``.
        bins: of equal width on [0, 1].
    """
    sure, said = chances.double().max(1)
    right = (said == labels).double()
    which = (sure * bins).ceil().long().clamp(1, bins) - 1  # (0, 1/bins] is the first
    found = []
    for bin_ in range(bins):
        inside = which == bin_
        if inside.any():
            found.append(
                (float(sure[inside].mean()), float(right[inside].mean()), int(inside.sum()))
            )
    return found


def calibration_error(chances: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return Σ_b n_b/N |accuracy_b − confidence_b| over bins of confidence (Guo et al., 2017)."""
    parts = reliability(chances, labels, bins)
    return sum(n * abs(right - sure) for sure, right, n in parts) / len(labels)


def classified(
    model: Classifier,
    images: ImageSet,
    *,
    held_out: bool | None = True,
    trained_on: Tensor | None = None,
    looked_at: bool = False,
    what: str = "test images",
) -> tuple[Evaluation, Tensor]:
    """Measure a classifier on labelled images; returns the evaluation and probabilities ``(N, K)``.

    Figures: ``accuracy``, ``balanced_accuracy`` (mean recall), ``log_loss`` in nats per image,
    ``calibration_error``, and ``precision:CLASS`` and ``recall:CLASS``.

    Arguments:
        model: a classifier.
        images: labelled; classes are found by their names.
        held_out: whether they were kept from training, None where it is not known; every protocol
            says it.
        trained_on: which of them are training images, bool ``(N,)``, where it is known.
        looked_at: whether they are validation images, by which probabilities may be calibrated and
            training ended; every protocol says it.
        what: the part and the data set that they are, for the verdict.

    Raises:
        DataError: no image with a label, or one of a class that the classifier does not know.
    """
    if images.labels is None:
        raise DataError(
            "these images have no labels to compare with. `vaelab classify predict` needs none."
        )
    if trained_on is not None:
        trained_on = trained_on[images.labels.cpu() >= 0]
    before = None if trained_on is None else int(trained_on.sum())
    images = with_labels(model.matched(images)[0])
    if images.labels is None or not len(images):
        raise DataError(f"{what}: none has a label, so nothing can be measured.")
    labels, names = images.labels.cpu(), images.class_names
    chances = torch.cat([model.predict(part).cpu() for part in images.chunks()])
    said = chances.argmax(1)
    counts = confusion(labels, said, len(names))
    how = f"Over {len(labels):,} {what} {origin(held_out, before, looked_at)}."
    log_p = chances.double().clamp(min=_LEAST).log()[torch.arange(len(labels)), labels]
    scaled = f"{described(float(model.temperature))} {how}"
    figures = {
        "accuracy": share(said == labels, how),
        "balanced_accuracy": _balanced(counts, how),
        "log_loss": mean(-log_p, "nats per image", scaled),
        "calibration_error": Figure(
            calibration_error(chances, labels),
            None,
            len(labels),
            "share of images",
            f"{BINS} bins of equal width; with few images it is too high. {scaled}",
        ),
    }
    for name, (precision, recall) in zip(names, per_class(counts), strict=True):
        for key, part in (("precision", precision), ("recall", recall)):
            if part.total:
                figures[f"{key}:{name}"] = part.figure("share of images", how)
    rows = counts.tolist()
    notes = _notes(counts, names)
    evaluation = Evaluation(figures, {}, notes, len(labels), held_out, 0, what, rows, before)
    return evaluation, chances


def _balanced(counts: Tensor, how: str) -> Figure:
    """Return the mean recall over the classes that have images; binomial standard errors.

    The ends of its interval are those of the recalls, at a distance that adds in squares (Zou and
    Donner, Construction of confidence limits about effect measures, 2008).
    """
    recalls = [recall for _, recall in per_class(counts) if recall.total]
    shares = [recall.hits / recall.total for recall in recalls]
    noise = sum(p * (1 - p) / r.total for p, r in zip(shares, recalls, strict=True))
    value = sum(shares) / len(shares)
    error = math.sqrt(noise) / len(shares)
    ends = [recall.interval for recall in recalls]
    below = math.hypot(*(p - low for p, (low, _) in zip(shares, ends, strict=True)))
    above = math.hypot(*(high - p for p, (_, high) in zip(shares, ends, strict=True)))
    interval = value - below / len(shares), value + above / len(shares)
    unit = "mean share of a class"
    return Figure(value, error, int(counts.sum()), unit, how, ends=interval)


def _notes(counts: Tensor, names: tuple[str, ...]) -> tuple[str, ...]:
    there = counts.sum(1).tolist()
    missing = [name for name, n in zip(names, there, strict=True) if not n]
    notes = [f"No image of {', '.join(missing)} to measure on."] if missing else []
    if uneven(there):
        share, name = max(there) / sum(there), names[there.index(max(there))]
        notes.append(f"Saying {name} of every image would be right in {100 * share:.1f} % of them.")
    return tuple(notes)


def uneven(there: Sequence[int]) -> bool:
    """Tell whether a class has fewer than half the images of another, by more than chance.

    Arguments:
        there: number of images of each class; the margin is two deviations of the largest.
    """
    return 2 * min(there) + 2 * math.sqrt(max(there)) < max(there)


def verdict(evaluation: Evaluation) -> str:
    """Say in a sentence how often the classifier is right, and how sure that is."""
    figure = evaluation.figures["accuracy"]
    start, images = subject(evaluation, "accuracy", evaluation.images)
    wrong = evaluation.images - round(figure.value * evaluation.images)
    low, high = Share(evaluation.images - wrong, evaluation.images).interval
    return (
        f"{start} {100 * figure.value:.2f} % (95 % interval {100 * low:.2f} to "
        f"{100 * high:.2f}; {wrong:,} of {images or f'{evaluation.images:,} images'} wrong)."
    )
