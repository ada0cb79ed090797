"""What images are measured by: one reference classifier a set, Fréchet distance, nearest image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from own_split import Parts, Pixels
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 64
SIDE = 64
"""Larger images are averaged down to about this before they are compared."""


class ReferenceClassifier(nn.Module):
    """Three convolutions, then 64 features, then the classes; the features are what FID uses."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in ((channels, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(before, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(2048, FEATURES), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classes = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of images in [0, 1]."""
        out: Tensor = self.classes(functional.dropout(self.features(x), 0.3, self.training))
        return out


def smaller(images: Pixels) -> Tensor:
    """Return images in [0, 1], averaged down to about `SIDE` pixels."""
    x = torch.from_numpy(images).float() / 255
    factor = max(1, min(x.shape[2:]) // SIDE)
    return functional.avg_pool2d(x, factor) if factor > 1 else x


def reference_classifier(parts: Parts, file: Path, steps: int = 1_000) -> ReferenceClassifier:
    """Return the classifier of a set, trained on real training images where ``file`` is not yet.

    Images are shifted by up to a sixteenth of their side.
    """
    torch.manual_seed(0)
    model = ReferenceClassifier(parts.train.shape[1], int(parts.labels.max()) + 1)
    if file.exists():
        model.load_state_dict(load_file(file))
        return model.eval()
    labels = torch.from_numpy(parts.labels)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in range(steps):
        index = torch.randint(len(labels), (64,))
        x = smaller(parts.train[index.numpy()])
        most = x.shape[-1] // 16
        shift = torch.randint(-most, most + 1, (2,)).tolist()
        x = functional.pad(x, (most,) * 4, "replicate").roll(shift, (2, 3))
        loss = functional.cross_entropy(model(x[:, :, most:-most, most:-most]), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), file)
    return model.eval()


@torch.inference_mode()
def features(model: ReferenceClassifier, images: Pixels) -> NDArray[np.float64]:
    """Return features ``(N, 64)`` of images."""
    chunks = [images[i : i + 500] for i in range(0, len(images), 500)]
    return torch.cat([model.features(smaller(chunk)) for chunk in chunks]).double().numpy()


@torch.inference_mode()
def accuracy(model: ReferenceClassifier, images: Pixels, labels: NDArray[np.int64]) -> float:
    """Return the share of images that are correctly classified."""
    chunks = [images[i : i + 500] for i in range(0, len(images), 500)]
    predicted = torch.cat([model(smaller(chunk)).argmax(1) for chunk in chunks]).numpy()
    return float((predicted == labels).mean())


def frechet_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½) of features (Heusel et al., 2017)."""
    covariances = [np.cov(each, rowvar=False) for each in (a, b)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariances[1] @ root)
    means = np.square(a.mean(0) - b.mean(0)).sum()
    traces = sum(np.trace(covariance) for covariance in covariances)
    return float(means + traces - 2 * np.sqrt(product.clip(0)).sum())


def squared_error(a: Pixels, b: Pixels) -> float:
    """Return the mean squared error a pixel and channel, of values in [0, 1]."""
    chunks = range(0, len(a), 500)
    each = [np.square(a[i : i + 500] / 255.0 - b[i : i + 500] / 255.0).sum() for i in chunks]
    return float(sum(each) / a.size)


def chroma(images: Pixels) -> float:
    """Return the mean over images and pixels of the standard deviation over channels."""
    return float(np.mean([(image / 255.0).std(0).mean() for image in images]))


@torch.inference_mode()
def nearest(images: Pixels, train: Pixels, count: int = 500) -> float:
    """Return the median, over some images, of the MSE to the nearest training image."""
    some = np.random.default_rng(0).permutation(len(images))[:count]  # mixtures sample in order
    x = smaller(images[some]).flatten(1)
    others = smaller(train).flatten(1)
    squares = x.square().sum(1)[:, None] + others.square().sum(1) - 2 * x @ others.T
    return float(squares.min(1).values.clamp(min=0).median() / x.shape[1])
