"""The metrics of the benchmark on own images, and what its sets are built by."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> Any:
        return importlib.import_module(name)

    yield load
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def test_frechet_distance_is_that_of_the_means_where_only_they_differ(benchmark: Any) -> None:
    points = np.random.default_rng(0).normal(size=(500, 8))
    distance = benchmark("image_metrics").frechet_distance
    assert distance(points, points) == pytest.approx(0, abs=1e-8)
    assert distance(points, points + 2) == pytest.approx(8 * 4)
    assert distance(points, 3 * points) > 8 * 3  # (3 - 1)² a dimension, or nearly


def test_training_images_are_their_own_nearest_ones(benchmark: Any) -> None:
    metrics = benchmark("image_metrics")
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16), np.uint8)
    assert metrics.nearest(images[:5], images) == pytest.approx(0, abs=1e-6)
    far = metrics.nearest(255 - images[:5], images)
    assert far > 0.05
    assert metrics.squared_error(images, images) == 0


def test_grey_images_have_no_chroma(benchmark: Any) -> None:
    grey = np.full((2, 3, 4, 4), 7, np.uint8)
    red = grey.copy()
    red[:, 0] = 255
    chroma = benchmark("image_metrics").chroma
    assert chroma(grey) == 0
    assert chroma(red) == pytest.approx(np.std([1, 7 / 255, 7 / 255]))


def test_transparent_pixels_are_white(benchmark: Any) -> None:
    image = np.zeros((1, 4, 1, 2), np.uint8)
    image[0, 3, 0, 1] = 255
    assert benchmark("own_split").on_white(image).tolist() == [[[[255, 0]]] * 3]


def test_crops_lie_within_the_photo_at_the_same_places_every_time(benchmark: Any) -> None:
    pytest.importorskip("sklearn")
    squares = benchmark("sets_photos").squares
    boxes = list(squares((400, 300), 3))
    assert boxes == list(squares((400, 300), 3))
    assert all(0 <= box[0] < box[2] <= 400 and 0 <= box[1] < box[3] <= 300 for box in boxes)
    assert all(box[2] - box[0] == box[3] - box[1] for box in boxes)
