"""The result of an evaluation: its figures, the file that keeps them, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from vaelab import files
from vaelab.checked import Number, Seed, Whole, first_fault
from vaelab.errors import RunError, counted
from vaelab.evaluation.figures import Figure
from vaelab.training.run import Run

if TYPE_CHECKING:
    Latent = list[Any]
else:
    Latent = list[Number] | list[list[Number]]


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Arguments:
        figures: by name.
        latent: one number for each latent dimension (``kl``, ``variance``, ``mean``), or one for
            each pair of them (``covariance``), by name.
        notes: plain sentences about figures that are absent.
        images: number of images.
        held_out: whether the model was trained on other images; None where it is not known.
        seed: of every draw.
        what: the part and the data set, such as ``test images of mnist``.
        confusion: of a classifier, images of each class (row) taken for each class (column).
        trained_on: number of images that are training images, pixel by pixel; None where it is not
            known.
    """

    figures: dict[str, Figure]
    latent: dict[str, Latent]
    notes: tuple[str, ...]
    images: Whole
    held_out: bool | None
    seed: Seed
    what: str = "test images"
    confusion: list[list[Whole]] | None = None
    trained_on: Whole | None = None


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


def noted(
    evaluation: Evaluation, unfinished: Iterable[str], notes: Iterable[str] = ()
) -> Evaluation:
    """Return an evaluation with further notes, of which each protocol has those on its weights.

    Arguments:
        evaluation: the figures.
        unfinished: that training is not over, if it is not.
        notes: others.
    """
    said = tuple(unfinished)
    figures = evaluation.figures
    if said:
        text = said[0].partition(" Go on with")[0]
        figures = {
            name: replace(figure, protocol=f"{figure.protocol} {text}")
            for name, figure in figures.items()
        }
    return replace(evaluation, figures=figures, notes=(*said, *notes, *evaluation.notes))


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
        raise files.damaged(path, f"not an evaluation: {first_fault(error)}") from None


def verdict(evaluation: Evaluation) -> str:
    """Say in a sentence how good the model is; what is wrong with it, `diagnose` finds."""
    figures = evaluation.figures
    name, label = ("elbo", "ELBO") if "elbo" in figures else ("mse", "reconstruction error")
    if name not in figures:
        return (
            "Nothing finite could be measured: training has diverged. Train again with a lower "
            "learning rate (training.lr) or with training.clip=1."
        )
    figure = figures[name]
    label += " of x given its labels" if figure.given else ""
    start, images = subject(evaluation, label, figure.n)
    interval = "" if figure.interval is None else "95 % interval"
    inside = ", ".join(filter(None, (images, interval)))
    sentence = f"{start} {figure}" + (f" ({inside})" if inside else "")
    bits = figures.get("bits_per_dim")
    sentence += f", {bits}." if bits is not None and name == "elbo" else "."
    return sentence


def subject(evaluation: Evaluation, label: str, n: int) -> tuple[str, str]:
    """Return what a figure of so many images is called, and which images, if that is left to say.

    Only images that training did not use are called by their part, such as ``Test ELBO``.
    """
    part, _, of = evaluation.what.partition("images")
    part, count = part.strip(), f"{counted(n, 'image')}{of}"
    if evaluation.held_out and part:
        return f"{part.capitalize()} {label}", count
    if part and evaluation.held_out is False and evaluation.trained_on in (None, n):
        return f"Training-set {label}", count
    seen = evaluation.trained_on
    about = f", {seen:,} of them trained on" if seen is not None else NOT_KNOWN
    return f"{label} of {count}{about if not evaluation.held_out else ''}:", ""


NOT_KNOWN = ", whether trained on or not is not known"


def origin(held_out: bool | None, trained_on: int | None = None, looked_at: bool = False) -> str:
    """Return in words whether images were kept from training, for a protocol.

    Arguments:
        held_out: as of `Evaluation`.
        trained_on: as of `Evaluation`.
        looked_at: whether they are validation images, by which weights may be chosen.
    """
    if held_out is None:
        return "of which it is not known whether training used them"
    if not held_out:
        some = "some or all" if trained_on is None else f"{trained_on:,}"
        return f"NOT held out: training used {some} of them, so expect worse on new images"
    said = "held out from training"
    if trained_on:
        said += f" ({trained_on:,} of them equal to training images)"
    return said + (", though calibration and patience may look at them" if looked_at else "")
