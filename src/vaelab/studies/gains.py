"""What generated images gain a classifier, at each number of labels, in plain sentences."""

from __future__ import annotations

from dataclasses import dataclass

from vaelab.evaluation.figures import rounded
from vaelab.studies.arms import ArmName, Mix
from vaelab.studies.plan import Case
from vaelab.studies.results import Results
from vaelab.studies.statistics import Estimate, blocked, means

HONEST: tuple[ArmName, ...] = ("generated", "semi", "only", "both")
"""Arms with generated images for which no label beyond the fraction was used."""


@dataclass(frozen=True)
class Level:
    """All arms at one share of labels.

    Arguments:
        fraction: the share.
        labels: how many these are; None before any run is measured.
        classes: of the images.
        cases: the arms, by key.
        accuracy: of each, per cent, as far as it is measured.
        gains: differences between arms at the same seeds, percentage points.
    """

    fraction: float
    labels: int | None
    classes: int
    cases: dict[str, Case]
    accuracy: dict[str, Estimate]
    gains: dict[tuple[str, str], Estimate]

    def key(self, arm: ArmName, generator: str = "") -> str | None:
        """Return the key of an arm, if it is measured."""
        for key, case in self.cases.items():
            assert case.mix is not None
            if case.mix.arm == arm and case.mix.generator == generator and key in self.accuracy:
                return key
        return None

    def gain(self, arm: ArmName, generator: str, over: ArmName) -> Estimate | None:
        """Return what an arm gains over one without generated images."""
        one, other = self.key(arm, generator), self.key(over)
        if one is None or other is None:
            return None
        return self.gains.get((one, other))

    @property
    def words(self) -> str:
        """How many labels there are, in words."""
        if self.labels is None:
            return f"{100 * self.fraction:g} % of the labels"
        each = self.labels / self.classes
        share = f"{each:.3g}" if each < 100 else f"{each:,.0f}"
        return f"{self.labels:,} labels ({share} a class)"


def mix_of(case: Case) -> Mix:
    """Return what an arm is trained on."""
    assert case.mix is not None
    return case.mix


def levels(results: Results) -> list[Level]:
    """Return the arms by their share of labels, the smallest first."""
    found = []
    for fraction in sorted({mix_of(case).fraction for case in results.plan.cases}):
        cases = {c.key: c for c in results.plan.cases if mix_of(c).fraction == fraction}
        shares = {key: results.values(case, "accuracy") for key, case in cases.items()}
        values = {
            key: {seed: 100 * share for seed, share in by_seed.items()}
            for key, by_seed in shares.items()
            if by_seed
        }
        pairs = [pair for pair in results.plan.pairs if set(pair) <= values.keys()]
        runs = [run for case in cases.values() for run in results.of(case)]
        labels, classes = None, 1
        for run in runs:
            assert run.evaluation is not None
            labels = round(run.evaluation.figures["labels"].value)
            classes = len(run.evaluation.confusion or [0])
        gains = blocked(values, pairs) if pairs else {}
        accuracy = means({key: list(by_seed.values()) for key, by_seed in values.items()})
        found.append(Level(fraction, labels, classes, cases, accuracy, gains))
    return found


def generators(results: Results) -> list[str]:
    """Return the names of the generators of a study."""
    names = (mix_of(case).generator for case in results.plan.cases)
    return list(dict.fromkeys(name for name in names if name))


def headline(results: Results) -> str:
    """Say where generated images gain more than classical augmentation, if anywhere."""
    over: ArmName = "classical"
    if not any(mix_of(case).arm == over for case in results.plan.cases):
        over = "real"
    what = "classical augmentation" if over == "classical" else "real images alone"
    wins, compared = [], 0
    for level in levels(results):
        best: tuple[str, Estimate] | None = None
        for name in generators(results):
            for arm in HONEST:
                gain = level.gain(arm, name, over)
                compared += gain is not None and gain.interval is not None
                if gain is None or not gain.decided or gain.value < 0:
                    continue
                if best is None or gain.value > best[1].value:
                    key = level.key(arm, name)
                    assert key is not None
                    best = mix_of(level.cases[key]).name, gain
        if best is not None:
            wins.append(f"at {level.words} by {_size(best[1])} points ({best[0]})")
    if not compared:
        return "Nothing is decided yet: that takes two seeds of every arm."
    if not wins:
        return (
            f"At no number of labels do generated images beat {what} by more than chance could: "
            "see each generator below."
        )
    return f"Generated images beat {what} {'; '.join(wins)}."


def sentences(results: Results) -> list[str]:
    """Say for each number of labels what every arm gains."""
    said = []
    for level in levels(results):
        real = level.key("real")
        if real is None:
            continue
        base = level.accuracy[real]
        alone = rounded(base.value, base.interval)
        parts = []
        classical = level.gain("classical", "", "real")
        if classical is not None:
            parts.append(f"classical augmentation {_gain(classical, one=True)}")
        for name in generators(results):
            for arm, words in (
                ("generated", f"{name} images"),
                ("both", f"classical and {name} images"),
                ("semi", f"images of a {name} that saw all images without further labels"),
                ("only", f"{name} images alone, in place of the real ones,"),
            ):
                gain = level.gain(arm, name, "real")  # type: ignore[arg-type]
                if gain is not None:
                    parts.append(f"{words} {_gain(gain)}")
        text = f"At {level.words}, real images alone reach {alone} %. In points: "
        alike = [gain for gain in level.gains.values() if gain.interval is None]
        unsure = " One seed is not enough to decide." if alike else ""
        said.append(text + "; ".join(parts) + "." + unsure)
        for name in generators(results):
            leaky = level.gain("leaky", name, "real")
            if leaky is not None:
                said.append(
                    f"At {level.words}, a {name} that was trained with all labels (leaky: no "
                    f"one with so few labels has it) {_gain(leaky, one=True)}."
                )
    return said


def _gain(gain: Estimate, one: bool = False) -> str:
    """Return what happens to the accuracy, decided or not, by ``one`` thing or by several."""
    end = "s" * one
    if gain.interval is None:
        return f"{gain.value:+.2g}".replace("-", "−")
    if not gain.decided:
        return f"change{end} nothing that is decided ({rounded(gain.value, gain.interval)})"
    return f"{'raise' if gain.value > 0 else 'lower'}{end} it by {_size(gain)}"


def _size(gain: Estimate) -> str:
    return rounded(abs(gain.value), gain.interval)
