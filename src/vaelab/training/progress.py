"""What a person sees while a model trains: one line that updates, or plain lines in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Protocol

_SHOWN = {
    "distortion": "distortion {:.1f}",
    "rate": "rate {:.1f}",
    "elbo": "ELBO {:.1f}",
    "accuracy": "accuracy {:.2%}",
}


class Progress(Protocol):
    """Receives what happens; the command line shows it, a script may pass its own."""

    def start(self, total: int, done: int, epochs: int) -> None:
        """Training of ``total`` steps starts (or goes on) behind step ``done``."""

    def step(self, step: int, epoch: int, speed: float, figures: Mapping[str, float]) -> None:
        """Some steps were made: images per second, and mean figures since the last call."""

    def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """An epoch ended, the first being 1: figures of the validation images."""

    def say(self, text: str) -> None:
        """Something that the person should know, in plain words."""

    def stop(self) -> None:
        """Training ended, for whatever reason."""


class Silent:
    """Shows nothing."""

    def start(self, total: int, done: int, epochs: int) -> None:
        """Show nothing."""

    def step(self, step: int, epoch: int, speed: float, figures: Mapping[str, float]) -> None:
        """Show nothing."""

    def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def stop(self) -> None:
        """Show nothing."""


def describe(figures: Mapping[str, float]) -> str:
    """Return distortion, rate and ELBO, or accuracy, as far as they are there, in a short text."""
    return "  ".join(text.format(figures[key]) for key, text in _SHOWN.items() if key in figures)


class Lines:
    """Plain lines, at most one every few seconds: for logs and pipes."""

    def __init__(self, every: float = 10.0) -> None:
        self.every, self.total, self.epochs, self.begun, self.first, self.last = (
            every,
            0,
            0,
            0.0,
            0,
            0.0,
        )

    def start(self, total: int, done: int, epochs: int) -> None:
        """Begin to count."""
        self.total, self.epochs, self.first = total, epochs, done
        self.begun = self.last = time.monotonic()

    def step(self, step: int, epoch: int, speed: float, figures: Mapping[str, float]) -> None:
        """Print a line when the last one is old enough."""
        now = time.monotonic()
        if now - self.last < self.every and step < self.total:
            return
        self.last = now
        left = (now - self.begun) / max(1, step - self.first) * (self.total - step)
        self.say(
            f"epoch {epoch + 1}/{self.epochs}  step {step}/{self.total}  {describe(figures)}  "
            f"{speed:,.0f} images/s  {duration(left)} left"
        )

    def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Show nothing: steps are shown."""

    def say(self, text: str) -> None:
        """Print a line to standard error."""
        print(text, file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Nothing to tidy up."""


class Bar:
    """A progress bar with an ETA, images/s, distortion, rate and ELBO: for terminals."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.console = Console(stderr=True, highlight=False)
        self.bar = RichProgress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=self.console,
        )
        self.task = self.bar.add_task("", start=False, visible=False, epoch="", text="")
        self.epochs = 0

    def start(self, total: int, done: int, epochs: int) -> None:
        """Show the bar."""
        self.epochs = epochs
        self.bar.update(
            self.task, total=total, completed=done, visible=True, epoch=f"1/{epochs}", text=""
        )
        self.bar.start_task(self.task)
        self.bar.start()

    def step(self, step: int, epoch: int, speed: float, figures: Mapping[str, float]) -> None:
        """Move the bar."""
        text = f"{speed:,.0f} images/s  {describe(figures)}"
        self.bar.update(self.task, completed=step, epoch=f"{epoch + 1}/{self.epochs}", text=text)

    def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Show nothing: steps are shown."""

    def say(self, text: str) -> None:
        """Print above the bar."""
        self.console.print(text, markup=False)

    def stop(self) -> None:
        """Leave the bar as it is."""
        self.bar.stop()


def default_progress() -> Progress:
    """Return a bar on a terminal, lines elsewhere."""
    return Bar() if sys.stderr.isatty() else Lines()


def duration(seconds: float) -> str:
    """Return a length of time as people say it: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
