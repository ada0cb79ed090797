"""Where training runs: device, precision and the other processes.

accelerate is used thinly: it finds the processes that ``torchrun`` or ``accelerate launch``
started, averages over them and feeds trackers. The model is not wrapped: a wrapper would have to
know how many players there are, and would turn the distributions that a forward pass returns into
something else.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vaelab.config import TrainingConfig
from vaelab.errors import ConfigError, cut
from vaelab.files import inside

if TYPE_CHECKING:
    from accelerate import Accelerator


_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within this context a training is this process's own, whatever others run beside it."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def _place() -> tuple[int, int]:
    """Return which process this is, and of how many that train together."""
    if _alone.get():
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Tell whether this process, of those that run together, writes files and prints."""
    return _place()[0] == 0


def processes() -> int:
    """Return how many processes train together."""
    return _place()[1]


class Backend:
    """The device, the precision and the processes of a run.

    Raises:
        ConfigError: the device does not exist here, or a tracker is not installed.
    """

    def __init__(self, config: TrainingConfig, folder: str | None = None) -> None:
        self.rank, self.world = _place()
        self.accelerator: Accelerator | None = None
        self.config, self.folder = config, folder
        self.trackers = config.trackers
        if self.trackers and folder is None:
            raise ConfigError("training.trackers: need a run to write to; name one with out.")
        if self.world > 1:
            self.accelerator = _accelerator(config, folder)
            self.device: torch.device = self.accelerator.device
            atexit.register(self.accelerator.state.destroy_process_group)
        else:
            self.device = find_device(config.device)
        self.bf16 = config.precision == "bf16" or (
            config.precision == "auto" and fast_bf16(self.device)
        )

    def start_trackers(self) -> None:
        """Begin to send numbers to the trackers, if any."""
        if self.trackers and self.accelerator is None:
            self.accelerator = _accelerator(self.config, self.folder)
        if self.trackers and self.accelerator is not None:
            self.accelerator.init_trackers("vaelab")

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    @property
    def precision(self) -> str:
        """The precision of the networks' arithmetic; weights are always fp32."""
        return "bf16" if self.bf16 else "fp32"

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which the networks run in the chosen precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def average(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their mean over the processes, in one message."""
        if self.world == 1 or not tensors:
            return
        assert self.accelerator is not None
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        mean = self.accelerator.reduce(flat, reduction="mean")
        for tensor, part in zip(tensors, mean.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process."""
        if self.world == 1:
            return flag
        assert self.accelerator is not None
        total = self.accelerator.reduce(torch.tensor([float(flag)], device=self.device))
        return bool(total.item() > 0)

    def track(self, values: Mapping[str, Any], step: int) -> None:
        """Send numbers to the trackers, if any."""
        if self.accelerator is not None and self.accelerator.trackers:
            numbers = {k: v for k, v in values.items() if isinstance(v, (int, float))}
            self.accelerator.log(numbers, step=step)

    def close(self) -> None:
        """Finish the trackers; the processes stay connected, for there may be another training."""
        if self.accelerator is not None:
            for tracker in self.accelerator.trackers:
                tracker.finish()


def find_device(name: str | torch.device) -> torch.device:
    """Return the device of that name; ``auto`` is CUDA, else MPS, else the CPU."""
    usable, why = _usable(), ""
    if name == "auto":
        return torch.device(usable[0])
    try:
        device = torch.device(name) if isinstance(name, (str, torch.device)) else None
        if device is not None and device.type in usable:
            torch.zeros(1, device=device)
            return device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        why = f" ({reason})" if len(reason) < 100 else ""
    known = " or ".join(("auto", *usable))
    raise ConfigError(f"device: {cut(str(name), 50)!r} is not usable here{why}. Choose {known}.")


def _usable() -> list[str]:
    """Return the kinds of device that are here, the fastest first."""
    found = ["cuda"] if torch.cuda.is_available() else []
    return [*found, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def fast_bf16(device: torch.device) -> bool:
    """Tell whether bfloat16 arithmetic is native, hence faster than float32, on a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        checks: Iterable[str] = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, bool)() for check in checks)
    return False


def _accelerator(config: TrainingConfig, folder: str | None) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.tracking import get_available_trackers

    missing = set(config.trackers) - {str(name) for name in get_available_trackers()}
    if missing:
        names = ", ".join(sorted(missing))
        raise ConfigError(f"training.trackers: {names} not installed; pip install {names}.")
    if config.trackers and folder is not None:
        inside(Path(folder), Path(folder) / "vaelab")  # where TensorBoard writes
    return Accelerator(
        cpu=config.device == "cpu" or not torch.cuda.is_available(),
        log_with=list(config.trackers) or None,
        project_dir=folder,
    )
