"""Points on a Swiss roll as images of one pixel: the toy data of the CSVAE.

Klys, Snell and Zemel (2018), "Learning Latent Subspaces in Variational Autoencoders", train on
10,000 points of scikit-learn's ``make_swiss_roll``, without noise, with a binary label: whether a
coordinate is at least 10. Public reproductions differ in which: the first coordinate marks a strip
of the outermost turn (14 % of the points), the second cuts the roll in half. Both are here.
"""

from __future__ import annotations

from math import pi

import numpy as np
from numpy.typing import NDArray

from vaelab.data.arrays import ArraySource, Piece
from vaelab.data.pixels import Geometry
from vaelab.data.readers import in_memory

NAME = "swiss-roll"
POINTS = 10_000
BORDER = 10.0
LOW = np.array([-4.5 * pi, 0.0, -4.5 * pi])
"""Coordinates that become 0; `HIGH` become 255."""
HIGH = np.array([4.5 * pi, 21.0, 4.5 * pi])


def swiss_roll() -> NDArray[np.float64]:
    """Points ``(t cos t, 21 v, t sin t)`` with t uniform on [3π/2, 9π/2], v on [0, 1]: (N, 3)."""
    from sklearn.datasets import make_swiss_roll

    points: NDArray[np.float64] = make_swiss_roll(POINTS, random_state=0)[0]
    return points


def swiss_roll_source(geometry: Geometry) -> ArraySource:
    """The points as 8-bit images (3, 1, 1), ``x = LOW + (HIGH - LOW) pixel / 255``.

    Attributes ``outer`` (first coordinate ≥ 10) and ``half`` (second coordinate ≥ 10); the two
    classes are those of ``half``.
    """
    points = swiss_roll()
    pixels = np.rint(255 * (points - LOW) / (HIGH - LOW)).astype(np.uint8)
    attributes = (points[:, :2] >= BORDER).astype(np.float32)
    images, labels = pixels.reshape(-1, 3, 1, 1), attributes[:, 1].astype(np.int64)
    given = (images, labels, attributes, ["near", "far"], ["outer", "half"])
    arrays = [in_memory(values, NAME) for values in given]
    piece = Piece(arrays[0], labels=arrays[1], attributes=arrays[2])
    return ArraySource(NAME, [piece], geometry, class_names=arrays[3], attribute_names=arrays[4])
