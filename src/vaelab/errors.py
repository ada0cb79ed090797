"""The errors that a user can mend: each says what is wrong, where, and what to do about it."""

from __future__ import annotations

from operator import index
from pathlib import Path

PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib", ".dill")
"""Endings of files that are pickle, or that cannot be told from pickle without opening them."""


class VaelabError(Exception):
    """Base of every error raised on purpose; the command line prints it without a traceback."""


class DataError(VaelabError):
    """Images, labels or attributes that cannot be used as they are."""


class ConfigError(VaelabError):
    """A configuration, option or argument that has no meaning or contradicts another."""


class RunError(VaelabError):
    """A run folder that is missing, incomplete, damaged or of another configuration."""


class BusyError(RunError):
    """A folder that another process is writing."""


class WriteError(VaelabError, OSError):
    """A place that may only be read."""


class DiskError(RunError, OSError):
    """A file that could not be written to its end, as on a full disk."""


class TrainingError(VaelabError):
    """Training that cannot go on, such as a loss that stays non-finite."""


class PickleError(VaelabError):
    """A file that could run code when it is opened."""


class ExportError(VaelabError):
    """A model that cannot be written in another format, or did not come out the same."""


def cut(text: str, most: int = 500) -> str:
    """Return a text for messages, of bounded length."""
    return text if len(text) <= most else f"{text[:most]} …"


def counted(number: int, noun: str) -> str:
    """Return how many there are of what, in messages: ``1 epoch``, ``1,200 images``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def within(name: str, value: float, least: float, most: float) -> None:
    """Raise `ConfigError` for a number out of its range, and for what is none, NaN included."""
    try:
        fits = bool(least <= value <= most)
    except (TypeError, ValueError, RuntimeError):  # text, or an array
        fits = False
    if not fits:
        raise ConfigError(f"{name}: must be {least:,} to {most:,} (got {cut(repr(value), 60)}).")


def whole_number(name: str, value: int, least: int, most: int) -> None:
    """Raise `ConfigError` for a number out of its range, and for what is no whole number."""
    try:
        index(value)
    except TypeError:
        got = cut(repr(value), 60)
        raise ConfigError(f"{name}: must be a whole number (got {got}).") from None
    within(name, value, least, most)


def check_seed(seed: int) -> None:
    """Raise `ConfigError` for a seed that generators do not take, or would take for another."""
    whole_number("seed", seed, 0, 2**63 - 1)


def as_path(name: str, value: str | Path) -> Path:
    """Return a path that was given from Python; raises `ConfigError` for what is none."""
    try:
        return Path(value)
    except TypeError:
        got = cut(repr(value), 60)
        raise ConfigError(f"{name}: must be a path, such as 'runs/first' (got {got}).") from None


def refuse_pickle(path: Path | str) -> None:
    """Raise `PickleError` for a file whose ending says that it is pickle."""
    suffix = Path(path).suffix.lower()
    if suffix in PICKLES:
        raise PickleError(
            f"{path}: {suffix} files are pickle, which runs any code that the file holds as soon "
            "as it is opened, so vaelab opens none. Ask for a safetensors file or, for images, "
            ".npy or .npz; a run of vaelab is loaded by the path of its folder."
        )
