"""Likelihoods against each other: the time of a training step, and bits per dimension.

    python benchmarks/likelihoods.py                      # ratios of a step to that of a Gaussian
    python benchmarks/likelihoods.py --sets emoji photos-64 --seconds 60

Each likelihood trains the default model for equal processor time on one thread; bits per dimension
are those of validation images, by the ELBO and by the importance-weighted bound.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fetch
import numpy as np
import torch
from image_metrics import features, frechet_distance
from layers import interleave
from machine import Table, finish, load, parser
from own_contenders import Clock, epochs_within, save
from own_images import Comparison
from own_sheet import sheet
from sets import SETS, built
from torch import Tensor

LIKELIHOODS: dict[str, dict[str, Any]] = {
    "gaussian": {"likelihood": "gaussian"},
    "gaussian-pixel": {"likelihood": "gaussian-pixel"},
    "laplace": {"likelihood": "laplace"},
    "logistic-mixture, 2": {"likelihood": "logistic-mixture", "mixtures": 2},
    "logistic-mixture, 3": {"likelihood": "logistic-mixture", "mixtures": 3},
    "logistic-mixture, 5": {"likelihood": "logistic-mixture", "mixtures": 5},
    "logistic-mixture, 10": {"likelihood": "logistic-mixture", "mixtures": 10},
}
SHAPE, BATCH = (3, 64, 64), 32


def training_step(settings: dict[str, Any], bf16: bool) -> Callable[[], Tensor]:
    """Return a step of AdamW of the default network, and what it is worth: the loss."""
    from vaelab.config import ModelConfig
    from vaelab.data.batches import Batch
    from vaelab.data.summary import Pixels
    from vaelab.defaults import network
    from vaelab.models.build import build_vae

    torch.manual_seed(0)
    values = {"encoder": network(SHAPE), "latent_dim": 64, "standardize": True, **settings}
    model = build_vae(ModelConfig.model_validate(values), Pixels(torch.full(SHAPE, 0.5))).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    x = torch.randint(0, 256, (BATCH, *SHAPE)).float() / 255
    batch = Batch(x, x, None, None, torch.arange(BATCH))

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            trace = model(batch)
            loss = (trace.rate - trace.log_px).mean()
        loss.backward()
        optimizer.step()
        return loss

    return step


def kept(step: Callable[[], Tensor]) -> float:
    """Return the megabytes that a step keeps for its backward pass."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(seen.values()) / 2**20


def speed(rounds: int) -> Table:
    """Return the time of a step of each likelihood, over that of a Gaussian."""
    from vaelab.training.allocator import keep_freed_memory

    keep_freed_memory()
    columns = ["likelihood", "fp32 ÷ gaussian", "bf16 ÷ gaussian", "kept for the gradient, MB"]
    table = Table("A training step, 64 × 64 RGB, batch 32", columns)
    ratios: dict[str, list[str]] = {name: [] for name in LIKELIHOODS}
    for bf16 in (False, True):
        steps = {name: training_step(each, bf16) for name, each in LIKELIHOODS.items()}
        seconds = interleave(steps, rounds)
        for name, value in seconds.items():
            ratios[name].append(f"{value / seconds['gaussian']:.2f}")
    for name, settings in LIKELIHOODS.items():
        table.rows.append([name, *ratios[name], f"{kept(training_step(settings, False)):.0f}"])
    return table


def trained(name: str, data: str, settings: dict[str, Any], seconds: float, out: Path) -> Any:
    """Train for about ``seconds`` of processor time, as `own_contenders` does; return the model."""
    import vaelab

    settings = {**settings, **LIKELIHOODS[name]}
    epochs = epochs_within(seconds, data, settings)
    clock = Clock()
    model = vaelab.train("vae", data, out, epochs=epochs, progress=clock, **settings)
    return model, clock


def measured(name: str, images: Comparison, seconds: float, out: Path) -> dict[str, float]:
    """Return what a likelihood reaches on a set; leaves pictures in ``out``."""
    import vaelab
    from vaelab.evaluation.evaluate import evaluate

    report = out / "report.json"
    if report.exists():
        known: dict[str, float] = json.loads(report.read_text(encoding="utf-8"))
        return known
    model, clock = trained(name, images.data, images.settings, seconds, out / "run")
    validation = vaelab.load_data(images.data, **images.settings).validation
    found = evaluate(model, validation, samples=50, bound_images=40, what="validation images")
    save(out / "reconstructions.npy", model.reconstruct(validation.take(torch.arange(28))))
    command = [sys.executable, "-m", "vaelab", "--quiet", "sample", str(out / "run"), "--n", "1000"]
    file = out / "samples.npz"
    subprocess.run([*command, "--sampler", "gmm", "--out", str(file)], check=True)
    with np.load(file) as arrays:
        samples = arrays[arrays.files[0]]
    save(out / "samples.npy", torch.from_numpy(samples))
    values = {figure: found.figures[figure].value for figure in found.figures}
    values["fid"] = frechet_distance(
        features(images.classifier, np.load(out / "samples.npy")), images.real
    )
    values |= {"steps": clock.total, "seconds": clock.spent}
    report.write_text(json.dumps(values), encoding="utf-8")
    return values


def bits(name: str, given: Any) -> Table:
    """Return the table of a set."""
    images = Comparison(name, given)
    columns = ["likelihood", "bits per dimension", "IWAE", "steps", "squared error", "FID"]
    table = Table(f"{name}: validation images, {given.seconds:g} s each", columns)
    rows = [("validation images", images.parts.validation)]
    for likelihood in given.likelihoods:
        out = given.out / f"{name}-{given.seconds:g}s" / likelihood.replace(", ", "-")
        values = measured(likelihood, images, given.seconds, out)
        numbers = [f"≤ {values[each]:.3f}" for each in ("bits_per_dim", "bits_per_dim_iwae")]
        numbers += [f"{values['steps']:,}", f"{values['mse']:.4f}", f"{values['fid']:.0f}"]
        table.rows.append([likelihood, *numbers])
        print(f"{name}: {' | '.join(table.rows[-1])}", flush=True)
        for what in ("reconstructions", "samples"):
            rows.append((f"{likelihood}: {what}", np.load(out / f"{what}.npy")))
    sheet(rows, given.out / f"{name}.png")
    table.notes.append(f"One seed, {given.threads} thread(s), load {load()}.")
    return table


def main() -> int:
    arguments = parser((__doc__ or "").splitlines()[0])
    arguments.set_defaults(threads=1, quick=False)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--sets", nargs="*", default=[], choices=SETS, help="image sets")
    arguments.add_argument("--seconds", type=float, default=60, help="of processor time, each")
    arguments.add_argument("--likelihoods", nargs="+", default=list(LIKELIHOODS))
    arguments.add_argument("--out", type=Path, default=Path("runs/likelihoods"), help="kept runs")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    names, given.sets = given.sets, fetch.default_folder()
    if not names:
        return finish([speed(3 if given.quick else given.rounds)], given.json)
    for name in names:
        built(name, given.sets)
    return finish([bits(name, given) for name in names], given.json)


if __name__ == "__main__":
    sys.exit(main())
