"""Commands that use a trained run: measure it, look at it, take something out of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaelab.cli.images import (
    Data,
    PartOf,
    RunPath,
    Split,
    given_images,
    part_of,
    say_unfinished,
    splits_of,
)
from vaelab.cli.output import output, table
from vaelab.errors import ConfigError

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
Sampler = Annotated[str, typer.Option(help="Codes from the prior, gmm, flow or pool.")]
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
    sampler: Sampler = "prior",
    attributes: Annotated[
        bool, typer.Option("--attributes", help="Measure edits of the attributes too.")
    ] = False,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
) -> None:
    """Measure ELBO, log p(x), reconstruction and use of the latent space, with error bars.

    Figures on the run's own test images are kept in evaluation.json; others are only printed.
    """
    from dataclasses import asdict, replace

    from vaelab.evaluation.evaluate import evaluate as measure
    from vaelab.evaluation.features import find_features
    from vaelab.evaluation.figures import long_name
    from vaelab.evaluation.generate import (
        IMAGES,
        check_enough,
        generation_figures,
        generation_notes,
    )
    from vaelab.evaluation.record import noted, verdict, write
    from vaelab.evaluation.samplers import find_sampler
    from vaelab.explore.directions import NO_ATTRIBUTES, all_attributes
    from vaelab.export.hub import write_figures
    from vaelab.training.backend import find_device
    from vaelab.training.run import Run

    folder = Run(run)
    model = folder.load_model(find_device(device))
    unfinished = folder.unfinished()
    say_unfinished(folder)
    learns = generation or attributes  # from the training images of the data
    given = given_images(folder, model, data, whole=split is None and not learns)
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
    kept = data is None and split == "test" and sampler == "prior"
    if kept:
        write(folder, result)
        write_figures(folder, result)
    where = f" How each was measured: {folder.evaluation_file}" if kept else ""
    rows = [(long_name(name, figure), str(figure)) for name, figure in result.figures.items()]
    said = verdict(result, folder.read_config().options, folder.steps())
    output.result(
        {"run": str(folder), "verdict": said, **asdict(result)},
        [said, *table(rows), *doubts, *([where.strip()] if kept else [])],
    )


def report(run: RunPath) -> None:
    """Write one self-contained page about a run: report.html."""
    from vaelab.report.page import write_report
    from vaelab.training.run import Run

    folder = Run(run)
    model = folder.load_model()
    say_unfinished(folder)
    page = write_report(folder, splits_of(folder, model, None, option=None))
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
    splits = splits_of(folder, folder.load_model(), data)
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
    sampler: Sampler = "prior",
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
    """Generate images from the prior, or from the codes of training images."""
    from vaelab.explore.pictures import samples
    from vaelab.training.run import Run

    model, folder = _model(run)
    told = model.conditioning is not None
    alone = sampler == "prior" and (told or label is None)
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
    images: Annotated[
        str | None,
        typer.Argument(metavar="[IMAGES]", help="Images to edit.", show_default="the run's own"),
    ] = None,
    attribute: Attribute = None,
    to: Annotated[float, typer.Option(min=0, max=1, help="0, 1, or between.")] = 1.0,
    strength: Annotated[float, typer.Option(min=0, max=10, help="Above 1: beyond.")] = 1.0,
    n: Annotated[int, typer.Option("--n", min=1, max=1_000_000, help="Number of images.")] = 16,
    how: How = "difference",
    split: Split = "test",
    out: Out = None,
) -> None:
    """Change an attribute of images and keep all else: each image, its reconstruction, the edit.

    A model without labels is moved along a direction that is found on its training images.
    """
    from vaelab.explore.edits import strips
    from vaelab.training.run import Run

    model, folder = _model(run)
    name, handle = _handle(Run(run), model, attribute, how)
    shown = _first(_images(run, model, images, split, "IMAGES"), n)
    made = strips(model, shown, name, to, strength, handle)
    _save(made.flatten(0, 1), out or folder / f"edit-{_file(name)}.png", columns=made.shape[1] * 4)


def transfer(
    run: RunPath,
    data: Data = None,
    attribute: Attribute = None,
    start: Annotated[int, typer.Option("--from", min=0, help="Image that has it.")] = 0,
    end: Annotated[int, typer.Option("--to", min=0, help="Image that is to have it.")] = 1,
    how: How = "difference",
    split: Split = "test",
    out: Out = None,
) -> None:
    """Give an image an attribute of another: the first, the second, and the second changed."""
    import torch

    from vaelab.explore.edits import transferred
    from vaelab.training.run import Run

    model, folder = _model(run)
    name, handle = _handle(Run(run), model, attribute, how)
    images = _images(run, model, data, split)
    pair = torch.stack([_at(images, start, "--from"), _at(images, end, "--to")])
    made = transferred(model, pair[:1], pair[1:], name, handle)
    shown = torch.cat([model.as_images(pair), made])
    _save(shown, out or folder / f"transfer-{_file(name)}.png", columns=3)


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
        picture = folder / f"direction-{_file(each.name)}.png"
        strip = walks(model, _first(splits.test, n), each.name, each)
        save_images(picture, torch.cat(list(strip)), columns=strip.shape[1])
        pictures.append(str(picture))
    output.result({"out": str(path), "pictures": pictures}, [*table(rows), str(path), *pictures])


def reconstruct(
    run: RunPath,
    data: Data = None,
    n: Annotated[int, typer.Option("--n", min=1, max=1_000_000, help="Number of images.")] = 32,
    split: Split = "test",
    out: Out = None,
) -> None:
    """Show images beside what the model makes of them."""
    from vaelab.explore.pictures import reconstructions

    model, folder = _model(run)
    pairs = reconstructions(model, _first(_images(run, model, data, split), n))
    _save(pairs.flatten(0, 1), out or folder / "reconstructions.png", columns=min(8, 2 * n))


def interpolate(
    run: RunPath,
    data: Data = None,
    start: Annotated[int, typer.Option("--from", min=0, help="Number of the first image.")] = 0,
    end: Annotated[int, typer.Option("--to", min=0, help="Number of the last image.")] = 1,
    steps: Annotated[int, typer.Option(min=2, max=10_000, help="Images of the path.")] = 10,
    how: Annotated[str, typer.Option(help="linear or spherical.")] = "linear",
    split: Split = "test",
    out: Out = None,
) -> None:
    """Walk through the latent space from one image to another."""
    from vaelab.explore.pictures import interpolate as walk

    if how not in ("linear", "spherical"):
        raise ConfigError(f"--how {how!r}: choose linear or spherical.")
    model, folder = _model(run)
    images = _images(run, model, data, split)
    first, last = _at(images, start, "--from"), _at(images, end, "--to")
    path = walk(model, first, last, steps, "linear" if how == "linear" else "spherical")
    _save(path, out or folder / "interpolation.png", columns=steps)


def traverse(
    run: RunPath,
    data: Data = None,
    image: Annotated[
        int | None, typer.Option(min=0, help="Start from this image.", show_default="the prior")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, max=10_000, help="Images of a row.")] = 11,
    reach: Annotated[
        float, typer.Option(min=0, max=100, help="Deviations of the prior, each way.")
    ] = 2.5,
    split: Split = "test",
    out: Out = None,
) -> None:
    """Vary one latent dimension a row, the others held."""
    import torch

    from vaelab.explore.pictures import traverse as vary

    model, folder = _model(run)
    code = None if image is None else _at(_images(run, model, data, split), image, "--image")
    rows = vary(model, code, values=torch.linspace(-reach, reach, steps).tolist())
    _save(rows.flatten(0, 1), out or folder / "traversals.png", columns=steps)


def encode(
    run: RunPath,
    data: Data = None,
    split: Split = "test",
    out: Annotated[Path | None, typer.Option("--out", "-o", help=".npz or .csv.")] = None,
) -> None:
    """Write posterior means, deviations and labels of images to .npz or .csv."""
    from vaelab.explore.encodings import encode_to_file

    model, _ = _model(run)
    path = out or run / "codes.npz"
    encode_to_file(model, _images(run, model, data, split), path)
    output.result({"out": str(path)}, [str(path)])


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


def _images(
    run: Path, model: Vae, data: str | None, split: str, option: str = "--data"
) -> ImageSet:
    from vaelab.training.run import Run

    return part_of(splits_of(Run(run), model, data, bare=True, option=option), split)


def _first(images: ImageSet, n: int) -> Tensor:
    import torch

    return images.take(torch.arange(min(n, len(images))))


def _at(images: ImageSet, number: int, option: str) -> Tensor:
    import torch

    if number >= len(images):
        raise ConfigError(f"{option} {number}: there are {len(images)} images, numbered from 0.")
    return images.take(torch.tensor([number]))[0]


def _save(images: Tensor, path: Path, columns: int | None = None) -> None:
    from vaelab.explore.grids import save_images

    save_images(path, images, columns)
    output.result({"out": str(path), "images": len(images)}, [str(path)])


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
