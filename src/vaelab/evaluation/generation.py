"""How close generated images are to real ones, as two sets of points in a feature space.

Every function takes features ``(n, F)`` and computes in double precision. Distances between points
are Euclidean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = 2_000
"""Rows of a matrix of distances that are in memory at once."""


def frechet(real: Tensor, fake: Tensor) -> float:
    """Return the Fréchet distance of two sets, each taken as a normal distribution.

        ‖m₁ − m₂‖² + tr(C₁ + C₂ − 2 (C₁ C₂)^½)

    The trace of the root is the sum of the singular values of C₁^½ C₂^½, which is real and exact
    for singular covariances too. Biased upwards for few images: compare only at equal numbers.
    Source: Heusel et al., GANs trained by a two time-scale update rule, 2017.
    """
    (m1, c1), (m2, c2) = _moments(real), _moments(fake)
    cross = torch.linalg.svdvals(_root(c1) @ _root(c2)).sum()
    return float((m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * cross)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    x = features.double()
    return x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1])


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """Return the squared maximum mean discrepancy under k(x, y) = (x·y / F + 1)³ (KID).

        1/(m(m−1)) Σ_{i≠j} k(x_i, x_j) + 1/(n(n−1)) Σ_{i≠j} k(y_i, y_j) − 2/(mn) Σ_ij k(x_i, y_j)

    Unbiased at any number of images, so it may be below 0.
    Source: Bińkowski et al., Demystifying MMD GANs, 2018.
    """
    x, y = real.double(), fake.double()
    return float(_within(x) + _within(y) - 2 * _kernel_sum(x, y) / (len(x) * len(y)))


def _kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    rows = [(part @ y.T / x.shape[1] + 1).pow(3).sum() for part in x.split(_ROWS)]
    return torch.stack(rows).sum()


def _within(x: Tensor) -> Tensor:
    diagonal = (x.square().sum(1) / x.shape[1] + 1).pow(3).sum()
    return (_kernel_sum(x, x) - diagonal) / (len(x) * (len(x) - 1))


@dataclass(frozen=True)
class Coverage:
    """How two sets lie in each other's neighbourhoods.

    Arguments:
        precision: share of generated points within the k-ball of some real point.
        recall: share of real points within the k-ball of some generated point.
        density: mean number of real k-balls that a generated point lies in, divided by k.
        coverage: share of real points whose k-ball holds a generated point.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(real: Tensor, fake: Tensor, k: int = 5) -> Coverage:
    """Return precision, recall, density and coverage; a k-ball reaches to the k-th neighbour.

    Density and coverage do not jump with a single outlier, precision and recall do. Memory grows
    with n, not with n².
    Sources: Kynkäänniemi et al., Improved precision and recall, 2019; Naeem et al., Reliable
    fidelity and diversity metrics, 2020.

    Raises:
        ValueError: a set has fewer than k + 1 points.
    """
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"{len(real)} and {len(fake)} points do not have {k} neighbours each")
    x, y = real.double(), fake.double()
    reach_x, reach_y = _reach(x, k), _reach(y, k)
    counts = torch.zeros(len(y))
    recalled = covered = 0
    for rows, reach in zip(x.split(_ROWS), reach_x.split(_ROWS), strict=True):
        distances = torch.cdist(rows, y)
        holds = distances <= reach[:, None]
        counts += holds.sum(0)
        covered += int(holds.any(1).sum())
        recalled += int((distances <= reach_y).any(1).sum())
    return Coverage(
        float((counts > 0).double().mean()),
        recalled / len(x),
        float(counts.sum()) / (k * len(y)),
        covered / len(x),
    )


def _reach(x: Tensor, k: int) -> Tensor:
    """Return the distance of every point to its k-th neighbour among the others."""
    nearest = [torch.cdist(rows, x).kthvalue(k + 1, 1).values for rows in x.split(_ROWS)]
    return torch.cat(nearest)


def detail(images: Tensor) -> Tensor:
    """Return the fine detail of images ``(n, C, H, W)``, ``(n,)``: 0 where grey is even.

        1/CHW Σ (4 x_{ij} − x_{i−1,j} − x_{i+1,j} − x_{i,j−1} − x_{i,j+1})²

    The energy of the discrete Laplacian, which weighs a frequency ω by about |ω|⁴: blur takes it
    away, noise adds to it. Around the image lies zero.
    """
    padded = torch.nn.functional.pad(images.double(), (1, 1, 1, 1))
    middle = 4 * padded[..., 1:-1, 1:-1]
    near = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
    near = near + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return (middle - near).square().flatten(1).mean(1)


def nearest(points: Tensor, others: Tensor) -> Tensor:
    """Return the distance of every point to the nearest of others, ``(n,)``."""
    x, y = points.double(), others.double()
    return torch.cat([torch.cdist(rows, y).min(1).values for rows in x.split(_ROWS)])
