"""What a study shows, in plain sentences that claim no more than the data decide."""

from __future__ import annotations

from vaelab.evaluation.figures import rounded, sense
from vaelab.evaluation.generate import WEAK
from vaelab.studies import gains
from vaelab.studies.plan import Case
from vaelab.studies.results import Results, best, owed
from vaelab.studies.statistics import Estimate


def unit(results: Results, figure: str) -> str:
    """Return the unit of a figure in a few letters, after a space; empty if it has none."""
    for run in results.runs:
        if run.evaluation is not None and figure in run.evaluation.figures:
            name = run.evaluation.figures[figure].unit
            if name in ("nats per image", "dB"):
                return f" {name.partition(' per ')[0]}"
            return ""
    return ""


def headline(results: Results) -> str:
    """Say which case is best in the leading figure, or that this is not decided."""
    if results.plan.augments:
        return gains.headline(results)
    lead = results.plan.lead
    winner = best(results, lead, results.plan.cases)
    if winner is None:
        done = any(run.evaluation is not None for run in results.runs)
        return (
            f"No run of this study has the figure {results.called(lead)}."
            if done
            else "No run of this study is measured yet."
        )
    value = results.means(lead)[winner.key]
    figure = f"{results.called(lead)} {amount(value)}{unit(results, lead)}"
    seeds = f"mean over {value.n} seeds" if value.n > 1 else "one seed"
    if value.interval is not None:
        seeds += ", 95 % interval"
    if len(results.plan.cases) == 1:
        return f"{winner.name}: {figure} ({seeds})."
    rivals = not_worse(results, winner)
    if not rivals:
        return f"{_start(winner.name)} is best: {figure} ({seeds})."
    return (
        f"{_start(winner.name)} comes first with {figure} ({seeds}), but the data do not decide "
        f"between it and {_list([case.name for case in rivals])}."
    )


def not_worse(results: Results, winner: Case) -> list[Case]:
    """Return the cases that are not shown to be worse than the winner in the leading figure.

    Those that have no such figure and never will (an autoencoder has no ELBO) are no rivals.
    """
    lead = results.plan.lead
    others = [
        case
        for case in results.plan.cases
        if case is not winner and (results.values(case, lead) or results.open(case))
    ]
    found = results.compare(lead, [(winner.key, case.key) for case in others])
    sign = sense(lead)
    return [
        case
        for case in others
        if (winner.key, case.key) not in found
        or not found[winner.key, case.key].decided
        or sign * found[winner.key, case.key].value < 0
    ]


def comparisons(results: Results) -> list[str]:
    """Say of every comparison in the leading figure what it shows."""
    if results.plan.augments:
        return gains.sentences(results)
    lead = results.plan.lead
    names = {case.key: case.name for case in results.plan.cases}
    sign = sense(lead)
    sentences = []
    for (one, other), gap in results.comparisons(lead).items():
        size = Estimate(abs(gap.value), gap.interval, gap.n)
        by = f"{amount(size)}{unit(results, lead)}"
        if not gap.decided:
            why = "one seed is not enough" if gap.interval is None else "not decided"
            shift = f"{amount(gap)}{unit(results, lead)}"
            sentences.append(
                f"{_start(names[one])} against {names[other]}: {why} (difference {shift})."
            )
        elif sign * gap.value > 0:
            sentences.append(f"{_start(names[one])} beats {names[other]} by {by}.")
        else:
            sentences.append(f"{_start(names[one])} costs {by} against {names[other]}.")
    return sentences


def failures(results: Results) -> list[str]:
    """Say which runs failed or lack the leading figure, what was left out, how many are open."""
    lead = results.plan.lead
    why: dict[str, list[str]] = {}
    for run in results.runs:
        if run.failure is not None:
            why.setdefault(run.failure, []).append(str(run.job))
    said = [f"{'; '.join(jobs)} failed: {failure}" for failure, jobs in why.items()]
    said += [
        f"{run.job} has no {results.called(lead)} and counts in no comparison of it."
        for run in results.runs
        if run.evaluation is not None and lead not in run.evaluation.figures
    ]
    said += owed(results, lead)
    notes = [note for run in results.runs if run.evaluation for note in run.evaluation.notes]
    every = results.plan.augments
    said += dict.fromkeys(
        note for note in notes if every or "left out" in note or note.startswith(WEAK)
    )
    open_ = sum(run.evaluation is None and run.failure is None for run in results.runs)
    if open_:
        said.append(f"{open_} of {len(results.runs)} runs are not done yet.")
    return said


def amount(estimate: Estimate) -> str:
    """Write a mean and its interval."""
    return rounded(estimate.value, estimate.interval)


def _start(name: str) -> str:
    return name[:1].upper() + name[1:]


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
