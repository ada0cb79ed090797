"""One pass over a set of images in batches.

The order of a pass is a function of (seed, epoch) alone, so training resumes in the middle of a
pass without replaying it. Images stay uint8 until they are on the device that needs them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vaelab.config import Binarize
from vaelab.data.filed import FileImages
from vaelab.data.images import ImageSet
from vaelab.errors import DataError


@dataclass(frozen=True, eq=False)
class Batch:
    """B images as a model sees them.

    Arguments:
        images: float32 in [0, 1], ``(B, C, H, W)``: what the encoder sees.
        target: what the likelihood sees: the images, or a binarised draw of them.
        labels: int64 ``(B,)``, or None.
        attributes: float32 ``(B, A)``, NaN where unknown, or None.
        index: int64 ``(B,)``: position of each image in its set.
        class_names, attribute_names: of the set, by which a model finds what it knows; without
            them labels and attributes are taken as those of its training images.
    """

    images: Tensor
    target: Tensor
    labels: Tensor | None
    attributes: Tensor | None
    index: Tensor
    class_names: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        images = self.images.to(device)
        return Batch(
            images,
            images if self.target is self.images else self.target.to(device),
            None if self.labels is None else self.labels.to(device),
            None if self.attributes is None else self.attributes.to(device),
            self.index.to(device),
            self.class_names,
            self.attribute_names,
        )


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The permutation of ``range(n)`` for one pass; touches no global random state."""
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randperm(n, generator=generator)


def binarize(images: Tensor, how: Binarize, noise: Tensor | None = None) -> Tensor:
    """Targets of a Bernoulli likelihood.

    ``none`` gives the images as they are, ``threshold`` the pixels above 1/2, ``dynamic`` a draw
    with each pixel's grey value as probability (Salakhutdinov and Murray, 2008): 1 where
    ``noise``, uniform in [0, 1) and of the shape of the images, is below it.
    """
    if how == "none":
        return images
    if how == "threshold":
        return (images > 0.5).to(images.dtype)
    if noise is None:
        raise ValueError("dynamic binarisation needs uniform noise of the shape of the images")
    return (noise < images).to(images.dtype)


def fetch(
    images: ImageSet,
    index: Tensor,
    device: torch.device | str,
    drawn: tuple[int, int] | None = None,
) -> Batch:
    """The images at ``index`` as a `Batch` on a device.

    ``drawn``, (seed, epoch), reads those of a live set anew for this pass.
    """
    device = torch.device(device)
    live = None if drawn is None else images.live
    taken = images.take(index) if live is None or drawn is None else live.take(index, *drawn)
    if device.type == "cuda" and taken.device.type == "cpu":
        taken = taken.pin_memory()  # so that the copy runs beside the computation
    pixels = taken.to(device, non_blocking=True).to(torch.float32)
    if not taken.is_floating_point():
        pixels = pixels.div_(255)
    labels, attributes = (
        None if values is None else values[index.to(values.device)].to(device)
        for values in (images.labels, images.attributes)
    )
    names = (images.class_names, images.attribute_names)
    return Batch(pixels, pixels, labels, attributes, index.to(device), *names)


def resident(images: ImageSet, device: torch.device | str) -> ImageSet:
    """The set with its tensors on a CUDA device, if they take at most half of its free memory.

    Call it once before the passes: `Batches` then gathers on the device. Returns the set itself
    for another device, for images that stay in a file, and where it is resident already.
    """
    device = torch.device(device)
    pixels = images.images
    if device.type != "cuda" or not isinstance(pixels, Tensor) or pixels.device.type == "cuda":
        return images
    if pixels.numel() > torch.cuda.mem_get_info(device)[0] // 2:
        return images
    return replace(
        images,
        images=pixels.to(device),
        labels=None if images.labels is None else images.labels.to(device),
        attributes=None if images.attributes is None else images.attributes.to(device),
    )


def shard(size: int, rank: int, world: int) -> tuple[int, int]:
    """First and last-plus-one row of process ``rank`` in a batch of ``size`` images.

    All of them where there are fewer images than processes: each then computes the same.
    """
    if size < world:
        return 0, size
    each, rest = divmod(size, world)
    start = rank * each + min(rank, rest)
    return start, start + each + (rank < rest)


class Batches:
    """One pass over a set, as raw batches (``target`` is ``images``) on a device.

    Arguments:
        images: the set; see `resident` for CUDA.
        batch_size: images a batch over all processes; the last batch may be smaller.
        device: where the batches go.
        seed, epoch: choose the order; see `epoch_order`.
        start: first batch of the pass, to resume within it.
        shuffle: false for the order of the set, as it was read once.
        rank, world: each of ``world`` processes gets contiguous shard ``rank`` of every batch; see
            `shard`.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        *,
        device: torch.device | str,
        seed: int = 0,
        epoch: int = 0,
        start: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world or start < 0:
            raise ValueError(f"{batch_size=} {start=} {rank=} {world=}")
        if min(batch_size, len(images)) < world:
            raise DataError(
                f"batches of {min(batch_size, len(images))} images cannot feed {world} processes. "
                "Use fewer processes or larger batches."
            )
        self._images = images
        self._device = torch.device(device)
        self._drawn = (seed, epoch) if shuffle else None
        n = len(images)
        order = epoch_order(n, seed, epoch) if shuffle else torch.arange(n)
        full, rest = divmod(n, batch_size)
        ends = [end * batch_size for end in range(1, full + 1)] + [n] * (rest > 0)
        self._rows = [
            order[end - size : end][slice(*shard(size, rank, world))]
            for end, size in ((end, end % batch_size or batch_size) for end in ends[start:])
        ]

    def __len__(self) -> int:
        """Batches that are left from ``start`` on."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Batch]:
        images = self._images.images
        for number, rows in enumerate(self._rows, 1):
            batch = fetch(self._images, rows, self._device, self._drawn)
            if isinstance(images, FileImages) and number < len(self._rows):
                images.announce(self._rows[number])
            yield batch
