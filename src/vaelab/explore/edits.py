"""Pictures of edits: an attribute changed in images, by strength, or taken from another image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vaelab.errors import ConfigError
from vaelab.models.handles import Direction, Handle, Subspace
from vaelab.models.model import Images
from vaelab.models.vae import Vae

STRENGTHS = (0.0, 0.5, 1.0, 1.5)


def strips(
    model: Vae,
    images: Images,
    attribute: str,
    to: float = 1.0,
    strength: float = 1.0,
    handle: Handle | None = None,
) -> Tensor:
    """Return every image, its reconstruction and the edit, ``(N, 3, C, H, W)``."""
    x = model.as_images(images)
    edited = model.edit(x, attribute, to, strength, handle=handle)
    return torch.stack([x, model.reconstruct(x).cpu(), edited.cpu()], 1)


def walks(
    model: Vae,
    images: Images,
    attribute: str,
    handle: Handle | None = None,
    ends: Sequence[float] = (-0.5, 0.0, 0.5, 1.0, 1.5),
    **given: Any,
) -> Tensor:
    """Return every image and its edits from one end of an attribute to the other.

    ``(N, 1 + len(ends), C, H, W)``; 0 and 1 stand for images without and with it, what lies
    outside goes beyond them.
    """
    x = model.as_images(images)
    edits = (model.edit(x, attribute, end, handle=handle, **given).cpu() for end in ends)
    return torch.stack([x, *edits], 1)


def transferred(
    model: Vae, source: Images, target: Images, attribute: str, handle: Handle | None = None
) -> Tensor:
    """Return the targets with the attribute as it is in the sources, ``(N, C, H, W)``.

    The part of the code that holds the attribute is taken over: its subspace, or the component
    along its direction.

    Raises:
        ConfigError: the model's code does not hold the attribute.
    """
    if handle is None and model.subspaces:
        handle = model.subspace(attribute)
    given, taken = model.encode(target), model.encode(source)
    if isinstance(handle, Subspace):
        moved = given.clone()
        moved[:, handle.dims] = taken[:, handle.dims]
    elif isinstance(handle, Direction):
        vector = handle.vector.to(given)
        moved = given + torch.outer((taken - given) @ vector, vector)
    else:
        raise ConfigError(
            f"{attribute}: the code of this model does not hold it. Transfer needs a csvae, or a "
            "model without labels and a direction."
        )
    return model.decoded(moved, model.context_of(target))
