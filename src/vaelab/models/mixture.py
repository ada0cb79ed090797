"""A mixture of normals that stands in for the prior when images are generated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vaelab.errors import counted

MOST = 1_000  # components


@dataclass(frozen=True, eq=False)
class LatentMixture:
    r"""A density of the latents of training images, the aggregate posterior q(z) = E_x q(z|x).

        q(z) ≈ Σ_k π_k N(z; μ_k, L_k L_kᵀ),   q(z|y) ≈ Σ_k π_{k|y} N(z; μ_k, L_k L_kᵀ)

    Where q(z) leaves holes in the prior, images of these are like none that were learned from (Dai
    and Wipf, 2019; Ghosh et al., 2020).

    Arguments:
        weights: π, ``(K,)``.
        means: μ, ``(K, D)``.
        roots: L, lower triangular, ``(K, D, D)``.
        by_class: π of each class that the model is conditioned on, ``(C, K)``; C may be 0.
    """

    weights: Tensor
    means: Tensor
    roots: Tensor
    by_class: Tensor

    @property
    def name(self) -> str:
        """What it is, for a protocol."""
        return f"a mixture of {counted(len(self.weights), 'normal')} fitted to the latents"

    def draw(self, classes: Tensor, temperature: float = 1.0) -> Tensor:
        """Return a latent vector for each class, ``(n, D)``, by the global random numbers.

        Arguments:
            classes: numbers ``(n,)``; −1 for any.
            temperature: factor on the noise within a component.
        """
        every = torch.cat([self.by_class, self.weights[None]])  # −1 is the last row
        component = torch.multinomial(every[classes.cpu()], 1).squeeze(1)
        noise = torch.randn(len(classes), self.means.shape[1], 1)
        return self.means[component] + temperature * (self.roots[component] @ noise).squeeze(-1)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a file keeps."""
        return {name: getattr(self, name) for name in ("weights", "means", "roots", "by_class")}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], dims: int, classes: int) -> LatentMixture:
        """Return what `tensors` gave, for a model of so many dimensions and classes.

        Raises:
            ValueError: they are not what they should be; the text says why.
        """
        count = len(tensors["weights"]) if "weights" in tensors else 0
        if not 0 < count <= MOST:
            raise ValueError(f"weights of {count} components")
        shapes = {
            "weights": (count,),
            "means": (count, dims),
            "roots": (count, dims, dims),
            "by_class": (classes, count),
        }
        for name, shape in shapes.items():
            values = tensors.get(name)
            if values is None or values.shape != shape or values.dtype != torch.float32:
                raise ValueError(f"{name} is not float32 of shape {shape}")
            if not bool(values.isfinite().all()):
                raise ValueError(f"{name} is not finite")
        found = cls(**{name: tensors[name] for name in shapes})
        every = torch.cat([found.by_class, found.weights[None]])
        if bool((every < 0).any()) or not torch.allclose(every.sum(1), torch.ones(len(every))):
            raise ValueError("weights are no shares")
        return found
