"""Objectives in which a model's own labeler reads what the model makes under labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vaelab.data.batches import Batch
from vaelab.models import noise
from vaelab.models.model import Model, evaluating
from vaelab.models.priors import NormalPrior
from vaelab.models.subspaces import LearnedPrior
from vaelab.models.vae import Trace, Vae
from vaelab.objectives.objective import LEARNS, Loss, Objective
from vaelab.objectives.terms import Term


class Read(Objective):
    """A sum of terms, and what images made under labels should read as.

        loss = Σ terms − γ E log q(y|x̃),   x̃ the mean of p(x|z, y), z ~ p(z|y)

    y are the labels of the batch, and q is the model's labeler, which learns from real images alone
    and rests by the time that this term counts. It moves nothing but the decoder: what z and y are
    is a constant to it. A posterior leaves parts of the prior to no image; the ELBO does not ask
    what is decoded there, this does.

    Arguments:
        terms: of the ELBO.
        weight: γ, in units of the cross-entropy in nats.
        steps: in which the model moves.
        samples: S, draws of z for each image.
    """

    def __init__(
        self, terms: Mapping[str, Term], weight: float, steps: int, samples: int = 1
    ) -> None:
        super().__init__(terms, samples)
        self.weight, self.starts = weight, LEARNS * steps

    def forward(self, model: Model, batch: Batch, step: int) -> Loss:
        """Run the model over a batch; sum the terms and, once it counts, what is read."""
        assert isinstance(model, Vae)
        trace, loss = self.traced(model, batch, step)
        if not self.weight or step < self.starts:
            return loss
        cost = self.weight * self.misread(model, trace)
        total = loss.total + cost
        figures = {**loss.figures, "loss": total.detach(), "loss/read": cost.detach()}
        return replace(loss, total=total, figures=figures)

    def misread(self, model: Vae, trace: Trace) -> Tensor:
        """Return −E log q(y|x̃) over one image for each of the batch.

        Images are decoded as users will see them, with the running statistics of batch
        normalisation. Those of this batch are not those of reconstructions, and would move them.
        """
        assert model.labeler is not None
        with torch.no_grad():
            codes, context = self.asked(model, trace)
        with evaluating(model.decoder):
            images = model.decode(codes, context).mean
        return model.labeler.cost(images, context)

    def asked(self, model: Vae, trace: Trace) -> tuple[Tensor, Tensor]:
        """Return the codes ``(B, D)`` and contexts ``(B, K)`` of what is made."""
        context = trace.context
        assert context is not None
        if not isinstance(model.prior, (NormalPrior, LearnedPrior)):
            return model.draw(context), context
        prior = model.prior(context) if isinstance(model.prior, LearnedPrior) else model.prior()
        shape = (len(context), model.latent_dim)
        drawn = noise.normal(shape, batch_dim=0, device=context.device)
        return prior.mean + prior.stddev * drawn, context
