"""Where a command keeps what it measured: in the run, or elsewhere if that may only be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaelab.cli.output import output
from vaelab.errors import ConfigError, WriteError

if TYPE_CHECKING:
    from vaelab.evaluation.record import Evaluation
    from vaelab.training.run import Run

OutJson = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Where the figures are kept, .json.",
        show_default="evaluation.json in the run, of its own test images",
    ),
]


def keep(run: Run, evaluation: Evaluation, out: Path | None, own: bool) -> Path | None:
    """Write an evaluation, and return where; None where it is only printed.

    Arguments:
        run: the run.
        evaluation: of its weights.
        out: the file that was named, if any.
        own: whether the run keeps it when none was.
    """
    from vaelab.evaluation.record import write

    place = out or (run.evaluation_file if own else None)
    if place is None or not written(run, lambda: write(run, evaluation, place), out):
        return None
    return place


def check_json(out: Path | None) -> None:
    """Raise `ConfigError` for a file that is not to be JSON, before all that takes long."""
    if out is not None and out.suffix != ".json":
        raise ConfigError(f"--out {out}: the figures are JSON. Name a file that ends in .json.")


def written(run: Run, write: Callable[[], object], out: Path | None) -> bool:
    """Tell whether something could be written; in a run that may only be read it is left out."""
    try:
        write()
    except WriteError:
        if out is not None:  # which was asked for
            raise
        output.say(f"{run} may only be read: nothing is written to it. Pass --out FILE to keep it.")
        return False
    return True
