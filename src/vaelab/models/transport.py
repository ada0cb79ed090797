"""A conditional flow of latents: for every label another invertible map onto one normal prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from typing_extensions import override

from vaelab.models.conditioning import Conditioning
from vaelab.models.posteriors import DiagonalNormal
from vaelab.models.subspaces import SubspacePrior

LAYERS, HIDDEN = 8, 128
TURNS = 7
"""Seed of the rotations."""
STEEPEST = 2.0
"""Bound of the logarithm of a layer's scale, so that no layer can explode."""


class Coupling(nn.Module):
    """One layer: half of the dimensions, scaled and shifted as the other half and labels say.

        (a, b) → (b·exp(s(a, u)) + t(a, u), a)

    The labels scale and shift the first hidden layer (FiLM; Perez et al., 2018), so that every
    class and side can have a map of its own. Source of the layer: Dinh, Sohl-Dickstein and Bengio,
    Density estimation using Real NVP, 2017.

    Arguments:
        dim: D.
        labels: how many numbers describe u.
    """

    def __init__(self, dim: int, labels: int) -> None:
        super().__init__()
        self.kept = dim // 2
        self.enter = nn.Linear(self.kept + labels, HIDDEN)
        self.given = nn.Linear(labels, 2 * HIDDEN)
        last = nn.Linear(HIDDEN, 2 * (dim - self.kept))
        self.net = nn.Sequential(nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), last)
        nn.init.normal_(last.weight, std=1e-3)  # close to the identity
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
        scale, shift = self.given(u).chunk(2, 1)
        hidden = self.enter(torch.cat([kept, u], 1)) * (1 + scale) + shift
        shift, raw = self.net(hidden).chunk(2, 1)
        return shift, STEEPEST * torch.tanh(raw / STEEPEST)


