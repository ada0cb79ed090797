"""How probable a model finds images: ELBO, rate, distortion, bits per dimension, log p(x)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from vaelab.data.batches import Batch, binarize
from vaelab.evaluation.figures import Figure, mean, mean_with_gap
from vaelab.models import noise
from vaelab.models.vae import Vae

NATS = "nats per image"

TARGETS = {
    ("binary", "none"): (
        "Cross-entropy with grey targets. It is linear in them, so the ELBO is the expected ELBO "
        "under dynamic binarisation, with an encoder that sees the grey image."
    ),
    ("binary", "dynamic"): (
        "Binary likelihood; every pixel was drawn once with its grey value as probability, and the "
        "encoder saw the binary image."
    ),
    ("binary", "threshold"): "Binary likelihood; pixels are 1 above half of full intensity.",
    ("density", "none"): (
        "Density of pixel values scaled to [0, 1], without dequantisation: it may be positive, and "
        "compares only with densities on the same scale."
    ),
    ("8-bit", "none"): "Probability of the 8-bit pixel values.",
}
"""What a likelihood is over, by its measure and by how targets were binarised."""


def describe_target(measure: str, how: str) -> str:
    """Return in a sentence what the likelihood of a model is over."""
    return TARGETS.get(
        (measure, how), f"Likelihood ({measure}) of images that were binarised ({how})."
    )


def describe_bound(model: Vae) -> str:
    """Return in a sentence what the importance-weighted bound of a model is over."""
    measure = model.likelihood.measure
    if measure == "binary" and model.binarize == "none":
        return (
            "The bound is not linear in x, so its targets were drawn, every pixel once with its "
            "grey value as probability; the encoder saw the grey image."
        )
    return describe_target(measure, model.binarize)


def elbo_figures(
    log_px: Tensor, rate: Tensor | None, measure: str, dimensions: int, protocol: str
) -> dict[str, Figure]:
    """Return distortion and, where there is a rate, ``rate``, ``elbo`` and ``bits_per_dim``.

        ELBO = −distortion − rate,   bits per dimension = −ELBO / (dimensions · ln 2) [+ 8]

    The 8 bits turn a density on [0, 1] into that on 256 levels, one unit of a level wide.

    Arguments:
        log_px: log p(x|z), mean over the draws of z, ``(N,)`` nats.
        rate: KL(q(z|x) ‖ p(z)), ``(N,)`` nats; None for a point posterior.
        measure: what the likelihood is over: ``binary``, ``density`` or ``8-bit``.
        dimensions: numbers in an image, C · H · W.
        protocol: how both were measured.
    """
    figures = {"distortion": mean(-log_px, NATS, protocol)}
    if rate is None:
        return figures
    elbo = log_px - rate
    bits = -elbo / (dimensions * math.log(2))
    how = protocol + " Bits from the ELBO, hence an upper bound."
    if measure == "density":
        bits = bits + 8
        how += " 8 bits added to turn a density on [0, 1] into one on the scale of 256 levels."
    return {
        "elbo": mean(elbo, NATS, protocol),
        **figures,
        "rate": mean(rate, NATS, protocol),
        "bits_per_dim": mean(bits, "bits per dimension", how),
    }


def log_prob_figure(
    elbo: Tensor, gaps: Tensor, index: Tensor, samples: int, protocol: str
) -> Figure:
    """Return the importance-weighted bound of log p(x) over all images.

    Arguments:
        elbo: ELBO of each image, ``(N,)`` nats.
        gaps: importance-weighted bound less ELBO, from the same draws, ``(n,)`` nats.
        index: images that the gaps belong to, ``(n,)``.
        samples: K, draws of z for each of them.
        protocol: what the likelihood is over.
    """
    how = (
        f"Importance-weighted estimate with {samples:,} draws of z from q(z|x) for each image, a "
        "lower bound of log p(x) in expectation (Burda et al., 2016): mean ELBO of all "
        f"{len(elbo):,} images, plus what the bound gains on it over {len(gaps):,} of them. "
    )
    return mean_with_gap(elbo, gaps, index, NATS, how + protocol)


def bound_gaps(
    model: Vae, batches: Iterable[Batch], samples: int, report: Callable[[int], None]
) -> Tensor:
    """Return how far the importance-weighted bound lies above the ELBO, ``(n,)`` nats ≥ 0.

        log 1/K Σ_k w_k − 1/K Σ_k log w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q(z|x)

    Grey targets of a binary likelihood are binarised by chance, for the bound is not linear in
    them; the encoder still sees the grey image.

    Arguments:
        model: in evaluation mode.
        batches: as the model is trained on them.
        samples: K.
        report: told the number of codes decoded so far in every step.
    """
    grey = model.likelihood.measure == "binary" and model.binarize == "none"
    gaps = []
    for batch in batches:
        if grey:
            drawn = noise.uniform(batch.images.shape, batch_dim=0, device=batch.images.device)
            batch = replace(batch, target=binarize(batch.images, "dynamic", drawn))
        elbo, bound = model.bounds(batch, samples)
        gaps.append((bound - elbo).clamp(min=0).cpu())  # below 0 by rounding alone
        report(len(batch) * samples)
    return torch.cat(gaps)
