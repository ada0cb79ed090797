"""The CSVAE's objective with a transport: an ELBO, edits that read as asked, and two phases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from vaelab.data.batches import Batch
from vaelab.models.model import Model
from vaelab.models.transport import Carried
from vaelab.models.vae import Trace, Vae
from vaelab.objectives.objective import LEARNS, Loss, Player, own_parameters
from vaelab.objectives.read import Read
from vaelab.objectives.terms import Term

SETTLED = 0.3
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
        samples: S, draws of z for each image.
    """

    def __init__(
        self, terms: Mapping[str, Term], edits: float, settle: float, steps: int, samples: int = 1
    ) -> None:
        self.active = 1 - settle
        self.settles = math.ceil(self.active * steps)
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
        """Return the loss of the transport: the cost of h under its density, nats per image.

        While the model moves, it lowers the rate as the model does: by the density of draws of h.
        (By another it would pull at the codes against the model, and both would run away.) Then it
        settles on h with `SETTLED` of their noise: users read the means, and what is finer than the
        noise of draws shows in these.
        """

        def loss(batch: Batch, step: int) -> Loss:
            with torch.no_grad():
                posterior, _ = model.distributions(batch)
            assert isinstance(posterior, Carried)
            total = posterior.cost(1.0 if step < self.settles else SETTLED).mean()
            return Loss(total, {"loss": total.detach()})

        return loss
