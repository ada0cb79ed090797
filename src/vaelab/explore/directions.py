"""Directions of attributes in the latent space of any VAE, to compare a CSVAE with."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from vaelab.data.images import ImageSet, Splits
from vaelab.errors import ConfigError
from vaelab.evaluation.attributes import attribute_figures, editable, find_references
from vaelab.evaluation.figures import Figure
from vaelab.evaluation.measure import codes_of
from vaelab.models.conditioning import cut_at, cut_of
from vaelab.models.handles import Direction
from vaelab.models.vae import Vae
from vaelab.training.progress import Progress

NO_ATTRIBUTES = (
    "the images have no attributes. Some can be measured on any images: train with "
    "-s data.attributes=[thickness,slant]."
)

How = Literal["difference", "logistic"]
IMAGES = 20_000
"""Images that a direction is found from, at most, evenly spread."""


def check_how(how: str) -> How:
    """Return ``how`` if it is known; raises `ConfigError` if not."""
    for known in get_args(How):
        if how == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"how: {how!r} is unknown; use difference or logistic.")


def find_direction(
    model: Vae, images: ImageSet, attribute: str, how: How = "difference"
) -> Direction:
    """Return the direction of the latent space along which an attribute changes.

        difference   u ∝ E[z | a = 1] − E[z | a = 0]           (Larsen et al., 2016; White, 2016)
        logistic     u ∝ w of p(a = 1 | z) = σ(w·z + b), fitted with a small ridge

    Arguments:
        model: any VAE.
        images: with the attribute, usually the training images; where it is no number of 0 and 1,
            it is cut at its median.
        attribute: name.
        how: one of these.

    Raises:
        ConfigError: no such attribute or way, or one side holds no image.
    """
    index = torch.arange(min(len(images), IMAGES)) * len(images) // min(len(images), IMAGES)
    values = cut_of(images, attribute, cut_at(images, attribute))[index]
    index, on = index[~values.isnan()], values[~values.isnan()] > 0
    if not on.any() or on.all():
        raise ConfigError(f"{attribute}: all images are on one side, so it has no direction.")
    codes = codes_of(model, images, index)
    vector = codes[on].mean(0) - codes[~on].mean(0) if how == "difference" else _normal(codes, on)
    unit = vector / vector.norm().clamp(min=1e-12)
    along = codes @ unit
    means = (float(along[~on].mean()), float(along[on].mean()))
    words = {"difference": "difference of means", "logistic": "logistic regression"}[how]
    return Direction(attribute, unit, means, f"{words} over {len(codes):,} images")


def observed(images: ImageSet) -> tuple[str, ...]:
    """Return the attributes that are known of some of the images."""
    if images.attributes is None:
        return ()
    known = (~images.attributes.isnan()).any(0).tolist()
    return tuple(name for name, any_ in zip(images.attribute_names, known, strict=True) if any_)


def _normal(codes: Tensor, on: Tensor) -> Tensor:
    """Return the normal of the plane that divides the codes, by logistic regression."""
    from sklearn.linear_model import LogisticRegression

    scale = codes.std(0).clamp(min=1e-6)
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit((codes / scale).numpy(), on.numpy())
    return torch.from_numpy(fitted.coef_[0]).float() / scale


def all_attributes(
    model: Vae,
    splits: Splits,
    cache: Path | None = None,
    *,
    limit: int = 10_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Figure]:
    """Return `attribute_figures` of every attribute; a model without labels gets directions.

    Raises:
        ConfigError: the images have no attributes.
    """
    splits = model.matched_splits(splits)
    names = observed(splits.train)
    if not names:
        raise ConfigError(NO_ATTRIBUTES)
    figures: dict[str, Figure] = {}
    for name in names:
        handle = None if name in editable(model) else find_direction(model, splits.train, name)
        references = find_references(splits, name, cache, progress)
        figures |= attribute_figures(model, splits, references, handle, limit=limit, seed=seed)
    return figures
