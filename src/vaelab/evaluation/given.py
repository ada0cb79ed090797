"""Images that a run is asked about: whether they are its own, and which of them it has seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from vaelab.data.images import ImageSet, Splits, joined
from vaelab.data.seen import Seen
from vaelab.errors import counted
from vaelab.models.model import Model

UNKNOWN = (
    "whether this run was trained on them is not known, as it has no hashes of its images "
    "(images.safetensors; exports and runs of an older vaelab have none)."
)


@dataclass(frozen=True, eq=False)
class Origin:
    """What a run has seen of some images.

    Arguments:
        held_out: whether it was trained on none of them; None where it is not known.
        trained_on: which are training images, bool ``(N,)``; None where it is not known.
        what: what they are called, such as ``test images of photos``; by a part of the data only
            where none was trained on, or where they are that part of the run's own images.
        notes: plain sentences about it.
    """

    held_out: bool | None
    trained_on: Tensor | None
    what: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Given:
    """The images that a command is about, and what the run knows of them.

    Arguments:
        splits: what was read, labelled as the model has the names.
        own: whether they are the run's own images, split as for its training.
        seen: what the run was trained on; None where it did not keep that.
        notes: what was assumed, as it was said.
    """

    splits: Splits
    own: bool
    seen: Seen | None
    notes: tuple[str, ...] = ()

    def labelled_alike(self, model: Model) -> Given:
        """Return them with the classes and attributes of a model, and notes on what they lack.

        Raises:
            DataError: a class or attribute that the model does not know.
        """
        found = model.matched_splits(replace(self.splits, notes=()))
        splits = replace(found, notes=(*self.splits.notes, *found.notes))
        return replace(self, splits=splits, notes=found.notes)

    def origin(self, images: ImageSet, part: str, named: bool) -> Origin:
        """Return what the run has seen of images.

        Arguments:
            images: a part of ``splits``.
            part: its name: ``training``, ``validation`` or ``test``.
            named: whether they were named in place of the run's own.
        """
        of = f" of {self.splits.name}" if named else ""
        if self.seen is None:
            said = f"{counted(len(images), 'image')}{of}: {UNKNOWN}"
            return Origin(None, None, f"images{of}", (said,))
        trained, chosen = self.seen.trained_on(images), self.seen.chosen_by(images)
        if self.own:
            held_out = images is not self.splits.train
            return Origin(held_out, trained, f"{part} images{of}", ())
        seen, judged = int(trained.sum()), int(chosen.sum())
        if not seen and not judged:
            return Origin(True, trained, f"{part} images{of}", ())
        are = "is a training image" if seen == 1 else "are training images"
        said = f"{seen:,} of {counted(len(images), 'image')}{of} {are} of this run"
        are = "is a validation image" if judged == 1 else "are validation images"
        said += f", {judged:,} {are}, by which weights may be chosen" * bool(judged)
        return Origin(not seen, trained, f"images{of}", (f"{said}.",))


def known_again(splits: Splits, seen: Seen | None) -> Given:
    """Compare images with those of a run, by content; its own are split as for its training.

    Arguments:
        splits: other images, of the shape that the run's model takes.
        seen: what the run was trained on, as far as it kept that.
    """
    if seen is None:
        return Given(splits, False, None)
    parts = [splits.train, splits.validation, splits.test]
    parts = [part for n, part in enumerate(parts) if part not in parts[:n]]
    rows = seen.rows(np.concatenate([part.hashes for part in parts]))
    if rows is None:
        return Given(splits, False, seen)
    every = joined(parts)
    train, validation, test = (every.subset(part) for part in rows)
    held_out = len(validation) > 0
    validation = validation if held_out else train
    own = replace(
        splits, train=train, validation=validation, test=test, held_out=held_out, notes=()
    )
    return Given(own, True, seen)
