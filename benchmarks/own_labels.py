"""What the conditional models do by default on people's own images, against bars set beforehand.

python benchmarks/own_labels.py --quick             # does it work?
python benchmarks/own_labels.py --only csvae        # a part
python benchmarks/own_labels.py                     # both, three seeds: half an hour on one core
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fetch
import numpy as np
import torch
from image_metrics import ReferenceClassifier, accuracy, features, reference_classifier
from machine import Table, describe, finish, load, parser
from own_split import Parts, Pixels, parts_of
from own_table import interval
from sets import SETS, built

ATTRIBUTES = ("bold", "italic", "serif")
BAR_REQUESTED, BAR_COVERAGE = 0.9, 1.0
BAR_SWITCHED, BAR_KEPT, BAR_PROBE = 0.97, 0.97, 0.57
Measured = list[dict[str, float]]
"""One mapping a seed."""


def vaelab(*words: object) -> str:
    """Run a command of vaelab, and return what it prints."""
    command = [sys.executable, "-m", "vaelab", "--quiet", *map(str, words)]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def trained(recipe: str, name: str, seed: int, given: Any) -> Path:
    """Return the folder of a run by the recipe's defaults, trained where it is not there."""
    run: Path = given.out / f"{name}-{recipe}-seed{seed}"
    if not (run / "sampler.safetensors").exists():
        settings = SETS[name].settings
        words = [f"data.{key}={value}" for key, value in settings.items()]
        words += ["training.epochs=1"] if given.quick else []
        options = [part for word in words for part in ("-s", word)]
        data, more = built(name, given.sets), ("--out", run, "--seed", seed, "--device", "cpu")
        vaelab("train", recipe, "--data", data, *more, *options)
    return run


def samples(run: Path, count: int, seed: int, *label: str) -> Pixels:
    """Return what `vaelab sample` gives by default, of a class if one is named."""
    file = run / "samples.npz"
    words = [part for name in label for part in ("--label", name)]
    vaelab("sample", run, "--n", count, "--seed", seed, "--out", file, *words)
    with np.load(file) as arrays:
        images: Pixels = arrays[arrays.files[0]]
    file.unlink()
    return images


def coverage(classifier: ReferenceClassifier, real: Pixels, images: Pixels) -> float:
    """Return the share of real images near which a sample lies, by features (Naeem et al.)."""
    from vaelab.evaluation.generation import neighbourhoods

    x, y = (torch.from_numpy(features(classifier, each)) for each in (real, images))
    return neighbourhoods(x, y).coverage


def requested(
    parts: Parts, classifier: ReferenceClassifier, given: Any, names: list[str]
) -> Iterator[dict[str, float]]:
    """Yield for each seed the metrics of samples of requested classes, as frequent as real ones."""
    real, labels = parts.reference, parts.reference_labels
    right = accuracy(classifier, real, labels)
    counts = np.bincount(labels, minlength=len(names)) * given.samples // len(labels) + 1
    wanted = np.repeat(np.arange(len(names)), counts)
    for seed in range(given.seeds):
        run, plain = (trained(recipe, "emoji", seed, given) for recipe in ("cvae", "vae"))
        each = [
            samples(run, int(count), seed, name) for name, count in zip(names, counts, strict=True)
        ]
        images, others = np.concatenate(each), samples(plain, len(wanted), seed)
        ours, theirs = (coverage(classifier, real, x) for x in (images, others))
        found = accuracy(classifier, images, wanted)
        yield {
            "requested": found,
            "real": right,
            "ratio": found / right,
            "coverage": ours,
            "coverage of vae": theirs,
            "coverage ratio": ours / theirs,
        }


def edits(given: Any) -> Iterator[dict[str, float]]:
    """Yield for each seed what `vaelab evaluate --attributes` finds on test images of letters."""
    for seed in range(given.seeds):
        run = trained("csvae", "letters", seed, given)
        if not (run / "evaluation.json").exists() or given.quick:
            limit = ["--limit", 60] if given.quick else []
            vaelab("evaluate", run, "--attributes", *limit)
        file = (run / "evaluation.json").read_text(encoding="utf-8")
        metrics = json.loads(file)["figures"]
        keys = ("switch", "kept", "probe")
        yield {f"{key} {a}": metrics[f"{key}:{a}"]["value"] for a in ATTRIBUTES for key in keys}


def described(values: Measured) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of what was measured: one a metric, with its mean and each seed."""
    columns = ["metric", "mean", *(f"seed {seed}" for seed in range(len(values)))]
    rows = []
    for key in values[0]:
        each = [one[key] for one in values]
        rows.append([key, interval(each, 3), *(f"{value:.3f}" for value in each)])
    return columns, rows


def table(title: str, values: Measured, bars: dict[str, tuple[float, bool]]) -> Table:
    """Return a table that requires of means what bars say: a value, and whether it is the least."""
    out = Table(title, *described(values))
    for key, (bar, least) in bars.items():
        mean = float(np.mean([one[key] for one in values]))
        sign = "≥" if least else "≤"
        holds = mean >= bar if least else mean <= bar
        out.require(holds, f"{key}: {mean:.3f} {sign} {bar:g}")
    return out


def main() -> int:
    arguments = parser((__doc__ or "").splitlines()[0])
    arguments.set_defaults(threads=1)
    arguments.add_argument("--sets", type=Path, default=fetch.default_folder(), help="image sets")
    arguments.add_argument("--out", type=Path, default=Path("runs/own-labels"), help="kept runs")
    arguments.add_argument("--only", nargs="+", default=("cvae", "csvae"), help="recipes")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--samples", type=int, default=2_000, help="of all classes")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    if given.quick:
        given.seeds, given.samples, given.out = 1, 100, given.out / "quick"
    tables = []
    if "cvae" in given.only:
        data, settings = str(built("emoji", given.sets)), SETS["emoji"].settings
        parts = parts_of(given.sets / "splits" / "emoji", data, settings)
        file = given.sets / "classifiers" / "emoji.safetensors"
        classifier = reference_classifier(parts, file)
        names = sorted(each.name for each in Path(data).iterdir() if each.is_dir())
        values = list(requested(parts, classifier, given, names))
        bars = {"ratio": (BAR_REQUESTED, True), "coverage ratio": (BAR_COVERAGE, True)}
        tables.append(table("cvae: samples of requested emoji categories", values, bars))
    if "csvae" in given.only:
        bars = {f"switch {a}": (BAR_SWITCHED, True) for a in ATTRIBUTES}
        bars |= {f"kept {a}": (BAR_KEPT, True) for a in ATTRIBUTES}
        bars |= {f"probe {a}": (BAR_PROBE, False) for a in ATTRIBUTES}
        title = "csvae: edits of letters, bold, italic and serif at once"
        tables.append(table(title, list(edits(given)), bars))
    for each in tables:
        each.notes += [*describe(), f"{given.seeds} seed(s), load {load()}; test images."]
    return finish(tables, given.json)


if __name__ == "__main__":
    sys.exit(main())
