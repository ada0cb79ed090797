"""Where generated images come from, chosen on validation images: the prior, or a mixture.

The Fréchet distance alone would choose the copy: a kernel around every training latent gives the
training images back, which are as close to real ones as can be. So a mixture whose samples lie
nearer to training images than held-out ones do is never chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaelab.data.batches import epoch_order
from vaelab.data.images import ImageSet, Splits
from vaelab.data.warp import shrunk
from vaelab.errors import counted
from vaelab.evaluation.generation import frechet, nearest
from vaelab.evaluation.measure import codes_of
from vaelab.evaluation.random_features import random_features
from vaelab.evaluation.samplers import CODES, fit_normals, posterior_draws
from vaelab.models.mixture import MOST, LatentMixture
from vaelab.models.model import seeded
from vaelab.models.vae import Vae
from vaelab.training.step import mix_seed

COMPONENTS = (1, 2, 5, 10, 20, 50)
"""Of the mixtures that are tried; each has `_EACH` latents or more on the mean."""

_EACH = 32
_LEAST = 20  # validation images, below which nothing can be chosen
_NEAR = 500  # samples whose neighbours count
_IMAGES, _NUMBERS = 1_000, 12_000_000  # generated for each candidate, and their pixels, at most
_FEWEST = 200  # generated images, however large
_BETTER, _ALIKE = 0.9, 1.03  # of the distance of the prior, and of the least one
_PIXELS = 16  # side that images are averaged down to, to find near ones
_SEED = 5  # part of the seed: nothing else draws these numbers


@dataclass(frozen=True)
class Candidate:
    """A sampler that was tried.

    Arguments:
        components: of the mixture, or of each class; 0 for the prior.
        frechet: distance of its samples to validation images.
        nearer_latents: share of pairs in which a sample is nearer to its nearest training image
            than a held-out one is to its own, as latents: ½ where they are alike.
        nearer_pixels: the same of pixels, both as the decoder draws them.
        copies: whether either is more than ½ by more than chance.
    """

    components: int
    frechet: float
    nearer_latents: float
    nearer_pixels: float
    copies: bool


@dataclass(frozen=True, eq=False)
class Choice:
    """What samples come from.

    Arguments:
        mixture: None for the prior.
        reason: a sentence.
        candidates: what was tried.
    """

    mixture: LatentMixture | None
    reason: str
    candidates: tuple[Candidate, ...] = ()


def choose_sampler(model: Vae, splits: Splits, seed: int = 0) -> Choice:
    """Fit mixtures to the latents of training images; return the best that does not copy.

    The best has the least Fréchet distance to validation images, in random features; of those that
    are within three per cent of it, which these cannot tell apart, the most components. It replaces
    the prior where it is nearer by a tenth.
    """
    known, held = splits.train, splits.validation
    most = len(known) // _EACH
    tried = [count for count in COMPONENTS if count <= most]
    if not model.takes_mixture:
        return Choice(None, "Samples come from the prior, as it is of this kind of model.")
    if held is known:
        return Choice(None, "Samples come from the prior: no validation images were held out.")
    if not tried or len(held) < _LEAST:
        few = counted(len(held), "validation image")
        few = few if len(held) < _LEAST else counted(len(known), "training image")
        return Choice(None, f"Samples come from the prior: {few} are too few to choose otherwise.")
    with seeded(mix_seed(seed, _SEED, 0), model.device):
        chooser = _Chooser(model, known, held, seed)
        if not chooser.finite:
            return Choice(
                None, "Samples come from the prior: the latents of images are not finite."
            )
        return chooser.choose(tried)


class _Chooser:
    """The latents and features that all candidates are compared with."""

    def __init__(self, model: Vae, known: ImageSet, held: ImageSet, seed: int) -> None:
        self.model, self.seed = model, seed
        index, kept = (epoch_order(len(each), seed, 0)[:CODES] for each in (known, held))
        found = [
            (z, model.classes_of(context)) for z, context in posterior_draws(model, known, index)
        ]
        self.latents, self.classes = (torch.cat(parts) for parts in zip(*found, strict=True))
        self.means = codes_of(model, known, index)
        self.finite = bool(self.latents.isfinite().all() and self.means.isfinite().all())
        if not self.finite:
            return
        small = [shrunk(known.take(rows), _PIXELS).flatten(1) for rows in index.split(1_000)]
        self.pixels = torch.cat(small)
        self.features = random_features(held.take(kept[:_IMAGES]))
        self.real = torch.cat([self.features(held.take(rows)) for rows in kept.split(1_000)])
        again = [
            (z, model.decoded(z, context))
            for z, context in posterior_draws(model, held, kept[:_NEAR])
        ]
        near, decoded = (torch.cat(parts).cpu().nan_to_num() for parts in zip(*again, strict=True))
        self.near_latents = nearest(near, self.means)
        self.near_pixels = nearest(shrunk(decoded, _PIXELS).flatten(1), self.pixels)

    def choose(self, tried: list[int]) -> Choice:
        prior = self._tried(0, self.model.draw)
        mixtures = {count: self._mixture(count) for count in tried}
        found = [self._tried(count, self._drawing(each)) for count, each in mixtures.items()]
        honest = [each for each in found if not each.copies]
        candidates = (prior, *found)
        if not honest:
            why = "mixtures fitted to the latents give training images back"
            return Choice(None, f"Samples come from the prior: {why}.", candidates)
        least = min(each.frechet for each in honest)
        best = [each for each in honest if each.frechet <= _ALIKE * least][-1]
        beside = f"{best.frechet:.3g}, prior {prior.frechet:.3g}; 64 random features"
        against = f"Fréchet distance to {len(self.real):,} validation images {beside}"
        if best.frechet > _BETTER * prior.frechet:
            why = "a mixture fitted to the latents is hardly better"
            return Choice(None, f"Samples come from the prior: {why} ({against}).", candidates)
        each = " for each class" if self.model.classes else ""
        reason = (
            f"Samples come from a mixture of {counted(best.components, 'normal')}{each}, fitted to "
            f"the latents of {len(self.latents):,} training images ({against})."
        )
        return Choice(mixtures[best.components], reason, candidates)

    def _mixture(self, count: int) -> LatentMixture:
        """Fit so many components; of each class as many, where the model is given classes."""
        known = self.model.classes
        members = [self.latents[self.classes == number] for number in range(known)]
        own = [min(count, len(mine) // _EACH, MOST // 2 // known) for mine in members]
        parts = [fit_normals(x, k, self.seed) for x, k in zip(members, own, strict=True) if k]
        if not all(own) or not known:  # the others share what is fitted to all
            parts.append(fit_normals(self.latents, count, self.seed))
        ends = torch.tensor([0, *(len(weights) for weights, _, _ in parts)]).cumsum(0).tolist()
        by_class, place = torch.zeros(known, ends[-1]), 0
        for number, mine in enumerate(own):
            part = place if mine else len(parts) - 1
            by_class[number, ends[part] : ends[part + 1]] = parts[part][0]
            place += bool(mine)
        means, roots = (torch.cat([part[i] for part in parts]) for i in (1, 2))
        shares = torch.tensor([float(len(mine)) for mine in members])
        weights = shares / shares.sum() @ by_class if shares.sum() > 0 else parts[0][0]
        return LatentMixture(weights, means, roots, by_class)

    def _drawing(self, mixture: LatentMixture) -> Callable[[Tensor], Tensor]:
        return lambda context: mixture.draw(self.model.classes_of(context))

    def _tried(self, components: int, draw: Callable[[Tensor], Tensor]) -> Candidate:
        """Generate images, the same number for every candidate, and compare them."""
        model = self.model
        count = max(_FEWEST, min(_IMAGES, _NUMBERS // math.prod(model.shape)))
        with seeded(mix_seed(self.seed, _SEED, components), model.device), torch.no_grad():
            context = model.told_of(count, {}, draw=True)
            z = draw(context)
        images = model.decoded(z, context).cpu().nan_to_num()
        distance = frechet(self.real, self.features(images))
        in_latents = nearer(nearest(z[:_NEAR].cpu(), self.means), self.near_latents)
        small = shrunk(images[:_NEAR], _PIXELS).flatten(1)
        in_pixels = nearer(nearest(small, self.pixels), self.near_pixels)
        chance = _spread(min(count, _NEAR), len(self.near_latents))
        copies = components > 0 and max(in_latents, in_pixels) > 0.5 + 2 * chance
        return Candidate(components, distance, in_latents, in_pixels, copies)


def nearer(some: Tensor, others: Tensor) -> float:
    """Return P(a < b) + ½ P(a = b) of values a ``(n,)`` and b ``(m,)``: ½ where they are alike.

    The statistic of Mann and Whitney (1947) over n m.
    """
    ordered = others.sort().values
    above = len(ordered) - torch.searchsorted(ordered, some, right=True)
    equal = len(ordered) - torch.searchsorted(ordered, some) - above
    return float((above + 0.5 * equal).double().mean() / len(ordered))


def _spread(n: int, m: int) -> float:
    """Return the standard deviation of `nearer` where both are alike."""
    return math.sqrt((n + m + 1) / (12 * n * m))
