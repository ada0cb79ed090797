"""How well a score tells anomalies from normal images, where it is known which images are which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vaelab.errors import ConfigError
from vaelab.evaluation.figures import INTERVAL, Figure, Share
from vaelab.evaluation.ranking import auroc

NORMAL = ("good", "normal", "ok")
"""Names of classes that are normal, in any case of letters."""

EXCEEDED = 0.05
"""Share of held-out normal images that may exceed the threshold."""

_HOW = "Area under the ROC curve; 95 % interval by Newcombe (2006, method 5)."


@dataclass(frozen=True)
class Score:
    """What one score is worth.

    Arguments:
        auroc: area under the ROC curve.
        precision: average precision.
        kinds: AUROC of each class of anomalies against all normal images, where there are several.
        threshold: the score that at most 5 % of held-out normal images exceed.
        found: share of the anomalies above it (true positive rate).
        false: share of the normal images above it (false positive rate).
    """

    auroc: Figure
    precision: Figure
    kinds: dict[str, Figure]
    threshold: float
    found: Share
    false: Share

    def facts(self) -> dict[str, Any]:
        """Return all figures as JSON-able values."""

        def area(figure: Figure) -> dict[str, Any]:
            return {"value": figure.value, "interval": figure.ends, "images": figure.n}

        def rate(share: Share) -> dict[str, Any]:
            hits, total = share.hits, share.total
            return {"value": share.value, "interval": share.interval, "of": [hits, total]}

        return {
            "auroc": area(self.auroc),
            "average_precision": self.precision.value,
            "auroc_by_class": {name: area(figure) for name, figure in self.kinds.items()},
            "threshold": self.threshold,
            "true_positive_rate": rate(self.found),
            "false_positive_rate": rate(self.false),
        }


def normal_classes(
    names: Sequence[str], trained: Sequence[str], given: Sequence[str] = ()
) -> tuple[tuple[str, ...], str]:
    """Return which of the classes of images are normal, and a note where that is not known.

    They are those that are ``given``; else good, normal or ok; else those that training had. There
    are none where all classes, or none of several, would be normal.

    Arguments:
        names: classes that occur among the images.
        trained: classes that occur among the training images.
        given: what is said to be normal.

    Raises:
        ConfigError: an image of the class that is given does not exist, or no other does.
    """
    for name in given:
        if name not in names:
            known = ", ".join(names) or "none"
            raise ConfigError(f"--normal {name}: no image is of this class. Classes: {known}.")
    if given and set(given) == set(names):
        raise ConfigError(
            f"--normal {', '.join(given)}: all images are of it, so that there is no anomaly to "
            "tell from it. Score images of other classes too."
        )
    if given:
        return tuple(given), ""
    for found in (
        tuple(name for name in names if name.lower() in NORMAL),
        tuple(name for name in names if name in trained),
    ):
        if found:
            return (found if len(found) < len(names) else ()), ""
    if len(names) < 2:
        return (), ""
    listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return (), (
        f"The images have classes ({listed}), and which is normal is not known. Name it to measure "
        f"how well the scores find the others: --normal {names[0]}"
    )


def detection(
    scores: Mapping[str, Tensor],
    usual: Mapping[str, Tensor],
    classes: Sequence[str],
    normal: Sequence[str],
) -> dict[str, Score]:
    """Return what each score is worth, by its name; images of unknown class are left out.

    Arguments:
        scores: of N images, ``(N,)`` each, higher for anomalies.
        usual: the same scores of held-out normal images, which set the threshold.
        classes: name of the class of each image, "" where it is unknown.
        normal: names of the classes that are normal.
    """
    good = torch.tensor([name in normal for name in classes])
    bad = torch.tensor([bool(name) and name not in normal for name in classes])
    kinds = sorted({name for name in classes if name and name not in normal})
    members = {name: torch.tensor([other == name for other in classes]) for name in kinds}
    found = {}
    for name, values in scores.items():
        limit = threshold(usual[name])
        found[name] = Score(
            area(values[bad], values[good]),
            average_precision(values[bad], values[good]),
            {kind: area(values[members[kind]], values[good]) for kind in kinds}
            if len(kinds) > 1
            else {},
            limit,
            Share(int((values[bad] > limit).sum()), int(bad.sum())),
            Share(int((values[good] > limit).sum()), int(good.sum())),
        )
    return found


def area(odd: Tensor, usual: Tensor) -> Figure:
    """Return the AUROC with a 95 % interval that holds for few images and up to its ends."""
    figure = auroc(odd, usual, _HOW)
    return replace(figure, ends=area_interval(figure.value, len(odd), len(usual)))


def area_interval(value: float, odd: int, usual: int) -> tuple[float, float]:
    """Return the 95 % interval of an AUROC of m anomalies and n normal images.

    Its ends are the θ with |Â − θ| = 1.96 √V(θ), where with N* = (m + n)/2 − 1

        V(θ) = θ (1 − θ) / (m n) · (1 + N* ((1 − θ)/(2 − θ) + θ/(1 + θ)))

    is the variance of Hanley and McNeil (1982) at θ, as Newcombe (Statistics in Medicine 25, 2006,
    method 5) has it. Unlike value ± 1.96 standard errors it is no point where the sets do not
    overlap.
    """

    def beyond(theta: float) -> bool:
        spread = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) / (odd * usual) * (1 + ((odd + usual) / 2 - 1) * spread)
        return abs(value - theta) > INTERVAL * math.sqrt(variance)

    ends = []
    for outer in (0.0, 1.0):
        inner, outside = value, outer
        for _ in range(60):
            middle = (inner + outside) / 2
            inner, outside = (inner, middle) if beyond(middle) else (middle, outside)
        ends.append(inner if beyond(outer) else outer)
    return ends[0], ends[1]


def average_precision(odd: Tensor, usual: Tensor) -> Figure:
    """Return Σ (Rₖ − Rₖ₋₁) Pₖ over all thresholds, from the highest score down.

    Pₖ and Rₖ are precision and recall of what is at least as high as the k-th score. A score that
    tells nothing has the share of anomalies among the images.
    """
    values = torch.cat([odd, usual]).double()
    hits = torch.cat([torch.ones(len(odd)), torch.zeros(len(usual))]).double()
    order = values.argsort(descending=True)
    values, hits = values[order], hits[order].cumsum(0)
    last = torch.ones(len(values), dtype=torch.bool)  # of images with equal scores
    last[:-1] = values[1:] != values[:-1]
    precision = (hits / torch.arange(1, len(values) + 1))[last]
    recall = hits[last] / len(odd)
    value = float((recall.diff(prepend=torch.zeros(1)) * precision).sum())
    share = len(odd) / len(values)
    protocol = f"Area under precision and recall; by chance {share:.2f}, the share of anomalies."
    return Figure(value, None, len(values), "average precision", protocol)


def threshold(usual: Tensor) -> float:
    """Return the least of the scores that at most 5 % of these exceed."""
    ordered = usual.double().sort().values
    return float(ordered[math.ceil((1 - EXCEEDED) * len(ordered) - 1e-9) - 1])


def rows(found: Mapping[str, Score]) -> list[tuple[str, ...]]:
    """Return a table: a line a score, then AUROC by kind of anomaly."""

    def rate(share: Share) -> str:
        low, high = share.interval
        return f"{share.value or 0:.2f} ({low:.2f} to {high:.2f})"

    lines: list[tuple[str, ...]] = [
        ("score", "AUROC", "average precision", "threshold", "found", "false alarms")
    ]
    for name, one in found.items():
        lines.append(
            (
                name,
                _interval(one.auroc),
                f"{one.precision.value:.2f}",
                f"{one.threshold:.4g}".replace("-", "−"),
                rate(one.found),
                rate(one.false),
            )
        )
    for name, one in found.items():
        lines += [(f"{name}, {kind}", _interval(figure)) for kind, figure in one.kinds.items()]
    return lines


def _interval(figure: Figure) -> str:
    assert figure.ends is not None
    assert figure.ends[1] is not None
    return f"{figure.value:.3f} ({figure.ends[0]:.3f} to {figure.ends[1]:.3f})"


def words(normal: Sequence[str], classes: Sequence[str], usual: str) -> str:
    """Return what the table is of."""
    good = sum(name in normal for name in classes)
    bad = sum(bool(name) and name not in normal for name in classes)
    return (
        f"{bad:,} anomalies against {good:,} normal images ({', '.join(normal)}). AUROC with its "
        "95 % interval (Newcombe, 2006) and average precision; the threshold is the score that at "
        f"most 5 % of {usual} exceed, with the share of anomalies found and of normal images taken "
        "for one above it (Wilson's interval)."
    )
