"""``vaelab data`` and ``vaelab recipes``: what there is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vaelab.cli.options import (
    Background,
    Channels,
    FitTo,
    Frames,
    Group,
    Size,
    SkipBadOrNot,
    ValueRange,
)
from vaelab.cli.output import output, table


def data(
    spec: Annotated[str, typer.Argument(help="mnist, swiss-roll, or a path.")] = "mnist",
    size: Size = None,
    channels: Channels = None,
    fit: FitTo = None,
    range: ValueRange = None,
    background: Background = None,
    frames: Frames = None,
    group: Group = None,
    skip_bad: SkipBadOrNot = None,
    attributes: Annotated[
        str | None,
        typer.Option(
            help="Attributes, by name: the data's own, or measured: thickness, slant, width, "
            "height, area, loops; or all.",
        ),
    ] = None,
) -> None:
    """Show what a set of images holds, and whether it can be read."""
    from vaelab.config import parse_config
    from vaelab.data.summary import summary

    options: dict[str, Any] = {
        "size": size,
        "channels": channels,
        "fit": fit,
        "range": range,
        "background": background,
        "frames": frames,
        "group": group,
        "skip_bad": skip_bad,
    }
    values = {key: value for key, value in options.items() if value is not None}
    values |= {"spec": spec, "attributes": attributes or []}
    splits = output.images(parse_config({"data": values}, "options"))
    facts = summary(splits)
    shown = (key for key in facts if key not in ("notes", "attributes"))  # notes were said above
    lines = table((key, _short(facts[key])) for key in shown)
    output.result(facts, [*lines, *_distributions(facts["attributes"])])


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
        rows += [
            ("", f"-s options.{key}={'null' if value is None else value}")
            for key, value in fact["options"].items()
        ]
    output.result(facts, table(rows))


def _distributions(attributes: dict[str, dict[str, Any]]) -> list[str]:
    """Return one line an attribute: the share of 1, or where its values lie and a histogram."""
    from vaelab.data.summary import QUANTILES

    quantiles = [f"{percent} %" for percent in QUANTILES]
    shares: list[tuple[str, ...]] = [("attribute", "unknown", "share of 1")]
    spread: list[tuple[str, ...]] = [
        ("attribute", "unit", "unknown", "mean", "sd", *quantiles, "from least to greatest")
    ]
    for name, about in attributes.items():
        unknown = str(about["unknown"])
        if "share" in about:
            share = about["share"]
            shares.append((name, unknown, "" if share is None else f"{share:.1%}"))
        else:
            numbers = (about["mean"], about["std"], *about["quantiles"].values())
            bars = _bars(about["histogram"]["counts"])
            spread.append((name, about["unit"], unknown, *map(_short, numbers), bars))
    return [line for rows in (shares, spread) if len(rows) > 1 for line in ("", *table(rows))]


def _bars(counts: list[int]) -> str:
    """Return a histogram as a line of bars; a count that is not 0 shows."""
    tallest = max(counts)
    return "".join(" ▁▂▃▄▅▆▇█"[-(-8 * count // tallest)] for count in counts)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        if all(below == {} for below in value.values()):  # no part has classes
            return "none"
        return ", ".join(f"{key} {_short(below)}" for key, below in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(_short(below) for below in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


COMMANDS = (data, recipes)
