"""Sections that only some studies have: bounds by draws, samples by class, optimizers' paths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from markupsafe import Markup, escape

from vaelab.data.images import Splits
from vaelab.errors import ConfigError, VaelabError
from vaelab.evaluation.figures import draws_of
from vaelab.evaluation.samplers import find_sampler
from vaelab.explore.grids import grid, png
from vaelab.models.model import seeded
from vaelab.report.palette import class_color
from vaelab.report.pictures import Picture, reduced
from vaelab.report.plot import Plot
from vaelab.studies.knee import knee
from vaelab.studies.plan import Case
from vaelab.studies.results import Result, Results
from vaelab.studies.surfaces import Surface, plane, valley

Data = Callable[[Case], Splits]
_CLASSES, _EACH = 10, 8
_BOUNDS, _ROOM = (300, 200), (40, 8, 8, 38)


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Arguments:
        title: its heading.
        panels: figures with a caption each.
        text: what to see in them.
        legend: name, colour and whether it is dashed of each line.
        roomy: whether panels stay wide however many there are.
    """

    title: str
    panels: tuple[tuple[Markup, str], ...]
    text: str
    legend: tuple[tuple[str, str, bool], ...] = ()
    roomy: bool = False


def extra_sections(results: Results, data: Data) -> list[Section]:
    """Return the sections that the study asks for, as far as its runs are there."""
    makers = {"pools": _pools, "surfaces": _surfaces, "knee": _rate_distortion}
    sections: list[Section] = []
    for name in results.plan.extras:
        try:
            sections += makers[name](results, data)
        except VaelabError as error:
            sections.append(Section(name.capitalize(), (), f"Left out: {error}"))
    return sections + _bounds(results)


def _bounds(results: Results) -> list[Section]:
    """Return for each case how far its bounds lie below the tightest, by their draws."""
    named = bounds_of(results.figures())
    if len(named) < 2:
        return []
    means = {name: results.means(name) for name in [*named, "exact_log_prob"]}
    lines: dict[str, list[tuple[float, float]]] = {}
    for case in results.plan.cases:
        if any(case.key not in means[name] for name in named):
            continue
        top = means["exact_log_prob"].get(case.key) or means[named[-1]][case.key]
        lines[case.key] = [
            (math.log10(_draws(name)), means[name][case.key].value - top.value) for name in named
        ]
    values = [y for line in lines.values() for _, y in line]
    if not values:
        return []
    low, high = min(*values, -0.1), max(*values, 0.0)
    room = 0.08 * (high - low)
    panels = []
    for index, case in enumerate(results.plan.cases):
        if case.key not in lines:
            continue
        plot = Plot((-0.1, lines[case.key][-1][0] + 0.1), (low - room, high + room), _BOUNDS, _ROOM)
        plot.axes("draws", xticks=[x for x, _ in lines[case.key]], log=True)
        plot.line(lines[case.key], "case", f"stroke:{class_color(index)}")
        plot.dots(lines[case.key], index, 6)
        panels.append((plot.svg(f"Bounds of {case.name}.", f"bounds-{index}"), case.name))
    text = (
        f"Nats below the bound of {_draws(named[-1]):,} draws or, where there is one, below the "
        "exact log p(x); mean over seeds. At one draw it is the ELBO, and the distance is "
        "KL(q(z|x) ‖ p(z|x)), as far as the tightest bound is tight."
    )
    return [Section("Bounds by draws", tuple(panels), text)]


def bounds_of(figures: Iterable[str]) -> list[str]:
    """Return those figures that are importance-weighted bounds, from few draws to many."""
    return sorted(filter(draws_of, figures), key=_draws)


def _draws(bound: str) -> int:
    return draws_of(bound) or 1


def _pools(results: Results, data: Data) -> list[Section]:
    """Return for each case draws from the codes of each class."""
    panels = []
    for case in results.plan.cases:
        runs, splits = results.of(case), data(case)
        if not runs or not splits.train.class_names:
            continue
        model = runs[0].job.run.load_model()
        rows = []
        for label in range(min(_CLASSES, len(splits.train.class_names))):
            try:
                sampler = find_sampler("pool", model, splits.train, label=label)
            except ConfigError:  # too few images of a class
                continue
            with seeded(label, model.device):
                rows.append(sampler.images(_EACH))
        if not rows:
            continue
        pixels = png(grid(reduced(torch.cat(rows)), _EACH))
        height = len(rows) * (rows[0].shape[-2] + 2)
        picture = Picture(
            pixels, _EACH * (rows[0].shape[-1] + 2), height, f"draws by class, {case.name}"
        )
        image = Markup('<img class="pixels" src="{}" alt="{}" width="{}">').format(
            picture.uri, picture.alt, picture.width
        )
        panels.append((image, case.name))
    text = (
        "A row for each class: codes of its training images, drawn by chance and decoded. "
        "Codes of a VAE are draws from q(z|x); codes of an autoencoder are blurred by a kernel."
    )
    return [Section("Latent pools by class", tuple(panels), text)] if panels else []


