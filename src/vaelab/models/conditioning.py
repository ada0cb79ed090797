"""What a conditional model is told beside the image: its class and attributes, as one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from vaelab.data.batches import Batch
from vaelab.data.images import ImageSet
from vaelab.data.names import columns, matched, renumbered
from vaelab.errors import ConfigError, counted
from vaelab.models import noise

LABEL = "label"
ROWS = 1024
"""Labelled training images, evenly spread, whose labels a model keeps: what it samples by."""


@dataclass(frozen=True)
class Told:
    """What the training images are labelled with.

    Arguments:
        class_names: of the labels; empty without labels.
        attribute_names: of the attributes.
        labels: ``(N,)``, −1 where unknown.
        attributes: ``(N, A)``, NaN where unknown.
        units: of the attributes, "" where unknown; empty in runs that did not keep them.
        class_counts: images of each class; empty in runs that did not keep them.
    """

    class_names: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    attributes: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    units: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()

    @staticmethod
    def by(images: ImageSet) -> Told:
        """Return what the images of a set are labelled with."""
        count, names = len(images), images.attribute_names
        labels = torch.full((count,), -1) if images.labels is None else images.labels.cpu()
        attributes = images.attributes
        known = labels[labels >= 0]
        return Told(
            images.class_names,
            names,
            labels,
            torch.zeros(count, 0) if attributes is None else attributes.cpu(),
            images.units or ("",) * len(names),
            tuple(known.bincount(minlength=len(images.class_names)).tolist()),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All that a model can be told: ``label`` where there are classes, then the attributes."""
        return ((LABEL,) if len(self.class_names) > 1 else ()) + self.attribute_names


