"""What every model is to its user: images in, in any number; results out, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaelab.config import RunConfig
from vaelab.data.images import ImageSet, Splits
from vaelab.errors import DataError, check_seed
from vaelab.models import noise

Images = Tensor | NDArray[np.generic]
Shape = tuple[int, int, int]


class Model(nn.Module):
    """A module over images of one shape.

    Arguments:
        shape: channels, height and width of an image.
    """

    config: RunConfig | None = None
    """The configuration that the model was trained with, where there is one."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the labels that its likelihood of an image is conditioned on; none of p(x)."""
        return ()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def rows(self) -> int:
        """How many images or codes to work on at once, so that memory stays bounded."""
        return max(1, min(1024, 2**20 // math.prod(self.shape)))

    def matched(self, images: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
        """Return images labelled as the model has the names, and notes on what they lack.

        A model that is given no labels takes images as they are.

        Raises:
            DataError: a class or attribute that the model does not know.
        """
        return images, ()

    def matched_splits(self, splits: Splits) -> Splits:
        """Return `matched` of every part, with the notes; a part that stands in for one still does.

        Raises:
            DataError: as `matched`.
        """
        train, notes = self.matched(splits.train)
        others = []
        for part in (splits.validation, splits.test):
            found, more = (train, ()) if part is splits.train else self.matched(part)
            others.append(found)
            notes = (*notes, *(more if len(part) else ()))
        same = train is splits.train and others == [splits.validation, splits.test]
        if same and not notes:
            return splits
        notes = tuple(dict.fromkeys((*splits.notes, *notes)))
        return replace(splits, train=train, validation=others[0], test=others[1], notes=notes)

    def networks(self) -> list[nn.Module]:
        """Return the parts that ``torch.compile`` is to work on."""
        return list(self.children())

    def as_images(self, images: Images) -> Tensor:
        """Check images, 8-bit or in [0, 1]; returns float32 ``(N, C, H, W)`` in [0, 1]."""
        x = as_tensor("images", images)
        if x.shape[1:] != self.shape:
            want = " × ".join(map(str, self.shape))
            raise DataError(
                f"images of shape {tuple(x.shape)}: this model needs (N, {want}). "
                "Read them with vaelab.load_data, which fits size and channels."
            )
        if x.dtype == torch.uint8:
            return x.to(torch.float32) / 255
        if not x.is_floating_point():
            raise DataError(f"images of type {x.dtype}: give uint8, or float in [0, 1].")
        low, high = (float(end) for end in x.detach().aminmax()) if x.numel() else (0.0, 1.0)
        if not (low >= 0 and high <= 1):  # false for NaN as well
            raise DataError(
                f"images: float values must lie in [0, 1] but are in [{low:g}, {high:g}]; divide "
                "8-bit values by 255."
            )
        return x.to(torch.float32)

    @torch.no_grad()  # not inference_mode: codes may go on into somebody's own gradients
    def chunked(
        self, function: Callable[..., Tensor], *rows_of: Tensor, rows: int | None = None
    ) -> Tensor:
        """Apply a function to tensors of equally many rows, chunk by chunk.

        In evaluation mode, on the model's device.
        """
        with evaluating(self):
            parts = [
                function(*(part.to(self.device) for part in chunk)).float()
                for chunk in zip(*(x.split(rows or self.rows) for x in rows_of), strict=True)
            ]
        return torch.cat(parts)


def as_tensor(name: str, values: Any) -> Tensor:
    """Return a tensor of what may be one; raises `DataError` for what is none of real numbers."""
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(values).__name__
        raise DataError(f"{name}: {kind} is no array of numbers ({error}).") from None
    if tensor.is_complex():  # whose imaginary part would be lost
        raise DataError(f"{name}: is no array of real numbers (got {tensor.dtype}).")
    return tensor


class evaluating:
    """Context in which a module is in evaluation mode; its own mode comes back afterwards."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.training = module, module.training

    def __enter__(self) -> None:
        self.module.eval()

    def __exit__(self, *_: object) -> None:
        self.module.train(self.training)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Context in which draws follow from a seed; the generators' state comes back after it."""
    check_seed(seed)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        noise.seed(seed, device)
        yield
