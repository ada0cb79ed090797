"""Whatever a file from elsewhere holds: it is read, or one of our errors says why not.

``VAELAB_FUZZ=20000 pytest tests/test_fuzz.py`` tries as many inputs in all.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.conftest import SMALL, blobs
from vaelab import api, files
from vaelab.config import assignment, parse_config, read_yaml
from vaelab.data.load import load_data
from vaelab.errors import VaelabError
from vaelab.evaluation import record
from vaelab.parsing import parse_json
from vaelab.recipes import resolve
from vaelab.report import curves, words
from vaelab.report.study import write_study_report
from vaelab.studies import watch
from vaelab.studies.plan import make_plan
from vaelab.studies.study import Study
from vaelab.training.loop import Trainer
from vaelab.training.progress import Silent
from vaelab.training.run import Run

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 3, 10**9, 10**12, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "",
    "vae", "normal", "../../x", "/etc", "a\0b", "x" * 300, "caf\udce9", "\ud800",
    -0.1, 2**64, "=1+1", "2001-99-99", [],
    {}, [[]], [0], [-1, 2], [1] * 50, [10**9, 10**9], {"": 1}, {"kind": "mlp"},
    {"x": {"y": [None]}},
)  # fmt: skip
TEXTS = (
    "!!int foo", "!!float x", "!!bool x", "!!timestamp x", "!!binary x", "!!set {a, b}",
    "!!omap [a: 1]", "!!python/object:os.system x", '"\\U00110000"', "9" * 5000, "[" * 600,
    "{a: " * 400, "&a [*a]", "*b", "{a: 1, a: 2}", "{<<: [1]}", "<<: &m {<<: *m}", "- - - -",
    "? ? ?", "0x", "1_0", "0o9", ".inf", ".nan", "1:30:90", "2001-01-01", "~", "\t", "%YAML 9.9",
    "--- a\n--- b", "\x00", "\u2028", "|", ">9", "!", "!<>", "&", "@x", "`", "'", "\ufeff",
    "\ud7ff", "0" * 400 + "1", "1e999", "-.inf", "null", "[,]",
)  # fmt: skip


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything below nested values."""
    if isinstance(values, list):
        values = dict(enumerate(values))
    found = []
    for key, value in values.items() if isinstance(values, dict) else ():
        found += [(*path, key), *places(value, (*path, key))]
    return found


def changed(values: Any, chance: random.Random, odd: tuple[Any, ...] = ODD) -> Any:
    """Nested values of which one to three were replaced, left out, renamed or doubled."""
    values = copy.deepcopy(values)
    for _ in range(chance.randint(1, 3)):
        paths = places(values)
        if not paths:
            return values
        *path, last = chance.choice(paths)
        inner = values
        for key in path:
            inner = inner[key]
        what = chance.random()
        if what < 0.7:
            inner[last] = copy.deepcopy(chance.choice(odd))
        elif what < 0.85:
            del inner[last]
        elif isinstance(inner, dict):
            inner[str(chance.choice(["x", "../y", "", last]))] = inner.pop(last)
        else:
            inner.extend(inner[:])
    return values


