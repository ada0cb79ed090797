"""Structural similarity of images, at one scale and at several (Wang et al., 2003, 2004)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

WINDOW, SIGMA = 11, 1.5
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, the finest first (Wang, Simoncelli and Bovik, 2003)."""

_C1, _C2 = 0.01**2, 0.03**2  # (K₁ L)² and (K₂ L)² with data range L = 1
_LEAST = 1e-4  # of a factor: the gradient of a power below 1 is infinite at 0


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Return the structural similarity index of each image, ``(N,)``, at most 1.

        SSIM = (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂))

    Local moments under a Gaussian window of 11 × 11 pixels with σ = 1.5 that lies wholly within
    the image, K₁ = 0.01, K₂ = 0.03, averaged over places and channels. In an image that is smaller
    than the window, it is cut to the largest odd number of pixels that fits.

    Arguments:
        x: images ``(N, C, H, W)`` in [0, 1].
        y: as many others.

    Source: Wang, Bovik, Sheikh and Simoncelli, Image quality assessment, 2004.
    """
    luminance, structure = _factors(x, y)
    return (luminance * structure).flatten(1).mean(1)


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Return the multi-scale structural similarity of each image, ``(N,)``, at most 1.

        MS-SSIM = l_M^{w_M} · Π_{j=1}^{M} cs_j^{w_j},   Σ_j w_j = 1

    cs_j is the mean over places of the contrast and structure factor of `ssim` at scale j, and
    l_M cs_M that of its product with luminance at the coarsest scale, as in the authors' code; each
    scale is the mean of 2 × 2 pixels of the one before. It is averaged over channels. There are as
    many of the five scales as leave a window's pixels of the smaller side (64 pixels: three), with
    their exponents in proportion. A factor below 10⁻⁴, of images that contradict each other, counts
    as that.
    Arguments as for `ssim`.

    Source: Wang, Simoncelli and Bovik, Multi-scale structural similarity, 2003.
    """
    exponents = SCALES[: _scales(min(x.shape[2:]))]
    product = x.new_ones(())
    for scale, exponent in enumerate(exponents):
        if scale:
            x, y = (functional.avg_pool2d(z, 2, ceil_mode=True) for z in (x, y))
        luminance, factor = _factors(x, y)
        if scale + 1 == len(exponents):
            factor = luminance * factor
        means = factor.flatten(2).mean(2).clamp(min=_LEAST)
        product = product * means ** (exponent / math.fsum(exponents))
    return product.mean(1)


def _scales(side: int) -> int:
    """Return how many scales there are for images of a smaller side."""
    return max(1, min(len(SCALES), 1 + math.floor(math.log2(max(1.0, side / WINDOW)))))


def _factors(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maps of luminance, and of contrast and structure, each ``(N, C, h, w)``."""
    planes = torch.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, square_x, square_y, product = _blur(planes)
    variance = square_x - mean_x.square() + square_y - mean_y.square()
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    return luminance, (2 * covariance + _C2) / (variance + _C2)


def _blur(planes: Tensor) -> Tensor:
    """Filter ``(..., H, W)`` with the window, rows and columns in turn, where it lies within."""
    rows, columns = (_windows(side).to(planes) for side in planes.shape[-2:])
    return rows @ planes @ columns.T


def _windows(side: int) -> Tensor:
    """Return the window at each place where it lies within a side, ``(places, side)``.

    A product with this is several times as fast as a convolution of single channels.
    """
    radius = min(WINDOW, side - 1 + side % 2) // 2
    offsets = torch.arange(side) - torch.arange(radius, side - radius)[:, None]
    logits = -0.5 * (offsets / SIGMA).square()
    return torch.softmax(logits.masked_fill(offsets.abs() > radius, -math.inf), 1)
