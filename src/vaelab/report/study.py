"""The report of a study: one page that compares all its cases."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vaelab import files
from vaelab.data.images import Splits
from vaelab.errors import VaelabError, counted
from vaelab.evaluation.figures import of_attribute, rounded, sense, short_name
from vaelab.report.augmentation import augmentation_sections, augmentation_tables
from vaelab.report.cell import Cell, Table
from vaelab.report.cost import cost_plot
from vaelab.report.extras import bounds_of, extra_sections
from vaelab.report.latent_plots import latent_map
from vaelab.report.latents import find_latents
from vaelab.report.page import render
from vaelab.report.palette import class_color
from vaelab.report.pictures import Picture, small_pairs, small_samples
from vaelab.report.plot import Plot, number, shown_range, stylesheet, ticks
from vaelab.studies import verdict
from vaelab.studies.plan import Case
from vaelab.studies.results import Results, as_csv, read_results
from vaelab.studies.study import Study
from vaelab.training.progress import duration

Progress = Callable[[int, int], None]

LIKELY = (
    "elbo", "elbo_given", "elbo_joint", "bits_per_dim", "bits_per_dim_given",
    "log_prob", "log_prob_given", "log_prob_joint", "bits_per_dim_iwae", "bits_per_dim_iwae_given",
)  # fmt: skip
COLUMNS = (
    "distortion", "rate", "mse", "frechet", "frechet_floor", "kernel", "precision", "recall",
    "density", "coverage", "sharpness", "label_read", "recognized", "certainty", "recognized_back",
    "neighbour_accuracy", "active_units", "holes", "path_length",
)  # fmt: skip
"""Figures of the table, as far as there are any, in this order; bounds by draws in between."""

ATTRIBUTE_COLUMNS = (
    "probe", "probe_inferred", "switch", "kept", "drift", "probe_w", "probe_w_inferred",
)  # fmt: skip
"""Figures of every attribute, which come first."""

_POINTS = 1_000  # images of a small latent map
_SETTLED = 0.15


def write_study_report(
    study: Study, data: Callable[[Case], Splits], *, progress: Progress | None = None
) -> Path:
    """Write ``report.html``, ``summary.md`` and ``figures.csv`` of a study, finished or not.

    Returns the page.

    Arguments:
        study: the folder.
        data: gives the images of a case.
        progress: told how many cases are drawn, and how many there are.
    """
    results = read_results(study)
    script = stylesheet("study.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    tell = progress or (lambda done, total: None)
    drawn = []
    augments = results.plan.augments
    for count, case in enumerate(() if augments else results.plan.cases, 1):
        drawn.append(_exhibit(results, case, data, count))
        tell(count, len(results.plan.cases))
    page = render(
        {
            "title": results.plan.title,
            "question": results.plan.question,
            "headline": _tight(verdict.headline(results)),
            "comparisons": [_tight(text) for text in verdict.comparisons(results)],
            "alerts": verdict.failures(results),
            "first": augmentation_sections(results, study) if augments else [],
            "tables": _tables(results),
            "curves": [] if augments else _curves(results),
            "pareto": None if augments else cost_plot(results),
            "legend": [
                (case.name, class_color(i), i >= 10) for i, case in enumerate(results.plan.cases)
            ],
            "exhibits": drawn,
            "sections": extra_sections(results, data),
            "protocols": _protocols(results),
            "statistics": _statistics(results),
            "bad": "below" if sense(results.plan.lead) > 0 else "above",
            "pictured": _pictured(results),
            "command": f"vaelab study {study}",
            "script": Markup(script),
            "script_hash": f"sha256-{digest}",
            "vaelab": results.plan.cases[0].config.versions.get("vaelab", ""),
        },
        "study.html",
    )
    files.write_text(study.csv_file, as_csv(results))
    files.write_text(study.summary_file, as_markdown(results))
    files.write_text(study.report_file, page)
    return study.report_file


@dataclass(frozen=True)
class Exhibit:
    """A case as the page shows it.

    Arguments:
        name: of the case.
        color: of its line.
        settings: what it sets otherwise than the baseline.
        note: its leading figure, or why there is none.
        samples, pairs, map: of its first seed; None if that has none.
        about_map: what the map shows.
    """

    name: str
    color: str
    settings: str
    note: str
    samples: Picture | None = None
    pairs: Picture | None = None
    map: Markup | None = None
    about_map: str = ""


def _exhibit(results: Results, case: Case, data: Callable[[Case], Splits], count: int) -> Exhibit:
    color, settings = class_color(count - 1), _settings(results, case)
    measured = results.of(case)
    if not measured:
        failed = [run.failure for run in results.runs if run.job.case is case and run.failure]
        return Exhibit(case.name, color, settings, failed[0] if failed else "Not done yet.")
    lead = results.plan.lead
    means = results.means(lead)
    note = ""
    if case.key in means:
        value = verdict.amount(means[case.key])
        note = f"{results.called(lead)} {value}{verdict.unit(results, lead)}"
    try:
        model = measured[0].job.run.load_model()
        images = data(case).test
        latents = find_latents(model, images, limit=_POINTS)
    except VaelabError as error:
        return Exhibit(case.name, color, settings, f"{note} {error}")
    picture = latent_map(latents, f"map-{count}")
    return Exhibit(
        case.name,
        color,
        settings,
        _tight(note),
        small_samples(model, latents.point),
        small_pairs(model, images),
        picture,
        "codes" if latents.point else "posterior means, with the prior’s 1σ and 2σ",
    )


def _settings(results: Results, case: Case) -> str:
    """Return what a case sets otherwise than the baseline, in the words of the command line."""
    base = _flat(results.baseline.config.model_dump(mode="json"))
    own = _flat(case.config.model_dump(mode="json"))
    if case is results.baseline:
        return "baseline"
    changed = [
        f"{key}={_short(value)}"
        for key, value in own.items()
        if value != base.get(key) and not key.startswith("versions.") and not _mirrors(key, own)
    ]
    return ", ".join(changed) or "as the baseline"


def _mirrors(key: str, own: Mapping[str, Any]) -> bool:
    """Tell whether a setting of the decoder is that of the encoder, as it is by default."""
    mirrored = key.replace("model.decoder.", "model.encoder.")
    return mirrored != key and own.get(mirrored) == own[key]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _short(value: Any) -> str:
    return str(value).replace(" ", "")


def _tables(results: Results) -> list[Table]:
    """Return what the page has in numbers: cases by figures, or arms by numbers of labels."""
    return augmentation_tables(results) if results.plan.augments else [_table(results)]


def _table(results: Results) -> Table:
    """Return the table of cases by figures."""
    lead = results.plan.lead
    columns = _columns(lead, results.figures())
    means = {name: results.means(name) for name in columns}
    tops = {
        name: (min if sense(name) < 0 else max)(found.values(), key=lambda e: e.value).value
        for name, found in means.items()
        if found and _measured_alike(results, name)
    }
    seconds = {case.key: [run.seconds for run in results.of(case)] for case in results.plan.cases}
    rows = []
    for case in results.plan.cases:
        cells = []
        for name in columns:
            found = means[name].get(case.key)
            if found is None:
                cells.append(Cell("–", ""))
                continue
            top = sense(name) != 0 and found.value == tops.get(name)
            text = _tight(rounded(found.value, found.interval))
            cells.append(Cell(text, repr(found.value), top))
        runs = results.of(case)
        spent = sum(seconds[case.key]) / max(1, len(runs))
        cells.append(Cell(duration(spent) if runs else "–", repr(spent)))
        size = runs[0].parameters if runs else 0
        cells.append(Cell(f"{size:,}" if runs else "–", str(size)))
        rows.append((case.name, len(runs), cells))
    heads = [(results.called(name), verdict.unit(results, name).strip()) for name in columns]
    return Table("All cases", [*heads, ("training", "time"), ("parameters", "")], rows)


def as_markdown(results: Results) -> str:
    """Return verdict and tables as Markdown, for a document of somebody's own."""
    said = [verdict.headline(results), *verdict.comparisons(results), *verdict.failures(results)]
    tables = _tables(results)
    parts = [f"**{_tight(said[0])}**", "\n".join(f"- {_tight(text)}" for text in said[1:])]
    for table in tables:
        if len(tables) > 1:
            parts.append(f"{table.title}:")
        parts.append(_rows(table))
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(table: Table) -> str:
    """Return a table as Markdown."""
    heads = [f"{name} ({unit})" if unit else name for name, unit in table.heads]
    rows = [
        [name, *(f"**{cell.text}**" if cell.best else cell.text for cell in cells)]
        for name, _, cells in table.rows
    ]
    lines = [["case", *heads], ["---", *("--:" for _ in heads)], *rows]
    cells = [" | ".join(text.replace("|", "\\|") for text in line) for line in lines]
    return "\n".join(f"| {line} |" for line in cells)