def bytes_changed(data: bytes, chance: random.Random) -> bytes:
    """Bytes of which some were changed, cut or said twice."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        if not found:
            break
        at = chance.randrange(len(found))
        what = chance.random()
        if what < 0.5:
            found[at] = chance.choice([chance.randrange(256), found[at] ^ 1 << chance.randrange(8)])
        elif what < 0.7:
            del found[at : at + chance.randint(1, 20)]
        elif what < 0.9:
            found[at:at] = chance.choice(TEXTS).encode(errors="surrogatepass")
        else:
            found[at:at] = found[at : at + 40]
    return bytes(found)


class Place:
    """A folder with a trained run, and what is valid of every kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        images = blobs(40, 8, 8)
        self.splits = load_data((images, np.arange(40) % 3))
        self.run = Run(path / "run")
        settings = {**SMALL, "epochs": 1, "encoder": {"widths": [4], "hidden": []}}
        api.train("cvae", self.splits, self.run.path, **settings)
        figure = {"value": 1.0, "standard_error": 0.1, "n": 3, "unit": "nats", "protocol": "p"}
        result = {
            "figures": {"elbo": figure}, "latent": {"kl": [0.1, 0.2]}, "notes": ["a"], "images": 3,
            "held_out": True, "seed": 0, "what": "test images", "confusion": None,
            "weights": files.checksum(self.run.model_file),
        }  # fmt: skip
        self.evaluation: dict[str, Any] = result
        self.config = self.run.read_config().model_dump(mode="json")
        self.model = files.load_tensors(self.run.model_file)
        self.state = files.load_tensors(self.run.state_file)
        self.log = self.run.log_file.read_bytes()
        self.seen = files.load_tensors(self.run.images_file)
        self.declared: dict[str, Any] = {
            "title": "T", "question": "q", "lead": "elbo", "seeds": 2, "base": {"recipe": "vae"},
            "cases": [{"name": "a", "set": {"training": {"lr": 0.1}}}, {"name": "b", "like": "a"}],
            "grid": {"training.epochs": [1, 2]}, "measure": {"also": [], "limit": 20},
        }  # fmt: skip
        study = Study(path / "study")
        study.begin(make_plan(self.declared, "x"))
        self.study = study
        self.plan = read_yaml(study.plan_file)
        few = {"cases": self.declared["cases"], "seeds": 1, "grid": {}}
        self.measured = Study(path / "measured")
        self.measured.begin(make_plan({**self.declared, **few}, "x"))
        for job in self.measured.jobs(self.measured.read_plan()):
            shutil.copytree(self.run.path, job.run.path)
            files.write_json(job.measured_file, result)
        folder = path / "images"
        folder.mkdir()
        for n in range(12):
            Image.fromarray(images[n, 0]).save(folder / f"{n}.png")
        self.table = b"file,label,a\n" + b"".join(
            b"%d.png,x%d,%d\n" % (n, n % 2, n) for n in range(12)
        )

    def reset(self) -> None:
        """Bring the run back to what it was."""
        self.run.write_config(parse_config(self.config))
        files.save_tensors(self.run.model_file, *self.model)
        files.save_tensors(self.run.state_file, *self.state)
        files.save_tensors(self.run.images_file, *self.seen)
        self.run.log_file.write_bytes(self.log)


def as_yaml(values: Any) -> bytes:
    return yaml.safe_dump(values, sort_keys=False).encode(errors="surrogatepass")


def yaml_file(place: Place, chance: random.Random) -> None:
    data = as_yaml(changed(place.config, chance))
    if chance.random() < 0.5:
        data = bytes_changed(data, chance)
    path = place.path / "c.yaml"
    path.write_bytes(data)
    resolve({**read_yaml(path), "versions": {}}, "c.yaml")


def setting(place: Place, chance: random.Random) -> None:
    keys = [".".join(map(str, path)) for path in places(place.config)]
    value = chance.choice([chance.choice(TEXTS), str(chance.choice(ODD))])
    resolve(assignment(f"{chance.choice(keys)}={value}"), "-s")


def study_file(place: Place, chance: random.Random) -> None:
    data = as_yaml(changed(place.declared, chance))
    if chance.random() < 0.3:
        data = bytes_changed(data, chance)
    path = place.path / "s.yaml"
    path.write_bytes(data)
    make_plan(read_yaml(path), "s.yaml")


def study_folder(place: Place, chance: random.Random) -> None:
    files.write_yaml(place.study.plan_file, changed(place.plan, chance))
    for job in place.study.jobs(place.study.read_plan()):
        assert Path(os.path.realpath(job.run.path)).is_relative_to(os.path.realpath(place.path))


def evaluation(place: Place, chance: random.Random) -> None:
    values = changed(
        place.evaluation, chance, tuple(v for v in ODD if v == v and v != float("inf"))
    )
    values["weights"] = place.evaluation["weights"]
    files.write_json(place.run.evaluation_file, values)
    if chance.random() < 0.3:
        data = bytes_changed(place.run.evaluation_file.read_bytes(), chance)
        place.run.evaluation_file.write_bytes(data)
    found = record.read(place.run)
    record.verdict(found)
    words.figure_rows(found)
    json.dumps([str(figure) for figure in found.figures.values()], ensure_ascii=False)


def log(place: Place, chance: random.Random) -> None:
    if chance.random() < 0.3:
        place.run.log_file.write_bytes(bytes_changed(place.log, chance))
        place.run.read_log()
        return
    lines = [parse_json(line) for line in place.log.splitlines()]
    for line in lines:
        del line["crc"]
    number = chance.randrange(len(lines))
    lines[number] = changed(lines[number], chance)
    place.run.log_file.write_text("".join(map(files.log_line, lines)))
    watch.share(place.run, 3)
    place.run.state_file.unlink()  # which knows the log
    epochs, steps = place.run.epochs("validation/elbo"), place.run.read_log("step")
    curves.learning_curves(steps, epochs)
    words.preliminary(epochs)
    place.run.diverged()


