"""A run is a folder: its configuration, weights, state, log and figures.

config.yaml          everything needed to repeat it
model.safetensors    weights to use, with the configuration in the metadata
images.safetensors   hashes of the images of each part, to know them again
sampler.safetensors  what samples come from in place of the prior, and why
state.safetensors    all that an exact resume needs, in one file
log.jsonl            one line per logged step and per epoch
evaluation.json      figures with error bars and protocol
report.html          one self-contained page
figures/             pictures
"""

from __future__ import annotations

import math
import os
import platform
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vaelab import files
from vaelab.checked import first_fault
from vaelab.config import RunConfig, parse_config, read_yaml
from vaelab.data.hashes import check_hashes
from vaelab.data.seen import Seen
from vaelab.data.summary import Pixels
from vaelab.errors import BusyError, RunError, as_path, counted, cut, refuse_pickle
from vaelab.models.classifier import Classifier
from vaelab.models.conditioning import Told
from vaelab.models.model import Model
from vaelab.models.vae import Vae
from vaelab.recipes import Setup, build, find_recipe
from vaelab.training.allowance import Allowance
from vaelab.training.backend import is_main
from vaelab.training.checkpoint import read_position
from vaelab.training.entries import fault_of
from vaelab.training.sampler import read_sampler, write_sampler

Side = Annotated[int, Field(ge=1, le=2**26)]

MAY_CHANGE = ("epochs", "device", "trackers", "checkpoint_seconds", "patience")
"""Keys of `TrainingConfig` that may differ when a run is resumed."""


class About(BaseModel):
    """The metadata of ``model.safetensors``; ``seen`` is the checksum of ``images.safetensors``."""

    model_config = ConfigDict(extra="allow", frozen=True)

    config: dict[str, Any]
    shape: tuple[Side, Side, Side]
    classes: list[str] = Field(max_length=100_000)
    attributes: list[str] = Field([], max_length=10_000)
    units: list[str] = Field([], max_length=10_000)
    class_counts: list[Annotated[int, Field(ge=0, lt=2**53)]] = Field([], max_length=100_000)
    step: int = Field(0, ge=0, lt=2**63)
    data: str = ""
    seen: str | None = None


