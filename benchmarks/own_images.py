"""The default command of vaelab on people's own images, against a well-tuned plain σ-VAE.

python benchmarks/own_images.py --quick                       # does it work?
python benchmarks/own_images.py --only emoji --budgets 30     # a part
python benchmarks/own_images.py                               # all: most of a day on one core
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fetch
import numpy as np
from image_metrics import (
    accuracy,
    chroma,
    features,
    frechet_distance,
    nearest,
    reference_classifier,
    squared_error,
)
from machine import Table, describe, finish, load, parser
from own_contenders import Job
from own_sheet import sheet
from own_split import Parts, parts_of
from own_table import Results, Trained, require, table
from sets import SETS, built

HERE = Path(__file__).parent
NAMES = ("emoji", "letters", "photos-64", "mnist", "photos-128", "photos-256")
BUDGETS = (30.0, 90.0, 300.0)
OPTIONS: dict[str, dict[str, float]] = {}
"""Of the plain VAE, where a set was better served by others than its defaults (see README.md)."""


def run(name: str, job: Job, threads: int) -> dict[str, Any]:
    """Let one contender train in a process of its own; returns its report.

    One that has been here before, with the same job, is not run again.
    """
    report, earlier = job.out / "report.json", job.out / "job.json"
    job.out.mkdir(parents=True, exist_ok=True)
    wanted = job.out / "wanted.json"
    job.write(wanted)
    same = earlier.exists() and earlier.read_text("utf-8") == wanted.read_text("utf-8")
    if not (same and report.exists()):
        report.unlink(missing_ok=True)
        count = str(threads)
        environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        command = [sys.executable, str(HERE / "own_contenders.py"), name, str(wanted)]
        with (job.out / "output.txt").open("w", encoding="utf-8") as output:
            done = subprocess.run(
                command, env=environment, stdout=output, stderr=output, check=False
            )
        if done.returncode:
            tail = (job.out / "output.txt").read_text("utf-8")[-3000:]
            raise SystemExit(f"{name} ended:\n{tail}")
        wanted.replace(earlier)
    else:
        wanted.unlink()
    read: dict[str, Any] = json.loads(report.read_text("utf-8"))
    return read


def metrics_of(out: Path, parts: Parts, classifier: Any, real: Any) -> dict[str, float]:
    """Return the metrics of what a contender left; ``real``: features of real images."""
    reconstructions = np.load(out / "reconstructions.npy")
    values = {
        "error": squared_error(reconstructions, parts.test),
        "reconstructed nearest": nearest(reconstructions, parts.train),
    }
    if parts.test.shape[1] > 1:
        values["chroma"] = chroma(reconstructions) / chroma(parts.test)
    for sampler in ("default", "prior", "mixture"):
        if (out / f"{sampler}.npy").exists():
            images = np.load(out / f"{sampler}.npy")
            values[sampler] = frechet_distance(features(classifier, images), real)
            values[f"{sampler} nearest"] = nearest(images, parts.train)
    return values


class Comparison:
    """The benchmark on one set of images."""

    def __init__(self, name: str, given: Any) -> None:
        self.name, self.given = name, given
        known = name in SETS
        self.data = str(built(name, given.sets)) if known else name
        self.settings = SETS[name].settings if known else {}
        self.split = given.sets / "splits" / name
        self.photos = name.startswith("photos")
        more = built(f"{name}-more", given.sets) if self.photos else None
        self.parts = parts_of(self.split, self.data, self.settings, more)
        file = given.sets / "classifiers" / f"{name}{'-quick' if given.quick else ''}.safetensors"
        self.classifier = reference_classifier(self.parts, file, 100 if given.quick else 1_000)
        self.real = features(self.classifier, self.parts.reference)
        self.results: Results = {}

    def train(self, budget: float, seed: int) -> None:
        """Train all contenders for a budget, in turn: the first two change places every time."""
        order = ["vaelab", "plain"] if seed % 2 == 0 else ["plain", "vaelab"]
        for contender in [*order, *self.given.others]:
            job = self.job(contender, budget, seed)
            report = run(contender, job, self.given.threads)
            metrics = metrics_of(job.out, self.parts, self.classifier, self.real)
            self.results.setdefault((budget, contender), []).append(Trained(report, metrics))
            line = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items())
            print(f"{self.name}, {budget:g} s, seed {seed}, {contender}: {line}", flush=True)

    def job(self, contender: str, budget: float, seed: int) -> Job:
        """Return what a contender has to do; seed 0 of vaelab comes first, and sets the widths."""
        ours = contender == "vaelab"
        widths = [] if ours else self.given.widths
        steps = self.results[budget, "plain"][-1].report["steps"] if "pythae" in contender else 0
        return Job(
            data=self.data,
            settings=self.settings,
            split=self.split,
            out=self.out(contender, budget, seed),
            seconds=budget,
            seed=seed,
            samples=self.given.samples,
            widths=widths or ([] if ours else self.first("vaelab", budget).report["widths"]),
            steps=steps,
            options=OPTIONS.get(self.name, {}) if contender == "plain" else {},
        )

    def out(self, contender: str, budget: float, seed: int) -> Path:
        """Return the folder of one training."""
        out: Path = self.given.out / f"{self.name}-{budget:g}s-seed{seed}" / contender
        return out.absolute()

    def first(self, contender: str, budget: float) -> Trained:
        """Return the training of seed 0."""
        return self.results[budget, contender][0]

    def table(self) -> Table:
        """Return the table of the set, with what must be known about it."""
        parts = (self.parts.train, self.parts.validation, self.parts.test)
        counts = " + ".join(f"{len(part):,}" for part in parts)
        shape = "×".join(map(str, self.parts.train.shape[1:]))
        out = table(f"{self.name}: {counts} images of {shape}", self.results)
        require(out, self.results, self.photos)
        if not self.given.check:
            out.failures.clear()
        out.notes += self.notes()
        return out

    def notes(self) -> list[str]:
        """Return what must be known about the metrics of this set."""
        parts = self.parts
        some = parts.train[:: -(-len(parts.train) // 2_000)]
        floor = frechet_distance(features(self.classifier, some), self.real)
        right = accuracy(self.classifier, parts.reference, parts.reference_labels)
        what = "other crops of its photos" if self.photos else "validation and test images"
        budget = self.given.budgets[0]
        ours, plain = (self.first(name, budget).report for name in ("vaelab", "plain"))
        mean = parts.train.mean(0, dtype=np.float64) / 255
        return [
            f"vaelab's default: {ours['network']['kind']} {ours['widths']}, {ours['latents']} "
            f"latents, {ours['likelihood']}, batch {ours['batch']}, {ours['parameters']:,} "
            f"parameters. The plain VAE: {plain['parameters']:,}.",
            f"Training images: FID {floor:.1f}. Reference images: nearest training image "
            f"{nearest(parts.reference, parts.train):.4f}.",
            f"The mean training image: MSE {np.square(parts.test / 255 - mean).mean():.4f}.",
            f"Reference classifier: {int(parts.labels.max()) + 1} classes, {right:.0%} of "
            f"the reference images correctly classified: {len(parts.reference):,} {what}.",
            f"{self.given.seeds} seed(s), {self.given.threads} thread(s), {self.given.samples:,} "
            f"samples, load {load()}. Mean ± 95 % interval over seeds; ratios within a seed.",
        ]

    def sheet(self) -> Path:
        """Draw what the longest training of the last seed made."""
        budget, seed = max(self.given.budgets), self.given.seeds - 1
        rows = [("test images", self.parts.test)]
        for contender in ("vaelab", "plain", *self.given.others):
            out = self.out(contender, budget, seed)
            sampler = self.results[budget, contender][-1].sampler
            rows.append((f"{contender}: reconstructed", np.load(out / "reconstructions.npy")))
            rows.append((f"{contender}: {sampler} samples", np.load(out / f"{sampler}.npy")))
        path: Path = self.given.out / f"{self.name}.png"
        sheet(rows, path)
        return path


def main() -> int:
    arguments = parser((__doc__ or "").splitlines()[0])
    arguments.set_defaults(threads=1)
    arguments.add_argument("--sets", type=Path, default=fetch.default_folder(), help="image sets")
    arguments.add_argument("--out", type=Path, default=Path("runs/own-images"), help="kept runs")
    arguments.add_argument("--only", nargs="+", default=NAMES[:4], choices=NAMES, help="sets")
    arguments.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, help="CPU seconds")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--samples", type=int, default=2_000, help="to measure FID by")
    arguments.add_argument("--widths", type=int, nargs="+", help="of the plain VAE, not vaelab's")
    arguments.add_argument("--pythae", action="store_true", help="pythae's VAE and RAE-L2 too")
    arguments.add_argument("--check", action="store_true", help="fail where a bar is not reached")
    given = arguments.parse_args()
    if given.quick:
        given.only, given.budgets, given.seeds, given.samples = ["mnist"], [2.0], 1, 200
        given.out = given.out / "quick"
    if given.pythae and find_spec("pythae") is None:
        arguments.error("--pythae: it is not installed; see benchmarks/requirements.txt.")
    given.others = ["pythae-vae", "pythae-rae"] if given.pythae else []
    tables = []
    for name in given.only:
        images = Comparison(name, given)
        for seed in range(given.seeds):
            for budget in given.budgets:
                images.train(budget, seed)
        tables.append(images.table())
        print(f"{images.sheet()}: look at it", flush=True)
    about = "".join(f"- {line}\n" for line in describe())
    page = f"{about}\n" + "\n".join(table.markdown() for table in tables)
    (given.out / "own_images.md").write_text(page, encoding="utf-8")
    return finish(tables, given.json)


if __name__ == "__main__":
    sys.exit(main())
