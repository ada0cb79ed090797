"""The page of the oddest images: which they are, why, and how all images score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from markupsafe import Markup
from torch import Tensor

from vaelab import files
from vaelab.data.images import ImageSet
from vaelab.evaluation.detection import rows, words
from vaelab.evaluation.oddities import DRAWS, POINT, SCORES, STEPS
from vaelab.evaluation.ranked import Ranking
from vaelab.explore.pictures import reconstructions
from vaelab.models.model import seeded
from vaelab.models.vae import Vae
from vaelab.report.page import render
from vaelab.report.pictures import Picture, beside, lay_out
from vaelab.report.plot import Plot
from vaelab.training.run import versions

CARDS, FEWEST, STRIP, BINS = 24, 6, 12, 40
_SIZE, _MARGINS = (560, 170), (8, 24, 8, 38)

TITLES = {
    "improbability": "Improbability: −log p(x)",
    "regret": "Likelihood regret",
    "error": "Reconstruction error",
    "distance": "Distance of the code",
}

_HOW = {
    "improbability": (
        "Improbability: −log p(x) by the importance-weighted bound with {draws} draws of z. Simple "
        "images can be more probable than any image of the training: do not go by it alone."
    ),
    "regret": (
        "Regret: what the ELBO gains when the posterior is fitted to this one image, in "
        "{steps} steps (Xiao, Yan and Amit, 2020)."
    ),
    "error": "Error: mean squared error of the decoded posterior mean, pixels in [0, 1].",
    "distance": (
        "Distance: Mahalanobis distance of the posterior mean from the aggregate posterior of the "
        "training images."
    ),
}


@dataclass(frozen=True)
class _Card:
    name: str
    image: Picture
    decoded: Picture
    reasons: list[str]


@dataclass(frozen=True)
class _Score:
    title: str
    plot: Markup
    caption: str
    oddest: Picture


def write_oddities(
    path: Path,
    model: Vae,
    images: ImageSet,
    ranking: Ranking,
    of: str,
    reproduce: str,
    draws: int = DRAWS,
    steps: int = STEPS,
) -> None:
    """Write the page of a ranking: one file, without a script, whole or not at all.

    Arguments:
        path: of the page.
        model: that scored the images.
        images: those that were ranked.
        ranking: of them.
        of: what the images are called.
        reproduce: the command that writes this page.
        draws: of z that the improbability was measured with.
        steps: of the search for a regret.
    """
    beyond, total = ranking.beyond(), len(ranking)
    what = ranking.what
    count = "None" if beyond == 0 else "All" if beyond == total > 1 else f"{beyond:,}"
    verb = "is" if beyond == 1 else "are"
    headline = (
        f"{count} of {total:,} image{'s' * (total > 1)} {verb} odder to this model than any of "
        f"{what}."
    )
    page = render(
        {
            "of": of,
            "summary": f"{total:,} images ranked by {ranking.by}",
            "headline": headline,
            "alerts": ranking.notes(),
            "cards": _cards(model, images, ranking),
            "total": total,
            "by": ranking.by,
            "what": what,
            "scores": [_score(name, model, images, ranking) for name in ranking.scores],
            "detection": rows(ranking.detection()) if ranking.normal else [],
            "detected": words(ranking.normal, ranking.classes, what),
            "measured": _measured(ranking, draws, steps),
            "reproduce": reproduce,
            "vaelab": versions()["vaelab"],
        },
        "oddities.html",
    )
    files.write_text(path, page)


def _decoded(model: Vae, images: ImageSet, order: Sequence[int]) -> Tensor:
    """Return images and their reconstructions, ``(n, 2, C, H, W)``."""
    with seeded(0, model.device):
        return reconstructions(model, images.take(torch.tensor(order)))


def _cards(model: Vae, images: ImageSet, ranking: Ranking) -> list[_Card]:
    order = _shown(ranking)
    pairs = beside(_decoded(model, images, order), [ranking.names[k] for k in order])
    return [
        _Card(ranking.names[k], image, decoded, ranking.reasons(k))
        for k, (image, decoded) in zip(order, pairs, strict=True)
    ]


def _shown(ranking: Ranking) -> list[int]:
    """Return the oddest images, as long as there is a reason to show them, and a few at least."""
    order = ranking.order()[:CARDS]
    reasons = [ranking.unusual(k) for k in order]
    last = max((place + 1 for place, odd in enumerate(reasons) if odd), default=0)
    return order[: max(FEWEST, last)]


def _score(name: str, model: Vae, images: ImageSet, ranking: Ranking) -> _Score:
    order = ranking.order(name)[:STRIP]
    both = _decoded(model, images, order).transpose(0, 1).flatten(0, 1)
    strip = lay_out(both, len(order), f"the {len(order)} oddest images by {name}")
    usual, beyond = ranking.usual[name], ranking.beyond(name)
    caption = (
        f"Blue: the {len(ranking):,} images ranked; grey: {ranking.what}, median "
        f"{float(usual.median()):.3g} {SCORES[name]}. {beyond:,} of the images lie beyond all grey."
    )
    return _Score(TITLES[name], _histogram(name, ranking), caption, strip)


def _histogram(name: str, ranking: Ranking) -> Markup:
    """Return both distributions of a score, each of area 1, without the farthest hundredth."""
    scores, usual = ranking.scores[name], ranking.usual[name]
    low = float(torch.minimum(scores.min(), usual.min()))
    high = max(float(scores.quantile(0.99)), float(usual.quantile(0.99)))
    high = max(high, low + 1e-6)
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    heights = []
    for values in (usual, scores):
        counts = torch.histogram(values.clamp(max=high), edges).hist
        heights.append((counts / counts.sum()).tolist())
    top = max(max(line) for line in heights)
    plot = Plot((low, high), (0, 1.06 * top), _SIZE, _MARGINS)
    plot.axes(
        f"{name}, {SCORES[name]} (odder to the right; the last bar holds all beyond)", yticks=[]
    )
    for line, kind in zip(heights, ("usual", "histogram"), strict=True):
        plot.bars(edges.tolist(), line, kind)
    return plot.svg(f"Histograms of {name}.", f"score-{name}")


def _measured(ranking: Ranking, draws: int, steps: int) -> list[str]:
    lines = [_HOW[name].format(draws=draws, steps=steps) for name in ranking.scores]
    if "regret" not in ranking.scores and "improbability" not in ranking.scores:
        lines.append(POINT)
    lines.append(
        f"What is usual is told by {ranking.what}. A share of 99 % says that 99 % of these are "
        "less odd; it is no probability that an image does not belong."
    )
    lines.append(
        "Where the model can be told labels it was told none: it read them from the image."
    )
    return lines
