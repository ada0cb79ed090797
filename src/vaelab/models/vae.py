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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from typing_extensions import override

from vaelab.config import Binarize
from vaelab.data.batches import Batch, binarize
from vaelab.data.images import ImageSet
from vaelab.errors import ConfigError, DataError, check_seed, whole_number, within
from vaelab.models.conditioning import LABEL, Conditioning, drop
from vaelab.models.handles import Handle, Subspace
from vaelab.models.kl import analytic_kl, monte_carlo_kl
from vaelab.models.labeler import Labeler
from vaelab.models.likelihoods import Likelihood
from vaelab.models.masses import DensityOnLevels, bits_per_dim
from vaelab.models.mixture import LatentMixture
from vaelab.models.model import Images, Model, as_tensor, seeded
from vaelab.models.priors import GaussianMixture, Prior
from vaelab.models.subspaces import LearnedPrior, SubspacePrior
from vaelab.models.transport import Carried, Transport

Part = Literal["encoder", "decoder", "prior"]
PARTS: tuple[Part, ...] = get_args(Part)
MOST_FACTOR, MOST_IMAGES, MOST_SAMPLES = 100.0, 10_000_000, 1_000_000
"""Of temperature, guidance and strength; images of one call; draws of z for an image."""

SOFT = (
    "bits per dimension are not defined: a Bernoulli likelihood of grey levels is no probability "
    "of 8-bit values. Train with data.binarize, or with a likelihood of levels "
    "(model.likelihood=gaussian, laplace or logistic-mixture)."
)


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
    """What one forward pass produced: terms of an objective read it, nothing writes it.

    Arguments:
        batch: what the pass was over.
        latents: by name.
        likelihood: p(x|z) at each sample, batch shape ``(S, B)``.
        context: what the model is given of labels.
        measured: whether figures are wanted that cost time and move no parameter: of a model in
            evaluation mode whose targets have masses.
    """

    batch: Batch
    latents: dict[str, Latent]
    likelihood: Distribution
    context: Tensor | None = None
    measured: bool = False

    @cached_property
    def log_px(self) -> Tensor:
        """Return log p(x|z) of the target, ``(S, B)`` nats per image."""
        return self.likelihood.log_prob(self.batch.target)

    @cached_property
    def log_mass(self) -> Tensor:
        """Return log P(x|z) of the levels of the target, ``(S, B)`` nats: see `models.masses`."""
        if isinstance(self.likelihood, DensityOnLevels):
            return self.likelihood.log_mass(self.batch.target)
        return self.log_px

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
    """A VAE, of images alone or of images given labels: p(x|y) = ∫ p(x|z, y) p(z|y) dz.

    Arguments:
        encoder: the posterior q(z|x), images ``(n, C, H, W)`` to a distribution over ``(D,)``.
        decoder: the likelihood p(x|z), codes ``(n, D)`` to a distribution over ``(C, H, W)``.
        prior: p(z), a distribution over ``(D,)``.
        shape: channels, height and width of an image.
        latent_dim: D, the dimensions of the code.
        binarize: how the targets of training were made (see `vaelab.data.batches.binarize`).
        conditioning: makes a vector of the labels; None for a model of images alone.
        told: which of the three distributions are given that vector; a decoder behind a transport
            is given the class alone.
        dropout: share of training images whose labels the model is not told.
        labeler: reads labels that nobody says; without one they stay unknown.
        transport: a flow, conditional on labels, from what the encoder gives to z; its inverse
            stands before the decoder.
    """

    mixture: LatentMixture | None = None
    """What samples come from in place of the prior, where that was found to be better."""

    samples_from = "Samples come from the prior."
    """What samples come from and why, in a sentence."""

    def __init__(
        self,
        encoder: Conditional,
        decoder: Conditional,
        prior: Prior | LearnedPrior | SubspacePrior,
        shape: tuple[int, int, int],
        latent_dim: int,
        binarize: Binarize = "none",
        conditioning: Conditioning | None = None,
        told: Collection[Part] = (),
        dropout: float = 0.0,
        labeler: Labeler | None = None,
        transport: Transport | None = None,
    ) -> None:
        super().__init__(shape)
        self.encoder, self.decoder, self.prior = encoder, decoder, prior
        self.latent_dim, self.binarize = latent_dim, binarize
        self.conditioning, self.told, self.dropout = conditioning, frozenset(told), dropout
        self.labeler, self.transport = labeler, transport

    @property
    def likelihood(self) -> Likelihood:
        """The family of p(x|z)."""
        family = self.decoder.family
        assert isinstance(family, Likelihood)
        return family

    @override
    def matched(self, images: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
        return (images, ()) if self.conditioning is None else self.conditioning.matched(images)

    def networks(self) -> list[nn.Module]:
        """Return the networks of encoder and decoder."""
        return [self.encoder.network, self.decoder.network]

    @property
    def subspaces(self) -> dict[str, Subspace]:
        """The dimensions of the code that belong to attributes, by name; none but in a CSVAE."""
        return self.prior.subspaces if isinstance(self.prior, SubspacePrior) else {}

    @property
    def classes(self) -> int:
        """How many classes the model can be told; 0 if none."""
        return 0 if self.conditioning is None else len(self.conditioning.class_names)

    @property
    def soft_targets(self) -> bool:
        """Whether grey levels are targets of a Bernoulli likelihood, a mass of binary images.

        They have no probability under the model, and so no bits per dimension.
        """
        return self.likelihood.measure == "binary" and self.binarize == "none"

    @property
    @override
    def conditions(self) -> tuple[str, ...]:
        return self.conditioning.names if self.conditioning is not None and self.told else ()

    @property
    def asked_classes(self) -> bool:
        """Whether a draw can be asked for a class."""
        return self.classes > 0 and bool(self.told & {"decoder", "prior"})

    @property
    def reads(self) -> bool:
        """Whether the model reads labels that nobody says."""
        return self.labeler is not None

    @property
    def decoding_names(self) -> tuple[str, ...]:
        """What the model has to be told to decode a code; subspaces speak for themselves."""
        if self.conditioning is None:
            return ()
        if self.transport is not None:
            return (LABEL,) if self.classes else ()
        return self.conditioning.names if "decoder" in self.told else ()

    @property
    def plain_dims(self) -> int:
        """How many dimensions of the code, the first ones, belong to no attribute."""
        taken: int = sum(s.dims.stop - s.dims.start for s in self.subspaces.values())
        return self.latent_dim - taken

    def context(self, batch: Batch) -> Tensor | None:
        """Return what the model is told of a batch beside its images, ``(B, K)``."""
        if self.conditioning is None:
            return None
        context = self.conditioning(batch)
        if self.told:
            context = self.filled(batch.images, context)
        return drop(context, self.dropout) if self.training and self.dropout else context

    def filled(self, images: Tensor, context: Tensor) -> Tensor:
        """Return contexts with what is unknown as the labeler reads it, where there is one."""
        return context if self.labeler is None else self.labeler.fill(images, context)

    def _tell(self, part: Part, context: Tensor | None) -> Tensor | None:
        if part not in self.told or context is None:
            return None
        # attributes with a subspace reach the decoder through it alone
        return context[..., : self.classes] if part == "decoder" and self.transport else context

    def distributions(self, batch: Batch) -> tuple[Distribution, Distribution]:
        """Return posterior and prior of the latent of each image of a batch."""
        context = self.context(batch)
        return self.infer(batch.images, context), self.prior(self._tell("prior", context))

    def infer(self, images: Tensor, context: Tensor | None) -> Distribution:
        """Return q(z|x, y) of images ``(B, C, H, W)`` and contexts ``(B, K)``."""
        posterior: Distribution = self.encoder(images, self._tell("encoder", context))
        return self._carried(posterior, context)

    def _carried(self, posterior: Distribution, context: Tensor | None) -> Distribution:
        if self.transport is None:
            return posterior
        assert context is not None
        return self.transport.carry(posterior, context)

    def features(self, batch: Batch) -> Tensor:
        """Return what the encoder's network makes of a batch, before it is a distribution."""
        return self.features_of(batch.images, self.context(batch))

    def features_of(self, images: Tensor, context: Tensor | None) -> Tensor:
        """Return as `features` does, for images ``(B, C, H, W)`` and contexts ``(B, K)``."""
        told = self._tell("encoder", context)
        found: Tensor = self.encoder.network(images, *([] if told is None else [told]))
        return found

    def posterior_from(self, features: Tensor, context: Tensor | None) -> Distribution:
        """Return the posterior that features ``(B, F)`` of the encoder's network stand for."""
        return self._carried(self.encoder.family(features), context)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """Return p(x|z) for codes ``(..., D)``; its ``mean`` is the image, ``(..., C, H, W)``.

        A decoder that is told labels takes a ``context`` of None for "unknown".
        """
        if self.decoding_names and context is None:
            assert self.conditioning is not None
            context = z.new_zeros(self.conditioning.width)
        if self.transport is not None:
            z = self.transport.bring_back(z, context)
        distribution: Distribution = self.decoder(z, self._tell("decoder", context))
        return distribution

    def forward(self, batch: Batch, samples: int = 1) -> Trace:
        """Infer the latents of a batch and the likelihood of its target under them."""
        return self.trace(batch, self.context(batch), samples)

    def trace(self, batch: Batch, context: Tensor | None, samples: int = 1) -> Trace:
        """Do as `forward`, for what the model is told in place of what the batch says."""
        return self.trace_under(self.infer(batch.images, context), batch, context, samples)

    def trace_under(
        self, posterior: Distribution, batch: Batch, context: Tensor | None, samples: int = 1
    ) -> Trace:
        """Do as `trace`, for any other q(z|x) in place of the encoder's."""
        prior: Distribution = self.prior(self._tell("prior", context))
        value = posterior.rsample(torch.Size([samples]))
        latents = {"z": Latent(value, posterior, prior)}
        if isinstance(posterior, Carried):  # the way there and back need not be gone
            likelihood = self.decoder(posterior.origin(value), self._tell("decoder", context))
        else:
            likelihood = self.decode(value, context)
        measured = not self.training and not self.soft_targets
        return Trace(batch, latents, likelihood, context, measured)

    def marginal_prior(self) -> Distribution:
        """Return p(z), which for a prior that is told labels is E_y p(z|y), a mixture."""
        if not isinstance(self.prior, (LearnedPrior, SubspacePrior)):
            plain: Distribution = self.prior()
            return plain
        assert self.conditioning is not None
        contexts, counts = self.conditioning.rows.unique(dim=0, return_counts=True)
        each = self.prior(contexts)
        return GaussianMixture(counts.to(each.mean).log(), each.mean, each.stddev)

    # What a user does with a trained model: any number of images, in bounded memory, deterministic
    # unless sampling is what is asked for, always in evaluation mode. A conditional model can be
    # told labels by name, one value or one for each image; what it is not told is unknown to it.

    def encode(self, images: Images, **given: Any) -> Tensor:
        """Return the posterior means of images, ``(N, D)``; see `posterior` for the deviations."""
        return self.posterior(images, **given)[0]

    def posterior(self, images: Images, **given: Any) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of q(z|x) of images, each ``(N, D)``."""

        def moments(x: Tensor, context: Tensor) -> Tensor:
            posterior = self.infer(x, self.filled(x, context))
            return torch.stack([posterior.mean, posterior.stddev], 1)

        x = self.as_images(images)
        both = self.chunked(moments, x, self.told_of(len(x), given))
        return both[:, 0], both[:, 1]

    def reconstruct(self, images: Images, sample: bool = False, **given: Any) -> Tensor:
        """Return the decoded posterior means, ``(N, C, H, W)`` in [0, 1].

        ``sample=True`` decodes a draw from the posterior instead of its mean.
        """

        def once(x: Tensor, context: Tensor) -> Tensor:
            context = self.filled(x, context)
            posterior = self.infer(x, context)
            z = posterior.rsample() if sample else posterior.mean
            return self.decode(z, context).mean

        x = self.as_images(images)
        return self.chunked(once, x, self.told_of(len(x), given)).clamp(0, 1)

    def generate(self, z: Images, guidance: float = 1.0, **given: Any) -> Tensor:
        """Return the images of codes: the means of p(x|z), ``(N, D)`` to ``(N, C, H, W)``.

        Arguments:
            z: the codes.
            guidance: how far to follow what is given, 1 as the model does: see `guided`.
            given: labels by name.
        """
        codes = self.as_codes(z)
        return self.decoded(codes, self.told_to_decode(len(codes), given), guidance)

    def told_to_decode(self, n: int, given: Mapping[str, Any]) -> Tensor:
        """Return as `told_of` does; nothing that the decoder needs may be missing.

        Raises:
            ConfigError: something is, and the model never learned to do without.
        """
        if not self.dropout:
            missing = [name for name in self.decoding_names if name not in given]
            if missing:
                raise ConfigError(
                    f"{missing[0]}: this model must be told it to decode a code, such as "
                    f"{missing[0]}={next(iter(self.ordinary(missing[0]).values()))!r}."
                )
        return self.told_of(n, given)

    def ordinary(self, *names: str) -> dict[str, Any]:
        """Return ordinary labels by name: the first class, and the median of attributes."""
        if self.conditioning is None or not self.decoding_names:
            return {}
        usual = self.conditioning.ordinary()
        every = {name: usual[name] for name in self.decoding_names}
        return {name: every[name] for name in names} if names else every

    def decoded(self, codes: Tensor, context: Tensor, guidance: float = 1.0) -> Tensor:
        """Return the images of codes ``(N, D)`` under contexts ``(N, K)``."""

        def once(z: Tensor, told: Tensor) -> Tensor:
            return self.guided(z, told, guidance).mean

        return self.chunked(once, codes, context).clamp(0, 1)

    def guided(self, z: Tensor, context: Tensor, guidance: float) -> Distribution:
        """Return p(x|z, y) with the labels followed g times as far as the model does.

            η = η(z, unknown) + g · (η(z, y) − η(z, unknown)),   η the decoder's output

        Source: Ho and Salimans, Classifier-free diffusion guidance, 2022, on the parameters of
        the likelihood; needs a model that was trained with unknown labels too.
        """
        within("guidance", guidance, -MOST_FACTOR, MOST_FACTOR)
        if guidance == 1:
            return self.decode(z, context)
        if "decoder" not in self.told or not self.dropout:
            raise ConfigError(
                "guidance: needs a conditional model that was also trained without labels: "
                "vaelab train cvae -s options.dropout=0.1."
            )
        network, family = self.decoder.network, self.decoder.family
        base = network(z, torch.zeros_like(context))
        told: Distribution = family(base + guidance * (network(z, context) - base))
        return told

    def as_codes(self, z: Images) -> Tensor:
        """Check codes; returns float32 ``(N, D)`` on the model's device."""
        codes = as_tensor("codes", z).to(self.device, torch.float32)
        if codes.ndim != 2 or codes.shape[1] != self.latent_dim:
            raise DataError(
                f"codes of shape {tuple(codes.shape)}: this model needs (N, {self.latent_dim})."
            )
        return codes

    def sample(
        self,
        n: int,
        temperature: float = 1.0,
        guidance: float = 1.0,
        *,
        sampler: Literal["auto", "prior"] = "auto",
        **given: Any,
    ) -> Tensor:
        """Return ``n`` generated images, ``(n, C, H, W)`` in [0, 1].

        Arguments:
            n: how many.
            temperature: factor on the noise of the latents; below 1 the images are more typical.
            guidance: how far to follow what is given: see `guided`.
            sampler: ``prior`` for latents from p(z); ``auto`` takes them from the `mixture` where
                the model has one.
            given: labels by name, such as ``label=7``; others follow the training images.
        """
        whole_number("n", n, 1, MOST_IMAGES)
        with torch.no_grad():
            context = self.told_of(n, given, draw=True)
            likely = self.likely if sampler == "auto" else self.draw
            return self.decoded(likely(context, temperature), context, guidance)

    def likely(self, context: Tensor, temperature: float = 1.0) -> Tensor:
        """Return a draw for each context ``(n, K)``, ``(n, D)``: of the mixture, else the prior.

        Raises:
            ConfigError: a temperature below 0 or above `MOST_FACTOR`.
        """
        if self.mixture is None:
            return self.draw(context, temperature)
        within("temperature", temperature, 0, MOST_FACTOR)
        return self.mixture.draw(self.classes_of(context), temperature).to(self.device)

    def classes_of(self, context: Tensor) -> Tensor:
        """Return the numbers of the classes that contexts ``(n, K)`` say, −1 for none."""
        if not self.classes:
            return torch.full((len(context),), -1)
        said = context[:, : self.classes]
        return torch.where(said.sum(1) > 0, said.argmax(1), -1).cpu()

    @property
    def takes_mixture(self) -> bool:
        """Whether a mixture can stand in for the prior: not for one that is conditioned on y."""
        return not isinstance(self.prior, (LearnedPrior, SubspacePrior))

    def draw(self, context: Tensor, temperature: float = 1.0) -> Tensor:
        """Return a draw from the prior for each context ``(n, K)``, ``(n, D)``.

        Raises:
            ConfigError: a temperature below 0 or above `MOST_FACTOR`.
        """
        within("temperature", temperature, 0, MOST_FACTOR)
        if not isinstance(self.prior, (LearnedPrior, SubspacePrior)):
            return self.prior.sample(len(context), temperature)
        each: Distribution = self.prior(context)
        return each.mean + temperature * (each.sample() - each.mean)

    def told_of(self, n: int, given: Mapping[str, Any], draw: bool = False) -> Tensor:
        """Return the context of n images for what is given by name, ``(n, K)``; K may be 0.

        ``draw`` lets what is not given follow the training images; else it is unknown.

        Raises:
            ConfigError: a name or class that the model was not trained with.
        """
        if self.conditioning is not None:
            return self.conditioning.ask(n, given, draw)
        if given:
            raise ConfigError(
                f"{next(iter(given))}: this model knows no labels. Train a conditional one: "
                "vaelab train cvae."
            )
        return torch.zeros(n, 0, device=self.device)

    def context_of(self, images: Images, **given: Any) -> Tensor:
        """Return the contexts of images, ``(N, K)``: what is given, the rest as it is read.

        K is 0 for a model of images alone; what nobody says and the model cannot read is unknown.
        """
        x = self.as_images(images)
        context = self.told_of(len(x), given)
        return self.chunked(self.filled, x, context) if self.reads else context

    def subspace(self, attribute: str) -> Subspace:
        """Return the dimensions of the code that belong to an attribute (CSVAE).

        Raises:
            ConfigError: the model has no subspace for it.
        """
        if attribute not in self.subspaces:
            known = ", ".join(self.subspaces) or "none; train one with: vaelab train csvae"
            raise ConfigError(f"{attribute}: this model has no subspace for it. Known: {known}.")
        return self.subspaces[attribute]

    def labels(self, images: Images) -> dict[str, Tensor]:
        """Return what the model reads from images: class numbers and attributes, each ``(N,)``.

        Raises:
            ConfigError: the model reads no labels.
        """
        if not self.reads or self.conditioning is None:
            raise ConfigError("labels: only a conditional model (cvae) reads them.")
        return self.conditioning.say(self.context_of(images))

    def edit(
        self,
        images: Images,
        attribute: str,
        to: float | Tensor = 1.0,
        strength: float = 1.0,
        *,
        handle: Handle | None = None,
        **given: Any,
    ) -> Tensor:
        """Return images with an attribute changed, all else kept, ``(N, C, H, W)`` in [0, 1].

        A CSVAE moves the attribute's subspace, a conditional model is told another value, any other
        needs a ``handle``: see `vaelab.explore.directions`.

        Arguments:
            images: to edit.
            attribute: name.
            to: 0 or 1, or a share between; one for all, or one for each.
            strength: 0 only reconstructs, 1 goes as far as images of that kind are on the mean,
                more goes beyond.
            handle: what moves the codes of a model without labels.
            given: labels of the images, by name, where they are known.

        Raises:
            ConfigError: the model cannot edit this attribute.
        """
        x = self.as_images(images)
        context = self.context_of(x, **given)
        within("strength", strength, -MOST_FACTOR, MOST_FACTOR)
        where = torch.as_tensor(to, dtype=torch.float32, device=self.device).expand(len(x))
        if handle is None and self.subspaces:
            handle = self.subspace(attribute)
        codes = self.encode(x, **given)
        if handle is not None:
            return self.decoded(handle.move(codes, where, strength), context)
        if "decoder" not in self.told or self.conditioning is None:
            raise ConfigError(
                f"{attribute}: this model was trained without labels. Find a direction for the "
                "attribute first (vaelab directions), or train a csvae or cvae."
            )
        changed = self.conditioning.change(context, attribute, where)
        return self.decoded(codes, torch.lerp(context, changed, strength))

    def elbo(self, images: Images, samples: int = 1, seed: int = 0, **given: Any) -> Tensor:
        """Return the ELBO of each image, ``(N,)`` nats, with ``samples`` draws of z.

            ELBO(x) = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))

        Greys stay grey for a model that was trained on them.
        """

        def bound(batch: Batch, context: Tensor) -> Tensor:
            trace = self.trace(batch, context, samples)
            return (trace.log_px - trace.rate).mean(0)

        return self._measure(bound, images, samples, seed, self.binarize, given)

    def log_prob(self, images: Images, samples: int = 100, seed: int = 0, **given: Any) -> Tensor:
        """Return the importance-weighted bound of log p(x) of each image, ``(N,)`` nats.

            log p(x) ≥ E[log 1/K Σ_k p(x|z_k) p(z_k) / q(z_k|x)],  z_k ~ q(z|x)

        It tightens with K = ``samples``. The bound is not linear in x, so greys are binarised by
        chance (seeded) where the likelihood is Bernoulli. Source: Burda et al., 2016.
        """

        def bound(batch: Batch, context: Tensor) -> Tensor:
            return self.bounds(batch, samples, context)[1]

        how = "dynamic" if self.soft_targets else self.binarize
        return self._measure(bound, images, samples, seed, how, given)

    def bits_per_dim(self, images: Images, samples: int = 1, seed: int = 0, **given: Any) -> Tensor:
        """Return bits per dimension of 8-bit images by the ELBO, an upper bound, ``(N,)``.

            −(E_q[log P(x|z)] − KL(q(z|x) ‖ p(z))) / (D ln 2),   D = C · H · W

        P(x|z) is the mass of the 256 levels (`vaelab.models.masses`), by which densities compare
        with masses; of a model of binarised images it is that of the binary image.

        Raises:
            ConfigError: the likelihood is a Bernoulli one of grey levels, which is no mass.
        """
        if self.soft_targets:
            raise ConfigError(f"bits_per_dim: {SOFT}")

        def bound(batch: Batch, context: Tensor) -> Tensor:
            trace = self.trace(batch, context, samples)
            return bits_per_dim((trace.log_mass - trace.rate).mean(0), math.prod(self.shape))

        return self._measure(bound, images, samples, seed, self.binarize, given)

    def bounds(
        self,
        batch: Batch,
        samples: int,
        context: Tensor | None = None,
        weights: Callable[[Trace], Tensor] = attrgetter("log_w"),
    ) -> tuple[Tensor, Tensor]:
        """Return two bounds of log p of the targets from the same K draws of z, each ``(B,)`` nats.

            1/K Σ_k log w_k ≤ log 1/K Σ_k w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q(z|x)

        The first estimates the ELBO, the second is the importance-weighted bound. Memory does not
        grow with K = ``samples``. Labels are those of the batch unless there is a ``context``.
        Other ``weights`` are log w_k of a trace, ``(S, …, B)``, and give bounds ``(…, B)``.
        """
        context = self.context(batch) if context is None else context
        step = max(1, self.rows // len(batch))
        elbo = batch.images.new_zeros(())
        total = batch.images.new_full((), -math.inf)
        for start in range(0, samples, step):
            log_w = weights(self.trace(batch, context, min(step, samples - start)))
            elbo = elbo + log_w.sum(0) / samples
            total = torch.logaddexp(total, torch.logsumexp(log_w, 0))
        return elbo, total - math.log(samples)

    def _measure(
        self,
        measure: Callable[[Batch, Tensor], Tensor],
        images: Images,
        samples: int,
        seed: int,
        how: Binarize,
        given: dict[str, Any],
    ) -> Tensor:
        x = self.as_images(images)
        whole_number("samples", samples, 1, MOST_SAMPLES)
        check_seed(seed)
        if len(x) == 0:
            raise ConfigError("images: there are none. Give one at least.")
        drawn = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.device)
        target = binarize(x, how, drawn)  # before any draw of z: the same for every K
        seen = x if self.binarize == "none" else target

        def once(images: Tensor, target: Tensor, context: Tensor) -> Tensor:
            index = torch.arange(len(images), device=images.device)
            context = self.filled(images, context)
            return measure(Batch(images, target, None, None, index), context)

        context = self.told_of(len(x), given)
        with seeded(seed, self.device):
            return self.chunked(once, seen, target, context, rows=max(1, self.rows // samples))
