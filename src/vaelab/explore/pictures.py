"""What a model makes of codes and images: samples, reconstructions, paths and maps.

Each function returns images as floats in [0, 1]; `vaelab.explore.grids` lays them out. Given the
same seed they are the same. D is the number of latent dimensions, (C, H, W) the shape of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from vaelab.data.batches import Batch
from vaelab.data.images import ImageSet
from vaelab.errors import ConfigError, whole_number
from vaelab.evaluation.samplers import find_sampler
from vaelab.models.conditioning import LABEL
from vaelab.models.kl import kl_per_dimension
from vaelab.models.model import Images, evaluating, seeded
from vaelab.models.priors import NormalPrior
from vaelab.models.vae import Vae

Path = Literal["linear", "spherical"]

_QUANTILE_DRAWS = 10_000
_REACH = 3.0  # of a traversal, in deviations of the prior: all but 0.3 % of it


def samples(
    model: Vae,
    n: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    *,
    sampler: str = "auto",
    images: ImageSet | None = None,
    label: str | None = None,
    guidance: float = 1.0,
    given: Mapping[str, Any] | None = None,
) -> Tensor:
    """Return n generated images, ``(n, C, H, W)``, as `Vae.sample` gives them.

    Arguments:
        model: generates.
        n: number of images.
        temperature: factor on the noise of the latents.
        seed: of the draws.
        sampler: ``auto``, ``prior``, or one fitted to the codes of ``images``: see `find_sampler`.
        images: the training images, which all samplers but these two need.
        label: name of the class to draw from.
        guidance: how far a conditional model follows what is given: see `Vae.guided`.
        given: other labels by name, for a conditional model.

    Raises:
        ConfigError: an unknown sampler or class.
    """
    told = {**({} if label is None else {LABEL: label}), **(given or {})}
    if sampler in ("auto", "prior") and (model.conditioning is not None or not told):
        how: Literal["auto", "prior"] = "prior" if sampler == "prior" else "auto"
        with seeded(seed, model.device):
            return model.sample(n, temperature, guidance, sampler=how, **told)
    if given or guidance != 1:
        raise ConfigError("given, guidance: only the prior of a conditional model (cvae) has them.")
    if images is None:
        raise ConfigError(f"samples: the sampler {sampler} with a label {label} needs `images`.")
    chosen = None if label is None else images.class_number(label)
    fitted = find_sampler(sampler, model, images, label=chosen, temperature=temperature, seed=seed)
    with seeded(seed, model.device):
        return fitted.images(n)


def reconstructions(model: Vae, images: Images) -> Tensor:
    """Return every image beside the decoded mean of its posterior, ``(N, 2, C, H, W)``."""
    originals = model.as_images(images)
    return torch.stack([originals, model.reconstruct(originals).to(originals.device)], 1)


def interpolate(
    model: Vae, start: Tensor, end: Tensor, steps: int = 10, how: Path = "linear"
) -> Tensor:
    """Return images on the way from one code to another, both included, ``(steps, C, H, W)``.

    Arguments:
        model: the decoder, and the encoder where images are given.
        start: a code ``(D,)``, or an image ``(C, H, W)``, which stands for its posterior mean.
        end: likewise.
        steps: number of images, 2 or more.
        how: ``linear``, or ``spherical``: along the arc, so that the distance from the origin does
            not shrink midway (Shoemake, 1985; White, 2016).

    Raises:
        ConfigError: fewer than two steps, or an unknown way.
    """
    whole_number("steps", steps, 2, 10_000)  # the ends included
    if how not in ("linear", "spherical"):
        raise ConfigError(f"how: {how!r} is unknown; use linear or spherical.")
    a, b = as_code(model, start), as_code(model, end)
    share = torch.linspace(0, 1, steps, device=a.device).unsqueeze(1)
    codes = torch.lerp(a, b, share) if how == "linear" else spherical(a, b, share)
    told = torch.lerp(_context(model, start), _context(model, end), share)
    return model.decoded(codes, told)


def _context(model: Vae, given: Tensor) -> Tensor:
    """Return what a decoder is told beside a code, or as it is read from an image, ``(K,)``."""
    if given.shape == (model.latent_dim,):
        return model.told_of(1, model.ordinary())[0]
    x = model.as_images(given.unsqueeze(0))
    return model.context_of(x)[0]


def spherical(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Return the points ``(n, D)`` at shares ``(n, 1)`` of the arc from ``a`` to ``b``.

        sin((1 − t) ω)/sin ω · a + sin(t ω)/sin ω · b,   ω the angle between them

    The line takes its place where the arc is not defined: (anti)parallel codes, or the origin.
    """
    lengths = a.norm() * b.norm()
    if lengths == 0:
        return torch.lerp(a, b, share)
    angle = torch.acos((a @ b / lengths).clamp(-1, 1))
    if torch.sin(angle) < 1e-4:
        return torch.lerp(a, b, share)
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)


