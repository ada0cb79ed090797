"""Where a curve of rate against distortion turns: before it a nat buys much, behind it little."""

from __future__ import annotations

from collections.abc import Sequence


def knee(points: Sequence[tuple[float, float]]) -> int | None:
    """Return the index of the point farthest from the chord of a falling convex curve.

    Both axes are scaled to their ranges. None for fewer than three points, or where no point lies
    below the chord.
    Source: Satopää et al., Finding a "kneedle" in a haystack, 2011.

    Arguments:
        points: (rate, distortion), in any order.
    """
    if len(points) < 3:
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    width, height = max(xs) - min(xs), max(ys) - min(ys)
    if width <= 0 or height <= 0:
        return None
    below = [1 - (x - min(xs)) / width - (y - min(ys)) / height for x, y in points]
    best = max(range(len(points)), key=lambda i: below[i])
    return best if below[best] > 1e-9 else None
