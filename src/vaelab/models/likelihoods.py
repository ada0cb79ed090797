r"""Likelihoods p(x|z) of images: what the decoder's raw output ``(..., channels, H, W)`` means.

Each returns a distribution with event shape ``(C, H, W)``, so that ``log_prob`` is in nats per
image, computed in float32 at least. Its ``mean`` is the image to show. The measure matters when
figures are compared: a ``density`` may be positive, a mass (``binary``, ``8-bit``) may not, and
none of the three compares with another.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Laplace, Normal
from torch.nn import functional
from typing_extensions import override

from vaelab.config import LikelihoodName
from vaelab.errors import ConfigError
from vaelab.models import _continuous_bernoulli
from vaelab.models._continuous_bernoulli import ContinuousBernoulli
from vaelab.models._logistic_mixture import LogisticMixture
from vaelab.models.global_batch import global_mean
from vaelab.models.posteriors import single

Measure = Literal["binary", "density", "8-bit"]
Shape = tuple[int, int, int]

# Means this close to 0 or 1 would need infinite logits
_MEAN_MARGIN = 1e-3
# σ ≥ e^-6 = 0.0025 of a pixel range of 1, a little less than the 1/255 between two grey levels:
# a finer scale would only chase the rounding of the images, with an unbounded density.
LOG_SIGMA_FLOOR = -6.0
# s ≥ e^-7 of a range of 2, an eighth of a level: as in PixelCNN++, here a soft bound
_LOG_SCALE_FLOOR = -7.0
_SIGMA = 0.1  # where nothing is said
_LEAST_DEVIATION = 1 / 255  # that a scale starts with
_FORGETS = 0.01  # share of the batch at hand in a scale that is kept


class Likelihood(nn.Module, ABC):
    """Base of the likelihoods of images of one ``shape (C, H, W)``.

    Attributes:
        shape: of an image, ``(C, H, W)``.
        channels: of the raw output that the decoder must give for an image.
        measure: what ``log_prob`` measures: mass on {0, 1}, density on pixel values in [0, 1], or
            mass on 256 levels.
    """

    measure: Measure = "density"

    def __init__(self, shape: Shape, raw_per_channel: int = 1) -> None:
        super().__init__()
        self.shape = shape
        self.channels = raw_per_channel * shape[0]

    @property
    def is_mass(self) -> bool:
        """Whether ``log_prob`` is that of a probability mass, never above 0."""
        return self.measure != "density"

    def forward(self, raw: Tensor) -> Distribution:
        """Return p(x|z) from ``(..., channels, H, W)``: batch ``(...)``, event ``(C, H, W)``."""
        return self._distribution(single(raw))

    @abstractmethod
    def _distribution(self, raw: Tensor) -> Distribution:
        """Return p(x|z) from parameters in float32 at least."""

    def start(self, mean: Tensor, deviation: float | None = None) -> Tensor:
        """Return the raw output ``(channels, …)`` that stands for a mean and a deviation.

        Arguments:
            mean: ``(C, …)`` in [0, 1].
            deviation: of the images from it, where the likelihood has a scale of its own to start
                with; None for the scale that it was built with.
        """
        if deviation is not None:
            deviation = min(max(deviation, _LEAST_DEVIATION), 1.0)
        return self._start(single(mean), deviation)

    def _start(self, mean: Tensor, deviation: float | None) -> Tensor:
        """Return the raw output: by default the mean itself."""
        return mean


class BernoulliLikelihood(Likelihood):
    r"""$\log p(x|z) = \sum x \log p + (1 - x) \log(1 - p)$, p the sigmoid of the raw output.

    Linear in x: for grey x it is the negative cross-entropy, the expectation of the log-likelihood
    of the pixels drawn as Bernoulli(x), not the likelihood of a grey image.
    """

    measure = "binary"

    def _distribution(self, raw: Tensor) -> Distribution:
        return Independent(Bernoulli(logits=raw, validate_args=False), 3, validate_args=False)

    @override
    def _start(self, mean: Tensor, deviation: float | None) -> Tensor:
        return torch.logit(mean, eps=_MEAN_MARGIN)


class ContinuousBernoulliLikelihood(Likelihood):
    """A density of grey values on [0, 1] (Loaiza-Ganem and Cunningham, 2019)."""

    def _distribution(self, raw: Tensor) -> Distribution:
        return Independent(ContinuousBernoulli(raw), 3, validate_args=False)

    @override
    def _start(self, mean: Tensor, deviation: float | None) -> Tensor:
        return _solve(_continuous_bernoulli.mean, mean, 2 / _MEAN_MARGIN)


class Fitted(nn.Module):
    """One scale for all pixels: given, or the one under which the batch at hand is most probable.

        σ² = E_x ‖x − μ‖² / n   of a normal      b = E_x |x − μ| / n   of a Laplace

    of n numbers each. In training every batch has its own; kept is their running mean, over the
    last hundred batches or so, which is what the model has afterwards. Its gradient is the same
    whether it is part of the graph or not, for the loss is least in it. Source: optimal σ of
    σ-VAE (Rybkin, Daniilidis and Levine, 2021).

    Arguments:
        scale: None for one that is fitted.
        power: of the error whose mean is the scale to that power: 2 or 1.
    """

    log_scale: Tensor
    seen: Tensor

    def __init__(self, scale: float | None, power: int) -> None:
        super().__init__()
        self.power, self.free = power, scale is None
        start = torch.full((1, 1, 1), math.log(_SIGMA if scale is None else scale))
        self.register_buffer("log_scale", start, persistent=self.free)
        if self.free:
            self.register_buffer("seen", torch.zeros(()))

    def start(self, scale: float | None) -> None:
        """Have ``scale`` until a batch is seen; where it is fitted."""
        if self.free and scale is not None:
            self.log_scale.fill_(math.log(scale))

    @torch.no_grad()
    def keep(self, error: Tensor) -> None:
        """Keep the scale whose power is the mean error of a number to that power."""
        self.log_scale.fill_(error.log().clamp(min=LOG_SIGMA_FLOOR * self.power) / self.power)

    @torch.no_grad()
    def of(self, errors: Tensor) -> Tensor:
        """Return the log scale ``(1, 1, 1)`` that fits errors ``(…, B, C, H, W)``, and keep it."""
        size = errors.flatten(-3)
        each = torch.linalg.vector_norm(size, self.power, -1) ** self.power / size.shape[-1]
        batch = global_mean(each.flatten(0, -2).mean(0) if each.ndim > 1 else each)
        least = LOG_SIGMA_FLOOR * self.power
        self.seen += 1
        kept = (self.power * self.log_scale).exp()
        self.keep(torch.lerp(kept, batch.to(kept), (1 / self.seen).clamp(min=_FORGETS)).squeeze())
        return (batch.log().clamp(min=least) / self.power).expand(1, 1, 1)


class ImageNormal(Independent[Normal]):
    r"""N(loc, σ²) on images; ``log_scale`` is ``(1, 1, 1)`` or of the shape of ``loc``.

    $\log p(x) = -½ ‖(x - μ) / σ‖^2 - \sum \log σ - \frac n2 \log 2π$, from log σ and in one pass:
    three times as fast as summing `Normal.log_prob`, and no σ overflows. With ``fitted`` its scale
    is that of the value whose density is taken.
    """

    fitted: Fitted | None = None

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        super().__init__(Normal(loc, log_scale.exp(), validate_args=False), 3, validate_args=False)
        self.loc, self.log_scale = loc, log_scale

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        pixels, difference = self._event_shape.numel(), value - self.loc
        log_scale = self.fitted.of(difference) if self.fitted else self.log_scale
        errors = (difference * torch.exp(-log_scale)).square().flatten(-3).sum(-1)
        repeats = pixels // log_scale.shape[-3:].numel()
        log_det = repeats * log_scale.flatten(-3).sum(-1)
        return -0.5 * errors - log_det - 0.5 * pixels * math.log(2 * math.pi)


class ImageLaplace(Independent[Laplace]):
    """Laplace(loc, scale) on images with one ``log_scale``; as `ImageNormal` otherwise."""

    fitted: Fitted | None = None

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        super().__init__(Laplace(loc, log_scale.exp(), validate_args=False), 3, validate_args=False)
        self.loc, self.log_scale = loc, log_scale

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        difference = value - self.loc
        log_scale = self.fitted.of(difference) if self.fitted else self.log_scale
        errors, log_scale = difference.abs().flatten(-3).sum(-1), log_scale.flatten(-3).sum(-1)
        return -errors * torch.exp(-log_scale) - self._event_shape.numel() * (
            math.log(2) + log_scale
        )


class OneScale(Likelihood):
    """One scale for all pixels, given or `Fitted`; the raw output is the location itself.

    Arguments:
        shape: of an image.
        scale: None for the one that fits best.
    """

    family: ClassVar[type[ImageNormal | ImageLaplace]]
    power: ClassVar[int]

    def __init__(self, shape: Shape, scale: float | None) -> None:
        super().__init__(shape)
        self.scale = Fitted(scale, self.power)

    def _distribution(self, raw: Tensor) -> Distribution:
        found = self.family(raw, self.scale.log_scale)
        if self.training and self.scale.free:
            found.fitted = self.scale
        return found

    @override
    def _start(self, mean: Tensor, deviation: float | None) -> Tensor:
        self.scale.start(deviation)
        return mean


class GaussianLikelihood(OneScale):
    """N(μ, σ²) with one σ, by default the optimal one.

    The mean is not squashed by a sigmoid (some do, since Kingma and Welling, 2014): the gradient
    (x − μ)/σ² then never vanishes at black and white, where most pixels of drawings lie, and the
    linear decoder is probabilistic PCA. μ may leave [0, 1] a little: clamp it to show it.
    """

    family, power = ImageNormal, 2


class ScalarGaussianLikelihood(Likelihood):
    """N(μ, σ²) with one learned σ for all pixels, starting at ``sigma``.

    Source: σ-VAE (Rybkin, Daniilidis and Levine, 2021), with its soft floor of log σ at −6.

    Raises:
        ConfigError: when ``sigma`` is not above the floor.
    """

    def __init__(self, shape: Shape, sigma: float | None) -> None:
        super().__init__(shape)
        self.raw_log_sigma = nn.Parameter(torch.full((1, 1, 1), _raw_log_sigma(sigma or _SIGMA)))

    def _distribution(self, raw: Tensor) -> Distribution:
        return ImageNormal(raw, _soft_floor(self.raw_log_sigma, LOG_SIGMA_FLOOR))

    @override
    def _start(self, mean: Tensor, deviation: float | None) -> Tensor:
        if deviation is not None:
            nn.init.constant_(self.raw_log_sigma, _raw_log_sigma(deviation))
        return mean


class PixelGaussianLikelihood(Likelihood):
    """N(μ, σ²) with both per pixel: C raw channels of μ, then C of log σ.

    log σ has the soft floor of `ScalarGaussianLikelihood`, for without one the density of a pixel
    that never changes grows without bound. A raw value of 0 means σ = ``sigma``.

    Raises:
        ConfigError: when ``sigma`` is not above the floor.
    """

    def __init__(self, shape: Shape, sigma: float | None) -> None:
        super().__init__(shape, 2)
        self.zero = _raw_log_sigma(sigma or _SIGMA)

    def _distribution(self, raw: Tensor) -> Distribution:
        loc, raw_log_sigma = raw.chunk(2, -3)
        return ImageNormal(loc, _soft_floor(raw_log_sigma + self.zero, LOG_SIGMA_FLOOR))

    @override
    def _start(self, mean: Tensor, deviation: float | None) -> Tensor:
        above = 0.0 if deviation is None else _raw_log_sigma(deviation) - self.zero
        return torch.cat([mean, torch.full_like(mean, above)])


class LaplaceLikelihood(OneScale):
    """Laplace with one scale: an absolute error, so the median.

    The location is unconstrained for the reasons given in `GaussianLikelihood`.
    """

    family, power = ImageLaplace, 1


class LogisticMixtureLikelihood(Likelihood):
    """Mass on 256 levels by a mixture of logistics, after PixelCNN++ (Salimans et al., 2017).

    Per pixel and component: a logit, C means, C log scales and C (C − 1)/2 coefficients by which a
    channel depends on those before it. Raw zeros mean equal weights and a standard deviation of
    ``sigma`` (of pixels in [0, 1]); the initial bias spreads the components evenly.
    """

    measure = "8-bit"

    def __init__(self, shape: Shape, sigma: float | None, mixtures: int) -> None:
        super().__init__(shape)
        channels = shape[0]
        self.mixtures = mixtures
        self.parts = [1, channels, channels, channels * (channels - 1) // 2]
        self.channels = mixtures * sum(self.parts)
        self.zero = _log_logistic(sigma or _SIGMA)

    def _distribution(self, raw: Tensor) -> LogisticMixture:
        grouped = torch.unflatten(raw, -3, (self.mixtures, sum(self.parts)))
        logits, loc, log_scale, coefficients = torch.split(grouped, self.parts, -3)
        log_scale = _soft_floor(log_scale + self.zero, _LOG_SCALE_FLOOR)
        return LogisticMixture(logits.squeeze(-3), loc, log_scale, coefficients.tanh())

    @override
    def _start(self, mean: Tensor, deviation: float | None) -> Tensor:
        channels, pixels = len(mean), mean[0].numel()
        reach, above = 0.5, 0.0
        if deviation is not None:  # half of the variance is between the components
            reach = deviation * math.sqrt(6 * (self.mixtures - 1) / (self.mixtures + 1))
            half = deviation * math.sqrt(0.5 if self.mixtures > 1 else 1.0)
            above = _inverse_floor(_log_logistic(half), _LOG_SCALE_FLOOR) - self.zero
        spread = torch.linspace(-reach, reach, self.mixtures, device=mean.device)
        if self.mixtures == 1:
            spread = torch.zeros_like(spread)

        def start(center: Tensor) -> Tensor:
            raw = mean.new_zeros(self.mixtures, sum(self.parts), pixels)
            raw[:, 1 : 1 + channels] = center + spread[:, None, None]
            raw[:, 1 + channels : 1 + 2 * channels] = above
            return raw.flatten(0, 1)

        def image_mean(center: Tensor) -> Tensor:
            return self._distribution(start(center)[..., None]).mean[..., 0]

        farthest = 2 + 8 * math.exp(max(self.zero + above, _LOG_SCALE_FLOOR))
        found = start(_solve(image_mean, mean.reshape(channels, pixels), farthest))
        return found.view(self.channels, *mean.shape[1:])


def build_likelihood(
    name: LikelihoodName, shape: Shape, *, sigma: float | None = 0.1, mixtures: int = 5
) -> Likelihood:
    """Return the likelihood called ``name`` for images of ``shape (C, H, W)``.

    Arguments:
        name: one of `LikelihoodName`.
        shape: of an image.
        sigma: fixed or first scale, where the likelihood has one; pixels lie in [0, 1]. None: one
            that is fitted, or a first one that `Likelihood.start` says.
        mixtures: components of ``logistic-mixture``.

    Raises:
        ConfigError: when no likelihood has this name, or ``sigma`` is too small to be learned.
    """
    builders: dict[LikelihoodName, Callable[[], Likelihood]] = {
        "bernoulli": lambda: BernoulliLikelihood(shape),
        "continuous-bernoulli": lambda: ContinuousBernoulliLikelihood(shape),
        "gaussian": lambda: GaussianLikelihood(shape, sigma),
        "gaussian-scalar": lambda: ScalarGaussianLikelihood(shape, sigma),
        "gaussian-pixel": lambda: PixelGaussianLikelihood(shape, sigma),
        "laplace": lambda: LaplaceLikelihood(shape, sigma),
        "logistic-mixture": lambda: LogisticMixtureLikelihood(shape, sigma, mixtures),
    }
    if name not in builders:
        raise ConfigError(f"likelihood {name!r} is unknown; known: {', '.join(builders)}.")
    return builders[name]()


def _soft_floor(value: Tensor, floor: float) -> Tensor:
    """Bound ``value`` smoothly from below: the identity far above, ``floor`` far below."""
    return floor + functional.softplus(value - floor)


def _inverse_floor(value: float, floor: float) -> float:
    """Return what `_soft_floor` maps to ``value``, which lies above the floor."""
    return floor + math.log(math.expm1(value - floor))


def _raw_log_sigma(sigma: float) -> float:
    if math.log(sigma) - LOG_SIGMA_FLOOR < 1e-3:
        raise ConfigError(
            f"model.sigma = {sigma:g}: a learned σ starts above its floor of "
            f"{math.exp(LOG_SIGMA_FLOOR):.4f}. Choose a larger one, such as 0.1."
        )
    return _inverse_floor(math.log(sigma), LOG_SIGMA_FLOOR)


def _log_logistic(deviation: float) -> float:
    """Return log s of a logistic of a standard deviation π s / √3; the range is 2 wide."""
    return math.log(2 * deviation * math.sqrt(3) / math.pi)


def _solve(increasing: Callable[[Tensor], Tensor], target: Tensor, reach: float) -> Tensor:
    """Find by bisection within ±``reach`` where an increasing function takes the mean wanted."""
    target = target.clamp(_MEAN_MARGIN, 1 - _MEAN_MARGIN)
    low, high = torch.full_like(target, -reach), torch.full_like(target, reach)
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = increasing(middle) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return 0.5 * (low + high)
