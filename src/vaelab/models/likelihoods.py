r"""Likelihoods p(x|z) of images: what the decoder's raw output ``(..., channels, H, W)`` means.

Each returns a distribution with event shape ``(C, H, W)``, so that ``log_prob`` is in nats per
image, computed in float32 at least. Its ``mean`` is the image to show. The measure matters when
figures are compared: a ``density`` may be positive, a mass (``binary``, ``8-bit``) may not, and
none of the three compares with another. A density also has ``log_mass``, of the 8-bit levels of
the image, by which it compares with a mass (see `vaelab.models.masses`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Laplace, Normal
from typing_extensions import override

from vaelab.config import LikelihoodName, Output
from vaelab.errors import ConfigError
from vaelab.models import _continuous_bernoulli
from vaelab.models._continuous_bernoulli import ContinuousBernoulli
from vaelab.models._logistic_mass import LOG_SCALE_FLOOR, parts_of, soft_floor
from vaelab.models._logistic_mixture import LogisticMixture
from vaelab.models.global_batch import global_mean
from vaelab.models.masses import exponential_mass, laplace_mass, normal_mass
from vaelab.models.posteriors import single

Measure = Literal["binary", "density", "8-bit"]
Shape = tuple[int, int, int]

# Means this close to 0 or 1 would need infinite logits
_MEAN_MARGIN = 1e-3
# σ ≥ e^-6 = 0.0025 of a pixel range of 1, a little less than the 1/255 between two grey levels:
# a finer scale would only chase the rounding of the images, with an unbounded density.
LOG_SIGMA_FLOOR = -6.0
_SIGMA = 0.1  # where nothing is said
_LEAST_DEVIATION = 1 / 255  # that a scale starts with
_FORGETS = 0.01  # share of the batch at hand in a scale that is kept
STEEP = 4.0
"""A sigmoid of so many times its input has slope 1 at ½."""


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


class ImageContinuousBernoulli(Independent[ContinuousBernoulli]):
    """Continuous Bernoulli on images."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(ContinuousBernoulli(logits), 3, validate_args=False)

    def log_mass(self, value: Tensor) -> Tensor:
        """Return the log mass of the levels of images ``(..., C, H, W)``, in nats, ``(...)``."""
        return _over_image(exponential_mass(value, self.base_dist.logits), value)


class ContinuousBernoulliLikelihood(Likelihood):
    """A density of grey values on [0, 1] (Loaiza-Ganem and Cunningham, 2019)."""

    def _distribution(self, raw: Tensor) -> Distribution:
        return ImageContinuousBernoulli(raw)

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

    def log_mass(self, value: Tensor) -> Tensor:
        """Return the log mass of the levels of images ``(..., C, H, W)``, in nats, ``(...)``."""
        return _over_image(normal_mass(value, self.loc, self.log_scale), value)


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

    def log_mass(self, value: Tensor) -> Tensor:
        """Return the log mass of the levels of images ``(..., C, H, W)``, in nats, ``(...)``."""
        return _over_image(laplace_mass(value, self.loc, self.log_scale), value)


class Located(Likelihood):
    """A density around a location μ that a raw output r stands for.

        μ = r                     ``linear``: a linear decoder is probabilistic PCA
        μ = 1 / (1 + e^(−4 r))    ``sigmoid``: between black and white, with slope 1 at ½

    A sigmoid reaches black and white by any large output, where a line has to meet them exactly:
    most pixels of drawings, and the ground around pictures, are one or the other.

    Arguments:
        shape: of an image.
        raw_per_channel: raw channels for a channel of an image.
        output: ``linear`` or ``sigmoid``.
    """

    def __init__(self, shape: Shape, raw_per_channel: int = 1, output: Output = "linear") -> None:
        super().__init__(shape, raw_per_channel)
        self.output: Output = output

    def location(self, raw: Tensor) -> Tensor:
        """Return μ of raw outputs, of the same shape."""
        return raw if self.output == "linear" else torch.sigmoid(STEEP * raw)

    def raw_location(self, mean: Tensor) -> Tensor:
        """Return the raw outputs that stand for μ; beside 0 and 1 where these are out of reach."""
        if self.output == "linear":
            return mean
        return torch.logit(mean, eps=_MEAN_MARGIN) / STEEP


class OneScale(Located):
    """One scale for all pixels, given or `Fitted`.

    Arguments:
        shape: of an image.
        scale: None for the one that fits best.
        output: see `Located`.
    """

    family: ClassVar[type[ImageNormal | ImageLaplace]]
    power: ClassVar[int]

    def __init__(self, shape: Shape, scale: float | None, output: Output = "linear") -> None:
        super().__init__(shape, output=output)
        self.scale = Fitted(scale, self.power)

    def _distribution(self, raw: Tensor) -> Distribution:
        found = self.family(self.location(raw), self.scale.log_scale)
        if self.training and self.scale.free:
            found.fitted = self.scale
        return found

    @override
    def _start(self, mean: Tensor, deviation: float | None) -> Tensor:
        self.scale.start(deviation)
        return self.raw_location(mean)


class GaussianLikelihood(OneScale):
    """N(μ, σ²) with one σ, by default the optimal one; a linear μ may leave [0, 1] a little."""

    family, power = ImageNormal, 2


