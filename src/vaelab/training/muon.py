"""Muon: steps of matrices along the orthogonalised momentum.

`torch.optim.Muon` takes matrices alone, no convolutions, and computes in bfloat16, which is slow on
most CPUs. So it is written here, over PyTorch's AdamW.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import AdamW

ITERATIONS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315
_RMS = 0.2  # root mean square of an update of AdamW, about


class Muon(AdamW):
    r"""Muon for matrices, AdamW for all else (biases, scales).

    A parameter with gradient G, laid out as a matrix of n rows, its first dimension, and m columns,
    all others, is one if n, m > 1; a scale of shape ``(1, 1, 1)`` is none. Then

    .. math::

        M \leftarrow \mu M + G, \qquad
        W \leftarrow (1 - \eta\lambda) W - 0.2\,\eta\,\sqrt{\max(n, m)}\; \mathrm{NS}(G + \mu M)

    NS(X) is about UVᵀ of X = USVᵀ; the factor makes the root mean square of its entries that of
    AdamW's updates, so that one learning rate η serves both (Jordan et al., 2024; Liu et al.,
    2025).

    Arguments:
        params: parameters.
        lr: η.
        betas: of AdamW.
        weight_decay: λ.
        momentum: μ.
        fused: AdamW in one kernel.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr, betas, weight_decay=weight_decay, fused=fused)
        for group in self.param_groups:
            group["momentum"] = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step; a parameter without a gradient stays."""
        assert closure is None
        gradients: list[tuple[nn.Parameter, Tensor]] = []
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and is_matrix(weight):
                    self._step(weight, group["lr"], group["weight_decay"], group["momentum"])
                    gradients.append((weight, weight.grad))
                    weight.grad = None
        _ADAMW_STEP(self)
        for weight, gradient in gradients:
            weight.grad = gradient

    def _step(self, weight: nn.Parameter, lr: float, decay: float, momentum: float) -> None:
        gradient, state = weight.grad, self.state[weight]
        assert gradient is not None
        if not state:
            state["step"] = torch.zeros(())  # which AdamW expects of every parameter
            state["momentum_buffer"] = torch.zeros_like(weight)
        state["step"] += 1
        mean = state["momentum_buffer"].mul_(momentum).add_(gradient)
        direction = orthogonalized(gradient.add(mean, alpha=momentum).flatten(1))
        length = _RMS * lr * math.sqrt(max(direction.shape))
        weight.mul_(1 - lr * decay).add_(direction.view(weight.shape), alpha=-length)


def is_matrix(weight: Tensor) -> bool:
    """Tell whether a parameter has more than one row, and more than one column."""
    return weight.dim() > 1 and min(weight.flatten(1).shape) > 1


_ADAMW_STEP = inspect.unwrap(AdamW.step)
"""Without the guard against being compiled, which imports the compiler; see `build_optimizer`."""


def orthogonalized(x: Tensor, iterations: int = ITERATIONS) -> Tensor:
    r"""Return about the orthogonal matrix UVᵀ nearest to X = USVᵀ, ``(n, m)``.

    Newton–Schulz iterations X ← pX with p = a + bA + cA² and A = XXᵀ, from X over its Frobenius
    norm. Five bring singular values from a hundredth of the norm on to between 0.68 and 1.21
    (Jordan et al., 2024). The p of all iterations are polynomials of the first A, so they are
    multiplied among themselves, A ← pAp, and with X once: matrices of min(n, m) rows alone.
    """
    tall = x.shape[0] > x.shape[1]
    x = (x.T if tall else x) / (x.norm() + 1e-7)
    gram, product = x @ x.T, torch.empty(0)
    for k in range(iterations):
        factor = torch.addmm(gram, gram, gram, beta=_B, alpha=_C)
        factor.diagonal().add_(_A)
        product = factor @ product if k else factor
        if k < iterations - 1:
            gram = factor @ gram @ factor
    x = product @ x
    return x.T if tall else x
