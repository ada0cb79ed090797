"""Learning curves, from the log of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from vaelab.report.plot import Plot, number, padded, ticks

Entries = Sequence[Mapping[str, Any]]
Points = list[tuple[float, float]]

PANELS = (("elbo", "ELBO"), ("distortion", "distortion"), ("rate", "rate"), ("loss", "loss"))
_SETTLED = 0.1
"""Share of training whose values may leave the panel: the first fall hides all that follows."""


def learning_curves(steps: Entries, epochs: Entries) -> list[Markup]:
    """Return one panel each for ELBO, distortion and rate, and for a loss that is none of these.

    Arguments:
        steps: log entries of the kind ``step``: means over the training batches since the last.
        epochs: log entries of the kind ``epoch``: means over the validation images.
    """
    panels = []
    for key, title in PANELS:
        train, validation = series(steps, key), series(epochs, f"validation/{key}")
        if not (train or validation) or (key == "loss" and _is_known(steps or epochs)):
            continue
        panels.append(_panel(key, title, train, validation))
    return panels


def series(entries: Entries, key: str) -> Points:
    """Return (step, value) of the entries that have a finite value."""
    return [(entry["step"], entry[key]) for entry in entries if entry.get(key) is not None]


def _is_known(entries: Entries) -> bool:
    """Tell whether the loss is the negative ELBO or the distortion, which have panels already."""
    last = entries[-1]
    prefix = "validation/" if "validation/loss" in last else ""
    loss = last.get(f"{prefix}loss")
    for key, sign in (("elbo", -1), ("distortion", 1)):
        value = last.get(prefix + key)
        if loss is not None and value is not None:
            if abs(loss - sign * value) <= 1e-3 * max(1.0, abs(loss)):
                return True
    return False


def _panel(key: str, title: str, train: Points, validation: Points) -> Markup:
    last = max(step for step, _ in train + validation)
    settled = [value for step, value in train if step >= _SETTLED * last]
    values = settled + [value for _, value in validation]
    low, high = padded(min(values), max(values))
    left = 14 + max(6 * len(number(tick)) for tick in ticks(low, high))
    plot = Plot((0, last), (low, high), (276, 226), (left, 40, 10, 38))
    plot.axes("training step")
    plot.write(4, 13, title, "strong")
    plot.write(plot.box[2], 13, "nats per image", "axis end")
    place = left
    for points, name in ((validation, "validation"), (train, "training")):
        if points:
            plot.line(points, name)
            plot.write(place, 30, name, f"{name}-text")
            place += 68
    if len(validation) <= 40:
        plot.dots(validation, None, 5)
    return plot.svg(_alt(title, train, validation), f"curve-{key}")


def _alt(title: str, train: Points, validation: Points) -> str:
    parts = [
        f"{name} from {points[0][1]:.4g} to {points[-1][1]:.4g}"
        for name, points in (("training", train), ("validation", validation))
        if points
    ]
    return f"{title} by training step, nats per image: {'; '.join(parts)}.".replace("-", "−")
