"""Data augmentation in training: what is varied, whether it may be, and a batch of a step varied.

A recipe that learns a class or attributes takes an augmentation only where a measurement shows that
it changes none of them (`vaelab.training.copies`), or with ``training.augment.unchecked``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vaelab.config import USUAL, AugmentConfig
from vaelab.data.images import ImageSet
from vaelab.data.warp import RGBA
from vaelab.errors import ConfigError, counted
from vaelab.models import noise
from vaelab.objectives.variation import Variation
from vaelab.training.copies import FEWEST, Gain, changed, flip_gain
from vaelab.training.step import AUGMENT, Part, mix_seed

SMALL = 10_000
"""Training images up to which flips are offered: more have less to gain."""


def variation_of(augment: AugmentConfig, shape: tuple[int, int, int]) -> Variation:
    """Return how images of ``shape`` (channels, height, width) are varied; ``auto`` is off.

    Raises:
        ConfigError: colours of images that have none are to change.
    """
    channels, height, width = shape
    for name in ("jitter", "hue"):
        if getattr(augment, name) and channels not in (3, RGBA):
            raise ConfigError(
                f"training.augment.{name}: changes colours, and these images have "
                f"{counted(channels, 'channel')}. Leave it out, or read RGB with --channels 3."
            )
    pixels = augment.shift * min(height, width)
    return Variation(
        shift=max(1, round(pixels)) if pixels else 0,
        rotation=augment.rotation,
        zoom=augment.zoom,
        crop=augment.crop,
        flip=augment.flip is True,
        jitter=augment.jitter,
        hue=augment.hue,
        edge=True,
    )


def varied(part: Part, variation: Variation, seed: int, step: int, index: int) -> Part:
    """Return a part of a step with its images varied: a function of (seed, step, index)."""
    if not variation.varies:
        return part
    images = part.batch.images
    with noise.sharded(*part.rows):
        noise.seed(mix_seed(seed, step, index, AUGMENT), images.device)
        images = variation(images)
    return replace(part, batch=replace(part.batch, images=images, target=images))


def checked(
    augment: AugmentConfig, train: ImageSet, held_out: ImageSet, given: Sequence[str]
) -> None:
    """Raise `ConfigError` where an augmentation changes what is learned beside the images.

    Arguments:
        augment: the augmentations.
        train: images that are trained on.
        held_out: validation images; none where there are no others than ``train``.
        given: ``label`` and names of attributes that are learned.
    """
    if augment.unchecked or not given:
        return
    for name in USUAL:
        if getattr(augment, name) in (0, "auto"):
            continue
        if faults := _faults(name, augment, train, held_out, given):
            raise ConfigError(
                f"training.augment.{name}: {'; '.join(faults)}. Leave it out; or, where you know "
                "better, keep it with -s training.augment.unchecked=true."
            )


def _faults(
    name: str,
    augment: AugmentConfig,
    train: ImageSet,
    held_out: ImageSet,
    given: Sequence[str],
) -> list[str]:
    alone = AugmentConfig.model_validate({name: getattr(augment, name)})
    return list(changed(variation_of(alone, train.shape), train, held_out, given))


def settled(
    augment: AugmentConfig, train: ImageSet, held_out: ImageSet, given: Sequence[str]
) -> tuple[AugmentConfig, list[str]]:
    """Return the configuration with ``flip`` decided where it is ``auto``, and what to say of it.

    Arguments are those of `checked`.
    """
    if augment.flip != "auto":
        return augment, []
    helps, why = _decided(augment, train, held_out, given)
    text = f"training.augment.flip=auto: horizontal flips are {'on' if helps else 'off'}, as {why}."
    return augment.model_copy(update={"flip": helps}), [text]


def offer(
    augment: AugmentConfig, train: ImageSet, held_out: ImageSet, given: Sequence[str]
) -> list[str]:
    """Return the advice to flip few images, where nobody said anything of it and it would help."""
    known = "flip" in augment.model_fields_set or len(train) > SMALL
    if known or train.shape[2] == 1:  # nothing to mirror in a column, such as a row of a table
        return []
    helps, why = _decided(augment, train, held_out, given)
    if not helps:
        return []
    return [f"Horizontal flips may help, as {why}: add --augment flip."]


def _decided(
    augment: AugmentConfig, train: ImageSet, held_out: ImageSet, given: Sequence[str]
) -> tuple[bool, str]:
    """Return whether flips help, and why."""
    gain = flip_gain(train, held_out)
    if gain is None:
        count = counted(len(held_out), "validation image")
        return False, f"{count} cannot tell whether they help, which takes {FEWEST}"
    if not gain.is_there:
        return False, _by(gain)
    flips = augment.model_copy(update={"flip": True})
    if given and not augment.unchecked:
        if faults := _faults("flip", flips, train, held_out, given):
            return False, f"a flip {'; '.join(faults)}"
    return True, _by(gain)


def _by(gain: Gain) -> str:
    return (
        f"mirrored copies raise the log-likelihood of small validation images under a normal "
        f"distribution by {gain.nats:.1f} ± {2 * gain.error:.1f} nats, and a probe tells "
        f"{gain.recognised:.0%} of them from their mirror images (50% is chance)"
    )
