"""The images that a command is about: a run's own, or others, and whether they are new to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaelab.cli.output import output
from vaelab.errors import ConfigError, DataError, RunError, counted

if TYPE_CHECKING:
    from vaelab.data.images import ImageSet, Splits
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


def splits_of(
    run: Run,
    data: str | None,
    bare: bool = False,
    option: str | None = "--data",
    whole: bool = False,
    skip_bad: bool = False,
) -> Splits:
    """Return the images of a run, or others brought to the shape that its model takes.

    Arguments:
        run: the run.
        data: other images, if any.
        bare: these need not have the attributes that the model was told: they are only looked at.
        option: how the command is told of others, for messages; None if it takes none.
        whole: others that name no test images are all taken as these, for none is to be trained on.
        skip_bad: leave unreadable ones out.
    """
    from vaelab.config import IN_MEMORY, merge
    from vaelab.data.summary import fingerprint
    from vaelab.recipes import resolve

    config = run.read_config()
    (channels, height, width), known = run.trained_on()
    if data is not None:
        fit: dict[str, Any] = {"spec": data, "size": [height, width], "channels": channels}
        fit |= {"attributes": []} if bare else {}
        fit |= {"skip_bad": True} if skip_bad else {}
        alone = whole and not _related(run, data)
        fit |= {"split": [1.0, 0.0, 0.0]} if alone else {}
        tell_fitted(run, data)
        resolved = resolve(merge(config.model_dump(), {"data": fit}), "--data")
        splits = output.images(resolved, "images are the training images" if alone else None)
        if alone and splits.test is splits.train and splits.validation is not splits.train:
            left = counted(len(splits.validation), "image")
            output.say(f"{data}: names no test part; {left} of its validation part left out.")
        return splits
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
        other = f" {option} names other images." if option else ""
        raise DataError(f"{error} {run} was trained on it.{here}{other}") from None
    if fingerprint(splits) != known:
        other = f", or name images with {option}" if option else ""
        raise RunError(
            f"{config.data.spec}: has changed since {run} was trained on it, was split otherwise "
            "by an older vaelab, or was seen in part only, as generators of an augmentation study "
            "do; so its test images are not known to be new to the model. Bring it back as it "
            f"was{other}."
        )
    return splits


def held_out_of(run: Run, data: str | None, splits: Splits, images: ImageSet) -> bool:
    """Tell whether no image of a part was trained on, as far as paths and fingerprints tell.

    Arguments:
        run: the run.
        data: what was named in place of its own images, if anything.
        splits: what was read.
        images: the part of it.
    """
    from vaelab.data.summary import fingerprint

    if data is not None and not _related(run, data):
        return True
    known = data is None or fingerprint(splits) == run.trained_on()[1]
    return known and images is not splits.train


def _related(run: Run, data: str) -> bool:
    """Tell whether images may be the run's own: the same path, or one inside the other.

    The test part of a folder that names its parts is none that was trained on.
    """
    from vaelab.export.hub import EMBEDDED

    spec = run.read_config().data.spec
    if data == spec or {data, spec} & set(EMBEDDED):
        return data == spec
    one, other = (Path(p).expanduser().resolve() for p in (data, _found(run, spec)))
    if one.is_relative_to(other) and (other / "train").is_dir():
        return one.relative_to(other).parts[:1] != ("test",)
    return one.is_relative_to(other) or other.is_relative_to(one)


def _found(run: Run, spec: str) -> str:
    """Return where a run's data is: a path that is not here may be beside or above the run.

    It was given in the folder where training started, which usually holds the runs too. Whether
    it is the same data is for the caller to check.
    """
    from vaelab.export.hub import EMBEDDED

    if spec in EMBEDDED or Path(spec).is_absolute() or Path(spec).exists():
        return spec
    above = (folder / spec for folder in run.path.resolve().parents)
    return next((str(path) for path in above if path.exists()), spec)


def tell_fitted(run: Run, data: str | None) -> None:
    """Say how many images are of another shape than the model's and are brought to it."""
    from vaelab.data.load import fitted_note

    shape, _ = run.trained_on()
    note = fitted_note(data, shape, run.read_config().data.fit)
    if note:
        output.say(note)


def part_of(splits: Splits, name: str) -> ImageSet:
    """Return a part by its name; raises `ConfigError` for another name."""
    parts = dict(zip(PART_NAMES, (splits.train, splits.validation, splits.test), strict=True))
    if name not in parts:
        raise ConfigError(f"--split {name!r}: choose train, validation or test.")
    return parts[name]
