"""What a model consists of, as found by running it: layers, output shapes, parameter counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vaelab.models.model import evaluating
from vaelab.models.vae import Vae


@dataclass(frozen=True)
class Layer:
    """One row of the table.

    Arguments:
        name: path of the module within its part.
        kind: what the module says it is.
        shape: of its output for one image, such as ``32 × 14 × 14``; empty if it gives no tensor.
        parameters: number of its own learned numbers.
    """

    name: str
    kind: str
    shape: str
    parameters: int


@dataclass(frozen=True)
class Part:
    """A network or family of the model, in the order in which data flows through it."""

    title: str
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Number of learned numbers of the part."""
        return sum(layer.parameters for layer in self.layers)


def structure(model: Vae) -> list[Part]:
    """Return encoder, decoder and prior with their layers, as one forward pass runs them.

    Every parameter of the model is counted once, so that the parts sum to the model's total.
    """
    shapes: dict[nn.Module, str] = {}

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[module] = " × ".join(map(str, output.shape[1:]))

    handles = [module.register_forward_hook(look) for module in model.modules()]
    try:
        with torch.no_grad(), evaluating(model):
            model.posterior(torch.zeros(1, *model.shape))
            model.generate(torch.zeros(1, model.latent_dim), **model.ordinary())
    finally:
        for handle in handles:
            handle.remove()
    seen: set[nn.Parameter] = set()
    parts = {
        "Encoder q(z|x)": model.encoder,
        "Decoder p(x|z)": model.decoder,
        "Prior p(z)": model.prior,
    }
    found = [Part(title, tuple(_layers(part, shapes, seen))) for title, part in parts.items()]
    return [part for part in found if part.layers]


def _layers(
    part: nn.Module, shapes: dict[nn.Module, str], seen: set[nn.Parameter]
) -> Iterator[Layer]:
    ran = {module: place for place, module in enumerate(shapes)}
    modules = sorted(part.named_modules(), key=lambda item: ran.get(item[1], len(ran)))
    for name, module in modules:
        own = [value for value in module.parameters(recurse=False) if value not in seen]
        seen.update(own)
        inner = any(True for _ in module.children())
        if own or (module in shapes and not inner):
            kind = type(module).__name__ + ("" if inner else f"({module.extra_repr()})")
            count = sum(value.numel() for value in own)
            yield Layer(name.removeprefix("network."), kind, shapes.get(module, ""), count)
