"""``vaelab classify``: train a classifier, measure it, use it."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vaelab.cli.chosen import read_all
from vaelab.cli.images import (
    Data,
    PartOf,
    RunPath,
    SkipBad,
    given_images,
    part_of,
    say_unfinished,
    started_from,
)
from vaelab.cli.keep import OutJson, check_json, keep
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
from vaelab.cli.reading import reads_others
from vaelab.cli.train import Out, _train, free_folder, trained
from vaelab.config import assignment, merge, read_yaml
from vaelab.errors import ConfigError, RunError, counted

if TYPE_CHECKING:
    from vaelab.config import RunConfig
    from vaelab.data.images import Splits

app = typer.Typer(
    name="classify",
    help="Classify your own images: train, measure, predict.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def train(
    network: Annotated[
        Literal["cnn-small", "cnn"] | None,
        typer.Argument(
            help="cnn-small (two convolutions) or cnn (residual, stronger).",
            show_default="cnn-small",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="mnist, or a path.", show_default="mnist")
    ] = None,
    out: Out = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    labelled: Annotated[
        int | None, typer.Option(help="Use the labels of so many training images only.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps.")] = None,
    size: Size = None,
    channels: Channels = None,
    fit: FitTo = None,
    range: ValueRange = None,
    background: Background = None,
    frames: Frames = None,
    group: Group = None,
    skip_bad: SkipBadOrNot = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", help="Any setting, such as -s options.elastic=1."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Start from the weights of a run, with other images or settings.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Train a classifier of labelled images: vaelab classify train cnn --data photos/ --size 64.

    Rare classes are weighted up, training images shifted, turned and zoomed by chance, and
    probabilities calibrated on the validation images.
    """
    from vaelab.api import configure, settings_to_config
    from vaelab.recipes import find_recipe
    from vaelab.training.run import Run

    flat: dict[str, Any] = {
        "spec": data,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "labelled": labelled,
        "seed": seed,
        "device": device,
        "size": size,
        "channels": channels,
        "fit": fit,
        "range": range,
        "background": background,
        "frames": frames,
        "group": group,
        "skip_bad": skip_bad,
    }
    values = settings_to_config({key: value for key, value in flat.items() if value is not None})
    for text in set_ or []:
        values = merge(values, assignment(text))
    if resume and out is None:
        raise ConfigError("--resume: say which run to go on with: --out runs/NAME.")
    if (resume and out is not None) or start is not None:
        old = start or out
        resumed = Run(out) if resume and out is not None else None
        config = configure(values, None, resumed, started_from(start, data))
        if not find_recipe(config.recipe).classifies:
            raise RunError(f"{old}: holds a VAE. Go on with: vaelab train --resume --out {old}")
        if network not in (None, config.options["network"]):
            raise ConfigError(
                f"{old}: holds a {config.options['network']}, and its network cannot become "
                f"{network}. Train that anew in another --out."
            )
    else:
        with as_file(files("vaelab") / "presets" / f"{network or 'cnn-small'}.yaml") as preset:
            config = configure(values, read_yaml(preset))
    run = Run(out or free_folder(config))
    if not resume:
        run.check_free()
    before = run.last_epoch() if resume else None
    splits = output.images(config)
    if not resume and start is None and "epochs" not in values.get("training", {}):
        config = _long_enough(config, splits)
    _train(config, splits, run)
    if output.quiet:
        return  # another process may still be writing what would be printed
    last = run.epochs("validation/accuracy")[-1]
    accuracy = last["validation/accuracy"]
    output.result(
        {
            "run": str(run),
            **{key: last[key] for key in ("step", "epoch", "seconds")},
            "validation": {"accuracy": accuracy},
        },
        [
            f"{trained(config.options['network'], last, before)}. "
            f"Validation accuracy {accuracy:.2%}.",
            *table([("run", str(run))]),
            f"Next: vaelab classify evaluate {run}",
        ],
    )


