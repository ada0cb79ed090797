"""How close a reconstruction is to its image: squared error, PSNR and structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

WINDOW, SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2  # (K₁ L)² and (K₂ L)² with data range L = 1
_LOWEST_MSE = 1e-10


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared error over pixels and channels of each image, ``(N,)``.

    Arguments:
        x: images ``(N, C, H, W)`` in [0, 1].
        y: as many others.
    """
    return (x - y).square().flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio −10 log₁₀ MSE of each image, ``(N,)`` dB, at most 100.

    Arguments as for `mse`; the peak is 1.
    """
    return -10 * mse(x, y).clamp(min=_LOWEST_MSE).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Return the structural similarity index of each image, ``(N,)``, at most 1.

        SSIM = (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂))

    Local moments under a Gaussian window of 11 × 11 pixels with σ = 1.5 that lies wholly within
    the image, K₁ = 0.01, K₂ = 0.03, averaged over places and channels. In an image that is smaller
    than the window, it is cut to the largest odd number of pixels that fits.
    Arguments as for `mse`.

    Source: Wang, Bovik, Sheikh and Simoncelli, Image quality assessment, 2004.
    """
    maps = [_blur(plane.flatten(0, 1)) for plane in (x, y, x * x, y * y, x * y)]
    mean_x, mean_y, square_x, square_y, product = maps
    variance = square_x - mean_x.square() + square_y - mean_y.square()
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    structure = (2 * covariance + _C2) / (variance + _C2)
    return (luminance * structure).reshape(len(x), -1).mean(1)


def _blur(planes: Tensor) -> Tensor:
    """Filter ``(n, H, W)`` with the window, rows and columns in turn, where it lies within."""
    planes = planes.unsqueeze(1)
    height, width = (_window(side).to(planes) for side in planes.shape[2:])
    planes = functional.conv2d(planes, height.view(1, 1, -1, 1))
    return functional.conv2d(planes, width.view(1, 1, 1, -1)).squeeze(1)


def _window(side: int) -> Tensor:
    radius = min(WINDOW, side - 1 + side % 2) // 2
    places = torch.arange(-radius, radius + 1.0)
    return torch.softmax(-0.5 * (places / SIGMA).square(), 0)
