"""Plots of an augmentation study: accuracy and gain of every arm by the number of real labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from vaelab.report.palette import class_color
from vaelab.report.plot import Plot
from vaelab.studies.arms import ARMS, ArmName
from vaelab.studies.gains import Level
from vaelab.studies.statistics import Estimate

Lines = Mapping[ArmName, Sequence[tuple[Level, Estimate]]]
"""Of each arm, its estimates by numbers of labels."""

_SIZE, _ROOM = (560, 400), (52, 16, 14, 42)
_SPREAD = 0.045  # between neighbours at one number of labels, in decades


@dataclass(frozen=True)
class Scale:
    """A vertical axis.

    Arguments:
        label: what it measures.
        place: height of a value.
        marks: values that may be marked on it.
        zero: whether 0 is drawn.
    """

    label: str
    place: Callable[[float], float]
    marks: tuple[float, ...]
    zero: bool = False


ACCURACY = Scale(
    "{} on test images, %",
    lambda accuracy: -math.log10(max(100 - accuracy, 0.01)),
    (20, 40, 60, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 99.98),
)
"""Per cent: errors on a logarithmic scale."""

GAIN = Scale(
    "gain over real images alone, points",
    lambda points: math.asinh(points / 0.3),
    (-50, -20, -5, -2, -0.5, 0, 0.5, 2, 5, 20, 50),
    zero=True,
)
"""Percentage points: linear about 0, and logarithmic far from it."""


def arm_color(arm: ArmName) -> str:
    """Return the colour of an arm, the same for every generator."""
    return class_color(list(ARMS).index(arm))


def arm_plots(
    found: Sequence[Level], arms: Sequence[ArmName], names: Sequence[str], lead: str
) -> list[tuple[Markup, Markup]]:
    """Return accuracy and gain of all arms, for each generator; all on the same axes.

    Arguments:
        found: measured numbers of labels.
        arms: in their order.
        names: of the generators.
        lead: what the accuracy is called.
    """

    def lines(value: Callable[[Level, ArmName, str], Estimate | None]) -> list[Lines]:
        every: list[Lines] = []
        for name in names or [""]:
            of = {arm: name if ARMS[arm].sees else "" for arm in arms}
            every.append(
                {arm: [(lv, e) for lv in found if (e := value(lv, arm, of[arm]))] for arm in arms}
            )
        return every

    accuracies = lines(lambda level, arm, name: level.accuracy.get(level.key(arm, name) or ""))
    gains = lines(lambda level, arm, name: level.gain(arm, name, "real"))
    scale = replace(ACCURACY, label=ACCURACY.label.format(lead))
    return [
        (_plot(found, accuracies, row, scale), _plot(found, gains, row, GAIN))
        for row in range(len(accuracies))
    ]


def _plot(found: Sequence[Level], each: Sequence[Lines], row: int, scale: Scale) -> Markup:
    """Draw the lines of one generator, on axes that hold those of all."""
    at = {id(level): math.log10(level.labels or 1) for level in found}
    xs = sorted(at.values())
    ends = [
        scale.place(e.value + sign * (e.interval or 0.0))
        for lines in each
        for line in lines.values()
        for _, e in line
        for sign in (-1, 1)
    ]
    ends += [0.0] if scale.zero else []
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = 0.06 * (high - low) or 0.5
    bottom, top = low - room, high + room
    plot = Plot((xs[0] - 0.25, xs[-1] + 0.25), (bottom, top), _SIZE, _ROOM)
    marks = {scale.place(m): m for m in scale.marks if bottom <= scale.place(m) <= top}
    plot.axes("real labels (logarithmic)", scale.label, xticks=xs, yticks=marks, log=True)
    if scale.zero:
        plot.line([(plot.x[0], 0), (plot.x[1], 0)], "prior")
    drawn = {arm: line for arm, line in each[row].items() if line}
    step = min((b - a for a, b in itertools.pairwise(xs)), default=1.0)
    spread = min(_SPREAD, 0.8 * step / max(1, len(drawn)))
    for place, (arm, line) in enumerate(drawn.items()):
        beside = spread * (place - (len(drawn) - 1) / 2)
        points = [(at[id(level)] + beside, scale.place(e.value)) for level, e in line]
        color = f"stroke:{arm_color(arm)}"
        plot.line(points, "case", f"{color};stroke-dasharray:5 3" if arm == "leaky" else color)
        for (x, y), (_, e) in zip(points, line, strict=True):
            if e.interval is not None:
                bar = [(x, scale.place(e.value + sign * e.interval)) for sign in (-1, 1)]
                plot.line(bar, "case", color)
            plot.circle_filled(x, y, 3.2, arm_color(arm))
    words = ", ".join(ARMS[arm].named("generator") for arm in drawn)
    name = f"{'gain' if scale.zero else 'accuracy'}-{row}"
    return plot.svg(f"{scale.label} by number of real labels, for the arms {words}.", name)
