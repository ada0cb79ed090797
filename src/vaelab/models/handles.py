"""Handles on an attribute within a code: what to move, and where to, so that it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Handle(Protocol):
    """Moves codes so that an attribute becomes ``to``."""

    def move(self, codes: Tensor, to: Tensor, strength: float = 1.0) -> Tensor:
        """Return codes ``(N, D)`` moved ``strength`` of the way to where the attribute is ``to``.

        Arguments:
            codes: ``(N, D)``.
            to: ``(N,)``, 0 or 1 or a share between.
            strength: 0 leaves the codes, 1 goes there, more goes beyond.
        """


@dataclass(frozen=True)
class Subspace:
    """The dimensions of a code that belong to one attribute (CSVAE).

    Arguments:
        name: of the attribute.
        dims: which of the code's dimensions.
        means: of its prior, where the attribute is 0 and where it is 1, the same in each dimension.
        scales: deviations of its prior, likewise.
    """

    name: str
    dims: slice
    means: tuple[float, float]
    scales: tuple[float, float]

    def of(self, codes: Tensor) -> Tensor:
        """Return the part w of codes, ``(N, D)`` to ``(N, d)``."""
        return codes[:, self.dims]

    def move(self, codes: Tensor, to: Tensor, strength: float = 1.0) -> Tensor:
        """Bring w to the mean of its prior: w + s (μ_to − w), μ between μ₀ and μ₁."""
        target = self.means[0] + to.to(codes)[:, None] * (self.means[1] - self.means[0])
        moved = codes.clone()
        moved[:, self.dims] += strength * (target - moved[:, self.dims])
        return moved


@dataclass(frozen=True)
class Direction:
    """A direction of the latent space along which an attribute changes.

    Arguments:
        name: of the attribute.
        vector: unit vector u, ``(D,)``.
        means: mean of u·z over images without the attribute, and over those with it.
        how: how it was found, in plain words.
    """

    name: str
    vector: Tensor
    means: tuple[float, float]
    how: str

    def move(self, codes: Tensor, to: Tensor, strength: float = 1.0) -> Tensor:
        """Bring the part along u to the mean of the images that are so: z + s (m_to − u·z) u."""
        vector = self.vector.to(codes)
        target = self.means[0] + to.to(codes) * (self.means[1] - self.means[0])
        return codes + strength * torch.outer(target - codes @ vector, vector)
