"""What a study is: a list (or grid) of run configurations, times seeds, as plain YAML.

    title: Learning rates
    base: {data: {spec: photos/}, training: {epochs: 10}}
    cases:
      - name: slow
        set: {training: {lr: 0.0001}}
      - name: fast
        set: {training: {lr: 0.01}}

Every case is the base with its own settings laid upon it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from vaelab.config import (
    Count,
    Draws,
    Positive,
    RunConfig,
    Section,
    explain,
    merge,
    read_yaml,
)
from vaelab.errors import ConfigError
from vaelab.evaluation.figures import check_lead
from vaelab.recipes import find_recipe
from vaelab.studies.arms import (
    LEADS,
    AugmentationConfig,
    Mix,
    check_classifier,
    expand,
    pairs,
)
from vaelab.studies.keys import slug
from vaelab.studies.varied import SCALE, chosen_by_images, varied

MAX_SEEDS, MAX_CASES, MAX_RUNS = 1_000, 10_000, 100_000

MeasureName = Literal["generation", "neighbours", "paths", "bounds", "attributes", "recognized"]
ExtraName = Literal["pools", "surfaces", "knee"]


class CaseConfig(Section):
    """One configuration under comparison."""

    name: str = Field(min_length=1, description="short, in plain words")
    like: str | None = Field(None, description="the case whose settings this one starts from")
    set: dict[str, Any] = Field({}, description="settings laid upon it, section by section")
    scale: dict[str, Positive] = Field(
        {}, description="setting (such as training.lr) to what its value, then, is multiplied by"
    )


class MeasureConfig(Section):
    """What is measured of every run, beside likelihood and reconstruction."""

    also: list[MeasureName] = Field(["neighbours"], description="further measures")
    samples: Draws | None = Field(None, description="K of the importance-weighted bound")
    bound_images: Count | None = Field(None, description="test images that the bound is over")
    limit: Count | None = Field(None, description="test images that everything is over")
    generated: Count = Field(10_000, description="images of a generated set, at most")
    sets: Count = Field(3, description="generated sets of each run")


class StudyConfig(Section):
    """A study as a file declares it."""

    title: str
    question: str = Field("", description="what the study is to answer, in a sentence")
    base: dict[str, Any] = Field({}, description="settings of every case, section by section")
    by_images: bool = Field(
        False,
        description="settings that the base does not name are chosen by the images, as `vaelab "
        "train` chooses them; cases vary what was chosen",
    )
    cases: list[CaseConfig] = Field([], description="what is compared")
    grid: dict[str, list[Any]] = Field(
        {}, description="setting (such as training.lr) to the values whose product are the cases"
    )
    baseline: str | None = Field(None, description="what others are compared with; the first case")
    compare: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        [], description="further pairs of cases to compare"
    )
    augmentation: AugmentationConfig | None = Field(
        None, description="arms of classifiers in place of cases: see `vaelab.studies.arms`"
    )
    extras: list[ExtraName] = Field(
        [],
        description="further pictures: samples by class, paths of the optimizers, rate-distortion",
    )
    lead: str = Field("elbo", description="the figure that comparisons are about")
    seeds: Annotated[int, Field(ge=1, le=MAX_SEEDS)] = 3
    measure: MeasureConfig = MeasureConfig()
    presets: dict[str, dict[str, Any]] = Field(
        {}, description="name to values laid upon all of this; `cases` by name"
    )


@dataclass(frozen=True)
class Case:
    """One case, resolved.

    Arguments:
        key: name of its folder, unique in the study.
        name: as people read it.
        config: of its runs, but for the seed.
        mix: what its training images are, where they are not those of the data.
    """

    key: str
    name: str
    config: RunConfig
    mix: Mix | None = None


@dataclass(frozen=True)
class Plan:
    """A study, resolved: everything that decides its figures.

    Arguments:
        title, question, lead, measure, extras: as in `StudyConfig`.
        cases: the first is the baseline.
        pairs: further pairs of keys to compare.
        seeds: every case is trained with each of them.
    """

    title: str
    question: str
    lead: str
    measure: MeasureConfig
    extras: tuple[ExtraName, ...]
    cases: tuple[Case, ...]
    pairs: tuple[tuple[str, str], ...]
    seeds: tuple[int, ...]

    @property
    def augments(self) -> bool:
        """Whether its cases are the arms of an augmentation study."""
        return any(case.mix is not None for case in self.cases)

    def config(self, case: Case, seed: int) -> RunConfig:
        """Return the configuration of one run."""
        training = case.config.training.model_copy(update={"seed": seed})
        return case.config.model_copy(update={"training": training})


def shipped() -> list[str]:
    """Return the names of the studies in the package."""
    folder = files("vaelab") / "presets" / "studies"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.is_file())


def read_study(source: str | Path) -> tuple[dict[str, Any], str]:
    """Return the values of a shipped study or of a YAML file, and where they are from.

    Raises:
        ConfigError: there is none of that name, or it cannot be read.
    """
    if str(source) in shipped():
        from importlib.resources import as_file

        with as_file(files("vaelab") / "presets" / "studies" / f"{source}.yaml") as path:
            return read_yaml(path), f"study {source}"
    path = Path(source)
    if not path.is_file():
        raise ConfigError(
            f"study {str(source)!r}: is no file, and none that comes with vaelab "
            f"({', '.join(shipped())})."
        )
    return read_yaml(path), str(path)


def make_plan(
    values: Mapping[str, Any],
    where: str,
    *,
    preset: str | None = None,
    seeds: int | None = None,
    base: Mapping[str, Any] | None = None,
    fractions: Sequence[float] | None = None,
    generators: Sequence[str] | None = None,
    lead: str | None = None,
) -> Plan:
    """Return the resolved study.

    Arguments:
        values: as in `StudyConfig`.
        where: what an error should name.
        preset: one of its presets.
        seeds: number of seeds, in place of the declared one.
        base: settings laid upon those of every case, such as other data.
        fractions: shares of the labels of an augmentation study, in place of the declared ones.
        generators: those to use of the declared ones, by name.
        lead: the figure that comparisons are about, in place of the declared one.

    Raises:
        ConfigError: an unknown key, case or preset, or a configuration that cannot be.
    """
    _checked(values, where)  # what a preset is laid upon
    laid = _with_preset(dict(values), preset, where)
    study = _checked(_with_arms(laid, fractions, generators, where), where)
    cases = _cases(study, base or {}, where)
    names = [case.name for case in cases]
    first = study.baseline or names[0]
    wanted = [first, *(name for pair in study.compare for name in pair)]
    for name in wanted:
        if name not in names:
            raise ConfigError(f"{where}: no case is called {name!r}. Cases: {', '.join(names)}.")
    for one, other in study.compare:
        if one == other:
            raise ConfigError(f"{where}: compare: {one!r} cannot be compared with itself.")
    ordered = sorted(cases, key=lambda case: case.name != first)
    keys = {case.name: case.key for case in cases}
    compared = [(keys[one], keys[other]) for one, other in study.compare]
    compared += pairs({case.key: case.mix for case in cases if case.mix is not None})
    declared = study.lead
    if study.augmentation is not None and "lead" not in study.model_fields_set:
        declared = LEADS[0]
    count = seeds or study.seeds
    if count > MAX_SEEDS or count * len(ordered) > MAX_RUNS:
        raise ConfigError(
            f"{where}: {len(ordered):,} cases with {count:,} seeds each; {MAX_SEEDS:,} seeds and "
            f"{MAX_RUNS:,} runs are the most. Take fewer."
        )
    plan = Plan(
        study.title,
        study.question,
        declared,
        study.measure,
        tuple(study.extras),
        tuple(ordered),
        tuple(compared),
        tuple(range(count)),
    )
    return with_lead(plan, lead or declared, where)


def with_lead(plan: Plan, lead: str, where: str) -> Plan:
    """Return a study whose comparisons are about a figure; its runs are the same.

    Raises:
        ConfigError: the figure does not tell better from worse, or is none of such a study.
    """
    if plan.augments and lead not in LEADS:
        raise ConfigError(f"{where}: lead: an augmentation study is about {' or '.join(LEADS)}.")
    check_lead(lead, where)
    return replace(plan, lead=lead)


def _checked(values: Mapping[str, Any], where: str) -> StudyConfig:
    try:
        return StudyConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, StudyConfig, where)) from None


def _with_arms(
    values: dict[str, Any],
    fractions: Sequence[float] | None,
    generators: Sequence[str] | None,
    where: str,
) -> dict[str, Any]:
    """Lay what a caller chose upon the arms of an augmentation study."""
    chosen = {"fractions": fractions, "use": generators}
    over = {key: list(value) for key, value in chosen.items() if value is not None}
    if over and "augmentation" not in values:
        raise ConfigError(f"{where}: has no augmentation, and so no fractions or generators.")
    return merge(values, {"augmentation": over}) if over else values


def _with_preset(values: dict[str, Any], preset: str | None, where: str) -> dict[str, Any]:
    """Lay a preset upon the declared values; its cases are laid upon those of the same name."""
    presets = values.get("presets", {})
    if preset is None:
        return values
    if not isinstance(presets, Mapping) or preset not in presets:
        raise ConfigError(
            f"{where}: no preset is called {preset!r}. Presets: {', '.join(presets) or 'none'}."
        )
    over = dict(presets[preset])
    changed = over.pop("cases", {})
    if not isinstance(changed, Mapping):
        raise ConfigError(
            f"{where}: preset {preset}: cases: give settings by the name of the case."
        )
    merged = merge(values, over)
    known = [case.get("name") for case in merged.get("cases", [])]
    for name in changed:
        if name not in known:
            raise ConfigError(f"{where}: preset {preset}: no case is called {name!r}.")
    merged["cases"] = [
        merge(case, {"set": changed.get(case.get("name"), {})}) for case in merged.get("cases", [])
    ]
    return merged


def _cases(study: StudyConfig, base: Mapping[str, Any], where: str) -> list[Case]:
    settings: dict[str, dict[str, Any]] = {}
    for case in study.cases:
        if case.name in settings:
            raise ConfigError(f"{where}: two cases are called {case.name!r}.")
        if case.like is not None and case.like not in settings:
            raise ConfigError(
                f"{where}: {case.name!r} is like {case.like!r}, which is no case before it."
            )
        below = settings[case.like] if case.like is not None else {}
        scale = merge(below.get(SCALE, {}), case.scale)
        settings[case.name] = merge(merge(below, case.set), {SCALE: scale})
    mixes: dict[str, Mix] = {}
    if study.augmentation is not None:
        full = merge(study.base, base)
        for declared in expand(study.augmentation, full, f"{where}: augmentation"):
            settings[declared.name] = declared.settings
            mixes[declared.name] = declared.mix
    if study.grid:
        count = prod(len(values) for values in study.grid.values()) * max(1, len(settings))
        if count > MAX_CASES:
            raise ConfigError(
                f"{where}: grid: has {count:,} cases, and {MAX_CASES:,} are the most. Give fewer "
                "values."
            )
        settings = _grid(settings or {"": {}}, study.grid)
    if not settings:
        raise ConfigError(f"{where}: has no cases. Give `cases`, a `grid`, or both.")
    found: dict[str, Case] = {}
    chosen = chosen_by_images(merge(study.base, base), where) if study.by_images else study.base
    for name, values in settings.items():
        config = varied(chosen, values, base, f"{where}: {name}")
        if study.by_images and config in [case.config for case in found.values()]:
            continue  # it is what was chosen
        if config.preset is not None and not study.by_images:
            raise ConfigError(
                f"{where}: preset: chooses settings by the images, and this study names its own. "
                "Add `by_images: true`, or leave it out."
            )
        if find_recipe(config.recipe).classifies != (name in mixes):
            raise ConfigError(
                f"{where}: {name}: recipe {config.recipe} "
                + ("is no classifier." if name in mixes else "is no VAE.")
            )
        if name in mixes:
            check_classifier(config, f"{where}: {name}")
        key = slug(name)
        while key in found:
            key += "-"
        found[key] = Case(key, name, config, mixes.get(name))
    return list(found.values())


def _grid(
    cases: Mapping[str, dict[str, Any]], grid: Mapping[str, Sequence[Any]]
) -> dict[str, dict[str, Any]]:
    """Return every case with every combination of the values of the grid, named by them."""
    settings = {}
    for (name, below), values in product(cases.items(), product(*grid.values())):
        parts = [name] if name else []
        merged = below
        for key, value in zip(grid, values, strict=True):
            parts.append(f"{key.rpartition('.')[2]} {value}")
            nested: Any = value
            for part in reversed(key.split(".")):
                nested = {part: nested}
            merged = merge(merged, nested)
        settings[", ".join(parts)] = merged
    return settings
