"""The errors that a user can mend: each says what is wrong, where, and what to do about it."""

from __future__ import annotations


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


class TrainingError(VaelabError):
    """Training that cannot go on, such as a loss that stays non-finite."""
