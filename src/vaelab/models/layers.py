"""Layers that compute what PyTorch's do, from the same parameters, in less time.

Feature maps are kept in the channels-last layout, which the convolutions of oneDNN (CPU) and of
cuDNN's tensor cores read without a copy.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
