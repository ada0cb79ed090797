"""Everything that an exact resume needs, as one file of tensors and one JSON object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.optim import Optimizer

from vaelab.checked import Number, Size, Whole, first_fault
from vaelab.files import damaged

LOOKS, TAKEN = ("validation", "training"), "with the weights taken"
"""Which images are looked at before the first step, and again with weights that were taken."""


@dataclass
class Position:
    """Where training stands.

    Arguments:
        step: steps taken.
        epoch: epoch under way, 0-based.
        batch: batches of this epoch already used.
        best: best validation loss so far, in nats per image.
        stale: epochs since then.
        sound: whether the last validation loss was finite.
        log_bytes: length of the log at this moment.
        log_crc: CRC-32 of the log at this moment; None in a run of an older version.
        seconds: time spent training.
        finished: whether training is over.
        told: notes already given, so that a resumed run does not repeat them.
        start: figures of ``validation`` and ``training`` images before the first step, see
            `vaelab.training.divergence.look`; empty in runs of an older vaelab.
    """

    step: Whole = 0
    epoch: Whole = 0
    batch: Whole = 0
    best: Number | None = None
    stale: Whole = 0
    sound: bool = True
    log_bytes: Whole = 0
    log_crc: Whole | None = None
    seconds: Size = 0.0
    finished: bool = False
    told: list[str] = field(default_factory=list)
    start: dict[str, dict[str, Number]] = field(default_factory=dict)

    def dump(self) -> dict[str, Any]:
        """Return the position as JSON-able values."""
        return asdict(self)


def read_position(meta: Mapping[str, Any], path: Path) -> Position:
    """Return the position in the metadata of a state; raises `RunError` when there is none."""
    try:
        position = TypeAdapter(Position).validate_python(meta["position"])
    except (KeyError, ValidationError) as error:
        why = first_fault(error) if isinstance(error, ValidationError) else "there is none"
        raise damaged(path, f"position: {why}") from None
    if fault := _fault_of_start(position.start):
        raise damaged(path, f"position.start: {fault}")
    return position


def _fault_of_start(start: Mapping[str, Mapping[str, float]]) -> str:
    """Return what is wrong with the figures before the first step, if anything."""
    looks = {*LOOKS, *(f"{name}, {TAKEN}" for name in LOOKS)}
    if start and not set(LOOKS) <= start.keys() <= looks:
        return f"must be of {' and '.join(LOOKS)} images (got {', '.join(start)!r:.100})"
    for name, figures in start.items():
        if figures and not {"loss", "error"} <= figures.keys():
            return f"{name}: must have loss and error (got {', '.join(figures)!r:.100})"
    return ""


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under ``prefix/NAME``."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under ``prefix/``, by the rest of their name."""
    start = f"{prefix}/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def pack_optimizer(optimizer: Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Return the state of an optimizer as ``PARAMETER/KEY`` tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{names[index]}/{key}": value
        for index, values in state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def unpack_optimizer(
    optimizer: Optimizer, names: list[str], tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Put back what `pack_optimizer` took; raises `RunError` for parameters that are not there."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition("/")
        if parameter not in names:
            raise damaged(path, f"{parameter!r} is no parameter of the model")
        index = names.index(parameter)
        if tensor.shape not in (parameters[index].shape, ()) or not tensor.is_floating_point():
            raise damaged(path, f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}")
        state.setdefault(index, {})[key] = tensor
    for index, found in state.items():
        if found.keys() != (wanted := _keys(optimizer, parameters[index].shape)):
            lacking = ", ".join(sorted(wanted))
            raise damaged(path, f"a parameter has not {lacking} of its optimizer")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _keys(optimizer: Optimizer, shape: torch.Size) -> set[str]:
    """Return the names of the tensors that an optimizer keeps of a parameter.

    It may keep others of a matrix than of a vector, so the shape counts, but no size beyond two.
    """
    one = nn.Parameter(torch.zeros([min(size, 2) for size in shape]))
    one.grad = torch.zeros_like(one)
    kind: Any = type(optimizer)
    alike = kind([one])
    settings = {key: v for key, v in optimizer.param_groups[0].items() if key != "params"}
    alike.param_groups[0].update(settings)
    alike.step()
    return {key for key, value in alike.state[one].items() if isinstance(value, Tensor)}


def check_like(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise `RunError` unless tensors have the names, shapes and types of others."""
    if targets.keys() != tensors.keys():
        odd = sorted(targets.keys() ^ tensors.keys())[0]
        raise damaged(path, f"{odd} is in only one of file and model")
    for name, target in targets.items():
        tensor = tensors[name]
        if target.shape != tensor.shape or target.dtype != tensor.dtype:
            raise damaged(path, f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}")


def restore(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into targets that they fit; raises `RunError` if they do not."""
    check_like(targets, tensors, path)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors[name])


class Average:
    """Exponential moving average of a module's parameters; buffers are the latest.

    θ̄ ← d·θ̄ + (1 − d)·θ after every step, with d = min(decay, (1 + t)/(10 + t)) so that a short
    training is averaged over its own end rather than over its start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.mean = {n: p.detach().clone() for n, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step number ``step``."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        now = [p.detach() for p in self.module.parameters()]
        torch._foreach_lerp_(list(self.mean.values()), now, weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the module have the averaged parameters for a while."""
        kept = {n: p.detach().clone() for n, p in self.module.named_parameters()}
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.module.named_parameters():
            parameter.copy_(values[name])

    def state(self) -> dict[str, Tensor]:
        """Return what the module's ``state_dict`` would be with averaged parameters."""
        return {**self.module.state_dict(), **self.mean}
