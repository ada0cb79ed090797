"""Files whose checksum is right and whose values are not: each is refused by file, key and value.

They are what somebody else may have written, as a checksum of a file in it proves nothing.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vaelab
from tests.conftest import SMALL, blobs
from vaelab import api, files
from vaelab.config import parse_config, read_yaml
from vaelab.data.images import Splits
from vaelab.errors import ConfigError, DataError, RunError
from vaelab.evaluation import record
from vaelab.evaluation.figures import draws_of, short_name
from vaelab.models.vae import Vae
from vaelab.parsing import parse_json, parse_yaml
from vaelab.report.curves import learning_curves
from vaelab.report.page import write_report
from vaelab.studies.plan import make_plan
from vaelab.studies.results import read_results
from vaelab.studies.study import Study
from vaelab.training.run import Run

HUGE = 10**400


@pytest.fixture(scope="module")
def trained(spots: Splits, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("runs") / "run")
    api.train(data=spots, out=run.path, **{**SMALL, "log_every": 1})
    return run


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    shutil.copytree(trained.path, tmp_path / "run")
    return Run(tmp_path / "run")


def with_line(run: Run, kind: str, values: dict[str, Any]) -> None:
    """Change the last line of a kind in a log that no checkpoint knows."""
    lines = run.read_log()
    last = max(number for number, line in enumerate(lines) if line["kind"] == kind)
    lines[last] |= values
    run.log_file.write_text("".join(map(files.log_line, lines)))
    run.state_file.unlink()


@pytest.mark.parametrize(
    ("kind", "key", "value", "why"),
    [
        ("epoch", "step", "7", "valid integer .got '7'"),
        ("epoch", "step", 0, "greater than or equal to 1 .got 0"),
        ("epoch", "epoch", True, "valid integer .got True"),
        ("epoch", "seconds", -1.0, "greater than or equal to 0"),
        ("epoch", "seconds", None, "valid number .got None"),
        ("epoch", "skipped", 0.5, "valid integer"),
        ("epoch", "validation/elbo", "x", "valid number .got 'x'"),
        ("epoch", "validation/rate", HUGE, "valid number .got 1000"),
        ("epoch", "validation/loss", 1e308, "less than or equal to"),
        ("step", "speed", [1], "valid number"),
        ("step", "loss", False, "valid number .got False"),
        ("step", "kind", "stop", "must be one of run, note, step, epoch .got 'stop'"),
    ],
)
def test_a_value_of_the_log_is_what_it_should_be(
    kind: str, key: str, value: Any, why: str, run: Run, spots: Splits
) -> None:
    with_line(run, kind, {key: value})
    for read in (lambda: run.read_log("epoch"), lambda: write_report(run, spots)):
        with pytest.raises(RunError, match=rf"log\.jsonl: is damaged \(line \d+: {key}: .*{why}"):
            read()


def test_a_log_without_an_epoch_says_so(run: Run) -> None:
    lines = [line for line in run.read_log() if line["kind"] != "epoch"]
    run.log_file.write_text("".join(map(files.log_line, lines)))
    run.state_file.unlink()
    with pytest.raises(RunError, match=r"log\.jsonl: holds no epoch yet"):
        run.epochs()


def test_curves_of_one_enormous_number_are_drawn() -> None:
    entries = [{"step": step, "epoch": 1, "validation/elbo": -1e30} for step in (1, 2)]
    assert len(learning_curves([], entries)) == 1


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("step", -1, "step: .*greater than or equal to 0 .got -1"),
        ("batch", -1, "batch: .*greater than or equal to 0"),
        ("batch", 4, "step 12, epoch 2, batch 4 is not a place of this training"),
        ("step", 3, "step 3, epoch 2, batch 0 is not a place of this training"),
        ("seconds", "1", "seconds: .*valid number .got '1'"),
        ("log_bytes", 2.5, "log_bytes: .*valid integer"),
        ("start", {"a": {"b": 1.0}}, "start: must be of validation and training images .got 'a'"),
        ("start", {"validation": {"b": 1.0}, "training": {}}, "must have loss and error .got 'b'"),
        ("start", {"validation": {}, "training": {"loss": 1e308}}, "start.*less than or equal"),
    ],
)
def test_a_position_is_a_place_of_its_training(
    key: str, value: Any, why: str, run: Run, spots: Splits
) -> None:
    tensors, meta = files.load_tensors(run.state_file)
    assert meta["position"]["step"] == 12
    meta["position"][key] = value
    files.save_tensors(run.state_file, tensors, meta)
    with pytest.raises(RunError, match=rf"state\.safetensors: is damaged \(position.*{why}"):
        api.train(data=spots, out=run.path, resume=True, epochs=3)


@pytest.mark.parametrize(
    "change", [torch.Tensor.double, torch.Tensor.bool, lambda t: t[:3], lambda t: t[:, None]]
)
def test_hashes_that_are_none_match_no_image_in_silence(
    change: Callable[[torch.Tensor], torch.Tensor], run: Run, spots: Splits
) -> None:
    seen = run.seen()
    assert seen is not None
    assert bool(seen.trained_on(spots.train).all())
    tensors, meta = files.load_tensors(run.images_file)
    files.save_tensors(run.images_file, {**tensors, "train": change(tensors["train"])}, meta)
    with pytest.raises(RunError, match=r"images\.safetensors: is damaged \((train is|it is about)"):
        run.seen()


FIGURE = {"value": 1.0, "standard_error": 0.1, "n": 3, "unit": "nats", "protocol": "p"}
RESULT: dict[str, Any] = {
    "figures": {"elbo": FIGURE}, "latent": {}, "notes": [], "images": 3, "held_out": True,
    "seed": 0,
}  # fmt: skip


def evaluation(run: Run, /, path: Path | None = None, **changes: Any) -> Path:
    weights = files.checksum(run.model_file)
    files.write_json(path or run.evaluation_file, {**RESULT, **changes, "weights": weights})
    return path or run.evaluation_file


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("value", True), ("value", "1"), ("value", 1e308), ("standard_error", -1.0), ("n", -5),
        ("n", 2.0), ("freedom", HUGE), ("freedom", 0), ("ends", [0.0, "1"]),
    ],
)  # fmt: skip
def test_a_figure_is_made_of_numbers_in_their_bounds(key: str, value: Any, run: Run) -> None:
    evaluation(run, figures={"elbo": {**FIGURE, key: value}})
    with pytest.raises(RunError, match=rf"evaluation\.json.*figures\.elbo\.{key}"):
        record.read(run)


@pytest.mark.parametrize(
    ("key", "value"),
    [("images", -1), ("seed", 2**63), ("seed", -1), ("latent", {"kl": ["x"]}),
     ("confusion", [[-1]]), ("trained_on", 0.5)],
)  # fmt: skip
def test_an_evaluation_is_made_of_numbers_in_their_bounds(key: str, value: Any, run: Run) -> None:
    evaluation(run, **{key: value})
    with pytest.raises(RunError, match=rf"evaluation\.json.*not an evaluation: {key}"):
        record.read(run)


@pytest.mark.parametrize("key", ["what", "notes"])
def test_half_a_character_is_no_text(key: str, run: Run) -> None:
    changes: dict[str, Any] = {key: "\ud800" if key == "what" else ["a\udfff"]}
    evaluation(run, **changes)
    with pytest.raises(RunError, match=r"evaluation\.json: .*half a character, '\\ud(800|fff)'"):
        record.read(run)


def test_names_of_files_may_be_any_bytes_in_json_and_yaml() -> None:
    assert parse_json(b'{"a": "caf\\udce9 \\ud83d\\ude00"}') == {"a": "caf\udce9 \U0001f600"}
    assert parse_yaml('a: "caf\\udce9"') == {"a": "caf\udce9"}
    for text in ("\\ud800", "\\udc00", "\\udfff"):
        with pytest.raises(ValueError, match="half a character"):
            parse_yaml(f'a: ["{text}"]')
        with pytest.raises(ValueError, match="half a character"):
            parse_json(f'{{"{text}": 1}}'.encode())


def test_a_page_shows_bytes_of_a_name_that_are_no_text(run: Run, spots: Splits) -> None:
    evaluation(run, what="test images of caf\udce9")
    write_report(run, spots)
    assert "caf\\udce9" in run.report_file.read_text(encoding="utf-8")


def test_bounds_are_named_by_whole_numbers() -> None:
    assert draws_of("iwae_50") == 50
    assert short_name("iwae_5000") == "IWAE 5,000"
    for odd in ("iwae_", "iwae_x", "iwae_0", "iwae_²", "iwae_" + "9" * 5000):
        assert draws_of(odd) is None
        assert short_name(odd)


@pytest.fixture
def study(run: Run, tmp_path: Path) -> Study:
    found = Study(tmp_path / "study")
    found.begin(make_plan({"title": "T", "cases": [{"name": "a"}], "seeds": 1}, "here"))
    (job,) = found.jobs(found.read_plan())
    shutil.copytree(run.path, job.run.path)
    evaluation(job.run, job.measured_file)
    return found


def test_what_a_study_reads_is_checked(study: Study) -> None:
    (job,) = study.jobs(study.read_plan())
    assert read_results(study).runs[0].parameters > 0
    for key, value in (("value", 1e308), ("value", True), ("n", -5), ("standard_error", -1)):
        evaluation(job.run, job.measured_file, figures={"elbo": {**FIGURE, key: value}})
        with pytest.raises(RunError, match=rf"measured\.json.*{key}.*delete"):
            read_results(study)
    for odd in ({}, {"why": 3}, {"why": "\ud800"}):
        files.write_json(job.run.path / "failure.json", odd)
        with pytest.raises(RunError, match=r"failure\.json: is damaged .*(why|half)"):
            read_results(study)
    values = read_yaml(study.plan_file)
    files.write_yaml(study.plan_file, {**values, "lead": "\ud800"})
    with pytest.raises(ConfigError, match=r"study\.yaml.*half a character"):
        study.read_plan()


@pytest.mark.parametrize(
    "name", ["config.yaml", "evaluation.json", "model.safetensors", "images.safetensors",
             "state.safetensors", "log.jsonl"],
)  # fmt: skip
def test_a_file_without_end_is_refused_before_it_is_read(
    name: str, run: Run, spots: Splits
) -> None:
    evaluation(run)
    os.truncate(run.path / name, 200 * 2**30)  # sparse: it has no such bytes
    if name == "log.jsonl":
        run.state_file.unlink()
    reads: dict[str, Callable[[], object]] = {
        "config.yaml": run.load, "evaluation.json": lambda: record.read(run),
        "model.safetensors": run.load, "images.safetensors": run.seen, "log.jsonl": run.read_log,
        "state.safetensors": lambda: api.train(data=spots, out=run.path, resume=True, epochs=3),
    }  # fmt: skip
    began = time.process_time()
    with pytest.raises((RunError, ConfigError), match=rf"{name}: (is longer|is damaged)"):
        reads[name]()
    assert time.process_time() - began < 20


def test_a_header_without_end_is_refused(run: Run) -> None:
    run.model_file.write_bytes((2**40).to_bytes(8, "little") + b"{")
    os.truncate(run.model_file, 2**41)
    with pytest.raises(RunError, match=r"model\.safetensors: is damaged .*header has no end"):
        run.load()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_8_bits_are_refused_by_name(dtype: torch.dtype, run: Run) -> None:
    tensors, meta = files.load_tensors(run.model_file)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    files.save_tensors(run.model_file, {**tensors, name: tensors[name].to(dtype)}, meta)
    with pytest.raises(RunError, match=rf"{name} is torch.float8.*16 bits"):
        run.load()


@pytest.mark.parametrize("dims", [20_000, 65_536])
def test_a_full_covariance_is_counted_before_it_is_built(dims: int, run: Run) -> None:
    run.load()  # what is imported at first takes long
    tensors, meta = files.load_tensors(run.model_file)
    meta["config"]["model"] |= {"posterior": "full", "latent_dim": dims}
    files.save_tensors(run.model_file, tensors, meta)
    files.write_yaml(run.config_file, meta["config"])
    began = time.process_time()
    with pytest.raises(RunError, match="asks for a far larger model than it holds"):
        run.load()
    assert time.process_time() - began < 5


def test_messages_about_many_layers_stay_short() -> None:
    for network in ({"widths": [4] * 50_000}, {"hidden": [4] * 50_000}, {"widths": ["x"] * 900}):
        with pytest.raises(ConfigError) as caught:
            parse_config({"model": {"encoder": network}})
        assert len(str(caught.value)) < 3000


def test_a_difference_between_long_settings_is_said_in_short(run: Run, spots: Splits) -> None:
    with pytest.raises(RunError, match=r"encoder\.widths is \[4, 4") as caught:
        api.train(data=spots, out=run.path, resume=True, encoder={"widths": [4] * 900})
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("name", ["meta", "hpu", "privateuseone", "None", "cuda:99", None, 5])
def test_a_device_is_one_that_is_here(name: Any, run: Run) -> None:
    with pytest.raises(ConfigError, match=rf"device: '{name}' is not usable here.*auto.* or cpu"):
        vaelab.load(run.path, device=name)
    assert vaelab.load(run.path, device=torch.device("cpu")).device.type == "cpu"


CALLS: dict[str, Callable[[Vae, Any], object]] = {
    "load": lambda model, value: vaelab.load(value),
    "out": lambda model, value: vaelab.train("vae", blobs(20), out=value, epochs=1),
    "start": lambda model, value: vaelab.train("vae", blobs(20), start=value, epochs=1),
    "explorer": lambda model, value: vaelab.write_explorer(value),
    "config": lambda model, value: vaelab.train("vae", blobs(20), config=value),
    "n": lambda model, value: model.sample(value),
    "samples": lambda model, value: model.log_prob(blobs(2), samples=value),
    "seed": lambda model, value: model.log_prob(blobs(2), seed=value),
    "temperature": lambda model, value: model.sample(2, temperature=value),
    "guidance": lambda model, value: model.sample(2, guidance=value),
    "images": lambda model, value: model.encode(value),
    "codes": lambda model, value: model.generate(value),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_another_type_are_errors_in_words(name: str, run: Run) -> None:
    model = vaelab.load(run.path)
    for value in (b"x", object(), 1.5j, *(() if name == "start" else (None,))):
        if name in ("out", "config") and value is None:
            continue
        with pytest.raises((ConfigError, DataError), match=r"got|is no array"):
            CALLS[name](model, value)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 1.0])
def test_a_seed_is_one_of_a_generator(seed: Any, run: Run, spots: Splits) -> None:
    from vaelab.evaluation.evaluate import evaluate
    from vaelab.explore.augment import Making
    from vaelab.explore.pictures import samples

    model = vaelab.load(run.path)
    calls: list[Callable[[], object]] = [
        lambda: model.elbo(blobs(2), seed=seed),
        lambda: samples(model, 2, seed=seed),
        lambda: evaluate(model, spots.test, seed=seed),
        lambda: vaelab.rank(model, spots.test, spots, seed=seed),
        lambda: vaelab.load_data(blobs(20), split_seed=seed),
        lambda: Making(seed=seed),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=rf"seed: must be .*got {seed}"):
            call()


def test_the_largest_seed_is_one(run: Run) -> None:
    model = vaelab.load(run.path)
    one, two = (model.log_prob(blobs(2), samples=2, seed=s) for s in (2**63 - 1, 0))
    assert not torch.equal(one, two)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_is_said_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"a\.json: cannot be written \(No space left.*Free some"):
        files.write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match=r"r/.*: cannot be written \(No space left"):
        vaelab.train("vae", blobs(20), out=tmp_path / "r", **{**SMALL, "epochs": 1})


@pytest.mark.parametrize("name", ["/proc/kmsg", "/proc/cpuinfo"])
def test_files_of_the_system_are_no_settings(name: str) -> None:
    if not Path(name).exists() or not os.access(name, os.R_OK):
        pytest.skip("no such file here")
    with pytest.raises(ConfigError, match=f"{name}: is a file of the system"):
        read_yaml(Path(name))
    with pytest.raises(DataError, match=f"{name}: is a file of the system"):
        vaelab.load_data(name)


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch()
    assert read_yaml(tmp_path / "a.yaml") == {}


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.gif", b"GIF89a"),
        ("b.gif", b"GIF89a\x08\0\x08\0\0\0\0"),
        ("c.png", b"\x89PNG\r\n\x1a\n"),
        ("d.jpg", b"\xff\xd8\xff"),
        ("e.webp", b"RIFF\xff\xff\xff\x7fWEBPVP8 "),
        ("f.tif", b"II*\0\x08\0\0\0"),
        ("g.pgm", b"P2\n"),
        ("h.bmp", b"BM\0\0\0\0\0\0\0\0"),
        ("i.jp2", b"\0\0\0\x0cjP  \r\n\x87\n"),
        ("j.avif", b"\0\0\0\x1cftypavif"),
    ],
)
def test_a_beginning_and_nothing_but_zeros_is_no_image(
    name: str, head: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(head)
    os.truncate(tmp_path / name, 200 * 2**30)  # sparse: it has no such bytes
    began = time.process_time()
    with pytest.raises(DataError, match=r"unreadable|no images"):
        vaelab.load_data(tmp_path)
    assert time.process_time() - began < 30
