"""What the runs of a study gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vaelab.errors import RunError
from vaelab.evaluation import record
from vaelab.evaluation.figures import GIVEN, Figure, draws_of, sense, short_name
from vaelab.evaluation.likelihood import LIKELIHOODS
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
        conditions: names of the labels that its likelihood is conditioned on; none of p(x).
    """

    job: Job
    evaluation: Evaluation | None
    failure: str | None
    seconds: float
    parameters: int
    curve: tuple[dict[str, float], ...]
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Results:
    """All runs of a study, and what follows from them."""

    plan: Plan
    runs: tuple[Result, ...]

    @property
    def baseline(self) -> Case:
        """The case that others are compared with."""
        return self.plan.cases[0]

    @property
    def conditional(self) -> bool:
        """Whether every run that has a likelihood is conditioned on labels."""
        known = [run for run in self.runs if run.evaluation and "elbo" in run.evaluation.figures]
        return bool(known) and all(
            run.conditions and "elbo" + GIVEN not in run.evaluation.figures  # it is kept apart
            for run in known
            if run.evaluation
        )

    def called(self, figure: str) -> str:
        """Return the short name of a figure, which says if it is of x given its labels."""
        given = self.conditional and figure in (*LIKELIHOODS, *_ACROSS)
        return short_name(figure + GIVEN if given else figure)

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
    return Results(plan, apart(tuple(_read(job) for job in study.jobs(plan))))


_ACROSS = {"elbo": "elbo_joint", "log_prob": "log_prob_joint"}
"""Figures to those with log p(y), which compare with figures of log p(x)."""


def apart(runs: tuple[Result, ...]) -> tuple[Result, ...]:
    """Keep likelihoods of x given its labels apart from those of x alone, where there are both.

    They get names, and so columns, of their own. In place of the ELBO and of log p(x) stands that
    of log p(x, y), where it is known: log p(y) is what a model that is told y owes.
    """
    known = [run for run in runs if run.evaluation and "elbo" in run.evaluation.figures]
    if len({bool(run.conditions) for run in known}) < 2:
        return runs
    return tuple(_apart(run) if run.conditions else run for run in runs)


def _apart(run: Result) -> Result:
    if run.evaluation is None:
        return run
    figures: dict[str, Figure] = {}
    for name, figure in run.evaluation.figures.items():
        if name in _ACROSS.values():
            continue
        given = name in LIKELIHOODS or draws_of(name) is not None
        if name in _ACROSS and _ACROSS[name] in run.evaluation.figures:
            figures[name] = run.evaluation.figures[_ACROSS[name]]
        figures[name + GIVEN if given else name] = figure
    curve = tuple(
        {key: value for key, value in entry.items() if key not in _CURVES} for entry in run.curve
    )
    return replace(run, evaluation=replace(run.evaluation, figures=figures), curve=curve)


_CURVES = tuple(f"validation/{name}" for name in (*LIKELIHOODS, "loss"))


def owed(results: Results, figure: str) -> list[str]:
    """Say which cases have a figure of x given their labels among others of x alone, and how."""
    said = []
    for case in results.plan.cases:
        run = next((run for run in results.of(case) if run.conditions), None)
        if run is None or run.evaluation is None or figure + GIVEN not in run.evaluation.figures:
            continue
        name, given = short_name(figure), ", ".join(run.conditions)
        if figure in run.evaluation.figures:
            owes = run.evaluation.figures[figure].value - (
                run.evaluation.figures[figure + GIVEN].value
            )
            text = f"{owes:.2f}".replace("-", "−")
            said.append(
                f"{case.name} is conditioned on {given}: its {name} is of log p(x, y), for which "
                f"log p(y) ({text} nats) is added, so that it compares with models of x alone."
            )
        else:
            said.append(
                f"{case.name} is conditioned on {given}: its {name} of x given these has a column "
                "of its own, and is not compared with models of x alone."
            )
    return said


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
    epochs = job.run.epochs()
    return Result(
        job,
        record.read(job.run, job.measured_file),
        None,
        epochs[-1]["seconds"],
        sum(parameter.numel() for parameter in model.parameters()),
        tuple(epochs),
        model.conditions,
    )


def as_csv(results: Results) -> str:
    """Return every figure of every run as a table: one row each, in a form for other tools."""
    head = ("case", "seed", "figure", "value", "standard error", "unit", "parameters", "seconds")
    rows: list[tuple[object, ...]] = [head]
    for run in results.runs:
        found = run.evaluation.figures if run.evaluation else {}
        for name, figure in found.items():
            called = name + GIVEN if figure.given and not name.endswith(GIVEN) else name
            numbers = (figure.value, figure.standard_error, figure.unit)
            seconds = round(run.seconds, 2)
            rows.append(
                (run.job.case.name, run.job.seed, called, *numbers, run.parameters, seconds)
            )
    return csv_text(rows)


def best(results: Results, figure: str, cases: Sequence[Case]) -> Case | None:
    """Return the case with the best mean of a figure."""
    found = results.means(figure)
    known = [case for case in cases if case.key in found]
    return max(known, key=lambda case: sense(figure) * found[case.key].value, default=None)
