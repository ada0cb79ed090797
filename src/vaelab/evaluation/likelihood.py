"""How probable a model finds images: ELBO, rate, distortion, bits per dimension, log p(x)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vaelab.data.batches import Batch, binarize
from vaelab.data.images import ImageSet
from vaelab.evaluation.figures import Figure, draws_of, mean, mean_with_gap
from vaelab.models import noise
from vaelab.models.conditioning import LABEL
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


def given_labels(
    figures: Mapping[str, Figure], model: Vae, images: ImageSet, index: Tensor
) -> dict[str, Figure]:
    """Return figures of which those of a likelihood say what it is conditioned on, if anything.

    Arguments:
        figures: by name.
        model: whose.
        images: with the labels, as the model has the names.
        index: images that the figures are over.
    """
    names = model.conditions
    if not names:
        return dict(figures)
    known = {name: _unobserved(name, images, index) for name in names}
    missing = [f"{name} of {n:,}" for name, n in known.items() if n]
    how = f"Of p(x|y), y the labels of the image ({', '.join(names)}), not of p(x). "
    if missing:
        instead = "predicted by the model's own classifier" if model.reads else "unknown to it"
        how += f"Labels that are unobserved ({', '.join(missing)} images) are {instead}. "
    return {
        name: replace(figure, given=names, protocol=how + figure.protocol)
        if name in LIKELIHOODS or draws_of(name)
        else figure
        for name, figure in figures.items()
    }


def _unobserved(name: str, images: ImageSet, index: Tensor) -> int:
    """Return of how many images a label is not known."""
    if name == LABEL:
        known = None if images.labels is None else images.labels.cpu()[index] >= 0
    else:
        place = {each: column for column, each in enumerate(images.attribute_names)}.get(name)
        values = images.attributes
        absent = place is None or values is None
        known = None if absent else ~values.cpu()[index, place].isnan()  # type: ignore[union-attr]
    return len(index) if known is None else int((~known).sum())


def joint_figures(
    elbo: Tensor, gaps: Tensor, index: Tensor, samples: int, log_prior: Tensor, protocol: str
) -> dict[str, Figure]:
    """Return ELBO and importance-weighted bound of log p(x, y) = log p(x|y) + log p(y).

    As log p(x) ≥ log p(x, y), they compare with those of models of images alone.

    Arguments:
        elbo: of each image given its class, ``(N,)`` nats.
        gaps: as of `log_prob_figure`, as the next two.
        index: images that the gaps belong to.
        samples: K.
        log_prior: log p(y) of the class of each image, ``(N,)`` nats.
        protocol: what the likelihood is over.
    """
    how = (
        f"log p(y), by the frequency of each class in training ({float(log_prior.mean()):.3f} nats "
        "on the mean), is added to log p(x|y): a bound of log p(x, y), and so of log p(x). "
    )
    joint = elbo + log_prior
    bound = log_prob_figure(joint, gaps, index, samples, protocol)
    return {
        "elbo_joint": mean(joint, NATS, how + protocol),
        "log_prob_joint": replace(bound, protocol=how + bound.protocol),
    }


LIKELIHOODS = ("elbo", "log_prob", "bits_per_dim", "exact_log_prob")
"""Figures of log p(x), or of log p(x|y) where a model is conditioned on labels."""


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
