"""Weights that change while a model trains: functions from a step to a number."""

from __future__ import annotations

from collections.abc import Callable

Schedule = Callable[[int], float]


def constant(value: float) -> Schedule:
    """Return the schedule that stays at ``value``."""
    return lambda step: value


def linear(start: float, end: float, steps: float) -> Schedule:
    """Return the schedule from ``start`` to ``end`` in ``steps`` steps, constant afterwards."""
    return lambda step: end if step >= steps else start + (end - start) * step / steps
