"""Objectives with a discriminator: VAE-GAN and the adversarial autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaelab.data.batches import Batch
from vaelab.errors import ConfigError
from vaelab.models import noise
from vaelab.models.discriminator import (
    AdversarialLoss,
    Discriminator,
    fool_loss,
    gradient_penalty,
    judge_loss,
)
from vaelab.models.global_batch import global_sum
from vaelab.models.model import Model
from vaelab.models.vae import Trace, Vae
from vaelab.objectives.objective import Loss, Objective, Player, rate_distortion
from vaelab.objectives.schedules import Schedule

_SOFT = 1e-8  # a norm of nats is no mean over pixels, which Esser et al. soften by 10⁻⁴


class VaeGan(Objective):
    """Encoder, decoder and discriminator, each with a loss of its own (Larsen et al., 2016).

        encoder         β KL(q(z|x) ‖ p(z)) + D_l
        decoder         D_l + λ · fool(x̃, x_p)
        discriminator   judge(x; x̃, x_p) + r/2 · E ‖∇_x D(x)‖²
        D_l = ½ E_q ‖f(x) − f(x̃)‖² + p · distortion + terms,   f the discriminator's features

    x̃ decodes a draw from q(z|x), x_p a draw from the prior; fool and judge are means over both, so
    that real and generated images weigh alike. In the paper (algorithm 1) they are sums:

        encoder         KL + D_l
        decoder         γ D_l − L_GAN
        discriminator   −L_GAN
        L_GAN = log D(x) + log(1 − D(x̃)) + log(1 − D(x_p)),   D_l = ½ E_q ‖f(x) − f(x̃)‖²

    So the encoder's loss is the paper's for β = 1, p = 0. The decoder's is the paper's over γ with
    γ = 2/λ (0.1 by default), and −log D(x̃) in place of log(1 − D(x̃)), which has the same fixed
    point and does not saturate (Goodfellow et al., 2014). The discriminator's gives generated
    images half the paper's weight, and has R1 added.

    With an adaptive weight (Esser, Rombach and Ommer, 2021) λ is a constant of each step, by which
    the discriminator pulls a times as hard as D_l at the decoder's last layer θ:

        λ = a ‖∇_θ D_l‖ / ‖∇_θ fool‖

    Arguments:
        judge: the discriminator.
        kind: of the losses of decoder and discriminator.
        weight: λ, or a schedule of a.
        pixels: p, weight of the likelihood of pixels beside that of features.
        beta: β.
        r1: r.
    """

    def __init__(
        self,
        judge: Discriminator,
        kind: AdversarialLoss,
        weight: float | Schedule,
        pixels: float,
        beta: float,
        r1: float,
    ) -> None:
        super().__init__({})
        self.judge, self.kind = judge, kind
        self.weight, self.pixels, self.beta, self.r1 = weight, pixels, beta, r1

    def check_compiles(self) -> None:
        """Raise `ConfigError` for an adaptive weight, which goes back through a network twice."""
        if callable(self.weight):
            raise ConfigError(
                "training.compile: the adaptive weight of a vae-gan takes two gradients of its "
                "decoder in a step, and those of a compiled network are wrong. Leave it out, or "
                "take a fixed weight such as -s options.gan=1000."
            )

    def forward(self, model: Model, batch: Batch, step: int) -> Loss:
        """Return the encoder's loss, with the figures of rate and distortion."""
        assert isinstance(model, Vae)
        trace: Trace = model(batch)
        alike, shares = self._alike(trace, step)
        total = alike + self.beta * trace.rate.mean()
        figures = {f"loss/{name}": share.detach() for name, share in shares.items()}
        return Loss(total, {"loss": total.detach(), **figures, **rate_distortion(trace)})

    def _alike(self, trace: Trace, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cost of the reconstructions, nats per image, D_l, and its parts by name."""
        made = trace.likelihood.mean.flatten(0, 1)
        with torch.no_grad():
            real = self.judge.features(trace.batch.images)
        distance = 0.5 * (self.judge.features(made) - real).square().sum(1).mean()
        shares = {"features": distance, **self.shares(trace, step)}
        if self.pixels:
            shares["pixels"] = -self.pixels * trace.log_px.mean()
        return torch.stack(list(shares.values())).sum(), shares

    def _decoder(self, model: Vae, batch: Batch, step: int) -> Loss:
        trace: Trace = model(batch)
        fooled = fool_loss(self.judge(self._made(model, trace)), self.kind)
        alike, _ = self._alike(trace, step)
        if callable(self.weight):
            weight = balance(alike, fooled, last_layer(model.decoder.network)) * self.weight(step)
        else:
            weight = torch.full_like(fooled, self.weight)
        total = alike + weight * fooled
        figures = {"loss": total.detach(), "loss/fool": fooled.detach(), "weight": weight}
        return Loss(total, figures)

    def _judge(self, model: Vae, batch: Batch, step: int) -> Loss:
        with torch.no_grad():
            made = self._made(model, model(batch))
        logits, mine = self.judge(batch.images), self.judge(made)
        total = judge_loss(logits, mine, self.kind)
        figures = {
            "real": (logits > 0).float().mean().detach(),
            "made": (mine < 0).float().mean().detach(),
        }
        if self.r1:
            total = total + 0.5 * self.r1 * gradient_penalty(self.judge, batch.images)
        return Loss(total, {"loss": total.detach(), **figures})

    def _made(self, model: Vae, trace: Trace) -> Tensor:
        """Return reconstructions and as many samples, ``(2 B, C, H, W)``."""
        z = trace.latents["z"].value
        drawn = noise.normal(z.shape, batch_dim=1, device=z.device)
        samples = model.decode(drawn, trace.context).mean
        return torch.cat([trace.likelihood.mean.flatten(0, 1), samples.flatten(0, 1)])

    def players(self, model: Model) -> dict[str, Player]:
        """Return the three; no gradient of one reaches another's parameters."""
        assert isinstance(model, Vae)
        return {
            "encoder": Player("encoder", _but(model, "decoder."), _with(self, model)),
            "decoder": Player("decoder", _of(model, "decoder."), _with(self._decoder, model)),
            "discriminator": Player(
                "discriminator", _judges(self.judge), _with(self._judge, model)
            ),
        }


def balance(loss: Tensor, other: Tensor, parameter: Tensor) -> Tensor:
    """Return what weighs another loss so that both pull alike at a parameter; no gradient.

        ‖∇_θ loss‖ / (‖∇_θ other‖ + 10⁻⁸)

    The gradients are those of the global batch. Source: Esser, Rombach and Ommer, Taming
    transformers, 2021 (adaptive weight).

    Arguments:
        loss: this process's mean over images, and so is the other.
        other: to be weighed.
        parameter: θ.
    """
    own, others = (
        torch.linalg.vector_norm(global_sum(gradient.float()))
        for each in (loss, other)
        for gradient in torch.autograd.grad(each * noise.share(), parameter, retain_graph=True)
    )
    weight: Tensor = own / (others + _SOFT)
    return weight.detach()


class Adversarial(Objective):
    """Adversarial autoencoder (Makhzani et al., 2016): a discriminator of codes for a rate.

        autoencoder     distortion
        encoder         λ · fool(z),   z ~ q(z|x)
        discriminator   judge(z_p; z),   z_p ~ p(z)

    The paper makes two steps of the encoder with optimizers of their own, one for the
    reconstruction error and one for −log D(z), so their relative weight is that of two learning
    rates; here one step minimises their sum, the distortion in nats per image plus λ times
    −log D(z). The discriminator's loss is the paper's: −log D(z_p) − log(1 − D(z)).

    Arguments:
        judge: tells draws of the prior from codes, ``(n, D)`` to logits ``(n, 1)``.
        kind: of the losses of encoder and discriminator.
        weight: λ.
    """

    def __init__(self, judge: nn.Module, kind: AdversarialLoss, weight: float) -> None:
        super().__init__({})
        self.judge, self.kind, self.weight = judge, kind, weight

    def forward(self, model: Model, batch: Batch, step: int) -> Loss:
        """Return the distortion."""
        assert isinstance(model, Vae)
        trace: Trace = model(batch)
        total = -trace.log_px.mean()
        return Loss(total, {"loss": total.detach(), **rate_distortion(trace)})

    def _fool(self, model: Vae, batch: Batch, step: int) -> Loss:
        posterior, _ = model.distributions(batch)
        total = self.weight * fool_loss(self.judge(posterior.rsample())[:, 0], self.kind)
        return Loss(total, {"loss": total.detach()})

    def _judge(self, model: Vae, batch: Batch, step: int) -> Loss:
        with torch.no_grad():
            posterior, _ = model.distributions(batch)
            z = posterior.rsample()
            drawn = noise.normal(z.shape, batch_dim=0, device=z.device)
        total = judge_loss(self.judge(drawn)[:, 0], self.judge(z)[:, 0], self.kind)
        return Loss(total, {"loss": total.detach()})

    def players(self, model: Model) -> dict[str, Player]:
        """Return autoencoder and discriminator; the encoder fools in a second update."""
        assert isinstance(model, Vae)
        return {
            "model": Player("model", _but(model, ""), _with(self._both, model)),
            "discriminator": Player(
                "discriminator", _judges(self.judge), _with(self._judge, model)
            ),
        }

    def _both(self, model: Vae, batch: Batch, step: int) -> Loss:
        loss: Loss = self(model, batch, step)
        fooled = self._fool(model, batch, step)
        total = loss.total + fooled.total
        return Loss(
            total, {**loss.figures, "loss": total.detach(), "loss/fool": fooled.total.detach()}
        )


def last_layer(network: nn.Module) -> nn.Parameter:
    """Return the weights of the last layer of a network that has any, a decoder's output."""
    return [p for p in network.parameters() if p.ndim > 1][-1]


def _with(loss: Callable[..., Any], model: Vae) -> Callable[[Batch, int], Loss]:
    def bound(batch: Batch, step: int) -> Loss:
        result: Loss = loss(model, batch, step)
        return result

    return bound


def _of(model: Vae, prefix: str) -> dict[str, nn.Parameter]:
    return {f"model.{n}": p for n, p in model.named_parameters() if n.startswith(prefix)}


def _but(model: Vae, prefix: str) -> dict[str, nn.Parameter]:
    chosen = model.named_parameters()
    return {f"model.{n}": p for n, p in chosen if not prefix or not n.startswith(prefix)}


def _judges(judge: nn.Module) -> dict[str, nn.Parameter]:
    return {f"objective.judge.{name}": p for name, p in judge.named_parameters()}
