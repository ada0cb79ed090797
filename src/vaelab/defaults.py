"""Settings that nobody named, chosen by what the images are, and written out in ``config.yaml``.

How they were chosen, and what they reach on which images, is in ``docs/defaults.md``. What is named
stays: by the user, by the recipe, by a preset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vaelab.config import ModelConfig, PresetName, RunConfig, TrainingConfig, merge
from vaelab.data.images import ImageSet
from vaelab.recipes import find_recipe, resolved_options

FEWEST_PASSES = 2
FEW = 10_000
"""Images up to which it is measured whether horizontal flips help."""

LOOKED_AT = 500  # images

_SIDE = 4  # pixels, about, of the smallest maps
_LATENTS = {0: 16, 400: 64, 25_000: 128}  # dimensions, from so many numbers of an image on


@dataclass(frozen=True)
class Preset:
    """How large a model and a training are.

    Arguments:
        steps: of a training: few images make many passes, and many images few.
        width: channels of the first convolution, doubled by each that follows.
        widest: channels of any.
    """

    steps: int
    width: int
    widest: int


PRESETS: Mapping[PresetName, Preset] = {
    "small": Preset(1_500, 16, 128),
    "base": Preset(6_000, 16, 128),
    "large": Preset(20_000, 32, 256),
}


def with_defaults(config: RunConfig, images: ImageSet) -> RunConfig:
    """Return a configuration with every setting that nobody named chosen for images to train on.

    Of a recipe that does not take them, or where all is named as in a run that goes on, it is the
    same.
    """
    if not find_recipe(config.recipe).by_images or not len(images):
        return config
    preset = PRESETS[config.preset or "base"]
    training = _of_training(config, images, preset)
    lonely = len(images) % training.batch_size == 1  # which batch normalisation cannot use
    model = _of_model(config, images, preset, "group" if lonely else "batch")
    config = config.model_copy(update={"model": model, "training": training})
    return config.model_copy(update={"options": resolved_options(config, math.prod(images.shape))})


def _of_model(
    config: RunConfig, images: ImageSet, preset: Preset, normalization: str
) -> ModelConfig:
    named = config.model.model_dump(exclude_unset=True)
    binary = config.data.binarize != "none" or is_binary(images)
    chosen: dict[str, Any] = {
        "latent_dim": latent_dim(images),
        "likelihood": "bernoulli" if binary else "gaussian",
        "output": "sigmoid",
        "standardize": True,
    }
    if "encoder" not in named:
        chosen["encoder"] = network(images.shape, preset, normalization)
    return ModelConfig.model_validate(merge(chosen, named))


def _of_training(config: RunConfig, images: ImageSet, preset: Preset) -> TrainingConfig:
    named, count = config.training.model_dump(exclude_unset=True), len(images)
    batch = named.get("batch_size", batch_size(count))
    steps = -(-count // batch)  # of a pass
    epochs = max(FEWEST_PASSES, -(-preset.steps // steps))
    chosen: dict[str, Any] = {"batch_size": batch, "epochs": epochs}
    if "augment" not in named and count <= FEW and images.shape[2] > 1:
        chosen["augment"] = {"flip": "auto"}
    if "optimizer" not in named:
        # By Muon a flow learns the latents of the training images alone, and sends others far away.
        flow = config.model.prior not in ("normal", "mixture") or config.model.posterior == "flow"
        name, lr = ("adamw", 3e-3) if flow else ("muon", 1.5e-2)
        chosen |= {"optimizer": name, "lr": lr, "schedule": "cosine", "lr_warmup": 0.05}
    return TrainingConfig.model_validate(merge(chosen, named))


def network(
    shape: tuple[int, int, int], preset: Preset = PRESETS["base"], normalization: str = "batch"
) -> dict[str, Any]:
    """Return a network that halves images until about four pixels are left of the smaller side."""
    halvings = round(math.log2(min(shape[1:]) / _SIDE))
    if halvings < 1:
        return {"kind": "mlp", "hidden": [128, 128], "activation": "silu"}
    widths = [min(preset.width << k, preset.widest) for k in range(halvings)]
    return {"kind": "conv", "widths": widths, "normalization": normalization, "activation": "silu"}


def latent_dim(images: ImageSet) -> int:
    """Return 16 to 128 by the numbers of an image; no more than an eighth of the images."""
    by_numbers = max(dims for least, dims in _LATENTS.items() if math.prod(images.shape) >= least)
    return max(2, min(by_numbers, len(images) // 8))


def batch_size(count: int) -> int:
    """Return how many images a step takes, of so many: none is left alone."""
    size = 32 if count < 10_000 else 64
    return size + 1 if count % size == 1 else size


def is_binary(images: ImageSet) -> bool:
    """Tell whether all pixels are black or white, and none is grey."""
    count = min(len(images), LOOKED_AT)
    some = images.take(torch.arange(count) * len(images) // count)
    most = 1 if some.is_floating_point() else 255
    return bool(((some == 0) | (some == most)).all())
