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
from collections.abc import Sequence
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
from scipy import stats
from sets import SETS, built

HERE = Path(__file__).parent
NAMES = ("emoji", "letters", "photos-64", "mnist", "photos-128", "photos-256")
BUDGETS = (30.0, 90.0, 300.0)
OPTIONS: dict[str, dict[str, float]] = {}
"""Of the plain VAE, where a set was better served by others than its defaults (see README.md)."""

BAR_ERROR, BAR_FRECHET, BAR_CHROMA, BAR_PYTHAE = 0.95, 0.8, 0.9, 0.4

Values = dict[str, float]


def run(name: str, job: Job, threads: int) -> dict[str, Any]:
    """Let one contender train in a process of its own; returns its report.

    One that has been here before, with the same job, is not run again.
    """
    report, asked = job.out / "report.json", job.out / "job.json"
    job.out.mkdir(parents=True, exist_ok=True)
    wanted = job.out / "wanted.json"
    job.write(wanted)
    same = asked.exists() and asked.read_text("utf-8") == wanted.read_text("utf-8")
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
        wanted.replace(asked)
    else:
        wanted.unlink()
    read: dict[str, Any] = json.loads(report.read_text("utf-8"))
    return read


def measured(out: Path, parts: Parts, classifier: Any, real: Any) -> Values:
    """Return the metrics of what a contender left."""
    reconstructions = np.load(out / "reconstructions.npy")
    values = {"error": squared_error(reconstructions, parts.test)}
    if parts.test.shape[1] > 1:
        values["chroma"] = chroma(reconstructions) / chroma(parts.test)
    for sampler in ("default", "prior", "mixture"):
        if (out / f"{sampler}.npy").exists():
            images = np.load(out / f"{sampler}.npy")
            values[sampler] = frechet_distance(features(classifier, images), real)
            values[f"{sampler} nearest"] = nearest(images, parts.train)
    return values


def chosen(values: Values) -> str:
    """Return the sampler that counts: the default where there is one, else the better one."""
    if "default" in values:
        return "default"
    return min(("prior", "mixture"), key=lambda sampler: values[sampler])


def interval(values: Sequence[float], digits: int) -> str:
    """Return the mean over seeds with its 95 % interval (Student's t), the interval from two on."""
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean} ± {half:.{digits}f}"