class ScalarGaussianLikelihood(Located):
    """N(μ, σ²) with one learned σ for all pixels, starting at ``sigma``.

    Source: σ-VAE (Rybkin, Daniilidis and Levine, 2021), with its soft floor of log σ at −6.

    Raises:
        ConfigError: when ``sigma`` is not above the floor.
    """

    def __init__(self, shape: Shape, sigma: float | None, output: Output = "linear") -> None:
        super().__init__(shape, output=output)
        self.raw_log_sigma = nn.Parameter(torch.full((1, 1, 1), _raw_log_sigma(sigma or _SIGMA)))

    def _distribution(self, raw: Tensor) -> Distribution:
        return ImageNormal(self.location(raw), soft_floor(self.raw_log_sigma, LOG_SIGMA_FLOOR))

    @override
    def _start(self, mean: Tensor, deviation: float | None) -> Tensor:
        if deviation is not None:
            nn.init.constant_(self.raw_log_sigma, _raw_log_sigma(deviation))
        return self.raw_location(mean)


class PixelGaussianLikelihood(Located):
    """N(μ, σ²) with both per pixel: C raw channels of μ, then C of log σ.

    log σ has the soft floor of `ScalarGaussianLikelihood`, for without one the density of a pixel
    that never changes grows without bound. A raw value of 0 means σ = ``sigma``.

    Raises:
        ConfigError: when ``sigma`` is not above the floor.
    """

    def __init__(self, shape: Shape, sigma: float | None, output: Output = "linear") -> None:
        super().__init__(shape, 2, output)
        self.zero = _raw_log_sigma(sigma or _SIGMA)

    def _distribution(self, raw: Tensor) -> Distribution:
        loc, raw_log_sigma = raw.chunk(2, -3)
        return ImageNormal(
            self.location(loc), soft_floor(raw_log_sigma + self.zero, LOG_SIGMA_FLOOR)
        )

    @override
    def _start(self, mean: Tensor, deviation: float | None) -> Tensor:
        above = 0.0 if deviation is None else _raw_log_sigma(deviation) - self.zero
        return torch.cat([self.raw_location(mean), torch.full_like(mean, above)])


class LaplaceLikelihood(OneScale):
    """Laplace with one scale: an absolute error, so the median."""

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
        self.mixtures = mixtures
        self.channels = mixtures * sum(parts_of(shape[0]))
        self.zero = _log_logistic(sigma or _SIGMA)

    def _distribution(self, raw: Tensor) -> LogisticMixture:
        return LogisticMixture(raw, self.shape[0], self.mixtures, self.zero)

    @override
    def _start(self, mean: Tensor, deviation: float | None) -> Tensor:
        channels, pixels = len(mean), mean[0].numel()
        reach, above = 0.5, 0.0
        if deviation is not None:  # half of the variance is between the components
            reach = deviation * math.sqrt(6 * (self.mixtures - 1) / (self.mixtures + 1))
            half = deviation * math.sqrt(0.5 if self.mixtures > 1 else 1.0)
            above = _inverse_floor(_log_logistic(half), LOG_SCALE_FLOOR) - self.zero
        spread = torch.linspace(-reach, reach, self.mixtures, device=mean.device)
        if self.mixtures == 1:
            spread = torch.zeros_like(spread)

        def start(center: Tensor) -> Tensor:
            raw = mean.new_zeros(self.mixtures, sum(parts_of(channels)), pixels)
            raw[:, 1 : 1 + channels] = center + spread[:, None, None]
            raw[:, 1 + channels : 1 + 2 * channels] = above
            return raw.flatten(0, 1)

        def image_mean(center: Tensor) -> Tensor:
            return self._distribution(start(center)[..., None]).mean[..., 0]

        farthest = 2 + 8 * math.exp(max(self.zero + above, LOG_SCALE_FLOOR))
        found = start(_solve(image_mean, mean.reshape(channels, pixels), farthest))
        return found.view(self.channels, *mean.shape[1:])


def build_likelihood(
    name: LikelihoodName,
    shape: Shape,
    *,
    sigma: float | None = 0.1,
    mixtures: int = 3,
    output: Output = "linear",
) -> Likelihood:
    """Return the likelihood called ``name`` for images of ``shape (C, H, W)``.

    Arguments:
        name: one of `LikelihoodName`.
        shape: of an image.
        sigma: fixed or first scale, where the likelihood has one; pixels lie in [0, 1]. None: one
            that is fitted, or a first one that `Likelihood.start` says.
        mixtures: components of ``logistic-mixture``.
        output: what raw outputs are to the location of the Gaussian ones and ``laplace``.

    Raises:
        ConfigError: when no likelihood has this name, or ``sigma`` is too small to be learned.
    """
    builders: dict[LikelihoodName, Callable[[], Likelihood]] = {
        "bernoulli": lambda: BernoulliLikelihood(shape),
        "continuous-bernoulli": lambda: ContinuousBernoulliLikelihood(shape),
        "gaussian": lambda: GaussianLikelihood(shape, sigma, output),
        "gaussian-scalar": lambda: ScalarGaussianLikelihood(shape, sigma, output),
        "gaussian-pixel": lambda: PixelGaussianLikelihood(shape, sigma, output),
        "laplace": lambda: LaplaceLikelihood(shape, sigma, output),
        "logistic-mixture": lambda: LogisticMixtureLikelihood(shape, sigma, mixtures),
    }
    if name not in builders:
        raise ConfigError(f"likelihood {name!r} is unknown; known: {', '.join(builders)}.")
    return builders[name]()


def _over_image(log_mass: Tensor, like: Tensor) -> Tensor:
    """Return the sum over channels and pixels, in the precision and on the device of images."""
    return log_mass.flatten(-3).sum(-1).to(like)


def _inverse_floor(value: float, floor: float) -> float:
    """Return what `soft_floor` maps to ``value``, which lies above the floor."""
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
