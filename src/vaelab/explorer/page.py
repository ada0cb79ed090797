"""The explorer of a run: one page that decodes, and encodes, in the reader's browser."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from vaelab import files
from vaelab.data.images import Splits
from vaelab.errors import DataError
from vaelab.explorer.describe import check, describe
from vaelab.explorer.graph import Weights, rounded
from vaelab.explorer.points import handles, ink, neighbours, points
from vaelab.models.vae import Vae
from vaelab.report import words
from vaelab.report.palette import CLASS_COLORS, MARKERS, variables
from vaelab.training.run import Run, versions

Progress = Callable[[int, int], None]
"""Told how many parts of the page are done, and how many there are."""

SCRIPTS = (
    "network.js",
    "model.js",
    "density.js",
    "gif.js",
    "parts.js",
    "map.js",
    "sketch.js",
    "controls.js",
    "path.js",
    "explorer.js",
)
_PARTS = 4


def write_explorer(
    run: Run, splits: Splits, out: Path | None = None, *, progress: Progress | None = None
) -> Path:
    """Write ``explorer.html`` of a run, or ``out``; returns the page.

    The page needs no network, no server and no other file. Its weights are rounded to float16, and
    what it shows of the test images is what the model with these weights makes of them.

    Raises:
        RunError: the folder is no run, has no weights yet, or is damaged; its codes not finite.
        DataError: the images do not have the model's shape.
        Unsupported: the page cannot run the decoder, or its weights do not fit into float16.
    """
    model = run.load_model()
    if splits.test.shape != model.shape:
        raise DataError(
            f"explorer: images of shape {splits.test.shape} do not fit a model of {model.shape}. "
            "Read them with the size and channels that the model was trained on."
        )
    splits = model.matched_splits(splits)
    config = run.read_config()
    name = run.path.resolve().name
    page = render(
        name,
        words.summary(config, splits, model),
        content(model, splits, config.data.fit, progress),
    )
    place = run.explorer_file if out is None else out
    files.write_text(place, page)
    return place


def content(
    model: Vae, splits: Splits, fit: str = "pad", progress: Progress | None = None
) -> dict[str, Any]:
    """Return all that the page holds beside its script: networks, points, images."""
    tell = progress or (lambda done, total: None)
    model, weights = rounded(model).eval(), Weights()
    about = describe(model, weights)
    tell(1, _PARTS)
    where = points(model, splits.test, weights)
    tell(2, _PARTS)
    near = neighbours(splits.test, splits.train)
    tell(3, _PARTS)
    first = splits.test.take(torch.zeros(1, dtype=torch.int64))[0]
    made = {
        "model": about,
        **where,
        "train": near,
        "handles": handles(model, splits),
        "check": check(model, first) if about["encoder"] else None,
        "classes": list(splits.test.class_names),
        "colors": list(CLASS_COLORS),
        "markers": list(MARKERS),
        "ink": ink(splits.train),
        "fit": fit,
        "set": splits.name,
        "heldOut": splits.held_out,
        "weights": weights.encoded(),
    }
    tell(_PARTS, _PARTS)
    return made


def render(name: str, summary: str, held: dict[str, Any]) -> str:
    """Return the page that holds ``held``; name and summary are escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vaelab.explorer", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    code = script()
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    data = json.dumps(held, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return environment.get_template("explorer.html").render(
        css=Markup(variables() + _source("explorer.css")),
        script=Markup(code),
        script_hash=f"sha256-{digest}",
        data=Markup(data),
        name=name,
        summary=summary,
        vaelab=versions()["vaelab"],
    )


def script() -> str:
    """Return the whole script of the page."""
    return '"use strict";\n' + "\n".join(
        _source(name).replace('"use strict";\n', "") for name in SCRIPTS
    )


def _source(name: str) -> str:
    return resources("vaelab.explorer").joinpath(name).read_text(encoding="utf-8")
