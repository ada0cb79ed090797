"""A trained model as the explorer's script runs it: networks, distributions and labels as JSON.

What the page cannot run is told in ``notes``, plain sentences that it shows; what it then does is
in the comment beside each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vaelab.explorer.graph import Layer, Unsupported, Weights, base64_of, network
from vaelab.explorer.graph import layers as layers_of
from vaelab.models.conditioning import Conditioning
from vaelab.models.likelihoods import STEEP, Located, LogisticMixtureLikelihood
from vaelab.models.model import seeded
from vaelab.models.posteriors import (
    DiagonalPosterior,
    DiracPosterior,
    FullPosterior,
    positive_scale,
)
from vaelab.models.priors import MixturePrior, NormalPrior
from vaelab.models.stacked import StackedVae
from vaelab.models.subspaces import LearnedPrior, SubspacePrior
from vaelab.models.transport import Coupling, Transport
from vaelab.models.vae import Vae

DRAWS = 1000
"""Draws that stand in for a prior that the page cannot draw from."""

_POSTERIORS: dict[type[nn.Module], str] = {
    DiagonalPosterior: "diagonal",
    FullPosterior: "full",
    DiracPosterior: "point",
}
_PERCENT = torch.tensor([0.01, 0.5, 0.99])


def describe(model: Vae, weights: Weights) -> dict[str, Any]:
    """Return what the page has to know of a model to run it, with ``weights`` filled.

    Raises:
        Unsupported: not even the decoder can be run.
    """
    notes: list[str] = []
    try:
        decoder = network(model.decoder.network, weights)
    except Unsupported as error:
        raise Unsupported(
            f"explorer: the decoder has {error}, which the page cannot run."
        ) from None
    told = {part: part in model.told for part in ("encoder", "decoder", "prior")}
    return {
        "shape": list(model.shape),
        "dim": model.latent_dim,
        "decoder": decoder,
        "encoder": _encoder(model, weights, notes),
        "likelihood": _likelihood(model),
        "prior": _prior(model, weights, notes),
        "mixture": _mixture(model, weights),
        "told": told,
        "labels": None if model.conditioning is None else _labels(model, model.conditioning),
        "labeler": _labeler(model, weights, notes),
        "transport": None if model.transport is None else _transport(model.transport, weights),
        "subspaces": [
            {
                "name": each.name,
                "first": each.dims.start,
                "width": each.dims.stop - each.dims.start,
                "means": list(each.means),
                "scales": list(each.scales),
            }
            for each in model.subspaces.values()
        ],
        "notes": notes,
    }


def _encoder(model: Vae, weights: Weights, notes: list[str]) -> dict[str, Any] | None:
    """Describe q(z|x); without it nothing can be drawn or dropped, but test images are there."""
    family = type(model.encoder.family)
    try:
        if family not in _POSTERIORS:
            raise Unsupported(f"a posterior of the class {family.__name__}")
        return {
            "family": _POSTERIORS[family],
            "layers": network(model.encoder.network, weights),
        }
    except Unsupported as error:
        notes.append(
            f"The encoder has {error}, which this page cannot run: images cannot be drawn or "
            "dropped here. The test images on the map were encoded when the page was written."
        )
        return None


def _likelihood(model: Vae) -> dict[str, Any]:
    family = model.likelihood
    about: dict[str, Any] = {"family": type(family).__name__.removesuffix("Likelihood")}
    if isinstance(family, LogisticMixtureLikelihood):
        about |= {"mixtures": family.mixtures, "start": family.zero}
    if isinstance(family, Located) and family.output == "sigmoid":
        about |= {"steep": STEEP}
    return about


def _prior(model: Vae, weights: Weights, notes: list[str]) -> dict[str, Any]:
    """Describe p(z); where it cannot be run, draws from it are kept."""
    prior = model.prior
    if isinstance(model, StackedVae) or not isinstance(
        prior, (NormalPrior, MixturePrior, LearnedPrior, SubspacePrior)
    ):
        which = "second VAE's codes" if isinstance(model, StackedVae) else "flow prior"
        notes.append(
            f"Random draws are {DRAWS:,} of the {which}, made when the page was written; "
            "temperature has no effect on them."
        )
        return {"family": "draws", "values": weights.half(_draws(model))}
    recipe = "" if model.config is None else model.config.recipe
    if isinstance(model.encoder.family, DiracPosterior) and recipe != "aae":
        notes.append(
            "An autoencoder has no prior: random draws are from normals fitted to the codes of "
            "the test images, dimension by dimension."
        )
        return {"family": "none"}
    if isinstance(prior, MixturePrior):
        return {
            "family": "mixture",
            "components": len(prior.logits),
            "logits": weights.single(prior.logits),
            "means": weights.single(prior.loc),
            "scales": weights.single(positive_scale(prior.raw_scale)),
        }
    if isinstance(prior, LearnedPrior):
        return {"family": "learned", "layers": list(layers_of(prior.net, weights))}
    return {"family": "normal"}  # the subspaces of a CSVAE are described by themselves


def _mixture(model: Vae, weights: Weights) -> dict[str, Any] | None:
    """Describe what random draws come from in place of the prior: the lower halves of roots."""
    found = model.mixture
    if found is None:
        return None
    rows, columns = torch.tril_indices(model.latent_dim, model.latent_dim)
    return {
        "about": model.samples_from,
        "components": len(found.weights),
        "weights": weights.single(torch.cat([found.by_class, found.weights[None]])),
        "means": weights.single(found.means),
        "roots": weights.half(found.roots[:, rows, columns]),
    }


def _draws(model: Vae) -> Tensor:
    with torch.no_grad(), seeded(0, model.device):
        drawn: Tensor = model.draw(model.told_of(DRAWS, {}, draw=True))
    return drawn.cpu()


def _labels(model: Vae, told: Conditioning) -> dict[str, Any]:
    """Describe the vector of labels, and the values that each attribute usually takes."""
    classes, count = len(told.class_names), len(told.attribute_names)
    attributes = []
    for place, name in enumerate(told.attribute_names):
        known = told.rows[told.rows[:, classes + count + place] > 0, classes + place].cpu()
        low, middle, high = (
            [-1.0, -1.0, 1.0] if told.cut or not len(known) else known.quantile(_PERCENT).tolist()
        )
        attributes.append(
            {
                "name": name,
                "location": float(told.location[place]),
                "scale": float(told.scale[place]),
                "low": low,
                "middle": middle,
                "high": high,
            }
        )
    return {
        "classes": list(told.class_names),
        "attributes": attributes,
        "cut": told.cut,
        "decoding": list(model.decoding_names),
        "unknown": model.dropout > 0,
        "shares": told.rows[:, :classes].mean(0).tolist(),
    }


def _labeler(model: Vae, weights: Weights, notes: list[str]) -> list[Layer] | None:
    """Describe q(y|x); without it the reader says what a drawn image is."""
    if not model.reads or not (model.decoding_names or "encoder" in model.told):
        return None
    try:
        if model.labeler is None:
            raise Unsupported("a labeler of codes")
        return network(model.labeler.network, weights)
    except Unsupported as error:
        notes.append(f"Labels are not read from images here: the model has {error}.")
        return None


def _transport(transport: Transport, weights: Weights) -> dict[str, Any]:
    couplings = []
    for layer, turn in zip(transport.layers, transport.turns, strict=True):
        assert isinstance(layer, Coupling)
        couplings.append(
            {
                "kept": layer.kept,
                "turn": weights.single(turn.flatten()),
                "enter": list(layers_of(layer.enter, weights)),
                "given": list(layers_of(layer.given, weights)),
                "layers": list(layers_of(layer.net, weights)),
            }
        )
    return {
        "dim": transport.prior.dim,
        "classes": transport.classes,
        "first": list(layers_of(transport.first, weights)),
        "couplings": couplings,
    }


@torch.no_grad()
def check(model: Vae, image: Tensor) -> dict[str, Any]:
    """Return what PyTorch makes of one image, for the page to compare its own results with.

    Arguments:
        model: with the weights of the page.
        image: 8-bit, ``(C, H, W)``.
    """
    x = model.as_images(image.unsqueeze(0))
    context = model.context_of(x)
    if model.conditioning is not None and not model.reads:
        context = model.told_of(1, model.ordinary() if model.decoding_names else {})
    known = model.conditioning is not None
    posterior = model.infer(x, context if known else None)
    decoded = model.decode(posterior.mean, context if known else None).mean.clamp(0, 1)
    return {
        "image": base64_of(image.permute(1, 2, 0).contiguous().numpy()),
        "context": context[0].tolist(),
        "mean": posterior.mean[0].tolist(),
        "deviation": posterior.stddev[0].tolist(),
        "decoded": base64_of(decoded[0].permute(1, 2, 0).contiguous().numpy().astype("<f4")),
    }