class Conditioning(nn.Module):
    """Class and attributes of images as one vector, with a place for "unknown".

    A class is one-hot, all zeros where it is unknown. An attribute a is two numbers: its value,
    and 1 if it is known; both are 0 if it is not. The value is (a − mean)/deviation over the
    training images or, if ``cut``, 1 above the cut and −1 else. The cut is the median of the
    training images, so that both sides hold about equally many, or ½ for an attribute of 0 and 1.

    Arguments:
        told: what the training images are labelled with.
        names: what the model is told of it, such as ``("label", "thickness")``.
        cut: whether attributes are made binary.

    Raises:
        ConfigError: the data have no such label.
    """

    location: Tensor
    scale: Tensor
    rows: Tensor

    def __init__(self, told: Told, names: Sequence[str], cut: bool = False) -> None:
        super().__init__()
        _check(told, names)
        self.names, self.cut = tuple(names), cut
        self.class_names = told.class_names if LABEL in names else ()
        self.attribute_names = tuple(name for name in names if name != LABEL)
        self.trained_with = told.attribute_names
        """All attributes of the training images, in their order."""
        self.units, self.class_counts = told.units, told.class_counts
        self._columns = [told.attribute_names.index(name) for name in self.attribute_names]
        self.width = len(self.class_names) + 2 * len(self._columns)
        location, scale = _reference(told.attributes, self._columns, cut)
        self.register_buffer("location", location)
        self.register_buffer("scale", scale)
        self.register_buffer("rows", torch.zeros(ROWS, self.width))
        if len(told.labels):
            known = self._most_known(told)
            index = known[torch.arange(ROWS) * len(known) // ROWS]
            self.rows.copy_(self.encode(told.labels[index], told.attributes[index]))

    def forward(self, batch: Batch) -> Tensor:
        """Return the vectors of a batch, ``(B, width)``; what it does not have is unknown.

        Its classes and attributes are found by their names, where it has names.

        Raises:
            DataError: an image of a class that the model does not know.
        """
        labels, names = batch.labels, batch.class_names
        if labels is None:
            labels = torch.full((len(batch),), -1, device=batch.images.device)
        elif self.class_names and names and names != self.class_names:
            labels = renumbered(labels, names, self.class_names)
        names = batch.attribute_names or self.trained_with
        values = batch.attributes
        if values is None:
            values, names = batch.images.new_zeros(len(batch), 0), ()
        if names != self.trained_with:
            return self._vectors(labels, columns(values, names, self.attribute_names))
        return self.encode(labels, values)

    def encode(self, labels: Tensor, attributes: Tensor) -> Tensor:
        """Return the vectors of labels ``(n,)`` and the training data's attributes ``(n, A)``."""
        return self._vectors(labels, attributes[:, self._columns])

    def _vectors(self, labels: Tensor, attributes: Tensor) -> Tensor:
        parts = []
        if self.class_names:
            numbers = torch.arange(len(self.class_names), device=labels.device)
            parts.append((labels[:, None] == numbers).float())
        if self._columns:
            parts += self._values(attributes)
        return torch.cat(parts, 1)

    def log_prior(self, labels: Tensor) -> Tensor | None:
        """Return log p(y) of classes ``(N,)``, in nats, by their frequency in training.

        None where some are unknown, or the run did not keep how many images each class has.
        """
        if not self.class_counts or not len(labels) or int(labels.min()) < 0:
            return None
        counts = torch.tensor(self.class_counts, dtype=torch.float64)
        return (counts / counts.sum()).log()[labels.cpu()]

    def matched(self, images: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
        """Return images with classes and attributes as the model has them; see `names.matched`."""
        return matched(
            images,
            self.class_names or None,
            self.trained_with if self.attribute_names else None,
            self.units,
        )

    def _most_known(self, told: Told) -> Tensor:
        """Return the images of which as much is known as of any: a model samples like them."""
        count = torch.zeros(len(told.labels), dtype=torch.int64)
        if self.class_names:
            count += told.labels >= 0
        if self._columns:
            count += (~told.attributes[:, self._columns].isnan()).sum(1)
        return (count == count.max()).nonzero().squeeze(1)

    def values(self, attributes: Tensor) -> list[Tensor]:
        """Return values of the training data's attributes ``(n, A)``, and 1 where known."""
        return self._values(attributes[:, self._columns])

    def _values(self, attributes: Tensor) -> list[Tensor]:
        known = ~attributes.isnan()
        values = (attributes - self.location) / self.scale
        if self.cut:
            values = 2.0 * (values > 0) - 1.0
        return [torch.where(known, values, torch.zeros_like(values)), known.float()]

    def attribute_parts(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """Return values of attributes in vectors ``(n, width)``, and 1 where they are known."""
        values, known = contexts[:, len(self.class_names) :].chunk(2, 1)
        return values, known

    def ask(self, n: int, given: Mapping[str, Any], draw: bool = False) -> Tensor:
        """Return n vectors for what is ``given`` by name, ``(n, width)``.

        Arguments:
            n: how many.
            given: one value for all, or one for each. A class is a name or a number. An attribute
                is a number in its own unit or, where it was cut, 0 or 1.
            draw: let what is not given follow the training images, those of the same class if one
                is given; else it is unknown.

        Raises:
            ConfigError: an unknown name or class, or a wrong number of values.
        """
        for name in given:
            if name not in self.names:
                raise ConfigError(_unknown(name, self.names))
        vectors = self.rows.new_zeros(n, self.width)
        numbers = self._classes(given[LABEL], n) if LABEL in given else None
        if draw:
            vectors = self.rows[self._like(numbers, n)]
        if numbers is not None:
            numbers = numbers.to(vectors.device)
            vectors[:, : len(self.class_names)] = one_hot(numbers, len(self.class_names)).float()
        for name, values in given.items():
            if name != LABEL:
                self._set(vectors, name, values)
        return vectors

    def say(self, contexts: Tensor) -> dict[str, Tensor]:
        """Return what vectors ``(n, width)`` say, by name: class numbers, −1 where unknown, and
        attributes, NaN where unknown.

        Attributes are in their own unit or, where they were cut, 0 or 1.
        """
        classes, count = len(self.class_names), len(self.attribute_names)
        said = {}
        if classes:
            known = contexts[:, :classes].sum(1) > 0
            said[LABEL] = torch.where(known, contexts[:, :classes].argmax(1), -1)
        for place, name in enumerate(self.attribute_names):
            values = contexts[:, classes + place]
            said[name] = (
                (values > 0).float()
                if self.cut
                else values * self.scale[place] + self.location[place]
            )
            known = contexts[:, classes + count + place] > 0
            said[name] = said[name].where(known, torch.full_like(said[name], torch.nan))
        return said

    def ordinary(self) -> dict[str, Any]:
        """Return the first class and the median of every attribute, by name."""
        usual = self.rows.median(0, keepdim=True).values
        said = {name: round(float(values[0]), 3) for name, values in self.say(usual).items()}
        return {**said, **({LABEL: self.class_names[0]} if self.class_names else {})}

    def with_class(self, contexts: Tensor, number: int) -> Tensor:
        """Return vectors ``(n, width)`` in which the class is that of a number."""
        changed = contexts.clone()
        changed[:, : len(self.class_names)] = 0
        changed[:, number] = 1
        return changed

    def side(self, attribute: str, values: Tensor) -> Tensor:
        """Return values of an attribute in its unit as 0 or 1 by the cut, NaN where unknown."""
        at = self.location[self.attribute_names.index(attribute)].to(values)
        return torch.where(values.isnan(), values, (values > at).float())

    def change(self, contexts: Tensor, attribute: str, to: Tensor) -> Tensor:
        """Return vectors ``(n, width)`` in which an attribute is ``to`` ``(n,)``, 0 to 1.

        0 and 1 stand for the mean of the training images below and above the cut.

        Raises:
            ConfigError: the model was not told this attribute.
        """
        if attribute not in self.attribute_names:
            raise ConfigError(_unknown(attribute, self.attribute_names))
        column = len(self.class_names) + self.attribute_names.index(attribute)
        flag = column + len(self.attribute_names)
        known = self.rows[self.rows[:, flag] > 0, column]
        low, high = known.new_tensor([-1.0, 1.0])
        if not self.cut and len(known):
            middle = known.median()
            # of an attribute that most images have, the median is the greatest value
            above = known > middle if bool((known > middle).any()) else known >= middle
            high = known[above].mean()
            low = known[~above].mean() if bool((~above).any()) else high
        changed = contexts.clone()
        changed[:, column] = torch.lerp(low, high, to)
        changed[:, flag] = 1
        return changed

    def _like(self, numbers: Tensor | None, n: int) -> Tensor:
        """Return rows to follow, by chance: of the same class, where there is one."""
        count = len(self.rows)
        if numbers is None:
            return torch.randint(count, (n,))
        same = self.rows[:, : len(self.class_names)].T.cpu()[numbers]  # (n, rows)
        same[same.sum(1) == 0] = 1
        return torch.multinomial(same, 1).squeeze(1)

    def _set(self, vectors: Tensor, name: str, values: Any) -> None:
        try:
            numbers = torch.as_tensor(values, dtype=torch.float32, device=vectors.device)
            numbers = numbers.expand(len(vectors))
        except (TypeError, ValueError, RuntimeError):
            raise ConfigError(_count(name, "number", len(vectors))) from None
        if bool(numbers.isinf().any()):
            raise ConfigError(f"{name}: is infinite. Give a number, or NaN for unknown.")
        place = self.attribute_names.index(name)
        column = len(self.class_names) + place
        known = ~numbers.isnan()
        if self.cut:
            numbers = 2 * numbers - 1
        else:
            numbers = (numbers - self.location[place]) / self.scale[place]
        vectors[:, column] = numbers.where(known, torch.zeros_like(numbers))
        vectors[:, column + len(self.attribute_names)] = known.float()

    def _classes(self, values: Any, n: int) -> Tensor:
        """Return the numbers of classes, given by name or number, ``(n,)``."""
        many = isinstance(values, (Tensor, np.ndarray, list, tuple))
        listed = torch.as_tensor(values).tolist() if isinstance(values, Tensor) else values
        numbers = [self._class(value) for value in (listed if many else [listed])]
        if len(numbers) not in (1, n):
            raise ConfigError(_count(LABEL, "class", n))
        return torch.tensor(numbers).expand(n)

    def _class(self, value: Any) -> int:
        if str(value) in self.class_names:
            return self.class_names.index(str(value))
        if not isinstance(value, str) and 0 <= int(value) < len(self.class_names):
            return int(value)
        known = ", ".join(self.class_names)
        raise ConfigError(f"label: there is no class {value!r}. Classes: {known}.")


class Balance(nn.Module):
    """Weights under which no attribute has to do with the class: ½ / P(side of the cut | class).

    A code that holds the class tells as much of an attribute as the class does. That is no fault of
    the code: without it an edit could not keep the class (see docs/attributes.md). What counts is
    what the code tells beside the class, in a world in which both sides are equally frequent in
    every class. Without classes, both sides are weighed to be equally frequent.

    Arguments:
        told: what the training images are labelled with.
        conditioning: which attributes, and where they are cut.
    """

    weights: Tensor
    LARGEST = 20.0

    def __init__(self, told: Told, conditioning: Conditioning) -> None:
        super().__init__()
        self.classes = max(1, len(told.class_names))
        count = len(conditioning.attribute_names)
        weights = torch.ones(self.classes, count, 2)
        self.register_buffer("weights", weights)
        if not len(told.labels):  # a model that is about to be loaded
            return
        values, known = conditioning.values(told.attributes)
        rows = told.labels if told.class_names else torch.zeros_like(told.labels)
        sides = [(known > 0) & (values <= 0), (known > 0) & (values > 0)]
        counts = [
            torch.zeros(self.classes, count, dtype=torch.int64).index_add_(
                0, rows[rows >= 0], side[rows >= 0].long()
            )
            for side in sides
        ]
        both = torch.stack(counts, 2)
        share = both / both.sum(2, keepdim=True).clamp(min=1)
        weights.copy_((0.5 / share.clamp(min=1e-6)).clamp(max=self.LARGEST))

    def forward(self, labels: Tensor | None, values: Tensor) -> Tensor:
        """Return the weight of every image for each attribute, ``(B, A)``."""
        if labels is None:
            labels = torch.zeros(len(values), dtype=torch.int64, device=values.device)
        even = self.weights.mean(0)  # where the class is unknown
        rows = torch.where((labels >= 0)[:, None, None], self.weights[labels.clamp(min=0)], even)
        return rows.gather(2, (values > 0).long().unsqueeze(2)).squeeze(2)


def drop(context: Tensor, share: float) -> Tensor:
    """Make all that is known of an image unknown, by chance with probability ``share``.

    So a model learns p(x) beside p(x|y), which guidance needs (Ho and Salimans, 2022), and to do
    without labels.
    """
    drawn = noise.uniform((len(context), 1), batch_dim=0, device=context.device)
    return context * (drawn >= share)


def cut_at(images: ImageSet, attribute: str) -> float:
    """Return where an attribute is cut in two: ½ if it is 0 or 1, else its median."""
    told = Told.by(images)
    if attribute not in told.attribute_names:
        raise ConfigError(_unknown(attribute, told.attribute_names))
    column = told.attribute_names.index(attribute)
    return float(_reference(told.attributes, [column], cut=True)[0])


def cut_of(images: ImageSet, attribute: str, at: float) -> Tensor:
    """Return an attribute as 1 above the cut and −1 else, NaN where unknown, ``(N,)``."""
    told = Told.by(images)
    values = told.attributes[:, told.attribute_names.index(attribute)]
    return torch.where(values.isnan(), values, 2.0 * (values > at) - 1.0)


def _reference(attributes: Tensor, columns: Sequence[int], cut: bool) -> tuple[Tensor, Tensor]:
    """Return what values are less by and in units of, each ``(A,)``."""
    location, scale = torch.zeros(len(columns)), torch.ones(len(columns))
    for place, column in enumerate(columns):
        if len(attributes) == 0:  # a model that is about to be loaded
            continue
        values = attributes[:, column].double()
        values = values[~values.isnan()]
        if len(values) == 0:
            continue
        binary = bool(((values == 0) | (values == 1)).all())
        middle = 0.5 if binary else values.median()
        location[place] = middle if cut else values.mean()
        deviation = float(values.std(correction=0))
        scale[place] = deviation if deviation > 0 and not cut else 1.0
    return location, scale


def _check(told: Told, names: Sequence[str]) -> None:
    if not names:
        raise ConfigError(
            "a conditional model needs labels: sub-folders named by class, a labels file, or "
            "attributes (data.attributes=[thickness] measures some on any images)."
        )
    for name in names:
        if name not in told.names:
            raise ConfigError(_unknown(name, told.names))
        if len(told.labels):
            _check_varies(told, name)


def _check_varies(told: Told, name: str) -> None:
    """Raise `ConfigError` where the training images do not tell what a label does."""
    if name == LABEL:
        if not bool((told.labels >= 0).any()):
            raise ConfigError(
                f"none of {counted(len(told.labels), 'training image')} has a label, so a model "
                "cannot be conditioned on the class. Label some, or take the recipe vae."
            )
        return
    values = told.attributes[:, told.attribute_names.index(name)]
    known = values[~values.isnan()]
    others = ",".join(other for other in told.attribute_names if other != name)
    remedy = f"Leave it out: -s data.attributes=[{others}]." if others else "Choose another."
    if not len(known):
        raise ConfigError(f"attribute {name!r} is known of no training image. {remedy}")
    if bool((known == known[0]).all()):
        raise ConfigError(
            f"attribute {name!r} is {float(known[0]):g} in all training images, so a model cannot "
            f"be conditioned on it. {remedy}"
        )


def _count(name: str, what: str, n: int) -> str:
    return f"{name}: give one {what}, or one for each of {n} images."


def _unknown(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, 1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return f"{name!r} is not among the labels: {hint}Known: {', '.join(known) or 'none'}."
