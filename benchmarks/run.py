"""Runs all benchmarks one after another and writes their tables to one page.

``python benchmarks/run.py`` takes most of an hour and wants an idle machine; ``--quick`` takes
some minutes and only shows that all of them still work.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import Table, describe, load, parser

HERE = Path(__file__).parent
SCRIPTS = ("throughput", "time_to_elbo", "quality", "memory", "drag")


def main() -> int:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, help="page to write; RESULTS.md unless --quick")
    arguments.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS)
    given = arguments.parse_args()
    options = ["--threads", str(given.threads), *(["--quick"] if given.quick else [])]
    about = [*describe(), f"`{' '.join(['python benchmarks/run.py', *sys.argv[1:]])}`"]
    tables, failed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.only:
            path = Path(folder) / name
            script = [sys.executable, str(HERE / f"{name}.py"), *options, "--json", str(path)]
            print(f"# {name} (load {load()})\n", flush=True)
            if subprocess.run(script, check=False).returncode:
                failed.append(name)
            if path.exists():
                tables += [Table(**values) for values in json.loads(path.read_text("utf-8"))]
    page = "\n".join(
        [
            "# Results",
            "",
            *(f"- {line}" for line in about),
            *(f"- {name}.py failed; its tables or its output say why." for name in failed),
            "",
            *(table.markdown() for table in tables),
        ]
    )
    out = given.out or (None if given.quick else HERE / "RESULTS.md")
    if out is not None:
        out.write_text(page, encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
