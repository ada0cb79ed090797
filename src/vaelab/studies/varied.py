"""A case of a study: settings laid upon a base, which images may have chosen, and multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaelab.config import RunConfig, merge
from vaelab.data.load import load_config
from vaelab.defaults import with_defaults
from vaelab.errors import ConfigError
from vaelab.recipes import find_recipe, resolve
from vaelab.training.run import versions

SCALE = "(scale)"
"""The key of settings under which factors stand: no section of a configuration."""


def chosen_by_images(base: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a base with every setting that it does not name chosen by its images.

    Raises:
        ConfigError: a recipe of which nothing is chosen.
        DataError: images that cannot be used.
    """
    config = resolve(base, where)
    if not find_recipe(config.recipe).by_images:
        raise ConfigError(
            f"{where}: by_images: nothing is chosen by the images for the recipe {config.recipe}. "
            "Leave it out, and name the settings."
        )
    return {**base, **_written(with_defaults(config, load_config(config.data).train))}


def varied(
    base: Mapping[str, Any], settings: Mapping[str, Any], over: Mapping[str, Any], where: str
) -> RunConfig:
    """Return the configuration of a case.

    Arguments:
        base: settings of every case.
        settings: those of the case, its factors under `SCALE`.
        over: settings laid upon those of every case; then comes what is multiplied.
        where: what an error should name.

    Raises:
        ConfigError: a configuration that cannot be, or a factor of no number.
    """
    own = {key: value for key, value in settings.items() if key != SCALE}
    full = merge(merge(base, own), over)
    config = resolve({**full, "versions": versions()}, where)
    factors = settings.get(SCALE, {})
    if not factors:
        return config
    values = {**full, **_written(config)}
    for key, factor in factors.items():
        values = _multiplied(values, key.split("."), factor, f"{where}: scale: {key}")
    return resolve({**values, "versions": versions()}, where)


def _written(config: RunConfig) -> dict[str, Any]:
    """Return the sections of model and training in full; a mirrored decoder goes on mirroring."""
    model, training = config.model.model_dump(), config.training.model_dump()
    if model["decoder"] == model["encoder"]:
        del model["decoder"]
    return {"model": model, "training": training}


def _multiplied(
    values: Mapping[str, Any], path: list[str], factor: float, where: str
) -> dict[str, Any]:
    """Return nested values with one number, or all of a list, multiplied; whole ones stay whole."""
    first, *rest = path
    if first not in values or (rest and not isinstance(values[first], Mapping)):
        raise ConfigError(f"{where}: there is no such setting of a model or a training.")
    if rest:
        return {**values, first: _multiplied(values[first], rest, factor, where)}
    return {**values, first: _times(values[first], factor, where)}


def _times(value: Any, factor: float, where: str) -> Any:
    if isinstance(value, list):
        return [_times(each, factor, where) for each in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{where}: is {value!r}, no number to multiply.")
    return max(1, round(value * factor)) if isinstance(value, int) else value * factor
