"""One player's update: a fresh forward, gradients of its own parameters, a guarded step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from vaelab.config import Binarize, TrainingConfig
from vaelab.data.batches import Batch, binarize
from vaelab.errors import check_seed
from vaelab.models import noise
from vaelab.objectives.objective import Player
from vaelab.training.backend import Backend
from vaelab.training.optimizers import build_optimizer, guarded_step, learning_rate


def mix_seed(*parts: int) -> int:
    """Return a seed made of several numbers, well spread (splitmix64, Steele et al. 2014).

    Every step seeds the generators from (seed, step, …). Noise is then a function of the step: a
    resumed run needs no state of a generator, and processes draw the same noise.
    """
    check_seed(parts[0])
    mask, state = (1 << 64) - 1, 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1


VALIDATION, TARGET, AUGMENT = 1 << 32, 1 << 33, 1 << 34
"""Parts of a seed that no step or player has."""


@dataclass(frozen=True)
class Part:
    """One batch of a step.

    Arguments:
        batch: the images of this process.
        weight: share in the step's loss; sums to the number of processes over all parts of all.
        rows: first and last-plus-one row of this process in the global batch, and its size.
    """

    batch: Batch
    weight: float
    rows: tuple[int, int, int]


def with_target(batch: Batch, how: Binarize) -> Batch:
    """Return the batch with its target made as asked; see `binarize`.

    The encoder sees the binarised images too (Burda et al., 2016), or the greys where they are the
    target.
    """
    if how == "none":
        return batch
    drawn = None
    if how == "dynamic":
        drawn = noise.uniform(batch.images.shape, batch_dim=0, device=batch.images.device)
    target = binarize(batch.images, how, drawn)
    return replace(batch, images=target, target=target)


class Update:
    """What moves one player: optimizer, learning rate, and the guard against non-finite steps.

    Arguments:
        player: loss and parameters.
        number: index of the player, part of the seed of its noise.
        config: of the training.
        steps: of the whole training.
        backend: device and processes.
        guarded: modules whose buffers (running statistics) a skipped step must not touch.
    """

    def __init__(
        self,
        player: Player,
        number: int,
        config: TrainingConfig,
        steps: int,
        backend: Backend,
        guarded: nn.Module,
    ) -> None:
        self.player, self.number, self.seed = player, number, config.seed
        config = config.model_copy(update=dict(player.training))
        self.parameters = [p for p in player.parameters.values() if p.requires_grad]
        self.optimizer = build_optimizer(config, self.parameters, backend.device)
        self.last = math.ceil(player.active * steps)
        self.again = math.ceil(player.restart * steps)  # where the learning rate starts anew
        self.first = learning_rate(config, self.again or self.last)
        self.second, self.clip = learning_rate(config, self.last - self.again), config.clip
        self.backend = backend
        self.buffers = [b for b in guarded.buffers() if b.is_floating_point()]
        zero = torch.zeros((), dtype=torch.int64, device=backend.device)
        self.skipped, self.streak, self.worst = zero.clone(), zero.clone(), zero.clone()

    @property
    def names(self) -> list[str]:
        """Names of the parameters, in the optimizer's order."""
        return [n for n, p in self.player.parameters.items() if p.requires_grad]

    @property
    def guard(self) -> dict[str, Tensor]:
        """The counters of the guard, by name."""
        return {"skipped": self.skipped, "streak": self.streak, "worst": self.worst}

    def lr(self, step: int) -> float:
        """Return the learning rate of a step, 0 where the player rests."""
        if step >= self.last:
            return 0.0
        return (
            self.first(step)
            if step < self.again or not self.again
            else self.second(step - self.again)
        )

    def __call__(
        self, parts: Sequence[Part], step: int, targets: Binarize, turn: int = 0
    ) -> dict[str, Tensor]:
        """Take one step over weighted batches; returns the figures of the loss.

        Arguments:
            parts: the batches.
            step: of the training.
            targets: how the likelihood's targets are made.
            turn: which of the player's updates in this step.
        """
        if step >= self.last:  # it rests, and its running statistics with it
            before = [buffer.clone() for buffer in self.buffers]
            with torch.no_grad():
                seen = self._figures(parts, step, targets, turn)
            for buffer, old in zip(self.buffers, before, strict=True):
                buffer.copy_(old)
            if self.backend.world > 1:
                self.backend.average(list(seen.values()))
            return seen
        for parameter in self.parameters:
            parameter.grad = None
        before = [buffer.clone() for buffer in self.buffers]
        figures = self._figures(parts, step, targets, turn)
        finite = self._finite(figures)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(step)
        guarded_step(self.optimizer, finite)
        for buffer, old in zip(self.buffers, before, strict=True):
            buffer.copy_(torch.where(finite, buffer, old))
        return figures

    def _figures(
        self, parts: Sequence[Part], step: int, targets: Binarize, turn: int
    ) -> dict[str, Tensor]:
        """Return the figures of the loss; with gradients enabled, those are added to."""
        figures: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            with noise.sharded(*part.rows), self.backend.autocast():
                noise.seed(mix_seed(self.seed, step, index, TARGET), self.backend.device)
                batch = with_target(part.batch, targets)  # the same for every player
                noise.seed(
                    mix_seed(self.seed, step, index, self.number, *[turn] * (turn > 0)),
                    self.backend.device,
                )
                loss = self.player.loss(batch, step)
            if torch.is_grad_enabled():
                (loss.total * part.weight).backward(inputs=self.parameters)
            for name, value in loss.figures.items():
                figures[name] = figures.get(name, 0) + value * part.weight
        return figures

    def _finite(self, figures: dict[str, Tensor]) -> Tensor:
        """Average over the processes, clip, and tell whether loss and gradient are finite."""
        if self.backend.world > 1:
            for parameter in self.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self.backend.world > 1:
            self.backend.average(gradients + list(figures.values()))
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.clip:
            clip_grads_with_norm_(self.parameters, self.clip, norm, foreach=True)
        finite = torch.isfinite(norm + figures["loss"])
        self.skipped += ~finite
        self.streak.add_(1).mul_(~finite)
        torch.maximum(self.worst, self.streak, out=self.worst)
        return finite
