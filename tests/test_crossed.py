"""Shares of hits by several classifiers: the interval covers other classifiers and other images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vaelab.evaluation.figures import Share, crossed, share


@pytest.mark.parametrize(("reader", "image"), [(0.0, 0.5), (0.8, 0.5), (0.0, 0.0)])
def test_an_interval_over_classifiers_and_images_covers_the_truth(
    reader: float, image: float
) -> None:
    """Shares Φ(1 + a_k + b_n) of three classifiers and 200 images, both drawn anew each time."""
    draws = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws, dtype=torch.double)

    truth = float(torch.special.ndtr(torch.tensor(1 / math.sqrt(1 + reader**2 + image**2))))
    inside, alone = 0, 0
    for _ in range(400):
        at = 1 + reader * normal(3, 1) + image * normal(1, 200)
        hits = (at + normal(3, 200) > 0).double()
        figure = crossed(hits, "")
        assert figure.ends is not None
        low, high = figure.ends
        assert low is not None
        assert high is not None
        inside += low <= truth <= high
        low, high = Share(int(hits[0].sum()), 200).interval
        alone += low <= truth <= high
    assert inside / 400 > 0.93
    assert (alone / 400 < 0.6) == (reader > 0)  # what one classifier's interval claims


def test_classifiers_that_agree_are_as_one() -> None:
    hits = (torch.arange(50) < 40).double().expand(3, -1)
    figure, one = crossed(hits, "how"), share(hits[0], "how")
    assert figure.value == one.value == 0.8
    assert figure.standard_error == pytest.approx(math.sqrt(0.8 * 0.2 / 49))
    assert figure.freedom == 49
    assert crossed(hits[:1], "how") == one
    sure = crossed(torch.ones(3, 50), "how")
    assert sure.ends == Share(50, 50).interval  # all of 50 is no certainty
