"""A study is a folder: its plan, one run folder for each case and seed, and its report.

study.yaml             the resolved plan; nothing in it changes once a run was started
runs/CASE/seed-N/      runs, each with its evaluation
report.html            one self-contained page
figures.csv            every figure of every run

There is no list of what is done: a run is done when its evaluation belongs to its weights, so
nothing can be out of step with the runs after a kill.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from vaelab import files
from vaelab.config import Section, explain, parse_config, read_yaml
from vaelab.errors import RunError, as_path
from vaelab.evaluation.record import is_current
from vaelab.studies.arms import Mix
from vaelab.studies.keys import check_key
from vaelab.studies.plan import (
    MAX_CASES,
    MAX_SEEDS,
    Case,
    ExtraName,
    MeasureConfig,
    Plan,
)
from vaelab.training.run import Run


@dataclass(frozen=True)
class Job:
    """One run of a study.

    Arguments:
        case: its case.
        seed: its seed.
        run: its folder.
    """

    case: Case
    seed: int
    run: Run

    def __str__(self) -> str:
        return f"{self.case.name}, seed {self.seed}"

    @property
    def failure(self) -> str | None:
        """Why it failed, if it did."""
        path = self._failure_file
        return files.read_text(path, "why") if path.exists() else None

    @property
    def measured_file(self) -> Path:
        """The study's own figures, which nothing but a study writes."""
        return self.run.path / "measured.json"

    @property
    def origin_file(self) -> Path:
        """Which images an arm of an augmentation study had its training set from."""
        return self.run.path / "origin.json"

    @property
    def measured(self) -> bool:
        """Whether it is trained to the end and measured: only then its figures are written."""
        return is_current(self.run, self.measured_file)

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to do."""
        return self.measured or self._failure_file.exists()

    @property
    def _failure_file(self) -> Path:
        return self.run.path / "failure.json"

    def fail(self, why: str) -> None:
        """Keep why it failed."""
        files.write_json(self._failure_file, {"why": why})

    def retry(self) -> None:
        """Forget a failure."""
        self._failure_file.unlink(missing_ok=True)

    @contextmanager
    def claimed(self) -> Iterator[bool]:
        """Hold the job against other workers; yields False when another one has it."""
        with files.locked(self.run.path / ".claim") as mine:
            yield mine


class Study:
    """The folder of a study. Opening it reads nothing."""

    def __init__(self, path: Path | str) -> None:
        self.path = as_path("study", path)
        self.plan_file = self.path / "study.yaml"
        self.report_file = self.path / "report.html"
        self.csv_file = self.path / "figures.csv"
        self.summary_file = self.path / "summary.md"

    def __str__(self) -> str:
        return str(self.path)

    def begin(self, plan: Plan) -> None:
        """Write the plan, or go on with a study of the same one.

        Cases and seeds may be added to a study; nothing that its runs depend on may change.

        Raises:
            RunError: the folder holds another study.
        """
        if self.plan_file.exists():
            self._check_same(self.read_plan(), plan)
        files.write_yaml(self.plan_file, _dump(plan))

    def _check_same(self, old: Plan, new: Plan) -> None:
        configs = {case.key: case.config for case in new.cases}
        mixes = {case.key: _unversioned(case.mix) for case in new.cases}
        for case in old.cases:
            if case.key not in configs:
                raise RunError(f"{self}: holds another study, with a case {case.name!r}. {_OTHER}")
            one, other = (
                c.model_copy(update={"versions": {}}) for c in (case.config, configs[case.key])
            )
            if one != other or _unversioned(case.mix) != mixes[case.key]:
                raise RunError(f"{self}: the case {case.name!r} has other settings there. {_OTHER}")
        if old.measure != new.measure:
            raise RunError(f"{self}: its runs are measured in another way. {_OTHER}")
        if set(old.seeds) - set(new.seeds):
            raise RunError(f"{self}: has {len(old.seeds)} seeds already. {_OTHER}")

    def read_plan(self) -> Plan:
        """Return the plan; raises `RunError` when there is none or it was changed."""
        if not self.plan_file.exists():
            raise RunError(f"{self}: is no study (no study.yaml). Start one: vaelab study networks")
        files.check_yaml(self.plan_file)
        return _parse(read_yaml(self.plan_file), self.plan_file)

    def place(self, *names: str) -> Path:
        """Return what lies in the folder; raises `RunError` where links lead out of it."""
        return files.inside(self.path, self.path.joinpath(*names))

    def jobs(self, plan: Plan) -> list[Job]:
        """Return every run, all cases with the first seed before any with the second."""
        return [
            Job(case, seed, Run(self.place("runs", case.key, f"seed-{seed}")))
            for seed in plan.seeds
            for case in plan.cases
        ]


def _unversioned(mix: Mix | None) -> Mix | None:
    if mix is None:
        return None
    return mix.model_copy(update={"train": {**mix.train, "versions": {}}})


_OTHER = "Go on with that one by naming its folder alone, or choose another --out."


def _dump(plan: Plan) -> dict[str, Any]:
    return {
        "title": plan.title,
        "question": plan.question,
        "lead": plan.lead,
        "seeds": list(plan.seeds),
        "measure": plan.measure.model_dump(mode="json"),
        "extras": list(plan.extras),
        "pairs": [list(pair) for pair in plan.pairs],
        "cases": [
            {
                "key": case.key,
                "name": case.name,
                "config": case.config.model_dump(mode="json"),
                **({} if case.mix is None else {"mix": case.mix.model_dump(mode="json")}),
            }
            for case in plan.cases
        ],
    }


class _Case(Section):
    """A case as ``study.yaml`` holds it."""

    key: Annotated[str, AfterValidator(check_key)]
    name: str = Field(max_length=10_000)
    config: dict[str, Any]
    mix: Mix | None = None


class _Plan(Section):
    """What ``study.yaml`` holds."""

    title: str
    question: str
    lead: str
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(min_length=1, max_length=MAX_SEEDS)
    measure: MeasureConfig
    extras: list[ExtraName]
    pairs: list[tuple[str, str]]
    cases: list[_Case] = Field(min_length=1, max_length=MAX_CASES)


def _parse(values: dict[str, Any], path: Path) -> Plan:
    where = str(path)
    try:
        plan = _Plan.model_validate(values)
    except ValidationError as error:
        raise RunError(f"{explain(error, _Plan, where)} Start another study.") from None
    keys = [case.key for case in plan.cases]
    strangers = {key for pair in plan.pairs for key in pair} - set(keys)
    if len(set(keys)) < len(keys) or len(set(plan.seeds)) < len(plan.seeds) or strangers:
        raise files.damaged(path, "a case or seed is there twice, or a pair names none")
    cases = tuple(
        Case(case.key, case.name, parse_config(case.config, where), case.mix) for case in plan.cases
    )
    found = (tuple(plan.extras), cases, tuple(plan.pairs), tuple(plan.seeds))
    return Plan(plan.title, plan.question, plan.lead, plan.measure, *found)
