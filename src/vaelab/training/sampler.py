"""What samples of a run come from, kept beside its weights: ``sampler.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaelab import files
from vaelab.models.mixture import LatentMixture
from vaelab.models.vae import Vae


def write_sampler(path: Path, model: Vae, weights: str, about: Mapping[str, Any]) -> None:
    """Write the mixture of a model, or that it has none, for weights of this checksum."""
    tensors = {} if model.mixture is None else model.mixture.tensors()
    meta = {**about, "reason": model.samples_from, "weights": weights}
    files.save_tensors(path, tensors, meta)


def read_sampler(path: Path, model: Vae, weights: str) -> dict[str, Any] | None:
    """Let a model sample as the file says; returns what it says, None where it is of other weights.

    Raises:
        RunError: it is damaged.
    """
    if not path.exists():
        return None
    tensors, about = files.load_tensors(path)
    if about.get("weights") != weights:
        return None
    reason = about.get("reason")
    if not isinstance(reason, str) or len(reason) > 1_000:
        raise files.damaged(path, "it does not say why it was chosen")
    mixture = None
    if tensors:
        try:
            mixture = LatentMixture.read(tensors, model.latent_dim, model.classes)
        except ValueError as error:
            raise files.damaged(path, str(error)) from None
    model.mixture, model.samples_from = mixture, reason
    return about
