"""From configuration to model: networks, families and prior put together."""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy

from vaelab.config import Binarize, ModelConfig, NetworkConfig
from vaelab.data.summary import Pixels
from vaelab.errors import ConfigError
from vaelab.models.conditioning import Conditioning
from vaelab.models.labeler import Labeler
from vaelab.models.likelihoods import build_likelihood
from vaelab.models.networks import build_decoder, build_encoder
from vaelab.models.posteriors import build_posterior
from vaelab.models.priors import Prior, build_prior
from vaelab.models.stacked import StackedVae
from vaelab.models.subspaces import LearnedPrior, SubspacePrior
from vaelab.models.transport import Transport
from vaelab.models.vae import PARTS, Conditional, Part, Vae

READER = NetworkConfig(widths=[32, 64], hidden=[128], activation="silu", dropout=0.2)
"""Network of a labeler of images."""
FEW_READER = READER.model_copy(update={"normalization": "batch"})
"""Network of a labeler that learns from few labels and many images."""


def build_vae(
    config: ModelConfig,
    pixels: Pixels,
    binarize: Binarize = "none",
    *,
    conditioning: Conditioning | None = None,
    told: Collection[Part] = (),
    dropout: float = 0.0,
    subspaces: SubspacePrior | None = None,
    reader: NetworkConfig | None = None,
    transported: bool = False,
) -> Vae:
    """Return a freshly initialised `Vae`; seed torch before.

    Arguments:
        config: networks and distributions.
        pixels: of the training images: give the shape, and what training starts from, the mean
            image (with ``model.standardize``, else the mean colour) and its deviation.
        binarize: how the targets are made.
        conditioning: see `Vae`, as for the next two.
        told: which distributions are told labels.
        dropout: share of images whose labels are withheld.
        subspaces: prior of a code that has more dimensions than ``config`` says.
        reader: network of a labeler, which stands in for unknown labels; none without one.
        transported: whether a conditional flow makes the part beside the subspaces independent of
            labels.

    Raises:
        ConfigError: a posterior that cannot be transported.
    """
    channels, height, width = pixels.mean.shape
    shape = (channels, height, width)
    dim = config.latent_dim
    if subspaces is not None:
        dim += subspaces.width * len(subspaces.subspaces)
    wide = {part: conditioning.width if conditioning and part in told else 0 for part in PARTS}
    if transported and conditioning and "decoder" in told:
        wide["decoder"] = len(conditioning.class_names)
    posterior = build_posterior(config.posterior, dim)
    sigma = None if config.sigma == "auto" else config.sigma
    likelihood = build_likelihood(
        config.likelihood, shape, sigma=sigma, mixtures=config.mixtures, output=config.output
    )
    deviation = pixels.deviation if sigma is None else None
    whole = config.standardize
    encoder = build_encoder(
        config.encoder, shape, posterior.size, wide["encoder"], pixels if whole else None
    )
    decoder = build_decoder(config.decoder, dim, shape, likelihood.channels, wide["decoder"], whole)
    if whole:
        decoder.start_at(likelihood.start(pixels.mean, deviation))
    else:
        decoder.start_around(likelihood.start(pixels.colour, deviation))
    prior: Prior | LearnedPrior | SubspacePrior
    if subspaces is not None:
        prior = subspaces
    elif wide["prior"]:
        prior = LearnedPrior(wide["prior"], dim)
    else:
        prior = build_prior(config.prior, dim, components=config.prior_components)
    labeler = None
    if reader is not None and conditioning is not None:
        count = len(conditioning.class_names) + len(conditioning.attribute_names)
        labeler = Labeler(build_encoder(reader, shape, count), conditioning)
    transport = None
    if transported and subspaces is not None and conditioning is not None:
        if config.posterior != "diagonal":
            raise ConfigError(
                "model.posterior: a code that is transported (csvae) has the posterior `diagonal`; "
                "use it, or options.independence=critic."
            )
        transport = Transport(subspaces, conditioning)
    return Vae(
        Conditional(encoder, posterior, event_dims=3),
        Conditional(decoder, likelihood, event_dims=1),
        prior,
        shape,
        dim,
        binarize,
        conditioning,
        told,
        dropout,
        labeler,
        transport,
    )


def build_stacked(
    config: ModelConfig,
    pixels: Pixels,
    binarize: Binarize,
    conditioning: Conditioning,
    dim: int,
    hidden: int,
) -> StackedVae:
    """Return a freshly initialised `StackedVae`; seed torch before.

    Arguments:
        config: of the first VAE.
        pixels: of the training images.
        binarize: how the targets are made.
        conditioning: the classes.
        dim: of the second VAE's code.
        hidden: width of the second VAE's layer.
    """
    lower = build_vae(config, pixels, binarize, conditioning=conditioning, reader=FEW_READER)
    layer = NetworkConfig(kind="mlp", hidden=[hidden], activation="silu")
    second = ModelConfig(
        latent_dim=dim, encoder=layer, decoder=layer, likelihood="gaussian-pixel", sigma=1.0
    )
    upper = build_vae(
        second,
        Pixels(pixels.mean.new_zeros(1, 1, config.latent_dim)),
        conditioning=deepcopy(conditioning),
        told=("encoder", "decoder"),
    )
    return StackedVae(
        upper,
        encoder=lower.encoder,
        decoder=lower.decoder,
        prior=lower.prior,
        shape=lower.shape,
        latent_dim=lower.latent_dim,
        binarize=binarize,
        conditioning=lower.conditioning,
        labeler=lower.labeler,
    )