def traverse(
    model: Vae,
    code: Tensor | None = None,
    dims: Sequence[int] | None = None,
    values: Sequence[float] | None = None,
) -> Tensor:
    """Return images of a code in which one dimension at a time varies, ``(dims, values, C, H, W)``.

    Arguments:
        model: the decoder.
        code: ``(D,)``, or an image ``(C, H, W)``; by default the median of the prior.
        dims: dimensions to vary, a row each; all by default.
        values: what the dimension becomes, in deviations of the prior from its centre; by default
            9 values from −3 to 3.

    Raises:
        ConfigError: a dimension that the model does not have.
    """
    values = torch.linspace(-_REACH, _REACH, 9).tolist() if values is None else values
    dims = check_dims(model, range(model.latent_dim) if dims is None else dims)
    base = quantiles(model, torch.tensor([0.5]))[0] if code is None else as_code(model, code)
    at = quantiles(model, torch.special.ndtr(torch.tensor(values, dtype=torch.double)))
    codes = base.repeat(len(dims), len(values), 1)
    for row, dim in enumerate(dims):
        codes[row, :, dim] = at[:, dim]
    images = model.generate(codes.reshape(-1, model.latent_dim), **model.ordinary())
    return images.reshape(len(dims), len(values), *model.shape)


def manifold(
    model: Vae, n: int = 20, dims: Sequence[int] | None = None, code: Tensor | None = None
) -> Tensor:
    """Return the images of a square of codes, ``(n, n, C, H, W)``: a map of the latent space.

    Codes lie at the quantiles (i + ½)/n of the prior, so that every image stands for the same
    probability (Kingma and Welling, 2014, figure 4). The first of the two dimensions grows to the
    right, the second upwards.

    Arguments:
        model: the decoder.
        n: images along a side.
        dims: the two dimensions; by default the first two. `by_rate` tells the most used.
        code: values of all others, ``(D,)``, or an image; by default the median of the prior.

    Raises:
        ConfigError: not two dimensions of the model.
    """
    chosen = check_dims(model, (0, 1) if dims is None else dims)
    if len(set(chosen)) != 2:
        raise ConfigError(f"dims: a map has two different dimensions (got {chosen}).")
    base = quantiles(model, torch.tensor([0.5]))[0] if code is None else as_code(model, code)
    at = quantiles(model, (torch.arange(n, dtype=torch.double) + 0.5) / n)
    codes = base.repeat(n, n, 1)
    codes[:, :, chosen[0]] = at[:, chosen[0]]
    codes[:, :, chosen[1]] = at[:, chosen[1]].flip(0).unsqueeze(1)
    images = model.generate(codes.reshape(-1, model.latent_dim), **model.ordinary())
    return images.reshape(n, n, *model.shape)


def by_rate(model: Vae, images: Images) -> list[int]:
    """Return the latent dimensions, those that tell most about these images first.

    Their order is by mean rate; where the rate does not divide, by variance of the posterior mean.
    """
    x = model.as_images(images)
    with torch.no_grad(), evaluating(model):
        parts = []
        for chunk in torch.split(x, model.rows):
            index = torch.arange(len(chunk))
            seen = chunk.to(model.device)
            posterior, prior = model.distributions(Batch(seen, seen, None, None, index))
            kl = kl_per_dimension(posterior, prior)
            parts.append(posterior.mean if kl is None else kl)
        use = torch.cat(parts)
        use = use.var(0, correction=0) if kl is None else use.mean(0)
    return [int(dim) for dim in use.argsort(descending=True)]


def quantiles(model: Vae, shares: Tensor) -> Tensor:
    """Return quantiles of the prior in each dimension, ``(n,)`` to ``(n, D)``.

    Exact for the normal prior, otherwise those of 10,000 draws (the same in every call).
    """
    if isinstance(model.prior, NormalPrior):
        each: Tensor = torch.special.ndtri(shares.double()).float()
        return each.unsqueeze(1).repeat(1, model.latent_dim).to(model.device)
    with seeded(0, model.device):
        drawn = model.marginal_prior().sample((_QUANTILE_DRAWS,))
    found: Tensor = torch.quantile(drawn, shares.to(drawn), dim=0)
    return found


def as_code(model: Vae, given: Tensor) -> Tensor:
    """Return a code ``(D,)`` as it is, or the posterior mean of an image ``(C, H, W)``."""
    if given.shape == (model.latent_dim,):
        return given.to(model.device, torch.float32)
    if given.shape == model.shape:
        return model.encode(given.unsqueeze(0))[0]
    raise ConfigError(
        f"a tensor of shape {tuple(given.shape)} is neither a code ({model.latent_dim},) nor an "
        f"image {model.shape} of this model."
    )


def check_dims(model: Vae, dims: Sequence[int]) -> list[int]:
    """Return dimensions as a list; raises `ConfigError` for one that the model does not have."""
    wrong = [dim for dim in dims if not 0 <= dim < model.latent_dim]
    if wrong:
        raise ConfigError(
            f"dims: {wrong[0]} is no latent dimension; this model has 0 to {model.latent_dim - 1}."
        )
    return list(dims)
