r"""Means over seeds, and differences between cases, with intervals that hold for few seeds.

The variance of a figure over seeds is hardly known from two or three of them. All cases of a study
tell something about it, so their variances $s_g^2$ (on $d_g$ degrees of freedom) are drawn towards
a common one, by as much as they agree:

    s̃_g² = (d₀ s₀² + d_g s_g²) / (d₀ + d_g),   on min(d₀ + d_g, Σ d) degrees of freedom

with $d_0, s_0^2$ estimated from the variances themselves: if these differ by no more than chance,
they are pooled; if they differ widely, $d_0 → 0$ and each stands for itself. In simulations with 8
cases the 95 % intervals hold in 93 to 97 % of them, and in 91 % where there are two seeds and
deviations that differ by factors of e.

Where the variance is known to go with something else (that of an accuracy with its errors), what it
is drawn towards may follow a line in that, log s₀² = a + b x.

Source: Smyth, Linear models and empirical Bayes methods for assessing differential expression in
microarray experiments, 2004 (section 6.2); Law, Chen, Shi and Smyth, voom: precision weights unlock
linear model analysis tools for RNA-seq read counts, 2014 (the trend).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

CONFIDENCE = 0.95


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


@dataclass(frozen=True)
class Variance:
    """An estimate of a variance and its degrees of freedom; (0, 0) where nothing tells it."""

    value: float
    freedom: float


@dataclass(frozen=True)
class Common:
    """What variances are drawn towards: s₀² = value · exp(slope (x − centre)), on d₀ = freedom."""

    value: float
    freedom: float
    slope: float = 0.0
    centre: float = 0.0

    def at(self, x: float) -> float:
        """Return s₀² where the trend has the value x."""
        return self.value * math.exp(self.slope * (x - self.centre))


_LINE = 6  # variances that a line through them takes


def common_variance(found: Sequence[Variance], trend: Sequence[float] = ()) -> Common:
    """Estimate s₀² and d₀ from the variances of several groups.

    By the moments of log s²: its variance over groups beyond that of chance, the mean of ψ′(d_g/2),
    is ψ′(d₀/2). Where there is none the variances are pooled, d₀ = ∞.

    Arguments:
        found: the variances.
        trend: what they may go with, x of each; a line takes six of them.
    """
    use = [n for n, v in enumerate(found) if v.freedom > 0 and v.value > 0]
    known = [found[n] for n in use]
    if len(known) < 2:
        return Common(0.0, 0.0)
    halves = np.array([v.freedom for v in known]) / 2
    e = np.log([v.value for v in known]) - special.digamma(halves) + np.log(halves)
    x = np.array([trend[n] for n in use]) if trend else np.zeros(len(e))
    lined = len(use) >= _LINE and float(np.ptp(x)) > 0
    from_centre = x - x.mean()
    slope = float((from_centre * e).sum() / (from_centre**2).sum()) if lined else 0.0
    rest = e - e.mean() - slope * from_centre
    spread = float((rest**2).sum()) / (len(e) - 1 - lined)
    spread -= float(special.polygamma(1, halves).mean())
    if spread > 0:
        half = _trigamma_inverse(spread)
        value = math.exp(float(e.mean()) + float(special.digamma(half)) - math.log(half))
        return Common(value, 2 * half, slope, float(x.mean()))
    pooled = sum(v.value * v.freedom for v in known) / sum(v.freedom for v in known)
    value = math.exp(float(e.mean())) if lined else pooled
    return Common(value, math.inf, slope, float(x.mean()))


def _trigamma_inverse(value: float) -> float:
    """Return x with ψ′(x) = value: ψ′ falls from ∞ to 0, and is 1/x for large x."""
    most = 40.0  # logarithm of x
    if value <= math.exp(-most):
        return math.exp(most)

    def excess(log_x: float) -> float:
        return float(special.polygamma(1, math.exp(log_x))) - value

    return math.exp(optimize.brentq(excess, -most, most))


def moderated(
    groups: Mapping[str, Sequence[float]],
    most: float = math.inf,
    trend: Mapping[str, float] | None = None,
) -> dict[str, Variance]:
    """Return the moderated variance of every group.

    Arguments:
        groups: values by name.
        most: degrees of freedom that there are at most.
        trend: of each group, what its variance may go with.
    """
    own = {
        name: Variance(float(np.var(values, ddof=1)), len(values) - 1)
        if len(values) > 1
        else Variance(0.0, 0)
        for name, values in groups.items()
    }
    at = trend or dict.fromkeys(own, 0.0)
    prior = common_variance(list(own.values()), [at[name] for name in own] if trend else ())
    total = min(most, sum(v.freedom for v in own.values() if v.value > 0))
    found = {}
    for name, v in own.items():
        if math.isinf(prior.freedom):
            value, freedom = prior.at(at[name]), total
        else:
            freedom = prior.freedom + v.freedom
            weighted = prior.freedom * prior.at(at[name]) + v.freedom * v.value
            value = weighted / freedom if freedom else 0.0
        found[name] = Variance(value, min(freedom, total)) if value > 0 else Variance(0.0, 0.0)
    return found


def means(groups: Mapping[str, Sequence[float]]) -> dict[str, Estimate]:
    """Return the mean of every group that has a value, with its 95 % interval."""
    variances = moderated(groups)
    return {
        name: Estimate(
            float(np.mean(values)), _interval(variances[name], 1 / len(values), 1), len(values)
        )
        for name, values in groups.items()
        if len(values)
    }


def differences(
    groups: Mapping[str, Mapping[int, float]], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Estimate]:
    """Return one − other for every pair with a seed in common, averaged over such seeds.

    The runs are taken as independent, which is on the safe side where a seed does the same to both.
    All intervals together hold with 95 % (Šidák, 1967); the degrees of freedom of a sum of two
    variances are Welch's (1947), and no more than are known of either.

    Arguments:
        groups: name to value by seed.
        pairs: names.
    """
    variances = moderated({name: list(values.values()) for name, values in groups.items()})
    found = {}
    for one, other in pairs:
        common = sorted(groups[one].keys() & groups[other].keys())
        if not common:
            continue
        gaps = [groups[one][seed] - groups[other][seed] for seed in common]
        both = _sum(variances[one], variances[other])
        interval = _interval(both, 1 / len(common), len(pairs))
        found[one, other] = Estimate(float(np.mean(gaps)), interval, len(common))
    return found


def blocked(
    groups: Mapping[str, Mapping[int, float]],
    pairs: Sequence[tuple[str, str]],
    at_once: int | None = None,
    trend: Mapping[str, float] | None = None,
) -> dict[tuple[str, str], Estimate]:
    """Return one − other for pairs of groups whose values of a seed share a fate.

    Randomised blocks (Fisher, 1935), where groups may differ in how far chance moves them:

        y_gs = μ_g + b_s + ε_gs,   Var ε_gs = σ_g²

    What a seed does to all groups alike (which images are labelled, the initial weights) drops out
    of every difference. b_s is the median over groups of y_gs − ȳ_g, which a few noisy groups do
    not move; the variances of what is left, times k/(k − 1) for k groups, are moderated as above.
    With two groups this is the paired t-test. All intervals together hold with 95 % (Šidák, 1967):
    in simulations of 3 to 22 groups and 2 to 5 seeds, with deviations that are equal or differ by
    factors up to 13, in 89 to 99 % (with one variance for all: in 78 to 98 %).

    Arguments:
        groups: name to value by seed; seeds that some group lacks are left out.
        pairs: names.
        at_once: number of intervals that are to hold together, if these are not all.
        trend: of each group, what its variance may go with.
    """
    seeds = sorted(set.intersection(*(set(values) for values in groups.values())))
    if not seeds:
        return {}
    y = np.array([[values[seed] for seed in seeds] for values in groups.values()])
    means = dict(zip(groups, y.mean(1).tolist(), strict=True))
    rest = y - y.mean(1, keepdims=True)
    rest = (rest - np.median(rest, 0)) * math.sqrt(len(y) / max(1, len(y) - 1))
    of_groups = dict(zip(groups, rest.tolist(), strict=True))
    at_once = at_once or len(pairs)
    variances = moderated(of_groups, (len(y) - 1) * (len(seeds) - 1), trend)
    return {
        (one, other): Estimate(
            means[one] - means[other],
            _interval(_sum(variances[one], variances[other]), 1 / len(seeds), at_once),
            len(seeds),
        )
        for one, other in pairs
    }


def _sum(a: Variance, b: Variance) -> Variance:
    if a.freedom <= 0 or b.freedom <= 0:
        return Variance(0.0, 0.0)
    total = a.value + b.value
    welch = total**2 / (a.value**2 / a.freedom + b.value**2 / b.freedom)
    return Variance(total, min(welch, max(a.freedom, b.freedom)))


def _interval(variance: Variance, share: float, at_once: int) -> float | None:
    """Return half the width of an interval, for the mean of 1/share values."""
    if variance.freedom <= 0:
        return None
    each = CONFIDENCE ** (1 / at_once)
    reach = float(special.stdtrit(variance.freedom, (1 + each) / 2))
    return reach * math.sqrt(variance.value * share)