def _curves(results: Results) -> list[Markup]:
    """Return the leading figure on validation images, by epoch and by second, all cases."""
    key = f"validation/{results.plan.lead}"
    lines = {}
    for case in results.plan.cases:
        runs = [run for run in results.of(case) if run.curve and key in run.curve[0]]
        if runs:
            lines[case.key] = [
                (
                    float(entries[0]["epoch"]),
                    sum(entry["seconds"] for entry in entries) / len(runs),
                    sum(entry[key] for entry in entries) / len(runs),
                )
                for entries in zip(*(run.curve for run in runs), strict=False)
                if all(entry.get(key) is not None for entry in entries)
            ]
    if not lines:
        return []
    panels = []
    for across, axis in ((0, "epoch"), (1, "seconds of training")):
        points = {k: [(p[across], p[2]) for p in line] for k, line in lines.items()}
        panels.append(_lines(results, points, axis))
    return panels


def _lines(
    results: Results, points: Mapping[str, Sequence[tuple[float, float]]], axis: str
) -> Markup:
    last = max(x for line in points.values() for x, _ in line)
    settled = [y for line in points.values() for x, y in line if x >= _SETTLED * line[-1][0]]
    low, high = shown_range([y for y in settled if math.isfinite(y)], sense(results.plan.lead))
    left = 16 + max(6 * len(number(tick)) for tick in ticks(low, high))
    plot = Plot((0, last), (low, high), (420, 300), (left, 24, 12, 38))
    plot.axes(axis)
    label = results.called(results.plan.lead)
    plot.write(4, 13, f"validation {label}", "strong")
    plot.write(plot.box[2], 13, verdict.unit(results, results.plan.lead).strip(), "axis end")
    for index, case in enumerate(results.plan.cases):
        line = points.get(case.key)
        if line:
            dash = ";stroke-dasharray:5 3" if index >= 10 else ""
            plot.line(line, "case", f"stroke:{class_color(index)}{dash}")
            if len(line) == 1:
                plot.dots(line, index, 5)
    alt = f"Validation {label} of {len(points)} cases by {axis}."
    return plot.svg(alt, f"curves-{axis.split()[0]}")


