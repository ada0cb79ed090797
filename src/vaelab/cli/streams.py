"""Standard output and error that take any text and may be closed, and Ctrl-C while importing."""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
from types import FrameType

_PLAIN = {
    "−": "-", "–": "-", "—": "-", "±": "+/-", "×": "x", "·": "*", "…": "...", "→": "->",
    "≤": "<=", "≥": ">=", "≈": "~", "√": "sqrt", "∞": "inf", "‖": "||", "’": "'", "“": '"',
    "”": '"', "α": "alpha", "β": "beta", "γ": "gamma", "λ": "lambda", "μ": "mu", "σ": "sigma",
    "Δ": "Delta", "Σ": "sum", "█": "#", "²": "^2", "½": "1/2", "é": "e",
}  # fmt: skip
"""What stands for a character that an encoding does not have."""


def prepare() -> None:
    """Let standard output and error take any text, and work where they are closed.

    A character that their encoding lacks (cp1252, ASCII) is written in plain ones. Where nobody
    reads any more (``| head -1``), or where they were closed (``>&-``), what is written is lost,
    and the work goes on.
    """
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # a file that got the number of a closed stream would be written into
    os.close(free)
    codecs.register_error("vaelab", _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _Stream(stream, every_error=name == "stderr"))


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all(character in _PLAIN for character in text):
        return "".join(_PLAIN[character] for character in text), error.end
    if text[0] in _PLAIN:
        return _PLAIN[text[0]], error.start + 1
    one = UnicodeEncodeError(
        error.encoding, error.object, error.start, error.start + 1, error.reason
    )
    return codecs.backslashreplace_errors(one)


class _Stream(io.TextIOWrapper):
    """A stream in the place of another that writes to nowhere once its reader has gone.

    Arguments:
        stream: the other one.
        every_error: whether a full disk is no reason to stop either.
    """

    def __init__(self, stream: io.TextIOWrapper, every_error: bool) -> None:
        stream.flush()
        self._kept = stream  # whose end would close what both write to
        errors = stream.errors if stream.errors not in (None, "strict") else "vaelab"
        self._lost = OSError if every_error else BrokenPipeError
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors=errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )

    def write(self, text: str, /) -> int:
        """Write text; an error that counts is raised once."""
        try:
            return super().write(text)
        except OSError as error:
            self._leave(error)
            return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        try:
            super().flush()
        except OSError as error:
            self._leave(error)

    def _leave(self, error: OSError) -> None:
        """Write to nowhere from now on, also what is still held back."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if not isinstance(error, self._lost):
            raise error


def quit_while_importing() -> None:
    """Let Ctrl-C during an import end the program at once and without a word, with code 130.

    An import that is broken off by an exception leaves half a module behind, and packages turn the
    exception into another. At any other time Ctrl-C is a `KeyboardInterrupt`.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt
