"""Attributes that can be measured on any image: what its shape is like, in pixels and degrees.

They are after Morpho-MNIST (Castro et al., 2019, "Morpho-MNIST: Quantitative Assessment and
Diagnostics for Representation Learning"), and take bright shapes on dark ground.

An image is read as its intensities I in [0, 1], the mean of its colour channels (alpha is ignored),
with black around it. Its **foreground** is where I, interpolated bilinearly between pixel centres,
is above half of the image's maximum; the outline crosses between pixels, so a bar that is 3 pixels
wide is 3 wide, not 2 or 4. A black image has no foreground: its area and loops are 0, all else is
unknown (NaN).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import interpolate, pad

from vaelab.data.images import ImageSet
from vaelab.data.source import Progress
from vaelab.errors import ConfigError

VERSION = 1
"""Of the measures: to be raised with every change of what they give, so that caches are renewed."""

FINE = 4
"""Samples a pixel, each way, that the thickness is integrated over (as Castro et al.)."""

THICK = 12.0
"""Pixels from which on one sample a pixel is enough: it adds an error of 0 to 3 %."""

HOLES = 2
"""Samples a pixel, each way, that holes are looked for in; with more, 1 % of MNIST would change."""

_CHUNK = 2**19  # samples measured at a time: what fits a processor's cache

Intensities = NDArray[np.float32]  # (B, H, W) in [0, 1]
Values = NDArray[np.float64]  # (B,)


@dataclass(frozen=True)
class Measure:
    """How an attribute is measured: ``of`` maps intensities ``(B, H, W)`` to values ``(B,)``."""

    of: Callable[[Intensities], Values]
    unit: str
    summary: str


def measure(
    images: ImageSet | Tensor, names: Sequence[str], progress: Progress | None = None
) -> Tensor:
    """Measure attributes of images: float32 ``(N, len(names))``, NaN where there is none.

    Arguments:
        images: a set, or a tensor ``(N, C, H, W)``: uint8, or floats in [0, 1] such as samples.
        names: keys of `MEASURES`.
        progress: called as ``progress(images measured, images in all)``.

    Raises:
        ConfigError: a name is unknown.
    """
    for name in names:
        if name not in MEASURES:
            raise ConfigError(f"attributes: {name!r} is no measure. Known: {', '.join(MEASURES)}.")
    found = images if isinstance(images, ImageSet) else ImageSet(images)
    _, height, width = found.shape
    values = np.empty((len(found), len(names)), np.float32)
    done = 0
    for chunk in found.chunks(max(1, _CHUNK // (FINE**2 * height * width))):
        grey = _intensities(chunk)
        for column, name in enumerate(names):
            values[done : done + len(grey), column] = MEASURES[name].of(grey)
        done += len(grey)
        if progress is not None:
            progress(done, len(found))
    return torch.from_numpy(values)


def _intensities(images: Tensor) -> Intensities:
    """Mean of the colour channels in [0, 1], ``(B, H, W)``."""
    colours = images[:, :3] if images.shape[1] == 4 else images
    mean = colours.detach().cpu().float().mean(1)
    grey: Intensities = (mean / 255 if images.dtype == torch.uint8 else mean).numpy()
    return grey


def area(grey: Intensities) -> Values:
    """Area in pixels: the sum of the intensities, ``Σ I``; a white pixel counts 1."""
    total: Values = grey.sum((1, 2), dtype=np.float64)
    return total


def slant(grey: Intensities) -> Values:
    """Horizontal shear in degrees: ``-atan(μ₁₁ / μ₀₂)``; positive when the top leans right.

    ``μ_pq = Σ (x - x̄)^p (y - ȳ)^q I / Σ I`` with x to the right and y downwards: the shear that
    would make the shape upright (Castro et al., 2019). NaN for a shape within one row.
    """
    weight = grey.astype(np.float64)
    x, y = np.arange(grey.shape[2]), np.arange(grey.shape[1])
    rows, columns = weight.sum(2), weight.sum(1)
    with np.errstate(invalid="ignore"):  # 0/0 of a black image
        total = rows.sum(1)
        mean_x, mean_y = columns @ x / total, rows @ y / total
        covariance = ((weight @ x) @ y) / total - mean_x * mean_y
        variance = ((y - mean_y[:, None]) ** 2 * rows).sum(1) / total
        shear = np.where(variance > 1e-9, -covariance / variance, np.nan)
    degrees: Values = np.degrees(np.arctan(shear))
    return degrees


def width(grey: Intensities) -> Values:
    """Width of the upright box around the foreground in pixels, slant included."""
    return _extent(grey)


def height(grey: Intensities) -> Values:
    """Height of the upright box around the foreground in pixels."""
    return _extent(grey.transpose(0, 2, 1))


def thickness(grey: Intensities) -> Values:
    """Four times the mean distance from the foreground to the nearest background, in pixels.

    ``t = 4 / |F| · ∫_F d(p) dp``. Across a long bar of width t the distance d to the outline is
    uniform on [0, t/2], with mean t/4. The integral is a sum over `FINE`² samples a pixel, or one
    where the result is above `THICK`.
    """
    found = _thickness(grey, 1)
    thin = found < THICK
    found[thin] = _thickness(grey[thin], FINE)
    return found


def _thickness(grey: Intensities, factor: int) -> Values:
    """Thickness by ``factor``² samples a pixel.

    The area is the mean of the lengths of all rows and all columns of samples within the outline,
    so that it does not depend on how the samples meet an oblique edge.
    """
    fine = _above_half(grey, factor)
    count, high, wide = fine.shape
    squared, areas = [], np.zeros(count)
    for axis in (2, 1):
        runs = _Runs(fine if axis == 2 else fine.transpose(0, 2, 1))
        along = runs.distances() ** 2
        squared.append(np.ascontiguousarray(along if axis == 2 else along.transpose(0, 2, 1)))
        areas += np.bincount(runs.image, runs.lengths(), count) / 2
    inside = np.flatnonzero(fine > 0)
    distances = _nearest(squared[0].ravel(), squared[1].ravel(), inside, wide)
    total = np.bincount(inside // (high * wide), np.sqrt(distances), count)
    with np.errstate(invalid="ignore"):  # 0/0 of a black image
        return np.asarray(4 / factor * total / areas)


def loops(grey: Intensities) -> Values:
    """Number of holes: ``components - Euler number`` of the foreground.

    The foreground hangs together over corners (8-connected), the background does not (4-connected).
    So a hole is a piece of background that does not reach the surroundings; holes of less than one
    pixel do not count.
    """
    fine = _above_half(grey, HOLES)
    count, high, wide = fine.shape
    pieces, found = ndimage.label(fine.reshape(count * high, wide) <= 0)  # one above another
    image = np.zeros(found + 1, np.int64)
    image[pieces.reshape(count, -1)] = np.arange(count)[:, None]
    holes = np.bincount(pieces.ravel(), minlength=found + 1) >= HOLES**2
    holes[[0, pieces[0, 0]]] = False  # the foreground, and what surrounds all shapes
    return np.bincount(image[holes], minlength=count).astype(np.float64)


def _above_half(grey: Intensities, factor: int) -> Intensities:
    """Intensity above half of each image's maximum, at ``factor``² samples a pixel.

    The result has a margin of one black pixel: ``(B, factor (H + 2), factor (W + 2))``.
    """
    samples = pad(torch.from_numpy(np.ascontiguousarray(grey)), (1, 1, 1, 1))
    if factor > 1:
        samples = interpolate(samples[:, None], scale_factor=factor, mode="bilinear")[:, 0]
    above: Intensities = samples.numpy() - grey.max((1, 2))[:, None, None] / 2
    return above


class _Runs:
    """Stretches of positive numbers along the last axis of ``(B, h, w)``, whose margin is not.

    ``first`` and ``last`` are their ends as indices into all numbers; ``before`` and ``after`` are
    how far beyond each end the linear interpolation with the next number reaches 0, in (0, 1].
    """

    def __init__(self, values: Intensities) -> None:
        self.shape = values.shape
        flat = values.ravel()
        self._inside = flat > 0
        ends = np.flatnonzero(self._inside[1:] != self._inside[:-1])
        self.first, self.last = ends[0::2] + 1, ends[1::2]
        self.image = self.first // (values.shape[1] * values.shape[2])
        self.before = _crossing(flat[self.first], flat[self.first - 1])
        self.after = _crossing(flat[self.last], flat[self.last + 1])

    def lengths(self) -> NDArray[np.float32]:
        """Length of each run, from outline to outline."""
        return (self.last - self.first).astype(np.float32) + self.before + self.after

    def distances(self) -> Intensities:
        """Distance along the axis from each number within a run to its nearer end; else 0."""
        inside, counts = np.flatnonzero(self._inside), self.last - self.first + 1
        left = (inside - np.repeat(self.first, counts)).astype(np.float32)
        left += np.repeat(self.before, counts)
        nearer = np.minimum(left, np.repeat(self.lengths(), counts) - left)
        found = np.zeros(self._inside.shape, np.float32)
        found[inside] = nearer
        return found.reshape(self.shape)


def _crossing(inner: NDArray[np.float32], outer: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where the line from ``inner`` > 0 to ``outer`` ≤ 0, one apart, reaches 0."""
    crossing: NDArray[np.float32] = inner / (inner - outer)
    return crossing


