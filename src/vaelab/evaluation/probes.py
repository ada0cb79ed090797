"""What a latent says about a label: probes trained afresh, and mutual information.

A decoder that is conditioned on the class c and on attributes y makes an edit of y alone only where
the latent z has no information about y *beside* what the decoder is conditioned on: z ⟂ y | c. A
probe of z alone tests z ⟂ y, which neither implies that nor follows from it: where y is z₁ in one
class and −z₁ in the other, z alone says nothing of y, and z and the class say all. So a probe gets
what the decoder is conditioned on, beside z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

Kind = Literal["linear", "mlp", "trees"]
Probe = Callable[[Tensor], Tensor]
"""Latents ``(n, d)`` to one logit each, ``(n, 1)``."""

HIDDEN, EPOCHS, STEPS, BATCH = 256, 30, 1_500, 512
RATES = {"linear": 2e-2, "mlp": 2e-3}
TREES, RATE, STOPPED = 200, 0.08, 1_000
"""Boosted trees at most, their learning rate, and inputs from which on they stop early."""
BINS = 20


def probe(known: Tensor, on: Tensor, kind: Kind, seed: int = 0) -> Probe:
    """Return a probe p(y = 1|z), trained afresh.

    A linear probe, or an MLP with two hidden layers of 256; on standardised inputs, by Adam whose
    rate falls to 0 along a cosine: 30 epochs, and 1,500 steps at least. Or gradient-boosted trees,
    200 at most, stopped early by a tenth of the inputs. Seeds nothing but itself.

    Arguments:
        known: inputs ``(N, d)``: latents, and what else the probe gets.
        on: the label of each, bool ``(N,)``.
        kind: linear, mlp or trees.
        seed: of its weights and the order.
    """
    if kind == "trees":
        return _trees(known, on, seed)
    loc, scale = known.mean(0), known.std(0).clamp(min=1e-8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = known.shape[1]
        network = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
            nn.Linear(HIDDEN, 1),
        ) if kind == "mlp" else nn.Sequential(nn.Linear(width, 1))  # fmt: skip
        codes, truth = (known - loc) / scale, on.float().unsqueeze(1)
        rate = RATES[kind]
        optimizer = torch.optim.Adam(network.parameters(), rate)
        steps = max(STEPS, EPOCHS * -(-len(codes) // BATCH))
        for step in range(steps):
            rows = torch.randint(len(codes), (BATCH,))
            optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(network(codes[rows]), truth[rows]).backward()
            optimizer.step()
    return nn.Sequential(_Standard(loc, scale), network).eval()


def _trees(known: Tensor, on: Tensor, seed: int) -> Probe:
    from sklearn.ensemble import HistGradientBoostingClassifier

    fitted = HistGradientBoostingClassifier(
        max_iter=TREES, learning_rate=RATE, early_stopping=len(on) >= STOPPED, random_state=seed
    )
    fitted.fit(known.numpy(), on.numpy())

    def logits(latents: Tensor) -> Tensor:
        return torch.from_numpy(fitted.decision_function(latents.numpy())).unsqueeze(1)

    return logits


class _Standard(nn.Module):
    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.loc, self.scale = loc, scale

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.loc) / self.scale


@torch.no_grad()
def right(fitted: Probe, latents: Tensor, on: Tensor) -> Tensor:
    """Return 1 for every latent whose label a probe predicts correctly, else 0, ``(N,)``."""
    predicted: Tensor = fitted(latents).squeeze(1) > 0
    return (predicted == on).double()


def one_hot(labels: Tensor, count: int) -> Tensor:
    """Return int64 labels ``(N,)`` as ``count`` indicators, ``(N, K)``; all 0 where unknown."""
    return (labels[:, None] == torch.arange(count)).float()


def balanced(on: Tensor, cells: Tensor | None = None, seed: int = 0) -> Tensor:
    """Return rows of which half are on and half off, in every cell, at random.

    What the cell alone says of the label is then nothing, so that chance is ½ for a probe that is
    given the cell too.

    Arguments:
        on: ``(N,)``, bool.
        cells: of each, such as its class, ``(N,)`` or ``(N, k)``; None takes all for one cell.
        seed: of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    cells = torch.zeros(len(on), 1) if cells is None else cells.view(len(on), -1)
    _, number = cells.unique(dim=0, return_inverse=True)
    kept = []
    for k in range(int(number.max()) + 1 if len(number) else 0):
        sides = [((on == side) & (number == k)).nonzero().squeeze(1) for side in (False, True)]
        count = min(len(side) for side in sides)
        kept += [side[torch.randperm(len(side), generator=generator)[:count]] for side in sides]
    return torch.cat(kept).sort().values if kept else number


def information_gap(codes: Tensor, on: Tensor, groups: list[slice]) -> float:
    """Return the mutual information gap of a binary label, in [0, 1].

        (I(z_(1); y) − I(z_(2); y)) / H(y)

    with the two units of the code that tell most of y. A unit is a dimension, or all dimensions of
    a subspace, which tell as much as the best of them. I from 20 bins of equal counts.
    Source: Chen, Li, Grosse and Duvenaud, 2018.

    Arguments:
        codes: ``(N, D)``.
        on: bool ``(N,)``.
        groups: dimensions that count as one unit.
    """
    each = [_information(codes[:, dim], on) for dim in range(codes.shape[1])]
    taken = {dim for group in groups for dim in range(*group.indices(codes.shape[1]))}
    units = [value for dim, value in enumerate(each) if dim not in taken]
    units += [max(each[group]) for group in groups]
    share = float(on.double().mean())
    entropy = -sum(p * math.log(p) for p in (share, 1 - share) if p > 0)
    best = sorted([*units, 0.0, 0.0], reverse=True)
    return (best[0] - best[1]) / entropy if entropy else 0.0


def _information(values: Tensor, on: Tensor) -> float:
    """Return I(z; y) of one dimension, in nats, from bins of equal counts."""
    edges = torch.quantile(values.double(), torch.arange(1, BINS, dtype=torch.double) / BINS)
    bins = torch.bucketize(values.double(), edges)
    table = torch.zeros(BINS, 2, dtype=torch.double)
    table.index_put_((bins, on.long()), torch.ones(len(on), dtype=torch.double), accumulate=True)
    joint = table / table.sum()
    alone = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    here = joint > 0
    return float((joint[here] * (joint[here] / alone[here]).log()).sum())
