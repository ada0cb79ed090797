"""Search for settings with Optuna: it proposes, the one training loop trains, bad trials end early.

    title: Learning rate and depth
    base: {model: {latent_dim: 5}, training: {epochs: 10}}
    space:
      training.lr: {low: 0.0003, high: 0.03, log: true}
      model.latent_dim: {low: 2, high: 20}
      model.encoder.widths: [[32, 64], [32, 64, 128]]

A range of whole numbers is one of integers; a list is a choice. Trials are judged on validation
images: the test images stay new for whatever is chosen.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from vaelab import files
from vaelab.config import RunConfig, Section, explain, merge
from vaelab.data.images import Splits
from vaelab.data.load import load_config
from vaelab.errors import BusyError, ConfigError, RunError, TrainingError, VaelabError
from vaelab.evaluation.figures import check_lead, sense
from vaelab.recipes import resolve
from vaelab.training.fit import train_config
from vaelab.training.progress import Silent
from vaelab.training.run import Run, versions
from vaelab.training.step import mix_seed

Say = Callable[[str], None]
_RUN, _WHERE = "run", "where"  # attributes of a trial: the name of its run, and whose it is


class Range(Section):
    """Numbers between two ends, both included."""

    low: int | float
    high: int | float
    log: bool = Field(False, description="whether to search by factors, not by differences")

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("low must be below high, and above 0 for a log range")
        return self


class SpaceConfig(Section):
    """What is searched."""

    title: str
    base: dict[str, Any] = Field({}, description="settings of every trial, section by section")
    space: dict[str, Range | list[Any]] = Field(description="setting to its range or choices")
    lead: str = Field("elbo", description="the validation figure to improve")


@dataclass(frozen=True)
class Best:
    """What a search found.

    Arguments:
        value: the leading figure of the best trial, on validation images.
        config: its configuration.
        run: its folder.
        trials, pruned, failed: how many were finished, ended early, and failed.
    """

    value: float
    config: RunConfig
    run: Run
    trials: int
    pruned: int
    failed: int


def read_space(values: Mapping[str, Any], where: str, base: Mapping[str, Any]) -> SpaceConfig:
    """Return the checked space, ``base`` laid upon its own; raises `ConfigError`."""
    try:
        space = SpaceConfig.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(error, SpaceConfig, where)) from None
    check_lead(space.lead, where)
    if not space.space:
        raise ConfigError(f"{where}: space: name at least one setting and its range.")
    return space.model_copy(update={"base": merge(space.base, base)})


def tune(
    space: SpaceConfig,
    folder: Path,
    trials: int,
    *,
    storage: str | None = None,
    seed: int = 0,
    say: Say = lambda text: None,
) -> Best:
    """Search until ``trials`` are finished, pruned or failed; goes on with what the folder holds.

    Any number of processes may search at once, on machines that share the folder, or that share
    nothing but the database.

    Arguments:
        space: what to search.
        folder: of the runs, and of the journal that is the storage by default.
        trials: how many there shall be in all.
        storage: URL of a database, such as postgresql://user@host/name, in place of the journal.
        seed: of the proposals and of every training.
        say: told how each trial ended.

    Raises:
        ConfigError: Optuna or the database's driver is missing, or every trial failed.
        RunError: the folder holds another search.
        Interrupted: a signal asked for an end; the trial under way goes on the next time.
    """
    optuna = _optuna()
    _keep_space(space, folder)
    study = optuna.create_study(
        study_name=space.title,
        storage=_storage(optuna, folder, storage),
        direction="minimize" if sense(space.lead) < 0 else "maximize",
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=2),  # not behind the first epoch
        load_if_exists=True,
    )
    _revive(study, optuna, folder)
    read: dict[str, Splits] = {}
    while True:
        if sum(trial.state.is_finished() for trial in _own(study)) >= trials:
            break
        trial = study.ask()
        study.sampler = optuna.samplers.TPESampler(seed=mix_seed(seed, trial.number) % 2**32)
        _trial(study, optuna, trial, space, folder, read, say)
    return _best(study, optuna, space, folder)


def _optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise ConfigError(
            "tune: needs Optuna. Install it with: pip install 'vaelab[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _keep_space(space: SpaceConfig, folder: Path) -> None:
    path = folder / "space.json"
    values = space.model_dump(mode="json")
    if path.exists():
        if files.read_json(path) != json.loads(json.dumps(values)):
            raise RunError(f"{folder}: holds another search. Choose another --out.")
        return
    files.write_json(path, values)


def _storage(optuna: Any, folder: Path, url: str | None) -> Any:
    if url is not None:
        try:
            return optuna.storages.RDBStorage(url)
        except ImportError as error:
            raise ConfigError(f"--storage: {error}. Install the database's driver.") from None
        except Exception as error:  # of the driver
            raise ConfigError(
                f"--storage: cannot be used ({' '.join(str(error).split())})."
            ) from None
    path = files.inside(folder, folder / "journal.log")
    if os.path.lexists(path):
        files.open_regular(path, folder).close()
    journal = importlib.import_module("optuna.storages.journal")
    try:
        return journal.JournalStorage(journal.JournalFileBackend(str(path)))
    except Exception as error:  # of a file that Optuna did not write
        raise files.damaged(path, f"Optuna cannot read it: {type(error).__name__}") from None


def _name(trial: Any) -> str:
    """Return the name of a trial's run; raises `RunError` for one that no search gave."""
    name = trial.user_attrs[_RUN]
    if not isinstance(name, str) or not re.fullmatch(r"trial-\d{4,9}", name):
        raise RunError(f"journal: trial {trial.number} has a run called {name!r}. Search anew.")
    return name