def _nearest(
    across: NDArray[np.float32], down: NDArray[np.float32], inside: NDArray[np.int64], wide: int
) -> NDArray[np.float32]:
    """Squared distance of the samples at ``inside`` to the nearest crossing of the outline.

    ``d² = min_s (s² + down(x ± s, y)², s² + across(x, y ± s)²)``, given the squared distances along
    rows and columns of ``wide`` samples: the separable transform of Felzenszwalb and Huttenlocher
    (2012), to crossings with rows and columns in place of background samples. A sample drops out
    once s reaches its distance; so no step leads out of its own foreground, or its image.
    """
    squared = np.minimum(across[inside], down[inside])
    step, live = 1, np.flatnonzero(squared > 1)
    while live.size:
        at, near = inside[live], squared[live]
        for other, stride in ((down, step), (across, step * wide)):
            near = np.minimum(near, np.minimum(other[at + stride], other[at - stride]) + step**2)
        squared[live] = near
        step += 1
        live = live[near > step**2]
    return squared


def _extent(grey: Intensities) -> Values:
    """From the first to the last crossing of the outline along the last axis, in pixels."""
    runs = _Runs(_above_half(grey, 1))
    low, high = np.full(len(grey), np.inf), np.full(len(grey), -np.inf)
    wide = runs.shape[2]
    np.minimum.at(low, runs.image, runs.first % wide - runs.before)
    np.maximum.at(high, runs.image, runs.last % wide + runs.after)
    return np.where(high > low, high - low, np.nan)


MEASURES = {
    "thickness": Measure(thickness, "pixels", "mean width of the strokes"),
    "slant": Measure(slant, "degrees", "how far the shape leans, positive to the right"),
    "width": Measure(width, "pixels", "width of the box around the shape"),
    "height": Measure(height, "pixels", "height of the box around the shape"),
    "area": Measure(area, "pixels", "sum of the intensities"),
    "loops": Measure(loops, "count", "holes in the shape"),
}
