"""What numbers in files may be: readers check them once, and rely on what they are."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError

LARGEST = 1e40
"""No measured number is larger: float32 ends at 3.4e38, and so do means over it."""

Number = Annotated[float, Field(strict=True, ge=-LARGEST, le=LARGEST)]
Size = Annotated[float, Field(strict=True, ge=0, le=LARGEST)]
Whole = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
Natural = Annotated[int, Field(strict=True, ge=1, lt=2**53)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def first_fault(error: ValidationError) -> str:
    """Return the first key that is wrong, the reason, and what was found there."""
    fault = error.errors()[0]
    where, found = ".".join(map(str, fault["loc"])), fault["input"]
    got = "" if isinstance(found, (dict, list)) else f" (got {found!r:.60})"
    return f"{where:.100}: {fault['msg']:.200}{got}".removeprefix(": ")
