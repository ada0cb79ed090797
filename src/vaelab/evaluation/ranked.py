"""Images ranked by how odd a model finds them, and why, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vaelab.data.images import ImageSet, Splits
from vaelab.errors import ConfigError
from vaelab.evaluation.detection import Score, detection, threshold
from vaelab.evaluation.evaluate import choose
from vaelab.evaluation.oddities import (
    DRAWS,
    SCORES,
    STEPS,
    Progress,
    measurable,
    reference_codes,
    score,
)
from vaelab.evaluation.ranking import placements
from vaelab.files import csv_text, write_text
from vaelab.models.vae import Vae

USUAL = 500
"""Images that the model was not trained on, which tell what is usual."""

NOTABLE, PROBABLE = 0.95, 0.05
"""Above this share of usual images a score is a reason; below, an image is strikingly probable."""

FEWEST = 50
"""Usual images, at least: fewer do not tell what is usual."""

_REASONS: dict[str, Callable[[float, float], str]] = {
    "improbability": lambda value, usual: (
        f"improbable: log p(x) is {_signed(-value)} nats, usually {_signed(-usual)}"
    ),
    "regret": lambda value, usual: (
        f"new to the encoder: another code explains it {value:.1f} nats better, usually {usual:.1f}"
    ),
    "error": lambda value, usual: (
        f"badly reconstructed: squared error {value:.2g} per pixel, usually {usual:.2g}"
    ),
    "distance": lambda value, usual: (
        f"far from the codes of training images: {value:.1f} deviations, usually {usual:.1f}"
    ),
}


def _signed(value: float) -> str:
    return f"{value:,.0f}".replace("-", "−")


@dataclass(frozen=True)
class Ranking:
    """Scores of N images, and those of images that are as usual as can be.

    Arguments:
        names: of the images, ``N``.
        scores: by name, see `vaelab.evaluation.oddities`: each ``(N,)``, higher is odder.
        usual: the same scores of n images that are usual, each ``(n,)``.
        by: the score that ranks.
        what: what the usual images are, such as ``500 validation images``.
        classes: class of each image, "" where it is unknown; empty without classes.
        normal: classes that are no anomalies; empty where that is not known.
    """

    names: tuple[str, ...]
    scores: dict[str, Tensor]
    usual: dict[str, Tensor]
    by: str
    what: str
    classes: tuple[str, ...] = ()
    normal: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def order(self, by: str | None = None) -> list[int]:
        """Return the numbers of the images, the oddest first; ties keep their order."""
        return self.scores[by or self.by].argsort(descending=True, stable=True).tolist()

    def shares(self, by: str | None = None) -> Tensor:
        """Return for each image which share of the usual ones is less odd, ``(N,)``."""
        name = by or self.by
        return placements(self.scores[name], self.usual[name])

    def beyond(self, by: str | None = None) -> int:
        """Return how many images are odder than every usual one."""
        name = by or self.by
        return int((self.scores[name] > self.usual[name].max()).sum())

    def reasons(self, number: int) -> list[str]:
        """Return why an image has its rank: where the score that ranks has it, then other reasons.

        These are the other scores above that of 95 % of usual images, each beside the usual
        (median) one, the strongest first.
        """
        others = []
        for name, values in self.scores.items():
            if name != self.by and float(self.shares(name)[number]) > NOTABLE:
                value, usual = float(values[number]), float(self.usual[name].median())
                excess = (value - usual) / (
                    float(self.usual[name].quantile(NOTABLE)) - usual or 1.0
                )
                others.append((excess, self._place(name, number)))
        reasons = [self._place(self.by, number), *(text for _, text in sorted(others)[::-1])]
        if self.unusual(number) and "improbability" in self.scores:
            less = 1 - float(self.shares("improbability")[number])
            if less > 1 - PROBABLE:
                reasons.append(
                    f"yet more probable than {100 * less:.0f} % of these, as simple images are"
                )
        return reasons

    def unusual(self, number: int) -> bool:
        """Tell whether any score of an image is above that of 95 % of usual images."""
        return any(float(self.shares(name)[number]) > NOTABLE for name in self.scores)

    def detection(self) -> dict[str, Score]:
        """Return how well each score finds the anomalies; empty where these are not known."""
        if not self.normal:
            return {}
        return detection(self.scores, self.usual, self.classes, self.normal)

    def flags(self) -> list[bool]:
        """Tell which images lie above the score that at most 5 % of usual ones exceed."""
        return (self.scores[self.by] > threshold(self.usual[self.by])).tolist()

    def notes(self) -> list[str]:
        """Return what to beware of."""
        if len(self.usual[self.by]) >= FEWEST:
            return []
        return [
            f"Only {self.what} to tell what is usual: a place among so few says little. Hold out "
            f"{FEWEST} or more (data.split)."
        ]

    def _place(self, name: str, number: int) -> str:
        """Return where a score has an image among the usual ones, in words."""
        share = float(self.shares(name)[number])
        value, usual = float(self.scores[name][number]), float(self.usual[name].median())
        if share > NOTABLE:
            return f"{_REASONS[name](value, usual)} ({self._than(share)})"
        text = f"{name} {value:.3g} {SCORES[name]}, usually {usual:.3g}".replace("-", "−")
        return f"{text} ({self._than(share)})"

    def _than(self, share: float) -> str:
        count = len(self.usual[self.by])
        return f"odder than all {count}" if share == 1 else f"odder than {100 * share:.1f} %"

    def table(self) -> str:
        """Return the ranking as CSV: ``rank,name,…scores,…shares,class,flag,reason``.

        The oddest come first; the flag is 1 above the score that at most 5 % of usual ones exceed.
        """
        shares = {name: self.shares(name) for name in self.scores}
        head: list[object] = [
            "rank",
            "name",
            *self.scores,
            *(f"{name}_share" for name in shares),
            "class",
            "flag",
            "reason",
        ]
        rows: list[list[object]] = [head]
        flags, classes = self.flags(), self.classes or ("",) * len(self)
        for place, number in enumerate(self.order(), 1):
            values = [f"{float(values[number]):.6g}" for values in self.scores.values()]
            parts = [f"{float(values[number]):.4f}" for values in shares.values()]
            reason = "; ".join(self.reasons(number))
            name, of = self.names[number], classes[number]
            rows.append([place, name, *values, *parts, of, int(flags[number]), reason])
        return csv_text(rows)

    def save(self, path: Path | str) -> None:
        """Write `table` to a ``.csv`` file, whole or not at all.

        Raises:
            ConfigError: the name ends otherwise.
        """
        path = Path(path)
        if path.suffix != ".csv":
            raise ConfigError(f"{path}: the ranking is a table. Name a file that ends in .csv.")
        write_text(path, self.table())


def rank(
    model: Vae,
    images: ImageSet,
    splits: Splits,
    *,
    names: Sequence[str] | None = None,
    normal: Sequence[str] = (),
    by: str | None = None,
    scores: Iterable[str] | None = None,
    draws: int = DRAWS,
    steps: int = STEPS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Ranking:
    """Score images, and validation images beside them, which tell what is usual.

    Arguments:
        model: any `Vae`.
        images: to rank.
        splits: what the model was trained on: its training images for the distance, and up to 500
            of its validation images for what is usual.
        names: of the images; their numbers by default.
        normal: classes that are no anomalies; others then are. Only validation images of these
            classes tell what is usual.
        by: the score to rank by; by default ``regret`` or, for an autoencoder, ``error``.
        scores: which to measure; all that the model has by default.
        draws: of z for each image, see `score`.
        steps: of the search for a regret.
        seed: of every draw.
        progress: told how many images are scored.

    Raises:
        ConfigError: the model does not have the score ``by``, or a count is below 1.
        DataError: images of another shape, or none.
    """
    reference = reference_codes(model, splits.train, seed=seed)
    held_out = _of_classes(splits.validation, normal)
    index = choose(len(held_out), USUAL, seed)
    usual_images = held_out.subset(index)
    total = len(images) + len(index)

    def tell(before: int) -> Progress:
        return lambda done, _: None if progress is None else progress(before + done, total)

    wanted = measurable(model, reference, scores)
    first = by or ("regret" if "regret" in wanted else next(iter(wanted), "none"))
    if first not in wanted:
        raise ConfigError(f"score: this model has no {first!r}. It has: {', '.join(wanted)}.")

    def measured(some: ImageSet, before: int) -> dict[str, Tensor]:
        return score(
            model,
            some,
            reference,
            scores=wanted,
            draws=draws,
            steps=steps,
            seed=seed,
            progress=tell(before),
        )

    found, usual = measured(images, 0), measured(usual_images, len(images))
    named = tuple(names) if names is not None else tuple(map(str, range(len(images))))
    kind = "validation" if splits.held_out else "training"
    what = f"{len(index):,} {kind} image{'s' * (len(index) != 1)}"
    classes = () if images.labels is None else tuple(images.class_of_each())
    return Ranking(named, found, usual, first, what, classes, tuple(normal))


def _of_classes(images: ImageSet, names: Sequence[str]) -> ImageSet:
    """Return the images of some classes or of none that is known; all if these are none."""
    if not names or images.labels is None:
        return images
    kept = [name in names or not name for name in images.class_of_each()]
    return images.subset(torch.tensor(kept).nonzero().squeeze(1)) if any(kept) else images
