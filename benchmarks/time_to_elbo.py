"""Seconds of training until model M reaches a test ELBO of −105 nats with 20 dimensions.

vaelab takes its best recipe for this network (one-cycle AdamW, default precision), pythae a
constant Adam 1e-3; both take batches of 128 of the same 55,000 digits. The same estimator looks at
the same 10,000 test images every so many steps while the clock stands still.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from machine import Table, finish, load, median, missing, parser
from turns import Contender

TARGET = -105.0
LIMIT = 20  # epochs after which a constant rate has failed
LABELS = {
    "vaelab": "vaelab, one-cycle AdamW 0.012, auto precision",
    "vaelab-constant": "vaelab, constant Adam 1e-3, auto precision",
    "pythae": "pythae, constant Adam 1e-3",
}


def race(names: list[str], seed: int, every: int, epochs: int, threads: int) -> dict[str, Any]:
    """Let contenders take turns; returns for each its report when the target was first reached."""
    script = str(Path(__file__).parent / "racers.py")
    running: list[Contender] = []
    reached: dict[str, Any] = dict.fromkeys(names)
    try:
        for name in names:
            length = epochs if name == "vaelab" else LIMIT
            arguments = [script, name, str(seed), str(every), str(length)]
            running.append(Contender(name, arguments, threads))
        waiting = list(running)
        while waiting:
            for contender in list(waiting):
                report = contender.turn()
                if report.get("over") or report["elbo"] >= TARGET:
                    reached[contender.name] = None if report.get("over") else report
                    waiting.remove(contender)
    finally:
        for contender in running:
            contender.stop()
    return reached


def main() -> int:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, help="runs, each of another seed")
    arguments.add_argument("--every", type=int, default=50, help="steps between two looks")
    arguments.add_argument("--epochs", type=int, default=2, help="length of vaelab's one cycle")
    given = arguments.parse_args()
    seeds = range(given.seeds or (1 if given.quick else 3))
    absent = missing()
    names = [name for name in LABELS if name not in absent]
    before = load()
    races = [race(names, seed, given.every, given.epochs, given.threads) for seed in seeds]
    columns = ["contender", "seconds", "÷ pythae", "steps", "reached"]
    table = Table(f"Time to a test ELBO of {TARGET:.0f} nats, 20 dimensions", columns)
    for name in names:
        good = [reached for reached in races if reached[name]]
        if not good:
            table.rows.append([LABELS[name], "never", "", "", f"0 of {len(races)}"])
            continue
        seconds = [reached[name]["seconds"] for reached in good]
        against = [r[name]["seconds"] / r["pythae"]["seconds"] for r in good if r.get("pythae")]
        table.rows.append(
            [
                LABELS[name],
                f"{median(seconds):.1f} ({min(seconds):.1f}–{max(seconds):.1f})",
                f"{median(against):.2f} ({min(against):.2f}–{max(against):.2f})" if against else "",
                f"{median([reached[name]['step'] for reached in good]):.0f}",
                f"{len(good)} of {len(races)}",
            ]
        )
    table.notes = [
        f"Median (least–greatest) over {len(races)} seeds; model M, batch 128, {given.threads} "
        f"threads, contenders in turns of {given.every} steps. Load before: {before}.",
        f"vaelab's cycle is {given.epochs} epochs long (β₂ 0.95, tuned on validation images). "
        "The clock counts what a library does by itself, not the looks at the test images.",
        "Test ELBO: 10,000 images, grey targets, one draw of z each, fp32; standard error 0.25.",
        *(f"{name} is not installed and was left out." for name in absent if name == "pythae"),
    ]
    return finish([table], given.json)


if __name__ == "__main__":
    sys.exit(main())
