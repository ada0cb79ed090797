"""An objective: the sum of named terms that one player minimises."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.data.batches import Batch
from vaelab.models.model import Model
from vaelab.models.posteriors import Dirac
from vaelab.models.transport import Carried
from vaelab.models.vae import Trace, Vae
from vaelab.objectives.terms import Term


@dataclass(frozen=True)
class Loss:
    """What one evaluation of an objective gives.

    Arguments:
        total: the scalar to minimise, nats per image (mean over the batch), with its graph.
        figures: what to log, detached scalars: ``loss``, every term as ``loss/NAME``, and where
            they
            exist ``distortion``, ``rate`` and ``elbo``, unweighted whatever the objective.
    """

    total: Tensor
    figures: dict[str, Tensor]


@dataclass(frozen=True)
class Player:
    """One loss and the parameters that it, and nothing else, may move.

    Arguments:
        name: unique name within the objective.
        parameters: name to parameter.
        loss: function of a batch and a step.
        repeats: how many updates it makes where others make one.
        training: settings of the optimizer that differ from those of the run.
        active: share of the training, from its start, in which it moves; then it rests while others
            go on.
    """

    name: str
    parameters: Mapping[str, nn.Parameter]
    loss: Callable[[Batch, int], Loss]
    repeats: int = 1
    training: Mapping[str, Any] = field(default_factory=dict)
    active: float = 1.0


class Objective(nn.Module):
    """A sum of named terms over one forward trace, averaged over the batch.

    Arguments:
        terms: name to term.
        samples: S, draws of z for each image.
        settle: share of the training, at its end, in which only a model's transport moves.
        steps: of the whole training.
        steps: of the whole training.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        samples: int = 1,
        settle: float = 0.0,
        steps: int = 0,
    ) -> None:
        super().__init__()
        self.terms, self.samples = dict(terms), samples
        self.settle, self.steps = settle, steps

    def forward(self, model: Model, batch: Batch, step: int) -> Loss:
        """Run the model over a batch and sum the terms."""
        assert isinstance(model, Vae)
        trace = model(batch, self.samples)
        shares = {name: term(trace, step).mean() for name, term in self.terms.items()}
        total = torch.stack(list(shares.values())).sum()
        figures = {f"loss/{name}": share.detach() for name, share in shares.items()}
        return Loss(total, {"loss": total.detach(), **figures, **rate_distortion(trace)})

    def players(self, model: Model) -> dict[str, Player]:
        """Return who optimises what: the model, and its labeler and transport if it has them."""

        def loss(batch: Batch, step: int) -> Loss:
            result: Loss = self(model, batch, step)
            return result

        parameters = {
            **own_parameters(model),
            **{f"objective.{name}": value for name, value in self.named_parameters()},
        }
        share = 1 - self.settle if isinstance(model, Vae) and model.transport else 1.0
        return {
            "model": Player("model", parameters, loss, active=share),
            **labeler_player(model),
            **transport_player(model, math.ceil(share * self.steps)),
        }


SETTLED = 0.5
_LABELER, _TRANSPORT = "labeler.", "transport."


def own_parameters(model: Model) -> dict[str, nn.Parameter]:
    """Return the parameters of a model but those of its labeler and transport, by name."""
    apart = (_LABELER, _TRANSPORT)
    return {f"model.{n}": p for n, p in model.named_parameters() if not n.startswith(apart)}


def labeler_player(model: Model) -> dict[str, Player]:
    """Return the player that trains a model's labeler; none if it has none."""
    if not isinstance(model, Vae) or model.labeler is None:
        return {}
    labeler, conditioning = model.labeler, model.conditioning
    assert conditioning is not None

    def loss(batch: Batch, step: int) -> Loss:
        total = labeler.cost(batch.images, conditioning(batch))
        return Loss(total, {"loss": total.detach()})

    parameters = {f"model.{_LABELER}{n}": p for n, p in labeler.named_parameters()}
    return {"labeler": Player("labeler", parameters, loss)}


def transport_player(model: Model, settles: int) -> dict[str, Player]:
    """Return the player that trains a model's transport; none if it has none.

    While the model moves, it lowers the rate as the model does: by the density of draws of h. (By
    another it would pull at the codes against the model, and both would run away.) Then it settles
    on h with `SETTLED` of their noise: users read the means, and what is finer than the noise of
    draws shows in these.

    Arguments:
        model: with a transport.
        settles: step at which the model rests.
    """
    if not isinstance(model, Vae) or model.transport is None:
        return {}
    transport = model.transport

    def loss(batch: Batch, step: int) -> Loss:
        with torch.no_grad():
            posterior, _ = model.distributions(batch)
        assert isinstance(posterior, Carried)
        total = posterior.cost(1.0 if step < settles else SETTLED).mean()
        return Loss(total, {"loss": total.detach()})

    parameters = {f"model.{_TRANSPORT}{n}": p for n, p in transport.named_parameters()}
    return {"transport": Player("transport", parameters, loss)}


@torch.no_grad()
def rate_distortion(trace: Trace) -> dict[str, Tensor]:
    """Return distortion, rate and ELBO of a trace, nats per image; of a point no rate."""
    distortion = -trace.log_px.mean()
    if any(is_point(latent.posterior) for latent in trace.latents.values()):
        return {"distortion": distortion}
    rate = trace.rate.mean()
    return {"distortion": distortion, "rate": rate, "elbo": -distortion - rate}


def is_point(posterior: Distribution) -> bool:
    """Tell whether a posterior is a point mass, whose rate is infinite."""
    return isinstance(posterior, Dirac)