def _measured_alike(results: Results, figure: str) -> bool:
    """Tell whether all runs measured a figure in the same way: densities are no probabilities."""
    ways = {
        run.evaluation.figures[figure].protocol
        for run in results.runs
        if run.evaluation is not None and figure in run.evaluation.figures
    }
    return len(ways) == 1


def _pictured(results: Results) -> str:
    """Say what the pictures are of, as far as it holds."""
    seeds = {runs[0].job.seed for case in results.plan.cases if (runs := results.of(case))}
    images = {
        case.config.data.model_dump_json(exclude={"attributes"}) for case in results.plan.cases
    }
    of = (
        "the first seed" if seeds <= {results.plan.seeds[0]} else "the first seed that was measured"
    )
    same = ": the same noise and the same images for every case" if len(images) == 1 else ""
    mixed = "" if len(images) == 1 else " Cases differ in their images: compare them with care."
    return f"All pictures are of {of}, none chosen{same}.{mixed}"


def _protocols(results: Results) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for run in results.runs:
        if run.evaluation is not None:
            for name, figure in run.evaluation.figures.items():
                found.setdefault(name, figure.protocol)
    return [(short_name(name), text) for name, text in found.items()]


def _statistics(results: Results) -> str:
    if results.plan.augments:
        return (
            f"{counted(len(results.plan.seeds), 'seed')}. A seed decides which images are "
            "labelled, the initial weights and the order of images, alike in all arms. All arms "
            "took the same number of steps over equally many images. Intervals of accuracies are "
            "of the mean over seeds, 95 % (Student’s t). Gains are differences at the same seeds, "
            "their variances moderated towards what the arms at a number of labels have in "
            "common; their intervals hold all at once, those of all arms and numbers of labels "
            "(Šidák). Neither says anything about other test images. Temperatures are fitted to "
            "all validation images, which changes no accuracy."
        )
    seeds = len(results.plan.seeds)
    count = len(results.comparisons(results.plan.lead))
    return (
        f"Every case was trained with {counted(seeds, 'seed')}; intervals are of "
        "the mean over seeds, 95 % (Student’s t), and say nothing about other test images or other "
        "reference classifiers. Comparisons are between runs of the same seed, their variances "
        "moderated towards what all cases have in common (Smyth, 2004); their "
        f"{count} intervals hold all at once (Šidák)."
    )


def _tight(text: str) -> str:
    return text.replace(" ± ", "\u00a0±\u00a0")


def _columns(lead: str, names: Iterable[str]) -> list[str]:
    """Return the figures of the table in their order, as far as there are any."""
    attributes = dict.fromkeys(of_attribute(name)[1] for name in names if ":" in name)
    each = [f"{figure}:{name}" for name in attributes for figure in ATTRIBUTE_COLUMNS]
    order = (lead, *each, *LIKELY, *bounds_of(names), "exact_log_prob", *COLUMNS)
    return [name for name in dict.fromkeys(order) if name in names]