def _long_enough(config: RunConfig, splits: Splits) -> RunConfig:
    """Return the configuration with more passes where the images are few, and say so."""
    from vaelab.data.images import with_labels
    from vaelab.training.fit import enough_epochs

    training = config.training
    there = len(with_labels(splits.train))
    images = min(training.labelled or there, there)
    epochs = enough_epochs(training, images)
    if epochs > training.epochs:
        output.say(
            f"{counted(images, 'image')} in batches of {training.batch_size:,}: {epochs:,} passes "
            f"in place of {training.epochs:,}, for enough steps. --epochs sets another number."
        )
        training = training.model_copy(update={"epochs": epochs})
    return config.model_copy(update={"training": training})


@app.command()
@reads_others
def evaluate(
    run: RunPath,
    data: Data = None,
    split: PartOf = None,
    skip_bad: SkipBad = False,
    out: OutJson = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
) -> None:
    """Measure accuracy, precision and recall of each class, and calibration; write the report.

    Figures on the run's own test images are kept in evaluation.json and report.html; others are
    only printed. With --out figures.json both are kept there, the report as figures.html.
    """
    from dataclasses import asdict, replace

    from vaelab.evaluation.classification import classified, verdict
    from vaelab.evaluation.figures import long_name
    from vaelab.evaluation.record import noted
    from vaelab.report.classifier import write_classifier_report
    from vaelab.training.backend import find_device
    from vaelab.training.run import Run

    check_json(out)
    folder = Run(run)
    model = folder.load_classifier(find_device(device))
    unfinished = folder.unfinished()
    given = given_images(folder, model, data, whole=split is None, skip_bad=skip_bad)
    splits, split = given.splits, split or "test"
    images = part_of(splits, split)
    origin = given.origin(images, {"train": "training"}.get(split, split), data is not None)
    kept = data is None and split == "test"
    result, chances = classified(
        model,
        images,
        held_out=origin.held_out,
        trained_on=origin.trained_on,
        looked_at=given.own and split == "validation" and splits.held_out,
        what=origin.what,
    )
    result = replace(result, notes=(*folder.diverged(), *given.notes, *result.notes))
    result = noted(result, unfinished, origin.notes)
    page = None
    if keep(folder, result, out, kept) and kept:
        html = None if out is None else out.with_suffix(".html")
        page = write_classifier_report(folder, splits, result, chances, html)
    rows = [(long_name(name), str(figure)) for name, figure in result.figures.items()]
    output.result(
        {
            "run": str(folder),
            "verdict": verdict(result),
            **asdict(result),
            "report": str(page) if page else None,
        },
        [verdict(result), *result.notes, *table(rows), *([f"report  {page}"] if page else [])],
    )


@app.command()
@reads_others
def predict(
    run: RunPath,
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES...", help="Image files, folders or arrays."),
    ],
    skip_bad: SkipBad = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help=".csv", show_default="standard output")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
) -> None:
    """Write for every image its class, and the probability of each class, as CSV."""
    from vaelab.explore.grids import unknown_suffix
    from vaelab.files import csv_text, write_text
    from vaelab.training.backend import find_device
    from vaelab.training.run import Run

    if out is not None and out.suffix != ".csv":
        raise unknown_suffix(out, ".csv")
    folder = Run(run)
    model = folder.load_classifier(find_device(device))
    say_unfinished(folder)
    classes = folder.classes()
    found = read_all(folder, images, skip_bad or folder.read_config().data.skip_bad)
    lines: list[list[object]] = [["image", "class", "probability", *classes]]
    rows: list[dict[str, Any]] = []
    for part in found.chunks():
        for chances in model.predict(part).tolist():
            best = max(range(len(classes)), key=chances.__getitem__)
            name = found.name(len(rows))
            shown = [f"{chance:.6g}" for chance in chances]
            lines.append([name, classes[best], shown[best], *shown])
            rows.append(
                {
                    "image": name,
                    "class": classes[best],
                    "probability": chances[best],
                    "probabilities": dict(zip(classes, chances, strict=True)),
                }
            )
    if out is None:
        output.result({"images": rows}, csv_text(lines).splitlines())
        return
    write_text(out, csv_text(lines))
    output.result({"out": str(out), "images": len(rows)}, [str(out)])
