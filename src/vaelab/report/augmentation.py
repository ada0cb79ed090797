"""The part of a study's page that shows what generated images gain, and how new they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from vaelab.evaluation.figures import rounded
from vaelab.report.cell import Cell
from vaelab.report.extras import Section
from vaelab.report.palette import class_color
from vaelab.report.pictures import Picture
from vaelab.report.plot import Plot
from vaelab.studies.arms import ARMS
from vaelab.studies.gains import Level, levels, mix_of
from vaelab.studies.mixture import PICTURE, key_of
from vaelab.studies.results import Results
from vaelab.studies.statistics import Estimate
from vaelab.studies.study import Study

_SIZE, _ROOM = (560, 400), (52, 16, 14, 42)
_SPREAD = 0.045  # between neighbours at one number of labels, in decades


@dataclass(frozen=True)
class Line:
    """One arm over all numbers of labels.

    Arguments:
        name: as people read it.
        color: of its line and dots.
        leaky: whether its generator had labels that nobody has; it is dashed.
    """

    name: str
    color: str
    leaky: bool


def augmentation_sections(results: Results, study: Study) -> list[Section]:
    """Return the sections that come first on the page of an augmentation study."""
    found = levels(results)
    lines = _lines(results)
    measured = [level for level in found if level.accuracy and level.labels]
    if not measured:
        return []
    return [
        Section(
            "Accuracy against labels",
            ((_accuracy(measured, lines), ""), (_gained(measured, lines), "")),
            "Left: mean over seeds with its 95 % interval. Right: what each arm gains over real "
            "images alone with the same labels and the same initial weights; these intervals hold "
            "all at once for one number of labels, and where they leave out 0 the gain is decided. "
            "Arms are drawn a little beside each other.",
            tuple((line.name, line.color, line.leaky) for line in lines.values()),
        ),
        _made(results, study),
    ]


def accuracy_table(results: Results) -> dict[str, Any]:
    """Return the heads and rows of a table of accuracies, arms by numbers of labels."""
    found = levels(results)
    heads = [
        (f"{level.labels:,} labels" if level.labels else f"{100 * level.fraction:g} %", "%")
        for level in found
    ]
    rows = []
    for name in _lines(results):
        cells, runs = [], 0
        for level in found:
            key = _key(level, name)
            if key is None:
                cells.append(Cell("–", ""))
                continue
            value = level.accuracy[key]
            honest = [v.value for k, v in level.accuracy.items() if not _leaky(level, k)]
            best = bool(honest) and value.value == max(honest)
            text = rounded(value.value, value.interval).replace(" ± ", "\u00a0±\u00a0")
            cells.append(Cell(text, repr(value.value), best))
            runs += value.n
        rows.append((name, runs, cells))
    return {"heads": heads, "rows": rows}


def _leaky(level: Level, key: str) -> bool:
    return mix_of(level.cases[key]).arm == "leaky"


def _lines(results: Results) -> dict[str, Line]:
    """Return the arms in their order, by name."""
    names: dict[str, bool] = {}
    for case in results.plan.cases:
        mix = mix_of(case)
        names.setdefault(mix.name, mix.arm == "leaky")
    return {
        name: Line(name, class_color(number), leaky)
        for number, (name, leaky) in enumerate(names.items())
    }


def _key(level: Level, name: str) -> str | None:
    for key, case in level.cases.items():
        if mix_of(case).name == name and key in level.accuracy:
            return key
    return None


def _accuracy(found: Sequence[Level], lines: Mapping[str, Line]) -> Markup:
    values = {
        name: [(level, level.accuracy[key]) for level in found if (key := _key(level, name))]
        for name in lines
    }
    return _plot(found, lines, values, "accuracy on test images, %", "accuracy")


def _gained(found: Sequence[Level], lines: Mapping[str, Line]) -> Markup:
    values: dict[str, list[tuple[Level, Estimate]]] = {}
    for name in lines:
        values[name] = []
        for level in found:
            key, real = _key(level, name), level.key("real")
            if key is not None and real is not None and (key, real) in level.gains:
                values[name].append((level, level.gains[key, real]))
    return _plot(found, lines, values, "gain over real images alone, points", "gain", zero=True)


def _plot(
    found: Sequence[Level],
    lines: Mapping[str, Line],
    values: Mapping[str, Sequence[tuple[Level, Estimate]]],
    label: str,
    name: str,
    zero: bool = False,
) -> Markup:
    at = {id(level): math.log10(level.labels or 1) for level in found}
    low, high = min(at.values()) - 0.25, max(at.values()) + 0.25
    ends = [
        e.value + sign * (e.interval or 0.0)
        for row in values.values()
        for _, e in row
        for sign in (-1, 1)
    ]
    ends += [0.0] if zero else []
    bottom, top = min(ends, default=0.0), max(ends, default=1.0)
    room = 0.06 * (top - bottom) or 0.5
    upper = top + room if zero else min(100.0, top + room)
    plot = Plot((low, high), (bottom - room, upper), _SIZE, _ROOM)
    plot.axes("real labels (logarithmic)", label, xticks=sorted(at.values()), log=True)
    if zero:
        plot.line([(low, 0), (high, 0)], "prior")
    drawn = [line for line in lines.values() if values[line.name]]
    for number, line in enumerate(drawn):
        beside = _SPREAD * (number - (len(drawn) - 1) / 2)
        points = [(at[id(level)] + beside, e.value) for level, e in values[line.name]]
        dash = ";stroke-dasharray:5 3" if line.leaky else ""
        plot.line(points, "case", f"stroke:{line.color}{dash}")
        for (x, y), (_, estimate) in zip(points, values[line.name], strict=True):
            if estimate.interval is not None:
                reach = estimate.interval
                plot.line([(x, y - reach), (x, y + reach)], "case", f"stroke:{line.color}")
            plot.circle_filled(x, y, 3.2, line.color)
    arms = ", ".join(line.name for line in drawn)
    return plot.svg(f"{label} by number of real labels, for the arms {arms}.", name)


def _made(results: Results, study: Study) -> Section:
    """Return made images of the first seed beside their nearest training images."""
    panels, shown = [], set()
    for case in results.plan.cases:
        mix = mix_of(case)
        runs = results.of(case)
        if not mix.generator or not runs:
            continue
        key = key_of(mix, runs[0].job.seed)
        path = study.path / "generators" / key / PICTURE
        if key in shown or not path.exists():
            continue
        shown.add(key)
        near = [
            run.evaluation.figures["nearness"].value
            for run in runs
            if run.evaluation is not None and "nearness" in run.evaluation.figures
        ]
        how = {
            "labelled": f"trained on {100 * mix.fraction:g} % of the images alone",
            "images": f"trained on all images, {100 * mix.fraction:g} % of the labels",
            "everything": "trained on all images with all labels (leaky)",
        }[ARMS[mix.arm].sees or "labelled"]
        words = f"{mix.generator} {how}: nearness {sum(near) / max(1, len(near)):.2f}"
        panels.append((_picture(path, words), words))
    return Section(
        "What was made, and how new it is",
        tuple(panels),
        "Made images of the first seed, the first of each class, each with the nearest training "
        "image to its right: what looks like a copy is one. Nearness is the median distance to the "
        "nearest training image, in units of that of new real images: 1 is as far as these, 0 a "
        "copy.",
        roomy=True,
    )


def _picture(path: Path, alt: str) -> Markup:
    with Image.open(path) as image:
        width, height = image.size
    picture = Picture(path.read_bytes(), width, height, alt)
    return Markup('<img class="pixels shrinks" src="{}" alt="{}" width="{}" height="{}">').format(
        picture.uri, picture.alt, picture.width, picture.height
    )
