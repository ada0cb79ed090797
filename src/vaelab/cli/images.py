"""The images that a command is about: a run's own, or others, and whether they are new to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaelab.cli.output import output
from vaelab.cli.reading import config_of
from vaelab.errors import ConfigError, DataError, RunError, counted

if TYPE_CHECKING:
    from vaelab.data.images import ImageSet, Splits
    from vaelab.evaluation.given import Given
    from vaelab.models.model import Model
    from vaelab.training.run import Run

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Data = Annotated[
    str | None,
    typer.Option("--data", "-d", help="Other images than the run's own.", show_default="the run's"),
]
PART_NAMES = ("train", "validation", "test")
Split = Annotated[str, typer.Option(help="train, validation or test.")]
PartOf = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="train, validation or test.",
        show_default="test; all of other images that name no test part",
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out.")]


_OF_A_SPLIT = ("drawn from the training images", "images are the training images")
"""Notes that would mislead where images are not split as `load_data` does."""


def given_images(
    run: Run,
    model: Model,
    data: str | None,
    bare: bool = False,
    option: str | None = "--data",
    whole: bool = False,
    skip_bad: bool = False,
) -> Given:
    """Return the images of a run, or others brought to the shape and names of its model.

    Other images are compared with those that the run was trained on, by content. If they are
    among these, they are split as for its training, whatever their names and places.

    Arguments:
        run: the run.
        model: its model.
        data: other images, if any.
        bare: these are only looked at: they need no labels, and any will do.
        option: how the command is told of others, for messages; None if it takes none.
        whole: others that name no test images are all taken as these, for none is to be trained on.
        skip_bad: leave unreadable ones out.
    """
    from vaelab.data.seen import Seen
    from vaelab.data.summary import is_same
    from vaelab.evaluation.given import Given, known_again

    if data is None:
        splits = _own_images(run, option, skip_bad)
        return Given(splits, True, run.seen() or Seen.of(splits))
    seen = run.seen()
    splits = _read_other(run, data, bare, skip_bad, alone=whole and seen is not None)
    if seen is None and is_same(splits, run.trained_on()[1]):
        found = Given(splits, True, Seen.of(splits))
    else:
        if seen is None and whole:
            splits = _read_other(run, data, bare, skip_bad, alone=True)
        found = known_again(splits, seen)
    for note in splits.notes:
        if not ((found.own or whole) and any(text in note for text in _OF_A_SPLIT)):
            output.say(note)
    if found.own:
        output.say(f"{data}: its images are those of {run}, and are split as for its training.")
    elif whole and splits.test is splits.train and splits.validation is not splits.train:
        left = counted(len(splits.validation), "image")
        output.say(f"{data}: names no test part; {left} of its validation part left out.")
    if bare:
        return found
    try:
        found = found.labelled_alike(model)
    except DataError as error:
        raise DataError(f"{data}: {error}") from None
    for note in found.notes:
        output.say(note)
    return found


def say_unfinished(run: Run) -> None:
    """Say that a run is not trained to its end, if it is not."""
    for note in run.unfinished():
        output.say(note)


def splits_of(run: Run, model: Model, data: str | None, **options: Any) -> Splits:
    """Return the images of `given_images`."""
    return given_images(run, model, data, **options).splits


def _read_other(run: Run, data: str, bare: bool, skip_bad: bool, alone: bool) -> Splits:
    from vaelab.api import read_data
    from vaelab.config import merge
    from vaelab.recipes import resolve

    config = config_of(run)
    (channels, height, width), _ = run.trained_on()
    fit: dict[str, Any] = {"spec": data, "size": [height, width], "channels": channels}
    fit |= {"live": False, "group": None}  # which are of the run's own data
    fit |= {"attributes": []} if bare else {}
    fit |= {"skip_bad": True} if skip_bad else {}
    fit |= {"split": [1.0, 0.0, 0.0]} if alone else {}
    tell_fitted(run, data)
    resolved = resolve(merge(config.model_dump(), {"data": fit}), "--data")
    with output.counter("reading images") as progress:
        return read_data(resolved, progress=progress, optional=True)


def _own_images(run: Run, option: str | None, skip_bad: bool) -> Splits:
    from vaelab.config import IN_MEMORY
    from vaelab.data.summary import is_same

    config = run.read_config()
    known = run.trained_on()[1]
    if option is None and config.data.spec == IN_MEMORY:
        raise ConfigError(
            f"{run}: was trained on images in memory, and this command needs them. Save them as "
            ".npz and train on that file."
        )
    spec = _found(run, config.data.spec)
    bad = {"skip_bad": True} if skip_bad else {}
    found = config.data.model_copy(update={"spec": spec, **bad})
    try:
        splits = output.images(config.model_copy(update={"data": found}))
    except DataError as error:
        here = " Run this in the folder where it was trained."
        here = "" if Path(spec).is_absolute() or Path(spec).exists() else here
        other = f" If they were moved or renamed, name them with {option}." if option else ""
        raise DataError(f"{error} {run} was trained on it.{here}{other}") from None
    if not is_same(splits, known):
        other = f", or name images with {option}" if option else ""
        raise RunError(
            f"{config.data.spec}: has changed since {run} was trained on it, was split otherwise "
            "by an older vaelab, or was seen in part only, as generators of an augmentation study "
            "do; so its test images are not known to be new to the model. Bring it back as it "
            f"was{other}."
        )
    return splits


def _found(run: Run, spec: str) -> str:
    """Return where a run's data is: a path that is not here may be beside or above the run.

    It was given in the folder where training started, which usually holds the runs too. Whether
    it is the same data is for the caller to check.
    """
    from vaelab.data.load import EMBEDDED

    if spec in EMBEDDED or Path(spec).is_absolute() or Path(spec).exists():
        return spec
    above = (folder / spec for folder in run.path.resolve().parents)
    return next((str(path) for path in above if path.exists()), spec)


def tell_fitted(run: Run, data: str | None) -> None:
    """Say how many images are of another shape than the model's and are brought to it."""
    from vaelab.data.load import fitted_note

    shape, _ = run.trained_on()
    config = config_of(run).data
    note = fitted_note(data, shape, config.fit, config.frames)
    if note:
        output.say(note)


def started_from(start: Path | None, data: str | None) -> Run | None:
    """Return the run that training starts from; says what it is and what the images become."""
    from vaelab.training.run import Run

    if start is None:
        return None
    run = Run(start)
    run.about()
    say_unfinished(run)
    if data is not None:
        tell_fitted(run, data)
    return run


def part_of(splits: Splits, name: str) -> ImageSet:
    """Return a part by its name; raises `ConfigError` for another name."""
    parts = dict(zip(PART_NAMES, (splits.train, splits.validation, splits.test), strict=True))
    if name not in parts:
        raise ConfigError(f"--split {name!r}: choose train, validation or test.")
    return parts[name]
