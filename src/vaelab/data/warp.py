"""Images moved, turned, zoomed and bent: the classical ways to make more of a few images.

Every function is pure: what is done to an image is an argument, so that a caller's seed decides it.
Sizes are in pixels, angles in degrees. What comes from outside an image is 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def shifted(images: Tensor, by: Tensor) -> Tensor:
    """Move each image by whole pixels.

    Arguments:
        images: ``(B, C, H, W)``.
        by: rows down and columns to the right, int64 ``(B, 2)``.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - by[:, :1]  # (B, H): where a row comes from
    columns = torch.arange(width, device=images.device) - by[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[:, None]
    flat = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    index = flat.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    moved = images.flatten(2).gather(2, index).view_as(images)
    return moved * inside[:, None]


def warped(
    images: Tensor,
    by: Tensor,
    angle: Tensor,
    zoom: Tensor,
    bend: Tensor | None = None,
) -> Tensor:
    """Move, turn, zoom and bend each image, in one interpolation (bilinear).

    The pixel at p comes from R(−angle) (p − by) / zoom + bend(p), with p counted from the centre.

    Arguments:
        images: ``(B, C, H, W)``.
        by: rows down and columns to the right, ``(B, 2)``.
        angle: counter-clockwise, ``(B,)`` degrees.
        zoom: factor of size, ``(B,)``.
        bend: rows and columns away from where each pixel would have come from, ``(B, 2, H, W)``;
            see `elastic`.
    """
    height, width = images.shape[2:]
    turn = angle * (math.pi / 180)
    cos, sin = (turn.cos() / zoom)[:, None, None], (turn.sin() / zoom)[:, None, None]
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    dy, dx = y[:, None] - by[:, 0, None, None], x - by[:, 1, None, None]  # (B, H, 1), (B, 1, W)
    rows, columns = cos * dy + sin * dx, cos * dx - sin * dy
    if bend is not None:
        rows, columns = rows + bend[:, 0], columns + bend[:, 1]
    where = torch.stack(
        [columns * (2 / width), rows * (2 / height)], 3
    )  # of [−1, 1], as torch has it
    return functional.grid_sample(images, where, align_corners=False)


def elastic(noise: Tensor, width: float) -> Tensor:
    """Return a smooth random field of unit variance from white noise: noise blurred by a Gaussian.

    Source: Simard et al., Best practices for convolutional neural networks, 2003.

    Arguments:
        noise: standard normal, ``(B, 2, H + 2r, W + 2r)`` with r as `margin` has it.
        width: standard deviation σ of the Gaussian, in pixels.
    """
    reach = margin(width)
    at = torch.arange(-reach, reach + 1, device=noise.device, dtype=noise.dtype)
    kernel = torch.exp(-(at**2) / (2 * width**2))
    kernel = kernel / kernel.norm()  # a sum of independent numbers of variance 1, of variance 1
    flat = noise.flatten(0, 1).unsqueeze(1)
    flat = functional.conv2d(flat, kernel.view(1, 1, -1, 1))
    flat = functional.conv2d(flat, kernel.view(1, 1, 1, -1))
    return flat.view(*noise.shape[:2], *flat.shape[2:])


def margin(width: float) -> int:
    """Return how many pixels of noise `elastic` needs around an image: three deviations."""
    return math.ceil(3 * width)
