"""The plot of a study's leading figure against what it cost, with the front of the best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from vaelab.evaluation.figures import sense
from vaelab.report.palette import class_color
from vaelab.report.plot import Plot, number, shown_range, ticks
from vaelab.studies.results import Results

_LINE = 12  # pixels from one name to the next
_LEAST = 0.3  # decades of time that a plot spans: a few per cent are not worth seeing


def cost_plot(results: Results) -> Markup | None:
    """Return the leading figure against the time of training, with the front of the best."""
    lead = results.plan.lead
    means = results.means(lead)
    points = []
    for index, case in enumerate(results.plan.cases):
        runs = results.of(case)
        if runs and case.key in means:
            spent = sum(run.seconds for run in runs) / len(runs)
            points.append((math.log10(max(spent, 1e-2)), means[case.key], index, case.name))
    if len(points) < 2:
        return None
    sign = sense(lead)
    ends = [
        end
        for _, e, _, _ in points
        for end in (e.value - (e.interval or 0), e.value + (e.interval or 0))
    ]
    low, high = shown_range(ends, sign)
    across = [x for x, *_ in points]
    decades = max(across) - min(across)
    room = max(0.08 * decades, (_LEAST - decades) / 2)
    left = 16 + max(6 * len(number(tick)) for tick in ticks(low, high))
    plot = Plot(
        (min(across) - room, max(across) + room), (low, high), (640, 360), (left, 24, 150, 38)
    )
    marks = [p + math.log10(m) for p in range(-2, 7) for m in (1, 2, 3, 5)]
    marks = [mark for mark in marks if plot.x[0] <= mark <= plot.x[1]]
    if len(marks) < 2:
        marks = [math.log10(t) for t in ticks(10 ** plot.x[0], 10 ** plot.x[1])]
    plot.axes("seconds of training, log scale", xticks=marks, log=True)
    plot.write(4, 13, results.called(lead), "strong")
    front, reached = [], -math.inf
    for x, estimate, _, _ in sorted(points, key=lambda p: (p[0], -sign * p[1].value)):
        if sign * estimate.value > reached:
            reached = sign * estimate.value
            front.append((x, estimate.value))
    steps = [front[0]]
    for x, y in front[1:]:
        steps += [(x, steps[-1][1]), (x, y)]
    plot.line([*steps, (plot.x[1], steps[-1][1])], "reference")
    for x, estimate, index, _ in points:
        if estimate.interval is not None:
            span = [
                (x, estimate.value - estimate.interval),
                (x, estimate.value + estimate.interval),
            ]
            plot.line(span, "case", f"stroke:{class_color(index)}")
        plot.dots([(x, estimate.value)], index, 8)
    _name(plot, [(x, e.value, name) for x, e, _, name in points])
    return plot.svg(f"{results.called(lead)} of {len(points)} cases against seconds.", "pareto")


def _name(plot: Plot, points: Sequence[tuple[float, float, str]]) -> None:
    """Write a name beside each point, from top to bottom in their order, none upon another."""
    places: list[tuple[float, float, float]] = []  # start, height, end
    for x, y, name in sorted(points, key=lambda point: -point[1]):
        px, py = plot.at(x, min(max(y, plot.y[0]), plot.y[1]))
        places.append((px + 8, py + 4, px + 8 + 6.0 * len(name)))
    for down in (True, False):  # away from the names above, then from those below and the axis
        order = range(len(places)) if down else reversed(range(len(places)))
        for i in order:
            start, py, end = places[i]
            near = places[:i] if down else places[i + 1 :]
            heights = [at for left, at, right in near if start < right and left < end]
            if down:
                py = max([py, *(at + _LINE for at in heights)])
            else:
                py = min([py, plot.box[3] - 4, *(at - _LINE for at in heights)])
            places[i] = (start, py, end)
    named = sorted(points, key=lambda point: -point[1])
    for (start, py, _), (*_, name) in zip(places, named, strict=True):
        plot.write(start, py, name, "note halo")
