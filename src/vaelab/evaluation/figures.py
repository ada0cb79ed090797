"""A measured number that carries its uncertainty and the way it was measured."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from scipy.special import stdtrit
from torch import Tensor

from vaelab.checked import Natural, Number, Size, Whole
from vaelab.errors import ConfigError

INTERVAL = 1.96
"""Half the width of a 95 % interval, in standard errors of a mean that is close to normal."""

FEW = 30
"""Images below which a share is not close to normal."""

_FIGURES = {
    "loss": ("loss", "Loss", -1),
    "elbo": ("ELBO", "ELBO", 1),
    "log_prob": ("log p(x)", "log p(x), importance-weighted bound", 1),
    "exact_log_prob": ("exact log p(x)", "log p(x) in closed form", 1),
    "posterior_gap": ("KL(q ‖ p(z|x))", "Gap of the ELBO: KL(q(z|x) ‖ p(z|x))", -1),
    "elbo_joint": ("ELBO of x and class", "ELBO of x and its class, of log p(x, y)", 1),
    "log_prob_joint": ("log p(x, y)", "log p(x, y), importance-weighted bound", 1),
    "distortion": ("distortion", "Distortion", -1),
    "rate": ("rate", "Rate", 0),
    "bits_per_dim": ("bits per dimension", "Bits per dimension", -1),
    "bits_per_dim_iwae": (
        "bits per dimension, IWAE",
        "Bits per dimension, importance-weighted bound",
        -1,
    ),
    "mutual_information": ("mutual information", "Mutual information of image and code", 0),
    "marginal_kl": ("marginal KL, at most", "Aggregate posterior from prior (KL), at most", -1),
    "active_units": ("active units", "Active latent dimensions", 0),
    "mse": ("squared error", "Reconstruction error (MSE)", -1),
    "psnr": ("PSNR", "Peak signal-to-noise ratio", 1),
    "ssim": ("structural similarity", "Structural similarity", 1),
    "neighbour_accuracy": ("neighbour accuracy", "Accuracy of nearest neighbours in the code", 1),
    "accuracy": ("accuracy", "Accuracy", 1),
    "balanced_accuracy": ("balanced accuracy", "Mean recall of the classes", 1),
    "log_loss": ("log loss", "Log loss: −log p(y|x)", -1),
    "calibration_error": ("calibration error", "Expected calibration error", -1),
    "nearness": ("nearness", "Distance to the nearest training image, of new images' distance", 0),
    "holes": ("holes", "Holes: samples that nothing real is near", -1),
    "path_length": ("path length", "Length of interpolations", -1),
    "path_jump": ("largest step", "Largest step of interpolations", -1),
    "frechet": ("Fréchet distance", "Fréchet distance of generated images", -1),
    "frechet_floor": ("Fréchet floor", "Fréchet distance of as many real images (floor)", 0),
    "kernel": ("kernel distance", "Kernel distance of generated images (KID)", -1),
    "precision": ("precision", "Precision: generated images near real ones", 1),
    "recall": ("recall", "Recall: real images near generated ones", 1),
    "density": ("density", "Density of real images around generated ones", 1),
    "coverage": ("coverage", "Coverage of real images by generated ones", 1),
    "sharpness": ("sharpness", "Fine detail of generated images, of 1 in real ones", 0),
    "recognized": ("recognised", "Generated images recognised as the class asked for", 1),
    "certainty": ("certainty", "How surely a sample is of some class", 1),
    "recognized_back": ("recognised back", "Reconstructions recognised as their class", 1),
    "label_read": ("class read", "Images whose class the model reads", 1),
    "switch": ("switched", "Edits that switch the attribute", 1),
    "kept": ("class kept", "Edits that keep the class", 1),
    "drift": ("drift", "What else an edit moves", -1),
    "probe": ("y from (z, class)", "Probe accuracy of y from (z, class)", -1),
    "probe_inferred": (
        "y from (z, class), labels inferred",
        "Probe accuracy of y from (z, class), no labels given",
        -1,
    ),
    "probe_others": (
        "y from (z, class, others)",
        "Probe accuracy of y from (z, class, other attributes)",
        -1,
    ),
    "probe_alone": ("y from z", "Probe accuracy of y from z alone", -1),
    "probe_linear": ("y from z, linear", "Probe accuracy of y from z alone, linear", -1),
    "probe_w": ("y from w", "Probe accuracy of y from its subspace w", 1),
    "probe_w_inferred": (
        "y from w, labels inferred",
        "Probe accuracy of y from its subspace w, no labels given",
        1,
    ),
    "gap": ("information gap", "Mutual information gap", 1),
}
"""Figure to its name where there is little room, its name where there is more, and whether more of
it is better (1), less (−1), or neither."""

GIVEN = "_given"
"""End of the name of a figure of x given its labels, where others are of x alone."""

_CONDITIONAL = {
    "elbo": "ELBO of x given its labels",
    "log_prob": "log p(x | labels given), importance-weighted bound",
    "bits_per_dim": "Bits per dimension, of x given its labels",
    "bits_per_dim_iwae": "Bits per dimension, of x given labels, importance-weighted bound",
}

_OF_CLASS = {"precision": ("precision", "Precision"), "recall": ("recall", "Recall")}
"""Both names of a classifier's figures of one class, ``recall:CLASS``."""


