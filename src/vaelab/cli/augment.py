"""``vaelab augment``: labelled images of a trained model, for any other tool to train on."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vaelab.cli.explore import Seed
from vaelab.cli.images import RunPath, say_unfinished, splits_of
from vaelab.cli.output import output, table
from vaelab.errors import counted

if TYPE_CHECKING:
    from vaelab.models.classifier import Classifier


def augment(
    run: RunPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the images.")],
    per_class: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Images of each class.")
    ] = 500,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="prior, pool, gmm or flow.",
            show_default="prior for a model that is told the class, else pool",
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, max=100, help="Of the prior.")] = 1.0,
    guidance: Annotated[
        float, typer.Option(min=0, max=100, help="Above 1: follow the class further.")
    ] = 1.0,
    confidence: Annotated[
        float,
        typer.Option(min=0, max=1, help="Keep images that a classifier takes for their class so."),
    ] = 0.0,
    farther: Annotated[
        float,
        typer.Option(min=0, help="Leave out images nearer to a training image; 1 as new ones are."),
    ] = 0.0,
    form: Annotated[
        Literal["folder", "npz"], typer.Option("--format", help="A folder a class, or one npz.")
    ] = "folder",
    seed: Seed = 0,
) -> None:
    """Make labelled images: vaelab augment runs/cvae --per-class 500 --out made."""
    from vaelab.data.images import labelled, with_few_labels, with_labels
    from vaelab.explore.augment import Making, hardly_vary, make_images, usual_sampler
    from vaelab.explore.labelled import check_empty, folder_names, write_labelled
    from vaelab.files import checksum
    from vaelab.training.run import Run, versions

    check_empty(out)
    folder = Run(run)
    model = folder.load_model()
    say_unfinished(folder)
    config = folder.read_config()
    splits = splits_of(folder, model, None, option=None)
    seen = splits.train
    if config.training.labelled is not None:
        seen = with_few_labels(seen, config.training.labelled, config.training.seed)
    labelled(seen)  # or says that they need labels
    known = with_labels(seen)
    judge: Classifier | None = None
    named = None
    if confidence > 0:
        from vaelab.training.judge import trained_judge

        found = trained_judge(replace(splits, train=seen), progress=output.progress())
        judge, named = found.classifier, found.name
    how = Making(sampler or usual_sampler(model), temperature, guidance, confidence, farther, seed)
    with output.counter("making images") as progress:
        made = make_images(
            model,
            known,
            per_class,
            how,
            seen=seen,
            fresh=splits.validation if splits.held_out else None,
            judge=judge,
            report=progress or (lambda done, total: None),
        )
    manifest = {
        "written by": f"vaelab augment, vaelab {versions()['vaelab']}",
        "run": str(folder),
        "weights": checksum(folder.model_file),
        "trained on": f"{splits.name}, {len(seen):,} images, labels of {len(known):,}",
        **asdict(how),
        "classifier": named,
        "nearness": "distance to the nearest training image, of its median over held-out images"
        if splits.held_out
        else "distance to the nearest training image, in levels of 8 bits",
    }
    unit = "1: as far as new images" if splits.held_out else "in levels of 8 bits"
    place = write_labelled(out, made, seen, manifest, form)
    if form == "folder":
        for name, place_name in zip(
            known.class_names, folder_names(known.class_names), strict=True
        ):
            if name != place_name:
                output.say(
                    f"Images of {name!r} are in {place_name}; --format npz keeps names of classes."
                )
    if (stiff := hardly_vary(made, known)) is not None:
        output.say(stiff)
    counts = made.labels.bincount(minlength=len(known.class_names)).tolist()
    for name, count in zip(known.class_names, counts, strict=True):
        if not count:
            output.say(f"{name}: no training image with this label, and so none was made.")
    short = sum(per_class - count for count in counts if count)
    if short:
        output.say(f"{counted(short, 'image')} fewer than asked for: the filters left out more.")
    output.result(
        {
            "out": str(out),
            "data": str(place),
            "images": len(made.labels),
            "made": made.tried,
            "nearness": float(made.nearness.median()),
        },
        table(
            [
                ("images", f"{len(made.labels):,} of {made.tried:,} made"),
                ("nearness", f"{float(made.nearness.median()):.2f} ({unit})"),
                ("data", str(place)),
                ("check", str(out / "neighbours.png")),
                ("manifest", str(out / "manifest.yaml")),
            ]
        ),
    )


COMMANDS = (augment,)
