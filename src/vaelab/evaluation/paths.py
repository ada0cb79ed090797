"""Whether the latent space can be walked in: holes where nothing real decodes, jumps on the way."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from vaelab.data.batches import epoch_order
from vaelab.data.images import ImageSet
from vaelab.evaluation.features import Features
from vaelab.evaluation.figures import Figure, mean, share
from vaelab.evaluation.generation import nearest
from vaelab.evaluation.measure import codes_of
from vaelab.evaluation.samplers import Sampler
from vaelab.models.model import seeded
from vaelab.models.vae import Vae
from vaelab.training.step import mix_seed

KNOWN, PAIRS, STEPS, FAR = 10_000, 300, 24, 0.99
_SEED = 5  # part of the seed


def path_figures(
    model: Vae,
    images: ImageSet,
    features: Features,
    sampler: Sampler,
    known: ImageSet,
    *,
    limit: int = 2_000,
    seed: int = 0,
) -> dict[str, Figure]:
    """Return the share of holes, and how straight and how even interpolations are.

    ``holes``: share of samples that lie farther from every training image than 99 % of the test
    images do. ``path_length``: length of the decoded straight line between the codes of two test
    images, relative to the distance of its ends. ``path_jump``: its largest step relative to the
    mean one, 1 where it goes evenly. All distances are between `Features`.
    Source of the idea: Berthelot et al., Understanding and improving interpolation in autoencoders
    via an adversarial regularizer, 2019; Arvanitidis et al., Latent space oddity, 2018.

    Arguments:
        model: encodes and generates.
        images: test images.
        features: where distances are measured.
        sampler: of the codes whose images are looked at for holes.
        known: training images.
        limit: number of test images and of samples.
        seed: of every draw.
    """
    real = _some(images, min(limit, len(images)), seed)
    there = features.of(_some(known, min(KNOWN, len(known)), seed))
    with seeded(mix_seed(seed, _SEED), model.device):
        made = features.of(sampler.images(len(real)))
    usual = nearest(features.of(real), there)
    far = nearest(made, there) > usual.quantile(FAR)
    how = f"Features: {features.name}. Seed {seed}."
    holes = (
        f"Share of {len(made):,} samples ({sampler.name}) farther from each of {len(there):,} "
        f"training images than {FAR:.0%} of {len(real):,} test images are. {how}"
    )
    figures = {"holes": share(far, holes, "share of samples")}
    lengths, jumps = _walks(model, images, features, seed)
    if not lengths:
        return figures
    walks = f"Straight lines between the codes of {len(lengths):,} pairs of images by chance, "
    return {
        **figures,
        "path_length": mean(
            torch.stack(lengths),
            "of the distance of its ends",
            f"{walks}decoded in {STEPS} steps: summed length. {how}",
        ),
        "path_jump": mean(
            torch.stack(jumps),
            "of the mean step",
            f"{walks}decoded in {STEPS} steps: largest step. {how}",
        ),
    }


def _some(images: ImageSet, count: int, seed: int) -> Tensor:
    """Return images by chance, in an order by chance."""
    return images.take(epoch_order(len(images), seed, 0)[:count])


def _walks(
    model: Vae, images: ImageSet, features: Features, seed: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Return relative length and largest relative step of paths from each image to the next.

    Paths whose ends look the same are left out.
    """
    codes = codes_of(model, images, epoch_order(len(images), seed, 1)[: PAIRS + 1])
    share = torch.linspace(0, 1, STEPS + 1, device=codes.device)[:, None]
    lengths: list[Tensor] = []
    jumps: list[Tensor] = []
    for start, end in pairwise(codes):
        points = features.of(
            model.generate(torch.lerp(start, end, share), **model.ordinary())
        ).double()
        steps = (points[1:] - points[:-1]).norm(dim=1)
        whole = (points[-1] - points[0]).norm()
        if whole > 0:
            lengths.append(steps.sum() / whole)
            jumps.append(steps.max() / steps.mean())
    return lengths, jumps