def sense(figure: str) -> int:
    """Return 1 if more of a figure is better, −1 if less is, 0 if neither or it is unknown."""
    figure = figure.removesuffix(GIVEN)
    if draws_of(figure):
        return 1
    base, _ = of_attribute(figure)
    return _FIGURES[base][2] if base in _FIGURES else 0


def draws_of(figure: str) -> int | None:
    """Return the draws of an importance-weighted bound, ``iwae_DRAWS``; None of other figures."""
    match = re.fullmatch("iwae_([1-9][0-9]{0,11})", figure)
    return int(match[1]) if match else None


def of_attribute(figure: str) -> tuple[str, str]:
    """Split ``switch:thickness`` into figure and attribute, which is empty if there is none."""
    base, _, attribute = figure.partition(":")
    return base, attribute


def check_lead(figure: str, where: str) -> None:
    """Raise `ConfigError` for a figure that cannot be the one that decides."""
    if sense(figure) == 0:
        known = ", ".join(name for name in _FIGURES if sense(name))
        raise ConfigError(
            f"{where}: lead: {figure!r} does not tell better from worse; use {known}."
        )


def short_name(figure: str) -> str:
    """Return what a figure is called in a sentence or at the head of a column."""
    return _named(figure, 0, "IWAE {:,}")


def long_name(name: str, figure: Figure | None = None) -> str:
    """Return what a figure is called where there is room; one of x given its labels says so."""
    if figure is not None and figure.given:
        return _CONDITIONAL.get(name, f"{long_name(name)}, given labels")
    return _named(name, 1, "Importance-weighted bound, {:,} draws")


def _named(figure: str, which: int, bound: str) -> str:
    if figure.endswith(GIVEN):
        return f"{_named(figure.removesuffix(GIVEN), which, bound)} given labels"
    if draws := draws_of(figure):
        return bound.format(draws)
    base, attribute = of_attribute(figure)
    if attribute and base in _OF_CLASS:
        return f"{_OF_CLASS[base][which]} of {attribute}"
    name = str(_FIGURES[base][which]) if base in _FIGURES else base.replace("_", " ")
    return f"{name}, {attribute}" if attribute else name


