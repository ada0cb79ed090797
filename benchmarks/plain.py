"""What every contender shares, in plain PyTorch: the digits, model M and one estimator of the ELBO.

Nothing here imports vaelab, so that the memory of the others is their own.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH = 128
LATENT = 20
LR = 1e-3
TRAIN_IMAGES = 55_000

SAME_NETWORK = {
    "latent_dim": LATENT,
    "encoder": {"kind": "conv", "widths": [32, 64], "kernel": 4, "activation": "relu"},
    "likelihood": "bernoulli",
}
"""Model M as a section of a configuration of vaelab."""


def mnist_images(part: str = "train") -> Tensor:
    """Return the digits that come with vaelab, uint8 ``(N, 1, 28, 28)``; part: train or t10k."""
    found = find_spec("vaelab")  # where the package is, without importing it
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / "data" / "mnist" / f"{part}-images-idx3-ubyte.gz"
    pixels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16)
    return torch.from_numpy(pixels.copy()).view(-1, 1, 28, 28)


def training_images() -> Tensor:
    """Return the images that all train on, float32 in [0, 1], ``(55000, 1, 28, 28)``."""
    return mnist_images()[:TRAIN_IMAGES].float() / 255


class Encoder(nn.Sequential):
    """Images ``(B, 1, 28, 28)`` to ``(B, 2 D)``."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 2 * LATENT),
        )


class Decoder(nn.Sequential):
    """Codes ``(B, D)`` to logits ``(B, 1, 28, 28)``."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(LATENT, 64 * 7 * 7),
            nn.ReLU(),
            nn.Unflatten(1, (64, 7, 7)),
            nn.ConvTranspose2d(64, 32, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 4, 2, 1),
        )


def parameter_count(*modules: nn.Module) -> int:
    """Return the number of parameters of modules."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def negative_elbo(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """Return −ELBO in nats per image, as anybody would write it."""
    mu, log_var = encoder(x).chunk(2, -1)
    z = mu + torch.exp(0.5 * log_var) * torch.randn_like(mu)
    distortion = functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
    rate = -0.5 * torch.sum(1 + log_var - mu.square() - log_var.exp())
    return (distortion + rate) / len(x)


@torch.inference_mode()
def test_elbo(
    moments: Callable[[Tensor], tuple[Tensor, Tensor]],
    logits: Callable[[Tensor], Tensor],
    images: Tensor,
) -> tuple[float, float]:
    """Return the mean ELBO of images and its standard error, in nats per image.

    Grey values are the targets of the Bernoulli likelihood; one draw of z an image, the same noise
    for every model and every call, fp32.

    Arguments:
        moments: images ``(B, 1, 28, 28)`` to mean and standard deviation of q(z|x), ``(B, D)``.
        logits: codes ``(B, D)`` to the logits of the pixels.
        images: uint8 ``(N, 1, 28, 28)``.
    """
    generator = torch.Generator().manual_seed(2014)
    bounds = []
    for part in images.split(500):
        x = part.float() / 255
        mu, sigma = moments(x)
        z = mu + sigma * torch.randn(mu.shape, generator=generator)
        distortion = functional.binary_cross_entropy_with_logits(
            logits(z), x, reduction="none"
        ).sum((1, 2, 3))
        rate = 0.5 * (mu.square() + sigma.square() - 1 - 2 * sigma.log()).sum(1)
        bounds.append(-distortion - rate)
    bound = torch.cat(bounds).double()
    return float(bound.mean()), float(bound.std() / len(bound) ** 0.5)
