"""From whatever holds images to three sets of them."""

from __future__ import annotations

import functools
import hashlib
import operator
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaelab.config import IN_MEMORY, DataConfig, Fit, ValueRange
from vaelab.data import columns, toy
from vaelab.data.arrays import idx_source, is_idx
from vaelab.data.containers import READERS, UNREAD, file_source, refuse_pickled_images
from vaelab.data.folder import path_source
from vaelab.data.hashes import hash_all
from vaelab.data.images import ImageSet, Splits
from vaelab.data.in_hand import source_in_hand
from vaelab.data.parquet import parquet_source, shards
from vaelab.data.pixels import Geometry, colours
from vaelab.data.source import Progress, Source
from vaelab.data.split import check_shares, split_rows
from vaelab.data.stems import BY_NAME, groups_of
from vaelab.data.store import Stored, default_cache, store
from vaelab.data.summary import repeats_note
from vaelab.data.titles import titles
from vaelab.errors import ConfigError, DataError, refuse_pickle
from vaelab.opening import expanded

EMBEDDED = ("mnist", toy.NAME, IN_MEMORY)
"""Data that no path leads to."""

MNIST = Path(__file__).parent / "mnist"
_MNIST_SHARES = (55 / 70, 5 / 70, 10 / 70)  # 55,000 + 5,000 of the 60,000 training images


