r"""Means over seeds, and differences between cases, with intervals that hold for few seeds.

A seed moves all cases together (which images are labelled, the initial weights), and cases may
differ in how far chance moves them:

    y_gs = μ_g + b_s + ε_gs,   Var ε_gs = σ_g²

A **mean** has Student's interval of its own seeds: it needs no assumption about b or other cases.

A **difference** is taken between runs of the same seed, which removes b_s exactly. Its variance
s_p², on n − 1 degrees of freedom, is hardly known from two or three seeds. All cases tell
something about it: s_p² is drawn towards a prior (Smyth, 2004),

    s̃_p² = (d s₀² (h_a + h_b) + (n − 1) s_p²) / (d + n − 1),   on d + n − 1 degrees of freedom,
    h_g = exp(slope (x_g − x̄))

and never more than all cases have together. s₀² is fitted to the variances σ̂_g² of what is left of
each case without the median of the cases at each seed, scaled F variables on d₀ degrees of freedom.
d₀ and slope are not estimated but averaged over, weighted by their likelihood: few variances
hardly tell whether they agree, and to pool them on their word makes intervals too short. d = d₀/2,
as differences from one baseline share what chance did to it. The quantile is that of the mixture
of t distributions. With two cases this is the paired t-test.

`benchmarks/coverage.py` simulates how often the intervals hold; docs/studies.md says where they
fall short.

Source: Smyth, Linear models and empirical Bayes methods for assessing differential expression in
microarray experiments, 2004; Law, Chen, Shi and Smyth, voom: precision weights unlock linear model
analysis tools for RNA-seq read counts, 2014 (the trend); Fisher, The design of experiments, 1935
(randomised blocks).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

CONFIDENCE = 0.95

Array = npt.NDArray[np.float64]

FREEDOMS = (1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
"""d₀ that are averaged over: from variances that tell nothing of each other to equal ones."""

SLOPES = (0.0, 1.0, 2.0)
"""Slopes of the trend that are averaged over: none, of counts, of deviations in proportion."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Arguments:
        value: the mean.
        interval: half the width of its 95 % interval; None where nothing tells the variance.
        n: number of seeds.
    """

    value: float
    interval: float | None
    n: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and abs(self.value) > self.interval


def means(groups: Mapping[str, Sequence[float]]) -> dict[str, Estimate]:
    """Return the mean of every group that has a value, with its 95 % interval (Student's t)."""
    return {name: _mean(np.array(values)) for name, values in groups.items() if len(values)}


def _mean(values: Array) -> Estimate:
    n = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    reach = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error if error > 0 else None
    return Estimate(float(values.mean()), reach, n)


def differences(
    groups: Mapping[str, Mapping[int, float]],
    pairs: Sequence[tuple[str, str]],
    at_once: int | None = None,
    trend: Mapping[str, float] | None = None,
) -> dict[tuple[str, str], Estimate]:
    """Return one − other for every pair with a seed in common, averaged over such seeds.

    All intervals together hold with 95 % (Šidák, 1967). One seed in common tells no interval.

    Arguments:
        groups: name to value by seed.
        pairs: names.
        at_once: number of intervals that are to hold together, if these are not all.
        trend: of each group, what the logarithm of its variance may go with.
    """
    spread = _spread({name: values for name, values in groups.items() if values}, trend)
    each = CONFIDENCE ** (1 / (at_once or max(1, len(pairs))))
    found = {}
    for one, other in pairs:
        common = sorted(groups[one].keys() & groups[other].keys())
        if common:
            gaps = np.array([groups[one][seed] - groups[other][seed] for seed in common])
            reach = None
            if spread is not None and len(gaps) > 1:
                reach = spread.reach(gaps, one, other, 1 - each)
            found[one, other] = Estimate(float(gaps.mean()), reach, len(gaps))
    return found


@dataclass(frozen=True)
class Spread:
    """What the cases of a study tell of the variance of a difference; H settings of d₀ and slope.

    Arguments:
        freedom: d₀, ``(H,)``.
        weight: of each setting, ``(H,)``, sum 1.
        variance: of each case by name, s₀² h_g, ``(H,)``.
        total: degrees of freedom of all cases.
    """

    freedom: Array
    weight: Array
    variance: dict[str, Array]
    total: float

    def reach(self, gaps: Array, one: str, other: str, miss: float) -> float:
        """Return half the width of an interval that leaves out a mean gap with chance ``miss``."""
        n, d = len(gaps), self.freedom / 2
        own = float(gaps.var(ddof=1)) * (n - 1)
        prior = self.variance[one] + self.variance[other]
        error = np.sqrt((d * prior + own) / (d + n - 1) / n)
        freedom = np.minimum(d + n - 1, self.total)
        scale = math.log(float(self.weight @ error))

        def excess(log_reach: Array) -> Array:
            tails = 2 * special.stdtr(freedom, -np.exp(scale + log_reach) / error)
            return np.asarray(self.weight @ tails - miss)

        return math.exp(scale + float(_root(excess, np.array(-10.0), np.array(30.0))))


def _spread(
    groups: Mapping[str, Mapping[int, float]], trend: Mapping[str, float] | None
) -> Spread | None:
    """Return what the groups tell of their variances; None where nothing does."""
    if len(groups) < 2:
        return None
    squares, freedom = _squares(groups)
    if not squares.sum() > 0:
        return None
    x = np.array([trend[name] if trend else 0.0 for name in groups])
    grid = [(d, slope) for d in FREEDOMS for slope in (SLOPES if trend else (0.0,))]
    d0, slopes = np.array(grid).T[:, :, None]
    shape = np.exp(slopes * (x - x.mean()))
    start = math.log(squares.sum() / freedom.sum())

    def slope_of_likelihood(log_scale: Array) -> Array:
        scaled = d0 * shape * np.exp(start + log_scale)[:, None]
        gain = (d0 + freedom) * squares / (scaled + squares) - freedom
        return np.asarray(gain.sum(1))

    top = np.full(len(grid), 40.0)
    common = shape * np.exp(start + _root(slope_of_likelihood, -top, top))[:, None]
    likelihood = (
        special.gammaln((freedom + d0) / 2)
        - special.gammaln(d0 / 2)
        - freedom / 2 * np.log(d0 * common)
        - (freedom + d0) / 2 * np.log1p(squares / (d0 * common))
    ).sum(1)
    weight = np.exp(likelihood - likelihood.max())
    variance = dict(zip(groups, common.T, strict=True))
    return Spread(d0[:, 0], weight / weight.sum(), variance, float(freedom.sum()))


def _squares(groups: Mapping[str, Mapping[int, float]]) -> tuple[Array, Array]:
    """Return of every group the sum of squares without seed effects, and its degrees of freedom.

    What a seed does to all is the median over groups, which a few noisy groups do not move.
    """
    seeds = sorted(set().union(*groups.values()))
    y = np.array([[values.get(seed, np.nan) for seed in seeds] for values in groups.values()])
    rest = y - np.nanmean(y, 1, keepdims=True)
    for _ in range(1 if np.isfinite(y).all() else 20):  # where a run is missing: in turns
        rest = rest - np.nanmedian(rest, 0)
        rest = rest - np.nanmean(rest, 1, keepdims=True)
    counts = np.isfinite(y).sum(1)
    return np.nansum(rest**2, 1), (counts - 1) * (1 - 1 / len(y))


def _root(falling: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Return where a falling function is 0, by bisection, for all elements at once."""
    for _ in range(40):
        middle = (low + high) / 2
        above = falling(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2
