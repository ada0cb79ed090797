"""The paths of optimizers over loss surfaces of two dimensions, which show what momentum does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vaelab.config import TrainingConfig
from vaelab.data.batches import Batch, epoch_order, fetch
from vaelab.data.images import Splits
from vaelab.data.summary import pixels_of
from vaelab.models import noise
from vaelab.models.conditioning import Told
from vaelab.models.model import Model, seeded
from vaelab.objectives.objective import Objective
from vaelab.recipes import Setup, build
from vaelab.studies.results import Result
from vaelab.training.optimizers import build_optimizer
from vaelab.training.step import mix_seed, with_target

STEPS = 60
IMAGES, GRID = 256, 25
CURVATURE = 80.0
"""How much steeper the valley is across than along."""

RATE = 1.8 / CURVATURE
"""Of the methods that follow the gradient in the valley; from 2/80 on plain descent diverges."""

RATES = {"nesterov": 1.2 / CURVATURE, "rmsprop": 0.1, "adam": 0.25, "adamw": 0.25, "adamax": 0.25}
"""Of the others there: Nesterov's method diverges from (2 + 2μ)/(1 + 2μ)/80 on, 1.36/80 at μ = 0.9;
RMSprop's first step is ten times its rate."""

ADAPTIVE = ("rmsprop", "adam", "adamw", "adamax")
"""Methods whose steps are about as long as their rate, whatever the gradient."""

_NOISE = 0.3  # standard deviation of the gradient of a batch about that of the whole, in the valley
_START = (-4.0, 1.0)


@dataclass(frozen=True)
class Surface:
    """A loss over two coordinates, and the way of each method down it.

    Arguments:
        x, y: coordinates of the grid, ``(n,)`` each.
        loss: ``(n, n)``, rows by y.
        paths: name of a case to the points it passed.
        marks: name to a point that is worth one.
        about: what is shown.
    """

    x: Tensor
    y: Tensor
    loss: Tensor
    paths: dict[str, list[tuple[float, float]]]
    marks: dict[str, tuple[float, float]]
    about: str


def valley(methods: Mapping[str, TrainingConfig]) -> Surface:
    """Return the paths over f(x, y) = ½ (x² + 80 y²), with noisy gradients but for batch descent.

    The step of plain descent must be small for the steep direction, and so is slow along the flat
    one; momentum adds up the steps that agree and cancels those that do not; Adam divides each by
    its usual size.
    """
    scale = torch.tensor([1.0, CURVATURE])

    def gradient(point: Tensor, step: int, whole: bool) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        drawn = torch.randn(2, generator=generator) * _NOISE * scale.sqrt()
        return scale * point if whole else scale * point + drawn

    paths = {
        name: _descend(config, RATES.get(config.optimizer, RATE), _START, gradient)
        for name, config in methods.items()
    }
    x, y = torch.linspace(-4.6, 1.6, GRID), torch.linspace(-1.6, 1.6, GRID)
    loss = 0.5 * (x[None] ** 2 + CURVATURE * y[:, None] ** 2)
    about = (
        f"An ill-conditioned valley, ½ (x² + {CURVATURE:g} y²), with noise on the gradient for "
        f"all but batch gradient descent; {STEPS} steps from the left. Rates: {RATE:.3g} for plain "
        f"descent and momentum, {RATES['nesterov']:.3g} for Nesterov, {RATES['rmsprop']:g} for "
        f"RMSprop, {RATES['adam']:g} for Adam and its like."
    )
    return Surface(x, y, loss, paths, {"minimum": (0.0, 0.0)}, about)


Gradient = Callable[[Tensor, int, bool], Tensor]


def _descend(
    config: TrainingConfig, rate: float, start: Sequence[float], gradient: Gradient
) -> list[tuple[float, float]]:
    """Return the points that an optimizer passes, the start included."""
    point = nn.Parameter(torch.tensor(start))
    settings = config.model_copy(update={"lr": rate})
    optimizer = build_optimizer(settings, [point], torch.device("cpu"))
    points = [(start[0], start[1])]
    for step in range(STEPS):
        point.grad = gradient(point.detach(), step, config.optimizer == "batch-gd")
        optimizer.step()
        x, y = point.detach().tolist()
        points.append((x, y))
    return points


