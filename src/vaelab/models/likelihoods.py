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
from typing import Literal

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

    def initial_bias(self, mean: Tensor) -> Tensor:
        """Return the decoder's last bias ``(channels,)`` whose mean image has the data's mean.

        Arguments:
            mean: mean of the data in [0, 1], ``(C, H, W)`` or ``(C,)``.
        """
        mean = single(mean)
        return self._bias(mean.flatten(1).mean(1) if mean.ndim == 3 else mean)

    def _bias(self, mean: Tensor) -> Tensor:
        """Return the bias for channel means ``(C,)``: by default the mean itself."""
        return mean


class BernoulliLikelihood(Likelihood):
    r"""$\log p(x|z) = \sum x \log p + (1 - x) \log(1 - p)$, p the sigmoid of the raw output.

    Linear in x: for grey x it is the negative cross-entropy, the expectation of the log-likelihood
    of the pixels drawn as Bernoulli(x), not the likelihood of a grey image.
    """

    measure = "binary"

    def _distribution(self, raw: Tensor) -> Distribution:
        return Independent(Bernoulli(logits=raw, validate_args=False), 3, validate_args=False)

    def _bias(self, mean: Tensor) -> Tensor:
        return torch.logit(mean, eps=_MEAN_MARGIN)


class ContinuousBernoulliLikelihood(Likelihood):
    """A density of grey values on [0, 1] (Loaiza-Ganem and Cunningham, 2019)."""

    def _distribution(self, raw: Tensor) -> Distribution:
        return Independent(ContinuousBernoulli(raw), 3, validate_args=False)

    def _bias(self, mean: Tensor) -> Tensor:
        return _solve(_continuous_bernoulli.mean, mean, 2 / _MEAN_MARGIN)


