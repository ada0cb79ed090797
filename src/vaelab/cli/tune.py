"""``vaelab tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vaelab.cli.output import output, table
from vaelab.config import assignment, merge, read_yaml


def tune(
    space: Annotated[Path, typer.Argument(help="YAML file: title, base, space, lead.")],
    trials: Annotated[int, typer.Option(min=1, max=1_000_000, help="Trainings in all.")] = 30,
    data: Annotated[str | None, typer.Option("--data", "-d", help="mnist, or a path.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the search.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Database for many machines, such as postgresql://user@host/name.",
            show_default="a journal file in --out",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the proposals.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", help="A setting of every trial, such as -s training.epochs=2."),
    ] = None,
) -> None:
    """Search settings with Optuna; bad trials end early, and a search that was stopped goes on."""
    from vaelab.studies.tune import read_space
    from vaelab.studies.tune import tune as search
    from vaelab.training.interrupt import Interrupted

    base: dict[str, Any] = {} if data is None else {"data": {"spec": data}}
    for text in set_ or []:
        base = merge(base, assignment(text))
    folder = out or Path("runs") / space.stem
    declared = read_space(read_yaml(space), str(space), base)
    try:
        best = search(declared, folder, trials, storage=storage, seed=seed, say=output.say)
    except Interrupted:
        output.say(
            f"Stopped; what was done is kept. Go on with: vaelab tune {space} --out {folder}"
        )
        raise typer.Exit(130) from None
    found = {key: _get(best.config.model_dump(mode="json"), key) for key in declared.space}
    output.result(
        {"value": best.value, "settings": found, "run": str(best.run), "trials": best.trials},
        [
            f"Best validation {declared.lead} of {best.trials} trials ({best.pruned} more ended "
            f"early, {best.failed} failed): {best.value:.4g}",
            *table([(key, str(value)) for key, value in found.items()]),
            f"Its run is {best.run}; its configuration: vaelab train -c {folder / 'best.yaml'}",
        ],
    )


def _get(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


COMMANDS = (tune,)
