"""The first Ctrl-C finishes the step and saves; the second one quits."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from vaelab.training.progress import Progress

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Training ended on request, with its state saved."""


class Interrupt:
    """Context in which SIGINT and SIGTERM ask for an end instead of forcing one."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.asked = progress, False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self.progress.say("Finishing this step, then saving. Once more to quit at once.")
