"""What every command prints, and how: text for people, or one JSON object for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaelab.config import RunConfig
    from vaelab.data.images import Splits
    from vaelab.training.progress import Progress


@dataclass
class Output:
    """The choice of the flags ``--quiet``, ``--json`` and ``--debug``."""

    quiet: bool = False
    json: bool = False
    debug: bool = False

    def say(self, text: str) -> None:
        """Print a line for people, on standard error so that a pipe carries results only."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def result(self, values: Mapping[str, Any], lines: Iterable[str]) -> None:
        """Print a result: ``values`` for a script, ``lines`` for a person."""
        if self.json:
            print(json.dumps(values, indent=2, default=str))
        elif not self.quiet:
            for line in lines:
                print(line)

    def progress(self) -> Progress:
        """Return what shows progress: nothing when quiet."""
        from vaelab.training.progress import Silent, default_progress

        return Silent() if self.quiet else default_progress()

    @contextmanager
    def counter(self, what: str) -> Iterator[Callable[[int, int], None] | None]:
        """Show how far a piece of work is, on a terminal; yields what to tell it to."""
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def images(self, config: RunConfig) -> Splits:
        """Read the images of a configuration, showing how far it is, and say what was noted."""
        from vaelab.api import read_data

        with self.counter("reading images") as progress:
            splits = read_data(config, progress=progress)
        for note in splits.notes:
            self.say(note)
        return splits


output = Output()


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows as aligned lines, two spaces between columns."""
    cells = [tuple(str(cell) for cell in row) for row in rows]
    columns = max((len(row) for row in cells), default=0)
    padded = [row + ("",) * (columns - len(row)) for row in cells]
    widths = [max(len(row[i]) for row in padded) for i in range(columns)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in padded
    ]
