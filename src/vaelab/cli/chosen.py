"""Which images a command is about: all of what was named, or one picked out by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer

from vaelab.cli.images import PART_NAMES, given_images, part_of, splits_of
from vaelab.cli.output import output
from vaelab.cli.reading import config_of
from vaelab.errors import ConfigError
from vaelab.opening import expanded

if TYPE_CHECKING:
    from torch import Tensor

    from vaelab.data.images import ImageSet
    from vaelab.models.vae import Vae
    from vaelab.training.run import Run

Images = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[IMAGES]...",
        help="Image files, folders or arrays.",
        show_default="the run's own",
    ),
]
One = "Number of an image, its name in the data, or a file."


def read_all(run: Run, sources: Sequence[str], skip_bad: bool = False) -> ImageSet:
    """Return all images of files, folders and arrays, brought to the shape of the run's model.

    Names are paths inside a folder and numbers in an array, after what was named where that is
    more than one thing.
    """
    from dataclasses import replace

    from vaelab.data.gathered import gathered
    from vaelab.data.titles import listed

    found = []
    groups = _groups(sources)
    for group in groups:
        images = _read(run, group, skip_bad)
        if len(groups) > 1 and isinstance(group, str):
            names = [f"{group.rstrip('/')}/{images.name(k)}" for k in range(len(images))]
            images = replace(images, names=listed(names))
        found.append(images)
    return gathered(found)


def _groups(sources: Sequence[str]) -> list[str | list[str]]:
    """Return what is read on its own: each folder and array, and neighbouring files together."""
    from vaelab.data.folder import is_image

    groups: list[str | list[str]] = []
    for source in sources:
        path = expanded(source)
        if len(sources) == 1 or not path.is_file() or not is_image(path):
            groups.append(source)
        elif groups and isinstance(groups[-1], list):
            groups[-1].append(source)
        else:
            groups.append([source])
    return groups


def frame_of(source: str) -> tuple[str, str] | None:
    """Return the file and the mark of ``file#12``, the name of a page or frame; None of another."""
    file, mark, number = source.rpartition("#")
    if not mark or expanded(source).exists() or not expanded(file).is_file():
        return None
    return file, f"#{number}"


def _read(run: Run, source: str | list[str], skip_bad: bool) -> ImageSet:
    from vaelab.data.gathered import whole
    from vaelab.data.load import fitted_note, load_config

    if isinstance(source, str) and (frame := frame_of(source)) is not None:
        import torch

        images = _read(run, frame[0], skip_bad)
        names = [images.name(row) for row in range(len(images))]
        rows = [row for row, name in enumerate(names) if name.endswith(frame[1])]
        if not rows:
            raise ConfigError(f"{source}: there is no such image; {frame[0]} has {names[0]} first.")
        return images.subset(torch.tensor(rows))
    (channels, height, width), _ = run.trained_on()
    config = config_of(run).data
    if note := fitted_note(source, (channels, height, width), config.fit, config.frames):
        output.say(note)
    fitted = config.model_copy(
        update={
            "size": [height, width],
            "channels": channels,
            "attributes": [],  # they are only looked at
            "group": None,
            "split": [1.0, 0.0, 0.0],
            "skip_bad": skip_bad,
        }
    )
    with output.counter("reading images") as progress:
        splits = load_config(fitted, source, progress=progress)
    for note in splits.notes:
        if "are the training images" not in note:
            output.say(note)
    return whole(splits)


def images_of(
    run: Run,
    model: Vae,
    sources: Sequence[str],
    data: str | None,
    split: str | None,
    skip_bad: bool = False,
    option: str | None = "--data",
) -> ImageSet:
    """Return what a command is about.

    Arguments:
        run: the run.
        model: its model.
        sources: files, folders and arrays, if any were named.
        data: what was named by ``--data``.
        split: the part, ``--split``; without it all of other images, and the run's test images.
        skip_bad: leave unreadable ones out.
        option: how the command is told of others, for messages.
    """
    if sources and data is not None:
        raise ConfigError("--data: name images once, as arguments or by --data.")
    named = [data] if data is not None else list(sources)
    if named and split is None:
        return read_all(run, named, skip_bad)
    if len(named) > 1:
        raise ConfigError("--split: takes a part of one data set, and several were named.")
    spec = named[0] if named else None
    splits = splits_of(run, model, spec, bare=True, option=option, skip_bad=skip_bad)
    return part_of(splits, split or "test")


