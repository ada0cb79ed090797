"""``vaelab data`` and ``vaelab recipes``: what there is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vaelab.cli.output import output, table


def data(
    spec: Annotated[str, typer.Argument(help="mnist, or a path.")] = "mnist",
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH, or N for a square.")] = None,
    channels: Annotated[int | None, typer.Option(help="1, 3 or 4.")] = None,
    fit: Annotated[str, typer.Option(help="pad, crop or stretch.")] = "pad",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave unreadable images out.")
    ] = False,
) -> None:
    """Show what a set of images holds, and whether it can be read."""
    from vaelab.config import parse_config
    from vaelab.data.summary import summary

    values: dict[str, Any] = {"spec": spec, "size": size, "channels": channels}
    values |= {"fit": fit, "skip_bad": skip_bad}
    splits = output.images(parse_config({"data": values}, "options"))
    facts = summary(splits)
    rows = ((key, _short(value)) for key, value in facts.items() if key != "notes")  # said above
    output.result(facts, table(rows))


def recipes() -> None:
    """List the recipes, and the options of each."""
    from vaelab.recipes import RECIPES

    facts: dict[str, dict[str, Any]] = {
        name: {
            "summary": recipe.summary,
            "options": {key: field.default for key, field in recipe.options.model_fields.items()},
        }
        for name, recipe in RECIPES.items()
    }
    rows = []
    for name, fact in facts.items():
        rows.append((name, fact["summary"]))
        rows += [("", f"-s options.{key}={value}") for key, value in fact["options"].items()]
    output.result(facts, table(rows))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(below)}" for key, below in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(_short(below) for below in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


COMMANDS = (data, recipes)
