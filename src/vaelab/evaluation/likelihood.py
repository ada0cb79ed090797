"""How probable a model finds images: ELBO, rate, distortion, bits per dimension, log p(x)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vaelab.data.batches import Batch, binarize
from vaelab.data.images import ImageSet
from vaelab.evaluation.figures import Figure, draws_of, mean, mean_with_gap
from vaelab.models import noise
from vaelab.models.conditioning import LABEL
from vaelab.models.masses import BITS, bits_per_dim
from vaelab.models.vae import SOFT, Trace, Vae

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
        "compares only with densities on the same scale; bits per dimension compare with all."
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
    if model.soft_targets:
        return (
            "The bound is not linear in x, so its targets were drawn, every pixel once with its "
            "grey value as probability; the encoder saw the grey image."
        )
    return describe_target(model.likelihood.measure, model.binarize)


def elbo_figures(log_px: Tensor, rate: Tensor | None, protocol: str) -> dict[str, Figure]:
    """Return distortion and, where there is a rate, ``rate`` and ``elbo`` = −distortion − rate.

    Arguments:
        log_px: log p(x|z), mean over the draws of z, ``(N,)`` nats.
        rate: KL(q(z|x) ‖ p(z)), ``(N,)`` nats; None for a point posterior.
        protocol: how both were measured.
    """
    figures = {"distortion": mean(-log_px, NATS, protocol)}
    if rate is None:
        return figures
    elbo = mean(log_px - rate, NATS, protocol)
    return {"elbo": elbo, **figures, "rate": mean(rate, NATS, protocol)}


def no_bits(model: Vae, images: ImageSet) -> str | None:
    """Return why images have no bits per dimension under a model; None where they have."""
    if model.soft_targets:
        return f"{SOFT[0].upper()}{SOFT[1:]}"
    if images.take(torch.arange(1)).is_floating_point():
        return "Bits per dimension are not defined: these images are numbers, not 8-bit levels."
    return None


def describe_bits(model: Vae) -> str:
    """Return in a sentence what bits per dimension of a model are of."""
    if model.likelihood.measure == "binary":
        return "Bits of the binary image, for each of its numbers."
    how = "Bits of the 8-bit image, for each of its numbers"
    if model.likelihood.is_mass:
        return f"{how}."
    return (
        f"{how}: each level has the integral of the density over its bin, 1/255 wide, as its mass; "
        "the lowest and the highest level have what lies beyond. Nothing is dequantised."
    )


def bits_figure(elbo: Tensor, dimensions: int, protocol: str) -> Figure:
    """Return bits per dimension by the ELBO, an upper bound: −ELBO / (D ln 2).

    Arguments:
        elbo: E_q log P(x|z) − KL, P being the mass of the levels, ``(N,)`` nats.
        dimensions: D, numbers in an image, C · H · W.
        protocol: how it was measured.
    """
    how = f"{protocol} By the ELBO of these masses, hence an upper bound."
    return _at_most(mean(bits_per_dim(elbo, dimensions), BITS, how))


def bits_bound_figure(
    elbo: Tensor, gaps: Tensor, index: Tensor, samples: int, dimensions: int, protocol: str
) -> Figure:
    """Return bits per dimension by the importance-weighted bound, a tighter upper bound.

    Arguments: as of `log_prob_figure`, of the ELBO of masses; ``dimensions`` as of `bits_figure`.
    """
    bits, gain = bits_per_dim(elbo, dimensions), bits_per_dim(gaps, dimensions)
    how = f"By the importance-weighted bound of log P(x) with {samples:,} draws of z. {protocol}"
    return _at_most(mean_with_gap(bits, gain, index, BITS, how))


def _at_most(figure: Figure) -> Figure:
    return replace(figure, ends=(None, figure.value))


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


LIKELIHOODS = ("elbo", "log_prob", "bits_per_dim", "bits_per_dim_iwae", "exact_log_prob")
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
    """Return how far the importance-weighted bound lies above the ELBO, ``(2, n)`` nats ≥ 0.

        log 1/K Σ_k w_k − 1/K Σ_k log w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q(z|x)

    The first row is of p(x|z), the second of the mass of the levels in its place: the same where
    p(x|z) is a mass. Grey targets of a binary likelihood are binarised at random, for the bound is
    not linear in them; the encoder still sees the grey image.

    Arguments:
        model: in evaluation mode.
        batches: as the model is trained on them.
        samples: K.
        report: told the number of codes decoded so far in every step.
    """
    gaps = []
    for batch in batches:
        if model.soft_targets:
            drawn = noise.uniform(batch.images.shape, batch_dim=0, device=batch.images.device)
            batch = replace(batch, target=binarize(batch.images, "dynamic", drawn))
        elbo, bound = model.bounds(batch, samples, weights=_both)
        gaps.append((bound - elbo).clamp(min=0).cpu())  # below 0 by rounding alone
        report(len(batch) * samples)
    return torch.cat(gaps, 1)


def _both(trace: Trace) -> Tensor:
    """Return log importance weights by p(x|z) and by masses of levels, ``(S, 2, B)``."""
    log_w = trace.log_w
    return torch.stack([log_w, log_w + trace.log_mass - trace.log_px], 1)
