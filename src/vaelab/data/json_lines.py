"""Tables of JSON lines, one object a row, such as the ``metadata.jsonl`` of Hugging Face."""

from __future__ import annotations

import json
from typing import Any

from vaelab.data.delimited import LARGEST, Table
from vaelab.errors import DataError


def parse_lines(data: bytes, where: str) -> Table:
    """Read objects as rows, their keys as columns; raises `DataError` when a line is none."""
    if len(data) > LARGEST:
        raise DataError(f"{where}: has {len(data) / 1e6:,.0f} MB, too many for a table. Split it.")
    found: list[dict[str, Any]] = []
    lines: list[int] = []
    for number, line in enumerate(data.decode("utf-8-sig", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(
                f"{where}: line {number} is no JSON object. Write one object a line, such as "
                '{"file_name": "a.png", "label": "cat"}.'
            )
        found.append(row)
        lines.append(number)
    if not found:
        raise DataError(f"{where}: is empty. Remove it, or save it anew.")
    header = list(dict.fromkeys(key.strip() for row in found for key in row))
    rows = [{key.strip(): _cell(value) for key, value in row.items()} for row in found]
    return Table(where, header, [[row.get(key, "") for key in header] for row in rows], lines, ",")


def _cell(value: Any) -> str:
    """A value as a table of text has it."""
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value)
