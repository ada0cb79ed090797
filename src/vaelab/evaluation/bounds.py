"""How far bounds of log p(x) lie below it: more draws, a richer posterior, or the exact value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from vaelab.data.batches import Batch, binarize, epoch_order
from vaelab.data.images import ImageSet
from vaelab.evaluation.figures import Figure, mean
from vaelab.evaluation.likelihood import NATS, describe_bound, given_labels
from vaelab.evaluation.measure import batches
from vaelab.models import noise
from vaelab.models.model import evaluating, seeded
from vaelab.models.posteriors import DiracPosterior
from vaelab.models.priors import NormalPrior
from vaelab.models.vae import Vae
from vaelab.training.step import mix_seed

DRAWS = (1, 5, 50, 500, 5_000)
IMAGES = 200
_SEED = 4  # part of the seed
_EXACT = 1e-4  # largest deviation from linear, in units of the likelihood's σ


def bound_figures(
    model: Vae,
    images: ImageSet,
    *,
    draws: Sequence[int] = DRAWS,
    limit: int = IMAGES,
    seed: int = 0,
    report: Callable[[int], None] = lambda decoded: None,
) -> dict[str, Figure]:
    """Return the importance-weighted bound for several numbers of draws, all of the same ones.

        IWAE_k = E[log 1/k Σ_i w_i],   ELBO = IWAE_1 ≤ IWAE_k ≤ log p(x)

    The largest number of draws of each image is split into groups of k, over which the bound is
    averaged, so that bounds of few draws are as precise as that of all. The gap of log p(x) over
    the ELBO is KL(q(z|x) ‖ p(z|x)): what the family and the network of q lose; where the encoder
    sees greys and the target is a binary draw, also what it does not know of the draw. For a
    linear model with normal noise log p(x) is exact.
    Sources: Burda et al., 2016; Cremer et al., Inference suboptimality in VAEs, 2018.

    Arguments:
        model: with a density for a posterior; a point posterior has no bound: no figures.
        images: test images.
        draws: the numbers k, each a divisor of the largest.
        limit: number of images, drawn by chance.
        seed: of every draw.
        report: told the number of codes decoded since the last call.
    """
    if isinstance(model.encoder.family, DiracPosterior):
        return {}
    images, _ = model.matched(images)
    most = max(draws)
    index = epoch_order(len(images), seed, 0)[:limit].sort().values
    found: dict[int, list[Tensor]] = {k: [] for k in draws}
    exact: list[Tensor] = []
    density = linear_density(model)
    with evaluating(model), torch.no_grad(), seeded(mix_seed(seed, _SEED), model.device):
        for batch in batches(model, images, index, max(1, model.rows // 50)):
            batch = binary_target(model, batch)
            log_w = _log_weights(model, batch, most)
            for k in draws:
                groups = log_w.view(most // k, k, -1)
                found[k].append((torch.logsumexp(groups, 1) - math.log(k)).mean(0).cpu())
            if density is not None:
                exact.append(density(batch.target).cpu())
            report(len(batch) * most)
    bounds = {k: torch.cat(values) for k, values in found.items()}
    how = (
        f"Over {len(index):,} images drawn by chance, {most:,} draws of z from q(z|x) each, in "
        f"groups of k; seed {seed}. {describe_bound(model)}"
    )
    figures = {f"iwae_{k}": mean(values, NATS, f"{how} k = {k:,}.") for k, values in bounds.items()}
    best, name = bounds[most], f"the bound with k = {most:,}, which lies below log p(x)"
    if exact:
        best, name = torch.cat(exact), "log p(x) in closed form"
        figures["exact_log_prob"] = mean(
            best, NATS, f"log N(x; b, W Wᵀ + σ² I), a linear decoder's; the same images. {how}"
        )
    if 1 in bounds:
        gap = best - bounds[1]
        figures["posterior_gap"] = mean(
            gap, NATS, f"KL(q(z|x) ‖ p(z|x)) as {name} less the ELBO, image by image. {how}"
        )
    return given_labels(figures, model, images, index)


def binary_target(model: Vae, batch: Batch) -> Batch:
    """Draw binary targets where greys are the target: the bound is not linear in them."""
    if not model.soft_targets:
        return batch
    drawn = noise.uniform(batch.images.shape, batch_dim=0, device=batch.images.device)
    return replace(batch, target=binarize(batch.images, "dynamic", drawn))


def _log_weights(model: Vae, batch: Batch, draws: int) -> Tensor:
    """Return log p(x|z) + log p(z) − log q(z|x) at each draw, ``(draws, B)``, in double."""
    step = max(1, model.rows // len(batch))
    parts = [
        model(batch, min(step, draws - start)).log_w.double() for start in range(0, draws, step)
    ]
    return torch.cat(parts)


def linear_density(model: Vae) -> Callable[[Tensor], Tensor] | None:
    """Return log p(x) of a model with p(x|z) = N(W z + b, σ² I) and p(z) = N(0, I), or None.

        p(x) = N(x; b, W Wᵀ + σ² I)

    Whether the decoder is linear is found by trying it, not by looking at its layers.
    Source: Tipping and Bishop, Probabilistic principal component analysis, 1999.
    """
    if not isinstance(model.prior, NormalPrior):
        return None
    dim = model.latent_dim
    with evaluating(model), torch.no_grad(), seeded(0, model.device):
        codes = torch.cat([torch.zeros(1, dim), torch.eye(dim), 3 * torch.randn(16, dim)])
        given = model.decode(codes.to(model.device))
        inner = given.base_dist if isinstance(given, Independent) else given
        if not isinstance(inner, Normal):
            return None
        loc, scale = (values.double().cpu().flatten(1) for values in (inner.loc, inner.scale))
    offset, weight = loc[0], (loc[1 : dim + 1] - loc[0]).T
    sigma = float(scale[0, 0])
    linear = offset + codes.double() @ weight.T
    if float((scale - sigma).abs().max()) > _EXACT * sigma:
        return None
    if float((loc - linear).abs().max()) > _EXACT * max(1.0, float(loc.abs().max())):
        return None
    covariance = weight @ weight.T + sigma**2 * torch.eye(len(offset), dtype=torch.double)
    normal = MultivariateNormal(offset, covariance, validate_args=False)

    def density(x: Tensor) -> Tensor:
        values: Tensor = normal.log_prob(x.double().cpu().flatten(1))
        return values

    return density
