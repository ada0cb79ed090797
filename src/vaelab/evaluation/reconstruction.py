"""How close a reconstruction is to its image, pixel by pixel: squared error and PSNR."""

from __future__ import annotations

from torch import Tensor

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
