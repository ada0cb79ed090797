"""What the runs of a study gave."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from vaelab import files
from vaelab.evaluation import record
from vaelab.evaluation.record import Evaluation
from vaelab.studies.plan import Case, Plan
from vaelab.studies.statistics import Estimate, estimates, paired
from vaelab.studies.study import Job, Study

LOWER = frozenset(
    ("distortion", "rate", "bits_per_dim", "mse", "marginal_kl", "frechet", "kernel", "holes",
     "path_length", "path_jump")
)  # fmt: skip
"""Figures of which less is better."""


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
        return estimates(
            {case.key: list(self.values(case, figure).values()) for case in self.plan.cases}
        )

    def differences(self, figure: str) -> dict[tuple[str, str], Estimate]:
        """Return the paired comparisons of a study, of runs with the same seed.

        Each is the mean of one − other. All their intervals hold at once with 95 %.
        """
        cases = {case.key: case for case in self.plan.cases}
        pairs = [(case.key, self.baseline.key) for case in self.plan.cases[1:]]
        pairs += [pair for pair in self.plan.pairs if pair not in pairs]
        gaps = {
            f"{one} {other}": paired(
                self.values(cases[one], figure), self.values(cases[other], figure)
            )
            for one, other in pairs
        }
        found = estimates(gaps, at_once=max(1, len(gaps)))
        return {
            (one, other): found[f"{one} {other}"]
            for one, other in pairs
            if f"{one} {other}" in found
        }


def read_results(study: Study) -> Results:
    """Return what is there so far."""
    plan = study.read_plan()
    return Results(plan, tuple(_read(job) for job in study.jobs(plan)))


def _read(job: Job) -> Result:
    failure = job.failure
    if failure is not None or not job.measured:
        return Result(job, None, failure, 0.0, 0, ())
    tensors, _ = files.load_tensors(job.run.model_file)
    epochs = job.run.read_log("epoch")
    return Result(
        job,
        record.read(job.run),
        None,
        epochs[-1]["seconds"],
        sum(tensor.numel() for tensor in tensors.values()),
        tuple(epochs),
    )


def as_csv(results: Results) -> str:
    """Return every figure of every run as a table: one row each, in a form for other tools."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ("case", "seed", "figure", "value", "standard error", "unit", "parameters", "seconds")
    )
    for run in results.runs:
        if run.evaluation is None:
            continue
        for name, figure in run.evaluation.figures.items():
            table.writerow(
                (
                    run.job.case.name,
                    run.job.seed,
                    name,
                    figure.value,
                    "" if figure.standard_error is None else figure.standard_error,
                    figure.unit,
                    run.parameters,
                    round(run.seconds, 2),
                )
            )
    return text.getvalue()


def best(results: Results, figure: str, cases: Sequence[Case]) -> Case | None:
    """Return the case with the best mean of a figure."""
    means = results.means(figure)
    sign = -1 if figure in LOWER else 1
    known = [case for case in cases if case.key in means]
    return max(known, key=lambda case: sign * means[case.key].value, default=None)
