"""Distances that see more of a reconstruction than pixels one by one, as terms of an objective.

The likelihood of a VAE charges for each pixel alone, so blur is cheap. These distances compare what
several pixels show together: frequencies, local contrast, the features of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vaelab.models.global_batch import global_mean
from vaelab.models.similarity import ms_ssim
from vaelab.models.vae import Trace

Distance = Callable[[Tensor, Tensor], Tensor]
"""Of images ``(n, C, H, W)`` from others, ``(n,)``, at least 0; the second take no gradient."""

FLOOR = 1e-6
"""Of a distance, beside the 0.01 or more of reconstructions."""

_QUIET = 1e-4
"""Squared length of features that hardly say anything: their direction is noise."""


class Compared:
    """The distance d of reconstructions x̃ from images x of n = C·H·W numbers, as a likelihood.

        w · n/2 · log E_x d(x̃, x)

    A Gaussian whose σ fits pays n/2 · log E_x ‖x̃ − x‖² (Rybkin et al., 2021), up to a constant. So
    for w = 1 a per cent of this distance is worth as many nats as a per cent of the squared error,
    whatever the units of d, and halving it n/2 · log 2 nats per image.

    Arguments:
        distance: d.
        weight: w.
    """

    def __init__(self, distance: Distance, weight: float) -> None:
        self.distance, self.weight = distance, weight

    def prepare(self, device: torch.device) -> None:
        """Find the network of the distance, if it has one, before the first step."""
        if isinstance(self.distance, FeatureDistance):
            self.distance.prepare(device)

    def __call__(self, trace: Trace, step: int) -> Tensor:
        """Return the cost, the same for every image of the batch, ``(B,)`` nats."""
        means, target = trace.likelihood.mean, trace.batch.target
        rebuilt = means.flatten(0, 1)
        images = target.expand_as(means).flatten(0, 1)
        with torch.autocast(rebuilt.device.type, enabled=False):
            each = self.distance(rebuilt.float(), images.float()).view(means.shape[:2])
        mean = global_mean(each.mean(0))
        nats: Tensor = self.weight * target[0].numel() / 2 * (mean + FLOOR).log()
        return nats.expand(len(target))


def focal_frequency(x: Tensor, y: Tensor) -> Tensor:
    """Return the focal frequency distance of images ``(n, C, H, W)``, ``(n,)``.

        1/CHW Σ_uv w(u, v) |F_x(u, v) − F_y(u, v)|²,   w = |F_x − F_y| / max_uv |F_x − F_y|

    F is the orthonormal discrete Fourier transform of a channel. w is a constant: it turns to the
    frequencies that are furthest off.
    Source: Jiang, Dai, Wu and Loy, Focal frequency loss, 2021, with α = 1.
    """
    spectrum = torch.fft.fft2(x - y, norm="ortho")
    squared: Tensor = spectrum.real.square() + spectrum.imag.square()
    with torch.no_grad():
        size = squared.sqrt()
        weight = size / size.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)
    return (weight * squared).flatten(1).mean(1)


def dissimilarity(x: Tensor, y: Tensor) -> Tensor:
    """Return 1 − MS-SSIM of images ``(n, C, H, W)``, ``(n,)``; see `ms_ssim`."""
    return 1 - ms_ssim(x, y)


class FeatureDistance:
    """Distance in the features of a network that stays as it is: a perceptual loss.

        d(x, y) = 1/L Σ_l E_place ‖f_l(x)/‖f_l(x)‖ − f_l(y)/‖f_l(y)‖‖²

    f_l are the features of layer l, compared at every place by their direction over channels.
    Source: Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric,
    2018, without weights of channels; as a VAE's loss: Hou et al., 2017.

    Arguments:
        find: gives the network: images ``(n, C, H, W)`` to one tensor or several, each ``(n, F)``
            or ``(n, F, h, w)``.
    """

    def __init__(self, find: Callable[[], nn.Module]) -> None:
        self._find = find
        self._network: nn.Module | None = None

    def prepare(self, device: torch.device) -> None:
        """Find the network; it may have to be trained, which in a step would change its noise."""
        self._network = self._find().to(device).eval().requires_grad_(False)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance of each image, ``(n,)``."""
        with torch.no_grad():
            goal = self._directions(y)
        pairs = zip(self._directions(x), goal, strict=True)
        each = [(a - b).square().sum(1).flatten(1).mean(1) for a, b in pairs]
        return torch.stack(each).mean(0)

    def _directions(self, images: Tensor) -> list[Tensor]:
        """Return the features of each layer, of length 1 at each place: ``(n, F, places)``."""
        if self._network is None:
            self.prepare(images.device)
        assert self._network is not None
        found: Tensor | Sequence[Tensor] = self._network(images)
        layers = [found] if isinstance(found, Tensor) else list(found)
        flat = [layer.flatten(2) if layer.ndim > 2 else layer[..., None] for layer in layers]
        return [f * (f.square().sum(1, keepdim=True) + _QUIET).rsqrt() for f in flat]
