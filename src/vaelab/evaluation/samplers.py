"""Where images are drawn from: the prior, or a density of the codes of training images.

The prior p(z) is what the model promises. Where the aggregate posterior q(z) = E_x q(z|x) leaves
holes in it, a density fitted to q(z) after training gives better images (Dai and Wipf, 2019; Ghosh
et al., 2020), and makes samples of an autoencoder, which has no prior, possible at all.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from vaelab.data.batches import epoch_order
from vaelab.data.images import ImageSet
from vaelab.errors import ConfigError, within
from vaelab.evaluation.measure import batches
from vaelab.models.conditioning import LABEL
from vaelab.models.mixture import LatentMixture
from vaelab.models.model import evaluating, seeded
from vaelab.models.posteriors import Dirac
from vaelab.models.priors import build_prior
from vaelab.models.vae import MOST_FACTOR, Vae

SamplerName = Literal["auto", "prior", "gmm", "flow", "pool"]
NAMES: tuple[SamplerName, ...] = get_args(SamplerName)

CODES = 20_000
"""Training images that a density is fitted to, at most, at random."""

COMPONENTS = 10  # of the mixture (Ghosh et al., 2020)
_STEPS, _BATCH, _RATE = 1_500, 512, 3e-3  # of fitting the flow
_SMALLEST = 1e-6


@dataclass(frozen=True)
class Sampler:
    """A way to draw images.

    Arguments:
        name: in plain words, for a protocol.
        model: decodes.
        draw: number n to codes ``(n, D)`` and what the decoder is told, ``(n, K)``; follows the
            global random numbers.
    """

    name: str
    model: Vae
    draw: Callable[[int], tuple[Tensor, Tensor]]

    def images(self, n: int) -> Tensor:
        """Return n images, ``(n, C, H, W)`` in [0, 1]."""
        with torch.no_grad():
            codes, context = self.draw(n)
            return self.model.decoded(codes, context)


def find_sampler(
    name: str,
    model: Vae,
    images: ImageSet,
    *,
    label: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> Sampler:
    """Return a sampler for a model.

        auto    what was chosen after training, `choose_sampler`; of a class that the model is not
                conditioned on, gmm
        prior   z ~ p(z)
        gmm     a mixture of ten normal distributions with full covariances, fitted to q(z)
        flow    a neural spline flow fitted to q(z) (needs zuko)
        pool    z ~ q(z|x), x an image of the pool by chance: an exact draw from q(z); codes of an
                autoencoder are blurred by a kernel of Silverman's width

    Arguments:
        name: one of these.
        model: whose codes.
        images: the training images, which all but auto and the prior need.
        label: draw images of this class, a number in ``images.class_names``: from a conditional
            model's prior, or from the codes of its training images.
        temperature: factor on the noise of the prior.
        seed: of the fit.

    Raises:
        ConfigError: an unknown name, a class for the prior or of which there is no image, or no
            zuko.
    """
    within("temperature", temperature, 0, MOST_FACTOR)
    if name not in NAMES:
        raise ConfigError(f"sampler: {name!r} is unknown; choose one of {', '.join(NAMES)}.")
    if label is not None and images.class_names and 0 <= label < len(images.class_names):
        called = images.class_names[label]
        images, _ = model.matched(images)
        label = images.class_number(called)
    told = model.conditioning is not None and LABEL in model.conditioning.names
    given = {LABEL: label} if told and label is not None else {}
    if name == "auto" and label is not None and not told:
        name = "gmm"
    if name in ("auto", "prior"):
        if label is not None and not told:
            raise ConfigError(
                "label: of this model the prior knows no classes; use the sampler gmm, flow or "
                "pool, or train a conditional model (cvae)."
            )
        words = "the prior p(z)" if model.conditioning is None else "the prior p(z|y), y as trained"
        drawn = model.draw
        if name == "auto" and model.mixture is not None:
            words, drawn = model.mixture.name, model.likely

        def draw(n: int) -> tuple[Tensor, Tensor]:
            context = model.told_of(n, given, draw=True)
            return drawn(context, temperature), context

        return Sampler(words, model, draw)

    def with_labels(codes: Callable[[int], Tensor]) -> Callable[[int], tuple[Tensor, Tensor]]:
        return lambda n: (codes(n), model.told_of(n, {**model.ordinary(), **given}))

    if temperature != 1:
        raise ConfigError(f"temperature: only the prior has one, not the sampler {name}.")
    index = _members(images, label, seed)
    of = "training images" if label is None else f"training images of {images.class_names[label]}"
    if name == "pool":
        pool = with_labels(_pool(model, images, index))
        return Sampler(f"q(z|x) of {of} drawn by chance", model, pool)
    with seeded(seed, model.device):
        codes = _codes(model, images, index)
        fitted = _mixture(codes, seed) if name == "gmm" else _flow(codes)
    words = f"a mixture of {COMPONENTS} normals" if name == "gmm" else "a spline flow"
    name = f"{words} fitted to the codes of {len(codes):,} {of}"
    return Sampler(name, model, with_labels(fitted))


def _members(images: ImageSet, label: int | None, seed: int) -> Tensor:
    order = epoch_order(len(images), seed, 0)
    if label is not None:
        if images.labels is None or not 0 <= label < len(images.class_names):
            known = ", ".join(images.class_names) or "none"
            raise ConfigError(f"label: no class number {label}; the classes are: {known}.")
        order = order[images.labels[order] == label]
    if len(order) < 2:
        raise ConfigError(f"label: {len(order)} training images of this class are too few.")
    return order


@torch.no_grad()
def posterior_draws(model: Vae, images: ImageSet, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield draws from the posteriors of some images ``(n, D)``, on the CPU, and their contexts."""
    with evaluating(model):
        for batch in batches(model, images, index, model.rows):
            context = model.context(batch)
            z = model.infer(batch.images, context).sample().cpu()
            yield z, z.new_zeros(len(z), 0) if context is None else context