class Run:
    """The folder of one run. Opening it reads nothing; every reader checks what it reads."""

    def __init__(self, path: Path | str) -> None:
        self.path = as_path("run", path)
        self.config_file = self.path / "config.yaml"
        self.model_file = self.path / "model.safetensors"
        self.images_file = self.path / "images.safetensors"
        self.sampler_file = self.path / "sampler.safetensors"
        self.state_file = self.path / "state.safetensors"
        self.log_file = self.path / "log.jsonl"
        self.evaluation_file = self.path / "evaluation.json"
        self.report_file = self.path / "report.html"
        self.explorer_file = self.path / "explorer.html"

    @property
    def figures(self) -> Path:
        """The folder of pictures; raises `RunError` where it is a link that leads away."""
        return files.inside(self.path, self.path / "figures")

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
        """Write ``model.safetensors``: weights, shape, configuration, and which images they saw."""
        assert model.config is not None
        config = model.config.model_dump(mode="json")
        if self.images_file.exists():
            meta["seen"] = files.checksum(self.images_file)
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
        read_sampler(self.sampler_file, model, files.checksum(self.model_file))
        return model

    def sampler_is_known(self) -> bool:
        """Tell whether it was chosen what samples of these weights come from."""
        if not self.sampler_file.exists():
            return False
        return bool(
            files.read_meta(self.sampler_file).get("weights") == files.checksum(self.model_file)
        )

    def save_sampler(self, model: Vae, about: Mapping[str, Any]) -> None:
        """Write what samples of the weights come from; ``about``: how that was found."""
        write_sampler(self.sampler_file, model, files.checksum(self.model_file), about)

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
        about = self._about(meta)
        trained = parse_config(about.config, str(self.model_file))
        check_same(trained, config, self.config_file)
        files.check_finite(self.model_file, tensors)
        with (
            torch.random.fork_rng(devices=[]),  # the caller's draws are not ours to change
            Allowance(tensors, self.model_file),
        ):
            pixels = Pixels(torch.full(about.shape, 0.5))
            told = Told(
                tuple(about.classes),
                tuple(about.attributes),
                units=tuple(about.units),
                class_counts=tuple(about.class_counts),
            )
            setup = Setup(trained.model, trained.data.binarize, pixels, 1, told)
            model, _ = build(trained, setup)
        load_weights(model, tensors, self.model_file)
        model.config = trained
        return model.to(device).eval()

    def about(self) -> About:
        """Return what the weights say of themselves; raises `RunError` when they do not."""
        return self._about(files.load_tensors(self.model_file)[1])

    def _about(self, meta: Mapping[str, Any]) -> About:
        try:
            return About.model_validate(meta)
        except ValidationError as error:
            raise files.damaged(self.model_file, first_fault(error)) from None

    def trained_on(self) -> tuple[tuple[int, int, int], str]:
        """Return shape and fingerprint of the images that the model was trained on."""
        about = self.about()
        return about.shape, about.data

    def save_seen(self, seen: Seen, data: str) -> None:
        """Write the hashes of all images, under their fingerprint, unless they are there."""
        with suppress(RunError):
            if files.load_tensors(self.images_file)[1].get("data") == data:
                return
        files.save_tensors(self.images_file, seen.tensors(), {"data": data})

    def seen(self) -> Seen | None:
        """Return the hashes of the images that the run was trained on; None if it kept none.

        Raises:
            RunError: the file is damaged, or is that of another run.
        """
        if not self.images_file.exists():
            return None
        tensors, meta = files.load_tensors(self.images_file)
        check_hashes(tensors, self.images_file)
        about, found = self.about(), files.checksum(self.images_file)
        if meta.get("data") != about.data or about.seen not in (None, found):
            raise files.damaged(self.images_file, "it is about other images than the weights")
        try:
            return Seen.read(tensors)
        except KeyError as error:
            raise files.damaged(self.images_file, f"{error} is missing") from None

    def unfinished(self) -> list[str]:
        """Say that training is not over, if it is not; of a run without a state, a copy, it is."""
        try:
            position = read_position(files.read_meta(self.state_file), self.state_file)
            config = self.read_config()
        except RunError:  # a copy; or damaged, of which whoever resumes it will hear
            return []
        if position.finished:
            return []
        command = "classify train" if find_recipe(config.recipe).classifies else "train"
        of = counted(config.training.epochs, "epoch")
        done = f"{position.epoch} of {of}, step {position.step}"
        return [
            f"Training is not finished ({done}): these are the weights of a checkpoint. Go on "
            f"with: vaelab {command} --resume --out {self}"
        ]

    def steps(self) -> int:
        """Return how many steps the weights were trained for."""
        return self.about().step

    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes that the model was trained with."""
        return tuple(self.about().classes)

    def read_log(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the entries of the log, of one kind (``step``, ``epoch``, ``note``) or all.

        Raises:
            RunError: it is damaged, or is not the log that the last checkpoint saw.
        """
        if self.state_file.exists():
            position = read_position(files.read_meta(self.state_file), self.state_file)
            self.check_log(position.log_bytes, position.log_crc)
        entries = []
        for number, entry in enumerate(files.read_log(self.log_file), 1):
            if fault := fault_of(entry):
                raise files.damaged(self.log_file, f"line {number}: {fault}")
            if kind in (None, entry["kind"]):
                entries.append(entry)
        return entries

    def epochs(self, *figures: str) -> list[dict[str, Any]]:
        """Return the epochs in the log; raises `RunError` unless there are any, with ``figures``.

        A figure that was not finite is None.
        """
        epochs = self.read_log("epoch")
        if not epochs:
            raise RunError(f"{self.log_file}: holds no epoch yet. Go on with the training.")
        if lost := set(figures) - epochs[-1].keys():
            raise files.damaged(self.log_file, f"its last epoch has no {', '.join(sorted(lost))}")
        return epochs

    def last_epoch(self) -> dict[str, Any] | None:
        """Return the last epoch in the log, or None if there is none yet."""
        epochs = self.read_log("epoch") if self.log_file.exists() else []
        return epochs[-1] if epochs else None

    def diverged(self) -> list[str]:
        """Return what the log says of a training that ended worse than it began; [] of others."""
        last = self.last_epoch()
        notes = self.read_log("note") if last else []
        return [
            str(note["text"])
            for note in notes
            if last and note.get("about") == "divergence" and note.get("step") == last["step"]
        ]

    def append_log(self, kind: str, values: Mapping[str, Any]) -> None:
        """Add an entry to the log; numbers that are not finite become null."""
        known = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        files.append(self.log_file, files.log_line({"kind": kind, **known}))

    def begin_log(self) -> None:
        """Write the first line of the log, which no other run has.

        Raises:
            RunError: there are entries already, of a run whose state is gone or of another one.
        """
        if any(entry.get("kind") != "run" for entry in self._old_entries()):
            raise RunError(
                f"{self.log_file}: holds entries, and the run has no checkpoint that they belong "
                f"to. Move it away: mv {self.log_file} {self.log_file.with_suffix('.old')}"
            )
        files.write_atomic(
            self.log_file, files.log_line({"kind": "run", "id": secrets.token_hex(8)}).encode()
        )

    def _old_entries(self) -> Iterator[dict[str, Any]]:
        return files.read_log(self.log_file) if os.path.lexists(self.log_file) else iter(())

    def log_mark(self, length: int = 0, crc: int | None = 0) -> tuple[int, int]:
        """Return length and CRC-32 of the log, and see to it that both last.

        Arguments:
            length: of the log at the last checkpoint.
            crc: of that part; None if it is not known.
        """
        if not os.path.lexists(self.log_file):
            return 0, 0
        files.sync(self.log_file)
        size = self.log_file.stat().st_size
        if crc is None or size < length:
            length, crc = 0, 0
        return size, files.crc_of(self.log_file, size, length, crc)

    def cut_log(self, length: int) -> None:
        """Take from the log what came after a checkpoint: it will be written again."""
        if length and self.log_file.stat().st_size > length:
            files.truncate(self.log_file, length)

    def check_log(self, length: int, crc: int | None) -> None:
        """Raise `RunError` unless the log begins as a checkpoint saw it."""
        if length == 0:
            return
        why = ""
        if not os.path.lexists(self.log_file):
            why = f"is missing, and had {length:,} bytes at the last checkpoint"
        else:
            size = self.log_file.stat().st_size
            if size < length:
                why = f"is damaged: {size:,} bytes where the last checkpoint saw {length:,}"
            elif not files.begins(self.log_file, length, crc):
                why = (
                    "is damaged or of another run: it does not begin as the last checkpoint saw it"
                )
        if why:
            raise RunError(
                f"{self.log_file}: {why}. Restore it from a copy. Without one the run cannot go "
                f"on; with {self.state_file.name} removed too, its model can be used and reported."
            )

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
            files.sweep(self.path)
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
    own = module.state_dict()
    try:
        for name, tensor in tensors.items():
            if name in own and tensor.dtype != own[name].dtype:
                raise RuntimeError(f"{name} is {tensor.dtype}, not {own[name].dtype}")
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise files.damaged(path, f"weights do not fit: {' '.join(str(error).split())}") from None