def study_results(place: Place, chance: random.Random) -> None:
    odd = tuple(v for v in ODD if v == v and v != float("inf"))
    study, (job, *_) = place.measured, place.measured.jobs(place.measured.read_plan())
    values = changed(place.evaluation, chance, odd)
    failure = job.run.path / "failure.json"
    files.write_json(job.measured_file, {**values, "weights": place.evaluation["weights"]})
    failure.unlink(missing_ok=True)
    if chance.random() < 0.2:
        files.write_json(failure, changed({"why": "x"}, chance, odd))
    write_study_report(study, lambda case: place.splits)


def seen(place: Place, chance: random.Random) -> None:
    tensors, meta = place.seen
    if chance.random() < 0.8:
        tensors = tensors_changed(tensors, chance)
    else:
        meta = changed(meta, chance)
    files.save_tensors(place.run.images_file, tensors, meta)
    known = place.run.seen()
    assert known is None or bool(known.trained_on(place.splits.train).all())


def tensors_changed(tensors: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    found = dict(tensors)
    name = chance.choice(list(found))
    tensor = found[name]
    odd = [
        torch.full_like(tensor, -1), torch.zeros(0), torch.zeros(3, 0), torch.zeros(()),
        tensor.flatten(), tensor.double(), torch.zeros_like(tensor, dtype=torch.int64),
    ]  # fmt: skip
    if tensor.is_floating_point():
        odd += [torch.full_like(tensor, torch.nan), torch.full_like(tensor, torch.inf)]
    found[name] = chance.choice(odd)
    if chance.random() < 0.2:
        found[chance.choice(["x", "../y", name + ".z"])] = found.pop(name)
    return found


def model(place: Place, chance: random.Random) -> None:
    tensors, meta = place.model
    if chance.random() < 0.4:
        tensors = tensors_changed(tensors, chance)
    else:
        meta = changed(meta, chance)
        config = meta.get("config")
        if chance.random() < 0.5 and isinstance(config, dict):
            files.write_yaml(place.run.config_file, config)  # they agree: the model is built
    files.save_tensors(place.run.model_file, tensors, meta)
    if chance.random() < 0.2:
        data = bytes_changed(place.run.model_file.read_bytes(), chance)
        place.run.model_file.write_bytes(data)
    place.run.load()


def state(place: Place, chance: random.Random) -> None:
    tensors, meta = place.state
    if chance.random() < 0.5:
        tensors = tensors_changed(tensors, chance)
    else:
        meta = changed(meta, chance)
    files.save_tensors(place.run.state_file, tensors, meta)
    config = api.configure({}, None, place.run)
    trainer = Trainer(config, place.splits, Silent(), place.run)
    trainer.restore()
    place.run.read_log()
    trainer.fit()


def table(place: Place, chance: random.Random) -> None:
    for name in ("attributes.csv", "labels.csv"):
        (place.path / "images" / name).unlink(missing_ok=True)
    path = place.path / "images" / chance.choice(["attributes.csv", "labels.csv"])
    path.write_bytes(bytes_changed(place.table, chance))
    load_data(place.path / "images", cache_dir=place.path / "cache")


KINDS: dict[Callable[[Place, random.Random], None], int] = {
    yaml_file: 6, setting: 6, study_file: 4, study_folder: 4, evaluation: 6, log: 6, model: 5,
    state: 2, table: 5, study_results: 2, seen: 2,
}  # fmt: skip
"""Shares of the inputs."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_nothing_but_our_errors(kind: Callable[[Place, random.Random], None], place: Place) -> None:
    total = int(os.environ.get("VAELAB_FUZZ", "440"))
    refused = 0
    place.reset()
    count = total * KINDS[kind] // sum(KINDS.values())
    for number in range(count):
        chance = random.Random(f"{kind.__name__} {number}")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                kind(place, chance)
            except VaelabError as error:
                refused += bool(str(error).strip())
            except BaseException as error:
                error.add_note(f"input {number} of {kind.__name__}")
                raise
        if kind in (model, state, log, seen):
            place.reset()
    assert refused > count / 10  # the inputs are odd indeed