class SetOfImages:
    """The benchmark on one set of images."""

    def __init__(self, name: str, given: Any) -> None:
        self.name, self.given = name, given
        known = name in SETS
        self.data = str(built(name, given.sets)) if known else name
        self.settings = SETS[name].settings if known else {}
        self.split, self.parts = parts_of(name, given.sets, self.data, self.settings)
        file = given.sets / "classifiers" / f"{name}{'-quick' if given.quick else ''}.pt"
        self.classifier = reference_classifier(self.parts, file, 100 if given.quick else 1_500)
        self.real = features(self.classifier, self.parts.held_out)
        self.widths: dict[float, list[int]] = {}
        self.steps: dict[tuple[float, int], int] = {}
        self.reports: dict[tuple[float, str], list[dict[str, Any]]] = {}
        self.values: dict[tuple[float, str], list[Values]] = {}

    def job(self, contender: str, budget: float, seed: int) -> Job:
        """Return what a contender has to do."""
        ours = contender == "vaelab"
        return Job(
            data=self.data,
            settings=self.settings,
            split=self.split,
            out=self.out(contender, budget, seed),
            seconds=budget,
            seed=seed,
            samples=self.given.samples,
            widths=[] if ours else self.given.widths or self.widths[budget],
            steps=self.steps[budget, seed] if contender.startswith("pythae") else 0,
            options=OPTIONS.get(self.name, {}) if contender == "plain" else {},
        )

    def out(self, contender: str, budget: float, seed: int) -> Path:
        """Return the folder of one training."""
        out: Path = self.given.out / f"{self.name}-{budget:g}s-seed{seed}" / contender
        return out.absolute()

    def compare(self, budget: float, seed: int) -> None:
        """Train all contenders for a budget, in turn: the first two change places every time."""
        order = (
            ["vaelab", "plain"]
            if seed % 2 == 0 or budget not in self.widths
            else ["plain", "vaelab"]
        )
        for contender in [*order, *self.given.others]:
            job = self.job(contender, budget, seed)
            report = run(contender, job, self.given.threads)
            if contender == "vaelab":
                self.widths[budget] = report["widths"]
            if contender == "plain":
                self.steps[budget, seed] = report["steps"]
            values = measured(job.out, self.parts, self.classifier, self.real)
            self.reports.setdefault((budget, contender), []).append(report)
            self.values.setdefault((budget, contender), []).append(values)
            line = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
            print(f"{self.name}, {budget:g} s, seed {seed}, {contender}: {line}", flush=True)

    def table(self) -> Table:
        """Return the table of the set."""
        colour = self.parts.test.shape[1] > 1
        columns = ["CPU s", "contender", "used", "steps", "test MSE", "ratio"]
        columns += ["chroma kept"] if colour else []
        columns += ["FID", "ratio", "sampler", "FID prior", "FID mixture", "nearest"]
        table = Table(self.title(), columns)
        for (budget, contender), values in self.values.items():
            plain = self.values[budget, "plain"]
            reports = self.reports[budget, contender]
            kept = [interval([each["chroma"] for each in values], 2)] if colour else []
            samplers = [chosen(each) for each in values]
            table.rows.append(
                [
                    f"{budget:g}",
                    contender,
                    interval([report["seconds"] for report in reports], 0),
                    f"{np.mean([report['steps'] for report in reports]):,.0f}",
                    interval([each["error"] for each in values], 4),
                    interval(ratios(values, plain, "error"), 2),
                    *kept,
                    interval([each[chosen(each)] for each in values], 1),
                    interval(ratios(values, plain, None), 2),
                    "/".join(dict.fromkeys(samplers)),
                    interval([each["prior"] for each in values], 1),
                    interval([each["mixture"] for each in values], 1),
                    interval([each[f"{chosen(each)} nearest"] for each in values], 4),
                ]
            )
        self.require(table)
        table.notes += self.notes()
        return table

    def title(self) -> str:
        """Return a title with the number and shape of images."""
        counts = [len(part) for part in (self.parts.train, self.parts.validation, self.parts.test)]
        shape = "×".join(map(str, self.parts.train.shape[1:]))
        return f"{self.name}: {' + '.join(f'{count:,}' for count in counts)} images of {shape}"

    def require(self, table: Table) -> None:
        """Say which bars hold; with ``--check`` the script fails where one does not."""
        for budget in dict.fromkeys(budget for budget, _ in self.values):
            ours, plain = self.values[budget, "vaelab"], self.values[budget, "plain"]
            at = f"at {budget:g} s"
            error, distance = (
                np.mean(ratios(ours, plain, "error")),
                np.mean(ratios(ours, plain, None)),
            )
            checks = [
                (error <= BAR_ERROR, f"MSE {at}: {error:.2f} of the plain VAE's, ≤ {BAR_ERROR}."),
                (
                    distance <= BAR_FRECHET,
                    f"FID {at}: {distance:.2f} of its best, ≤ {BAR_FRECHET}.",
                ),
            ]
            if self.name.startswith("photos"):
                kept = np.mean([each["chroma"] for each in ours])
                checks.append((kept >= BAR_CHROMA, f"chroma {at}: {kept:.2f}, ≥ {BAR_CHROMA}."))
            for other in self.given.others:
                against = np.mean(ratios(ours, self.values[budget, other], None))
                text = f"FID {at}: {against:.2f} of {other}'s best, ≤ {BAR_PYTHAE}."
                checks.append((against <= BAR_PYTHAE, text))
            for holds, text in checks:
                table.require(bool(holds), text)
        if not self.given.check:
            table.failures.clear()

    def notes(self) -> list[str]:
        """Return what must be known about the metrics of this set."""
        parts, held_out = self.parts, self.parts.held_out
        some = parts.train[:: -(-len(parts.train) // 2_000)]
        floor = frechet_distance(features(self.classifier, some), self.real)
        right = accuracy(self.classifier, parts.validation, parts.validation_labels)
        known = f"; {right:.0%} of validation images correctly classified" if right == right else ""
        ours, plain = (
            next(reports[0] for key, reports in self.reports.items() if key[1] == name)
            for name in ("vaelab", "plain")
        )
        return [
            f"vaelab's default: {ours['network']['kind']} {ours['widths']}, {ours['latents']} "
            f"latents, {ours['likelihood']}, batch {ours['batch']}, {ours['parameters']:,} "
            f"parameters. The plain VAE: {plain['parameters']:,}.",
            f"Training images themselves: FID {floor:.1f}. Held-out images: nearest training image "
            f"{nearest(held_out, parts.train):.4f}; samples far below that are copies.",
            f"The mean training image: MSE {self.mean_error():.4f}.",
            f"Reference classifier: {int(parts.labels.max()) + 1} classes{known}. FID against "
            f"{len(held_out):,} held-out images.",
            f"{self.given.seeds} seed(s), {self.given.threads} thread(s), {self.given.samples:,} "
            f"samples, load {load()}. Mean ± 95 % interval over seeds; ratios within a seed.",
        ]

    def mean_error(self) -> float:
        """Return the error of the mean training image, of which any model should make less."""
        mean = self.parts.train.mean(0, dtype=np.float64)
        return float(np.square(self.parts.test / 255.0 - mean / 255.0).mean())

    def sheet(self) -> Path:
        """Draw what the longest training of the last seed made."""
        budget, seed = max(budget for budget, _ in self.values), self.given.seeds - 1
        rows = [("test images", self.parts.test)]
        for contender in ("vaelab", "plain", *self.given.others):
            out = self.out(contender, budget, seed)
            sampler = chosen(self.values[budget, contender][-1])
            rows.append((f"{contender}: reconstructed", np.load(out / "reconstructions.npy")))
            rows.append((f"{contender}: {sampler} samples", np.load(out / f"{sampler}.npy")))
        path: Path = self.given.out / f"{self.name}.png"
        sheet(rows, path)
        return path


def ratios(values: list[Values], plain: list[Values], name: str | None) -> list[float]:
    """Return a metric against the plain VAE's of the same seed; None: FID of the chosen sampler."""
    return [a[name or chosen(a)] / b[name or chosen(b)] for a, b in zip(values, plain, strict=True)]


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
        images = SetOfImages(name, given)
        for seed in range(given.seeds):
            for budget in given.budgets:
                images.compare(budget, seed)
        tables.append(images.table())
        print(f"{images.sheet()}: look at it", flush=True)
    about = "".join(f"- {line}\n" for line in describe())
    page = f"{about}\n" + "\n".join(table.markdown() for table in tables)
    (given.out / "own_images.md").write_text(page, encoding="utf-8")
    return finish(tables, given.json)


if __name__ == "__main__":
    sys.exit(main())
