"""The errors that a user can mend: each says what is wrong, where, and what to do about it."""

from __future__ import annotations

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
    """Raise `ConfigError` for a number out of its range, NaN included."""
    if not least <= value <= most:
        raise ConfigError(f"{name}: must be {least:,} to {most:,} (got {value!r}).")


def refuse_pickle(path: Path | str) -> None:
    """Raise `PickleError` for a file whose ending says that it is pickle."""
    suffix = Path(path).suffix.lower()
    if suffix in PICKLES:
        raise PickleError(
            f"{path}: {suffix} files are pickle, which runs any code that the file holds as soon "
            "as it is opened, so vaelab opens none. Ask for a safetensors file or, for images, "
            ".npy or .npz; a run of vaelab is loaded by the path of its folder."
        )