@dataclass(frozen=True)
class Share:
    """A share of counted cases with its 95 % interval (Wilson, 1927), right for few and for all.

    Arguments:
        hits, total: how many of how many.
    """

    hits: int
    total: int

    @property
    def value(self) -> float | None:
        """The share; None of no cases."""
        return self.hits / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end; 0 and 1 of no cases."""
        return _wilson(self.hits / self.total, self.total) if self.total else (0.0, 1.0)

    def figure(self, unit: str, protocol: str) -> Figure:
        """Return it with the standard error √(p(1 − p)/n) and this interval."""
        p = self.value
        assert p is not None
        error = math.sqrt(p * (1 - p) / self.total)
        return Figure(p, error, self.total, unit, protocol, ends=self.interval)


def _wilson(p: float, n: int) -> tuple[float, float]:
    z = INTERVAL
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


@dataclass(frozen=True)
class Figure:
    """One measured quantity.

    Arguments:
        value: the estimate.
        standard_error: its standard error over images; None where it has none.
        n: number of images that it is over.
        unit: such as ``nats per image``.
        protocol: how it was measured, in plain sentences.
        freedom: degrees of freedom of the standard error; None where they are many.
        ends: of the 95 % interval where it is not value ± `interval`, as of a share; the upper one
            is None where the value is a lower bound, the lower one where it is an upper bound.
        given: names of the labels that a likelihood is conditioned on: it is of p(x|y), and does
            not compare with one of p(x) as it is.
    """

    value: Number
    standard_error: Size | None
    n: Whole
    unit: str
    protocol: str
    freedom: Natural | None = None
    ends: tuple[Number | None, Number | None] | None = None
    given: tuple[str, ...] = ()

    @property
    def interval(self) -> float | None:
        """Half the width of the 95 % interval, where there is a standard error."""
        if self.standard_error is None:
            return None
        reach = INTERVAL if self.freedom is None else float(stdtrit(self.freedom, 0.975))
        return reach * self.standard_error

    def __str__(self) -> str:
        """Return value and 95 % interval with no more digits than it supports, and the unit."""
        return f"{self.number} {self.unit}"

    @property
    def number(self) -> str:
        """Value and 95 % interval: of a share by its ends, of few or where ± would not hold."""
        reach = self.interval
        if self.ends is None:
            return rounded(self.value, reach or None)  # an error of 0 is no certainty
        low, high = self.ends
        if low is None:
            return f"≤ {rounded(self.value, reach or None)}"
        if high is None:
            return f"≥ {rounded(low, None)}"
        if self.n >= FEW and reach and self.value - reach >= 0 and self.value + reach <= 1:
            return rounded(self.value, reach)
        return f"{self.value:.2f} ({low:.2f} to {high:.2f})"


def rounded(value: float, interval: float | None) -> str:
    """Write ``value ± interval``, the interval to one digit (two if the first is 1)."""
    if interval is None or not math.isfinite(interval):
        return _signed(f"{value:.4g}")
    if interval <= 0:
        return _signed(f"{value:.4g} ± 0")
    place = math.floor(math.log10(interval))
    decimals = -place if interval / 10**place >= 2 else 1 - place
    shown = max(0, decimals)
    number = round(value, decimals) + 0.0  # never −0
    return _signed(f"{number:.{shown}f} ± {round(interval, decimals):.{shown}f}")


def share(hits: Tensor, protocol: str, unit: str = "share of images") -> Figure:
    """Return which share of cases ``(N,)`` is a hit, with the interval of a `Share`."""
    return Share(int(hits.sum()), len(hits)).figure(unit, protocol)


def crossed(hits: Tensor, protocol: str, unit: str = "share of images") -> Figure:
    """Return the mean share of hits of several classifiers, with their spread in its interval.

        x_kn = μ + a_k + b_n + e_kn,   variance = (MS_b + max(MS_a − MS_e, 0)) / (K N)

    with the mean squares of a two-way table of K classifiers and N images: other classifiers and
    other images would both give another share. Student's t has the degrees of freedom of the sum
    (Satterthwaite, 1946): 2 where three classifiers differ by more than the images let them, N − 1
    where they agree. Neither end lies within the interval of a share of N images, which is what is
    left of one classifier. Source: Obuchowski and Rockette, 1995, for readers of images.

    Arguments:
        hits: 0 or 1, ``(K, N)``.
        protocol: how it was measured.
        unit: of the share.
    """
    hits = hits.double()
    readers, images = hits.shape
    value = float(hits.mean())
    low, high = _wilson(value, images)
    if readers == 1:
        return share(hits[0], protocol, unit)
    if images == 1:
        return Figure(value, None, 1, unit, protocol, ends=(low, high))
    by_reader, by_image = hits.mean(1), hits.mean(0)
    rest = hits - by_reader[:, None] - by_image + value
    freedom = (readers - 1, images - 1, (readers - 1) * (images - 1))
    a = images * float(by_reader.var())
    b = readers * float(by_image.var())
    e = float(rest.square().sum()) / freedom[2]
    total = b + max(a - e, 0.0)
    error = math.sqrt(total / (readers * images))
    squares = (a, b, e) if a > e else (0.0, b, 0.0)
    below = sum(square**2 / n for square, n in zip(squares, freedom, strict=True))
    degrees = max(freedom[0], math.floor(total**2 / below + 1e-6)) if below else freedom[1]
    reach = float(stdtrit(degrees, 0.975)) * error
    ends = (max(0.0, min(low, value - reach)), min(1.0, max(high, value + reach)))
    return Figure(value, error, images, unit, protocol, degrees, ends)


def mean(values: Tensor, unit: str, protocol: str) -> Figure:
    """Return the mean of one value per image ``(N,)`` with its standard error s/√N.

    The standard error of a single image is unknown, hence None; that of few has few degrees of
    freedom, N − 1.
    """
    values = values.double()
    n = len(values)
    error = float(values.std()) / math.sqrt(n) if n > 1 else None
    return Figure(float(values.mean()), error, n, unit, protocol, n - 1 if error else None)


def mean_with_gap(values: Tensor, gaps: Tensor, index: Tensor, unit: str, protocol: str) -> Figure:
    """Return the mean of value + gap, where the costly gap is known for some images only.

        mean_N(v) + mean_n(g),   variance = s²(v)/N + s²(g)/n + 2 cov(v, g)/N

    Unbiased when the n images are drawn by chance, and far more precise than a mean over them alone
    when gaps vary less than values (two-phase sampling: Cochran, Sampling Techniques, 1977).

    Arguments:
        values: one for each image, ``(N,)``.
        gaps: one for some images, ``(n,)``.
        index: which images these are, ``(n,)``.
        unit: of both.
        protocol: how they were measured.
    """
    values, gaps = values.double(), gaps.double()
    total, some = len(values), len(gaps)
    error = None
    if some > 1:
        here = values[index]
        covariance = float(((here - here.mean()) * (gaps - gaps.mean())).sum()) / (some - 1)
        variance = float(values.var()) / total + float(gaps.var()) / some + 2 * covariance / total
        error = math.sqrt(max(variance, 0.0))
    freedom = some - 1 if error else None
    return Figure(float(values.mean() + gaps.mean()), error, total, unit, protocol, freedom)


def _signed(text: str) -> str:
    return text.replace("-", "−")
