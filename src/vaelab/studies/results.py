"""What the runs of a study gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vaelab.errors import RunError
from vaelab.evaluation import record
from vaelab.evaluation.figures import sense
from vaelab.evaluation.record import Evaluation
from vaelab.files import csv_text
from vaelab.studies.plan import Case, Plan
from vaelab.studies.statistics import Estimate, differences, means
from vaelab.studies.study import Job, Study


@dataclass(frozen=True)
class Result:
    """One run.

    Arguments:
        job: which.
        evaluation: its figures; None if it failed or is not done.
        failure: why it failed, if it did.
        seconds: spent on training.
        parameters: numbers that were trained.
        curve: log entries of the epochs.
    """

    job: Job
    evaluation: Evaluation | None
    failure: str | None
    seconds: float
    parameters: int
    curve: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class Results:
    """All runs of a study, and what follows from them."""

    plan: Plan
    runs: tuple[Result, ...]

    @property
    def baseline(self) -> Case:
        """The case that others are compared with."""
        return self.plan.cases[0]

    def of(self, case: Case) -> list[Result]:
        """Return the measured runs of a case."""
        return [r for r in self.runs if r.job.case is case and r.evaluation is not None]

    def figures(self) -> list[str]:
        """Return the names of all figures that any run has."""
        names: dict[str, None] = {}
        for run in self.runs:
            names |= dict.fromkeys(run.evaluation.figures if run.evaluation else ())
        return list(names)

    def values(self, case: Case, figure: str) -> dict[int, float]:
        """Return a figure of a case, by seed."""
        return {
            run.job.seed: run.evaluation.figures[figure].value
            for run in self.of(case)
            if run.evaluation is not None and figure in run.evaluation.figures
        }

    def means(self, figure: str) -> dict[str, Estimate]:
        """Return a figure of every case that has it, by key: mean and 95 % interval over seeds."""
        values = {case.key: self.values(case, figure) for case in self.plan.cases}
        return means({key: list(found.values()) for key, found in values.items()})

    def compare(
        self, figure: str, pairs: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], Estimate]:
        """Return one − other for pairs of keys, as far as they share a seed; see `differences`."""
        values = {case.key: self.values(case, figure) for case in self.plan.cases}
        return differences(values, pairs)

    def comparisons(self, figure: str) -> dict[tuple[str, str], Estimate]:
        """Return every case against the baseline, and the further pairs of the plan.

        The arms of an augmentation study are compared in the pairs of the plan alone.
        """
        if self.plan.augments:
            return self.compare(figure, self.plan.pairs)
        pairs = [(case.key, self.baseline.key) for case in self.plan.cases[1:]]
        return self.compare(figure, [*pairs, *(p for p in self.plan.pairs if p not in pairs)])

    def open(self, case: Case) -> bool:
        """Whether a case has runs that are not settled."""
        mine = [run for run in self.runs if run.job.case is case]
        return any(run.evaluation is None and run.failure is None for run in mine)


def read_results(study: Study) -> Results:
    """Return what is there so far."""
    plan = study.read_plan()
    return Results(plan, tuple(_read(job) for job in study.jobs(plan)))


def _read(job: Job) -> Result:
    try:
        return _found(job)
    except RunError as error:
        raise RunError(f"{error} To have it trained anew by the study, delete {job.run}.") from None


def _found(job: Job) -> Result:
    failure = job.failure
    if failure is not None or not job.measured:
        return Result(job, None, failure, 0.0, 0, ())
    model = job.run.load()
    epochs = job.run.read_log("epoch")
    return Result(
        job,
        record.read(job.run, job.measured_file),
        None,
        epochs[-1]["seconds"],
        sum(parameter.numel() for parameter in model.parameters()),
        tuple(epochs),
    )


def as_csv(results: Results) -> str:
    """Return every figure of every run as a table: one row each, in a form for other tools."""
    head = ("case", "seed", "figure", "value", "standard error", "unit", "parameters", "seconds")
    rows: list[tuple[object, ...]] = [head]
    for run in results.runs:
        found = run.evaluation.figures if run.evaluation else {}
        for name, figure in found.items():
            numbers = (figure.value, figure.standard_error, figure.unit)
            seconds = round(run.seconds, 2)
            rows.append((run.job.case.name, run.job.seed, name, *numbers, run.parameters, seconds))
    return csv_text(rows)


def best(results: Results, figure: str, cases: Sequence[Case]) -> Case | None:
    """Return the case with the best mean of a figure."""
    found = results.means(figure)
    known = [case for case in cases if case.key in found]
    return max(known, key=lambda case: sense(figure) * found[case.key].value, default=None)
