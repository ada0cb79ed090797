"""The pictures of a report: samples, reconstructions, manifold and traversals as crisp PNGs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vaelab.data.images import ImageSet
from vaelab.evaluation.measure import batches
from vaelab.explore.grids import GAP, as_colours, grid, png
from vaelab.explore.pictures import manifold, quantiles, reconstructions, samples, traverse
from vaelab.models.model import seeded
from vaelab.models.vae import Vae
from vaelab.report.latents import Latents, sub

PAIRS, SAMPLES, STEPS, ROWS = 30, 72, 11, 20
_FEW, _NARROW = 10, 310
_PAIR, _WIDE, _TALL = 60, 800, 480
"""Pixels that a single image, the width and the height of a picture may fill."""

LARGEST = 64
"""Images with a longer side are shown smaller, by blocks of pixels averaged."""

_BYTES = 600_000
"""About how much each kind of picture may add to the page; beyond it fewer images are shown."""


@dataclass(frozen=True)
class Picture:
    """A PNG with the size to show it at, a whole multiple of the size of the images in it.

    Arguments:
        png: the file.
        width, height: in CSS pixels.
        alt: what it shows, for those who do not see it.
        caption: what to see in it.
        dead: whether it is of a latent dimension that is not in use.
    """

    png: bytes
    width: int
    height: int
    alt: str
    caption: str = ""
    dead: bool = False

    @property
    def uri(self) -> str:
        """The picture as part of a page."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Pictures:
    """All pictures of a report.

    Arguments:
        hero: which stands at the top: ``manifold``, ``samples`` or ``reconstructions``.
        pairs: images and their reconstructions.
        samples: generated images; None where they would come from a prior that is none.
        manifold: decoded grid over a two-dimensional latent space.
        traversals: otherwise one strip for each dimension.
        files: what to write beside the page, by name.
    """

    hero: str
    pairs: tuple[tuple[Picture, Picture], ...]
    samples: Picture | None
    manifold: Picture | None
    traversals: tuple[Picture, ...]
    files: dict[str, bytes] = field(repr=False)


def draw(model: Vae, images: ImageSet, latents: Latents, seed: int = 0) -> Pictures:
    """Return the pictures of a model; the same images, seed and order for every run on a data set.

    Arguments:
        model: any `Vae`.
        images: the test images.
        latents: of these images.
        seed: of the samples.
    """
    pairs, beside = _pairs(model, images)
    saved = {"reconstructions.png": beside}
    drawn = plane = None
    strips: tuple[Picture, ...] = ()
    if model.mixture is not None or not latents.point:
        drawn = _samples(model, seed)
        saved["samples.png"] = drawn.png
    if latents.dims == 2:
        plane = _manifold(model, latents)
        saved["manifold.png"] = plane.png
    else:
        strips, saved["traversals.png"] = _traversals(model, latents)
    hero = "manifold" if plane else "samples" if drawn else "reconstructions"
    return Pictures(hero, pairs, drawn, plane, strips, saved)


