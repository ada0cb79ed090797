"""How well a score tells two sets of images apart: the area under the ROC curve."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaelab.errors import ConfigError
from vaelab.evaluation.figures import Figure


def auroc(odd: Tensor, usual: Tensor, protocol: str = "") -> Figure:
    """Return the area under the ROC curve of a score that is to be higher for odd images.

        AUROC = P(s(odd) > s(usual)) + ½ P(s(odd) = s(usual))

    which is the Mann–Whitney statistic over the number of pairs: 1 if the score separates the sets,
    ½ if it tells nothing, 0 if it is wrong about every pair. The standard error is that of DeLong,
    DeLong and Clarke-Pearson (1988): s²(V)/m + s²(W)/n, V being the share of usual images that each
    odd one lies above and W the share of odd images that each usual one lies below. It is 0 where
    the sets do not overlap, and None for a set of one image.

    Arguments:
        odd: scores of m images, ``(m,)``; infinite ones are ranked like any other.
        usual: scores of n images, ``(n,)``.
        protocol: how the scores were measured.

    Raises:
        ConfigError: a set is empty, or a score is NaN.
    """
    odd, usual = odd.double().cpu(), usual.double().cpu()
    if len(odd) == 0 or len(usual) == 0:
        raise ConfigError(
            f"auroc: needs images of both kinds ({len(odd)} odd, {len(usual)} usual)."
        )
    if odd.isnan().any() or usual.isnan().any():
        raise ConfigError("auroc: a score is NaN, so images cannot be ranked by it.")
    above, below = placements(odd, usual), 1 - placements(usual, odd)
    error = None
    if min(len(odd), len(usual)) > 1:
        error = math.sqrt(float(above.var()) / len(odd) + float(below.var()) / len(usual))
    return Figure(float(above.mean()), error, len(odd) + len(usual), "AUROC", protocol)


def placements(values: Tensor, among: Tensor) -> Tensor:
    """Return the share of ``among`` ``(n,)`` below each value ``(m,)``, ties counted half."""
    ordered = among.sort().values
    below = torch.searchsorted(ordered, values, side="left")
    upto = torch.searchsorted(ordered, values, side="right")
    return (below + upto).double() / (2 * len(among))
