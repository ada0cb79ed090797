"""Networks as the explorer's script runs them: a list of layers, and their weights as numbers.

A network is walked module by module. Images are kept as (H, W, C) throughout, as `Encoder` and
`Decoder` keep theirs in memory. Matrices and kernels are stored as float16, vectors (biases and
normalisations) as float32. A module whose exact class is not in the tables below is refused: a
subclass may compute something else.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vaelab.errors import ConfigError
from vaelab.models.layers import (
    BatchNorm1d,
    BatchNorm2d,
    ConvTranspose2d,
    Dropout,
    Dropout2d,
)
from vaelab.models.networks import Decoder, Encoder, Offset, ResidualBlock, Whitening

Layer = dict[str, Any]
Module = TypeVar("Module", bound=nn.Module)
LARGEST = float(torch.finfo(torch.float16).max)


class Unsupported(ConfigError):
    """A part of a model that the page cannot run."""


class Weights:
    """Numbers of all networks, one after another; a layer holds where its own are.

    Places are ``[first, count]``, in units of numbers.
    """

    def __init__(self) -> None:
        self._halves: list[Tensor] = []
        self._singles: list[Tensor] = []

    def half(self, values: Tensor) -> list[int]:
        """Keep a tensor as float16, rows last to first as it lies; returns its place."""
        return _append(self._halves, values)

    def single(self, values: Tensor | None) -> list[int] | None:
        """Keep a vector as float32; returns its place, or None for none."""
        return None if values is None else _append(self._singles, values)

    def encoded(self) -> dict[str, str]:
        """Return both kinds in base64, little-endian."""
        return {
            "halves": base64_of(_joined(self._halves).numpy().astype("<f2")),
            "singles": base64_of(_joined(self._singles).numpy().astype("<f4")),
        }


def base64_of(values: np.ndarray[Any, Any]) -> str:
    """Return the bytes of an array in base64."""
    return base64.b64encode(values.tobytes()).decode()


def rounded(module: Module) -> Module:
    """Return a copy whose matrices and kernels are rounded to float16, as the page holds them.

    Raises:
        Unsupported: a weight is not finite, or beyond the range of float16.
    """
    same = copy.deepcopy(module)
    with torch.no_grad():
        for name, parameter in same.named_parameters():
            if not parameter.isfinite().all() or parameter.abs().amax() > LARGEST:
                raise Unsupported(
                    f"explorer: {name} holds weights beyond ±{LARGEST:.0f} or not finite, so "
                    "training has diverged. Train again with training.clip=1."
                )
            if parameter.ndim > 1:
                parameter.copy_(parameter.half())
    return same


def network(module: nn.Module, weights: Weights) -> list[Layer]:
    """Return the layers of an encoder or decoder.

    Raises:
        Unsupported: it is another network, or has a layer that the page cannot run.
    """
    if type(module) is Encoder:
        enter = list(layers(module.enter, weights))
        below = list(layers(module.maps, weights))
        told: list[Layer] = []
        if module.context:
            told = [{"op": "context-planes" if module.maps else "context"}]
        start = [*told, *below, {"op": "flatten"}] if module.maps else [{"op": "planes"}, *told]
        return [*enter, *start, *layers(module.head, weights)]
    if type(module) is Decoder:
        told = [{"op": "context"}] if module.context else []
        channels, height, width = module.start
        op = "shape" if module.maps else "interleave"
        made = {"op": op, "height": height, "width": width, "channels": channels}
        return [*told, *layers(module.head, weights), made, *layers(module.maps, weights)]
    raise Unsupported(f"a network of the class {type(module).__name__}")


def layers(module: nn.Module, weights: Weights) -> Iterable[Layer]:
    """Yield the layers that a module stands for; dropout is none.

    Raises:
        Unsupported: the page cannot run it.
    """
    kind = type(module)
    if isinstance(module, nn.Sequential) and kind is nn.Sequential:
        for part in module:
            yield from layers(part, weights)
    elif kind in _LAYERS:
        yield _LAYERS[kind](module, weights)
    elif kind not in _NOTHING:
        raise Unsupported(f"a layer of the class {kind.__name__}")


_NOTHING = {nn.Dropout, nn.Dropout2d, Dropout, Dropout2d, nn.Identity}


def _linear(module: nn.Linear, weights: Weights) -> Layer:
    return {
        "op": "linear",
        "inputs": module.in_features,
        "outputs": module.out_features,
        "weight": weights.half(module.weight),
        "bias": weights.single(module.bias),
    }


def _convolution(op: str, order: tuple[int, ...]) -> Callable[[Any, Weights], Layer]:
    """Describe a convolution whose kernel becomes (rows, columns, inputs, outputs)."""

    def describe(module: nn.Conv2d | nn.ConvTranspose2d, weights: Weights) -> Layer:
        plain = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
        if not plain or isinstance(module.padding, str):
            raise Unsupported("a convolution with groups, dilation or padding other than zeros")
        return {
            "op": op,
            "inputs": module.in_channels,
            "outputs": module.out_channels,
            "kernel": list(module.kernel_size),
            "stride": list(module.stride),
            "padding": list(module.padding),
            "extra": list(module.output_padding),
            "weight": weights.half(module.weight.permute(order)),
            "bias": weights.single(module.bias),
        }

    return describe


def _batch_norm(module: _BatchNorm, weights: Weights) -> Layer:
    """Describe what it does in evaluation: a scale and a shift of each channel."""
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        raise Unsupported("a batch normalisation without running statistics")
    scale = (variance.double() + module.eps).rsqrt()
    if module.affine:
        scale = scale * module.weight.double()
    shift = -mean.double() * scale
    if module.affine:
        shift = shift + module.bias.double()
    return {"op": "affine", "scale": weights.single(scale), "shift": weights.single(shift)}


def _group_norm(module: nn.GroupNorm, weights: Weights) -> Layer:
    if not module.affine:
        raise Unsupported("a group normalisation without scale and shift")
    return {
        "op": "group-norm",
        "groups": module.num_groups,
        "epsilon": module.eps,
        "scale": weights.single(module.weight),
        "shift": weights.single(module.bias),
    }


def _activation(name: str, constant: str | None = None) -> Callable[[Any, Weights], Layer]:
    def describe(module: nn.Module, weights: Weights) -> Layer:
        if getattr(module, "approximate", "none") != "none":
            raise Unsupported("an approximate GELU")
        return {"op": name, "constant": getattr(module, constant) if constant else 0}

    return describe


def _upsample(module: nn.Upsample, weights: Weights) -> Layer:
    if module.mode != "nearest" or not isinstance(module.size, tuple):
        raise Unsupported("an upsampling other than to the nearest of a given size")
    return {"op": "upsample", "height": module.size[0], "width": module.size[1]}


def _zero_pad(module: nn.ZeroPad2d, weights: Weights) -> Layer:
    left, right, top, bottom = module.padding
    if left or top:
        raise Unsupported("padding before the first row or column")
    return {"op": "pad", "right": right, "bottom": bottom}


def _whitening(module: Whitening, weights: Weights) -> Layer:
    """Describe a matrix, kept row by row as float32, of the channels of every pixel."""
    return {
        "op": "mix",
        "scale": weights.single(module.matrix),
        "shift": weights.single(-module.matrix @ module.centre),
    }


def _offset(module: Offset, weights: Weights) -> Layer:
    return {"op": "plus", "shift": weights.single(module.image.permute(1, 2, 0))}


def _residual(module: ResidualBlock, weights: Weights) -> Layer:
    body = [*layers(module.first, weights), *layers(module.second, weights)]
    return {"op": "residual", "body": body}


_LAYERS: dict[type[nn.Module], Callable[[Any, Weights], Layer]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution("conv", (2, 3, 1, 0)),
    nn.ConvTranspose2d: _convolution("deconv", (2, 3, 0, 1)),
    ConvTranspose2d: _convolution("deconv", (2, 3, 0, 1)),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    BatchNorm1d: _batch_norm,
    BatchNorm2d: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.ReLU: _activation("relu"),
    nn.LeakyReLU: _activation("leaky-relu", "negative_slope"),
    nn.ELU: _activation("elu", "alpha"),
    nn.GELU: _activation("gelu"),
    nn.SiLU: _activation("silu"),
    nn.Tanh: _activation("tanh"),
    nn.Upsample: _upsample,
    nn.ZeroPad2d: _zero_pad,
    ResidualBlock: _residual,
    Whitening: _whitening,
    Offset: _offset,
}


def _append(parts: list[Tensor], values: Tensor) -> list[int]:
    first = sum(part.numel() for part in parts)
    parts.append(values.detach().cpu().float().flatten())
    return [first, values.numel()]


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0)