class Transport(nn.Module):
    """z = f(h; u): a flow, conditional on labels u, from what the encoder gives to z.

    It is a learned prior of h given the labels, seen from the other end:

        p(h|u) = N(f(h; u); 0, I) |det ∂f(h; u)/∂h|

    The rate of the ELBO, E_q[log q(h|x) − log p(h|u)], is least where that density is the one that
    the encoder's h have among images labelled u. Where it is, z = f(h; u) is N(0, I) whatever u,
    and so independent of u; the misfit that is left is information about u in z. The way back,
    f⁻¹(z; u'), gives the h of an image with other labels that has the same place among images so
    labelled. On that way the attributes in u are inferred from their subspaces w, softly where w
    lies between (`SubspacePrior.sides`), so that to move w is to edit; the class, where there are
    any, is given.

    Arguments:
        prior: of the subspaces, which follow the first ``prior.dim`` numbers of a code.
        conditioning: labels of the model.
    """

    turns: Tensor

    def __init__(self, prior: SubspacePrior, conditioning: Conditioning) -> None:
        super().__init__()
        self.prior, self.classes = prior, len(conditioning.class_names)
        labels = self.classes + len(conditioning.attribute_names)
        self.first = nn.Linear(labels, 2 * prior.dim)
        nn.init.zeros_(self.first.weight)
        nn.init.zeros_(self.first.bias)
        self.layers = nn.ModuleList(Coupling(prior.dim, labels) for _ in range(LAYERS))
        self.register_buffer("turns", rotations(LAYERS, prior.dim))

    def carry(self, posterior: Distribution, context: Tensor) -> Carried:
        """Return q(z, w|x, y) of the encoder's q(h, w|x, y), for contexts ``(B, K)``.

        The encoder gives w as what it differs by from the mean of p(w|y).
        """
        assert isinstance(posterior, DiagonalNormal)
        centre = self.prior(context).mean  # 0 for h
        moved = DiagonalNormal(posterior.loc + centre, posterior.scale)
        return Carried(moved, self, context[:, : self.classes + len(self.prior.subspaces)])

    def bring_back(self, codes: Tensor, context: Tensor | None) -> Tensor:
        """Return (h, w) of codes (z, w) ``(..., D)``; ``context`` ``(..., K)`` tells the class."""
        u = self.prior.sides(codes[..., self.prior.dim :])
        if self.classes:
            assert context is not None
            told = context[..., : self.classes].expand(*codes.shape[:-1], -1)
            u = torch.cat([told, u], -1)
        return self.undo(codes, u)

    def do(self, points: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return (z, w) of (h, w) ``(..., D)`` labelled ``u``, and log |det ∂z/∂h|, ``(...)``."""
        flat, labels, shape = self._flat(points, u)
        z, log_det = self(flat[:, : self.prior.dim], labels)
        return torch.cat([z, flat[:, self.prior.dim :]], 1).view(points.shape), log_det.view(shape)

    def undo(self, codes: Tensor, u: Tensor) -> Tensor:
        """Return (h, w) of (z, w) ``(..., D)`` labelled ``u``."""
        flat, labels, _ = self._flat(codes, u)
        h = self.inverse(flat[:, : self.prior.dim], labels)
        return torch.cat([h, flat[:, self.prior.dim :]], 1).view(codes.shape)

    def _flat(self, points: Tensor, u: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        shape = points.shape[:-1]
        return points.flatten(0, -2), u.expand(*shape, -1).flatten(0, -2), shape

    def forward(self, h: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return z for h ``(n, D)`` of labels ``(n, L)``, and log |det ∂z/∂h|, ``(n,)``."""
        with torch.autocast(h.device.type, enabled=False):
            h, u = h.float(), u.float()
            shift, log_scale = self.first(u).chunk(2, 1)
            h, total = h * log_scale.exp() + shift, log_scale.sum(1)
            for layer, turn in zip(self.layers, self.turns, strict=True):
                h, log_det = layer(h @ turn, u)
                total = total + log_det
            return h, total

    def inverse(self, z: Tensor, u: Tensor) -> Tensor:
        """Return the h that `forward` maps to z ``(n, D)`` for labels ``(n, L)``."""
        with torch.autocast(z.device.type, enabled=False):
            z, u = z.float(), u.float()
            for number in reversed(range(LAYERS)):
                layer = self.layers[number]
                assert isinstance(layer, Coupling)
                z = layer.inverse(z, u) @ self.turns[number].T
            shift, log_scale = self.first(u).chunk(2, 1)
            h: Tensor = (z - shift) * (-log_scale).exp()
            return h


def rotations(count: int, dim: int) -> Tensor:
    """Return rotations that are always the same, ``(count, D, D)``, the first the identity.

    Without them the same halves of a latent would take turns, and mix only through each other.
    """
    draws = torch.Generator().manual_seed(TURNS)
    turns = torch.linalg.qr(torch.randn(count, dim, dim, generator=draws))[0]
    return torch.cat([torch.eye(dim)[None], turns[1:]])


class Carried(Distribution):
    """q(z, w|x, y) where (h, w) is normal and z = f(h; u): a flow posterior.

    Its ``mean`` is where the mean of h is carried, and ``stddev`` that of f taken as linear
    between one deviation of h to either side: both are deterministic, and exact for a linear f.

    Arguments:
        base: q(h, w|x, y), batch shape ``(B,)``.
        transport: f.
        u: labels, ``(B, L)``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, base: DiagonalNormal, transport: Transport, u: Tensor) -> None:
        self.base, self.transport, self.u = base, transport, u
        self._drawn: tuple[Tensor, Tensor, Tensor] | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    @override
    def mean(self) -> Tensor:
        return self.transport.do(self.base.loc, self.u)[0]

    @property
    @override
    def variance(self) -> Tensor:
        loc, scale = self.base.loc, self.base.scale
        steps = torch.diag_embed(scale).movedim(-1, 0)  # (D, B, D): one deviation of each
        ahead, _ = self.transport.do(loc + steps, self.u)
        behind, _ = self.transport.do(loc - steps, self.u)
        return ((ahead - behind) / 2).square().sum(0)

    def cost(self, grain: Tensor | float) -> Tensor:
        """Return −log p(h|u) of draws of h with a share, ``(B, 1)``, of their noise, ``(B,)`` nats.

        One number is the share of all.
        """
        dim = self.transport.prior.dim
        noise_of = self.base.rsample() - self.base.loc
        codes, log_det = self.transport.do(self.base.loc + grain * noise_of, self.u)
        z = codes[..., :dim]
        return 0.5 * (z.square().sum(-1) + dim * math.log(2 * math.pi)) - log_det

    @override
    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        point = self.base.rsample(torch.Size(sample_shape))
        value, log_det = self.transport.do(point, self.u)
        self._drawn = value, point, log_det
        return value

    @override
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def origin(self, value: Tensor) -> Tensor:
        """Return the (h, w) of (z, w), by the labels that the posterior knows."""
        if self._drawn is not None and self._drawn[0] is value:
            return self._drawn[1]
        return self.transport.undo(value, self.u)

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q(z, w|x, y): that of (h, w), less log |det ∂z/∂h|."""
        point = self.origin(value)
        if self._drawn is not None and self._drawn[0] is value:  # as in training
            log_det = self._drawn[2]
        else:
            log_det = self.transport.do(point, self.u)[1]
        density: Tensor = self.base.log_prob(point)  # type: ignore[no-untyped-call]
        return density - log_det
