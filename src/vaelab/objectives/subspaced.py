"""The CSVAE's objective with a conditional flow: an ELBO, edits as requested, and two phases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from vaelab.data.batches import Batch, binarize, fetch
from vaelab.data.images import ImageSet
from vaelab.models import noise
from vaelab.models.model import Model, evaluating, seeded
from vaelab.models.posteriors import DiagonalNormal
from vaelab.models.transport import Carried
from vaelab.models.vae import Trace, Vae
from vaelab.objectives.objective import LEARNS, Loss, Player, own_parameters
from vaelab.objectives.read import Read
from vaelab.objectives.terms import Term

SETTLED = 0.1
"""Share of the posterior's noise in most latents that the flow is fine-tuned with."""
WHOLE = 4
"""One latent of so many has all of the noise there."""
REMEMBERED = 8
"""Latents in a step of the fine-tuning for each image of its batch: they need no encoder."""
_TRANSPORT = "transport."


class Subspaced(Read):
    """The ELBO of a transported code, and what its edits should read as.

        loss = Σ terms − γ E log q(y'|x̃'),   x̃' decodes (z, w'), w' = the mean of p(w|y')

    where y' is y with one attribute turned round, and q the model's labeler: see `Read`. Means of
    images are blurred, which makes strokes look thicker than they are; this term alone tells the
    decoder so.

    Arguments:
        terms: of the ELBO.
        edits: γ, in units of the cross-entropy in nats.
        settle: share of the training, at its end, in which only the transport moves.
        steps: of the whole training.
        images: gives the training images.
        samples: S, draws of z for each image.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        edits: float,
        settle: float,
        steps: int,
        images: Callable[[], ImageSet],
        samples: int = 1,
    ) -> None:
        self.active = 1 - settle
        self.settles = math.ceil(self.active * steps)
        self._images = images
        self._known: tuple[Tensor, Tensor, Tensor] | None = None
        super().__init__(terms, edits, self.settles, samples)

    @override
    def asked(self, model: Vae, trace: Trace) -> tuple[Tensor, Tensor]:
        """Return every code edited in one attribute, each in its turn, and its labels."""
        assert trace.context is not None
        codes, context = trace.latents["z"].value[0].clone(), trace.context.clone()
        for number, space in enumerate(model.subspaces.values()):
            rows = trace.batch.index % len(model.subspaces) == number
            column = model.classes + number
            context[rows, column] *= -1
            codes[rows] = space.move(codes[rows], (context[rows, column] > 0).float())
        return codes, context

    def players(self, model: Model) -> dict[str, Player]:
        """Return model, labeler and transport: the labeler rests first, the model at the end."""
        assert isinstance(model, Vae)
        assert model.transport is not None
        carried = {f"model.{_TRANSPORT}{n}": p for n, p in model.transport.named_parameters()}
        own = {n: p for n, p in own_parameters(model).items() if n not in carried}
        players = super().players(model)
        players["model"] = replace(players["model"], parameters=own, active=self.active)
        players["labeler"] = replace(players["labeler"], active=LEARNS * self.active)
        moving = Player("transport", carried, self._carries(model), restart=self.active)
        return {**players, "transport": moving}

    def _carries(self, model: Vae) -> Callable[[Batch, int], Loss]:
        """Return the loss of the flow: −log p(h|y) under its density, nats per image.

        While the model moves, it lowers the rate as the model does: by the density of draws of h.
        (By another it would pull at the latents against the model, and both would run away.) Then
        it is fine-tuned on h with `SETTLED` of their noise: users read the means, and what is finer
        than the noise of draws shows in these. One in `WHOLE` keeps all of it, else draws, which
        are what a likelihood is measured with, would lie where the flow was never fitted: of thin
        data, such as points on a curve, far outside. The encoder rests by then, so h of all images
        is computed once, and a step takes many.
        """

        def loss(batch: Batch, step: int) -> Loss:
            if step < self.settles:
                with torch.no_grad():
                    posterior, _ = model.distributions(batch)
                assert isinstance(posterior, Carried)
                total = posterior.cost(1.0).mean()
            else:
                some = self._remembered(model, len(batch))
                grain = some.base.loc.new_full((WHOLE, 1), SETTLED)
                grain[0] = 1.0
                with noise.repeated(REMEMBERED):
                    total = some.cost(grain.repeat(len(some.u) // WHOLE, 1)).mean()
            return Loss(total, {"loss": total.detach()})

        return loss

    def _remembered(self, model: Vae, count: int) -> Carried:
        """Return q(z, w|x, y) of `REMEMBERED` training images at random for each of ``count``."""
        if self._known is None:
            self._known = posteriors(model, self._images())
        loc, scale, u = self._known
        drawn = noise.uniform((count, REMEMBERED), batch_dim=0, device=loc.device)
        rows = (drawn.double() * len(loc)).long().clamp(max=len(loc) - 1).flatten()
        assert model.transport is not None
        return Carried(DiagonalNormal(loc[rows], scale[rows]), model.transport, u[rows])


@torch.no_grad()
def posteriors(model: Vae, images: ImageSet) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and scale of q(h, w|x, y) of images, ``(N, D)``, and their labels ``(N, L)``.

    In evaluation mode, and with noise of its own where the encoder sees binarised images.
    """
    parts = []
    with evaluating(model), seeded(0, model.device):
        for rows in torch.arange(len(images)).split(model.rows):
            batch = fetch(images, rows, model.device)
            drawn = torch.rand_like(batch.images) if model.binarize == "dynamic" else None
            seen = binarize(batch.images, model.binarize, drawn)
            posterior, _ = model.distributions(replace(batch, images=seen, target=seen))
            assert isinstance(posterior, Carried)
            parts.append((posterior.base.loc, posterior.base.scale, posterior.u))
    loc, scale, u = (torch.cat(columns).float() for columns in zip(*parts, strict=True))
    return loc, scale, u
