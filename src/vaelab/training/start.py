"""Training that starts from the weights of another run, with other images or settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vaelab import files
from vaelab.config import RunConfig, StartConfig, merge
from vaelab.data.images import ImageSet, Splits
from vaelab.data.names import matched
from vaelab.data.seen import Seen, trained_before
from vaelab.errors import ConfigError, DataError, RunError, counted
from vaelab.models.model import Model
from vaelab.recipes import find_recipe, resolve
from vaelab.training.run import Run, flat, load_weights, versions


def start_from(run: Run, values: Mapping[str, Any]) -> RunConfig:
    """Return the configuration of a run that starts from the weights of another.

    What is not set is as in that run. Images of other data are brought to the shape that its model
    takes.

    Arguments:
        run: whose weights these are.
        values: settings that differ.

    Raises:
        ConfigError: a setting that would change the networks or their distributions.
        RunError: the run has no weights, or damaged ones.
    """
    old, about = run.read_config(), run.about()
    if values.get("preset") is not None:
        raise ConfigError(
            f"--from {run}: preset {values['preset']} chooses networks, and these are the run's. "
            "Name what should differ, such as --epochs."
        )
    base = old.model_dump() | {"preset": None}
    if values.get("recipe", old.recipe) != old.recipe:
        base["options"] = {}
        base["training"] |= find_recipe(values["recipe"]).training  # a discriminator's are others
    channels, *size = about.shape
    if values.get("data", {}).get("spec", old.data.spec) != old.data.spec:
        base["data"] |= {"size": size, "channels": channels}
    new = resolve(merge(base, values), f"--from {run}")
    _check_fits(run, old, new, (channels, size))
    names = _names(run, old)
    start = StartConfig(run=str(run), weights=files.checksum(run.model_file), **names)
    return new.model_copy(update={"start": start, "versions": versions()})


def _check_fits(run: Run, old: RunConfig, new: RunConfig, shape: tuple[int, list[int]]) -> None:
    before, after = flat(old), flat(new)
    keys = [key for key in before if key.startswith("model.") or key == "data.binarize"]
    differs = [(key, after.get(key), before[key]) for key in keys if after.get(key) != before[key]]
    known = (("data.channels", new.data.channels, shape[0]), ("data.size", new.data.size, shape[1]))
    differs += [(key, now, was) for key, now, was in known if now is not None and now != was]
    if find_recipe(old.recipe).classifies != find_recipe(new.recipe).classifies:
        differs.insert(0, ("recipe", new.recipe, old.recipe))
    if differs:
        key, now, was = differs[0]
        raise ConfigError(
            f"--from {run}: {key} is {now!r}, and the weights are of a model with {was!r}, which "
            "other networks cannot take. Leave it out, or train anew without --from."
        )


def _names(run: Run, old: RunConfig) -> dict[str, list[str]]:
    """Return the classes and attributes that a model is conditioned on; none of others."""
    about = run.about()
    if find_recipe(old.recipe).classifies:
        return {"classes": about.classes}
    if run.load_model().conditioning is None:
        return {}
    return {"classes": about.classes, "attributes": about.attributes}


def seen_before(start: StartConfig) -> Seen | None:
    """Return what the weights were trained on, as far as it is known."""
    try:
        return Run(start.run).seen()
    except RunError:  # it may be gone when a run is resumed
        return None


def before_notes(start: StartConfig, before: Seen | None, splits: Splits) -> list[str]:
    """Say which images that are held out now the weights were trained on."""
    if before is None:
        return [f"{start.run}: which images its weights were trained on is not known."]
    known, found = Seen.of(splits, before), []
    for part, images in (("validation", splits.validation), ("test", splits.test)):
        again = 0 if images is splits.train else int(known.trained_earlier(images).sum())
        if again:
            found.append(trained_before(again, counted(len(images), f"{part} image")))
    return found


def match_names(start: StartConfig, splits: Splits) -> Splits:
    """Return images whose labels and attributes are numbered as the weights have them, with notes.

    Raises:
        DataError: a class or attribute that the weights do not know.
    """

    def of(images: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
        try:
            return matched(images, _tuple(start.classes), _tuple(start.attributes))
        except DataError as error:
            raise DataError(f"--from {start.run}: {error}") from None

    if start.classes is None:
        return splits
    train, notes = of(splits.train)
    notes += _lost(train, start.classes)
    parts = [train if part is splits.train else of(part)[0] for part in (
        splits.validation, splits.test)]  # fmt: skip
    notes = tuple(dict.fromkeys((*splits.notes, *notes)))
    return replace(splits, train=train, validation=parts[0], test=parts[1], notes=notes)


def _lost(train: ImageSet, classes: Sequence[str]) -> tuple[str, ...]:
    """The note on classes of the weights that labelled training images do not show."""
    there = {*train.labels.unique().tolist()} - {-1} if train.labels is not None else set()
    gone = [name for number, name in enumerate(classes) if number not in there]
    if not there or not gone:
        return ()
    listed = ", ".join(gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else "")
    has, it = ("Class {} has", "it") if len(gone) == 1 else ("Classes {} have", "them")
    return (
        f"{has.format(listed)} no training image here: what the weights know of {it} may be lost.",
    )


def _tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def take_weights(model: Model, start: StartConfig) -> None:
    """Copy the weights of a run into a model.

    Raises:
        RunError: they are not what was recorded, or do not fit.
    """
    run = Run(start.run)
    if not run.model_file.is_file() or files.checksum(run.model_file) != start.weights:
        gone = "has other weights now than" if run.model_file.is_file() else "is not there, and has"
        raise RunError(
            f"start.run: {run} {gone} those that this training is to start from "
            f"({start.weights[:12]}). Bring them back, or leave `start` out to train anew."
        )
    tensors, _ = files.load_tensors(run.model_file)
    files.check_finite(run.model_file, tensors)
    own = model.state_dict()
    odd = sorted(own.keys() ^ tensors.keys())
    odd += [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
    if odd:
        raise RunError(
            f"--from {run}: its weights do not fit this model ({odd[0]} differs). Recipe, classes "
            "and images must be such that the networks are the same."
        )
    load_weights(model, tensors, run.model_file)
