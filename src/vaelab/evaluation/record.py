"""The result of an evaluation: its figures, the file that keeps them, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from vaelab import files
from vaelab.errors import RunError
from vaelab.evaluation.figures import Figure
from vaelab.training.run import Run
from vaelab.training.validation import COLLAPSED_RATE, Validation, warnings


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Arguments:
        figures: by name.
        latent: one number for each latent dimension (``kl``, ``variance``, ``mean``), or one for
            each pair of them (``covariance``), by name.
        notes: plain sentences about figures that are absent.
        images: number of images.
        held_out: whether the model was trained on other images.
        seed: of every draw.
        what: the part and the data set, such as ``test images of mnist``.
        confusion: of a classifier, images of each class (row) taken for each class (column).
    """

    figures: dict[str, Figure]
    latent: dict[str, list[Any]]
    notes: tuple[str, ...]
    images: int
    held_out: bool
    seed: int
    what: str = "test images"
    confusion: list[list[int]] | None = None


def write(run: Run, evaluation: Evaluation, path: Path | None = None) -> None:
    """Write the evaluation of a run, with the checksum of the weights that it measured.

    Arguments:
        run: the run.
        evaluation: of its weights.
        path: ``evaluation.json`` of the run unless another is given.
    """
    weights = files.checksum(run.model_file)
    values = {**asdict(evaluation), "weights": weights}
    files.write_json(path or run.evaluation_file, values)


def is_current(run: Run, path: Path | None = None) -> bool:
    """Tell whether the run has an evaluation of the weights that it has now."""
    path = path or run.evaluation_file
    if not path.exists() or not run.model_file.exists():
        return False
    return bool(files.read_json(path).get("weights") == files.checksum(run.model_file))


def read(run: Run, path: Path | None = None) -> Evaluation:
    """Return what `write` wrote; raises `RunError` when there is none, or none of these weights."""
    path = path or run.evaluation_file
    if not is_current(run, path):
        raise RunError(
            f"{run}: is not evaluated as it is now. Measure it with: vaelab evaluate {run}"
        )
    values = files.read_json(path)
    values.pop("weights")
    try:
        return TypeAdapter(Evaluation).validate_python(values)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise files.damaged(path, f"not an evaluation: {where}: {fault['msg']}") from None


def verdict(evaluation: Evaluation, options: Iterable[str] = (), steps: int | None = None) -> str:
    """Say in a sentence how good the model is, and then what is wrong with it, if anything.

    Arguments:
        evaluation: what was measured.
        options: names of those of its recipe, which may be a remedy.
        steps: of the training, if known: part of the advice where they were few.
    """
    figures = evaluation.figures
    name, label = ("elbo", "ELBO") if "elbo" in figures else ("mse", "reconstruction error")
    if name not in figures:
        return (
            "Nothing finite could be measured: training has diverged. Train again with a lower "
            "learning rate (training.lr) or with training.clip=1."
        )
    figure = figures[name]
    part, _, of = evaluation.what.partition(" images")
    start = part.capitalize() if evaluation.held_out else "Training-set"
    interval = "" if figure.interval is None else ", 95 % interval"
    count = "1 image" if figure.n == 1 else f"{figure.n:,} images"
    sentence = f"{start} {label} {figure} ({count}{of}{interval})."
    return " ".join([sentence, *_warnings(evaluation, options, steps)])


def _warnings(evaluation: Evaluation, options: Iterable[str], steps: int | None) -> list[str]:
    """Return what is wrong with a model whose code tells nothing about the image."""
    figures = evaluation.figures
    rate, active = figures.get("rate"), figures.get("active_units")
    collapsed = rate is not None and rate.value < COLLAPSED_RATE
    if not collapsed and (active is None or active.value > 0):
        return []
    variance = torch.tensor(evaluation.latent.get("variance", []))
    means = {} if rate is None else {"rate": rate.value}
    return warnings(Validation(means, variance, None), len(variance), options, steps)