def _surfaces(results: Results, data: Data) -> list[Section]:
    """Return the paths of the optimizers over the valley and over the VAE's own loss."""
    cases = [case for case in results.plan.cases if case.config.training.optimizer != "muon"]
    methods = {case.name: case.config.training for case in cases}
    left_out = len(cases) < len(results.plan.cases)
    without = " Muon is left out: it steps along matrices, not along coordinates." * left_out
    surfaces = {"a valley": valley(methods)}
    both = _comparable(results)
    if both is not None:
        surfaces["the loss of the VAE"] = plane(*both, methods, data(both[0].job.case))
    text = {
        "a valley": "Plain descent zigzags across the valley and creeps along it. Momentum adds up "
        "what successive gradients agree on, and overshoots; Nesterov looks ahead and overshoots "
        "less; RMSprop and Adam take steps of about the same length in every direction. "
    }
    return [
        Section(
            f"Paths of the optimizers: {what}",
            tuple(
                (_draw(surface, case.name, index, number), case.name)
                for index, case in enumerate(cases)
            ),
            text.get(what, "") + surface.about + without,
        )
        for number, (what, surface) in enumerate(surfaces.items())
    ]


def _comparable(results: Results) -> tuple[Result, Result] | None:
    """Return runs of the first case and of another with the same start and images, or None."""
    for one in results.of(results.baseline):
        for case in results.plan.cases[1:]:
            for other in results.of(case):
                if other.job.seed == one.job.seed and _start(other) == _start(one):
                    return one, other
    return None


def _start(run: Result) -> tuple[object, ...]:
    """Return what decides the weights before the first step, and the loss."""
    config = run.job.case.config
    return config.recipe, config.options, config.model, config.data


def _draw(surface: Surface, name: str, index: int, number: int) -> Markup:
    """Return the path of one method over a surface."""
    x, y = surface.x.tolist(), surface.y.tolist()
    plot = Plot((x[0], x[-1]), (y[0], y[-1]), (300, 220), (40, 8, 8, 22))
    for line in _contours(surface):
        plot.line(line, "rule")
    plot.axes("", frame=True)
    points = [p for p in surface.paths.get(name, []) if all(map(math.isfinite, p))]
    if points:
        plot.line(points, "case", f"stroke:{class_color(index)}")
        plot.dots([points[-1]], index, 6)
    for mark, (a, b) in surface.marks.items():
        plot.text(a, b, "✕", "strong halo middle", (0, 4))
        plot.text(a, b, mark, "note halo middle", (0, -8))
    return plot.svg(f"Path of {name}.", f"surface-{number}-{index}")


def _contours(surface: Surface) -> list[list[tuple[float, float]]]:
    from matplotlib.figure import Figure

    low = float(surface.loss.min())
    spread = float(surface.loss.nan_to_num(posinf=low).quantile(0.9)) - low
    levels = [low + spread * (k / 12) ** 2 for k in range(1, 16)]
    x, y = surface.x.tolist(), surface.y.tolist()
    found = Figure().add_subplot().contour(x, y, surface.loss.numpy(), levels)
    return [line.tolist() for lines in found.allsegs for line in lines]


def _rate_distortion(results: Results, data: Data) -> list[Section]:
    """Return distortion against rate of all cases, with the knee marked."""
    rates, distortions = results.means("rate"), results.means("distortion")
    cases = [c for c in results.plan.cases if c.key in rates and c.key in distortions]
    points = sorted(
        (rates[c.key].value, distortions[c.key].value, results.plan.cases.index(c)) for c in cases
    )
    if len(points) < 3:
        return []
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    room = 0.06 * (max(xs) - min(xs)), 0.08 * (max(ys) - min(ys))
    plot = Plot(
        (min(xs) - room[0], max(xs) + 2 * room[0]),
        (min(ys) - room[1], max(ys) + room[1]),
        (640, 400),
        (52, 24, 40, 38),
    )
    plot.axes("rate, nats per image")
    plot.write(4, 13, "distortion", "strong")
    plot.write(plot.box[2], 13, "nats per image", "axis end")
    plot.line(list(zip(xs, ys, strict=True)), "reference")
    for x, y, index in points:
        case = results.plan.cases[index]
        plot.dots([(x, y)], index, 9)
        plot.text(x, y, case.name, "note halo", (9, -6))
    turn = knee([(x, y) for x, y, _ in points])
    text = (
        "Each point is the mean over seeds of one case. Where β is all that differs, the slope of "
    )
    text += "the curve at a point is −β."
    if turn is not None:
        x, y, index = points[turn]
        plot.circle_at(x, y, 11, "knee")
        name = escape(results.plan.cases[index].name)
        text += (
            " The knee (farthest from the chord, both axes scaled to their ranges; behind it a "
            f"nat of rate saves less than on average) is at {name}: rate "
            f"{x:.1f}, distortion {y:.1f} nats."
        )
    return [Section("Rate and distortion", ((plot.svg("Distortion by rate.", "rd"), ""),), text)]