def _place(folder: Path, name: str) -> Path:
    return files.inside(folder, folder / "runs" / name)


def _here(folder: Path) -> str:
    return f"{platform.node()}:{folder.resolve()}"


def _own(study: Any) -> list[Any]:
    """Return the trials but for those whose worker died, which others took over."""
    return [t for t in study.get_trials(deepcopy=False) if "taken over" not in t.user_attrs]


def _revive(study: Any, optuna: Any, folder: Path) -> None:
    """Let trials of this folder whose worker is gone go on: the same settings, the same run.

    Whether a worker lives is told by its lock, which says nothing of other machines: their trials
    wait for them.
    """
    for trial in study.get_trials(deepcopy=False):
        if trial.state != optuna.trial.TrialState.RUNNING or _RUN not in trial.user_attrs:
            continue
        if trial.user_attrs.get(_WHERE) != _here(folder):
            continue
        name = _name(trial)
        with files.locked(_place(folder, name) / ".claim") as free:
            if not free:
                continue
            study._storage.set_trial_user_attr(trial._trial_id, "taken over", True)
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={_RUN: name})


def _trial(
    study: Any,
    optuna: Any,
    trial: Any,
    space: SpaceConfig,
    folder: Path,
    read: dict[str, Splits],
    say: Say,
) -> None:
    """Train one proposal and tell the study how it ended."""
    state = optuna.trial.TrialState
    name = _name(trial) if trial.user_attrs.get(_RUN) else f"trial-{trial.number:04d}"
    path = _place(folder, name)
    with files.locked(path / ".claim") as mine:
        if not mine:
            raise BusyError(f"{path}: is being trained by another process.")
        trial.set_user_attr(_WHERE, _here(folder))  # both behind the lock: see `_revive`
        trial.set_user_attr(_RUN, name)
        try:
            proposed = {**_proposed(trial, space), "versions": versions()}
            config = resolve(proposed, space.title)
            spec = config.data.model_dump_json()
            if spec not in read:
                read[spec] = load_config(config.data)
            watch = _Watch(trial, space.lead, optuna)
            train_config(config, read[spec], Run(path), watch)
            value = _value(Run(path), space.lead)
            study.tell(trial, value)
            ended = f"{space.lead} {value:.4g}"
        except optuna.TrialPruned:
            study.tell(trial, state=state.PRUNED)
            ended = "ended early"
        except Exception as error:
            why = (
                str(error) if isinstance(error, VaelabError) else f"{type(error).__name__}: {error}"
            )
            trial.set_user_attr("why", why)
            study.tell(trial, state=state.FAIL)
            ended = f"failed: {why}"
    settings = ", ".join(f"{key}={value}" for key, value in trial.params.items())
    say(f"trial {trial.number}: {ended} ({settings})")


def _proposed(trial: Any, space: SpaceConfig) -> dict[str, Any]:
    values = dict(space.base)
    for key, where in space.space.items():
        chosen = _suggest(trial, key, where)
        for part in reversed(key.split(".")):
            chosen = {part: chosen}
        values = merge(values, chosen)
    return values


def _suggest(trial: Any, key: str, where: Range | list[Any]) -> Any:
    if isinstance(where, list):  # a list of widths is no value that a storage can hold
        texts = [json.dumps(value) for value in where]
        return json.loads(trial.suggest_categorical(key, texts))
    whole = isinstance(where.low, int) and isinstance(where.high, int)
    suggest = trial.suggest_int if whole else trial.suggest_float
    return suggest(key, where.low, where.high, log=where.log)


class _Watch(Silent):
    """Reports each epoch's validation figure, and ends a trial that is worse than most."""

    def __init__(self, trial: Any, lead: str, optuna: Any) -> None:
        self.trial, self.lead, self.optuna = trial, lead, optuna

    def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Report; raises `TrialPruned`."""
        if self.lead not in figures:
            raise ConfigError(
                f"lead: training has no figure {self.lead!r}; it has {', '.join(sorted(figures))}."
            )
        if not math.isfinite(figures[self.lead]):
            return
        self.trial.report(figures[self.lead], epoch)
        if self.trial.should_prune():
            raise self.optuna.TrialPruned


def _value(run: Run, lead: str) -> float:
    """Return the best validation figure that a run reached."""
    found = [entry.get(f"validation/{lead}") for entry in run.epochs()]
    values = [float(value) for value in found if value is not None]
    if not values:
        raise TrainingError(f"{run}: {lead} was never finite.")
    return min(values) if sense(lead) < 0 else max(values)


def _best(study: Any, optuna: Any, space: SpaceConfig, folder: Path) -> Best:
    trials = _own(study)
    state = optuna.trial.TrialState
    counts = {
        s: sum(t.state == s for t in trials) for s in (state.COMPLETE, state.PRUNED, state.FAIL)
    }
    if not counts[state.COMPLETE]:
        why = next(
            (t.user_attrs["why"] for t in trials if "why" in t.user_attrs), "all were pruned"
        )
        raise ConfigError(f"tune: no trial was finished. The first reason: {why}")
    best = study.best_trial
    run = Run(_place(folder, _name(best)))
    config = resolve(_proposed(optuna.trial.FixedTrial(best.params), space), space.title)
    files.write_yaml(folder / "best.yaml", config.model_dump(mode="json", exclude={"versions"}))
    return Best(
        float(best.value),
        config,
        run,
        counts[state.COMPLETE],
        counts[state.PRUNED],
        counts[state.FAIL],
    )
