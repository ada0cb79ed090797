"""Optimizers by name, and the learning rate as a function of the step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Adamax, AdamW, Optimizer, RMSprop

from vaelab.config import TrainingConfig
from vaelab.objectives.schedules import Schedule
from vaelab.training.muon import Muon


def build_optimizer(
    config: TrainingConfig, parameters: Iterable[nn.Parameter], device: torch.device
) -> Optimizer:
    """Return the optimizer that the configuration names.

    ``batch-gd`` is plain gradient descent whose step is the gradient over the whole training set:
    the loop accumulates it, the optimizer is `SGD`.
    """
    fused = device.type in ("cpu", "cuda")
    adam = {"betas": tuple(config.betas)}
    heavy = {"momentum": config.momentum, "fused": fused}
    kinds: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
        "batch-gd": (SGD, {"fused": fused}),
        "sgd": (SGD, {"fused": fused}),
        "momentum": (SGD, heavy),
        "nesterov": (SGD, {**heavy, "nesterov": True}),
        "rmsprop": (RMSprop, {}),
        "adam": (Adam, {**adam, "fused": fused}),
        "adamw": (AdamW, {**adam, "fused": fused}),
        "adamax": (Adamax, adam),
        "muon": (Muon, {**adam, "fused": fused}),
    }
    kind, options = kinds[config.optimizer]
    return _eager(kind)(list(parameters), lr=config.lr, weight_decay=config.weight_decay, **options)


def _eager(kind: type[Optimizer]) -> Callable[..., Optimizer]:
    """Return the optimizer without its guards against being compiled.

    Each guard imports the compiler on first use: 1.5 s and 70 MB of every run. Nothing here
    compiles an optimizer. A method of some other version of PyTorch that has no guard stays as
    it is.
    """
    guarded = ("add_param_group", "load_state_dict", "state_dict", "step", "zero_grad")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in guarded}
    methods["step"] = torch.no_grad()(methods["step"])
    eager: type[Optimizer] = type(kind.__name__, (kind,), methods)
    return eager


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
    whole = isinstance(optimizer, (Adam, AdamW)) and not isinstance(optimizer, Muon)
    if finite.is_cuda and whole:
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        optimizer.step()
    elif bool(finite):
        optimizer.step()
