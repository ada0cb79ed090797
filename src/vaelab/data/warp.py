"""Images flipped, moved, turned, zoomed, bent and recoloured: classical data augmentation.

Every function is pure: what is done to an image is an argument, so that a caller's seed decides it.
Sizes are in pixels, angles in degrees. What comes from outside an image is 0 or, with ``edge``, the
nearest pixel of its edge, which is transparent in images of four channels (RGBA).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

RGBA = 4
"""Channels of an image whose last channel is its opacity."""


def flipped(images: Tensor, which: Tensor) -> Tensor:
    """Mirror images ``(B, C, H, W)`` left and right where ``which``, bool ``(B,)``, is true."""
    return torch.where(which[:, None, None, None], images.flip(3), images)


def shifted(images: Tensor, by: Tensor, edge: bool = False) -> Tensor:
    """Move each image by whole pixels.

    Arguments:
        images: ``(B, C, H, W)``.
        by: rows down and columns to the right, int64 ``(B, 2)``.
        edge: whether the edge of an image continues outside it.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - by[:, :1]  # (B, H): where a row comes from
    columns = torch.arange(width, device=images.device) - by[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[:, None]
    flat = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    index = flat.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    moved = images.flatten(2).gather(2, index).view_as(images)
    if not edge:
        return moved * inside[:, None]
    return _with_alpha(moved, moved[:, -1:] * inside[:, None])


def _with_alpha(images: Tensor, alpha: Tensor) -> Tensor:
    """Return images with another opacity ``(B, 1, H, W)``; as they are where they have none."""
    return torch.cat([images[:, :-1], alpha], 1) if images.shape[1] == RGBA else images


def warped(
    images: Tensor,
    by: Tensor,
    angle: Tensor,
    zoom: Tensor,
    bend: Tensor | None = None,
    edge: bool = False,
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
        edge: whether the edge of an image continues outside it.
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
    if not edge:
        return functional.grid_sample(images, where, align_corners=False)
    moved = functional.grid_sample(images, where, padding_mode="border", align_corners=False)
    if images.shape[1] != RGBA:
        return moved
    return _with_alpha(moved, functional.grid_sample(images[:, -1:], where, align_corners=False))


def recoloured(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """Change the colours of each image; they stay in [0, 1].

        x' = b (m + c (g + s R(h) (x − g) − m)),   g the mean of a pixel's colours, m that of all g

    R turns about the axis of the greys. Opacity stays as it is, and so does what is transparent.

    Arguments:
        images: in [0, 1], ``(B, 3, H, W)`` or RGBA ``(B, 4, H, W)``.
        brightness: factor b, ``(B,)``.
        contrast: factor c, ``(B,)``.
        saturation: factor s, ``(B,)``.
        hue: angle h, ``(B,)`` degrees.

    Raises:
        ValueError: images have other channels.
    """
    if images.shape[1] not in (3, RGBA):
        raise ValueError(f"images of {images.shape[1]} channels have no colours")
    x, alpha = images[:, :3], images[:, 3:]
    b, c, s, turn = (
        each[:, None, None, None]
        for each in (brightness, contrast, saturation, hue * (math.pi / 180))
    )
    grey = x.mean(1, keepdim=True)
    chroma = x - grey
    across = (chroma.roll(1, 1) - chroma.roll(-1, 1)) / math.sqrt(3)  # turned by 90 degrees
    new = grey + s * (turn.cos() * chroma + turn.sin() * across)
    weight = (alpha > 0).to(x) if alpha.shape[1] else torch.ones_like(grey)
    mean = (grey * weight).sum((2, 3), keepdim=True)
    mean = mean / weight.sum((2, 3), keepdim=True).clamp(min=1)
    new = (b * (mean + c * (new - mean))).clamp(0, 1)
    return torch.cat([torch.where(weight > 0, new, x), alpha], 1)


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


def shrunk(images: Tensor, side: int) -> Tensor:
    """Return images, 8-bit or in [0, 1], as floats of at most ``side`` × ``side`` pixels.

    Each is the mean of the pixels that it stands for.
    """
    x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    height, width = (min(side, n) for n in x.shape[2:])
    return functional.adaptive_avg_pool2d(x, (height, width))
