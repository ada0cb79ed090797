"""What generated images gain a classifier, at each number of labels, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from vaelab.evaluation.classification import uneven
from vaelab.evaluation.figures import rounded, short_name
from vaelab.studies.arms import LEADS, ArmName, Mix
from vaelab.studies.plan import Case
from vaelab.studies.results import Results
from vaelab.studies.statistics import Estimate, differences, means

HONEST: tuple[ArmName, ...] = ("generated", "semi", "only", "both")
"""Arms with generated images for which no label beyond the fraction was used."""


@dataclass(frozen=True)
class Level:
    """All arms at one share of labels.

    Arguments:
        fraction: the share.
        labels: how many these are; None before any run is measured.
        classes: of the images.
        even: whether these have about as many images each.
        cases: the arms, by key.
        accuracy: of each, plain or balanced, per cent, as far as it is measured.
        gains: differences between arms at the same seeds, percentage points.
    """

    fraction: float
    labels: int | None
    classes: int
    even: bool
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
        if not self.even:
            return f"{self.labels:,} labels of {self.classes} classes"
        each = self.labels / self.classes
        share = f"{each:.3g}" if each < 100 else f"{each:,.0f}"
        return f"{self.labels:,} labels ({share} a class)"


def mix_of(case: Case) -> Mix:
    """Return what an arm is trained on."""
    assert case.mix is not None
    return case.mix


def levels(results: Results) -> list[Level]:
    """Return the arms by their number of labels, the smallest first."""
    found: list[Level] = []
    even = not _uneven(results)
    for fraction in sorted({mix_of(case).fraction for case in results.plan.cases}):
        cases = {c.key: c for c in results.plan.cases if mix_of(c).fraction == fraction}
        shares = {key: results.values(case, results.plan.lead) for key, case in cases.items()}
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
        if labels is not None and any(level.labels == labels for level in found):
            continue  # of few images, small shares come to the same labels, and the same runs
        errors = {key: _log_error(by_seed.values()) for key, by_seed in values.items()}
        gains = differences(values, pairs, len(results.plan.pairs), errors) if pairs else {}
        accuracy = means({key: list(by_seed.values()) for key, by_seed in values.items()})
        found.append(Level(fraction, labels, classes, even, cases, accuracy, gains))
    return found


def _log_error(accuracies: Iterable[float]) -> float:
    """Return the logarithm of the mean error, which the variance of an accuracy goes with."""
    errors = [100 - accuracy for accuracy in accuracies]
    return math.log(max(sum(errors) / len(errors), 0.01))


def generators(results: Results) -> list[str]:
    """Return the names of the generators of a study."""
    names = (mix_of(case).generator for case in results.plan.cases)
    return list(dict.fromkeys(name for name in names if name))


def headline(results: Results) -> str:
    """Say where generated images gain more than classical augmentation, if anywhere."""
    arms = {mix_of(case).arm for case in results.plan.cases}
    if not arms & set(HONEST):
        return "No arm of this study has generated images, unless from labels that nobody has."
    over: ArmName = "classical" if "classical" in arms else "real"
    what = "classical augmentation" if over == "classical" else "real images alone"
    wins, compared, found = [], False, levels(results)
    for level in found:
        gains = _honest(level, generators(results), over)
        compared |= any(gain.interval is not None for _, gain in gains)
        better = [(name, gain) for name, gain in gains if gain.decided and gain.value > 0]
        if better:
            name, gain = max(better, key=lambda one: one[1].value)
            wins.append(f"at {level.words} by {_size(gain)} points ({name})")
    if wins:
        return f"Generated images beat {what} {'; '.join(wins)}."
    if not compared:
        why = _open(gain for level in found for gain in level.gains.values())
        return f"Nothing is decided yet. {why or 'That takes two seeds of every arm.'}"
    no = f"At {found[0].words} generated images do not"
    if len(found) > 1:
        no = "At no number of labels do generated images"
    so_far = " so far" if any(map(results.open, results.plan.cases)) else ""
    return f"{no} beat {what} by more than chance could{so_far}."


def _honest(level: Level, names: list[str], over: ArmName) -> list[tuple[str, Estimate]]:
    """Return every arm with made images and no further labels, in words, and what it gains."""
    found = []
    for name in names:
        for arm in HONEST:
            key, gain = level.key(arm, name), level.gain(arm, name, over)
            if key is not None and gain is not None:
                found.append((mix_of(level.cases[key]).name, gain))
    return found


def sentences(results: Results) -> list[str]:
    """Say what every arm gains: by numbers of labels and, of several generators, by generator."""
    found = [level for level in levels(results) if level.key("real") is not None]
    names, unit = generators(results), _unit(results)
    warned = [_UNEVEN] if results.plan.lead == LEADS[0] and _uneven(results) else []
    if len(names) > 1:
        several = [_several(level, names, unit) for level in found]
        decided = any(gain.interval is not None for level in found for gain in level.gains.values())
        each = [_of_generator(name, found) for name in names] if decided else []
        return warned + several + each
    said = warned
    for level in found:
        honest = [_classical(level)] if _classical(level) else []
        leaky: list[str] = []
        for name in names:
            for arm, words in _ARMS.items():
                gain = level.gain(arm, name, "real")
                if gain is not None:
                    parts = leaky if arm == "leaky" else honest
                    parts.append(f"{words.format(name)} {_gain(gain)}")
        points = f" In points: {'; '.join(honest)}." if honest else ""
        said.append(f"{_alone(level, unit)}{points}{_unsure(level)}")
        said += [f"At {level.words}, {part}." for part in leaky]
    return said


_ARMS: dict[ArmName, str] = {
    "generated": "{} images",
    "both": "classical and {} images",
    "semi": "images by {} that saw all images without further labels",
    "only": "{} images alone, in place of the real ones,",
    "leaky": "images by {} that saw all labels (leaky: no one with so few labels has it)",
}


_UNEVEN = (
    "The classes are uneven: of one there are fewer than half as many test images as of another. "
    "So accuracy is mostly about the large ones; --lead balanced_accuracy compares the same runs "
    "with each class counted alike."
)


def _uneven(results: Results) -> bool:
    """Tell whether the classes of the test images are uneven: all runs have the same ones."""
    for run in results.runs:
        if run.evaluation is not None and run.evaluation.confusion:
            return uneven([sum(row) for row in run.evaluation.confusion])
    return False


def _unit(results: Results) -> str:
    """Return what follows an accuracy in a sentence."""
    return "%" if results.plan.lead == LEADS[0] else f"% {short_name(results.plan.lead)}"


def _alone(level: Level, unit: str) -> str:
    key = level.key("real")
    assert key is not None
    base = level.accuracy[key]
    value = rounded(base.value, base.interval)
    return f"At {level.words}, real images alone reach {value} {unit}."


def _classical(level: Level) -> str:
    gain = level.gain("classical", "", "real")
    return "" if gain is None else f"classical augmentation {_gain(gain, one=True)}"


def _unsure(level: Level) -> str:
    why = _open(level.gains.values())
    return f" {why}" if why else ""


def _open(found: Iterable[Estimate]) -> str:
    """Say why a gain has no interval; nothing where each has one."""
    counts = [gain.n for gain in found if gain.interval is None]
    if not counts:
        return ""
    if min(counts) == 1:
        return "One seed is not enough to decide."
    return "The accuracies of the seeds differ too little to tell what chance does."


def _several(level: Level, names: list[str], unit: str) -> str:
    """Say what classical augmentation gains, and the best honest arm with made images."""
    over: ArmName = "real" if level.key("classical") is None else "classical"
    best = max(_honest(level, names, over), key=lambda one: one[1].value, default=None)
    parts = [_alone(level, unit)]
    gain = level.gain("classical", "", "real")
    if gain is not None:
        what = "" if gain.interval is None or gain.decided else ", which is not decided"
        parts.append(f"Classical augmentation: {_signed(gain)} points{what}.")
    if best is not None:
        name, gain = best
        what = "" if gain.interval is None or gain.decided else ", which is not decided"
        against = "classical augmentation" if over == "classical" else "real images"
        parts.append(
            f"The best arm with generated images is {name}: {_signed(gain)} points over "
            f"{against}{what}."
        )
    return f"{' '.join(parts)}{_unsure(level)}"


_ASKED: tuple[tuple[ArmName, ArmName, str], ...] = (
    ("generated", "real", "beside the real images"),
    ("both", "classical", "beside classical augmentation, over that alone"),
    ("semi", "real", "of all images, beside the real ones"),
    ("only", "real", "in place of the real images"),
    ("leaky", "real", "of all labels (leaky)"),
)


def _of_generator(name: str, found: list[Level]) -> str:
    """Say in which arms and at how many labels the images of a generator gain or lose points."""
    parts, rest = [], 0
    for arm, over, words in _ASKED:
        known = [(level, gain) for level in found if (gain := level.gain(arm, name, over))]
        told = [f"{_signed(gain)} at {_labels(level)}" for level, gain in known if gain.decided]
        rest += len(known) - len(told)
        if told:
            parts.append(f"{words}: {', '.join(told)}")
    if not parts:
        return f"{name} images: no gain and no loss is decided at any number of labels."
    end = " Nothing else is decided." if rest else ""
    return f"{name} images, points at numbers of labels; {'; '.join(parts)}.{end}"


def _labels(level: Level) -> str:
    return f"{level.labels:,}" if level.labels else f"{100 * level.fraction:g} %"


def _signed(gain: Estimate) -> str:
    text = rounded(gain.value, gain.interval)
    return text if text.startswith("−") else f"+{text}"


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
