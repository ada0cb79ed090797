"""How well each score of `vaelab score` finds what does not belong: AUROC on MNIST.

Ten models that never saw one of the digits, and one that saw them all and meets letters, noise and
simple images. Half of the images of a mix are test digits of the kinds that the model knows.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import outliers
import torch
from machine import Table, finish, load, parser
from torch import Tensor

import vaelab
from vaelab.data.images import ImageSet, Splits
from vaelab.evaluation.figures import Figure, rounded
from vaelab.evaluation.oddities import SCORES, reference_codes, score
from vaelab.evaluation.ranking import auroc
from vaelab.training.run import Run

SETTINGS: dict[str, Any] = {
    "latent_dim": 10,
    "encoder": {"widths": [16, 32]},
    "epochs": 3,
    "lr": 3e-3,
    "optimizer": "adamw",
    "schedule": "one-cycle",
    "precision": "fp32",
}
"""A small model, trained for a short time: eleven are needed. Nothing was chosen by the figures."""

Scores = dict[str, Tensor]


def trained(splits: Splits, folder: Path, epochs: int | None) -> vaelab.Vae:
    """Return the model of a folder, trained first where there is none."""
    if Run(folder).model_file.exists():
        return vaelab.load(folder)
    settings = SETTINGS if epochs is None else {**SETTINGS, "epochs": epochs}
    return vaelab.train("vae", splits, folder, **settings)


def kinds(images: ImageSet, among: set[int]) -> ImageSet:
    """Return the images of some classes."""
    assert images.labels is not None
    keep = torch.tensor([label in among for label in images.labels.tolist()])
    return images.subset(keep.nonzero().squeeze(1))


def without(splits: Splits, digit: int) -> Splits:
    """Return the data set without a digit."""
    rest = set(range(10)) - {digit}
    train, validation, test = (
        kinds(part, rest) for part in (splits.train, splits.validation, splits.test)
    )
    return replace(
        splits, name=f"mnist without {digit}", train=train, validation=validation, test=test
    )


def some(images: ImageSet, count: int) -> ImageSet:
    """Return the first images of a set, or all."""
    return images.subset(torch.arange(min(count, len(images))))


def like(images: ImageSet, pixels: outliers.Pixels) -> ImageSet:
    """Return pixels as a set of images without labels."""
    return ImageSet(torch.from_numpy(np.ascontiguousarray(pixels)))


def measured(model: vaelab.Vae, train: ImageSet, images: ImageSet) -> Scores:
    return score(model, images, reference_codes(model, train))


def row(name: str, odd: Scores, usual: Scores) -> list[str]:
    cells = []
    for kind in SCORES:
        figure: Figure = auroc(odd[kind], usual[kind])
        cells.append(rounded(figure.value, figure.interval))
    return [name, *cells]


def main() -> int:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=Path, default=Path("runs/oddities"), help="kept models")
    arguments.add_argument("--count", type=int, default=500, help="images of each kind")
    arguments.add_argument("--digits", type=int, nargs="*", default=list(range(10)))
    arguments.add_argument("--train-only", action="store_true", help="only train what is missing")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    count, epochs = (100, 1) if given.quick else (given.count, None)
    splits, before, begun = vaelab.load_data("mnist"), load(), time.monotonic()
    whole = trained(splits, given.runs / "all", epochs)
    alone = {
        k: trained(without(splits, k), given.runs / f"without-{k}", epochs) for k in given.digits
    }
    if given.train_only:
        return 0
    columns = ["what is odd", *SCORES]
    usual_images = some(splits.test, count)
    usual = measured(whole, splits.train, usual_images)
    digits = some(splits.validation, count).images
    assert isinstance(digits, Tensor)
    others = {
        "letters": outliers.letters(count),
        "digits inverted": outliers.inverted(digits.numpy()),
        "uniform noise": outliers.noise(count),
        "single strokes": outliers.strokes(count),
        "faint digits": outliers.faint(digits.numpy()),
        "empty images": outliers.empty(count),
    }
    found = Table("Outliers among the digits, AUROC", columns)
    for name, pixels in others.items():
        odd = measured(whole, splits.train, like(usual_images, pixels))
        found.rows.append(row(name, odd, usual))
        print(found.rows[-1], flush=True)
    left_out = Table("One digit left out of training, AUROC", columns)
    for k, model in alone.items():
        rest = without(splits, k)
        odd = measured(model, rest.train, some(kinds(splits.test, {k}), count))
        known = measured(model, rest.train, some(rest.test, count))
        left_out.rows.append(row(str(k), odd, known))
        print(left_out.rows[-1], flush=True)
    left_out.rows.append(mean_row(left_out.rows))
    seconds = time.monotonic() - begun
    note = (
        f"{count} images of each kind at most, AUROC ± 95 % interval over images (DeLong); "
        f"{seconds:,.0f} s on {given.threads} threads, load {before} before."
    )
    found.notes.append(note)
    return finish([found, left_out], given.json)


def mean_row(rows: list[list[str]]) -> list[str]:
    """Return the means of columns of ``value ± interval``."""
    values = np.array([[float(cell.split(" ")[0]) for cell in row[1:]] for row in rows])
    return ["mean", *(f"{value:.3f}" for value in values.mean(0))]


if __name__ == "__main__":
    sys.exit(main())
