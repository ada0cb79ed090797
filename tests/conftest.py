"""What several tests share: small images, small models, quick settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.browser import chromium
from vaelab.data.images import Splits
from vaelab.data.load import load_data

if TYPE_CHECKING:
    from playwright.sync_api import Browser

torch.set_num_threads(1)  # many tiny models; threads that wait for each other would cost more

SMALL: dict[str, Any] = {
    "latent_dim": 2,
    "encoder": {"widths": [4, 8], "hidden": [16]},
    "likelihood": "bernoulli",
    "standardize": False,
    "output": "linear",
    "augment": {},
    "batch_size": 16,
    "epochs": 2,
    "optimizer": "adam",
    "lr": 1e-3,
    "schedule": "constant",
    "precision": "fp32",
    "device": "cpu",
}
"""Settings of a model that trains in well under a second: none is chosen by the images."""


def blobs(
    n: int = 120, height: int = 12, width: int = 10, channels: int = 1
) -> np.ndarray[Any, Any]:
    """Return images of one soft spot each, whose place varies: uint8 (N, C, H, W)."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    centre = generator.uniform(0.25, 0.75, (n, 2)) * (height, width)
    spot = np.exp(-((y - centre[:, :1, None]) ** 2 + (x - centre[:, 1:, None]) ** 2) / 4)
    return np.repeat((255 * spot).astype(np.uint8)[:, None], channels, 1)


@pytest.fixture(scope="session")
def spots() -> Splits:
    """120 small grey images with two classes."""
    images = blobs()
    labels = (images.argmax(axis=None) + np.arange(len(images))) % 2
    return load_data((images, labels))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with chromium() as opened:
        yield opened
