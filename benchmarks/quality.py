"""How good models get and how long that takes: the demo (2-D), 5 and 20 dimensions on MNIST."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from machine import Table, finish, load, median, parser
from turns import Contender

FLOOR, DEMO_SECONDS = -140.0, 180.0
MODELS: dict[str, dict[str, Any]] = {
    "2-D, the demo's model": {},
    "5-D, the demo's model": {"latent_dim": 5},
    "20-D, the demo's model": {"latent_dim": 20},
}
"""What each row changes in the demo's configuration."""


def child(number: int, seed: int, epochs: int | None) -> None:
    """Child: train one model, report seconds and its test ELBO."""
    from importlib.resources import as_file, files

    import torch
    from plain import test_elbo
    from turns import Turn

    import vaelab

    turn = Turn()
    turn.wait()
    settings = {**list(MODELS.values())[number], "seed": seed}
    if epochs is not None:
        settings["epochs"] = epochs
    with as_file(files("vaelab") / "presets" / "demo.yaml") as preset:
        model = vaelab.train(config=preset, **settings)
    seconds = turn.seconds()
    test = vaelab.load_data("mnist").test
    images = test.take(torch.arange(len(test)))
    elbo, error = test_elbo(model.posterior, model.decoder.network, images)
    turn.report(seconds=seconds, elbo=elbo, error=error)


def demo_seconds(threads: int) -> float:
    """Return how long the whole demo takes: training, evaluation, report, interpreter and all."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "vaelab", "demo", "--quiet", "--out", f"{folder}/demo"],
            check=True,
            env=environment,
        )
        return time.perf_counter() - begun


def main() -> int:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=1, help="runs of each model")
    given = arguments.parse_args()
    before = load()
    table = Table(
        "Quality on MNIST", ["model", "test ELBO, nats", "standard error", "seconds, training"]
    )
    epochs = "1" if given.quick else "0"
    best: dict[str, float] = {}
    for number, name in enumerate(MODELS):
        reports = []
        for seed in range(given.seeds):
            arguments_of = [__file__, "child", str(number), str(seed), epochs]
            contender = Contender(name, arguments_of, given.threads)
            reports.append(contender.turn())
            contender.process.wait(60)
        elbos = [report["elbo"] for report in reports]
        seconds = [report["seconds"] for report in reports]
        between = f" ({min(elbos):.2f} to {max(elbos):.2f})" if given.seeds > 1 else ""
        error = f"{median([report['error'] for report in reports]):.2f}"
        table.rows.append([name, f"{median(elbos):.2f}{between}", error, f"{median(seconds):.0f}"])
        best[name] = min(elbos)
    table.notes = [
        f"{given.seeds} seed(s), {given.threads} threads; load before: {before}. Test ELBO: 10,000 "
        "images, grey targets, one draw of z each, fp32. Standard error over images.",
    ]
    if given.quick:
        table.notes.append("Quick: one epoch only, so these are not the models' figures.")
    else:
        worst, taken = best["2-D, the demo's model"], demo_seconds(given.threads)
        table.require(
            worst >= FLOOR, f"the demo's model reaches {worst:.1f}, at least {FLOOR:.0f}."
        )
        table.require(
            taken <= DEMO_SECONDS,
            f"`vaelab demo` as a whole, report included, takes {taken:.0f} s, at most "
            f"{DEMO_SECONDS:.0f} on two cores.",
        )
    return finish([table], given.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        number, seed, epochs = map(int, sys.argv[2:])
        child(number, seed, epochs or None)
    else:
        sys.exit(main())
