"""Commands that use a trained run: measure it, look at it, take something out of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vaelab.cli.chosen import Chooser, Images, One, images_of
from vaelab.cli.findings import new_lines
from vaelab.cli.images import (
    Data,
    PartOf,
    RunPath,
    SkipBad,
    given_images,
    part_of,
    say_unfinished,
    splits_of,
)
from vaelab.cli.keep import OutJson, check_json, keep
from vaelab.cli.output import output, table
from vaelab.cli.sampling import choose
from vaelab.errors import ConfigError, counted

if TYPE_CHECKING:
    from torch import Tensor

    from vaelab.data.images import ImageSet
    from vaelab.models.handles import Handle
    from vaelab.models.vae import Vae
    from vaelab.training.run import Run

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", help=".png for a picture, .npz for the images.", show_default=False
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of every draw.")]
Sampler = Annotated[
    str,
    typer.Option(
        help="prior, gmm, flow or pool.", show_default="auto: as chosen on validation images"
    ),
]
PICTURED = 512
Number = Annotated[
    int | None,
    typer.Option(
        "--n", min=1, help="Number of images.", show_default="all of others, some of the run's own"
    ),
]
Attribute = Annotated[
    str | None,
    typer.Option("--attribute", "-a", help="Which.", show_default="the only one"),
]
How = Annotated[str, typer.Option(help="How directions are found: difference or logistic.")]


def evaluate(
    run: RunPath,
    data: Data = None,
    split: PartOf = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="K of the importance-weighted log p(x)."),
    ] = None,
    bound_images: Annotated[int | None, typer.Option(min=1, help="Images of that bound.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure on so many images.")] = None,
    generation: Annotated[
        bool, typer.Option("--generation", help="Compare generated images with real ones too.")
    ] = False,
    features: Annotated[
        Path | None,
        typer.Option(help="ONNX network to compare in.", show_default="a classifier of the data"),
    ] = None,
    sampler: Sampler = "auto",
    attributes: Annotated[
        bool, typer.Option("--attributes", help="Measure edits of the attributes too.")
    ] = False,
    out: OutJson = None,
    skip_bad: SkipBad = False,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
) -> None:
    """Measure ELBO, log p(x), reconstruction and use of the latent space, with error bars.

    Figures on the run's own test images are kept in evaluation.json; others are only printed.
    """
    from dataclasses import asdict, replace

    from vaelab.evaluation.diagnose import diagnose, of_evaluation
    from vaelab.evaluation.evaluate import evaluate as measure
    from vaelab.evaluation.features import find_features
    from vaelab.evaluation.figures import long_name
    from vaelab.evaluation.generate import (
        IMAGES,
        check_enough,
        generation_figures,
        generation_notes,
    )
    from vaelab.evaluation.record import noted, verdict
    from vaelab.evaluation.samplers import find_sampler
    from vaelab.explore.directions import NO_ATTRIBUTES, all_attributes
    from vaelab.export.hub import write_figures
    from vaelab.training.backend import find_device
    from vaelab.training.run import Run

    check_json(out)
    folder = Run(run)
    model = folder.load_model(find_device(device))
    unfinished = folder.unfinished()
    say_unfinished(folder)
    learns = generation or attributes  # from the training images of the data
    whole = split is None and not learns
    given = given_images(folder, model, data, whole=whole, skip_bad=skip_bad)
    splits, split = given.splits, split or "test"
    if attributes and not splits.train.attribute_names:  # before all that takes long
        raise ConfigError(NO_ATTRIBUTES)
    images = part_of(splits, split)
    if generation:
        check_enough(images, limit or IMAGES)
    part = {"train": "training"}.get(split, split)
    origin = given.origin(images, part, data is not None)
    for note in origin.notes:
        output.say(note)
    doubts: tuple[str, ...] = ()
    network = find_features(splits, features, progress=output.progress()) if generation else None
    if generation and sampler == "auto":
        choose(folder, model)
    with output.counter("measuring") as progress:
        result = measure(
            model,
            images,
            samples=samples,
            bound_images=bound_images,
            limit=limit,
            held_out=origin.held_out,
            trained_on=origin.trained_on,
            what=origin.what,
            seed=seed,
            progress=progress,
        )
    if network is not None:
        figures = generation_figures(
            images,
            network,
            find_sampler(sampler, model, splits.train, seed=seed),
            known=None if images is splits.train else splits.train,
            held_out=origin.held_out,
            limit=limit or IMAGES,
            seed=seed,
        )
        doubts = generation_notes(figures, network)
        notes = (*result.notes, *doubts)
        result = replace(result, figures={**result.figures, **figures}, notes=notes)
    if attributes:
        figures = all_attributes(
            model, splits, limit=limit or IMAGES, seed=seed, progress=output.progress()
        )
        result = replace(result, figures={**result.figures, **figures})
    result = replace(result, notes=(*given.notes, *result.notes))
    result = noted(result, unfinished, origin.notes)
    own = data is None and split == "test" and sampler == "auto"
    place = keep(folder, result, out, own)
    if own and place == folder.evaluation_file:
        write_figures(folder, result)
    where = [f"How each was measured: {place}"] if place else []
    rows = [(long_name(name, figure), str(figure)) for name, figure in result.figures.items()]
    said = " ".join([verdict(result), *folder.diverged()])
    if data is None:
        found = diagnose(folder, model, splits, result)
    else:
        found = of_evaluation(folder.read_config(), result, str(folder), folder.steps())
    output.result(
        {
            "run": str(folder),
            "verdict": said,
            "findings": [asdict(one) for one in found],
            **asdict(result),
        },
        [said, *new_lines(folder, found), *table(rows), *doubts, *where],
    )


def report(
    run: RunPath,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The page.", show_default="RUN/report.html"),
    ] = None,
) -> None:
    """Write one self-contained page about a run: report.html."""
    from vaelab.report.page import write_report
    from vaelab.training.run import Run

    folder = Run(run)
    model = folder.load_model()
    say_unfinished(folder)
    splits = splits_of(folder, model, None, option=None)
    choose(folder, model, splits)
    page = write_report(folder, splits, out)
    output.result({"report": str(page)}, [str(page)])


def explore(
    run: RunPath,
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The page.", show_default="RUN/explorer.html"),
    ] = None,
) -> None:
    """Write one self-contained page in which the model runs: explorer.html.

    Opens from disk and by e-mail; needs no server and no network.
    """
    from vaelab.explorer.page import write_explorer
    from vaelab.training.run import Run

    folder = Run(run)
    say_unfinished(folder)
    model = folder.load_model()
    splits = splits_of(folder, model, data)
    choose(folder, model, splits if data is None else None)
    with output.counter("encoding images") as progress:
        page = write_explorer(folder, splits, out, progress=progress)
    size = page.stat().st_size
    shown = [f"{page} ({size / 1e6:.1f} MB)"]
    output.result({"explorer": str(page), "bytes": size}, shown)


def sample(
    run: RunPath,
    n: Annotated[int, typer.Option("--n", min=1, max=1_000_000, help="Number of images.")] = 64,
    temperature: Annotated[
        float, typer.Option(min=0, max=100, help="Below 1: more typical.")
    ] = 1.0,
    sampler: Sampler = "auto",
    label: Annotated[
        str | None, typer.Option(help="Class to draw from: of a conditional model, or a sampler.")
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(help="An attribute of a conditional model, such as thickness=1."),
    ] = None,
    guidance: Annotated[
        float, typer.Option(min=0, max=100, help="Above 1: follow label and attributes further.")
    ] = 1.0,
    out: Out = None,
    seed: Seed = 0,
) -> None:
    """Generate images, from what was found to be best on validation images."""
    from vaelab.explore.pictures import samples
    from vaelab.training.run import Run

    model, folder = _model(run)
    told = model.conditioning is not None
    if sampler == "auto":
        choose(Run(run), model)
    alone = sampler in ("auto", "prior") and (told or label is None)
    made = samples(
        model,
        n,
        temperature,
        seed,
        sampler=sampler,
        images=None if alone else splits_of(Run(run), model, None, option=None).train,
        label=label,
        guidance=guidance,
        given=_given(given or []),
    )
    _save(made, out or folder / "samples.png")


def edit(
    run: RunPath,
    images: Images = None,
    data: Data = None,
    attribute: Attribute = None,
    to: Annotated[float, typer.Option(min=0, max=1, help="0, 1, or between.")] = 1.0,
    strength: Annotated[float, typer.Option(min=0, max=10, help="Above 1: beyond.")] = 1.0,
    n: Number = None,
    how: How = "difference",
    split: PartOf = None,
    skip_bad: SkipBad = False,
    out: Out = None,
) -> None:
    """Change an attribute of images and keep all else: each image, its reconstruction, the edit.

    A model without labels is moved along a direction that is found on its training images.
    """
    from vaelab.explore.edits import strips
    from vaelab.training.run import Run

    model, folder = _model(run)
    name, handle = _handle(Run(run), model, attribute, how)
    found = images_of(Run(run), model, images or [], data, split, skip_bad, option="IMAGES")
    path = out or folder / f"edit-{_file(name)}.png"
    shown = _some(found, n, 16, bool(images or data), path)
    made = strips(model, shown.take(_all(shown)), name, to, strength, handle)
    kinds = ("image", "reconstruction", "edit")
    _save_rows(made, path, made.shape[1] * 4, shown, kinds)


def transfer(
    run: RunPath,
    data: Data = None,
    attribute: Attribute = None,
    start: Annotated[str, typer.Option("--from", help=f"Image that has it. {One}")] = "0",
    end: Annotated[str, typer.Option("--to", help="Image that is to have it.")] = "1",
    how: How = "difference",
    split: PartOf = None,
    skip_bad: SkipBad = False,
    out: Out = None,
) -> None:
    """Give an image an attribute of another: the first, the second, and the second changed."""
    import torch

    from vaelab.explore.edits import transferred
    from vaelab.training.run import Run

    model, folder = _model(run)
    name, handle = _handle(Run(run), model, attribute, how)
    chooser = Chooser(Run(run), model, data, split, skip_bad)
    first, last = chooser.pick(start, "--from"), chooser.pick(end, "--to")
    pair = torch.stack([first.image, last.image])
    made = transferred(model, pair[:1], pair[1:], name, handle)
    shown = torch.cat([model.as_images(pair), made])
    path = out or folder / f"transfer-{_file(name)}.png"
    _save(shown, path, 3, **{"from": first.name, "to": last.name})


def directions(
    run: RunPath,
    data: Data = None,
    how: How = "difference",
    n: Annotated[int, typer.Option("--n", min=1, max=1_000_000, help="Images a strip.")] = 8,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=".npz for the directions.", show_default=False),
    ] = None,
) -> None:
    """Find the direction of every attribute in the latent space, and show what it changes."""
    import torch

    from vaelab.explore.directions import NO_ATTRIBUTES, check_how, find_direction, observed
    from vaelab.explore.edits import walks
    from vaelab.explore.grids import save_arrays, save_images, unknown_suffix
    from vaelab.training.run import Run

    model, folder = _model(run)
    path = out or folder / "directions.npz"
    if path.suffix != ".npz":
        raise unknown_suffix(path, ".npz for arrays")
    splits = splits_of(Run(run), model, data)
    names = observed(splits.train)
    if not names:
        raise ConfigError(NO_ATTRIBUTES)
    found = [find_direction(model, splits.train, name, check_how(how)) for name in names]
    save_arrays(path, **{each.name: each.vector.numpy() for each in found})
    rows = [("attribute", "below", "above", "found by")]
    rows += [(d.name, f"{d.means[0]:.2f}", f"{d.means[1]:.2f}", d.how) for d in found]
    pictures = []
    for each in found:
        picture = (out.parent if out else folder) / f"direction-{_file(each.name)}.png"
        strip = walks(model, splits.test.take(_all(splits.test)[:n]), each.name, each)
        save_images(picture, torch.cat(list(strip)), columns=strip.shape[1])
        pictures.append(str(picture))
    output.result({"out": str(path), "pictures": pictures}, [*table(rows), str(path), *pictures])


def reconstruct(
    run: RunPath,
    images: Images = None,
    data: Data = None,
    n: Number = None,
    split: PartOf = None,
    skip_bad: SkipBad = False,
    out: Out = None,
) -> None:
    """Show images beside what the model makes of them."""
    from vaelab.explore.pictures import reconstructions
    from vaelab.training.run import Run

    model, folder = _model(run)
    found = images_of(Run(run), model, images or [], data, split, skip_bad)
    path = out or folder / "reconstructions.png"
    shown = _some(found, n, 32, bool(images or data), path)
    pairs = reconstructions(model, shown.take(_all(shown)))
    _save_rows(pairs, path, min(8, 2 * len(shown)), shown, ("image", "reconstruction"))


def interpolate(
    run: RunPath,
    data: Data = None,
    start: Annotated[str, typer.Option("--from", help=f"The first image. {One}")] = "0",
    end: Annotated[str, typer.Option("--to", help="The last image, likewise.")] = "1",
    steps: Annotated[int, typer.Option(min=2, max=10_000, help="Images of the path.")] = 10,
    how: Annotated[str, typer.Option(help="linear or spherical.")] = "linear",
    split: PartOf = None,
    skip_bad: SkipBad = False,
    out: Out = None,
) -> None:
    """Walk through the latent space from one image to another."""
    from vaelab.explore.pictures import interpolate as walk
    from vaelab.training.run import Run

    if how not in ("linear", "spherical"):
        raise ConfigError(f"--how {how!r}: choose linear or spherical.")
    model, folder = _model(run)
    chooser = Chooser(Run(run), model, data, split, skip_bad)
    first, last = chooser.pick(start, "--from"), chooser.pick(end, "--to")
    kind: Literal["linear", "spherical"] = "linear" if how == "linear" else "spherical"
    path = walk(model, first.image, last.image, steps, kind)
    told = {"from": first.name, "to": last.name}
    _save(path, out or folder / "interpolation.png", steps, **told)


def traverse(
    run: RunPath,
    data: Data = None,
    image: Annotated[
        str | None,
        typer.Option(help=f"Start from this image. {One}", show_default="the prior"),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, max=10_000, help="Images of a row.")] = 11,
    reach: Annotated[
        float, typer.Option(min=0, max=100, help="Deviations of the prior, each way.")
    ] = 2.5,
    split: PartOf = None,
    skip_bad: SkipBad = False,
    out: Out = None,
) -> None:
    """Vary one latent dimension a row, the others held."""
    import torch

    from vaelab.explore.pictures import traverse as vary
    from vaelab.training.run import Run

    model, folder = _model(run)
    code, told = None, {}
    if image is not None:
        chosen = Chooser(Run(run), model, data, split, skip_bad).pick(image, "--image")
        code, told = chosen.image, {"image": chosen.name}
    rows = vary(model, code, values=torch.linspace(-reach, reach, steps).tolist())
    _save(rows.flatten(0, 1), out or folder / "traversals.png", steps, **told)


def encode(
    run: RunPath,
    images: Images = None,
    data: Data = None,
    split: PartOf = None,
    skip_bad: SkipBad = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=".npz or .csv.", show_default="codes.npz in the run"),
    ] = None,
) -> None:
    """Write posterior means and deviations of images, their files and classes, as .npz or .csv.

    All of other images, unless --split names a part; of the run's own the test part.
    """
    from vaelab.explore.encodings import encode_to_file
    from vaelab.training.run import Run

    model, _ = _model(run)
    path = out or run / "codes.npz"
    found = images_of(Run(run), model, images or [], data, split, skip_bad)
    encode_to_file(model, found, path)
    rows = {"out": str(path), "images": len(found)}
    output.result(rows, [f"{counted(len(found), 'image')} encoded.", str(path)])


def _given(pairs: list[str]) -> dict[str, float]:
    """Return the numbers of NAME=NUMBER."""
    given = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        try:
            given[name] = float(number)
        except ValueError:
            raise ConfigError(f"--given {pair}: write NAME=NUMBER, such as thickness=1.") from None
    return given


def _handle(run: Run, model: Vae, attribute: str | None, how: str) -> tuple[str, Handle | None]:
    """Return which attribute is meant, and what moves it in a model without labels."""
    from vaelab.evaluation.attributes import editable
    from vaelab.explore.directions import NO_ATTRIBUTES, check_how, find_direction

    known = editable(model)
    images = None if known else splits_of(run, model, None, option=None).train
    names = known or (images.attribute_names if images else ())
    if not names:
        raise ConfigError(NO_ATTRIBUTES)
    if attribute is None and len(names) > 1:
        raise ConfigError(f"--attribute: name one of {', '.join(names)}.")
    name = attribute or names[0]
    if images is None:
        return name, None
    return name, find_direction(model, images, name, check_how(how))


def _model(path: Path) -> tuple[Vae, Path]:
    from vaelab.training.run import Run

    run = Run(path)
    model = run.load_model()
    say_unfinished(run)
    return model, run.figures


def _file(name: str) -> str:
    """Return an attribute's name as part of a file's name: a path in it leads nowhere."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "attribute"


