"""How images other than a run's own are read: options of every command that takes some."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, get_type_hints

from vaelab.cli.options import Background, Frames, ValueRange
from vaelab.errors import ConfigError

if TYPE_CHECKING:
    from vaelab.config import RunConfig
    from vaelab.training.run import Run

_OPTIONS: dict[str, Any] = {"range": ValueRange, "background": Background, "frames": Frames}
_given: dict[str, str] = {}


def reads_others(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which `config_of` then heeds."""

    @wraps(command)
    def with_options(**values: Any) -> Any:
        _given.clear()
        for name in _OPTIONS:
            if (value := values.pop(name)) is not None:
                _given[name] = value
        if _given and not _names_others(values):
            name, value = next(iter(_given.items()))
            raise ConfigError(
                f"--{name} {value}: says how other images are read; those of the run are read as "
                "for its training. Name others, or leave it out."
            )
        return command(**values)

    hints = get_type_hints(command, include_extras=True)
    known = inspect.signature(command)
    parameters = [p.replace(annotation=hints[p.name]) for p in known.parameters.values()]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _OPTIONS.items()
    ]
    changed: Any = with_options
    changed.__signature__ = known.replace(parameters=parameters)
    changed.__annotations__ = hints | _OPTIONS
    return with_options


def takes_others(command: Callable[..., Any]) -> bool:
    """Tell whether a command of a run takes other images than its own."""
    names = inspect.signature(command).parameters.keys()
    return "run" in names and not names.isdisjoint({"spec", "images", "data"})


def config_of(run: Run) -> RunConfig:
    """Return the configuration of a run, with what the options say of other images."""
    from vaelab.config import merge
    from vaelab.recipes import resolve

    config = run.read_config()
    if not _given:
        return config
    return resolve(merge(config.model_dump(), {"data": _given}), "other images")


def _names_others(values: dict[str, Any]) -> bool:
    """Tell whether arguments name images that may not be the run's own."""
    single = (values.get(name) for name in ("start", "end", "image"))
    named = any(isinstance(value, str) and not value.isdigit() for value in single)
    return named or any(values.get(name) for name in ("spec", "images", "data"))