@dataclass(frozen=True)
class Chosen:
    """One image.

    Arguments:
        image: uint8 ``(C, H, W)``.
        name: which it is.
    """

    image: Tensor
    name: str


class Chooser:
    """Picks images by number, by name in the data, or by the path of a file.

    The data is read when it is needed, and once.

    Arguments:
        run: the run.
        model: its model.
        data: what was named by ``--data``; the run's own images otherwise.
        split: the part to look in; by default the test part for numbers and all for names.
    """

    def __init__(
        self, run: Run, model: Vae, data: str | None, split: str | None, skip_bad: bool
    ) -> None:
        self._run, self._model, self._data = run, model, data
        self._split, self._bad = split, skip_bad
        self._parts: dict[str, ImageSet] | None = None

    def pick(self, which: str, option: str) -> Chosen:
        """Return the image that is meant.

        Raises:
            ConfigError: there is none of that number or name.
            DataError: the file is no image.
        """
        if which.isdecimal():
            return self._numbered(int(which), option)
        path = expanded(which)
        if path.is_dir():
            raise ConfigError(f"{option} {which}: is a folder. Name one image of it.")
        if path.is_file() or frame_of(which) is not None:
            images = read_all(self._run, [which])
            if len(images) > 1:
                raise ConfigError(
                    f"{option} {which}: holds {len(images):,} images, and one is needed. Pass "
                    f"--data {which} and the number of one."
                )
            return _chosen(images, 0, which)
        return self._named(which, option)

    def _read(self) -> dict[str, ImageSet]:
        if self._parts is None:
            if self._data is not None and self._split is None:
                self._parts = {self._data: read_all(self._run, [self._data], self._bad)}
            else:
                given = given_images(
                    self._run, self._model, self._data, bare=True, skip_bad=self._bad
                )
                splits = given.splits
                self._parts = {name: part_of(splits, name) for name in PART_NAMES}
                if self._split is not None:
                    self._parts = {self._split: part_of(splits, self._split)}
        return self._parts

    def _numbered(self, number: int, option: str) -> Chosen:
        part, images = list(self._read().items())[-1]  # of a run's own: test
        if number >= len(images):
            raise ConfigError(
                f"{option} {number}: there are {len(images)} images, numbered from 0."
            )
        named = images.names is not None and images.names.files
        return _chosen(images, number, images.name(number) if named else f"{part} image {number}")

    def _named(self, which: str, option: str) -> Chosen:
        parts = self._read()
        ends: dict[str, tuple[ImageSet, int]] = {}
        every: list[str] = []
        for images in parts.values():
            for number in range(len(images)):
                name = images.name(number)
                if name == which:
                    return _chosen(images, number, name)
                if name.endswith(f"/{which}"):
                    ends[name] = images, number
                every.append(name)
        if len(ends) == 1:
            ((name, (images, number)),) = ends.items()
            return _chosen(images, number, name)
        where = self._data or f"the images of {self._run}"
        if ends:
            several = ", ".join(sorted(ends)[:3])
            raise ConfigError(f"{option} {which}: {several} have this name. Write one in full.")
        near = [*get_close_matches(which, every[:10_000], 1), *every[:1]][0]
        raise ConfigError(
            f"{option} {which}: there is no such file, and no image of this name in {where}. "
            f"Name a file, an image such as {near}, or a number."
        )


def _chosen(images: ImageSet, number: int, name: str) -> Chosen:
    import torch

    return Chosen(images.take(torch.tensor([number]))[0], name)
