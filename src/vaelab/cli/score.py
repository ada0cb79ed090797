"""``vaelab score``: which images are odd, and why."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaelab.cli.chosen import Images, images_of
from vaelab.cli.explore import Seed
from vaelab.cli.images import PART_NAMES, RunPath, SkipBad, given_images, part_of, say_unfinished
from vaelab.cli.keep import written
from vaelab.cli.output import output, table
from vaelab.errors import ConfigError

if TYPE_CHECKING:
    from vaelab.data.images import ImageSet, Splits
    from vaelab.models.vae import Vae
    from vaelab.training.run import Run


def score(
    run: RunPath,
    spec: Images = None,
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
    normal: Annotated[
        list[str] | None,
        typer.Option(
            help="Class that is normal, others being anomalies; may be repeated.",
            show_default="good, normal, ok, or those of the training images",
        ),
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

    import torch

    from vaelab.evaluation.detection import rows as detection_rows
    from vaelab.evaluation.detection import words
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
    given = given_images(folder, model, data, skip_bad=skip_bad)
    splits = given.splits
    images = _images(folder, model, spec or [], splits, split, skip_bad)
    origin = replace(given, own=False).origin(images, split or "test", False)
    if limit is not None and limit < len(images):
        images = images.subset(torch.arange(limit))
    names = _names(images, None if spec else split or "test")
    good = _normal(images, splits, normal or [])
    with output.counter("scoring") as progress:
        ranking = rank(
            model,
            images,
            splits,
            names=names,
            normal=good,
            by=by,
            draws=draws,
            steps=steps,
            seed=seed,
            progress=progress,
        )
    saved = written(folder, lambda: ranking.save(path), out)
    notes = [*ranking.notes(), *(() if split in ("train", "validation") else origin.notes)]
    for note in notes:
        output.say(note)
    of = ", ".join(spec[:3]) if spec else f"{split or 'test'} images of {splits.name}"
    told = ["vaelab", "score", str(run), *(spec or [])]
    told += ["--data", data] if data else []
    told += ["--split", split] if split else []
    told += ["--limit", str(limit)] if limit else []
    told += ["--by", by] if by else []
    told += [word for name in normal or [] for word in ("--normal", name)]
    told += ["--draws", str(draws), "--steps", str(steps), "--seed", str(seed)]
    if saved or page is not None:
        write_oddities(html, model, images, ranking, of, shlex.join(told), draws, steps)
    found = ranking.detection()
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
        "table": str(path) if saved else None,
        "page": str(html) if saved or page is not None else None,
        "by": ranking.by,
        "images": len(ranking),
        "beyond": ranking.beyond(),
        "normal": list(good),
        "detection": {name: score.facts() for name, score in found.items()},
        "notes": [*folder.unfinished(), *folder.diverged(), *notes],
        "oddest": [
            {
                "name": ranking.names[k],
                **{name: float(values[k]) for name, values in ranking.scores.items()},
                "reasons": ranking.reasons(k),
            }
            for k in order
        ],
    }
    lines = table(rows)
    if found:
        what = words(ranking.normal, ranking.classes, ranking.what)
        lines += ["", *table(detection_rows(found)), what]
    places = [str(path)] * saved + [str(html)] * (saved or page is not None)
    output.result(facts, [*lines, "", *places])


def _normal(images: ImageSet, splits: Splits, given: list[str]) -> tuple[str, ...]:
    """Return the classes that are normal; says what to pass where they are not known."""
    from vaelab.evaluation.detection import normal_classes

    names = sorted({name for name in images.class_of_each() if name})
    trained = {name for name in splits.train.class_of_each() if name}
    found, note = normal_classes(names, sorted(trained), given)
    if note:
        output.say(note)
    return found


def _images(
    run: Run,
    model: Vae,
    spec: list[str],
    splits: Splits,
    split: str | None,
    skip_bad: bool,
) -> ImageSet:
    """Return the images to rank, in the shape that the model takes."""
    if split is not None and split not in PART_NAMES:
        raise ConfigError(f"--split {split!r}: choose {', '.join(PART_NAMES)}.")
    if spec:
        return images_of(run, model, spec, None, split, skip_bad)
    return part_of(splits, split or "test")


def _names(images: ImageSet, part: str | None) -> list[str]:
    """Return the names of files; else the number that other commands know an image by."""
    own = part is None or (images.names is not None and images.names.files)
    return [images.name(k) if own else f"{part} image {k}" for k in range(len(images))]


COMMANDS = (score,)
