"""A discriminator: a network that tells real images or codes from made ones."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from vaelab.config import NetworkConfig
from vaelab.models.networks import Encoder, Shape, build_encoder

AdversarialLoss = Literal["minimax", "hinge"]


class Discriminator(nn.Module):
    """Images (B, C, H, W) to one logit each, high for what seems real.

    Arguments:
        network: images to one number.
    """

    def __init__(self, network: Encoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images, ``(B,)``."""
        logits: Tensor = self.network(x)
        return logits.squeeze(1).float()

    def features(self, x: Tensor) -> Tensor:
        """Return the activations below the last layer, ``(B, F)``."""
        return self.network.below(x).float()


def build_discriminator(config: NetworkConfig, shape: Shape, spectral: bool) -> Discriminator:
    """Return a discriminator like the encoder, with leaky ReLU and without normalisation.

    ``spectral`` divides every weight by its largest singular value (Miyato et al., 2018).
    """
    plain = {"activation": "leaky-relu", "normalization": "none", "dropout": 0.0}
    network = build_encoder(config.model_copy(update=plain), shape, 1)
    if spectral:
        for module in list(network.modules()):
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                spectral_norm(module)
    return Discriminator(network)


def code_judge(dim: int, hidden: int = 256) -> nn.Sequential:
    """Return a discriminator of codes, ``(n, D)`` to one logit each, ``(n, 1)``."""
    return nn.Sequential(
        nn.Linear(dim, hidden), nn.LeakyReLU(0.2),
        nn.Linear(hidden, hidden), nn.LeakyReLU(0.2),
        nn.Linear(hidden, 1),
    )  # fmt: skip


def judge_loss(real: Tensor, made: Tensor, kind: AdversarialLoss) -> Tensor:
    """Return what the discriminator minimises, from logits ``(B,)`` of real and made.

    minimax   −log σ(D(x)) − log(1 − σ(D(x̃)))      (Goodfellow et al., 2014)
    hinge     max(0, 1 − D(x)) + max(0, 1 + D(x̃))  (Lim and Ye, 2017)
    """
    if kind == "hinge":
        return functional.relu(1 - real).mean() + functional.relu(1 + made).mean()
    return functional.softplus(-real).mean() + functional.softplus(made).mean()


def fool_loss(made: Tensor, kind: AdversarialLoss) -> Tensor:
    """Return what the maker minimises: −log σ(D(x̃)) (not saturating), or −D(x̃) for hinge."""
    return -made.mean() if kind == "hinge" else functional.softplus(-made).mean()


def gradient_penalty(judge: nn.Module, real: Tensor) -> Tensor:
    """Return E ‖∇_x D(x)‖² at real images or codes (R1; Mescheder, Geiger and Nowozin, 2018)."""
    real = real.detach().requires_grad_()
    with torch.autocast(real.device.type, enabled=False):
        logits = judge(real.float())
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()
