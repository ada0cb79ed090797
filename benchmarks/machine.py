"""What the figures depend on, which contenders are there, and tables."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

OTHERS = ("pythae", "lightning")
INSTALL = "pip install -c constraints.txt -r benchmarks/requirements.txt"


@dataclass
class Table:
    """One table of results with what must be said about it."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def require(self, holds: bool, text: str) -> None:
        """Note whether a requirement holds; `finish` makes the script fail where one does not."""
        self.notes.append(f"{'Holds' if holds else 'FAILS'}: {text}")
        if not holds:
            self.failures.append(text)

    def markdown(self) -> str:
        """Return the table as Markdown, numbers to the right."""
        widths = [
            max(len(row[i]) for row in [self.columns, *self.rows]) for i in range(len(self.columns))
        ]

        def line(cells: Sequence[str]) -> str:
            first, *rest = zip(cells, widths, strict=True)
            padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
            return f"| {' | '.join(padded)} |"

        rule = "|".join(
            ["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""]
        )
        notes = "".join(f"\n- {note}" for note in self.notes)
        body = "\n".join([line(self.columns), rule, *map(line, self.rows)])
        return f"## {self.title}\n\n{body}\n{notes}\n"


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all scripts have."""
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    arguments.add_argument("--quick", action="store_true", help="a short look, not a measurement")
    arguments.add_argument("--threads", type=int, default=cores(), help="of every contender")
    arguments.add_argument("--json", type=Path, help="also write the tables here")
    return arguments


def finish(tables: list[Table], path: Path | None) -> int:
    """Print the tables, write them for `run.py`, and return 1 if a requirement failed, else 0."""
    print("\n".join(table.markdown() for table in tables))
    if path is not None:
        path.write_text(json.dumps([asdict(table) for table in tables]), encoding="utf-8")
    return 1 if any(table.failures for table in tables) else 0


def missing() -> list[str]:
    """Return the other libraries that are not installed; prints how to get them."""
    names = [name for name in OTHERS if find_spec(name) is None]
    if names:
        print(f"{' and '.join(names)} not installed: left out. To compare with them: {INSTALL}\n")
    return names


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> str:
    """Return the load average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return ``median (least–greatest)``."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def median(values: Sequence[float]) -> float:
    """Return the median."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def describe() -> list[str]:
    """Return lines about machine, software and date."""
    names = ("vaelab", "torch", "numpy", "accelerate", *OTHERS)
    versions = [f"{name} {found}" for name in names if (found := _version(name))]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"{_processor()}, {cores()} cores, {memory:.0f} GiB; {platform.system()}, "
        f"Python {platform.python_version()}",
        ", ".join(versions),
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
    ]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    name, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        pairs = [line.split(":", 1) for line in info.read_text().splitlines() if ":" in line]
        found = {key.strip(): value.strip() for key, value in reversed(pairs)}
        name = found.get("model name", name)
        known = set(found.get("flags", "").split())
        flags = " with AVX512-BF16" if "avx512_bf16" in known else ""
        flags = " with AMX" if "amx_bf16" in known else flags
    return name + flags