def check_same(trained: RunConfig, now: RunConfig, path: Path) -> None:
    """Raise `RunError` unless two configurations describe the same training."""
    old, new = flat(trained), flat(now)
    command = "classify train" if find_recipe(trained.recipe).classifies else "train"
    free = {f"training.{key}" for key in MAY_CHANGE}
    fields = find_recipe(trained.recipe).options.model_fields  # a run may be older than an option
    usual = {f"options.{key}": field.default for key, field in fields.items()}
    if now.data.range == "auto":  # was found when the images were first read
        free.add("data.range")
    if now.data.size is None:  # so was the size that images of several are fitted to
        free.add("data.size")
    if not now.data.signed:  # so was this
        free.add("data.signed")
    if now.training.augment.flip == "auto":  # was decided then
        free.add("training.augment.flip")
    for key in sorted((old.keys() | new.keys()) - free):
        if not key.startswith("versions.") and old.get(key, usual.get(key)) != new.get(
            key, usual.get(key)
        ):
            raise RunError(
                f"{path}: {cut(key, 100)} is {cut(repr(new.get(key)))}, but the weights were "
                f"trained with {cut(repr(old.get(key)))}. Only {', '.join(MAY_CHANGE)} may "
                "change within a run. To go on from its weights with other settings: "
                f"vaelab {command} --from {path.parent}"
            )


def flat(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as one mapping of full names, such as ``training.lr``."""
    values: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, below in value.items():
                walk(f"{prefix}.{key}" if prefix else key, below)
        else:
            values[prefix] = value

    walk("", config.model_dump(mode="json"))
    return values


def versions() -> dict[str, str]:
    """Return the versions of what a run depends on."""
    names = ("vaelab", "torch", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
