"""A run is a folder: its configuration, weights, state, log and figures.

config.yaml          everything needed to repeat it
model.safetensors    weights to use, with the configuration in the metadata
state.safetensors    all that an exact resume needs, in one file
log.jsonl            one line per logged step and per epoch
evaluation.json      figures with error bars and protocol
report.html          one self-contained page
figures/             pictures
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vaelab import files
from vaelab.config import RunConfig, parse_config, read_yaml
from vaelab.errors import BusyError, RunError, refuse_pickle
from vaelab.models.classifier import Classifier
from vaelab.models.conditioning import Told
from vaelab.models.model import Model
from vaelab.models.vae import Vae
from vaelab.recipes import Setup, build
from vaelab.training.backend import is_main

MAY_CHANGE = ("epochs", "device", "trackers", "checkpoint_seconds", "patience")
"""Keys of `TrainingConfig` that may differ when a run is resumed."""


class Run:
    """The folder of one run. Opening it reads nothing; every reader checks what it reads."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.model_file = self.path / "model.safetensors"
        self.state_file = self.path / "state.safetensors"
        self.log_file = self.path / "log.jsonl"
        self.evaluation_file = self.path / "evaluation.json"
        self.report_file = self.path / "report.html"
        self.explorer_file = self.path / "explorer.html"
        self.figures = self.path / "figures"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run, or what is left of one."""
        return any(f.exists() for f in (self.config_file, self.model_file, self.state_file))

    def check_free(self) -> None:
        """Raise `RunError` when the folder holds a run already, or files of others."""
        if not is_main():  # another process may have been faster to write it
            return
        if self.exists:
            raise RunError(
                f"{self}: already holds a run. Go on with it (--resume; in Python resume=True), or "
                "choose another folder."
            )
        if others := visible(self.path):
            raise RunError(
                f"{self}: holds other files (such as {others[0]}). Choose a new or an empty folder "
                "for the run."
            )

    def read_config(self) -> RunConfig:
        """Return the configuration; raises `RunError` when there is none or it was changed."""
        if not self.config_file.exists():
            self._refuse_pickle()
            place = "runs/NAME" if visible(self.path) else self
            raise RunError(
                f"{self}: is no run (no config.yaml). Train one with: "
                f"vaelab train vae --out {place} (a classifier: vaelab classify train)"
            )
        files.check_yaml(self.config_file)
        return parse_config(read_yaml(self.config_file), str(self.config_file))

    def _refuse_pickle(self) -> None:
        """Raise `PickleError` for what is no run but pickled weights, or a folder of them."""
        refuse_pickle(self.path)
        if self.path.is_dir():
            for path in sorted(self.path.iterdir()):
                refuse_pickle(path)

    def write_config(self, config: RunConfig) -> None:
        """Write ``config.yaml``."""
        files.write_yaml(self.config_file, config.model_dump(mode="json"))

    def save_model(self, model: Model, tensors: Mapping[str, torch.Tensor], **meta: Any) -> None:
        """Write ``model.safetensors``: weights, shape and configuration."""
        assert model.config is not None
        config = model.config.model_dump(mode="json")
        files.save_tensors(
            self.model_file, tensors, {"config": config, "shape": list(model.shape), **meta}
        )

    def load_model(self, device: str | torch.device = "cpu") -> Vae:
        """Return the trained VAE; as `load`, and raises `RunError` for a run of a classifier."""
        model = self.load(device)
        if not isinstance(model, Vae):
            raise RunError(
                f"{self}: holds a classifier, and this needs a VAE. Measure a classifier with: "
                f"vaelab classify evaluate {self}"
            )
        return model

    def load_classifier(self, device: str | torch.device = "cpu") -> Classifier:
        """Return the trained classifier; as `load`, and raises `RunError` for a run of a VAE."""
        model = self.load(device)
        if not isinstance(model, Classifier):
            raise RunError(f"{self}: holds a VAE, and this needs a classifier.")
        return model

    def load(self, device: str | torch.device = "cpu") -> Model:
        """Return the trained model, in evaluation mode.

        Raises:
            RunError: there is no model yet, a file is damaged, or configuration and weights
                disagree.
        """
        config = self.read_config()
        if not self.model_file.exists():
            self._refuse_pickle()
            raise RunError(
                f"{self}: has no trained model yet. "
                f"Finish it with: vaelab train --resume --out {self}"
            )
        tensors, meta = files.load_tensors(self.model_file)
        trained = parse_config(meta["config"], str(self.model_file))
        check_same(trained, config, self.config_file)
        with torch.random.fork_rng(devices=[]):  # the caller's draws are not ours to change
            mean = torch.full(meta["shape"], 0.5)
            told = Told(
                tuple(meta["classes"]),
                tuple(meta.get("attributes", ())),
                units=tuple(meta.get("units", ())),
                class_counts=tuple(meta.get("class_counts", ())),
            )
            setup = Setup(trained.model, trained.data.binarize, mean, 1, told)
            model, _ = build(trained, setup)
        load_weights(model, tensors, self.model_file)
        model.config = trained
        return model.to(device).eval()

    def trained_on(self) -> tuple[tuple[int, int, int], str]:
        """Return shape and fingerprint of the images that the model was trained on."""
        meta = files.load_tensors(self.model_file)[1]
        channels, height, width = meta["shape"]
        return (channels, height, width), meta["data"]

    def steps(self) -> int:
        """Return how many steps the weights were trained for."""
        return int(files.load_tensors(self.model_file)[1]["step"])

    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes that the model was trained with."""
        return tuple(files.load_tensors(self.model_file)[1]["classes"])

    def read_log(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the entries of the log, of one kind (``step``, ``epoch``, ``note``) or all."""
        entries = files.read_log(self.log_file)
        return [entry for entry in entries if kind is None or entry.get("kind") == kind]

    def last_epoch(self) -> dict[str, Any] | None:
        """Return the last epoch in the log, or None if there is none yet."""
        epochs = self.read_log("epoch") if self.log_file.exists() else []
        return epochs[-1] if epochs else None

    def append_log(self, kind: str, values: Mapping[str, Any]) -> None:
        """Add an entry to the log; numbers that are not finite become null."""
        known = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(files.log_line({"kind": kind, **known}))

    def log_size(self) -> int:
        """Return the length of the log in bytes."""
        return self.log_file.stat().st_size if self.log_file.exists() else 0

    def cut_log(self, length: int) -> None:
        """Take from the log what came after a checkpoint: it will be written again.

        Raises:
            RunError: the log is shorter than the checkpoint saw it.
        """
        size = self.log_size()
        if size < length:
            why = f"{size} bytes where the last checkpoint saw {length}"
            raise files.damaged(self.log_file, why)
        if size > length:
            with self.log_file.open("rb+") as log:
                log.truncate(length)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for writing, so that two processes cannot train the same run.

        Folders made for it are removed again where nothing came to be in them.
        """
        lock = self.path / ".lock"
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with files.locked(lock) as mine:
            if not mine:
                raise BusyError(f"{self}: is being trained by another process.")
            try:
                yield
            finally:
                if made and list(self.path.iterdir()) == [lock]:
                    with suppress(OSError):  # a parent may hold something by now
                        lock.unlink()
                        for folder in made:
                            folder.rmdir()


def visible(path: Path) -> list[str]:
    """Return the names in a folder that are not hidden, as a lock is; the path of a file itself."""
    if not path.is_dir():
        return [path.name] if path.exists() else []
    return sorted(below.name for below in path.iterdir() if not below.name.startswith("."))


def load_weights(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy tensors into a module; raises `RunError` when names or shapes do not fit."""
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise files.damaged(path, f"weights do not fit: {' '.join(str(error).split())}") from None


def check_same(trained: RunConfig, now: RunConfig, path: Path) -> None:
    """Raise `RunError` unless two configurations describe the same training."""
    old, new = _flat(trained), _flat(now)
    free = {f"training.{key}" for key in MAY_CHANGE}
    for key in sorted((old.keys() | new.keys()) - free):
        if not key.startswith("versions.") and old.get(key) != new.get(key):
            raise RunError(
                f"{path}: {key} is {new.get(key)!r}, but the weights were trained with "
                f"{old.get(key)!r}. Only {', '.join(MAY_CHANGE)} may change within a run; "
                "start another one in another folder."
            )


def _flat(config: RunConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, below in value.items():
                walk(f"{prefix}.{key}" if prefix else key, below)
        else:
            flat[prefix] = value

    walk("", config.model_dump(mode="json"))
    return flat


def versions() -> dict[str, str]:
    """Return the versions of what a run depends on."""
    names = ("vaelab", "torch", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