class ImageNormal(Independent[Normal]):
    r"""N(loc, σ²) on images; ``log_scale`` is ``(1, 1, 1)`` or of the shape of ``loc``.

    $\log p(x) = -½ ‖(x - μ) / σ‖^2 - \sum \log σ - \frac n2 \log 2π$, from log σ and in one pass:
    three times as fast as summing `Normal.log_prob`, and no σ overflows.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        super().__init__(Normal(loc, log_scale.exp(), validate_args=False), 3, validate_args=False)
        self.loc, self.log_scale = loc, log_scale

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        pixels = self._event_shape.numel()
        errors = ((value - self.loc) * torch.exp(-self.log_scale)).square().flatten(-3).sum(-1)
        repeats = pixels // self.log_scale.shape[-3:].numel()
        log_det = repeats * self.log_scale.flatten(-3).sum(-1)
        return -0.5 * errors - log_det - 0.5 * pixels * math.log(2 * math.pi)


class ImageLaplace(Independent[Laplace]):
    """Laplace(loc, scale) on images with one ``scale``; faster, as `ImageNormal` is."""

    def __init__(self, loc: Tensor, scale: float) -> None:
        super().__init__(Laplace(loc, scale, validate_args=False), 3, validate_args=False)
        self.loc, self.scale = loc, scale

    @override
    def log_prob(self, value: Tensor) -> Tensor:
        errors = (value - self.loc).abs().flatten(-3).sum(-1)
        return -errors / self.scale - self._event_shape.numel() * math.log(2 * self.scale)


class GaussianLikelihood(Likelihood):
    """N(μ, σ²) with fixed ``sigma``; the raw output is μ itself.

    The mean is not squashed by a sigmoid (some do, since Kingma and Welling, 2014): the gradient
    (x − μ)/σ² then never vanishes at black and white, where most pixels of drawings lie, and the
    linear decoder is probabilistic PCA. μ may leave [0, 1] a little: clamp it to show it.
    """

    log_sigma: Tensor

    def __init__(self, shape: Shape, sigma: float) -> None:
        super().__init__(shape)
        log_sigma = torch.full((1, 1, 1), math.log(sigma))
        self.register_buffer("log_sigma", log_sigma, persistent=False)

    def _distribution(self, raw: Tensor) -> Distribution:
        return ImageNormal(raw, self.log_sigma)


class ScalarGaussianLikelihood(Likelihood):
    """N(μ, σ²) with one learned σ for all pixels, starting at ``sigma``.

    Source: σ-VAE (Rybkin, Daniilidis and Levine, 2021), with its soft floor of log σ at −6.

    Raises:
        ConfigError: when ``sigma`` is not above the floor.
    """

    def __init__(self, shape: Shape, sigma: float) -> None:
        super().__init__(shape)
        self.raw_log_sigma = nn.Parameter(torch.full((1, 1, 1), _raw_log_sigma(sigma)))

    def _distribution(self, raw: Tensor) -> Distribution:
        return ImageNormal(raw, _soft_floor(self.raw_log_sigma, LOG_SIGMA_FLOOR))


class PixelGaussianLikelihood(Likelihood):
    """N(μ, σ²) with both per pixel: C raw channels of μ, then C of log σ.

    log σ has the soft floor of `ScalarGaussianLikelihood`, for without one the density of a pixel
    that never changes grows without bound. A raw value of 0 means σ = ``sigma``.

    Raises:
        ConfigError: when ``sigma`` is not above the floor.
    """

    def __init__(self, shape: Shape, sigma: float) -> None:
        super().__init__(shape, 2)
        self.start = _raw_log_sigma(sigma)

    def _distribution(self, raw: Tensor) -> Distribution:
        loc, raw_log_sigma = raw.chunk(2, -3)
        return ImageNormal(loc, _soft_floor(raw_log_sigma + self.start, LOG_SIGMA_FLOOR))

    def _bias(self, mean: Tensor) -> Tensor:
        return torch.cat([mean, torch.zeros_like(mean)])


class LaplaceLikelihood(Likelihood):
    """Laplace with location the raw output and fixed scale: an absolute error, so the median.

    The location is unconstrained for the reasons given in `GaussianLikelihood`.
    """

    def __init__(self, shape: Shape, scale: float) -> None:
        super().__init__(shape)
        self.scale = scale

    def _distribution(self, raw: Tensor) -> Distribution:
        return ImageLaplace(raw, self.scale)


class LogisticMixtureLikelihood(Likelihood):
    """Mass on 256 levels by a mixture of logistics, after PixelCNN++ (Salimans et al., 2017).

    Per pixel and component: a logit, C means, C log scales and C (C − 1)/2 coefficients by which a
    channel depends on those before it. Raw zeros mean equal weights and a standard deviation of
    ``sigma`` (of pixels in [0, 1]); the initial bias spreads the components evenly.
    """

    measure = "8-bit"

    def __init__(self, shape: Shape, sigma: float, mixtures: int) -> None:
        super().__init__(shape)
        channels = shape[0]
        self.mixtures = mixtures
        self.parts = [1, channels, channels, channels * (channels - 1) // 2]
        self.channels = mixtures * sum(self.parts)
        # A logistic of scale s has the standard deviation π s / √3; the range is 2 wide
        self.start = math.log(2 * sigma * math.sqrt(3) / math.pi)

    def _distribution(self, raw: Tensor) -> LogisticMixture:
        grouped = torch.unflatten(raw, -3, (self.mixtures, sum(self.parts)))
        logits, loc, log_scale, coefficients = torch.split(grouped, self.parts, -3)
        log_scale = _soft_floor(log_scale + self.start, _LOG_SCALE_FLOOR)
        return LogisticMixture(logits.squeeze(-3), loc, log_scale, coefficients.tanh())

    def _bias(self, mean: Tensor) -> Tensor:
        spread = torch.linspace(-0.5, 0.5, self.mixtures, device=mean.device)
        if self.mixtures == 1:
            spread = torch.zeros_like(spread)

        def bias(center: Tensor) -> Tensor:
            raw = mean.new_zeros(self.mixtures, sum(self.parts))
            raw[:, 1 : 1 + len(mean)] = center + spread[:, None]
            return raw.flatten()

        def image_mean(center: Tensor) -> Tensor:
            return self._distribution(bias(center)[:, None, None]).mean.flatten()

        reach = 2 + 8 * math.exp(max(self.start, _LOG_SCALE_FLOOR))  # the tail beyond is < margin
        return bias(_solve(image_mean, mean, reach))


def build_likelihood(
    name: LikelihoodName, shape: Shape, *, sigma: float = 0.1, mixtures: int = 5
) -> Likelihood:
    """Return the likelihood called ``name`` for images of ``shape (C, H, W)``.

    Arguments:
        name: one of `LikelihoodName`.
        shape: of an image.
        sigma: fixed or first scale, where the likelihood has one; pixels lie in [0, 1].
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


def _raw_log_sigma(sigma: float) -> float:
    excess = math.log(sigma) - LOG_SIGMA_FLOOR
    if excess < 1e-3:
        raise ConfigError(
            f"model.sigma = {sigma:g}: a learned σ starts above its floor of "
            f"{math.exp(LOG_SIGMA_FLOOR):.4f}. Choose a larger one, such as 0.1."
        )
    return LOG_SIGMA_FLOOR + math.log(math.expm1(excess))


def _solve(increasing: Callable[[Tensor], Tensor], target: Tensor, reach: float) -> Tensor:
    """Find by bisection within ±``reach`` where an increasing function takes the mean wanted."""
    target = target.clamp(_MEAN_MARGIN, 1 - _MEAN_MARGIN)
    low, high = torch.full_like(target, -reach), torch.full_like(target, reach)
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = increasing(middle) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return 0.5 * (low + high)
