"""Fast layers against PyTorch's own, and networks of every kind on images of every shape."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaelab.config import NetworkConfig
from vaelab.errors import ConfigError
from vaelab.models.layers import FEW_CHANNELS, ConvTranspose2d, channels_last
from vaelab.models.networks import build_decoder, build_encoder

SHAPES = [(1, 28, 28), (3, 37, 53), (4, 5, 3), (1, 1, 1)]
KINDS = ["conv", "residual", "mlp"]
NORMALIZATIONS = ["none", "batch", "layer", "group"]
ACTIVATIONS = ["relu", "leaky-relu", "elu", "gelu", "silu", "tanh"]


def network(kind: str = "conv", **values: Any) -> NetworkConfig:
    hidden = [24] if kind == "mlp" else []
    return NetworkConfig.model_validate(
        {"kind": kind, "widths": [8, 16], "hidden": hidden, **values}
    )


def geometries() -> list[tuple[int, int, int, int]]:
    """Kernel, stride, padding and output padding, all that PyTorch accepts."""
    grid = product((1, 2, 3, 4, 5), (1, 2, 3), (0, 1, 2), (0, 1, 2))
    return [(k, s, p, o) for k, s, p, o in grid if o < s and 4 * s - 2 * p + k + o > 0]


@pytest.mark.parametrize("channels", [1, FEW_CHANNELS, FEW_CHANNELS + 1])
@pytest.mark.parametrize("bias", [True, False])
def test_transposed_convolution_equals_that_of_pytorch(channels: int, bias: bool) -> None:
    torch.manual_seed(0)
    for kernel, stride, padding, extra in geometries():
        theirs = nn.ConvTranspose2d(5, channels, kernel, stride, padding, extra, bias=bias).double()
        ours = ConvTranspose2d(5, channels, kernel, stride, padding, extra, bias=bias).double()
        ours.load_state_dict(theirs.state_dict())
        results = []
        x = torch.randn(2, 5, 5, 7, dtype=torch.float64)
        for layer in (theirs, ours):
            inputs = x.clone().requires_grad_()
            y = layer(inputs)
            (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
            results.append([y, inputs.grad, *(p.grad for p in layer.parameters())])
        for expected, got in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_transposed_convolution_takes_different_height_and_width() -> None:
    torch.manual_seed(0)
    for channels in (1, FEW_CHANNELS + 1):
        theirs = nn.ConvTranspose2d(5, channels, (4, 3), (2, 3), (1, 0), (0, 2))
        ours = ConvTranspose2d(5, channels, (4, 3), (2, 3), (1, 0), (0, 2))
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(2, 5, 6, 4)
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours(x, [12, 14]), theirs(x, [12, 14]))


@pytest.mark.parametrize("channels", [1, 3, 32])
def test_transposed_convolution_under_autocast(channels: int) -> None:
    """bfloat16 keeps 8 bits: both must be as near the float32 result as rounding allows."""
    torch.manual_seed(0)
    layer = ConvTranspose2d(32, channels, 4, 2, 1)
    x = channels_last(torch.randn(8, 32, 7, 7)).requires_grad_()
    exact = nn.ConvTranspose2d.forward(layer, x)
    upstream = torch.randn_like(exact)
    expected = torch.autograd.grad(exact, [x, *layer.parameters()], upstream)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    got = torch.autograd.grad(y, [x, *layer.parameters()], upstream.bfloat16())
    for a, b in zip((y, *got), (exact, *expected), strict=True):
        assert a.dtype == (torch.bfloat16 if a is y else torch.float32)
        error = (a.float() - b).norm() / b.norm()
        assert error < 0.01, f"relative error {error:.4f}"


def test_transposed_convolution_has_second_derivatives() -> None:
    torch.manual_seed(0)
    for channels in (1, FEW_CHANNELS + 1):
        layer = ConvTranspose2d(2, channels, 3, 2, 1).double()
        x = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda x, layer=layer: layer(x).tanh(), (x,))


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_keeps_the_values_and_makes_the_convolution_follow(channels: int) -> None:
    x = torch.arange(2 * channels * 6 * 4.0).view(2, channels, 6, 4)
    y = channels_last(x)
    assert torch.equal(x, y)
    assert y.stride() == (24 * channels, 1, 4 * channels, channels)
    assert nn.Conv2d(channels, 8, 3)(y).is_contiguous(memory_format=torch.channels_last)


class Permute(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


def test_default_networks_are_the_plain_convolutional_ones() -> None:
    torch.manual_seed(0)
    config = NetworkConfig()
    encoder = build_encoder(config, (1, 28, 28), 40)
    decoder = build_decoder(config, 20, (1, 28, 28), 1)
    plain_encoder = nn.Sequential(
        *(nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU()),
        *(Permute(0, 2, 3, 1), nn.Flatten(), nn.Linear(64 * 7 * 7, 40)),
    )
    plain_decoder = nn.Sequential(
        *(nn.Linear(20, 64 * 7 * 7), nn.Unflatten(1, (7, 7, 64)), Permute(0, 3, 1, 2), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1)),
    )
    x, z = torch.rand(3, 1, 28, 28), torch.randn(3, 20)
    for ours, plain, inputs in ((encoder, plain_encoder, x), (decoder, plain_decoder, z)):
        states = list(ours.state_dict().values())
        plain.load_state_dict(dict(zip(plain.state_dict(), states, strict=True)))
        torch.testing.assert_close(ours(inputs), plain(inputs))
    encoder_weights = (16 * 32 + 32) + (32 * 64 * 16 + 64) + (3136 * 40 + 40)
    decoder_weights = (20 * 3136 + 3136) + (64 * 32 * 16 + 32) + (32 * 16 + 1)
    assert sum(p.numel() for p in encoder.parameters()) == encoder_weights == 158_856
    assert sum(p.numel() for p in decoder.parameters()) == decoder_weights == 99_169


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_network_fits_every_shape(
    kind: str, normalization: str, shape: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    x, z, context = torch.rand(4, *shape), torch.randn(4, 3), torch.randn(4, 2)
    for activation in ACTIVATIONS:
        config = network(kind, normalization=normalization, activation=activation, dropout=0.1)
        encoder = build_encoder(config, shape, 6, context=2)
        decoder = build_decoder(config, 3, shape, 5, context=2)
        for module, inputs, expected in (
            (encoder, x, (4, 6)),
            (decoder, z, (4, 5, *shape[1:])),
        ):
            y = module(inputs, context)
            assert y.shape == expected
            (y * torch.randn_like(y)).sum().backward()
            for name, parameter in module.named_parameters():
                assert parameter.grad is not None, f"{activation}: no gradient reaches {name}"
                assert parameter.grad.isfinite().all(), f"{activation}: {name}"
                assert parameter.grad.any(), f"{activation}: the gradient of {name} is 0"
            assert not torch.equal(module(inputs, context), module(inputs, context))  # dropout
            module.eval()
            assert torch.equal(module(inputs, context), module(inputs, context))


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("kind", ["conv", "residual"])
def test_strides_and_kernels_mirror_exactly(kind: str, kernel: int) -> None:
    for strides, size in product(([1, 2], [2, 1], [1, 1], [2, 2]), ((5, 8), (1, 2), (7, 6))):
        config = network(kind, strides=strides, kernel=kernel)
        encoder = build_encoder(config, (2, *size), 6)
        height, width = (math.ceil(n / math.prod(strides)) for n in size)
        assert encoder.maps(torch.rand(2, 2, *size)).shape == (2, 16, height, width)
        decoder = build_decoder(config, 3, (2, *size), 5)
        assert decoder.start == (16, height, width)
        assert decoder(torch.randn(2, 3)).shape == (2, 5, *size)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 4, 5, 15])
@pytest.mark.parametrize("stride", [1, 2])
def test_small_maps_do_without_taps_that_meet_nothing(size: int, kernel: int, stride: int) -> None:
    """Every tap of every kernel gets a gradient: those that meet padding alone would get none."""
    config = NetworkConfig(widths=[8], strides=[stride], kernel=kernel, hidden=[])
    torch.manual_seed(0)
    encoder = build_encoder(config, (2, size, size), 3)
    decoder = build_decoder(config, 3, (2, size, size), 2)
    images = torch.rand(64, 2, size, size)
    encoder(images).square().sum().backward()
    decoder(torch.randn(64, 3)).square().sum().backward()
    for network in (encoder, decoder):
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                gradient = module.weight.grad
                assert gradient is not None
                assert bool((gradient.abs().sum((0, 1)) > 0).all())
                assert gradient.abs().max() < 1e4


def test_decoder_is_the_adjoint_of_the_encoder() -> None:
    """With shared weights and no activations, <E x, y> = <x, D y>: nothing is shifted."""
    torch.manual_seed(0)
    for size in ((6, 7), (5, 8)):
        encoder = build_encoder(network(widths=[3]), (2, *size), 4).maps[0]
        decoder = build_decoder(network(widths=[3]), 4, (2, *size), 2).maps[-1]
        assert isinstance(encoder, nn.Conv2d)
        assert isinstance(decoder, ConvTranspose2d)
        decoder.weight = encoder.weight
        x = torch.randn(1, 2, *size)
        features = encoder(x)
        y = torch.randn_like(features)
        torch.testing.assert_close((features * y).sum(), (x * decoder(y)).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_context_changes_the_output_and_is_checked(kind: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(network(kind), (1, 6, 6), 4, context=3)
    decoder = build_decoder(network(kind), 2, (1, 6, 6), 1, context=3)
    zero, one = torch.zeros(2, 3), torch.ones(2, 3)
    for module, inputs in ((encoder, torch.rand(2, 1, 6, 6)), (decoder, torch.randn(2, 2))):
        assert (module(inputs, zero) - module(inputs, one)).abs().max() > 1e-3
        with pytest.raises(ConfigError, match=r"got 0 numbers.* built for 3"):
            module(inputs)
        with pytest.raises(ConfigError, match=r"got 2 numbers.* built for 3"):
            module(inputs, torch.zeros(2, 2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [1, 2])
def test_output_bias_is_the_output_where_all_else_is_zero(kind: str, stride: int) -> None:
    decoder = build_decoder(network(kind, strides=[2, stride]), 2, (3, 5, 4), 3)
    for parameter in decoder.parameters():
        nn.init.zeros_(parameter)
    bias = torch.tensor([-1.0, 0.5, 2.0])
    decoder.start_around(bias)
    assert torch.equal(decoder(torch.randn(2, 2)), bias.view(1, 3, 1, 1).expand(2, 3, 5, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_trains_except_where_batch_norm_sees_one_number(kind: str) -> None:
    for normalization in NORMALIZATIONS:
        encoder = build_encoder(network(kind, normalization=normalization), (1, 9, 9), 4)
        if kind == "mlp" and normalization == "batch":
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                encoder(torch.rand(1, 1, 9, 9))
        else:
            assert encoder(torch.rand(1, 1, 9, 9)).isfinite().all()


def test_normalization_of_a_single_number_is_refused() -> None:
    for normalization in ("layer", "group"):
        with pytest.raises(ConfigError, match="Use wider layers, batch or none"):
            build_encoder(network("mlp", hidden=[1], normalization=normalization), (1, 2, 2), 3)
        with pytest.raises(ConfigError, match="Use wider layers, batch or none"):
            build_decoder(network(widths=[1], normalization=normalization), 2, (1, 1, 1), 1)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_signal_keeps_its_variance(activation: str) -> None:
    """After five layers as after one: var y = E f(u)² for the last layer, which has gain 1."""
    torch.manual_seed(0)
    u = torch.randn(1_000_000)
    module = {"relu": nn.ReLU, "leaky-relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU}
    f = {**module, "silu": nn.SiLU, "tanh": nn.Tanh}[activation]()
    config = network("mlp", hidden=[512] * 5, activation=activation)
    output = build_decoder(config, 512, (1, 16, 16), 1)(torch.randn(512, 512))
    ratio = output.square().mean() / f(u).square().mean()
    assert 0.7 < ratio < 1.4


def test_dropout_leaves_out_whole_maps_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    encoder = build_encoder(network(widths=[64], dropout=0.25, activation="elu"), (1, 8, 8), 4)
    maps = encoder.maps(torch.rand(50, 1, 8, 8))
    dropped = (maps == 0).flatten(2).all(-1)
    assert torch.equal(dropped, (maps == 0).flatten(2).any(-1))
    # 3,200 maps: the standard error of the share is 0.0077.
    assert abs(dropped.float().mean().item() - 0.25) < 0.03
