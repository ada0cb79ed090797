"""Critics: networks that read from a code what it should not tell, and make it costly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from vaelab.data.batches import Batch
from vaelab.models.conditioning import Balance, Conditioning
from vaelab.models.layers import BatchNorm1d
from vaelab.models.model import Model
from vaelab.models.vae import Trace, Vae
from vaelab.objectives.objective import (
    Loss,
    Objective,
    Player,
    labeler_player,
    own_parameters,
)
from vaelab.objectives.terms import Term

HIDDEN = 256


class LabelCritic(nn.Module):
    """q_δ(y|z): class and binary attributes, read from the first ``dim`` numbers of a code.

    Arguments:
        dim: how many.
        conditioning: which labels there are.
        balance: weights of the images for each attribute.
    """

    def __init__(self, dim: int, conditioning: Conditioning, balance: Balance) -> None:
        super().__init__()
        self.dim = dim
        self.classes = len(conditioning.class_names)
        self.attributes = len(conditioning.attribute_names)
        self.balance = balance
        self.net = nn.Sequential(
            BatchNorm1d(dim, affine=False),  # what is small may still tell
            nn.Linear(dim, HIDDEN), nn.LeakyReLU(0.2),
            nn.Linear(HIDDEN, HIDDEN), nn.LeakyReLU(0.2),
            nn.Linear(HIDDEN, self.classes + self.attributes),
        )  # fmt: skip

    def forward(self, code: Tensor) -> Tensor:
        """Return logits of codes ``(..., D)``: one a class, then one an attribute."""
        flat = code[..., : self.dim].flatten(0, -2)
        logits: Tensor = self.net(flat).float()
        shaped: Tensor = logits.unflatten(0, code.shape[:-1])
        return shaped

    def cost(self, code: Tensor, context: Tensor, labels: Tensor | None) -> Tensor:
        """Return −log q_δ(y|z) of what is known of each image, ``(B,)`` nats."""
        logits = self(code)
        total: Tensor = logits.new_zeros(len(code))
        if self.classes:
            truth = context[:, : self.classes]
            total = total - (truth * logits[:, : self.classes].log_softmax(1)).sum(1)
        if self.attributes:
            values, known = context[:, self.classes :].chunk(2, 1)
            each = functional.binary_cross_entropy_with_logits(
                logits[:, self.classes :], (values > 0).float(), reduction="none"
            )
            total = total + (self.balance(labels, values) * known * each).sum(1)
        return total

    def negative_entropy(self, code: Tensor, context: Tensor, labels: Tensor | None) -> Tensor:
        """Return Σ_y q_δ(y|z) log q_δ(y|z), ``(B,)`` nats: least where δ can tell nothing."""
        logits = self(code)
        total: Tensor = logits.new_zeros(len(code))
        if self.classes:
            log = logits[:, : self.classes].log_softmax(1)
            total = total + (log.exp() * log).sum(1)
        if self.attributes:
            on = logits[:, self.classes :]
            log1, log0 = functional.logsigmoid(on), functional.logsigmoid(-on)
            each = log1.exp() * log1 + log0.exp() * log0
            values, known = context[:, self.classes :].chunk(2, 1)
            total = total + (self.balance(labels, values) * known * each).sum(1)
        return total


class Leak:
    """What a critic can still tell from z of the labels: its weighted negative entropy.

    Source: M₂ in Klys, Snell and Zemel, 2018.
    """

    def __init__(self, critic: LabelCritic, conditioning: Conditioning, weight: float) -> None:
        self.critic, self.conditioning, self.weight = critic, conditioning, weight

    def __call__(self, trace: Trace, step: int) -> Tensor:
        """Return the cost of each image, over a draw of z and over the mean of q(z|x)."""
        latent, labels = trace.latents["z"], trace.batch.labels
        context = self.conditioning(trace.batch)
        drawn = self.critic.negative_entropy(latent.value[0], context, labels)
        mean = self.critic.negative_entropy(latent.posterior.mean, context, labels)
        return self.weight * (drawn + mean) / 2


class Independence(Objective):
    """An objective with a critic of the code, as a second player.

        model:   min  Σ terms + weight · E Σ_y q_δ(y|z) log q_δ(y|z)
        critic:  min  −E log q_δ(y|z)

    Arguments:
        terms: of the model.
        critic: reads the labels from the code.
        conditioning: of the model.
        weight: of what the critic can tell.
        steps: updates of the critic for one of the model.
        lr: learning rate of the critic.
        samples: S, draws of z for each image.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        critic: LabelCritic,
        conditioning: Conditioning,
        weight: float,
        steps: int,
        lr: float,
        samples: int = 1,
    ) -> None:
        super().__init__({**terms, "leak": Leak(critic, conditioning, weight)}, samples)
        self.critic, self.steps, self.lr = critic, steps, lr

    def players(self, model: Model) -> dict[str, Player]:
        """Return two: the model, and the critic, which cannot move the code that it reads."""
        assert isinstance(model, Vae)

        def loss(batch: Batch, step: int) -> Loss:
            result: Loss = self(model, batch, step)
            return result

        def reading(batch: Batch, step: int) -> Loss:
            with torch.no_grad():
                posterior, _ = model.distributions(batch)
                drawn, mean = posterior.sample(), posterior.mean
                assert model.conditioning is not None
                context = model.conditioning(batch)
            costs = [self.critic.cost(code, context, batch.labels) for code in (drawn, mean)]
            total = torch.stack(costs).mean()
            return Loss(total, {"loss": total.detach()})

        critic = {f"objective.critic.{n}": p for n, p in self.critic.named_parameters()}
        adam = {"optimizer": "adam", "lr": self.lr, "schedule": "constant", "weight_decay": 0.0}
        return {
            "model": Player("model", own_parameters(model), loss),
            **labeler_player(model),
            "critic": Player("critic", critic, reading, self.steps, adam),
        }
