"""Which attributes a data set is loaded with: its own by name, and measured ones from a cache."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vaelab import files
from vaelab.data.attributes import MEASURES, VERSION, measure
from vaelab.data.images import ImageSet
from vaelab.data.source import Progress, Source
from vaelab.data.summary import digest_of
from vaelab.errors import ConfigError, RunError

ALL = "all"


def choose(names: Sequence[str], own: Sequence[str], optional: bool = False) -> list[str]:
    """Check names of attributes against the data's own and the measured; spells out ``all``.

    Arguments:
        names: of attributes.
        own: those of the data.
        optional: leave out names that are neither, in place of raising.

    Raises:
        ConfigError: a name is unknown, or given twice.
    """
    known = list(dict.fromkeys([*own, *MEASURES]))
    if list(names) == [ALL] and ALL not in known:
        return known
    if optional:
        names = [name for name in names if name in known]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1, 0.6)
            hint = f"; did you mean {close[0]}?" if close else "."
            raise ConfigError(
                f"data.attributes: there is no attribute {name!r}{hint} The data's own: "
                f"{', '.join(own) or 'none'}. Measured on the images: {', '.join(MEASURES)}."
            )
    twice = [name for name in dict.fromkeys(names) if list(names).count(name) > 1]
    if twice:
        raise ConfigError(f"data.attributes: {twice[0]!r} is named twice. Name it once.")
    return list(names)


def with_attributes(
    images: ImageSet,
    names: Sequence[str],
    source: Source,
    cache: Path,
    progress: Progress | None,
) -> ImageSet:
    """All images of a source with these attributes: its own where it has one, else measured."""
    missing = [name for name in names if name not in images.attribute_names]
    measured = _measured(missing, images, cache, progress) if missing else {}
    bad = torch.tensor(list(source.bad), dtype=torch.int64)
    columns = []
    for name in names:
        if name in measured:
            columns.append(measured[name].index_fill(0, bad, torch.nan))
        else:
            assert images.attributes is not None
            columns.append(images.attributes[:, images.attribute_names.index(name)])
    return images.relabelled(
        attributes=torch.stack(columns, 1),
        attribute_names=tuple(names),
        binary=(),
        units=tuple(MEASURES[name].unit if name in measured else "" for name in names),
    )


def _measured(
    names: Sequence[str], images: ImageSet, cache: Path, progress: Progress | None
) -> dict[str, Tensor]:
    """Measured columns by name, ``(N,)`` each; from the cache as far as they are there."""
    folder = cache / "attributes"
    bare = images.relabelled(
        labels=None, attributes=None, class_names=(), attribute_names=(), units=(), binary=()
    )
    key = digest_of(bare)
    paths = {name: folder / f"{key}-{name}-{VERSION}.safetensors" for name in names}
    found = {}
    for name, path in paths.items():
        with contextlib.suppress(RunError):  # not there yet, or damaged
            found[name] = files.load_tensors(path)[0]["values"]
    missing = [name for name in names if name not in found]
    if missing:
        columns = measure(bare, missing, progress)
        for name, column in zip(missing, columns.unbind(1), strict=True):
            found[name] = column
            with contextlib.suppress(OSError):  # a cache that cannot be written is done without
                files.save_tensors(paths[name], {"values": column}, {"attribute": name})
    return found