def load_data(
    source: Any,
    *,
    size: int | Sequence[int] | None = None,
    channels: int | None = None,
    fit: Fit = "pad",
    range: ValueRange = "auto",
    background: str | None = None,
    frames: str = "all",
    skip_bad: bool = False,
    split: Sequence[float] = (0.8, 0.1, 0.1),
    split_seed: int = 0,
    group: str | None = None,
    attributes: str | Sequence[str] = (),
    signed: Sequence[str] = (),
    live: bool = False,
    optional: bool = False,
    memory_budget: int | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Splits:
    """Read images, bring them to one shape and split them.

    Arguments:
        source: ``"mnist"`` (embedded; its own 55,000/5,000/10,000 split), ``"swiss-roll"`` (toy
            points), a path (folder or .zip of images, an image, folder of IDX files, .npy, .npz,
            …), a list of paths of images, an array or tensor ``(N, H, W)``, ``(N, C, H, W)`` or
            ``(N, H, W, C)``, a tuple of one of these and its labels,
            Keras' ``((x, y), (x, y))``, a mapping of arrays or of parts, a DataFrame, or any object
            with ``len(source)`` and ``source[index]`` that gives an image, ``(image, label, …)`` or
            ``{"image": …, "label": …}``. Labels are whole numbers or text; −1, None, NaN and ""
            are unknown.
        size: height and width to bring every image to, or one number for a square; None where
            they are equal already, or, of image files, for a middle size (`vaelab.data.sizes`).
        channels: 1 grey, 3 RGB, 4 RGBA; None as they are.
        fit: ``pad``, ``crop`` or ``stretch``; see `Geometry`.
        range: values that are black and white, ``auto`` or ``full``; see `vaelab.data.levels`.
        background: ``white``, ``black`` or ``#rrggbb``; see `Geometry`.
        frames: of a stack or an animation: ``all``, ``first`` or ``every=K``.
        skip_bad: leave unreadable images out, with a note, instead of raising.
        split: shares of train, validation and test; used for the parts the data does not name.
        split_seed: seed of the draw. The result depends on names, not on the file system's order.
        group: column of a table whose values keep images in one part of a split that is drawn;
            ``file-name``: images whose names differ in their last number alone stay together.
        attributes: names of the attributes to use, in this order: the data's own, or else measured
            on the images (`vaelab.data.attributes.MEASURES`) and cached; ``all`` for all of them.
            None named: the data's own.
        signed: attributes whose -1 and 1 are numbers; those of others, where they hold nothing
            else, are read as 0 and 1.
        live: read the training images of a data set in Python anew in every epoch, as random
            transforms give them; validation and test images are read once.
        optional: leave out attributes that are neither, in place of raising.
        memory_budget: bytes that loading may hold (twice the images); above, they stay in
            a file. Default: half of the free memory.
        cache_dir: folder of those files and of measured attributes. Default: ``$VAELAB_CACHE`` or
            ``~/.cache/vaelab``.
        progress: called as ``progress(images read, images in all)``.

    Raises:
        DataError: the images cannot be used; says which, why, and what to do.
        ConfigError: an attribute is neither the data's own nor measured.
    """
    check_shares(split)
    geometry = Geometry(_height_width(size), channels, fit, range, background, frames)
    names = [attributes] if isinstance(attributes, str) else list(attributes)
    found, stored, names = _read(
        source,
        geometry,
        names,
        skip_bad,
        memory_budget,
        cache_dir,
        progress,
        live,
        optional,
        group,
        signed,
    )
    images = _all_images(found, stored, cache_dir)
    if names:
        cache = default_cache() if cache_dir is None else cache_dir
        images = columns.with_attributes(images, names, found, cache, progress)
    embedded = isinstance(source, str) and source == "mnist"
    shares = _MNIST_SHARES if embedded else split
    return _split(found, images, stored, shares, split_seed)


def fitted_note(
    source: Any, shape: tuple[int, int, int], fit: Fit = "pad", frames: str = "all"
) -> str:
    """Return how many images are not of a shape ``(C, H, W)`` and how they are brought to it."""
    channels, height, width = shape
    with warnings.catch_warnings():  # of Pillow, on odd files
        warnings.simplefilter("ignore")
        found = _source(source, Geometry(frames=frames)).shapes()
    colour = sum(count for each, count in found.items() if each[0] != channels)
    size = sum(count for each, count in found.items() if each[1:] != shape[1:])
    done = [f"made {colours(channels)}"] if colour else []
    done += [f"fitted to {height}×{width} pixels ({fit})"] if size else []
    changed = sum(count for each, count in found.items() if each != shape)
    if not done:
        return ""
    each = "1 image was" if changed == 1 else f"{changed:,} images were"
    return f"{each} {' and '.join(done)}, as the model needs."


def _read(
    source: Any,
    geometry: Geometry,
    names: list[str],
    skip_bad: bool,
    budget: int | None,
    cache: Path | None,
    progress: Progress | None,
    live: bool = False,
    optional: bool = False,
    group: str | None = None,
    signed: Sequence[str] = (),
) -> tuple[Source, Stored, list[str]]:
    with warnings.catch_warnings():  # of Pillow and NumPy on odd files; faults are errors here
        warnings.simplefilter("ignore")
        by_name = group == BY_NAME
        found = _source(source, geometry, live, None if by_name else group)
        found.read_signs(signed)
        if by_name:
            found.groups = groups_of(list(map(found.title, range(found.count))))
        if group is not None and found.groups is None:
            raise ConfigError(_no_groups(found.name, group))
        names = columns.choose(names, found.attribute_names, optional)
        stored = store(found, budget, cache, progress)
    if found.bad and (not skip_bad or len(found.bad) == found.count):
        raise found.unreadable()
    found.leave_out_bad()
    return found, stored, names


def _no_groups(name: str, group: str) -> str:
    if group == BY_NAME:
        return f"data.group: no names of {name} differ in more than a number. Leave it out."
    return f"data.group: {name} has no table with a column {group!r}."


def _kept(source: Source) -> Tensor:
    """Return the numbers of the images that could be read."""
    return torch.from_numpy(np.flatnonzero(source.good()))


def _labels(source: Source, kept: Tensor) -> NDArray[np.int64] | None:
    return None if source.labels is None else source.labels[kept.numpy()]


def _groups(source: Source, kept: Tensor) -> list[str] | None:
    return None if source.groups is None else [source.groups[row] for row in kept.tolist()]


def load_config(
    config: DataConfig,
    source: Any = None,
    *,
    optional: bool = False,
    memory_budget: int | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Splits:
    """Load what the ``data`` section names, or ``source`` in its place; see `load_data`."""
    return load_data(
        config.spec if source is None else source,
        size=config.size,
        channels=config.channels,
        fit=config.fit,
        range=config.range,
        background=config.background,
        frames=config.frames,
        skip_bad=config.skip_bad,
        split=config.split,
        split_seed=config.split_seed,
        group=config.group,
        attributes=config.attributes,
        signed=config.signed,
        live=config.live and not isinstance(source, (str, Path)),  # of the run's own data
        optional=optional,
        memory_budget=memory_budget,
        cache_dir=cache_dir,
        progress=progress,
    )


def _height_width(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    try:
        sides = [operator.index(side) for side in (size if isinstance(size, Sequence) else [size])]
    except TypeError:
        sides = []
    if len(sides) not in (1, 2):
        raise DataError(f"size {size!r}: give height and width, such as (37, 53), or one number.")
    return sides[0], sides[-1]


def _source(
    source: Any, geometry: Geometry, live: bool = False, group: str | None = None
) -> Source:
    if live and isinstance(source, (str, Path)):
        raise ConfigError(
            f"data.live: {source} gives the same images each time it is read. Leave live out; it "
            "is for a data set with random transforms that is passed in Python."
        )
    if isinstance(source, str) and source == "mnist":
        _check_mnist()
        found = idx_source(MNIST, geometry)
        found.name = "mnist"
        return found
    if isinstance(source, str) and source == toy.NAME:
        return toy.swiss_roll_source(geometry)
    if isinstance(source, (str, Path)):
        return _path_source(expanded(source), geometry, group)
    return source_in_hand(source, geometry, live)


def _path_source(path: Path, geometry: Geometry, group: str | None) -> Source:
    try:
        if path.is_file():
            refuse_pickled_images(path)
        if not path.is_dir():
            refuse_pickle(path)
        if path.is_dir():
            if found := shards(path):
                return parquet_source(path, found, geometry)
            if is_idx(path):
                return idx_source(path, geometry)
        suffix = path.suffix.lower()
        of_many = suffix in READERS or (suffix in UNREAD and suffix != ".zip")
        if not of_many and (images := path_source(path, geometry, group)) is not None:
            return images
        if path.is_file():
            return file_source(path, geometry)
    except (OSError, ValueError) as error:  # permissions, a name that is too long or holds NUL
        raise DataError(f"{path}: cannot be read ({error}). Check the path.") from None
    if os.path.lexists(path):
        raise DataError(f"{path}: is a pipe, a device or a broken link, not a file. Pass a file.")
    raise DataError(f"{path}: does not exist. Check the path, or pass mnist or swiss-roll.")


@functools.cache
def _check_mnist() -> None:
    for line in (MNIST / "SHA256SUMS").read_text(encoding="ascii").splitlines():
        digest, name = line.split()
        if hashlib.sha256((MNIST / name).read_bytes()).hexdigest() != digest:
            raise DataError(f"{MNIST / name}: is damaged (SHA-256 differs). Reinstall vaelab.")


def _all_images(source: Source, stored: Stored, cache: Path | None) -> ImageSet:
    images = ImageSet(
        stored.images,
        None if source.labels is None else torch.from_numpy(source.labels),
        None if source.attributes is None else torch.from_numpy(source.attributes),
        source.class_names,
        source.attribute_names,
        names=titles(source),
    )
    hash_all(images, source, default_cache() if cache is None else cache)  # parts keep theirs
    return images


def _split(
    source: Source, images: ImageSet, stored: Stored, shares: Sequence[float], seed: int
) -> Splits:
    kept = _kept(source)
    rows, held_out, split_notes = split_rows(
        source.parts[kept.numpy()], shares, seed, _labels(source, kept), _groups(source, kept)
    )
    first = kept[rows[0]]
    frozen = images.subset(first)
    validation, test = (
        frozen if part is rows[0] else images.subset(kept[part]) for part in rows[1:]
    )
    live = source.live(first)
    train = frozen if live is None else replace(frozen, live=live)
    notes = [*source.notes, source.conversion, *stored.notes, *split_notes]
    if train.labels is not None:
        there = set(train.labels.tolist())
        gone = [name for k, name in enumerate(train.class_names) if k not in there]
        notes += [f"No training image is of class {', '.join(gone[:5])}."] if gone else []
    if source.bad:
        notes.insert(0, f"{source.fault()} and were left out.")
    splits = Splits(source.name, train, validation, test, held_out)
    notes.append(repeats_note(splits))
    said = tuple(filter(None, notes))
    return replace(splits, notes=said, range=stored.range, size=source.fitted)
