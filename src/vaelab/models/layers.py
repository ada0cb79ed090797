"""Layers that compute what PyTorch's do, from the same parameters: in less time, or in parts.

Feature maps are kept in the channels-last layout, which the convolutions of oneDNN (CPU) and of
cuDNN's tensor cores read without a copy. Batch normalisation and dropout are those of the global
batch where several processes share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vaelab.models import noise
from vaelab.models.global_batch import connected, global_sum

FEW_CHANNELS = 3
"""Up to so many output channels (grey, RGB) the sub-pixel form is the faster one."""


def channels_last(x: Tensor) -> Tensor:
    """Lay images (B, C, H, W) out in memory as (B, H, W, C); the values and the shape stay.

    With one channel both layouts hold the same bytes, and ``Tensor.contiguous`` would keep strides
    that make the next convolution choose the other layout.
    """
    if x.shape[1] == 1:
        return x.reshape(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with the same parameters and results, faster on a CPU.

    oneDNN's operator pads few output channels to a full vector, and in bfloat16 spends longer on
    the gradient of the bias than on that of the weights. So few channels are computed by a
    sub-pixel convolution, and otherwise the bias is added by itself. Other devices, compilation
    and export get PyTorch's own operator. Built from differentiable operations, so gradients of
    any order are right.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (B, in channels, H, W) to (B, out channels, H', W')."""
        if (
            input.device.type != "cpu"
            or torch.compiler.is_compiling()
            or output_size is not None
            or input.dim() != 4
            or self.groups != 1
            or self.dilation != (1, 1)
        ):
            return super().forward(input, output_size)
        if self.out_channels <= FEW_CHANNELS:
            return self._sub_pixel(input)
        padding = cast(tuple[int, int], self.padding)
        y = F.conv_transpose2d(input, self.weight, None, self.stride, padding, self.output_padding)
        return y if self.bias is None else y.add_(self.bias.to(y.dtype).view(-1, 1, 1))

    def _sub_pixel(self, x: Tensor) -> Tensor:
        """Compute the s² pixels of each cell as channels, and shuffle them into place.

        At o + p = s·m + r with 0 ≤ r < s, the transposed convolution y_o = Σ_i x_i w_{o+p−s·i} is
        an ordinary one for each phase r: Σ_j x_{m−j} w_{s·j+r} over q = ⌈k/s⌉ taps, with zeros in
        w beyond k (Shi et al., 2016).
        """
        (sh, sw), (kh, kw) = self.stride, self.kernel_size
        (ph, pw), (oh, ow) = cast(tuple[int, int], self.padding), self.output_padding
        qh, qw = -(-(kh + max(0, oh - ph)) // sh), -(-(kw + max(0, ow - pw)) // sw)
        taps = F.pad(self.weight, (0, qw * sw - kw, 0, qh * sh - kh))
        taps = taps.view(self.in_channels, self.out_channels, qh, sh, qw, sw).flip(2, 4)
        taps = taps.permute(1, 3, 5, 0, 2, 4).reshape(-1, self.in_channels, qh, qw)
        bias = None if self.bias is None else self.bias.repeat_interleave(sh * sw)
        y = F.conv2d(x, taps, bias, padding=(qh - 1, qw - 1))
        batch, _, rows, columns = y.shape
        y = y.view(batch, self.out_channels, sh, sw, rows, columns).permute(0, 1, 4, 2, 5, 3)
        y = y.reshape(batch, self.out_channels, rows * sh, columns * sw)
        height = (x.shape[2] - 1) * sh - 2 * ph + kh + oh
        width = (x.shape[3] - 1) * sw - 2 * pw + kw + ow
        return y[:, :, ph : ph + height, pw : pw + width].contiguous()


class _GlobalBatchNorm(_BatchNorm):
    """Batch normalisation by mean and variance of the global batch; running statistics too."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C) or (B, C, H, W)."""
        if not self.training or not connected() or noise.share() == 1:
            return super().forward(input)
        return self._normalized(input)

    def _normalized(self, x: Tensor) -> Tensor:
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        dims, view = [0, *range(2, x.dim())], (1, -1, *(1,) * (x.dim() - 2))
        count = round(x.numel() / x.shape[1] / noise.share())
        mean = global_sum(values.sum(dims)) / count
        centred = values - mean.view(view)
        variance = global_sum(centred.square().sum(dims)) / count
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        y = centred * scale.view(view)
        if self.affine:
            y = y + self.bias.view(view)
        self._remember(mean.detach(), variance.detach() * count / max(1, count - 1))
        return y.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.momentum is not None
        for running, now in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(now.to(running.dtype), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class BatchNorm1d(_GlobalBatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` over the global batch."""


class BatchNorm2d(_GlobalBatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over the global batch."""


class Dropout(nn.Dropout):
    """`torch.nn.Dropout` whose masks are rows of those of the global batch."""

    def forward(self, input: Tensor) -> Tensor:
        """Set numbers to 0 at random, and scale the others up."""
        return _dropped(self, input, input.shape, super().forward)


class Dropout2d(nn.Dropout2d):
    """`torch.nn.Dropout2d`, which drops whole maps, by rows of masks of the global batch."""

    def forward(self, input: Tensor) -> Tensor:
        """Set maps of (B, C, H, W) to 0 at random, and scale the others up."""
        return _dropped(self, input, (*input.shape[:2], 1, 1), super().forward)


def _dropped(
    module: nn.Dropout | nn.Dropout2d,
    x: Tensor,
    shape: Sequence[int],
    otherwise: Callable[[Tensor], Tensor],
) -> Tensor:
    compiled = torch.compiler.is_compiling() and not connected()
    if not module.training or not 0 < module.p < 1 or compiled:
        return otherwise(x)
    kept = noise.mask(shape, 1 - module.p, device=x.device, dtype=x.dtype)
    return x * kept.div_(1 - module.p)
