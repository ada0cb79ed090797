"""A transport of codes: for every label another invertible map, after which no label shows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.models.conditioning import Conditioning
from vaelab.models.posteriors import DiagonalNormal
from vaelab.models.subspaces import SubspacePrior

LAYERS, HIDDEN = 8, 128
STEEPEST = 2.0
"""Bound of the logarithm of a layer's scale, so that no layer can explode."""


class Coupling(nn.Module):
    """One layer: half of the numbers, scaled and shifted by what the other half and labels say.

        (a, b) → (b·exp(s(a, u)) + t(a, u), a)

    Source: Dinh, Sohl-Dickstein and Bengio, Density estimation using Real NVP, 2017.

    Arguments:
        dim: D.
        labels: how many numbers describe u.
    """

    def __init__(self, dim: int, labels: int) -> None:
        super().__init__()
        self.kept = dim // 2
        self.net = nn.Sequential(
            nn.Linear(self.kept + labels, HIDDEN), nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
            nn.Linear(HIDDEN, 2 * (dim - self.kept)),
        )  # fmt: skip
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=1e-3)  # all but the identity
        nn.init.zeros_(last.bias)

    def forward(self, h: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the layer's output for ``(n, D)``, and the logarithm of its determinant."""
        kept, rest = h[:, : self.kept], h[:, self.kept :]
        shift, log_scale = self._terms(kept, u)
        return torch.cat([rest * log_scale.exp() + shift, kept], 1), log_scale.sum(1)

    def inverse(self, z: Tensor, u: Tensor) -> Tensor:
        """Return what the layer maps to ``(n, D)``."""
        rest, kept = z[:, : z.shape[1] - self.kept], z[:, z.shape[1] - self.kept :]
        shift, log_scale = self._terms(kept, u)
        return torch.cat([kept, (rest - shift) * (-log_scale).exp()], 1)

    def _terms(self, kept: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = self.net(torch.cat([kept, u], 1)).chunk(2, 1)
        return shift, STEEPEST * torch.tanh(raw / STEEPEST)


class Transport(nn.Module):
    """z = f(h; u): carries what the encoder makes of images to where no label u shows.

    A flow that is trained to give the h of every label one and the same density,

        p(h|u) = N(f(h; u); 0, I) |det ∂f(h; u)/∂h|,   max over f of E log p(h|u),

    makes z = f(h; u) independent of u, since z ~ N(0, I) whatever u. The way back, f⁻¹(z; u'),
    gives the h of an image with other labels that has the same place among images so labelled.
    The attributes in u are read from their subspaces w, softly where w lies between:
    u_i = tanh(½ log p(w_i|1)/p(w_i|0)); the class, where there are any, has to be told.

    Arguments:
        prior: of the subspaces, which follow the first ``prior.dim`` numbers of a code.
        conditioning: labels of the model.
    """

    def __init__(self, prior: SubspacePrior, conditioning: Conditioning) -> None:
        super().__init__()
        self.prior, self.classes = prior, len(conditioning.class_names)
        labels = self.classes + len(conditioning.attribute_names)
        self.first = nn.Linear(labels, 2 * prior.dim)
        nn.init.zeros_(self.first.weight)
        nn.init.zeros_(self.first.bias)
        self.layers = nn.ModuleList(Coupling(prior.dim, labels) for _ in range(LAYERS))

    def carry(self, posterior: Distribution, context: Tensor) -> DiagonalNormal:
        """Return q(z, w|x, y) of the encoder's q(h, w|x, y), for contexts ``(B, K)``.

        The mean of h is carried; the deviations are those of z already.
        """
        assert isinstance(posterior, DiagonalNormal)
        h, w = self._split(posterior.loc)
        return DiagonalNormal(torch.cat([self(h, self._labels(context))[0], w], 1), posterior.scale)

    def bring_back(self, codes: Tensor, context: Tensor | None) -> Tensor:
        """Return (h, w) of codes (z, w) ``(..., D)``; ``context`` ``(..., K)`` tells the class."""
        z, w = self._split(codes)
        u = self.prior.sides(w)
        if self.classes:
            assert context is not None
            told = context[..., : self.classes].expand(*codes.shape[:-1], -1)
            u = torch.cat([told, u], -1)
        h = self.inverse(z.flatten(0, -2), u.flatten(0, -2)).unflatten(0, codes.shape[:-1])
        return torch.cat([h, w], -1)

    def cost(self, posterior: Distribution, context: Tensor) -> Tensor:
        """Return −log p(h|u) of the means of the encoder's q(h, w|x, y), ``(B,)`` nats."""
        h, _ = self._split(posterior.mean)
        z, log_det = self(h, self._labels(context))
        log_p: Tensor = -0.5 * (z**2).sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi) + log_det
        return -log_p

    def forward(self, h: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return z for h ``(n, D)`` of labels ``(n, L)``, and log |det ∂z/∂h|, ``(n,)``."""
        with torch.autocast(h.device.type, enabled=False):
            h, u = h.float(), u.float()
            shift, log_scale = self.first(u).chunk(2, 1)
            h, total = h * log_scale.exp() + shift, log_scale.sum(1)
            for layer in self.layers:
                h, log_det = layer(h, u)
                total = total + log_det
            return h, total

    def inverse(self, z: Tensor, u: Tensor) -> Tensor:
        """Return the h that `forward` maps to z ``(n, D)`` for labels ``(n, L)``."""
        with torch.autocast(z.device.type, enabled=False):
            z, u = z.float(), u.float()
            for layer in reversed(self.layers):
                assert isinstance(layer, Coupling)
                z = layer.inverse(z, u)
            shift, log_scale = self.first(u).chunk(2, 1)
            h: Tensor = (z - shift) * (-log_scale).exp()
            return h

    def _labels(self, context: Tensor) -> Tensor:
        """Return u of contexts: class and attributes, without what says that they are known."""
        count = len(self.prior.subspaces)
        return context[:, : self.classes + count]

    def _split(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        return codes[..., : self.prior.dim], codes[..., self.prior.dim :]
