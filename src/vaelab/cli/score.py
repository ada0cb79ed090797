"""``vaelab score``: which images are odd, and why."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaelab.cli.explore import Seed
from vaelab.cli.images import (
    PART_NAMES,
    RunPath,
    SkipBad,
    given_images,
    say_unfinished,
    tell_fitted,
)
from vaelab.cli.output import output, table
from vaelab.errors import ConfigError

if TYPE_CHECKING:
    from vaelab.data.images import ImageSet
    from vaelab.data.seen import Seen
    from vaelab.training.run import Run


def score(
    run: RunPath,
    spec: Annotated[
        str | None,
        typer.Argument(metavar="[SPEC]", help="Images to rank.", show_default="the run's own"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", "-d", help="What the run was trained on, if moved.", show_default="the run's"
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="improbability, regret, error or distance.",
            show_default="regret; error for an autoencoder",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, validation or test.", show_default="test; all images of a SPEC"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rank the first so many only.")] = None,
    draws: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="K of the importance-weighted log p(x).")
    ] = 50,
    steps: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Steps of the search of a regret.")
    ] = 100,
    skip_bad: SkipBad = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The table, .csv.", show_default="odd.csv in the run"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="The page, .html.", show_default="as the table, ending in .html"),
    ] = None,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
) -> None:
    """Rank images by how unusual they are to a model: a table, and a page of the oddest.

    Scores, higher for odder images: improbability (-log p(x)), likelihood regret, reconstruction
    error, and distance of the code from those of training images.
    """
    from dataclasses import replace

    from vaelab.evaluation.ranked import rank
    from vaelab.report.oddities import write_oddities
    from vaelab.training.backend import find_device
    from vaelab.training.run import Run

    folder = Run(run)
    path = out or run / "odd.csv"
    html = page or path.with_suffix(".html")
    if path.suffix != ".csv" or html.suffix != ".html":
        raise ConfigError(f"{path}, {html}: name a .csv for --out and a .html for --page.")
    model = folder.load_model(find_device(device))
    say_unfinished(folder)
    given = given_images(folder, model, data)
    splits = given.splits
    moved = given.seen if data and spec is None and given.own else None
    images, names = _images(folder, spec, data, split, limit, skip_bad, moved)
    origin = replace(given, own=False).origin(images, split or "test", spec is not None)
    with output.counter("scoring") as progress:
        ranking = rank(
            model,
            images,
            splits,
            names=names,
            by=by,
            draws=draws,
            steps=steps,
            seed=seed,
            progress=progress,
        )
    ranking.save(path)
    notes = [*(() if split in ("train", "validation") else origin.notes), *ranking.notes()]
    for note in notes:
        output.say(note)
    of = spec or f"{split or 'test'} images of {splits.name}"
    told = ["vaelab", "score", str(run), *([spec] if spec else [])]
    told += ["--data", data] if data else []
    told += ["--split", split] if split else []
    told += ["--limit", str(limit)] if limit else []
    told += ["--by", by] if by else []
    told += ["--draws", str(draws), "--steps", str(steps), "--seed", str(seed)]
    write_oddities(html, model, images, ranking, of, shlex.join(told), draws, steps)
    order = ranking.order()[:10]
    rows = [("image", *ranking.scores, "")]
    rows += [
        (
            ranking.names[k],
            *(f"{float(values[k]):.4g}" for values in ranking.scores.values()),
            ranking.reasons(k)[0],
        )
        for k in order
    ]
    facts = {
        "table": str(path),
        "page": str(html),
        "by": ranking.by,
        "images": len(ranking),
        "beyond": ranking.beyond(),
        "notes": [*folder.unfinished(), *notes],
        "oddest": [
            {
                "name": ranking.names[k],
                **{name: float(values[k]) for name, values in ranking.scores.items()},
                "reasons": ranking.reasons(k),
            }
            for k in order
        ],
    }
    output.result(facts, [*table(rows), "", str(path), str(html)])


def _images(
    run: Run,
    spec: str | None,
    data: str | None,
    split: str | None,
    limit: int | None,
    skip_bad: bool,
    moved: Seen | None = None,
) -> tuple[ImageSet, list[str]]:
    """Return the images to rank, in the shape that the model takes, and their names."""
    import torch

    from vaelab.data.load import load_named

    if split is not None and split not in PART_NAMES:
        raise ConfigError(f"--split {split!r}: choose {', '.join(PART_NAMES)}.")
    config = run.read_config().data
    (channels, height, width), _ = run.trained_on()
    wanted = split or (None if spec else "test")
    if spec or data:
        tell_fitted(run, spec or data)
    with output.counter("reading images") as progress:
        images, names, notes = load_named(
            spec or data or config.spec,
            part=None if moved or wanted is None else PART_NAMES.index(wanted),
            size=(height, width),
            channels=channels,
            fit=config.fit,
            skip_bad=skip_bad or (spec is None and config.skip_bad),
            split=config.split,
            split_seed=config.split_seed,
            progress=progress,
        )
    rows = moved.rows(images.hashes) if moved else None
    if rows is not None and wanted is not None:  # split as for the training, wherever they are
        some = rows[PART_NAMES.index(wanted)]
        images, names = images.subset(some), [names[row] for row in some.tolist()]
    else:
        for note in notes:
            output.say(note)
    if limit is not None and limit < len(images):
        images, names = images.subset(torch.arange(limit)), names[:limit]
    return images, names


COMMANDS = (score,)
