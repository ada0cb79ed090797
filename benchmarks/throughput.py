"""Images a second and peak memory of training model M, against other trainers.

Model M: conv(1→32, 4, s2)–ReLU–conv(32→64, 4, s2)–ReLU–linear, mirrored decoder, D = 20, Bernoulli;
Adam 1e-3, batch 128, MNIST. Every contender runs its own training in a process of its own, with the
same number of threads, in short rounds that take turns. A ratio is formed within each round.
"""

from __future__ import annotations

import sys
from pathlib import Path

from machine import Table, finish, load, median, missing, parser, spread
from turns import Contender

LABELS = {
    "bare": "bare PyTorch loop, one preloaded batch, fp32",
    "vaelab-fp32": "vaelab, fp32",
    "vaelab-auto": "vaelab, default precision (auto)",
    "pythae": "pythae, training pipeline",
    "pythae-lean": "pythae, its trainer over a prepared data set",
    "lightning": "Lightning Trainer, logging the loss",
    "lightning-lean": "Lightning Trainer, all but training turned off",
}
BARS = (
    ("vaelab-fp32", "bare", 0.97),
    ("vaelab-auto", "bare", 1.3),
    ("vaelab-auto", "pythae", 1.3),
    ("vaelab-auto", "lightning", 1.7),
)
"""Contender, its rival, and the least ratio of their speeds that is asked for."""

STEPS = 50
EPOCH_ROUNDS = 10  # more rounds than an epoch has, so that its end is in the peak memory


def measure(names: list[str], rounds: int, threads: int) -> dict[str, list[float]]:
    """Return the speeds of each contender, round by round, and its peak memory as last figure."""
    script = str(Path(__file__).parent / "contenders.py")
    contenders: list[Contender] = []
    speeds: dict[str, list[float]] = {name: [] for name in names}
    try:
        for name in names:
            contenders.append(Contender(name, [script, name, str(STEPS)], threads))
        counts = {contender.name: contender.about["parameters"] for contender in contenders}
        if len(set(counts.values())) != 1:
            raise RuntimeError(f"the networks differ in size: {counts}")
        for number in range(rounds):
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                speeds[contender.name].append(contender.turn()["speed"])
        for contender in contenders:
            speeds[contender.name].append(contender.last["peak_mb"])
    finally:
        for contender in contenders:
            contender.stop()
    return speeds


def table(speeds: dict[str, list[float]], threads: int, before: str) -> Table:
    """Return the table, best read from left to right."""
    names = list(speeds)
    peaks = {name: values[-1] for name, values in speeds.items()}
    rates = {name: values[:-1] for name, values in speeds.items()}
    rivals = [name for name in ("bare", "pythae", "lightning") if name in names]
    columns = ["contender", "images/s", *(f"÷ {name}" for name in rivals), "peak MB"]
    result = Table("Throughput and peak memory", columns)
    for name in names:
        ratios = [
            spread([mine / other for mine, other in zip(rates[name], rates[rival], strict=True)])
            if rival != name
            else "1"
            for rival in rivals
        ]
        speed = f"{median(rates[name]):,.0f}"
        result.rows.append([LABELS[name], speed, *ratios, f"{peaks[name]:,.0f}"])
    result.notes = [
        f"Model M, batch 128, {threads} threads, {len(rates['bare'])} interleaved rounds of "
        f"{STEPS} steps; median (least–greatest) of the ratio within a round. Load before: "
        f"{before}.",
        "Peak: largest resident set of the process, interpreter and imports included.",
        "vaelab writes a run folder meanwhile; pythae and Lightning run as their introductions "
        "show.",
    ]
    for name, rival, least in BARS:
        if rival in names:
            found = median([a / b for a, b in zip(rates[name], rates[rival], strict=True)])
            claim = f"{LABELS[name]} ÷ {LABELS[rival]}: {found:.2f}, at least {least:g}."
            result.require(found >= least, claim)
    if "pythae" in names:
        ratio = peaks["vaelab-auto"] / peaks["pythae"]
        claim = f"peak memory, vaelab (auto) ÷ {LABELS['pythae']}: {ratio:.2f}, at most 0.5."
        result.require(ratio <= 0.5, claim)
    if "pythae-lean" in names:
        ratio = peaks["vaelab-auto"] / peaks["pythae-lean"]
        result.notes.append(f"Peak memory, vaelab (auto) ÷ {LABELS['pythae-lean']}: {ratio:.2f}.")
    return result


def main() -> int:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, help=f"at least {EPOCH_ROUNDS}")
    given = arguments.parse_args()
    rounds = max(EPOCH_ROUNDS, given.rounds or (EPOCH_ROUNDS if given.quick else 30))
    absent = missing()
    names = [name for name in LABELS if name.split("-")[0] not in absent]
    before = load()
    speeds = measure(names, rounds, given.threads)
    result = table(speeds, given.threads, before)
    result.notes += [f"{name} is not installed and was left out." for name in absent]
    return finish([result], given.json)


if __name__ == "__main__":
    sys.exit(main())
