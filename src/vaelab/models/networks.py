"""Encoders and decoders for images of any shape: convolutional, residual or fully connected.

An encoder maps images (B, C, H, W) to features (B, F); a decoder maps codes (B, D) to the
parameters (B, P, H, W) of a likelihood. Both can take a context (B, K), such as the label of a
conditional model. Weights start so that the signal keeps its variance (He et al., 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from vaelab.config import NetworkConfig
from vaelab.data.summary import Pixels
from vaelab.errors import ConfigError
from vaelab.models.layers import (
    BatchNorm1d,
    BatchNorm2d,
    ConvTranspose2d,
    Dropout,
    Dropout2d,
    channels_last,
)

Shape = tuple[int, int, int]
Size = tuple[int, int]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_WIDE = 256  # numbers of a context beyond which its planes are not written out


class Whitening(nn.Module):
    """W (x − m) of every pixel: channels of covariance I, by the images that a network learns from.

        W = (Σ + ε I)^(−1/2)

    which keeps hues as they are seen (ZCA), where ε, a thousandth of the mean variance, bounds what
    hardly varies. Without it the brightness, which varies most, drowns the colours.
    """

    matrix: Tensor
    centre: Tensor

    def __init__(self, pixels: Pixels) -> None:
        super().__init__()
        covariance = torch.eye(len(pixels.mean)) if pixels.covariance is None else pixels.covariance
        values, vectors = torch.linalg.eigh(covariance.double())
        least = (values.mean() / 1000).clamp(min=1e-6)
        matrix = vectors * (values.clamp(min=0) + least).rsqrt() @ vectors.T
        self.register_buffer("matrix", matrix.float())
        self.register_buffer("centre", pixels.colour.float())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return conv2d(x, self.matrix[:, :, None, None], -self.matrix @ self.centre)


class Offset(nn.Module):
    """x + an image: what a decoder makes of a code is a difference from it."""

    image: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.register_buffer("image", torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, P, H, W) to the same shape."""
        return x + self.image


