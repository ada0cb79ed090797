"""Optimizers by name, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Adamax, AdamW, Optimizer, RMSprop

from vaelab.config import TrainingConfig
from vaelab.objectives.schedules import Schedule


def build_optimizer(
    config: TrainingConfig, parameters: Iterable[nn.Parameter], device: torch.device
) -> Optimizer:
    """Return the optimizer that the configuration names.

    ``batch-gd`` is plain gradient descent whose step is the gradient over the whole training set:
    the loop accumulates it, the optimizer is `SGD`.
    """
    fused = device.type in ("cpu", "cuda")
    beta1, beta2 = config.betas
    lr, decay, momentum = config.lr, config.weight_decay, config.momentum
    makers: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
        "batch-gd": lambda p: SGD(p, lr, weight_decay=decay, fused=fused),
        "sgd": lambda p: SGD(p, lr, weight_decay=decay, fused=fused),
        "momentum": lambda p: SGD(p, lr, momentum, weight_decay=decay, fused=fused),
        "nesterov": lambda p: SGD(p, lr, momentum, 0, decay, nesterov=True, fused=fused),
        "rmsprop": lambda p: RMSprop(p, lr, weight_decay=decay),
        "adam": lambda p: Adam(p, lr, (beta1, beta2), weight_decay=decay, fused=fused),
        "adamw": lambda p: AdamW(p, lr, (beta1, beta2), weight_decay=decay, fused=fused),
        "adamax": lambda p: Adamax(p, lr, (beta1, beta2), weight_decay=decay),
    }
    return makers[config.optimizer](list(parameters))


def learning_rate(config: TrainingConfig, steps: int) -> Schedule:
    """Return the learning rate of each step, 0-based.

    With u the share of training done after the linear warm-up (``lr_warmup``; 0.3 for one-cycle
    unless set):

        constant   lr
        cosine     lr · ½(1 + cos πu), down to 0
        one-cycle  up from lr/25 and down to lr/10⁴, both along half a cosine (Smith and Topin,
        2018)
    """
    peak = config.lr
    one_cycle = config.schedule == "one-cycle"
    share = config.lr_warmup or (0.3 if one_cycle else 0.0)
    rising = share * steps
    start = peak / 25 if one_cycle else 0.0
    end = {"constant": peak, "cosine": 0.0, "one-cycle": peak / 1e4}[config.schedule]

    def rate(step: int) -> float:
        if step < rising:
            done = (step + 1) / rising if not one_cycle else step / rising
            shape = min(1.0, done) if not one_cycle else (1 - math.cos(math.pi * done)) / 2
            return start + (peak - start) * shape
        done = (step - rising) / max(1.0, steps - 1 - rising)
        return end + (peak - end) * (1 + math.cos(math.pi * min(1.0, done))) / 2

    return rate


def guarded_step(optimizer: Optimizer, finite: Tensor) -> None:
    """Take the step only when ``finite``, a boolean scalar on the device.

    Fused Adam on a GPU decides on the device, without waiting for it; the others read the flag.
    """
    if finite.is_cuda and isinstance(optimizer, (Adam, AdamW)):
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        optimizer.step()
    elif bool(finite):
        optimizer.step()
