"""The tables of `own_images.py`: means over seeds, ratios to the plain VAE, and what must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from machine import Table
from scipy import stats

BAR_ERROR, BAR_FRECHET, BAR_CHROMA, BAR_PYTHAE = 0.95, 0.8, 0.9, 0.4


@dataclass(frozen=True)
class Trained:
    """One training: what the contender reported, and the metrics of what it left.

    Arguments:
        report: seconds, steps, widths and such.
        metrics: ``error``, ``chroma`` (of colour images), for each sampler its FID by its name and
            the distance to training images by ``NAME nearest``; also of ``reconstructed`` test
            images.
    """

    report: dict[str, Any]
    metrics: dict[str, float]

    @property
    def sampler(self) -> str:
        """The sampler that counts: the default one, or else the better of prior and mixture."""
        if "default" in self.metrics:
            return "default"
        return min(("prior", "mixture"), key=self.metrics.__getitem__)

    @property
    def frechet(self) -> float:
        """FID of the sampler that counts."""
        return self.metrics[self.sampler]

    @property
    def nearest(self) -> float:
        """Distance of its samples to training images."""
        return self.metrics[f"{self.sampler} nearest"]


Results = dict[tuple[float, str], list[Trained]]
"""By budget and contender; one training a seed."""


def interval(values: Sequence[float], digits: int) -> str:
    """Return the mean and, from two values on, its 95 % interval (Student's t)."""
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean} ± {half:.{digits}f}"


def error_ratios(trained: Sequence[Trained], others: Sequence[Trained]) -> list[float]:
    """Return the test MSE of each, divided by that of the other of the same seed."""
    pairs = zip(trained, others, strict=True)
    return [a.metrics["error"] / b.metrics["error"] for a, b in pairs]


def frechet_ratios(trained: Sequence[Trained], others: Sequence[Trained]) -> list[float]:
    """Return the FID of each, divided by that of the other of the same seed."""
    return [a.frechet / b.frechet for a, b in zip(trained, others, strict=True)]


def table(title: str, results: Results) -> Table:
    """Return the table of one set."""
    colour = any("chroma" in each.metrics for group in results.values() for each in group)
    columns = ["CPU s", "contender", "used", "steps", "test MSE", "ratio"]
    columns += ["chroma kept"] if colour else []
    columns += ["FID", "ratio", "sampler", "nearest", "of recon.", "FID prior", "FID mixture"]
    out = Table(title, columns)
    for (budget, contender), group in results.items():
        plain = results[budget, "plain"]

        def of(name: str, digits: int, group: list[Trained] = group) -> str:
            return interval([each.metrics[name] for each in group], digits)

        out.rows.append(
            [
                f"{budget:g}",
                contender,
                interval([each.report["seconds"] for each in group], 0),
                f"{np.mean([each.report['steps'] for each in group]):,.0f}",
                of("error", 4),
                interval(error_ratios(group, plain), 2),
                *([of("chroma", 2)] if colour else []),
                interval([each.frechet for each in group], 1),
                interval(frechet_ratios(group, plain), 2),
                "/".join(dict.fromkeys(each.sampler for each in group)),
                interval([each.nearest for each in group], 4),
                of("reconstructed nearest", 4),
                of("prior", 1),
                of("mixture", 1),
            ]
        )
    return out


def require(out: Table, results: Results, photos: bool) -> None:
    """Note which bars hold; photos: whether the chroma of reconstructions is one."""
    for budget in dict.fromkeys(budget for budget, _ in results):
        ours, plain = results[budget, "vaelab"], results[budget, "plain"]
        error, distance = np.mean(error_ratios(ours, plain)), np.mean(frechet_ratios(ours, plain))
        at = f"at {budget:g} s"
        out.require(
            bool(error <= BAR_ERROR), f"MSE {at}: {error:.2f} of the plain VAE's, ≤ {BAR_ERROR}."
        )
        out.require(
            bool(distance <= BAR_FRECHET),
            f"FID {at}: {distance:.2f} of the plain VAE's best, ≤ {BAR_FRECHET}.",
        )
        if photos:
            kept = np.mean([each.metrics["chroma"] for each in ours])
            out.require(bool(kept >= BAR_CHROMA), f"chroma {at}: {kept:.2f}, ≥ {BAR_CHROMA}.")
        for _, other in (key for key in results if key[0] == budget and "pythae" in key[1]):
            against = np.mean(frechet_ratios(ours, results[budget, other]))
            out.require(
                bool(against <= BAR_PYTHAE),
                f"FID {at}: {against:.2f} of {other}'s, ≤ {BAR_PYTHAE}.",
            )
