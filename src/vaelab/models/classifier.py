"""A classifier p(y|x): it measures generated images, and generated images may help to train it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaelab.models.layers import channels_last
from vaelab.models.model import Images, Model, Shape

WIDTHS, HIDDEN, DROPOUT = (32, 64), 128, 0.3


class Classifier(Model):
    """Class probabilities p(y|x) = softmax(head(features(x))).

    Arguments:
        body: images ``(n, C, H, W)`` to features ``(n, F)``.
        head: features to one logit for each class, ``(n, K)``.
        shape: channels, height and width of an image.
    """

    def __init__(self, body: nn.Module, head: nn.Module, shape: Shape) -> None:
        super().__init__(shape)
        self.body, self.head = body, head

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images in [0, 1], ``(n, K)``."""
        logits: Tensor = self.head(self.body(channels_last(x)))
        return logits

    def features(self, images: Images) -> Tensor:
        """Return the activations below the last layer, ``(N, F)``."""
        return self.chunked(lambda x: self.body(channels_last(x)), self.as_images(images))

    def predict(self, images: Images) -> Tensor:
        """Return the class probabilities of images, ``(N, K)``."""
        return self.chunked(lambda x: self(x).softmax(1), self.as_images(images))


def build_classifier(shape: Shape, classes: int) -> Classifier:
    """Return a freshly initialised network of two convolutions with max pooling; seed torch before.

    3×3 convolutions of 32 and 64 channels, each with batch normalisation, ReLU and 2×2 max
    pooling; a layer of 128 features; one logit for each class. Pooling rounds up, so that any
    size will do.
    """
    channels, height, width = shape
    maps = nn.Sequential()
    for before, after in zip((channels, *WIDTHS), WIDTHS, strict=False):
        maps.append(nn.Conv2d(before, after, 3, padding=1, bias=False))
        maps.append(nn.BatchNorm2d(after))
        maps.append(nn.ReLU())
        maps.append(nn.MaxPool2d(2, ceil_mode=True))
        height, width = -(-height // 2), -(-width // 2)
    body = nn.Sequential(
        maps, nn.Flatten(), nn.Linear(WIDTHS[-1] * height * width, HIDDEN), nn.ReLU()
    )
    return Classifier(body, nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(HIDDEN, classes)), shape)


def shifted(images: Tensor, by: Tensor) -> Tensor:
    """Move each image by whole pixels, with zeros where nothing was.

    Arguments:
        images: ``(B, C, H, W)``.
        by: rows down and columns to the right, int64 ``(B, 2)``.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - by[:, :1]  # (B, H): where a row comes from
    columns = torch.arange(width, device=images.device) - by[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[:, None]
    flat = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    index = flat.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    moved = images.flatten(2).gather(2, index).view_as(images)
    return moved * inside[:, None]
