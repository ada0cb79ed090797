"""What varied copies of training images are worth, and whether they keep class and attributes.

Both are measured in seconds, before training, on validation images and never on test images. Images
are averaged to 16 pixels a side at most; up to 2,000 of each part are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from vaelab.data.attributes import MEASURES, measure
from vaelab.data.batches import epoch_order, fetch
from vaelab.data.images import ImageSet
from vaelab.data.warp import RGBA
from vaelab.errors import counted
from vaelab.models.conditioning import LABEL
from vaelab.models.model import seeded
from vaelab.objectives.variation import Variation

FEWEST = 20
"""Validation images, and training images, that say anything."""

RECOGNISED = 0.8
"""Share of images distinguished from their mirror images from which on these are others."""

_CLASSES = 100  # with a column each
_MOST, _PROBED, _MEASURED = 2_000, 1_000, 200  # images looked at
_SIDE, _NUMBERS = 16, 768  # of a small image
_BYTES, _CHUNK = 2**28, 64  # of pixels read, at most; images at a time
_GAIN, _CHANGE = 2.0, 2.5  # standard errors: one gain is tried, and changes of many attributes
_KEPT = 0.02  # of its variance that an attribute may change by
_WIDTHS, _RIDGES = (0.3, 1.0), (1e-3, 1e-2, 1e-1)  # of the probe; width in median distances
_RIDGE, _SHRINKS = 1e-2, tuple(2.0**-k for k in range(1, 16))
_FLOOR = 1e-6  # of the variance of a number in [0, 1]


@dataclass(frozen=True)
class Gain:
    """What mirrored copies of training images bring.

    Arguments:
        nats: by how much the mean log-likelihood of validation images rises.
        error: its standard error.
        recognised: share of validation images that a probe distinguishes from mirror images.
    """

    nats: float
    error: float
    recognised: float

    @property
    def is_there(self) -> bool:
        """Whether the likelihood rises by more than chance, and mirror images look like images."""
        return self.nats > _GAIN * self.error and self.recognised < RECOGNISED


def flip_gain(train: ImageSet, held_out: ImageSet) -> Gain | None:
    """Return what mirrored copies of the training images bring to a normal distribution of images.

    Its covariance is shrunk as suits the validation images best, with copies and without. Copies of
    any kind may help it where images are few. So a probe that is fitted to images and their mirror
    images (see `predicted`) tells which is which of a validation image and its mirror image: half
    of them by chance, where mirror images are as probable; nearly all, where they are none. None of
    few images.

    Source: Lin et al., Visual chirality, 2020.
    """
    if min(len(train), len(held_out)) < FEWEST:
        return None
    known, new = (_small(images, _some(images, _MOST)) for images in (train, held_out))
    both = torch.cat([known, known.flip(3)])
    gains = Normal(both).best(new) - Normal(known).best(new)
    error = float(gains.std() / math.sqrt(len(gains)))
    return Gain(float(gains.mean()), error, recognised(known[:_PROBED], new[:_PROBED]))


def recognised(train: Tensor, images: Tensor) -> float:
    """Return the share of images that a probe tells from their mirror images; ties count half.

    Arguments:
        train: that it is fitted to, ``(N, C, H, W)``.
        images: ``(n, C, H, W)``.
    """
    x = torch.cat([train, train.flip(3)]).flatten(1)
    side = torch.ones(len(x), 1, dtype=torch.double)
    side[len(train) :] = -1
    width, new = float(torch.cdist(x, x).median()), torch.cat([images, images.flip(3)]).flatten(1)
    if width == 0:
        return 0.5
    found = predicted(x, side, new, min(_WIDTHS) * width, _RIDGE)[:, 0]
    more = found[: len(images)] - found[len(images) :]
    return float(torch.where(more.abs() < _FLOOR, 0.5, (more > 0).double()).mean())


class Normal:
    """A normal distribution fitted to images ``(N, C, H, W)``, whose covariance S can be shrunk.

        p(x) = N(μ, (1 − a) S + a (tr S / D) I),   D numbers of an image

    Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices,
    2004.
    """

    def __init__(self, train: Tensor) -> None:
        known = train.flatten(1).double()
        self.mean = known.mean(0)
        centred = known - self.mean
        self.variances, self.axes = torch.linalg.eigh(centred.T @ centred / len(known))

    def log_prob(self, images: Tensor, shrink: float) -> Tensor:
        """Return log p(x) of images with a = ``shrink``, ``(n,)`` nats."""
        along = (images.flatten(1).double() - self.mean) @ self.axes
        variances = torch.lerp(self.variances, self.variances.mean(), shrink).clamp(min=_FLOOR)
        each: Tensor = along.square() / variances + (2 * math.pi * variances).log()
        return -0.5 * each.sum(1)

    def best(self, images: Tensor) -> Tensor:
        """Return log p(x) of images with the a under which they are most probable, ``(n,)``."""
        found = [self.log_prob(images, shrink) for shrink in _SHRINKS]
        return max(found, key=lambda each: float(each.mean()))


def changed(
    variation: Variation, train: ImageSet, held_out: ImageSet, names: Sequence[str]
) -> Iterator[str]:
    """Say for each class or attribute whether variation changes it, or that nobody can tell.

    An attribute that vaelab measures is measured again on varied images. For any other, a probe
    (see `predicted`) is fitted to training images, and to these and their varied copies: where
    copies no longer show what they are labelled with, it errs more on validation images.

    Arguments:
        variation: how images are varied.
        train: images that are trained on.
        held_out: validation images.
        names: ``label`` and names of attributes.

    Yields:
        What it does, for each that is not known to be kept: ``changes the class: …``.
    """
    measured = [name for name in names if _is_measured(train, name)]
    yield from _measured_again(variation, held_out, measured)
    others = [name for name in names if name not in measured]
    if others:
        yield from _probed(variation, train, held_out, others)


def _probed(
    variation: Variation, train: ImageSet, held_out: ImageSet, names: Sequence[str]
) -> Iterator[str]:
    known, true = (_Targets.of(images, names) for images in (train, held_out))
    if min(len(known.rows), len(true.rows)) < FEWEST:
        yield from (_untold(name, len(true.rows)) for name in names)
        return
    x, new = _small(train, known.rows).flatten(1), _small(held_out, true.rows).flatten(1)
    copies = _small(train, known.rows, variation).flatten(1)
    width = float(torch.cdist(x, x).median())
    found = {
        (scale, ridge): predicted(x, known.values, new, scale * width, ridge)
        for scale, ridge in product(_WIDTHS, _RIDGES)
        if width > 0
    }
    if not found:  # all images are alike
        return
    spread = known.values.var(0).clamp(min=_FLOOR)
    best = min(found, key=lambda k: float(((found[k] - true.values).square() / spread).sum()))
    both, twice = torch.cat([x, copies]), known.values.repeat(2, 1)
    after = predicted(both, twice, new, best[0] * width, best[1])
    for name, columns in true.columns.items():
        wrong = [(each - true.values)[:, columns].square().sum(1) for each in (found[best], after)]
        more = wrong[1] - wrong[0]
        if float(more.mean()) > _CHANGE * float(more.std()) / math.sqrt(len(more)):
            yield _told(name, wrong)


def predicted(x: Tensor, y: Tensor, new: Tensor, width: float, ridge: float) -> Tensor:
    """Return what kernel ridge regression predicts, ``(n, T)``.

        f(x) = ȳ + k(x)ᵀ (K + λ I)⁻¹ (y − ȳ),   k(x, x') = exp(−‖x − x'‖² / 2w²)

    Arguments:
        x: inputs that it is fitted to, ``(N, D)``.
        y: their targets, ``(N, T)``.
        new: inputs, ``(n, D)``.
        width: w.
        ridge: λ.
    """

    def kernel(rows: Tensor) -> Tensor:
        squared = torch.cdist(rows.double(), x.double()).square()
        return torch.exp(-squared / (2 * width**2))

    mean = y.mean(0)
    factor = torch.linalg.cholesky(kernel(x) + ridge * torch.eye(len(x), dtype=torch.double))
    return kernel(new) @ torch.cholesky_solve(y - mean, factor) + mean


@dataclass(frozen=True)
class _Targets:
    """What a probe predicts of images: classes as one-hot, and attributes.

    Arguments:
        rows: numbers of the images of which all is known, at random up to so many.
        values: ``(n, T)``.
        columns: of each class and attribute.
    """

    rows: Tensor
    values: Tensor
    columns: dict[str, slice]

    @staticmethod
    def of(images: ImageSet, names: Sequence[str]) -> _Targets:
        """Return those of some images of a set."""
        known = torch.stack([_known(images, name) for name in names]).all(0)
        rows = _some(images, _PROBED, known)
        parts, columns, start = [_values(images, name, rows) for name in names], {}, 0
        for name, part in zip(names, parts, strict=True):
            columns[name] = slice(start, start := start + part.shape[1])
        return _Targets(rows, torch.cat(parts, 1), columns)


def _measured_again(variation: Variation, images: ImageSet, names: Sequence[str]) -> Iterator[str]:
    rows = _some(images, _MEASURED)
    if names and len(rows) < FEWEST:
        yield from (_untold(name, len(rows)) for name in names)
        return
    if not names:
        return
    pixels = fetch(images, rows, "cpu").images
    before = measure(pixels, names).double()
    with seeded(0, torch.device("cpu")):
        after = measure(variation(pixels), names).double()
    for name, was, now in zip(names, before.unbind(1), after.unbind(1), strict=True):
        there = ~(was.isnan() | now.isnan())
        was, by = was[there], (now - was)[there].square().mean()
        if float(by) > _KEPT * float(was.var()):
            unit = MEASURES[name].unit
            yield f"changes {name}: measured again, it differs by {float(by.sqrt()):.2g} {unit}"


def _is_measured(images: ImageSet, name: str) -> bool:
    if name not in MEASURES or name not in images.attribute_names or not images.units:
        return False
    return images.units[images.attribute_names.index(name)] == MEASURES[name].unit


def _known(images: ImageSet, name: str) -> Tensor:
    """Return whether a class or an attribute of each image is known, ``(N,)``."""
    if name == LABEL:
        none = torch.full((len(images),), -1)
        return (none if images.labels is None else images.labels.cpu()) >= 0
    if images.attributes is None:
        return torch.zeros(len(images), dtype=torch.bool)
    return ~images.attributes[:, images.attribute_names.index(name)].cpu().isnan()


def _values(images: ImageSet, name: str, rows: Tensor) -> Tensor:
    """Return classes as one-hot ``(n, K)`` or an attribute ``(n, 1)``, where they are known.

    More than a hundred classes are random directions, which are about as far from each other
    (Johnson and Lindenstrauss, 1984).
    """
    if name == LABEL:
        labels = rows if images.labels is None else images.labels.cpu()[rows]
        count = max(1, len(images.class_names))
        if count <= _CLASSES:
            return one_hot(labels, count).double()
        drawn = torch.Generator().manual_seed(0)
        return torch.randn(count, _CLASSES, generator=drawn).double()[labels] / math.sqrt(_CLASSES)
    if images.attributes is None:
        return torch.zeros(len(rows), 1).double()
    column = images.attributes[rows.to(images.attributes.device)]
    return column[:, images.attribute_names.index(name), None].cpu().double()


def _told(name: str, wrong: Sequence[Tensor]) -> str:
    before, after = (float(each.mean()) for each in wrong)
    what = "the class" if name == LABEL else name
    return (
        f"changes {what}: on {counted(len(wrong[0]), 'validation image')} the squared error of a "
        f"probe is {before:.3g}, and {after:.3g} where it is fitted to varied copies too"
    )


def _untold(name: str, count: int) -> str:
    what = "the class" if name == LABEL else name
    return (
        f"may change {what}: {counted(count, 'validation image')} and their training images cannot "
        f"tell, which takes {FEWEST} of each"
    )


def _some(images: ImageSet, most: int, among: Tensor | None = None) -> Tensor:
    """Return the numbers of up to ``most`` images, ``among`` those, at random but always alike."""
    order = epoch_order(len(images), 0, 0)
    rows = order if among is None else order[among[order]]
    return rows[: max(FEWEST, min(most, _BYTES // max(1, math.prod(images.shape))))]


def _small(images: ImageSet, rows: Tensor, variation: Variation | None = None) -> Tensor:
    """Return small copies of images, of varied ones where it is said how: ``(n, C, h, w)``."""
    with seeded(0, torch.device("cpu")):
        parts = []
        for some in rows.split(_CHUNK):
            pixels = fetch(images, some, "cpu").images
            parts.append(_shrunk(variation(pixels) if variation else pixels))
    return torch.cat(parts)


def _shrunk(images: Tensor) -> Tensor:
    channels, height, width = images.shape[1:]
    if channels == RGBA:  # colours that nobody sees count for nothing
        images = torch.cat([images[:, :-1] * images[:, -1:], images[:, -1:]], 1)
    side = max(1, min(_SIDE, math.isqrt(_NUMBERS // channels)))
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return interpolate(images, size, mode="area")
