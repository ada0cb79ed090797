"""Means of figures over the steps since the last look, kept on the device until then."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor


class Meter:
    """Sums figures without waiting for the device; `read` gives their means and starts anew."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = self.images = 0
        self.since = time.monotonic()

    def add(self, prefix: str, figures: Mapping[str, Tensor]) -> None:
        """Add the figures of one step of one player."""
        for name, value in figures.items():
            key = prefix + name
            self.sums[key] = self.sums[key] + value if key in self.sums else value

    def count(self, images: int) -> None:
        """Count one step over that many images."""
        self.steps += 1
        self.images += images

    def read(self) -> tuple[float, dict[str, float]]:
        """Return images per second and the mean of every figure since the last call."""
        now = time.monotonic()
        names = list(self.sums)
        values = torch.stack([self.sums[n].float() for n in names]).tolist() if names else []
        means = {name: value / self.steps for name, value in zip(names, values, strict=True)}
        speed = self.images / max(1e-9, now - self.since)
        self.sums, self.steps, self.images, self.since = {}, 0, 0, now
        return speed, means

    def state(self) -> dict[str, Tensor]:
        """Return the sums for a checkpoint."""
        return {**self.sums, "steps": torch.tensor(self.steps)} if self.steps else {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
        self.sums = {name: value for name, value in tensors.items() if name != "steps"}
        self.steps = int(tensors["steps"]) if "steps" in tensors else 0
        self.since = time.monotonic()
