"""A model that is built to take weights needs no more memory than these do."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from torch import Size, Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vaelab.files import damaged

_SPARE = 2**26  # numbers beside those of the file
_MATRICES = ("aten::tril_indices", "aten::triu_indices", "aten::eye")  # of rows and columns


class Allowance(TorchDispatchMode):
    """Refuses tensors beyond the numbers of a file while a model is built for them.

    A configuration of a few bytes can ask for terabytes: the weights beside it are what it should
    agree with, and their file cannot lie about its length.

    Arguments:
        tensors: of the file.
        path: of the file, for the message.

    Raises:
        RunError: a tensor is asked for that the file cannot fill.
    """

    def __init__(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = _SPARE + 4 * sum(tensor.numel() for tensor in tensors.values())
        self.path = path

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count what a call makes, before it does."""
        if not any(isinstance(arg, Tensor) for arg in args) and args:
            size = args[0]
            if isinstance(size, (list, tuple, Size)) and all(isinstance(n, int) for n in size):
                self._take(prod(size))
            elif func._schema.name in _MATRICES:
                self._take(prod(args[:2]))
            elif all(isinstance(arg, (int, float)) for arg in args[:2]):  # arange
                self._take(int(max(abs(arg) for arg in args[:2])))
        return func(*args, **(kwargs or {}))

    def _take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise damaged(self.path, "its configuration asks for a far larger model than it holds")
