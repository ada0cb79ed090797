"""What a code tells of a label: probes trained afresh, and mutual information."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

Probe = Literal["linear", "mlp"]

HIDDEN, EPOCHS, STEPS, BATCH = 256, 30, 1_500, 512
RATES = {"linear": 2e-2, "mlp": 2e-3}
BINS = 20


def probe(known: Tensor, on: Tensor, kind: Probe, seed: int = 0) -> nn.Module:
    """Return a probe p(y = 1|z), trained afresh: codes ``(n, d)`` to one logit each, ``(n, 1)``.

    A linear probe, or an MLP with two hidden layers of 256; on standardised codes, by Adam whose
    rate falls to 0 along a cosine: 30 passes, and 1,500 steps at least. Seeds nothing but itself.

    Arguments:
        known: codes ``(N, d)``.
        on: the label of each, bool ``(N,)``.
        kind: linear or mlp.
        seed: of its weights and the order.
    """
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


class _Standard(nn.Module):
    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.loc, self.scale = loc, scale

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.loc) / self.scale


@torch.no_grad()
def right(judge: nn.Module, codes: Tensor, on: Tensor) -> Tensor:
    """Return 1 for every code whose label a probe reads rightly, else 0, ``(N,)``."""
    said: Tensor = judge(codes).squeeze(1) > 0
    return (said == on).double()


def balanced(on: Tensor, labels: Tensor | None = None, seed: int = 0) -> Tensor:
    """Return rows of which half are on and half off, in every class, by chance.

    Arguments:
        on: ``(N,)``, bool.
        labels: class of each, ``(N,)``; None takes all for one class.
        seed: of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(len(on), dtype=torch.int64) if labels is None else labels
    kept = []
    for k in labels.unique():
        sides = [((on == side) & (labels == k)).nonzero().squeeze(1) for side in (False, True)]
        count = min(len(side) for side in sides)
        kept += [side[torch.randperm(len(side), generator=generator)[:count]] for side in sides]
    return torch.cat(kept).sort().values


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
