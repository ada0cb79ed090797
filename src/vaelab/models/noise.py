"""Random numbers of a global batch, so that results do not depend on the number of processes.

In data-parallel training every process seeds the global generator alike, draws the noise of the
*whole* batch and keeps the rows of its own images. Drawing is cheap; a result that changes with
the number of processes is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_shard: ContextVar[tuple[int, int, int] | None] = ContextVar("shard", default=None)
_rows: ContextVar[list[torch.Generator] | None] = ContextVar("rows", default=None)


def seed(number: int, device: torch.device) -> None:
    """Seed PyTorch's global generators of the CPU and of ``device``, and no others.

    ``torch.manual_seed`` seeds those of all devices there could be, and for each one that is not
    in use formats a stack trace: half a millisecond, which a training step would pay twice.
    """
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(number)


@contextmanager
def sharded(start: int, stop: int, total: int) -> Iterator[None]:
    """Within this context the local batch is rows ``start`` to ``stop`` of ``total`` images.

    Raises:
        ValueError: when the rows do not lie within the global batch.
    """
    if not 0 <= start <= stop <= total:
        raise ValueError(f"rows {start} to {stop} do not lie within a batch of {total}")
    token = _shard.set((start, stop, total))
    try:
        yield
    finally:
        _shard.reset(token)


@contextmanager
def repeated(times: int) -> Iterator[None]:
    """Within this context the local batch has every image so many times, one beside the other."""
    shard = _shard.get()
    if shard is None:
        yield
        return
    start, stop, total = shard
    with sharded(start * times, stop * times, total * times):
        yield


@contextmanager
def row_by_row(seeds: Sequence[int]) -> Iterator[None]:
    """Within this context the noise of every row of the local batch follows from its own seed.

    So a result for a row depends on nothing but the row, and different rows get independent noise.
    """
    token = _rows.set([torch.Generator().manual_seed(seed) for seed in seeds])
    try:
        yield
    finally:
        _rows.reset(token)


def share() -> float:
    """Return which share of the global batch the local one is; 1 without other processes."""
    shard = _shard.get()
    return 1.0 if shard is None else (shard[1] - shard[0]) / shard[2]


def normal(
    shape: Sequence[int],
    *,
    batch_dim: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw standard normal noise of ``shape``, whose dimension ``batch_dim`` is the batch.

    Raises:
        ValueError: when the batch is not the local one that `sharded` announced.
    """
    return _draw(torch.randn, shape, batch_dim, device, dtype)


def uniform(
    shape: Sequence[int],
    *,
    batch_dim: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw noise uniform on [0, 1) of ``shape``, whose dimension ``batch_dim`` is the batch.

    Raises:
        ValueError: when the batch is not the local one that `sharded` announced.
    """
    return _draw(torch.rand, shape, batch_dim, device, dtype)


def mask(shape: Sequence[int], keep: float, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Draw 1 with probability ``keep`` and 0 otherwise, for the rows of a layer's input.

    Rows are the local batch or, as where a decoder gets S samples of each image, S times that.

    Raises:
        ValueError: when they are not.
    """
    start, stop, total = _shard.get() or (0, shape[0], shape[0])
    samples, rest = divmod(shape[0], stop - start)
    if rest:
        raise ValueError(f"a mask of shape {tuple(shape)} has no batch of {stop - start}")
    whole = torch.empty((samples, total, *shape[1:]), device=device, dtype=dtype)
    return whole.bernoulli_(keep)[:, start:stop].reshape(tuple(shape))


def _draw(
    sampler: Callable[..., Tensor],
    shape: Sequence[int],
    batch_dim: int,
    device: torch.device | str | None,
    dtype: torch.dtype,
) -> Tensor:
    generators = _rows.get()
    if generators is not None:
        if shape[batch_dim] != len(generators):
            raise ValueError(f"{shape[batch_dim]} rows, but seeds for {len(generators)}")
        one = [size for place, size in enumerate(shape) if place != batch_dim % len(shape)]
        each = [sampler(one, generator=generator, dtype=dtype) for generator in generators]
        return torch.stack(each, batch_dim % len(shape)).to(device)
    shard = _shard.get()
    if shard is None:
        return sampler(tuple(shape), device=device, dtype=dtype)
    start, stop, total = shard
    rows = stop - start
    if not -len(shape) <= batch_dim < len(shape) or shape[batch_dim] != rows:
        raise ValueError(f"noise of shape {tuple(shape)} has no batch of {rows} at {batch_dim}")
    whole = list(shape)
    whole[batch_dim] = total
    return sampler(whole, device=device, dtype=dtype).narrow(batch_dim, start, rows)
