"""A classifier p(y|x): for people's own classes, to measure generated images, and to be helped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from vaelab.data.images import ImageSet
from vaelab.data.names import matched
from vaelab.errors import ConfigError, DataError
from vaelab.models.layers import BatchNorm2d, Dropout, channels_last
from vaelab.models.model import Images, Model, Shape

ClassifierName = Literal["cnn-small", "cnn", "mlp"]
WIDTHS, HIDDEN, DROPOUT = (32, 64), 128, 0.3  # of the small one
STAGES = (32, 64, 128)  # of the residual one
WIDE = 256  # of the layers without convolutions


class Classifier(Model):
    """Class probabilities p(y|x) = softmax(head(body(x)) / T).

    Arguments:
        body: images ``(n, C, H, W)`` to features ``(n, F)``.
        head: features to one logit for each class, ``(n, K)``.
        shape: channels, height and width of an image.
    """

    class_names: tuple[str, ...] = ()
    """Of the K classes; empty where nobody named them."""

    temperature: Tensor
    """T, which makes probabilities what they say: 1 until it is fitted to validation images."""

    def __init__(self, body: nn.Module, head: nn.Module, shape: Shape) -> None:
        super().__init__(shape)
        self.body, self.head = body, head
        self.register_buffer("temperature", torch.ones(()))

    @override
    def matched(self, images: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
        if images.labels is None or not self.class_names:
            return images, ()
        return matched(images, self.class_names)

    def check_classes(self, names: Sequence[str]) -> None:
        """Raise `DataError` unless these are its classes, in this order."""
        if self.class_names and self.class_names != tuple(names):
            raise DataError(
                f"the classifier knows the classes {', '.join(self.class_names)}, and these are "
                f"{', '.join(names)}. Train it on images of the same classes."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images in [0, 1] before they are divided by T, ``(n, K)``."""
        logits: Tensor = self.head(self.body(channels_last(x)))
        return logits

    def features(self, images: Images) -> Tensor:
        """Return the activations below the last layer, ``(N, F)``."""
        return self.chunked(lambda x: self.body(channels_last(x)), self.as_images(images))

    def logits(self, images: Images) -> Tensor:
        """Return the logits of images before they are divided by T, ``(N, K)``."""
        return self.chunked(self, self.as_images(images))

    def predict(self, images: Images) -> Tensor:
        """Return the class probabilities of images, ``(N, K)``."""
        return (self.logits(images) / self.temperature.cpu()).softmax(1)


class Activations(nn.Module):
    """Images to what the layers of a classifier give, each ``(n, F)`` or ``(n, F, h, w)``.

    Arguments:
        body: of the classifier.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the activations, from the image to the last hidden layer."""
        found = []
        x = channels_last(x)
        for layer in _layers(self.body):
            x = layer(x)
            if isinstance(layer, (nn.ReLU, Residual)):
                found.append(x)
        return found


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of nested sequences, in the order in which they work."""
    if isinstance(network, nn.Sequential):
        for part in network:
            yield from _layers(part)
    else:
        yield network


class Residual(nn.Module):
    """relu(x + f(x)), f two 3×3 convolutions with batch normalisation (He et al., 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *_normalized(width, width), nn.ReLU(), *_normalized(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return torch.relu(x + self.inner(x))


FEWEST = 4
"""Pixels that a classifier with convolutions needs."""


def build_classifier(
    shape: Shape, classes: int, network: ClassifierName = "cnn-small"
) -> Classifier:
    """Return a freshly initialised network for images of any size; seed torch before.

        cnn-small   two 3×3 convolutions of 32 and 64 channels, each with 2×2 max pooling, batch
                    normalisation and ReLU; a layer of 128 features with dropout
        cnn         three stages of 32, 64 and 128 channels, each a convolution with pooling and a
                    residual block; the mean over all places
        mlp         two layers of 256 without convolutions, with dropout

    Pooling rounds up, and ends where two pixels are left.

    Raises:
        ConfigError: images of less than four pixels, and a network with convolutions.
    """
    if shape[1] * shape[2] < FEWEST and network != "mlp":
        raise ConfigError(
            f"data: images of {shape[1]} × {shape[2]} pixels are too small for convolutions. Use "
            "the network mlp."
        )
    body, features = _BODIES[network](shape)
    head: nn.Module = nn.Linear(features, classes)
    if network != "cnn":
        head = nn.Sequential(Dropout(DROPOUT), head)
    return Classifier(body, head, shape)


def _small(shape: Shape) -> tuple[nn.Module, int]:
    channels, height, width = shape
    maps = nn.Sequential()
    for before, after in zip((channels, *WIDTHS), WIDTHS, strict=False):
        pool, (height, width) = _pooled(height, width)
        maps.extend([*_normalized(before, after, pool), nn.ReLU()])
    flat = WIDTHS[-1] * height * width
    return nn.Sequential(maps, nn.Flatten(), nn.Linear(flat, HIDDEN), nn.ReLU()), HIDDEN


def _residual(shape: Shape) -> tuple[nn.Module, int]:
    channels, height, width = shape
    maps = nn.Sequential()
    for before, after in zip((channels, *STAGES), STAGES, strict=False):
        pool, (height, width) = _pooled(height, width)
        maps.extend([*_normalized(before, after, pool), nn.ReLU(), Residual(after)])
    return nn.Sequential(maps, nn.AdaptiveAvgPool2d(1), nn.Flatten()), STAGES[-1]


def _dense(shape: Shape) -> tuple[nn.Module, int]:
    first = nn.Linear(math.prod(shape), WIDE)
    second = nn.Linear(WIDE, WIDE)
    layers = [nn.Flatten(), first, nn.ReLU(), Dropout(DROPOUT), second, nn.ReLU()]
    return nn.Sequential(*layers), WIDE


_BODIES: dict[ClassifierName, Callable[[Shape], tuple[nn.Module, int]]] = {
    "cnn-small": _small,
    "cnn": _residual,
    "mlp": _dense,
}


def _normalized(before: int, after: int, pool: nn.Module | None = None) -> list[nn.Module]:
    """Return a convolution and its normalisation; pooled in between, where it costs the least."""
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
    between = [] if pool is None else [pool]
    return [convolution, *between, BatchNorm2d(after)]


def _pooled(height: int, width: int) -> tuple[nn.Module | None, tuple[int, int]]:
    """Return what halves a map, and its size then; nothing where two pixels are left of a side."""
    if max(height, width) <= 2:
        return None, (height, width)
    return nn.MaxPool2d(2, ceil_mode=True), (-(-height // 2), -(-width // 2))
