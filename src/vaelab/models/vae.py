"""A variational autoencoder as three conditional distributions: q(z|x), p(x|z) and p(z).

The generative model draws z from the prior p(z) and an image x from the likelihood p(x|z). The
posterior q(z|x) approximates p(z|x), which turns the intractable log p(x) into a bound that can be
trained:

    log p(x) ≥ ELBO(x) = E_q(z|x)[log p(x|z)] − KL(q(z|x) ‖ p(z)) = −distortion − rate

Source: Kingma and Welling, Auto-Encoding Variational Bayes, 2014. Sizes used throughout: B images,
S samples of the latent for each, D latent dimensions, X = (C, H, W) the shape of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.config import Binarize
from vaelab.data.batches import Batch, binarize
from vaelab.errors import ConfigError, DataError
from vaelab.models.kl import analytic_kl, monte_carlo_kl
from vaelab.models.likelihoods import Likelihood
from vaelab.models.model import Images, Model, seeded
from vaelab.models.priors import Prior


class Conditional(nn.Module):
    """p(u|v): a network that turns v into parameters, and a family that makes them a density.

    Arguments:
        network: module ``(n, *V) -> (n, *P)``, with an optional second argument for a context.
        family: module ``(..., *P) -> Distribution`` with batch shape ``(...)``.
        event_dims: number of dimensions of one v; all before them are batch dimensions.
    """

    def __init__(self, network: nn.Module, family: nn.Module, event_dims: int) -> None:
        super().__init__()
        self.network, self.family, self.event_dims = network, family, event_dims

    def forward(self, v: Tensor, context: Tensor | None = None) -> Distribution:
        """Return p(u|v) for every v of a batch ``(..., *V)``; its batch shape is ``(...)``."""
        batch, event = v.shape[: -self.event_dims], v.shape[-self.event_dims :]
        inputs = [v.reshape(-1, *event)]
        if context is not None:
            inputs.append(context.expand(*batch, -1).reshape(-1, context.shape[-1]))
        raw = self.network(*inputs)
        distribution: Distribution = self.family(raw.reshape(*batch, *raw.shape[1:]))
        return distribution


@dataclass(frozen=True)
class Latent:
    """S samples of one latent, with the posterior that they come from and the prior that it faces.

    Arguments:
        value: the samples, ``(S, B, D)``.
        posterior: q(z|x), batch shape ``(B,)``, event shape ``(D,)``.
        prior: p(z), event shape ``(D,)``.
    """

    value: Tensor
    posterior: Distribution
    prior: Distribution

    @cached_property
    def log_ratio(self) -> Tensor:
        """Return log q(z|x) − log p(z) at each sample, ``(S, B)`` nats."""
        return monte_carlo_kl(self.posterior, self.prior, self.value)

    @cached_property
    def rate(self) -> Tensor:
        """Return KL(q(z|x) ‖ p(z)), ``(S, B)`` nats: in closed form where there is one."""
        exact = analytic_kl(self.posterior, self.prior)
        return self.log_ratio if exact is None else exact.expand(self.value.shape[:2])


@dataclass(frozen=True)
class Trace:
    """What one forward pass produced: terms of an objective read it, nothing writes it."""

    batch: Batch
    latents: dict[str, Latent]
    likelihood: Distribution

    @cached_property
    def log_px(self) -> Tensor:
        """Return log p(x|z) of the target, ``(S, B)`` nats per image."""
        return self.likelihood.log_prob(self.batch.target)

    @cached_property
    def rate(self) -> Tensor:
        """Return KL(q(z|x) ‖ p(z)), summed over the latents, ``(S, B)`` nats per image."""
        return torch.stack([latent.rate for latent in self.latents.values()]).sum(0)

    @cached_property
    def log_w(self) -> Tensor:
        """Return the log importance weights log p(x|z) + log p(z) − log q(z|x), ``(S, B)`` nats."""
        ratios = torch.stack([latent.log_ratio for latent in self.latents.values()])
        return self.log_px - ratios.sum(0)


class Vae(Model):
    """A VAE with one latent z.

    Arguments:
        encoder: the posterior q(z|x), images ``(n, C, H, W)`` to a distribution over ``(D,)``.
        decoder: the likelihood p(x|z), codes ``(n, D)`` to a distribution over ``(C, H, W)``.
        prior: p(z), a distribution over ``(D,)``.
        shape: channels, height and width of an image.
        latent_dim: D.
        binarize: how the targets of training were made (see `vaelab.data.batches.binarize`).
    """

    def __init__(
        self,
        encoder: Conditional,
        decoder: Conditional,
        prior: Prior,
        shape: tuple[int, int, int],
        latent_dim: int,
        binarize: Binarize = "none",
    ) -> None:
        super().__init__(shape)
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.latent_dim, self.binarize = latent_dim, binarize

    @property
    def likelihood(self) -> Likelihood:
        """The family of p(x|z)."""
        family = self.decoder.family
        assert isinstance(family, Likelihood)
        return family

    def networks(self) -> list[nn.Module]:
        """Return the networks of encoder and decoder."""
        return [self.encoder.network, self.decoder.network]

    def infer(self, batch: Batch, samples: int = 1) -> dict[str, Latent]:
        """Draw ``samples`` latents from the posterior of each image of the batch."""
        posterior = self.encoder(batch.images)
        value = posterior.rsample(torch.Size([samples]))
        return {"z": Latent(value, posterior, self.prior())}

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """Return p(x|z) for codes ``(..., D)``; its ``mean`` is the image, ``(..., C, H, W)``."""
        distribution: Distribution = self.decoder(z, context)
        return distribution

    def forward(self, batch: Batch, samples: int = 1) -> Trace:
        """Infer the latents of a batch and the likelihood of its target under them."""
        latents = self.infer(batch, samples)
        return Trace(batch, latents, self.decode(latents["z"].value))

    # What a user does with a trained model: any number of images, in bounded memory, deterministic
    # unless sampling is what is asked for, always in evaluation mode.

    def encode(self, images: Images) -> Tensor:
        """Return the posterior means of images, ``(N, D)``; see `posterior` for the deviations."""
        return self.posterior(images)[0]

    def posterior(self, images: Images) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of q(z|x) of images, each ``(N, D)``."""

        def moments(x: Tensor) -> Tensor:
            posterior = self.encoder(x)
            return torch.stack([posterior.mean, posterior.stddev], 1)

        both = self.chunked(moments, self.as_images(images))
        return both[:, 0], both[:, 1]

    def reconstruct(self, images: Images, sample: bool = False) -> Tensor:
        """Return the decoded posterior means, ``(N, C, H, W)`` in [0, 1].

        ``sample=True`` decodes a draw from the posterior instead of its mean.
        """

        def once(x: Tensor) -> Tensor:
            posterior = self.encoder(x)
            return self.decode(posterior.rsample() if sample else posterior.mean).mean

        return self.chunked(once, self.as_images(images)).clamp(0, 1)

    def generate(self, z: Images) -> Tensor:
        """Return the images of codes: the means of p(x|z), ``(N, D)`` to ``(N, C, H, W)``."""
        codes = torch.as_tensor(z).to(self.device, torch.float32)
        if codes.ndim != 2 or codes.shape[1] != self.latent_dim:
            raise DataError(
                f"codes of shape {tuple(codes.shape)}: this model needs (N, {self.latent_dim})."
            )
        return self.chunked(lambda code: self.decode(code).mean, codes).clamp(0, 1)

    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """Return the images of ``n`` draws from the prior, ``(n, C, H, W)`` in [0, 1].

        Arguments:
            n: how many.
            temperature: factor on the prior's noise; below 1 the images are more typical.
        """
        if n < 1 or not (0 <= temperature < math.inf):
            raise ConfigError(f"sample: {n=} must be 1 or more, {temperature=} 0 or more.")
        with torch.no_grad():
            return self.generate(self.prior.sample(n, temperature))

    def elbo(self, images: Images, samples: int = 1, seed: int = 0) -> Tensor:
        """Return the ELBO of each image, ``(N,)`` nats, with ``samples`` draws of z.

            ELBO(x) = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))

        Greys stay grey for a model that was trained on them.
        """

        def bound(batch: Batch) -> Tensor:
            trace: Trace = self(batch, samples)
            return (trace.log_px - trace.rate).mean(0)

        return self._measure(bound, images, samples, seed, self.binarize)

    def log_prob(self, images: Images, samples: int = 100, seed: int = 0) -> Tensor:
        """Return the importance-weighted bound of log p(x) of each image, ``(N,)`` nats.

            log p(x) ≥ E[log 1/K Σ_k p(x|z_k) p(z_k) / q(z_k|x)],  z_k ~ q(z|x)

        It tightens with K = ``samples``. The bound is not linear in x, so greys are binarised by
        chance (seeded) where the likelihood is Bernoulli. Source: Burda et al., 2016.
        """
        grey = self.likelihood.measure == "binary" and self.binarize == "none"

        def bound(batch: Batch) -> Tensor:
            return self.bounds(batch, samples)[1]

        how = "dynamic" if grey else self.binarize
        return self._measure(bound, images, samples, seed, how)

    def bounds(self, batch: Batch, samples: int) -> tuple[Tensor, Tensor]:
        """Return two bounds of log p of the targets from the same K draws of z, each ``(B,)`` nats.

            1/K Σ_k log w_k ≤ log 1/K Σ_k w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q(z|x)

        The first estimates the ELBO, the second is the importance-weighted bound. Memory does not
        grow with K = ``samples``.
        """
        step = max(1, self.rows // len(batch))
        elbo = batch.images.new_zeros(len(batch))
        total = batch.images.new_full((len(batch),), -math.inf)
        for start in range(0, samples, step):
            log_w: Tensor = self(batch, min(step, samples - start)).log_w
            elbo += log_w.sum(0) / samples
            total = torch.logaddexp(total, torch.logsumexp(log_w, 0))
        return elbo, total - math.log(samples)

    def _measure(
        self,
        measure: Callable[[Batch], Tensor],
        images: Images,
        samples: int,
        seed: int,
        how: Binarize,
    ) -> Tensor:
        x = self.as_images(images)
        if samples < 1 or len(x) == 0:
            raise ConfigError(f"needs one image and one sample at least ({len(x)} and {samples}).")
        drawn = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.device)
        target = binarize(x, how, drawn)  # before any draw of z: the same for every K
        seen = x if self.binarize == "none" else target

        def once(both: Tensor) -> Tensor:
            index = torch.arange(len(both), device=both.device)
            return measure(Batch(both[:, 0], both[:, 1], None, None, index))

        with seeded(seed, self.device):
            return self.chunked(once, torch.stack([seen, target], 1), max(1, self.rows // samples))
