"""Plots of the latent space: where images lie, how sure the encoder is, what the prior expects."""

from __future__ import annotations

import math

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from vaelab.report.latents import Latents, sub
from vaelab.report.palette import class_color
from vaelab.report.plot import Plot

_WITH_PRIOR = 4.0
_EXTENTS = (0.25, 0.5, 1.0, 2.0, _WITH_PRIOR, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
_MASS = (1 - math.exp(-0.5), 1 - math.exp(-2))
"""Share of a two-dimensional normal within 1σ and 2σ of its mean: 39 % and 86 %."""


def latent_map(latents: Latents, name: str = "map") -> Markup:
    """Return the posterior means coloured by class, over the prior's 1σ and 2σ contours.

    Two dimensions of highest rate; with D = 1, the mean against the standard deviation. ``name``
    must be unique within the page.
    """
    if latents.dims == 1:
        return _line_map(latents, name)
    one, two = latents.order[:2] if latents.dims > 2 else (0, 1)
    points = latents.means[:, [one, two]]
    extent = _extent(latents, points)
    plot = Plot((-extent, extent), (-extent, extent), (440, 440), (44, 8, 8, 40))
    marks = [-extent, -extent / 2, 0, extent / 2, extent]
    plot.axes(f"mean of z{sub(one)}", f"mean of z{sub(two)}", marks, marks, frame=True)
    _contours(plot, latents, one, two)
    _scatter(plot, points, latents)
    about = f"{len(points):,} images" + ("" if latents.labels is None else " coloured by class")
    return plot.svg(f"Posterior means of {about}, dimensions {one} and {two}.", name)


def _line_map(latents: Latents, name: str) -> Markup:
    extent = _extent(latents, latents.means)
    top = max(1.05, 1.05 * float(latents.deviations.max()))
    plot = Plot((-extent, extent), (0, top), (440, 320), (44, 12, 8, 40))
    plot.axes("mean of z₀", "standard deviation of q(z₀|x)", frame=True)
    if latents.standard and latents.prior is not None:
        for sigma in (-2, -1, 1, 2):
            plot.line([(sigma, 0), (sigma, top)], "prior")
            plot.text(sigma, top, f"{'−' if sigma < 0 else ''}{abs(sigma)}σ", "note halo", (3, 9))
    _scatter(plot, torch.cat([latents.means, latents.deviations], 1), latents)
    return plot.svg(f"Posterior mean and deviation of {len(latents.means):,} images.", name)


def _extent(latents: Latents, points: Tensor) -> float:
    """Return the first of few extents that holds 99.5 % of the points, so that runs compare.

    With a prior it is 4 or more: the map of a collapsed posterior shows how much is left unused.
    """
    least = _EXTENTS[0] if latents.prior is None else _WITH_PRIOR
    need = max(least, points.abs().amax(1).double().quantile(0.995).item())
    return next((e for e in _EXTENTS if e >= need), 2.0 ** math.ceil(math.log2(need)))


def _contours(plot: Plot, latents: Latents, one: int, two: int) -> None:
    if latents.prior is None:
        return
    if latents.standard:
        for sigma in (1, 2):
            plot.circle(sigma, "prior")
            plot.text(0, sigma, f"{sigma}σ", "note halo middle", (0, 3))
        return
    from matplotlib.figure import Figure
    from scipy.stats import gaussian_kde

    draws = latents.prior[:, [one, two]].double().T.numpy()
    density = gaussian_kde(draws)
    levels = np.quantile(density(draws), [1 - mass for mass in _MASS])
    axis = np.linspace(*plot.x, 81)
    grid = density(np.stack(np.meshgrid(axis, axis)).reshape(2, -1)).reshape(81, 81)
    found = Figure().add_subplot().contour(axis, axis, grid, sorted(levels))
    for lines in found.allsegs:
        for line in lines:
            plot.line(line.tolist(), "prior")


def _scatter(plot: Plot, points: Tensor, latents: Latents, rounds: int = 6) -> None:
    """Draw classes in turn, a few points each, so that none lies on top of all others."""
    classes = latents.classes()
    for turn in range(rounds):
        for label, rows in classes:
            plot.dots(points[rows[turn::rounds]].tolist(), label, 3.2)
    if len(classes) == 1 or len(classes) > 20:
        return
    for label, rows in classes:
        assert label is not None
        if label < 0:
            continue
        x, y = points[rows].median(0).values.tolist()
        plot.text(x, y, latents.names[label], "strong halo middle", (0, 4))


def deviations_plot(latents: Latents, most: int = 40) -> Markup:
    """Return the deviations of q(z|x) by dimension: all images in grey, classes as dots."""
    dims = latents.order[:most] if latents.dims > 2 else list(range(latents.dims))
    logs = latents.deviations[:, dims].double().log10()
    ranges = logs.quantile(torch.tensor([0.05, 0.95]).double(), 0).T.tolist()
    low = min(math.log10(0.08), *(low for low, _ in ranges)) - 0.05
    high = max(math.log10(1.5), *(high for _, high in ranges)) + 0.05
    row = 22 if len(dims) > 4 else 30
    plot = Plot((low, high), (len(dims), 0), (440, 44 + row * len(dims)), (44, 6, 12, 38))
    marks = [power + step for power in range(-5, 4) for step in (0, math.log10(2), math.log10(5))]
    seen = [mark for mark in marks if low <= mark <= high]
    label = "standard deviation of q(z|x), log scale; a standard normal prior has 1"
    plot.axes(label, "", seen if len(seen) < 9 else [m for m in seen if m == int(m)], [], log=True)
    plot.line([(0, 0), (0, len(dims))], "prior")
    for place, (dim, spread) in enumerate(zip(dims, ranges, strict=True)):
        middle = place + 0.5
        plot.line([(end, middle) for end in spread], "spread")
        plot.text(low, middle, f"z{sub(dim)}", "tick end", (-6, 4))
        for which, rows in latents.classes():
            plot.dots([(logs[rows, place].median().item(), middle)], which, 6)
    return plot.svg(f"Standard deviations of the posterior in {len(dims)} dimensions.", "sigma")


def aggregate_plots(latents: Latents, most: int = 8) -> list[Markup]:
    """Return for each dimension the aggregate posterior, with the prior's density.

    Exact for the marginals of normal posteriors: q(z_d) = 1/N Σ_x N(z_d; μ_d(x), σ_d(x)²).
    """
    plots = []
    shown = latents.order[:most] if latents.dims > 2 else range(latents.dims)
    for dim in shown:
        means, deviations = latents.means[:, dim].double(), latents.deviations[:, dim].double()
        extent = _extent(latents, (means.abs() + 2 * deviations)[:, None])
        edges = torch.linspace(-extent, extent, 49, dtype=torch.double)
        below = torch.special.ndtr((edges[:, None] - means) / deviations.clamp(min=1e-9)).mean(1)
        heights = (below.diff() / edges.diff()).tolist()
        curve = _prior_density(latents, dim, extent)
        top = 1.1 * max([*heights, *(y for _, y in curve)])
        plot = Plot((-extent, extent), (0, top), (190, 146), (10, 22, 10, 34))
        plot.bars(edges.tolist(), heights, "histogram")
        if curve:
            plot.line(curve, "reference")
        plot.axes(f"z{sub(dim)}", "", [-extent, -extent / 2, 0, extent / 2, extent], [])
        spread = (means.var(correction=0) + deviations.square().mean()).sqrt()
        figures = f"mean {means.mean():.2f}, s.d. {spread:.2f}".replace("-", "−")
        plot.write(10, 12, figures, "note")
        plots.append(plot.svg(f"Aggregate posterior of dimension {dim}: {figures}.", f"q{dim}"))
    return plots


def _prior_density(latents: Latents, dim: int, extent: float) -> list[tuple[float, float]]:
    if latents.prior is None:
        return []
    axis = np.linspace(-extent, extent, 121)
    if latents.standard:
        density = np.exp(-0.5 * axis**2) / math.sqrt(2 * math.pi)
    else:
        from scipy.stats import gaussian_kde

        density = gaussian_kde(latents.prior[:, dim].double().numpy())(axis)
    return list(zip(axis.tolist(), density.tolist(), strict=True))


def legend(latents: Latents) -> list[tuple[str, str]]:
    """Return (name, colour) of each class that occurs; empty without labels."""
    found = [k for k, _ in latents.classes() if k is not None]
    known = [(latents.names[k], class_color(k)) for k in found if k >= 0]
    return known + [("unlabelled", class_color(k)) for k in found if k < 0]
