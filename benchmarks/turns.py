"""Contenders in processes of their own that take turns, so that only one computes at any time.

A contender trains as it always does; from a hook of its own trainer it calls `Turn.wait`, which
reports the round that ended and blocks until the referee says go. Rounds are short and interleaved
(A B C … C B A …), so that a change of the machine's speed meets all contenders alike.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any


def peak_mb() -> float:
    """Return the largest resident set of this process so far, in MB (10⁶ bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class Turn:
    """A contender's side. What its libraries print goes to standard error."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.since = time.perf_counter()

    def seconds(self) -> float:
        """Return the time since the last go."""
        return time.perf_counter() - self.since

    def report(self, **values: Any) -> None:
        """Tell the referee."""
        print(json.dumps({**values, "peak_mb": peak_mb()}), file=self.out, flush=True)

    def wait(self, **values: Any) -> None:
        """Report a round and wait for the next one; the process ends when there is none."""
        self.report(**values)
        if sys.stdin.readline().strip() != "go":
            os._exit(0)
        self.since = time.perf_counter()


class Rounds:
    """Rounds of ``steps`` training steps; one that the end of an epoch cuts short is dropped."""

    def __init__(self, turn: Turn, steps: int, batch: int, **about: Any) -> None:
        self.turn, self.steps, self.batch, self.about = turn, steps, batch, about
        self.done, self.warm = 0, False

    def restart(self) -> None:
        """Start a round anew: an epoch begins."""
        self.done = 0
        self.turn.since = time.perf_counter()

    def step(self, steps: int = 1) -> None:
        """Count steps; at the end of a round, report it and wait. The first round warms up."""
        self.done += steps
        if self.done < self.steps:
            return
        speed = self.done * self.batch / self.turn.seconds()
        self.turn.wait(**({"speed": speed} if self.warm else self.about))
        self.done, self.warm = 0, True


class Contender:
    """The referee's side of one contender; ready, and waiting, once this returns."""

    def __init__(self, name: str, arguments: list[str], threads: int) -> None:
        self.name, self.last = name, dict[str, Any]()
        self.errors = tempfile.TemporaryFile("w+")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
        )
        self.about = self._listen()

    def turn(self) -> dict[str, Any]:
        """Let the contender run one round; returns its report."""
        self._say("go")
        self.last = self._listen()
        return self.last

    def stop(self) -> None:
        """End the process."""
        self._say("stop")
        self.process.wait(60)

    def _say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def _listen(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise RuntimeError(f"{self.name} ended:\n{self.errors.read()[-4000:]}")
        report: dict[str, Any] = json.loads(line)
        return report
