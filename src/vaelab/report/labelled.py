"""What the report of a conditional model adds: samples by class, subspaces of attributes, edits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from markupsafe import Markup
from torch import Tensor

from vaelab.data.images import ImageSet
from vaelab.evaluation.attributes import editable
from vaelab.evaluation.measure import codes_of
from vaelab.explore.edits import walks
from vaelab.models.handles import Subspace
from vaelab.models.model import seeded
from vaelab.models.vae import Vae
from vaelab.report.pictures import Picture, lay_out, shown
from vaelab.report.plot import Plot, number

COLUMNS, CLASSES, EDITED, GRID, POINTS = 12, 20, 8, 9, 2_000
ENDS = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Labelled:
    """A part of the page.

    Arguments:
        key: its anchor.
        title: its heading.
        figures: pictures and plots in their order, each with a caption.
    """

    key: str
    title: str
    figures: tuple[tuple[Picture | Markup, str], ...]


def labelled_sections(model: Vae, images: ImageSet) -> list[Labelled]:
    """Return the sections on what a model was told; none for a model of images alone."""
    sections = [_classes(model)] if model.asked_classes else []
    return sections + [_attribute(model, images, name) for name in editable(model)]


def _classes(model: Vae) -> Labelled:
    """Return the same draws of z under every class, a row a class."""
    assert model.conditioning is not None
    names = model.conditioning.class_names[:CLASSES]
    rows = []
    with torch.no_grad():
        with seeded(0, model.device):
            first = model.told_of(COLUMNS, {}, draw=True)
        for k in range(len(names)):
            context = model.conditioning.with_class(first, k)
            with seeded(1, model.device):  # the same draws for every class
                rows.append(model.decoded(model.likely(context), context))
    picture = lay_out(
        torch.cat(rows), COLUMNS, f"{COLUMNS} samples of each of {len(names)} classes"
    )
    caption = (
        f"A row for each class ({', '.join(names)}), a column for each draw of random numbers: "
        "what stays down a column is style, what changes is the class."
    )
    return Labelled("classes", "Samples by class", ((picture, caption),))


def _attribute(model: Vae, images: ImageSet, name: str) -> Labelled:
    figures: list[tuple[Picture | Markup, str]] = []
    chosen = shown(images, EDITED)[:EDITED]
    some = images.take(chosen)
    subspace = model.subspaces.get(name)
    if subspace is not None:
        figures += _subspace(model, images, some, subspace)
    strip = walks(model, some, name, ends=ENDS)
    caption = (
        f"Test images at the left; beside each, the same with {name} from −½ to 1½ in steps of ¼: "
        "0 and 1 are what images below and above the cut are like, what is outside goes beyond."
    )
    picture = lay_out(strip.flatten(0, 1), strip.shape[1], f"{len(some)} images, {name} changed")
    figures.append((picture, caption))
    return Labelled(f"attribute-{name}", f"Attribute: {name}", tuple(figures))


def _subspace(
    model: Vae, images: ImageSet, some: Tensor, subspace: Subspace
) -> list[tuple[Picture | Markup, str]]:
    width = subspace.dims.stop - subspace.dims.start
    if width < 2:
        return []
    low = min(subspace.means) - 1.5 * max(subspace.scales)
    high = max(subspace.means) + 1.5 * max(subspace.scales)
    axis = torch.linspace(low, high, GRID)
    codes = model.encode(some[:1]).repeat(GRID * GRID, 1)
    codes[:, subspace.dims.start] = axis.repeat(GRID)
    codes[:, subspace.dims.start + 1] = axis.flip(0).repeat_interleave(GRID)
    context = model.context_of(some[:1]).expand(len(codes), -1)
    plane = lay_out(
        model.decoded(codes, context), GRID, f"{GRID} × {GRID} images over the subspace"
    )
    text = (
        f"One test image, all of its code held but the subspace w of {subspace.name}: w₀ from "
        f"{number(low)} to {number(high)} to the right, w₁ upwards."
    )
    scatter = (
        f"The subspace w of {subspace.name}: means of q(w|x) of test images, below the cut and "
        "above it; circles are 1σ and 2σ of the prior of either side."
    )
    return [(_scatter(model, images, subspace), scatter), (plane, text)]


def _scatter(model: Vae, images: ImageSet, subspace: Subspace) -> Markup:
    count = min(POINTS, len(images))
    index = torch.arange(count) * len(images) // count
    w = subspace.of(codes_of(model, images, index))[:, :2]
    assert images.attributes is not None
    assert model.conditioning is not None
    values = images.attributes[index, images.attribute_names.index(subspace.name)]
    side = model.conditioning.side(subspace.name, values.to(w))
    reach = 3.0 * max(subspace.scales)
    low, high = min(subspace.means) - reach, max(subspace.means) + reach
    plot = Plot((low, high), (low, high), (440, 440), (44, 8, 8, 40))
    plot.axes("mean of w₀", "mean of w₁", frame=True)
    for turn in range(6):
        for on in (0, 1):
            points = w[side == on][turn::6].tolist()
            plot.dots(points, on, 3.2)
    for on, (mean, scale) in enumerate(zip(subspace.means, subspace.scales, strict=True)):
        for sigma in (1, 2):
            plot.circle(sigma * scale, "prior", (mean, mean))
        plot.text(mean, mean, ("below", "above")[on], "strong halo middle", (0, 4))
    return plot.svg(
        f"The subspace of {subspace.name} over {count:,} images.", f"w-{subspace.dims.start}"
    )
