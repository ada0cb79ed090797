"""The contenders of `own_images.py`, one a process: ``python own_contenders.py NAME JOB.json``.

Each leaves in a folder what `sigma_vae.py` leaves there: ``reconstructions.npy`` of the test
images, ``prior.npy`` and ``mixture.npy`` (samples), and ``report.json``. vaelab also leaves
``default.npy``: what `vaelab sample` writes when it is given nothing else.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from own_split import on_white


@dataclass(frozen=True)
class Job:
    """What a contender has to do.

    Arguments:
        data: ``mnist`` or a folder of images, as a person would have it.
        settings: how it is read, such as the column of groups.
        split: folder of the images as arrays, for those that read no folders.
        out: folder to write.
        seconds: of processor time that training may take.
        seed: random seed of the training.
        samples: how many to generate.
        widths: of the convolutions, for those that have no default.
        steps: of training, for those that are held to another's.
        options: of the plain VAE.
    """

    data: str
    settings: dict[str, Any]
    split: Path
    out: Path
    seconds: float
    seed: int
    samples: int
    widths: list[int] = field(default_factory=list)
    steps: int = 0
    options: dict[str, float] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Write the job for a process."""
        file.write_text(json.dumps(asdict(self), default=str), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Job:
        """Return a job that was written."""
        values = json.loads(file.read_text(encoding="utf-8"))
        values.update(split=Path(values["split"]), out=Path(values["out"]))
        return cls(**values)


class Clock:
    """A progress of vaelab that measures the processor time of training."""

    def __init__(self) -> None:
        self.begun, self.spent = 0.0, 0.0

    def start(self, total: int, done: int, epochs: int) -> None:
        """Training starts: the clock too. Reading the images is not counted."""
        self.total = total
        self.begun = time.process_time()

    def step(self, step: int, epoch: int, speed: float, figures: Mapping[str, float]) -> None:
        """Some steps were made."""

    def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """An epoch ended."""

    def say(self, text: str) -> None:
        """Print to standard error what a person should know."""
        print(text, file=sys.stderr)

    def stop(self) -> None:
        """Training ended."""
        self.spent = time.process_time() - self.begun


def epochs_within(seconds: float, data: str, settings: dict[str, Any]) -> int:
    """Return the epochs of vaelab that fit into a processor time, as `--minutes` chooses them."""
    from vaelab.api import configure, read_data, settings_to_config
    from vaelab.defaults import with_defaults
    from vaelab.training.trial import limited

    config = configure(settings_to_config({"spec": data, **settings}))
    splits = read_data(config)
    config = with_defaults(config, splits.train)
    return limited(config, splits, seconds, clock=time.process_time)[0].training.epochs


def vaelab(job: Job) -> None:
    """The default recipe of vaelab on a folder, limited in time and else as it comes."""
    import yaml

    import vaelab

    epochs = epochs_within(job.seconds, job.data, {**job.settings, "seed": job.seed})
    settings = {**job.settings, "epochs": epochs}
    run, clock = job.out / "run", Clock()
    shutil.rmtree(run, ignore_errors=True)
    model = vaelab.train("vae", job.data, run, seed=job.seed, progress=clock, **settings)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    same_split(job)
    test = np.load(job.split / "test-as-read.npy")
    save(job.out / "reconstructions.npy", model.reconstruct(torch.from_numpy(test)))
    for name, options in {
        "default": [],
        "prior": ["--sampler", "prior"],
        "mixture": ["--sampler", "gmm"],
    }.items():
        file = job.out / f"{name}.npz"
        command = [sys.executable, "-m", "vaelab", "--quiet", "sample", str(run), *options]
        command += ["--n", str(job.samples), "--seed", str(job.seed), "--out", str(file)]
        subprocess.run(command, check=True)
        with np.load(file) as arrays:
            save(job.out / f"{name}.npy", torch.from_numpy(arrays[arrays.files[0]]))
        file.unlink()
    network = config["model"]["encoder"]
    report = {
        "steps": clock.total,
        "seconds": clock.spent,
        "widths": network["widths"],
        "network": network,
        "latents": config["model"]["latent_dim"],
        "likelihood": config["model"]["likelihood"],
        "epochs": config["training"]["epochs"],
        "batch": config["training"]["batch_size"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    (job.out / "report.json").write_text(json.dumps(report), encoding="utf-8")


def same_split(job: Job) -> None:
    """Stop unless vaelab still splits the images as it did when the arrays were written."""
    import vaelab

    test = vaelab.load_data(job.data, **job.settings).test.images
    if not np.array_equal(np.asarray(test), np.load(job.split / "test-as-read.npy")):
        raise SystemExit(f"{job.split}: not the split that vaelab makes now. Delete the folder.")


def save(file: Path, images: torch.Tensor) -> None:
    """Write images as bytes, transparent ones on white."""
    x = images if images.dtype == torch.uint8 else images.mul(255).round().byte()
    np.save(file, on_white(x.numpy()))


def plain(job: Job) -> None:
    """`sigma_vae.py` with the same widths."""
    script = Path(__file__).with_name("sigma_vae.py")
    command = [sys.executable, str(script), str(job.split), str(job.out)]
    options = {**job.options, "seconds": job.seconds, "seed": job.seed, "samples": job.samples}
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    subprocess.run([*command, "--widths", *map(str, job.widths)], check=True)


if __name__ == "__main__":
    from own_pythae import pythae_rae, pythae_vae

    contenders = {
        "vaelab": vaelab,
        "plain": plain,
        "pythae-vae": pythae_vae,
        "pythae-rae": pythae_rae,
    }
    contenders[sys.argv[1]](Job.read(Path(sys.argv[2])))
