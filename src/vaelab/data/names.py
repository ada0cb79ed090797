"""Labels and attributes of images brought to the names of a model: by name, never by place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaelab.data.images import ImageSet
from vaelab.errors import DataError, counted


def matched(
    images: ImageSet,
    class_names: Sequence[str] | None = None,
    attribute_names: Sequence[str] | None = None,
    units: Sequence[str] = (),
) -> tuple[ImageSet, tuple[str, ...]]:
    """Return images whose labels and attributes are numbered as a model has them, and notes.

    Labels without names go by their numbers: 3 is the class ``"3"``. What these images do not have
    is unobserved, −1 or NaN, and noted.

    Arguments:
        images: the images.
        class_names: of the model; None leaves the classes of the images as they are.
        attribute_names: of the model; None leaves the attributes as they are.
        units: of these attributes, "" where they are not known.

    Raises:
        DataError: an image has a class, or the images an attribute, that the model does not know.
    """
    changes: dict[str, object] = {}
    notes: list[str] = []
    if class_names is not None and (images.labels is None or images.class_names != class_names):
        changes |= {"labels": _labels(images, class_names), "class_names": tuple(class_names)}
        if images.labels is None:
            notes.append("These images have no labels: the class is unobserved.")
    if attribute_names is not None and images.attribute_names != attribute_names:
        changes |= _attributes(images, attribute_names)
        notes += _missing(images, attribute_names)
    if attribute_names is not None:
        notes += _units(images, attribute_names, units)
    return (images.relabelled(**changes) if changes else images), tuple(notes)


def renumbered(labels: Tensor, names: Sequence[str], known: Sequence[str]) -> Tensor:
    """Return labels ``(N,)``, numbers in ``names``, as numbers in ``known``; −1 stays unknown.

    Raises:
        DataError: a class that occurs is not among ``known``.
    """
    place = {name: number for number, name in enumerate(known)}
    order = torch.tensor([place.get(name, -1) for name in names] or [-1], device=labels.device)
    found = torch.where(labels >= 0, order[labels.clamp(min=0)], -1)
    strange = labels[(labels >= 0) & (found < 0)]
    if len(strange):
        raise DataError(
            f"class {names[int(strange[0])]!r} is none that this model knows: {', '.join(known)}. "
            "Name it as the model has it, or leave its images out."
        )
    return found


def columns(attributes: Tensor, names: Sequence[str], known: Sequence[str]) -> Tensor:
    """Return attributes ``(N, A)`` as the columns ``known``, NaN where ``names`` lacks one."""
    missing = attributes.new_full((len(attributes),), torch.nan)
    place = {name: column for column, name in enumerate(names)}
    found = [attributes[:, place[name]] if name in place else missing for name in known]
    return torch.stack(found, 1) if found else attributes[:, :0]


def numbers_as_names(labels: Tensor) -> tuple[str, ...]:
    """Return the names of classes that have none: their numbers."""
    return tuple(str(k) for k in range(1 + int(labels.max()))) if len(labels) else ()


def _labels(images: ImageSet, known: Sequence[str]) -> Tensor:
    if images.labels is None:
        return torch.full((len(images),), -1)
    return renumbered(images.labels, images.class_names or numbers_as_names(images.labels), known)


def _attributes(images: ImageSet, known: Sequence[str]) -> dict[str, object]:
    names = images.attribute_names
    strange = [name for name in names if name not in known]
    if strange:
        raise DataError(
            f"attribute {strange[0]!r} is none that this model knows: {', '.join(known)}. Name it "
            "as the model has it, or leave its column out."
        )
    if images.attributes is None:
        values = torch.full((len(images), len(known)), torch.nan)
    elif not names and images.attributes.shape[1] != len(known):
        raise DataError(
            f"{counted(images.attributes.shape[1], 'attribute')} without names, and this model has "
            f"{len(known)}: {', '.join(known)}. Name them (attribute_names)."
        )
    else:
        values = columns(images.attributes, names or known, known)
    unit = dict(zip(names, images.units or ("",) * len(names), strict=True))
    units = tuple(unit.get(name, "") for name in known) if images.units else ()
    return {"attributes": values, "attribute_names": tuple(known), "units": units, "binary": ()}


def _missing(images: ImageSet, known: Sequence[str]) -> list[str]:
    if images.attributes is not None and not images.attribute_names:
        return ["The attributes of these images have no names: they go by their order."]
    missing = [name for name in known if name not in images.attribute_names]
    if not missing:
        return []
    are = "attribute {} is" if len(missing) == 1 else "attributes {} are"
    return [f"These images have not all that the model knows: {are.format(', '.join(missing))} "
            "unobserved."]  # fmt: skip


def _units(images: ImageSet, known: Sequence[str], units: Sequence[str]) -> list[str]:
    """Say which attributes have another unit than the model's, as far as units are known."""
    if not units:
        return []
    mine = dict(zip(known, units, strict=True))
    names = images.attribute_names
    theirs = dict(zip(names, images.units or ("",) * len(names), strict=True))
    other = [name for name, unit in theirs.items() if mine.get(name, unit) != unit]
    return [
        f"Attribute {name} is in {_unit(theirs[name])} here, and in {_unit(mine[name])} in "
        "training: its values may not compare."
        for name in other
    ]


def _unit(unit: str) -> str:
    return unit or "a unit that is not known"
