"""The same thing from Python in three lines; the command line calls these functions too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import nn

from vaelab.config import (
    IN_MEMORY,
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    augmentations,
    merge,
    read_yaml,
)
from vaelab.data.images import Splits
from vaelab.data.load import load_config, load_data
from vaelab.defaults import with_defaults
from vaelab.errors import ConfigError, RunError, cut
from vaelab.evaluation.choice import choose_sampler
from vaelab.evaluation.diagnose import diagnose as diagnose_run
from vaelab.evaluation.record import is_current, read
from vaelab.explorer.page import write_explorer as write_page
from vaelab.models.vae import Vae
from vaelab.recipes import find_recipe, resolve
from vaelab.training.backend import alone, find_device, is_main
from vaelab.training.finding import Finding
from vaelab.training.fit import few_steps_note, train_config
from vaelab.training.progress import Progress, Silent
from vaelab.training.run import Run, check_same, versions
from vaelab.training.start import start_from
from vaelab.training.trial import announcement, check_minutes, limited

_SECTIONS = {
    "data": DataConfig.model_fields,
    "model": ModelConfig.model_fields,
    "training": TrainingConfig.model_fields,
}


def train(
    recipe: str | None = None,
    data: Any = None,
    out: Path | str | None = None,
    *,
    config: Path | str | Mapping[str, Any] | None = None,
    resume: bool = False,
    start: Path | str | None = None,
    progress: Progress | None = None,
    features: nn.Module | Path | str | None = None,
    minutes: float | None = None,
    **settings: Any,
) -> Vae:
    """Train a model and return it, in evaluation mode.

        model = vaelab.train("beta-vae", "mnist", latent_dim=5, beta=2, epochs=10)

    Arguments:
        recipe: name of a recipe; ``vae`` by default.
        data: `Splits`, or what `load_data` takes: path, array, tensor, data set, table; ``mnist``
            by default.
        out: folder of the run; without it nothing is written.
        config: YAML file or nested mapping that ``settings`` are laid upon.
        resume: go on with the run in ``out``.
        start: a run whose weights training starts from, with a fresh optimizer; what is not set is
            as in that run. Networks and distributions have to be the same.
        progress: told what happens; silent by default.
        features: what reconstructions are compared in where ``perceptual`` weighs that: the run of
            a classifier, or any module from images ``(n, C, H, W)`` in [0, 1] to features, one
            tensor or several; see docs/sharper.md. By default a classifier of the images' classes.
        minutes: that training may take, in place of ``epochs``: a trial of its steps tells how many
            fit, and the learning rate's schedule ends with them.
        settings: any key of the configuration by its last name, or any option of the recipe;
            ``preset="small"`` or ``"large"`` for another size of what the images choose.

    Raises:
        ConfigError: an unknown or contradictory setting.
        DataError: images that cannot be used.
        RunError: ``out`` holds another run, or a damaged one.
        TrainingError: the loss stayed non-finite.
    """
    if resume and out is None:
        raise ConfigError("resume: say which run to go on with: out='runs/NAME'.")
    network = features if isinstance(features, nn.Module) else None
    if features is not None:
        settings["features"] = IN_MEMORY if network is not None else str(features)
    values = settings_to_config(settings)
    if recipe is not None:
        values["recipe"] = recipe
    if isinstance(data, (str, Path)):
        values = merge(values, {"data": {"spec": str(data)}})
    elif data is not None:
        values = merge(values, {"data": {"spec": IN_MEMORY}})
    seconds = check_minutes(minutes, values, resume)
    run = None if out is None else Run(out)
    full = configure(values, config, run if resume else None, None if start is None else Run(start))
    if find_recipe(full.recipe).classifies:
        raise ConfigError(f"recipe: `{full.recipe}` is no VAE; vaelab.train trains VAEs.")
    if run is not None and not resume:
        run.check_free()
    splits = read_data(full, data)
    full = with_defaults(full, splits.train)
    told = progress or Silent()
    if seconds is not None:
        full, pace = limited(full, splits, seconds, network)
        told.say(announcement(full, pace, seconds))
    if not resume and (note := few_steps_note(full.training, len(splits.train))):
        told.say(note)
    model = train_config(full, splits, run, told, network)
    assert isinstance(model, Vae)
    choose_samples(model, splits, run, told)
    return model


def choose_samples(
    model: Vae, splits: Splits, run: Run | None = None, progress: Progress | None = None
) -> None:
    """Choose what samples of a model come from, on validation images; see `choose_sampler`.

    Arguments:
        model: whose samples they are.
        splits: the images that it was trained on.
        run: where the choice is kept.
        progress: receives what was chosen.
    """
    if not is_main():
        return
    seed = 0 if model.config is None else model.config.training.seed
    with alone():
        choice = choose_sampler(model, splits, seed)
    model.mixture, model.samples_from = choice.mixture, choice.reason
    if run is not None:
        run.save_sampler(model, {"candidates": [asdict(each) for each in choice.candidates]})
    if progress is not None:
        progress.say(choice.reason)


def configure(
    values: Mapping[str, Any],
    base: Path | str | Mapping[str, Any] | None = None,
    resumed: Run | None = None,
    start: Run | None = None,
) -> RunConfig:
    """Return the resolved configuration of ``values`` laid upon ``base`` or upon a run's own.

    ``resumed`` is a run to go on with, ``start`` one whose weights another run starts from.
    """
    if resumed is not None and start is not None:
        raise ConfigError(
            "--from: starts another run from trained weights, and --resume goes on with a run that "
            "has its own. Pass one of them."
        )
    if not isinstance(base, (str, Path, Mapping, NoneType)):
        got = cut(repr(base), 60)
        raise ConfigError(f"config: must be a YAML file or a mapping (got {got}).")
    where = str(base) if isinstance(base, (str, Path)) else "configuration"
    below = read_yaml(Path(base)) if isinstance(base, (str, Path)) else dict(base or {})
    if resumed is not None:
        old = resumed.read_config()
        wanted = merge(below, values)
        if wanted.get("recipe", old.recipe) != old.recipe:
            raise RunError(
                f"{resumed}: is a run of the recipe {old.recipe}, not {wanted['recipe']}. Leave "
                "the recipe out to go on with it, or start another run in another folder."
            )
        new = resolve(merge(old.model_dump(), wanted), "resume")
        check_same(old, new, resumed.config_file)
        return new
    if start is not None:
        return start_from(start, merge(below, values))
    return resolve(merge(below, {**values, "versions": versions()}), where)


def settings_to_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Sort flat settings into sections: ``lr`` is ``training.lr``; unknown ones are options."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "augment" and isinstance(value, str):
            value = augmentations(value)
        if key == "preset":
            values[key] = value
            continue
        homes = [name for name, keys in _SECTIONS.items() if key in keys]
        values = merge(values, {homes[0] if homes else "options": {key: value}})
    return values


def read_data(
    config: RunConfig,
    data: Any = None,
    progress: Callable[[int, int], None] | None = None,
    optional: bool = False,
) -> Splits:
    """Return the images of a configuration, or those given in their place; see `load_data`."""
    if isinstance(data, Splits):
        return data
    if data is not None and not isinstance(data, (str, Path)):
        return load_config(config.data, data, progress=progress, optional=optional)
    if config.data.spec == IN_MEMORY:
        raise ConfigError(
            "data.spec: this run was trained on images in memory. Pass them as `data`, or on the "
            "command line as --data PATH."
        )
    return load_config(config.data, progress=progress, optional=optional)


def load(path: Path | str, device: str | torch.device = "cpu") -> Vae:
    """Return the trained model of a run, or of a folder that `export_hub` wrote, ready to use.

    Raises:
        ConfigError: no path, or a device that is not here.
        PickleError: what is there is pickle, which could run code.
        RunError: the folder is no run, is unfinished, or is damaged.
    """
    return Run(path).load_model(find_device(device))


def write_explorer(path: Path | str, data: Any = None, out: Path | str | None = None) -> Path:
    """Write the page in which the model of a run decodes and encodes in the browser.

        vaelab.write_explorer("runs/first")  # runs/first/explorer.html

    Arguments:
        path: folder of a run.
        data: images in place of the run's own, as `load_data` takes them.
        out: the page; ``explorer.html`` of the run by default.

    Raises:
        RunError: the folder is no run, is unfinished, or is damaged.
        DataError: images that cannot be used, or of another shape.
        ConfigError: a model that the page cannot run.
    """
    run = Run(path)
    config = run.read_config()
    named = isinstance(data, (str, Path))
    other = data is not None
    splits = (
        load_config(config.data, data, optional=True)
        if named
        else read_data(config, data, optional=other)
    )
    return write_page(run, splits, None if out is None else Path(out))


def diagnose(path: Path | str, data: Any = None) -> list[Finding]:
    """Return what is wrong with a trained run, the gravest first, each with what helps.

        for finding in vaelab.diagnose("runs/first"):
            print(finding.text, finding.command)

    Arguments:
        path: folder of a run.
        data: its images where they were given in memory.

    Raises:
        RunError: the folder is no run, is unfinished, or is damaged.
        DataError: images that cannot be used, or of another shape.
    """
    run = Run(path)
    splits = read_data(run.read_config(), data)
    return diagnose_run(run, run.load_model(), splits, read(run) if is_current(run) else None)


__all__ = [
    "choose_samples",
    "configure",
    "diagnose",
    "load",
    "load_data",
    "read_data",
    "train",
    "train_config",
    "write_explorer",
]
