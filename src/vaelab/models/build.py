"""From configuration to model: networks, families and prior put together."""

from __future__ import annotations

from torch import Tensor

from vaelab.config import Binarize, ModelConfig
from vaelab.models.likelihoods import build_likelihood
from vaelab.models.networks import build_decoder, build_encoder
from vaelab.models.posteriors import build_posterior
from vaelab.models.priors import build_prior
from vaelab.models.vae import Conditional, Vae


def build_vae(config: ModelConfig, mean: Tensor, binarize: Binarize = "none") -> Vae:
    """Return a freshly initialised `Vae`; seed torch before.

    Arguments:
        config: networks and distributions.
        mean: mean training image, ``(C, H, W)`` in [0, 1]: gives the shape, and the decoder's
            output
            bias, so that training starts from the right mean per channel.
        binarize: how the targets are made.
    """
    channels, height, width = mean.shape
    shape = (channels, height, width)
    posterior = build_posterior(config.posterior, config.latent_dim)
    likelihood = build_likelihood(
        config.likelihood, shape, sigma=config.sigma, mixtures=config.mixtures
    )
    encoder = build_encoder(config.encoder, shape, posterior.size)
    decoder = build_decoder(config.decoder, config.latent_dim, shape, likelihood.channels)
    decoder.set_output_bias(likelihood.initial_bias(mean.mean((1, 2))))
    prior = build_prior(config.prior, config.latent_dim, components=config.prior_components)
    return Vae(
        Conditional(encoder, posterior, event_dims=3),
        Conditional(decoder, likelihood, event_dims=1),
        prior,
        shape,
        config.latent_dim,
        binarize,
    )
