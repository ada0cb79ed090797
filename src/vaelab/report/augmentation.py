"""The part of a study's page that shows what generated images gain, and how new they are."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from vaelab import files
from vaelab.evaluation.figures import rounded, short_name
from vaelab.report.arm_plots import arm_color, arm_plots
from vaelab.report.cell import MEANS, Cell, Table
from vaelab.report.extras import Section
from vaelab.report.pictures import Picture
from vaelab.studies.arms import ARMS, ArmName
from vaelab.studies.gains import Level, generators, levels, mix_of
from vaelab.studies.mixture import picture_of
from vaelab.studies.results import Results
from vaelab.studies.statistics import Estimate
from vaelab.studies.study import Study


def augmentation_sections(results: Results, study: Study) -> list[Section]:
    """Return the sections that come first on the page of an augmentation study."""
    measured = [level for level in levels(results) if level.accuracy and level.labels]
    if not measured:
        return []
    arms = list(dict.fromkeys(mix_of(case).arm for case in results.plan.cases))
    names, lead = generators(results), short_name(results.plan.lead)
    panels = [
        (plot, name if len(names) > 1 else "")
        for name, plots in zip(names or [""], arm_plots(measured, arms, names, lead), strict=True)
        for plot in plots
    ]
    made = names[0] if len(names) == 1 else "generator"
    pictures = _made(results, study)
    return [
        Section(
            f"{lead.capitalize()} against labels",
            tuple(panels),
            f"{lead.capitalize()}: mean over seeds with its 95 % interval; errors are drawn on a "
            "logarithmic scale. Gain: what each arm gains over real images alone with the same "
            "labels and the same initial weights, small gains drawn wide (inverse hyperbolic "
            "sine); these intervals hold all at once, those of all arms and numbers of labels, and "
            "where they leave out 0 the gain is decided. Arms are drawn a little beside each "
            "other.",
            tuple((ARMS[arm].named(made), arm_color(arm), arm == "leaky") for arm in arms),
            roomy=True,
        ),
        *([pictures] if pictures.panels else []),
    ]


def augmentation_tables(results: Results) -> list[Table]:
    """Return tables of accuracies, and of gains over real images and over classical ones."""
    found = levels(results)
    tables = [
        _table(
            results,
            short_name(results.plan.lead).capitalize(),
            f"{MEANS} Leaky arms are never the best.",
            _accuracies(found),
            "%",
        )
    ]
    over: tuple[tuple[ArmName, str], ...] = (
        ("real", "real images alone"),
        ("classical", "classical augmentation"),
    )
    for arm, words in over:
        gains = _gains(found, arm)
        if any(gains):
            caption = (
                f"Percentage points more than with {words}, at the same seeds. Intervals hold all "
                "at once; decided gains are in bold."
            )
            tables.append(_table(results, f"Gain over {words}", caption, gains, "points"))
    return tables


def _accuracies(found: Sequence[Level]) -> list[dict[str, tuple[Estimate, bool]]]:
    columns = []
    for level in found:
        arms = {key: mix_of(level.cases[key]) for key in level.accuracy}
        honest = {key: v.value for key, v in level.accuracy.items() if arms[key].arm != "leaky"}
        most = max(honest.values(), default=None)
        columns.append(
            {
                arms[key].name: (value, key in honest and value.value == most)
                for key, value in level.accuracy.items()
            }
        )
    return columns


def _gains(found: Sequence[Level], over: ArmName) -> list[dict[str, tuple[Estimate, bool]]]:
    return [
        {
            mix_of(level.cases[one]).name: (gain, gain.decided and gain.value > 0)
            for (one, other), gain in level.gains.items()
            if mix_of(level.cases[other]).arm == over
        }
        for level in found
    ]


def _table(
    results: Results,
    title: str,
    caption: str,
    columns: Sequence[Mapping[str, tuple[Estimate, bool]]],
    unit: str,
) -> Table:
    heads = [
        (f"{level.labels:,} labels" if level.labels else f"{100 * level.fraction:g} %", unit)
        for level in levels(results)
    ]
    rows = []
    for name in dict.fromkeys(mix_of(case).name for case in results.plan.cases):
        cells, runs = [], 0
        for column in columns:
            if name not in column:
                cells.append(Cell("–", ""))
                continue
            value, best = column[name]
            text = rounded(value.value, value.interval).replace(" ± ", "\u00a0±\u00a0")
            cells.append(Cell(text, repr(value.value), best))
            runs += value.n
        if runs or unit == "%":
            rows.append((name, runs, cells))
    return Table(title, heads, rows, caption)


def _made(results: Results, study: Study) -> Section:
    """Return made images of the first seed beside their nearest training images."""
    panels: dict[str, tuple[Markup, str]] = {}
    for case in results.plan.cases:
        mix = mix_of(case)
        runs = [run.evaluation for run in results.of(case) if run.evaluation is not None]
        if not mix.generator or not runs:
            continue
        path = picture_of(mix, results.of(case)[0].job.seed, study.path)
        labels = f"{round(runs[0].figures['labels'].value):,}"
        how = {
            "labelled": f"trained on {labels} labelled images alone",
            "images": f"trained on all images, {labels} of them labelled",
            "everything": "trained on all images with all labels (leaky)",
        }[ARMS[mix.arm].sees or "labelled"]
        near = [found.figures["nearness"].value for found in runs if "nearness" in found.figures]
        if near and path.exists():
            words = f"{mix.generator} {how}: nearness {sum(near) / len(near):.2f}"
            panels.setdefault(f"{mix.generator} {how}", (_picture(path, words), words))
    return Section(
        "What was made, and how new it is",
        tuple(panels.values()),
        "Made images of the first seed, the first of each class, each with the nearest training "
        "image to its right: what looks like a copy is one. Nearness is the median distance to the "
        "nearest training image, in units of that of new real images: 1 is as far as these, 0 a "
        "copy.",
        roomy=True,
    )


def _picture(path: Path, alt: str) -> Markup:
    data = files.read_bytes(path)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            width, height = image.size
    except Exception as error:  # decoders of hostile bytes raise nearly anything
        raise files.damaged(path, str(error)) from None
    picture = Picture(data, width, height, alt)
    return Markup('<img class="pixels shrinks" src="{}" alt="{}" width="{}" height="{}">').format(
        picture.uri, picture.alt, picture.width, picture.height
    )
