"""The report of a run: one page that holds everything, for a reader who has nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from vaelab import files
from vaelab.config import RunConfig
from vaelab.data.images import Splits
from vaelab.errors import DataError
from vaelab.evaluation.diagnose import diagnose
from vaelab.evaluation.record import Evaluation, is_current, read, verdict
from vaelab.models.vae import Vae
from vaelab.report import words
from vaelab.report.curves import learning_curves
from vaelab.report.labelled import labelled_sections
from vaelab.report.latent_plots import aggregate_plots, deviations_plot, latent_map, legend
from vaelab.report.latents import Latents, find_latents
from vaelab.report.palette import variables
from vaelab.report.pictures import draw
from vaelab.report.plot import standalone, stylesheet
from vaelab.report.structure import structure
from vaelab.training.run import Run, versions

Progress = Callable[[int, int], None]
"""Told how many parts of the page are done, and how many there are."""

_PARTS = 4


def write_report(
    run: Run, splits: Splits, out: Path | None = None, *, progress: Progress | None = None
) -> Path:
    """Write ``report.html`` of a run, and its pictures as files of ``figures/``; returns the page.

    A page in another place, ``out``, has no such files beside it.

    The page needs no network, no script and no other file, and follows the reader's light or dark
    theme. The same run gives the same page. An evaluation is shown if there is one.

    Raises:
        RunError: the folder is no run, has no weights yet, or is damaged.
        DataError: the images do not have the model's shape.
    """
    tell = progress or (lambda done, total: None)
    model = run.load_model()
    if splits.test.shape != model.shape:
        raise DataError(
            f"report: images of shape {splits.test.shape} do not fit a model of {model.shape}. "
            "Read them with the size and channels that the model was trained on."
        )
    splits = model.matched_splits(splits)
    config = run.read_config()
    evaluation = read(run) if is_current(run) else None
    log = run.read_log() if run.log_file.exists() or run.state_file.exists() else []
    tell(1, _PARTS)
    latents = find_latents(model, splits.test)
    tell(2, _PARTS)
    pictures = draw(model, splits.test, latents)
    tell(3, _PARTS)
    plots = _plots(log, latents)
    page = render(
        {
            **_about(run, config, splits, model, evaluation, log, latents),
            **words.captions(latents),
            **plots,
            "pictures": pictures,
            "labelled": labelled_sections(model, splits.test),
            "hero": pictures.hero,
            "structure": structure(model),
            "dims": model.latent_dim,
        }
    )
    if out is None:
        for name, data in {**pictures.files, **_plot_files(plots)}.items():
            files.write_atomic(run.figures / name, data)
    files.write_text(out or run.report_file, page)
    tell(_PARTS, _PARTS)
    return out or run.report_file


def render(context: dict[str, Any], template: str = "page.html") -> str:
    """Return the page; everything in the context that is no `Markup` is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vaelab.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    own = Path(template).with_suffix(".css").name
    sheets = ("page.css", "plot.css", *([] if own == "page.css" else [own]))
    css = Markup(variables() + "".join(stylesheet(name) for name in sheets))
    return environment.get_template(template).render(css=css, **context)


def _about(
    run: Run,
    config: RunConfig,
    splits: Splits,
    model: Vae,
    evaluation: Evaluation | None,
    log: Sequence[words.Entry],
    latents: Latents,
) -> dict[str, Any]:
    """Return the words of the page."""
    steps, epochs = _of(log, "step"), _of(log, "epoch")
    sentence = words.preliminary(epochs) if evaluation is None else verdict(evaluation)
    alerts = run.unfinished()
    now = versions()
    text, commands = words.reproduce(run, config)
    return {
        "name": run.path.resolve().name,
        "path": str(run),
        "explorer": run.explorer_file.name if run.explorer_file.exists() else None,
        "summary": words.summary(config, splits, model),
        "verdict": sentence.replace(" ± ", "\u00a0±\u00a0"),
        "alerts": alerts,
        "findings": [f for f in diagnose(run, model, splits, evaluation) if f.command],
        "rows": [] if evaluation is None else words.figure_rows(evaluation),
        "facts": words.facts(config, splits, model, epochs, steps),
        "total": sum(p.numel() for p in model.parameters()),
        "config": yaml.safe_dump(
            config.model_dump(mode="json"), sort_keys=False, allow_unicode=True
        ).rstrip(),
        "notes": [
            n for n in words.notes(splits, evaluation, log, epochs, latents) if n not in alerts
        ],
        "measured": words.measured(evaluation, latents, model),
        "reproduce": commands,
        "reproduce_text": text,
        "versions": sorted((config.versions or now).items()),
        "vaelab": now["vaelab"],
    }


def _of(log: Sequence[words.Entry], kind: str) -> list[words.Entry]:
    return [entry for entry in log if entry.get("kind") == kind]


def _plots(log: Sequence[words.Entry], latents: Latents) -> dict[str, Any]:
    return {
        "curves": learning_curves(_of(log, "step"), _of(log, "epoch")),
        "latent_map": latent_map(latents),
        "deviations": None if latents.point else deviations_plot(latents),
        "aggregate": aggregate_plots(latents),
        "legend": legend(latents),
    }


def _plot_files(plots: dict[str, Any]) -> dict[str, bytes]:
    found = {"latents.svg": standalone([plots["latent_map"]])}
    if plots["curves"]:
        found["curves.svg"] = standalone(plots["curves"])
    return found
