"""The report of a classifier: how good it is, what it mixes up, its worst errors as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from markupsafe import Markup
from torch import Tensor

from vaelab import files
from vaelab.data.images import ImageSet, Splits, with_labels
from vaelab.data.names import matched
from vaelab.data.pixels import colours
from vaelab.errors import counted
from vaelab.evaluation.classification import per_class, reliability, verdict
from vaelab.evaluation.figures import Share
from vaelab.evaluation.record import Evaluation
from vaelab.report import words
from vaelab.report.page import render
from vaelab.report.pictures import Picture, reduced, single
from vaelab.report.plot import Plot
from vaelab.training.calibration import described
from vaelab.training.run import Run, versions

ERRORS = 40
"""Wrong images shown, at most."""

MATRIX = 30
"""Classes of a confusion matrix, at most; beyond, the most frequent mistakes tell more."""


@dataclass(frozen=True)
class Row:
    """A class in the table: its name, images, and precision and recall as text."""

    name: str
    images: int
    precision: str
    recall: str


def write_classifier_report(
    run: Run, splits: Splits, evaluation: Evaluation, chances: Tensor, out: Path | None = None
) -> Path:
    """Write ``report.html`` of a classifier, or another page; returns it.

    Arguments:
        run: of the classifier.
        splits: the images that it was trained and measured on.
        evaluation: on the test images.
        chances: probabilities of the test images with labels, ``(N, K)``.
        out: the page, in place of ``report.html`` of the run.
    """
    config = run.read_config()
    names = run.classes()
    images = with_labels(matched(splits.test, names)[0])
    assert images.labels is not None
    assert evaluation.confusion is not None
    counts = torch.tensor(evaluation.confusion)
    channels, height, width = splits.train.shape
    colour = colours(channels)
    last = run.epochs()[-1]
    page = render(
        {
            "name": run.path.resolve().name,
            "summary": (
                f"{config.options['network']} · {splits.name}, {len(splits.train):,} training "
                f"images of {height} × {width} pixels, {colour}, {len(names)} classes"
            ),
            "verdict": verdict(evaluation),
            "alerts": [
                *run.diverged(),
                *([] if evaluation.held_out else ["No images were held out from training."]),
                *dict.fromkeys([*run.unfinished(), *evaluation.notes]),
            ],
            "errors": _worst(images, chances),
            "mixed": _mixed(counts, names),
            "matrix": _matrix(counts, names) if len(names) <= MATRIX else None,
            "classes": _rows(counts, names),
            "rows": words.figure_rows(evaluation, "accuracy", simple=True),
            "reliability": _reliability(chances, images.labels.cpu()),
            "temperature": described(float(run.load_classifier().temperature)),
            "facts": [
                ("Training", f"{counted(last['epoch'], 'epoch')}, {last['seconds']:.0f} s"),
                ("Images", f"{len(splits.train):,} training, {len(splits.validation):,} "
                 f"validation, {len(splits.test):,} test"),
                ("Weights", str(run.model_file.name)),
            ],
            "notes": splits.notes,
            "config": yaml.safe_dump(
                config.model_dump(mode="json"), sort_keys=False, allow_unicode=True
            ).rstrip(),
            "command": f"vaelab classify evaluate {run}",
            "vaelab": versions()["vaelab"],
        },
        "classifier.html",
    )  # fmt: skip
    files.write_text(out or run.report_file, page)
    return out or run.report_file


def _worst(images: ImageSet, chances: Tensor) -> list[tuple[Picture, str, str]]:
    """Return the wrong images of which the classifier was the surest: picture, class, taken for."""
    assert images.labels is not None
    sure, said = chances.max(1)
    wrong = (said != images.labels.cpu()).nonzero().squeeze(1)
    order = wrong[sure[wrong].argsort(descending=True, stable=True)][:ERRORS]
    if not len(order):
        return []
    found = []
    for image, index in zip(reduced(images.take(order) / 255), order.tolist(), strict=True):
        name = images.class_names[int(images.labels[index])]
        taken = images.class_names[int(said[index])]
        alt = f"image {index}, a {name} taken for {taken}"
        found.append((single(image, alt), f"{name} → {taken}", f"{float(sure[index]):.0%}"))
    return found


def _mixed(counts: Tensor, names: tuple[str, ...]) -> list[tuple[str, str, int, str]]:
    """Return the most frequent mistakes: class, taken for, how many, which share of the class."""
    off = counts.clone().fill_diagonal_(0)
    order = off.flatten().argsort(descending=True, stable=True)[:8].tolist()
    found = []
    for place in order:
        row, column = divmod(place, len(names))
        hits = int(off[row, column])
        if hits:
            share = hits / max(1, int(counts[row].sum()))
            found.append((names[row], names[column], hits, f"{share:.1%}"))
    return found


def _matrix(counts: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the confusion matrix as a table; a cell's shade is its share of the mistakes."""
    most = max(1, int(counts.clone().fill_diagonal_(0).max()))
    rows = []
    for i, name in enumerate(names):
        cells = []
        for j, count in enumerate(counts[i].tolist()):
            strength = 0.0 if i == j or not count else 0.12 + 0.6 * count / most
            cells.append((f"{count:,}" if count else "", i == j, f"{100 * strength:.0f}"))
        rows.append((name, cells))
    return {"heads": names, "rows": rows}


def _rows(counts: Tensor, names: tuple[str, ...]) -> list[Row]:
    return [
        Row(name, recall.total, _text(precision), _text(recall))
        for name, (precision, recall) in zip(names, per_class(counts), strict=True)
    ]


def _text(share: Share) -> str:
    if share.value is None:
        return "–"
    low, high = share.interval
    return f"{100 * share.value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _reliability(chances: Tensor, labels: Tensor) -> Markup:
    """Return accuracy against confidence; on the diagonal, probabilities are what they say."""
    plot = Plot((0, 1), (0, 1), (560, 420), (46, 14, 14, 40))
    plot.axes("probability of the class taken", "share that is right", frame=True)
    plot.line([(0, 0), (1, 1)], "prior")
    for sure, right, n in reliability(chances, labels):
        low, high = Share(round(right * n), n).interval
        plot.line([(sure, low), (sure, high)], "training")
        plot.dots([(sure, right)], None, 6)
    return plot.svg("Accuracy against confidence, in fifteen bins.", "reliability")