def _all(images: ImageSet) -> Tensor:
    import torch

    return torch.arange(len(images))


def _some(images: ImageSet, n: int | None, few: int, named: bool, path: Path) -> ImageSet:
    """Return the first images: n of them, ``few`` of a run's own, of others all that are good.

    A picture of more than `PICTURED` images helps nobody; a file of numbers takes all.
    """
    most = few if not named else PICTURED if path.suffix == ".png" else len(images)
    count = min(n or most, len(images))
    if n is None and named and count < len(images):
        output.say(f"The first {count} of {len(images):,} images; --n or an --out .npz has more.")
    return images.subset(_all(images)[:count])


def _names(images: ImageSet) -> list[str]:
    return [images.name(number) for number in range(len(images))]


def _save_rows(
    rows: Tensor, path: Path, columns: int, of: ImageSet, kinds: tuple[str, ...]
) -> None:
    """Write rows of images ``(N, kinds, C, H, W)`` with the name and class that each is of."""
    import numpy as np

    from vaelab.explore.grids import save_images

    names = _names(of)
    about = {"files": np.repeat(names, len(kinds)), "kinds": np.tile(kinds, len(names))}
    if of.labels is not None:
        known = ["" if k < 0 else of.class_names[k] for k in of.labels.tolist()]
        about["labels"] = np.repeat(known, len(kinds))
    save_images(path, rows.flatten(0, 1), columns, **about)
    result = {"out": str(path), "images": len(rows) * len(kinds), "files": names}
    output.result(result, [str(path)])


def _save(images: Tensor, path: Path, columns: int | None = None, **told: Any) -> None:
    """Write images, and tell where; single names among what else is told are printed too."""
    from vaelab.explore.grids import save_images

    save_images(path, images, columns)
    lines = [f"{key} {value}" for key, value in told.items() if isinstance(value, str)]
    output.result({"out": str(path), "images": len(images), **told}, [*lines, str(path)])


COMMANDS = (
    evaluate,
    report,
    explore,
    sample,
    reconstruct,
    interpolate,
    traverse,
    encode,
    edit,
    transfer,
    directions,
)
