"""The model card of an exported run: what it is, how it was measured, whose the data are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from vaelab.config import RunConfig
from vaelab.errors import counted
from vaelab.evaluation.diagnose import of_evaluation
from vaelab.evaluation.figures import long_name
from vaelab.evaluation.record import Evaluation, verdict
from vaelab.models.vae import Vae
from vaelab.recipes import find_recipe
from vaelab.training.run import versions

LICENCES = {
    "mnist": (
        "The MNIST digits are by Yann LeCun and Corinna Cortes, under CC BY-SA 3.0 "
        "(https://creativecommons.org/licenses/by-sa/3.0/)."
    ),
    "swiss-roll": "The points of the Swiss roll are computed; they need no licence.",
}
"""Licences of data that vaelab knows."""

UNKNOWN = (
    "vaelab does not know the licence of these images. Say here whose they are, whether they may "
    "be used so, and whether people can be recognised in them, before you share the model."
)


def card(
    config: RunConfig,
    model: Vae,
    meta: Mapping[str, Any],
    evaluation: Evaluation | None,
    licence: str | None,
) -> str:
    """Return the text of ``README.md``, with the Hub's metadata at its head.

    Arguments:
        config: of the run, without private paths.
        model: that was trained.
        meta: of its file of weights.
        evaluation: of these weights, if they were measured.
        licence: of the weights, if the owner named one.
    """
    recipe = find_recipe(config.recipe)
    channels, height, width = model.shape
    head: dict[str, Any] = {
        "library_name": "vaelab",
        "tags": ["variational-autoencoder", "vae", "representation-learning", config.recipe],
        "pipeline_tag": "unconditional-image-generation",
    }
    if licence is not None:
        head["license"] = licence
    data = escaped(config.data.spec)
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {recipe.name} on {data}",
        f"{recipe.summary} {model.latent_dim} latent dimensions, {config.model.likelihood} "
        f"likelihood, images of {channels} × {height} × {width}. Trained with vaelab "
        f"{versions()['vaelab']} for {counted(config.training.epochs, 'epoch')}.",
        _USE,
        *_labels(model),
        "## Figures",
        _figures(evaluation, config),
        "## Data",
        f"Trained on `{data}`. {LICENCES.get(config.data.spec, UNKNOWN)}",
        "## Limits",
        "Images that it generates look like those that it was trained on, with their gaps and "
        "their biases, and are blurred. Its likelihoods do not tell by themselves whether an image "
        "belongs: see `vaelab score`.",
        "## Licence of the weights",
        licence or "Not stated.",
    ]
    return "\n\n".join(parts)


_USE = """```python
import vaelab

model = vaelab.load("PATH OF THIS FOLDER")
images = model.sample(16)
codes = model.encode(images)
```

The weights are a safetensors file; nothing in this folder runs code when it is read."""


def _labels(model: Vae) -> list[str]:
    if model.conditioning is None:
        return []
    names = ", ".join(escaped(name) for name in model.conditioning.names)
    classes = ", ".join(escaped(name) for name in model.conditioning.class_names)
    known = f" Classes: {classes}." if classes else ""
    return [f"The model can be told: {names}.{known}"]


def with_figures(text: str, evaluation: Evaluation, config: RunConfig) -> str:
    """Return a card whose figures are those of an evaluation; all else stays as it is."""
    part = re.compile(r"(?<=\n## Figures\n\n).*?(?=\n\n## Data\n)", re.DOTALL)
    return part.sub(lambda _: _figures(evaluation, config), text, count=1)


def _figures(evaluation: Evaluation | None, config: RunConfig) -> str:
    if evaluation is None:
        return "These weights were not measured. Measure them with `vaelab evaluate`."
    rows = ["| measure | value ± 95 % interval | unit | images |", "|---|---:|---|---:|"]
    how = []
    for name, figure in evaluation.figures.items():
        label = escaped(long_name(name, figure))
        value = figure.number
        rows.append(f"| {label} | {value} | {escaped(figure.unit)} | {figure.n:,} |")
        how.append(f"- {label}: {escaped(figure.protocol)}")
    wrong = [finding.text for finding in of_evaluation(config, evaluation)]
    return "\n\n".join(
        [
            " ".join([verdict(evaluation), *map(escaped, wrong)]),
            "\n".join(rows),
            "How each was measured:",
            "\n".join(how),
        ]
    )


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, in one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
