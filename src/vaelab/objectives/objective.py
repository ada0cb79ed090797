"""An objective: the sum of named terms that one player minimises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.data.batches import Batch
from vaelab.models.masses import bits_per_dim
from vaelab.models.model import Model
from vaelab.models.posteriors import Dirac
from vaelab.models.vae import Trace, Vae
from vaelab.objectives.perceptual import Compared
from vaelab.objectives.terms import Term


@dataclass(frozen=True)
class Loss:
    """What one evaluation of an objective gives.

    Arguments:
        total: the scalar to minimise, nats per image (mean over the batch), with its graph.
        figures: what to log, detached scalars: ``loss``, every term as ``loss/NAME``, and where
            they
            exist ``distortion``, ``rate`` and ``elbo``, unweighted whatever the objective.
        counts: of how many images of the batch a figure is the mean, where that is not all.
    """

    total: Tensor
    figures: dict[str, Tensor]
    counts: dict[str, int] = field(default_factory=dict)


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
        restart: share of the training after which its learning rate goes through its schedule
            anew; 0 for once only.
    """

    name: str
    parameters: Mapping[str, nn.Parameter]
    loss: Callable[[Batch, int], Loss]
    repeats: int = 1
    training: Mapping[str, Any] = field(default_factory=dict)
    active: float = 1.0
    restart: float = 0.0


class Objective(nn.Module):
    """A sum of named terms over one forward trace, averaged over the batch.

    Arguments:
        terms: name to term.
        samples: S, draws of z for each image.
    """

    def __init__(self, terms: Mapping[str, Term], samples: int = 1) -> None:
        super().__init__()
        self.terms, self.samples = dict(terms), samples

    def forward(self, model: Model, batch: Batch, step: int) -> Loss:
        """Run the model over a batch and sum the terms."""
        return self.traced(model, batch, step)[1]

    def traced(self, model: Model, batch: Batch, step: int) -> tuple[Trace, Loss]:
        """Do as `forward`, and return the trace that the terms were of."""
        assert isinstance(model, Vae)
        trace = model(batch, self.samples)
        shares = self.shares(trace, step)
        total = torch.stack(list(shares.values())).sum()
        figures = {f"loss/{name}": share.detach() for name, share in shares.items()}
        figures = {"loss": total.detach(), **figures, **rate_distortion(trace)}
        return trace, Loss(total, figures)

    def given(self, model: Model) -> tuple[str, ...]:
        """Return the label and attributes that are learned from beside the images, by name."""
        labels = model.conditioning if isinstance(model, Vae) else None
        return () if labels is None else labels.names

    def shares(self, trace: Trace, step: int) -> dict[str, Tensor]:
        """Return the share of each term in the loss, nats per image."""
        return {name: term(trace, step).mean() for name, term in self.terms.items()}

    def prepare(self, model: Model) -> None:
        """Let terms find the networks that they compare images with."""
        for term in self.terms.values():
            if isinstance(term, Compared):
                term.prepare(model.device)

    def check_compiles(self) -> None:
        """Raise `ConfigError` for an objective that compiled networks give wrong gradients of."""

    def players(self, model: Model) -> dict[str, Player]:
        """Return who optimises what: the model, and its labeler if it has one."""

        def loss(batch: Batch, step: int) -> Loss:
            result: Loss = self(model, batch, step)
            return result

        parameters = {
            **own_parameters(model),
            **{f"objective.{name}": value for name, value in self.named_parameters()},
        }
        return {"model": Player("model", parameters, loss), **labeler_player(model)}


_LABELER = "labeler."
LEARNS = 0.5
"""Share of the training in which a labeler learns; it would only learn images by heart after."""


def own_parameters(model: Model) -> dict[str, nn.Parameter]:
    """Return the parameters of a model but those of its labeler, by name."""
    return {f"model.{n}": p for n, p in model.named_parameters() if not n.startswith(_LABELER)}


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
    return {"labeler": Player("labeler", parameters, loss, active=LEARNS)}


@torch.no_grad()
def rate_distortion(trace: Trace) -> dict[str, Tensor]:
    """Return distortion, rate and ELBO of a trace, nats per image; of a point no rate.

    Of a trace that is measured also bits per dimension, an upper bound by the ELBO.
    """
    distortion = -trace.log_px.mean()
    if any(is_point(latent.posterior) for latent in trace.latents.values()):
        return {"distortion": distortion}
    rate = trace.rate.mean()
    figures = {"distortion": distortion, "rate": rate, "elbo": -distortion - rate}
    if trace.measured:
        dimensions = trace.batch.target[0].numel()
        figures["bits_per_dim"] = bits_per_dim(trace.log_mass.mean() - rate, dimensions)
    return figures


def is_point(posterior: Distribution) -> bool:
    """Tell whether a posterior is a point mass, whose rate is infinite."""
    return isinstance(posterior, Dirac)