def shown(images: ImageSet, count: int = PAIRS) -> Tensor:
    """Return which images stand for all: the first ones of each class, class by class.

    Without labels, the first ``count``; unlabelled images beside others are not shown.
    """
    if images.labels is None:
        return torch.arange(min(count, len(images)))
    labels = images.labels.cpu()
    classes = labels[labels >= 0].unique()[:count]
    if not len(classes):
        return torch.arange(min(count, len(images)))
    each = max(1, count // len(classes))
    return torch.cat([(labels == k).nonzero().squeeze(1)[:each] for k in classes])


def _pairs(model: Vae, images: ImageSet) -> tuple[tuple[tuple[Picture, Picture], ...], bytes]:
    index = shown(images)
    with seeded(0, model.device):  # of a dynamic binarisation
        seen = torch.cat([part.images for part in batches(model, images, index, model.rows)])
    both = reduced(reconstructions(model, seen))
    names = [""] * len(index)
    if images.labels is not None:
        names = [images.class_names[k] if k >= 0 else "" for k in images.labels[index].tolist()]
    pairs = beside(both, names)
    sizes = [sum(len(picture.png) for picture in pair) for pair in pairs]
    return tuple(pairs[: _fitting(sizes)]), png(grid(both.flatten(0, 1), 10))


def beside(both: Tensor, names: Sequence[str]) -> list[tuple[Picture, Picture]]:
    """Return images and their reconstructions ``(n, 2, C, H, W)`` one by one, under their names."""
    return [
        (single(one, f"image {name}".strip(), name), single(other, "its reconstruction", name))
        for (one, other), name in zip(reduced(both), names, strict=True)
    ]


def small_samples(model: Vae, point: bool, seed: int = 0) -> Picture:
    """Return a few samples from the prior, for a page that shows many models.

    A model with points for posteriors was trained without a prior: its samples are what it makes
    of N(0, I) all the same.
    """
    images = reduced(samples(model, 2 * _FEW, seed=seed, sampler="prior"))
    of = "draws from N(0, I), which this model never learned" if point else "samples from the prior"
    pixels = grid(images, _FEW, _scale(_FEW, images.shape[-1], _NARROW))
    return _picture(pixels, f"{len(images)} {of}", of)


def small_pairs(model: Vae, images: ImageSet) -> Picture:
    """Return a few images above their reconstructions, for a page that shows many models."""
    index = shown(images, _FEW)
    with seeded(0, model.device):
        seen = torch.cat([part.images for part in batches(model, images, index, model.rows)])
    both = reduced(reconstructions(model, seen)).transpose(0, 1).flatten(0, 1)
    scale = _scale(len(index), both.shape[-1], _NARROW)
    alt = f"{len(index)} images above their reconstructions"
    return _picture(grid(both, len(index), scale), alt, "reconstructions")


def single(image: Tensor, alt: str, caption: str = "") -> Picture:
    """Return one image ``(C, H, W)``, large enough to be seen."""
    pixels = as_colours(image[None])[0].transpose(1, 2, 0)
    height, width, channels = pixels.shape
    scale = max(1, _PAIR // width)
    shown = pixels.repeat(3, 2) if channels == 1 else pixels
    return Picture(png(shown), width * scale, height * scale, alt, caption)


def _samples(model: Vae, seed: int) -> Picture:
    channels, height, width = reduced_shape(model)
    scale = max(1, _PAIR // width)
    columns = max(1, min(12, _WIDE // (width * scale + GAP)))
    most = min(SAMPLES, _BYTES // (channels * height * width)) // columns
    rows = max(1, min(most, _TALL // (height * scale + GAP)))
    images = reduced(samples(model, columns * rows, seed=seed))
    caption = (
        f"{len(images)} samples, each the mean of p(x|z); seed {seed}, none left out. "
        f"{model.samples_from}"
    )
    return _picture(grid(images, columns, scale), f"{len(images)} samples", caption)


def _manifold(model: Vae, latents: Latents) -> Picture:
    _, height, width = reduced_shape(model)
    side = min(20, 640 // (max(height, width) + GAP))
    if latents.prior is None:
        low, high = latents.means.quantile(torch.tensor([0.01, 0.99]), 0)
        x, y = (low + (high - low) * torch.linspace(0, 1, side)[:, None]).T
        codes = torch.stack([x.repeat(side), y.flip(0).repeat_interleave(side)], 1)
        images = model.generate(codes, **model.ordinary())
        over = "an even grid over the middle 98 % of the codes of test images"
    else:
        images = manifold(model, side).flatten(0, 1)
        x, y = quantiles(model, (torch.arange(side) + 0.5) / side).T
        over = "a grid of equal prior probability"
    caption = (
        f"What the decoder makes of each point of the latent plane, over {over}: z{sub(0)} from "
        f"{_signed(x[0])} to {_signed(x[-1])} to the right, z{sub(1)} from {_signed(y[0])} to "
        f"{_signed(y[-1])} upwards."
    )
    alt = f"{side} × {side} images decoded from a grid over the latent plane"
    scale = _scale(side, max(height, width), 640)
    return _picture(grid(reduced(images), side, scale), alt, caption)


def _traversals(model: Vae, latents: Latents) -> tuple[tuple[Picture, ...], bytes]:
    active = latents.active
    dims = sorted(latents.order, key=lambda dim: not active[dim])[:ROWS]
    width = reduced_shape(model)[2]
    steps = min(STEPS, _WIDE // (width + GAP))
    values = torch.linspace(-3, 3, steps)
    if latents.prior is None:
        codes = latents.means.mean(0).repeat(len(dims), steps, 1)
        spread = latents.means.std(0, correction=0)
        for row, dim in enumerate(dims):
            codes[row, :, dim] += values * spread[dim]
        images = model.generate(codes.flatten(0, 1), **model.ordinary()).unflatten(
            0, (len(dims), steps)
        )
    else:
        images = traverse(model, dims=dims, values=values.tolist())
    images = reduced(images)
    scale = _scale(steps, width, _WIDE)
    strips = []
    for dim, row in zip(dims, images, strict=True):
        words = [f"z{sub(dim)}"]
        words += [] if latents.kl is None else [f"{latents.kl[dim]:.2f} nats"]
        words += [] if active[dim] else ["not in use"]
        alt = f"images decoded while dimension {dim} goes from −3 to 3 standard deviations"
        strips.append(_picture(grid(row, steps, scale), alt, " · ".join(words), not active[dim]))
    fitting = _fitting([len(strip.png) for strip in strips])
    return tuple(strips[:fitting]), png(grid(images.flatten(0, 1), steps, scale))


def reduced(images: Tensor) -> Tensor:
    """Return images ``(..., C, H, W)`` with sides of at most `LARGEST`: averaged in blocks."""
    block = -(-max(images.shape[-2:]) // LARGEST)
    if block == 1:
        return images.cpu()
    channels, height, width = images.shape[-3:]
    blocks = avg_pool2d(images.cpu().reshape(-1, channels, height, width), block, ceil_mode=True)
    return blocks.reshape(*images.shape[:-2], *blocks.shape[-2:])


def lay_out(images: Tensor, columns: int, alt: str) -> Picture:
    """Return images ``(N, C, H, W)`` as one picture of so many columns."""
    small = reduced(images)
    return _picture(grid(small, columns, _scale(columns, small.shape[-1], _WIDE)), alt, "")


def reduced_shape(model: Vae) -> tuple[int, int, int]:
    """Return the shape ``(C, H, W)`` of an image of the model after `reduced`."""
    channels, height, width = model.shape
    block = -(-max(height, width) // LARGEST)
    return channels, -(-height // block), -(-width // block)


def _fitting(sizes: list[int]) -> int:
    """Return how many pictures fit into the page, one at least."""
    return max(1, sum(total <= _BYTES for total in accumulate(sizes)))


def _scale(columns: int, width: int, room: int) -> int:
    """Return by which whole number images may be enlarged so that ``columns`` of them fit."""
    return max(1, (room - GAP * (columns + 1)) // (columns * width))


def _picture(pixels: NDArray[np.uint8], alt: str, caption: str, dead: bool = False) -> Picture:
    return Picture(png(pixels), pixels.shape[1], pixels.shape[0], alt, caption, dead)


def _signed(value: Tensor) -> str:
    return f"{float(value):.2f}".replace("-", "−")
