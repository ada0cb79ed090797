"""Features of images that need no training and no download: a fixed random network.

Enough to tell which of two sets of images is nearer to a third: random features rank generators
much as learned ones do (Naeem et al., 2020), without labels and at no cost.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaelab.data.warp import shrunk

FEATURES = 64
_SIDE = 64  # pixels; larger images are averaged down to this
_WIDTHS = (32, 64, 128)
_CHUNK = 500


def random_features(images: Tensor, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Return a map from images, 8-bit or in [0, 1], to ``(N, 64)``.

    Three convolutions of stride 2 with orthogonal weights, each followed by a leaky rectifier, an
    average over a grid of 4 × 4 and a linear map.

    Arguments:
        images: ``(n, C, H, W)``, by whose mean and deviation pixels are scaled.
        seed: of the weights.
    """
    x = shrunk(images, _SIDE)
    middle, deviation = x.mean(), x.std(correction=0).clamp(min=1e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(x.shape[1])

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        scaled = ((shrunk(part, _SIDE) - middle) / deviation for part in images.split(_CHUNK))
        return torch.cat([network(part) for part in scaled])

    return features


def _network(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in _WIDTHS:
        layer = nn.Conv2d(channels, width, 3, 2, 1)
        nn.init.orthogonal_(layer.weight, 2**0.5)
        layers += [layer, nn.LeakyReLU(0.1)]
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, FEATURES)
    ).requires_grad_(False)
