"""``vaelab demo`` and ``vaelab train``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaelab.cli.findings import new_lines
from vaelab.cli.images import started_from
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
from vaelab.config import RunConfig, assignment, merge
from vaelab.errors import ConfigError, counted

if TYPE_CHECKING:
    from vaelab.data.images import Splits
    from vaelab.training.finding import Finding
    from vaelab.training.run import Run

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run.")]
DEMO = "demo.yaml"


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
) -> None:
    """Train a 2-D model of the embedded MNIST digits, measure it, write report and explorer."""
    from vaelab.api import configure
    from vaelab.evaluation.evaluate import evaluate
    from vaelab.evaluation.record import verdict, write
    from vaelab.explorer.page import write_explorer
    from vaelab.report.page import write_report
    from vaelab.training.run import Run, check_same

    run = Run(out)
    begun = time.monotonic()
    with as_file(files("vaelab") / "presets" / DEMO) as preset:
        config = configure({"training": {"seed": seed}}, preset)
    if run.exists:
        check_same(run.read_config(), config, run.config_file)
        output.say(f"{run}: goes on where it was.")
    else:
        run.check_free()
    splits = output.images(config)
    _train(config, splits, run)
    with output.counter("measuring") as progress:
        result = evaluate(run.load_model(), splits.test, progress=progress)
    write(run, result)
    explorer = write_explorer(run, splits)
    page = write_report(run, splits)
    seconds = time.monotonic() - begun
    output.result(
        {
            "run": str(run),
            "report": str(page),
            "explorer": str(explorer),
            "verdict": verdict(result),
            "figures": {name: figure.value for name, figure in result.figures.items()},
            "seconds": seconds,
        },
        [
            verdict(result),
            *table(
                [
                    ("report", str(page)),
                    ("explorer", str(explorer)),
                    ("time", f"{seconds:.0f} s"),
                ]
            ),
        ],
    )


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe: see `vaelab recipes`.", show_default="vae")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="mnist, swiss-roll, or a path.", show_default="mnist"),
    ] = None,
    out: Out = None,
    latent_dim: Annotated[int | None, typer.Option(help="Dimensions of the latent space.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Size of what is chosen by the images: small, base or large.", show_default="base"
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images.")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Train for about so long: chooses the epochs by a trial of the steps."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="batch-gd, sgd, momentum, nesterov, rmsprop, adam, adamw, adamax or muon.",
        ),
    ] = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the rate.")] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Classifier in whose features options.perceptual compares images.",
            show_default="one of the images' classes",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    size: Size = None,
    channels: Channels = None,
    fit: FitTo = None,
    range: ValueRange = None,
    background: Background = None,
    frames: Frames = None,
    group: Group = None,
    binarize: Annotated[str | None, typer.Option(help="none, dynamic or threshold.")] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Data augmentation: any of flip, shift, crop, zoom, rotation, jitter and hue, "
            "such as flip,rotation=15; flip=auto where it helps.",
            show_default="none",
        ),
    ] = None,
    skip_bad: SkipBadOrNot = None,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="YAML file with any setting.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", help="Any setting, such as -s training.clip=1."),
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be trained; write nothing.")
    ] = False,
) -> None:
    """Train a model: vaelab train beta-vae --data photos/ --size 64 --latent-dim 10."""
    from vaelab.api import configure, settings_to_config
    from vaelab.defaults import with_defaults
    from vaelab.evaluation.figures import short_name
    from vaelab.training.run import Run
    from vaelab.training.trial import check_minutes

    flat = {
        "spec": data,
        "preset": preset,
        "latent_dim": latent_dim,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "optimizer": optimizer,
        "beta": beta,
        "features": features,
        "seed": seed,
        "device": device,
        "precision": precision,
        "size": size,
        "channels": channels,
        "fit": fit,
        "range": range,
        "background": background,
        "frames": frames,
        "group": group,
        "binarize": binarize,
        "augment": augment,
        "skip_bad": skip_bad,
    }
    values = settings_to_config({key: value for key, value in flat.items() if value is not None})
    if recipe is not None:
        values["recipe"] = recipe
    for text in set_ or []:
        values = merge(values, assignment(text))
    if resume and out is None:
        raise ConfigError("--resume: say which run to go on with: --out runs/NAME.")
    budget = check_minutes(minutes, values, resume)
    full = configure(
        values, config, Run(out) if resume and out else None, started_from(start, data)
    )
    run = Run(out or free_folder(full))
    if not (dry_run or resume):
        run.check_free()
    splits = output.images(full)
    full, seconds = _timed(with_defaults(full, splits.train), splits, budget, resume)
    if dry_run:
        _show(full, splits, seconds)
        return
    before = run.last_epoch() if resume else None
    _train(full, splits, run)
    if output.quiet:
        return  # another process may still be writing what would be printed
    result = run.epochs()[-1]
    summary = {"run": str(run), **{key: result[key] for key in ("step", "epoch", "seconds")}}
    figures = {
        key: value
        for key in _FIGURES
        if (value := result.get(f"validation/{key}")) is not None  # null where not finite
    }
    rows = [
        (short_name(key), _UNITS.get(key, _NATS).format(value)) for key, value in figures.items()
    ]
    found = _diagnosed(full, splits, run)
    following = (
        [] if "accuracy" in figures else [f"Next: vaelab evaluate {run}; vaelab report {run}"]
    )
    output.result(
        {**summary, "validation": figures, "findings": [asdict(one) for one in found]},
        [
            f"{trained(full.recipe, result, before)}. Validation:",
            *table([*rows, ("run", str(run))]),
            *new_lines(run, found),
            *following,
        ],
    )


def _timed(
    config: RunConfig, splits: Splits, budget: float | None, resumes: bool
) -> tuple[RunConfig, float | None]:
    """Return the configuration, of as many epochs as fit into a budget, and its seconds if known.

    Says them, unless they are few.
    """
    from vaelab.training.trial import SHORT, announcement, estimate_pace, limited

    pace = None
    if budget is not None:
        config, pace = limited(config, splits, budget)
    elif not (resumes or output.quiet):
        pace = estimate_pace(config, splits)
    if pace is None:
        return config, None
    seconds = config.training.epochs * pace.epoch
    if budget is not None or seconds >= SHORT:
        output.say(announcement(config, pace, budget))
    return config, seconds


def _diagnosed(config: RunConfig, splits: Splits, run: Run) -> list[Finding]:
    """Return what is wrong with a trained VAE; [] of a classifier."""
    from vaelab.evaluation.diagnose import diagnose
    from vaelab.recipes import find_recipe

    if find_recipe(config.recipe).classifies:
        return []
    return diagnose(run, run.load_model(), splits)


_FIGURES = ("distortion", "rate", "elbo", "bits_per_dim", "accuracy")
_UNITS = {"accuracy": "{:.2%}", "bits_per_dim": "≤ {:.3f}"}
_NATS = "{:.2f} nats per image"


def trained(name: str, last: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """Say how long a model was trained; or that it was so ``before``, when that was the last epoch.

    Arguments:
        name: of the model.
        last: the last epoch of its log.
        before: the last epoch before this training.
    """
    how = f"{counted(last['epoch'], 'epoch')} in {last['seconds']:.0f} s"
    if last == before:
        return f"{name}: finished already, after {how}; more --epochs would go on with it"
    return f"{name}: {how}"


def free_folder(config: RunConfig) -> Path:
    """Return ``runs/RECIPE-DATA``, numbered if that is taken."""
    stem = "".join(c if c.isalnum() else "-" for c in Path(config.data.spec).stem).strip("-")
    base = Path("runs") / f"{config.recipe}-{stem or 'data'}"
    number, path = 2, base
    while path.exists():
        path, number = base.with_name(f"{base.name}-{number}"), number + 1
    return path


def _train(config: RunConfig, splits: Splits, run: Run) -> None:
    from vaelab.api import choose_samples, train_config
    from vaelab.data.images import with_labels
    from vaelab.models.vae import Vae
    from vaelab.recipes import find_recipe
    from vaelab.training.fit import few_steps_note
    from vaelab.training.interrupt import Interrupted

    train, classifies = splits.train, find_recipe(config.recipe).classifies
    count = len(with_labels(train)) if classifies else len(train)
    if not run.exists and (note := few_steps_note(config.training, count)):
        output.say(note)
    try:
        model = train_config(config, splits, run, output.progress())
    except Interrupted as error:
        output.say(f"Saved after step {error.args[0]}. Go on with:")
        command = "classify train" if classifies else "train"
        output.say(f"vaelab {command} --resume --out {run}")
        raise typer.Exit(130) from None
    if isinstance(model, Vae):
        choose_samples(model, splits, run, output.progress())


def _show(config: RunConfig, splits: Splits, seconds: float | None) -> None:
    """Print the resolved configuration and the size of what it describes."""
    import yaml

    from vaelab.training.loop import Trainer
    from vaelab.training.progress import Silent

    trainer = Trainer(config, splits, Silent())
    model = trainer.model
    count = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
    }
    values: dict[str, Any] = trainer.config.model_dump(mode="json")
    facts: dict[str, Any] = {
        "images": {
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
            "shape": list(splits.train.shape),
        },
        "parameters": count,
        "steps": trainer.steps,
        "device": str(trainer.backend.device),
        "precision": trainer.backend.precision,
        **({} if seconds is None else {"seconds": round(seconds, 1)}),
    }
    text = yaml.safe_dump({**values, "would train": facts}, sort_keys=False)
    output.result({"config": values, **facts}, [text.rstrip()])


COMMANDS = (demo, train)
