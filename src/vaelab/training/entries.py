"""What the lines of a log hold, by their kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from vaelab.checked import Natural, Number, Size, Whole, first_fault


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Begin(_Line):
    id: str


class _Note(_Line):
    text: str
    about: str = "training"
    step: Whole = 0


class _Measured(_Line):
    """A line of numbers; one that was not finite is None."""

    __pydantic_extra__: dict[str, Number | None]
    kind: str
    step: Natural


class _Step(_Measured):
    epoch: Whole
    lr: Size | None = None
    speed: Size | None = None


class _Epoch(_Measured):
    epoch: Natural
    seconds: Size
    active_units: Whole | None = None
    skipped: Whole = 0


_KINDS: dict[str, type[_Line]] = {"run": _Begin, "note": _Note, "step": _Step, "epoch": _Epoch}


def fault_of(entry: Mapping[str, Any]) -> str:
    """Return what is wrong with a line of a log, if anything: the key and the reason."""
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        return f"kind: must be one of {', '.join(_KINDS)} (got {kind!r:.60})"
    try:
        _KINDS[kind].model_validate(entry)
    except ValidationError as error:
        return first_fault(error)
    return ""
