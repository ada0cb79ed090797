"""Data augmentation: training images varied at random, by draws that follow the step's seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from vaelab.data.warp import elastic, flipped, margin, recoloured, shifted, warped
from vaelab.models import noise

SMOOTH = 1 / 7
"""Width of the Gaussian that makes elastic bending smooth, of the shorter side of an image."""


@dataclass(frozen=True)
class Variation:
    """Classical augmentation: how far chance may change a training image, alike in each direction.

    Flips, and shifts alone, are by whole pixels; else the image is interpolated, once. Values in
    [0, 1] stay there.

    Arguments:
        shift: pixels at most.
        rotation: degrees at most.
        zoom: share of the size at most.
        elastic: typical displacement of a pixel (root mean square) by smooth random bending.
        crop: share of each side at most that is cut off, at random; the rest fills the image.
        flip: whether every other image is mirrored left and right.
        jitter: share at most by which brightness, contrast and saturation change, each by itself.
        hue: degrees at most by which colours turn about the axis of the greys.
        edge: whether the edge of an image continues outside it; else what is outside is black.
    """

    shift: int = 0
    rotation: float = 0.0
    zoom: float = 0.0
    elastic: float = 0.0
    crop: float = 0.0
    flip: bool = False
    jitter: float = 0.0
    hue: float = 0.0
    edge: bool = False

    @property
    def varies(self) -> bool:
        """Whether it does anything."""
        return replace(self, edge=False) != Variation()

    def __call__(self, images: Tensor) -> Tensor:
        """Return images ``(B, C, H, W)`` varied; draws follow the seed of the step."""
        if self.flip:
            images = flipped(images, self._drawn(images, 1)[:, 0] < 0)
        images = self._moved(images)
        if self.jitter or self.hue:
            drawn = self._drawn(images, 4)
            brightness, contrast, saturation = (1 + self.jitter * drawn[:, :3]).unbind(1)
            hue = self.hue * drawn[:, 3]
            images = recoloured(images, brightness, contrast, saturation, hue)
        return images

    def _moved(self, images: Tensor) -> Tensor:
        if self.rotation or self.zoom or self.elastic or self.crop:
            by, angle, zoom = self._drawn(images, 4).split([2, 1, 1], 1)
            bend = self._bend(images) if self.elastic else None
            turn, by, size = self.rotation * angle[:, 0], self.shift * by, 1 + self.zoom * zoom
            if self.crop:
                cut, place = self._cut(images)
                by, size = by + size * place / (1 - cut), size / (1 - cut)
            moved = warped(images, by, turn, size[:, 0], bend, self.edge)
            return moved.clamp(0, 1)  # beyond which interpolation goes by rounding
        if not self.shift:
            return images
        drawn = noise.uniform((len(images), 2), batch_dim=0, device=images.device)
        by = (drawn * (2 * self.shift + 1)).long() - self.shift
        return shifted(images, by, self.edge)

    def _cut(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the share that is cut off ``(B, 1)``, and how far from its centre ``(B, 2)``."""
        drawn = self._drawn(images, 3)
        cut = self.crop * (drawn[:, :1] + 1) / 2
        return cut, cut / 2 * drawn[:, 1:] * drawn.new_tensor(images.shape[2:])

    @staticmethod
    def _drawn(images: Tensor, count: int) -> Tensor:
        """Return numbers uniform on [−1, 1), ``(B, count)``."""
        drawn = noise.uniform((len(images), count), batch_dim=0, device=images.device)
        return 2 * drawn - 1

    def _bend(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        smooth = max(0.5, SMOOTH * min(height, width))
        reach = 2 * margin(smooth)
        shape = (len(images), 2, height + reach, width + reach)
        field = elastic(noise.normal(shape, batch_dim=0, device=images.device), smooth)
        return self.elastic * field