class Encoder(nn.Module):
    """Images (B, C, H, W), and a context (B, K) if built with one, to features (B, F)."""

    def __init__(
        self, maps: nn.Sequential, head: nn.Sequential, context: int, enter: nn.Module
    ) -> None:
        super().__init__()
        self.enter, self.maps, self.head, self.context = enter, maps, head, context

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the features (B, F); raises `ConfigError` for a context of another width."""
        features: Tensor = self.head[-1](self.below(x, context))
        return features

    def below(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the activations below the last layer."""
        context = _checked(context, self.context)
        x = self.enter(x)
        hidden: Tensor
        if not self.maps:  # fully connected: the context joins the pixels
            x = x.flatten(1)
            hidden = self.head[:-1](x if context is None else torch.cat([x, context], 1))
            return hidden
        if context is not None and self.context > _WIDE:
            x = self.maps[1:](self._beside_many(x, context))
        else:
            if context is not None:
                x = torch.cat([x, context[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)
            x = self.maps(channels_last(x))
        hidden = self.head[:-1](x.permute(0, 2, 3, 1).flatten(1))  # (H, W, C): as in memory
        return hidden

    def _beside_many(self, x: Tensor, context: Tensor) -> Tensor:
        """Return the first layer of images beside K constant planes, without the planes.

        Σₖ cₖ (1 ∗ wₖ) = 1 ∗ (Σₖ cₖ wₖ): a plane of ones is convolved with one kernel an image. With
        10,000 classes the planes would take gigabytes.
        """
        first: Any = self.maps[0]
        layers: list[Any] = [*first] if isinstance(first, nn.Sequential) else [first]
        *before, conv = layers
        ones, pixels = x.new_ones(1, 1, *x.shape[2:]), channels_last(x)
        for layer in before:
            ones, pixels = layer(ones), layer(pixels)
        of_pixels, of_context = conv.weight.split([x.shape[1], self.context], 1)
        how: dict[str, Any] = {"stride": conv.stride, "padding": conv.padding}
        kernels = torch.einsum("bk,okhw->bohw", context, of_context)
        known = conv2d(ones, kernels.flatten(0, 1)[:, None], **how)
        y = conv2d(pixels, of_pixels, conv.bias, **how)
        return y + known.view(len(x), -1, *known.shape[2:])


class Decoder(nn.Module):
    """Codes (B, D), and a context (B, K) if built with one, to parameters (B, P, H, W)."""

    def __init__(
        self, head: nn.Sequential, maps: nn.Sequential, start: Shape, channels: int, context: int
    ) -> None:
        super().__init__()
        self.head, self.maps, self.context = head, maps, context
        self.start, self.channels = start, channels

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters (B, P, H, W); raises `ConfigError` for a context of other width."""
        context = _checked(context, self.context)
        x: Tensor = self.head(z if context is None else torch.cat([z, context], 1))
        channels, height, width = self.start
        if not self.maps:
            return x.view(-1, channels, height, width)
        x = self.maps(x.view(-1, height, width, channels).permute(0, 3, 1, 2))
        return x

    @torch.no_grad()
    def start_around(self, bias: Tensor) -> None:
        """Let the output start around ``bias`` (P,), such as the logit of the mean colour.

        The last layer of an mlp has a bias for each pixel; all of a channel get the same.
        """
        last = self._last()
        assert last.bias is not None
        last.bias.view(self.channels, -1).copy_(bias.view(-1, 1))

    @torch.no_grad()
    def start_at(self, image: Tensor) -> None:
        """Let the output start at ``image`` (P, H, W), whatever the code."""
        last = self._last()
        assert last.bias is not None
        last.weight.zero_()
        last.bias.zero_()
        if isinstance(offset := self.maps[-1] if self.maps else None, Offset):
            offset.image.copy_(image)
        else:
            last.bias.copy_(image.flatten())

    def _last(self) -> Layer:
        """The last layer that has weights."""
        last = [module for module in self.modules() if isinstance(module, _LAYERS)][-1]
        assert isinstance(last, _LAYERS)
        return last


class ResidualBlock(nn.Module):
    """x + f(x), where f is two 3×3 convolutions, each after normalisation and activation.

    The pre-activation form (He et al., 2016).
    """

    def __init__(self, config: NetworkConfig, width: int, size: Size) -> None:
        super().__init__()
        bias = config.normalization != "batch"
        self.first = nn.Sequential(
            *_activated(config, width, size, dropout=False),
            _same(width, width, 3, size, bias),
        )
        self.second = nn.Sequential(
            *_activated(config, width, size), _same(width, width, 3, size, True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        y: Tensor = x + self.second(self.first(x))
        return y


def build_encoder(
    config: NetworkConfig,
    shape: Shape,
    features: int,
    context: int = 0,
    pixels: Pixels | None = None,
) -> Encoder:
    """Build the network from images (B, *shape) in [0, 1] to ``features`` numbers each.

    A context of ``context`` numbers enters as constant planes beside the channels, or beside the
    pixels of an mlp. With ``pixels`` images are whitened
    first. A convolution of stride s turns H rows into ⌈H/s⌉, so any size will do.
    Raises `ConfigError` where a normalisation would see a single number.
    """
    channels, *size = shape
    maps = nn.Sequential()
    inputs = math.prod(shape) + context
    if config.kind != "mlp":
        sizes = _sizes(config, (size[0], size[1]))
        widths = [channels + context, *config.widths]
        for i, stride in enumerate(_strides(config)):
            maps.append(_down(config, widths[i], widths[i + 1], sizes[i], stride))
            if config.kind == "residual":
                maps.append(ResidualBlock(config, widths[i + 1], sizes[i + 1]))
            else:
                maps.extend(_activated(config, widths[i + 1], sizes[i + 1]))
        if config.kind == "residual":
            maps.extend(_activated(config, widths[-1], sizes[-1]))
        inputs = widths[-1] * math.prod(sizes[-1])
    head = _fully_connected(config, [inputs, *config.hidden], features)
    _initialize(nn.Sequential(maps, head), config)
    return Encoder(maps, head, context, Whitening(pixels) if pixels else nn.Identity())


def build_decoder(
    config: NetworkConfig,
    code: int,
    shape: Shape,
    channels: int,
    context: int = 0,
    offset: bool = False,
) -> Decoder:
    """Build the mirror image of the encoder: codes (B, ``code``) to (B, ``channels``, H, W).

    The context enters beside the code, and nothing follows the last layer but, with ``offset``, the
    image that `Decoder.start_at` sets. Raises `ConfigError` as `build_encoder` does.
    """
    size = (shape[1], shape[2])
    maps = nn.Sequential()
    start = (channels, *size)
    if config.kind != "mlp":
        sizes = _sizes(config, size)[::-1]
        widths = [*reversed(config.widths), channels]
        for i, stride in enumerate(reversed(_strides(config))):
            last = i == len(config.widths) - 1
            if config.kind == "residual":
                maps.append(ResidualBlock(config, widths[i], sizes[i]))
            if config.kind == "conv" or last:
                maps.extend(_activated(config, widths[i], sizes[i]))
            maps.append(_up(config, widths[i], widths[i + 1], sizes[i + 1], stride, last))
        start = (widths[0], *sizes[0])
    if maps and offset:
        maps.append(Offset((channels, *size)))
    fully = [code + context, *reversed(config.hidden)]
    head = _fully_connected(config, fully, math.prod(start))
    _initialize(nn.Sequential(head, maps), config)
    return Decoder(head, maps, start, channels, context)


def _checked(context: Tensor | None, width: int) -> Tensor | None:
    got = 0 if context is None else context.shape[1]
    if got != width:
        raise ConfigError(f"context: got {got} numbers, but the network was built for {width}.")
    return context


def _strides(config: NetworkConfig) -> list[int]:
    return [2] * len(config.widths) if config.strides is None else list(config.strides)


def _sizes(config: NetworkConfig, size: Size) -> list[Size]:
    """Height and width of the image and after each convolution."""
    sizes = [size]
    for stride in _strides(config):
        sizes.append((-(-sizes[-1][0] // stride), -(-sizes[-1][1] // stride)))
    return sizes


def _taps(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how many taps of a kernel ever meet the image, and the zeros at each end.

    For ⌈size/stride⌉ outputs. Where the image is smaller than the kernel some taps would meet zeros
    alone; they are left out, for oneDNN leaves their gradients undefined.
    """
    way = (-(-size // stride) - 1) * stride
    padding = max(0, way + kernel - size + 1) // 2
    first, last = max(0, padding - way), min(kernel - 1, size - 1 + padding)
    return last - first + 1, padding - first


def _same(before: int, after: int, kernel: int, size: Size, bias: bool) -> nn.Module:
    """Return a convolution that keeps the size; an even kernel needs one zero more at the end."""
    high, wide = (min(kernel, 2 * side - 1) for side in size)
    padding = ((high - 1) // 2, (wide - 1) // 2)
    conv = nn.Conv2d(before, after, (high, wide), padding=padding, bias=bias)
    more = (0, 1 - wide % 2, 0, 1 - high % 2)
    return nn.Sequential(nn.ZeroPad2d(more), conv) if any(more) else conv


def _down(config: NetworkConfig, before: int, after: int, large: Size, stride: int) -> nn.Module:
    bias = config.kind == "residual" or config.normalization != "batch"
    if stride == 1:
        return _same(before, after, config.kernel, large, bias)
    (high, up), (wide, left) = (_taps(side, config.kernel, stride) for side in large)
    return nn.Conv2d(before, after, (high, wide), stride, (up, left), bias=bias)


def _up(
    config: NetworkConfig, before: int, after: int, large: Size, stride: int, last: bool
) -> nn.Module:
    """Return the mirror of `_down`.

    That is its transpose, or for residual networks a convolution after nearest-neighbour
    upsampling, which leaves no checkerboard (Odena et al., 2016).
    """
    bias = last or config.kind == "residual" or config.normalization != "batch"
    if stride == 1:
        return _same(before, after, config.kernel, large, bias)
    if config.kind == "residual":
        return nn.Sequential(nn.Upsample(large), _same(before, after, config.kernel, large, bias))
    (high, up), (wide, left) = (_taps(side, config.kernel, stride) for side in large)
    extra = (_lacks(large[0], high, up, stride), _lacks(large[1], wide, left, stride))
    return ConvTranspose2d(before, after, (high, wide), stride, (up, left), extra, bias=bias)


def _lacks(size: int, kernel: int, padding: int, stride: int) -> int:
    """Return by how much a transposed convolution of ⌈size/stride⌉ inputs is shorter than it."""
    return size - ((-(-size // stride) - 1) * stride + kernel - 2 * padding)


def _fully_connected(config: NetworkConfig, widths: list[int], outputs: int) -> nn.Sequential:
    layers = nn.Sequential()
    for before, after in pairwise(widths):
        layers.append(nn.Linear(before, after, bias=config.normalization != "batch"))
        layers.extend(_activated(config, after))
    return layers.append(nn.Linear(widths[-1], outputs))


def _activated(
    config: NetworkConfig, width: int, size: Size | None = None, dropout: bool = True
) -> Iterable[nn.Module]:
    """Yield normalisation, activation and dropout, each where there is one.

    Dropout leaves out whole feature maps, since the neighbours of a pixel would tell its value
    (Tompson et al., 2015).
    """
    if config.normalization == "batch":
        yield BatchNorm2d(width) if size else BatchNorm1d(width)
    elif config.normalization != "none":
        groups = 1 if config.normalization == "layer" else _groups(width)
        if math.prod(size or (1,)) * width == groups:
            raise ConfigError(
                f"normalization: {config.normalization} over a single number leaves nothing of it "
                f"(width {width}). Use wider layers, batch or none."
            )
        yield nn.GroupNorm(groups, width)
    yield ACTIVATIONS[config.activation]()
    if dropout and config.dropout:
        yield Dropout2d(config.dropout) if size else Dropout(config.dropout)


def _groups(width: int) -> int:
    """As many groups as divide the width, up to 8, with at least 4 channels in each."""
    return max(g for g in range(1, 9) if g == 1 or (width % g == 0 and width // g >= 4))


@torch.no_grad()
def _initialize(network: nn.Module, config: NetworkConfig) -> None:
    """Draw weights of variance gain² / fan-in and set biases to 0.

    The first layer, whose input no activation has shrunk, and the last have gain 1. The branches
    of L residual blocks are scaled by 1/√L, so that their sum stays of order one.
    """
    layers = [module for module in network.modules() if isinstance(module, _LAYERS)]
    gain = _gain(config.activation)
    for layer in layers:
        inputs = layer.weight[0].numel()
        if isinstance(layer, nn.ConvTranspose2d):  # each output sees 1/s² of the kernel
            inputs = layer.in_channels * math.prod(layer.kernel_size) // math.prod(layer.stride)
        scale = 1.0 if layer in (layers[0], layers[-1]) else gain
        nn.init.normal_(layer.weight, std=scale / math.sqrt(max(1, inputs)))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    branches = [
        module.second[-1] for module in network.modules() if isinstance(module, ResidualBlock)
    ]
    for conv in branches:
        assert isinstance(conv, nn.Conv2d)
        conv.weight.div_(math.sqrt(len(branches)))


def _gain(activation: str) -> float:
    """Return (E f(u)²)^(−1/2) for u ~ N(0, 1): √2 for ReLU (He et al., 2015)."""
    u = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = torch.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)
    power = torch.trapezoid(density * ACTIVATIONS[activation]()(u) ** 2, u)
    return 1 / math.sqrt(power.item())
