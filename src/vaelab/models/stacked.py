"""Two VAEs, one upon the other: the codes of the first are the data of the second (M1+M2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from vaelab.errors import within
from vaelab.models.vae import MOST_FACTOR, Vae


class StackedVae(Vae):
    """M1+M2 (Kingma et al., 2014): p(x|z₁) p(z₁|y, z₂) p(z₂) p(y).

    The first VAE knows no labels; ELBO and log p(x) are its own, under p(z₁) = N(0, I). The second
    makes codes of a class. The class of an image is read by the first one's labeler.

    Arguments:
        upper: the second, whose "images" are codes as ``(n, 1, 1, D)``.
        **parts: of the first, see `Vae`.
    """

    def __init__(self, upper: Vae, **parts: Any) -> None:
        super().__init__(**parts)
        self.upper = upper

    @property
    @override
    def asked_classes(self) -> bool:
        return True  # the second VAE makes codes of a class

    @property
    @override
    def takes_mixture(self) -> bool:
        return False  # the second VAE is what a mixture would be

    @override
    def draw(self, context: Tensor, temperature: float = 1.0) -> Tensor:
        within("temperature", temperature, 0, MOST_FACTOR)
        second = self.upper.draw(context, temperature)
        made = self.upper.decode(second, context)
        drawn: Tensor = made.mean + temperature * (made.sample() - made.mean)
        return drawn.flatten(1)


def as_data(codes: Tensor) -> Tensor:
    """Return codes ``(n, D)`` as the second VAE sees them, ``(n, 1, 1, D)``."""
    return codes[:, None, None, :]


def with_codes_of(lower: Vae, images: Tensor) -> Tensor:
    """Return a draw of q(z₁|x) for each image, as data, without gradients."""
    with torch.no_grad():
        drawn: Tensor = lower.infer(images, None).sample()
    return as_data(drawn)