def _codes(model: Vae, images: ImageSet, index: Tensor) -> Tensor:
    """Return one draw from the posterior of each image, ``(n, D)``, on the CPU."""
    return torch.cat([z for z, _ in posterior_draws(model, images, index[:CODES])])


def _pool(model: Vae, images: ImageSet, index: Tensor) -> Callable[[int], Tensor]:
    width = _kernel(model, images, index)

    def draw(n: int) -> Tensor:
        chosen = index[torch.randint(len(index), (n,))]
        codes = torch.cat([_codes(model, images, part) for part in chosen.split(CODES)])
        return codes + width * torch.randn_like(codes)

    return draw


@torch.no_grad()
def _kernel(model: Vae, images: ImageSet, index: Tensor) -> Tensor:
    """Return the width of the kernel that blurs a code: 0 unless posteriors are points."""
    batch = next(batches(model, images, index[:2], 2))
    if not isinstance(model.distributions(batch)[0], Dirac):
        return torch.zeros(model.latent_dim)
    codes = _codes(model, images, index)
    power = 1 / (codes.shape[1] + 4)
    width: Tensor = codes.std(0) * (4 / (codes.shape[1] + 2) / len(codes)) ** power
    return width


def fit_normals(latents: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a mixture by expectation maximisation to ``(n, D)``, full covariances.

    Returns weights ``(K,)``, means ``(K, D)`` and roots ``(K, D, D)`` of the covariances.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a step more would change little
        found = GaussianMixture(count, reg_covar=_SMALLEST, random_state=seed).fit(
            latents.double().numpy()
        )
    weights, means = torch.from_numpy(found.weights_), torch.from_numpy(found.means_)
    roots = torch.linalg.cholesky(torch.from_numpy(found.covariances_))
    return (weights / weights.sum()).float(), means.float(), roots.float()


def _mixture(codes: Tensor, seed: int) -> Callable[[int], Tensor]:
    count = min(COMPONENTS, len(codes) // 2)
    mixture = LatentMixture(*fit_normals(codes, count, seed), torch.zeros(0, count))
    return lambda n: mixture.draw(torch.full((n,), -1))


def _flow(codes: Tensor) -> Callable[[int], Tensor]:
    """Fit by maximum likelihood on standardised codes: Adam, the rate falling along a cosine."""
    middle, scale = codes.mean(0), codes.std(0).clamp(min=_SMALLEST)
    standard = (codes - middle) / scale
    flow = build_prior("nsf", codes.shape[1])
    optimizer = torch.optim.Adam(flow.parameters(), _RATE)
    for step in range(_STEPS):
        rows = torch.randint(len(standard), (_BATCH,))
        optimizer.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * step / _STEPS)) / 2
        optimizer.zero_grad()
        (-flow().log_prob(standard[rows]).mean()).backward()
        optimizer.step()
    return lambda n: flow.sample(n) * scale + middle
