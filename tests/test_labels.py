"""Labels as people have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vaelab.data.labels import read_labels
from vaelab.errors import DataError


@pytest.mark.parametrize(
    ("values", "numbers", "names"),
    [
        ([0, 1, 0], [0, 1, 0], ("0", "1")),
        ([5, 1, 5], [1, 0, 1], ("1", "5")),
        ([[5], [1], [5]], [1, 0, 1], ("1", "5")),
        ([-1, 2, 10], [-1, 0, 1], ("2", "10")),
        ([np.nan, 2.0, 0.0], [-1, 1, 0], ("0", "2")),
        ([True, False, True], [1, 0, 1], ("0", "1")),
        ([[0, 1], [1, 0], [0, 1]], [1, 0, 1], ("0", "1")),
        (["disc", "", "bar"], [1, -1, 0], ("bar", "disc")),
        (["10", "9", "-1"], [1, 0, -1], ("9", "10")),
        (np.array(["b", None, "a"], object), [1, -1, 0], ("a", "b")),
        (np.array([3, None, 1.0], object), [1, -1, 0], ("1", "3")),
        (np.array([b"x", b"y", b"x"]), [0, 1, 0], ("x", "y")),
        (["none", "tumor", "NONE"], [1, 2, 0], ("NONE", "none", "tumor")),
        (["None", "NAN", "NaN"], [-1, 0, -1], ("NAN",)),
        (["9" * 5000, "10", "007"], [2, 1, 0], ("007", "10", "9" * 5000)),
        (["<NA>", "x", "nan"], [-1, 0, -1], ("x",)),
    ],
)
def test_each_form_gives_the_classes_it_means(
    values: Any, numbers: list[int], names: tuple[str, ...]
) -> None:
    labels = read_labels(values, 3, "y")
    assert labels is not None
    assert labels.numbers.tolist() == numbers
    assert labels.numbers.dtype == np.int64
    assert labels.names == names


def test_names_follow_their_numbers_and_classes_without_images_are_named() -> None:
    labels = read_labels([3, 1, 3], 3, "y", ["ant", "bee", "cat", "dog", "elk"])
    assert labels is not None
    assert labels.names == ("bee", "dog")
    assert labels.numbers.tolist() == [1, 0, 1]
    assert labels.notes == ("y: Classes ant, cat, elk have no image and were left out.",)


def test_all_unknown_is_no_labels_and_some_unknown_is_counted() -> None:
    assert read_labels([-1, -1], 2, "y") is None
    assert read_labels([None, ""], 2, "y") is None
    labels = read_labels([-1, 4, 4], 3, "y")
    assert labels is not None
    assert labels.notes == ("y: 1 of 3 images have no label.",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 1, 2], "label 0.5 is no whole number"),
        ([np.inf, 1, 2], "label inf is no whole number"),
        ([-2, 1, 2], "label -2 is negative"),
        ([-1e30, 1, 2], r"label -1e\+30 is negative"),
        ([1e30, 1, 2], r"label 1e\+30 is too large"),
        ([0, 1], "2 labels for 3 images"),
        ([[0, 1], [1, 1], [0, 0]], "attributes"),
        (np.zeros((3, 2, 2)), "shape"),
    ],
)
def test_what_is_no_label_is_refused_in_words(values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(values, 3, "y")


def test_a_number_without_a_name_is_refused() -> None:
    with pytest.raises(DataError, match="label 2 has no name among 2 class names"):
        read_labels([0, 2], 2, "y", ["a", "b"])