def plane(
    one: Result, other: Result, methods: Mapping[str, TrainingConfig], splits: Splits
) -> Surface:
    """Return the loss of a VAE on the plane through two trained models and their common start.

        θ(a, b) = θ₀ + |θ₁ − θ₀| (a e₁ + b e₂)

    e₁ points from the start θ₀ to the first model, e₂ is the part of the way to the second that is
    orthogonal to it. Every method then starts at θ₀ and moves a and b, by gradients of batches.

    Arguments:
        one: a run, trained to its end.
        other: another of the same network and seed.
        methods: optimizers to show.
        splits: the images of both.
    """
    model, objective = _at_start(one, splits)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    ends = [dict(run.job.run.load_model().named_parameters()) for run in (one, other)]
    ways = [{name: end[name].detach() - start[name] for name in start} for end in ends]
    length = _dot(ways[0], ways[0]).sqrt()
    share = _dot(ways[0], ways[1]) / length**2
    across = {name: ways[1][name] - share * ways[0][name] for name in start}
    height = _dot(across, across).sqrt()
    across = {name: across[name] * (length / height) for name in start}
    marks = {
        "start": (0.0, 0.0),
        one.job.case.name: (1.0, 0.0),
        other.job.case.name: (float(share), float(height / length)),
    }
    order = epoch_order(len(splits.train), 0, 0)
    count = max(1, len(order) // IMAGES)

    def loss(point: Tensor, number: int) -> Tensor:
        rows = order[number * IMAGES :][:IMAGES]
        batch = fetch(splits.train, rows, "cpu")
        weights = {
            name: start[name] + point[0] * ways[0][name] + point[1] * across[name] for name in start
        }
        with seeded(mix_seed(0, number), torch.device("cpu")):
            batch = with_target(batch, one.job.case.config.data.binarize)
            return _loss(model, objective, weights, batch)

    def gradient(point: Tensor, step: int, whole: bool) -> Tensor:
        moved = point.clone().requires_grad_()
        loss(moved, 0 if whole else step % count).backward()
        assert moved.grad is not None
        return moved.grad.nan_to_num(0, 0, 0)

    steep = max(float(gradient(torch.tensor(p), 0, True).norm()) for p in ((0.3, 0.1), (0.0, 0.0)))
    rates = {
        name: 0.06 if config.optimizer in ADAPTIVE else 0.06 / steep
        for name, config in methods.items()
    }
    paths = {
        name: _descend(config, rates[name], (0.0, 0.0), gradient)
        for name, config in methods.items()
    }
    ends_x = [x for x, _ in marks.values()]
    ends_y = [y for _, y in marks.values()]
    x = torch.linspace(min(ends_x) - 0.3, max(ends_x) + 0.5, GRID)
    y = torch.linspace(min(ends_y) - 0.5, max(ends_y) + 0.4, GRID)
    with torch.no_grad():
        values = torch.stack([torch.stack([loss(torch.stack([a, b]), 0) for a in x]) for b in y])
    about = (
        f"The real loss, in nats per image, on the plane through two trained models and their "
        f"common start, over {IMAGES} images; a distance of 1 is that from the start to the first. "
        f"{STEPS} steps of each method within this plane."
    )
    return Surface(x, y, values, paths, marks, about)


def _at_start(run: Result, splits: Splits) -> tuple[Model, Objective]:
    """Return model and objective of a run as they were before its first step."""
    config = run.job.case.config
    pixels, told = pixels_of(splits.train), Told.by(splits.train)
    setup = Setup(config.model, config.data.binarize, pixels, 1, told)
    with seeded(mix_seed(run.job.seed), torch.device("cpu")):
        return build(config, setup)


def _loss(model: Model, objective: Objective, weights: dict[str, Tensor], batch: Batch) -> Tensor:
    with noise.sharded(0, len(batch), len(batch)):
        named = {f"model.{name}": value for name, value in weights.items()}
        total: Tensor = functional_call(_Both(model, objective), named, (batch,))
    return total


class _Both(nn.Module):
    """Model and objective as one module, so that weights can be put in their place."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss behind any warm-up."""
        return self.objective(self.model, batch, 1 << 30).total  # type: ignore[no-any-return]


def _dot(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([(one[name] * other[name]).sum() for name in one]).sum()
