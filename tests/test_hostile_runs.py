"""Runs, studies and sets from elsewhere: nothing leaves their folder, and nothing is half there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SMALL, blobs
from vaelab import api, files
from vaelab.config import read_yaml
from vaelab.data.images import Splits
from vaelab.data.inflight import Allotment
from vaelab.data.load import load_data
from vaelab.errors import ConfigError, DataError, RunError
from vaelab.explore.augment import Made
from vaelab.explore.labelled import write_labelled
from vaelab.report.page import write_report
from vaelab.studies.plan import make_plan
from vaelab.studies.study import Study
from vaelab.studies.watch import run_study
from vaelab.training.run import Run

QUICK: dict[str, Any] = {**SMALL, "epochs": 2, "log_every": 1}


@pytest.fixture(scope="module")
def trained(spots: Splits, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("runs") / "run")
    api.train(data=spots, out=run.path, **QUICK)
    return run


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    shutil.copytree(trained.path, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.mark.parametrize(
    "name",
    [".lock", "log.jsonl", "config.yaml", "model.safetensors", "state.safetensors"],
)
def test_no_file_of_a_run_is_followed_out_of_it(
    name: str, run: Run, spots: Splits, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    if (run.path / name).exists():
        (run.path / name).rename(outside)
    outside.write_bytes(before := outside.read_bytes() if outside.exists() else b"precious")
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).symlink_to(outside)

    def use() -> None:
        if name.startswith("model"):  # which a training only replaces
            api.load(run.path)
        else:
            api.train(data=spots, out=run.path, resume=True, epochs=3)

    with pytest.raises(RunError, match=rf"{name}: is .*link to .*outside"):
        use()
    assert outside.read_bytes() == before


def test_pictures_are_not_written_through_a_link(run: Run, spots: Splits, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    run.figures.symlink_to(tmp_path / "outside")
    with pytest.raises(RunError, match=r"figures: is .*link to .*outside"):
        write_report(run, spots)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_run_that_is_a_link_as_a_whole_goes_on(run: Run, spots: Splits, tmp_path: Path) -> None:
    (tmp_path / "disk").symlink_to(run.path)
    api.train(data=spots, out=tmp_path / "disk", resume=True, epochs=3)
    assert len(run.read_log("epoch")) == 3


def tampered(how: str, log: bytes, other: bytes) -> bytes | None:
    lines = log.splitlines(keepends=True)
    return {
        "cut at a line": b"".join(lines[:-1]),
        "cut in a line": log[: len(log) // 2],
        "a line less": b"".join([*lines[:2], *lines[3:]]),
        "missing": None,
        "another run's, longer": other,
        "another run's, as long": other[: len(log)],
    }[how]


@pytest.mark.parametrize(
    "how",
    ["cut at a line", "cut in a line", "a line less", "missing", "another run's, longer",
     "another run's, as long"],
)  # fmt: skip
def test_a_log_that_is_not_the_runs_own_is_noticed_and_left_alone(
    how: str, run: Run, spots: Splits, tmp_path: Path
) -> None:
    api.train(data=spots, out=tmp_path / "other", **{**QUICK, "epochs": 5})
    other = Run(tmp_path / "other").log_file.read_bytes()
    changed = tampered(how, run.log_file.read_bytes(), other)
    if changed is None:
        run.log_file.unlink()
    else:
        run.log_file.write_bytes(changed)
    with pytest.raises(
        RunError, match=r"log\.jsonl: is (missing|damaged).* Restore it from a copy"
    ):
        write_report(run, spots)
    with pytest.raises(RunError, match=r"log\.jsonl: is (missing|damaged)"):
        api.train(data=spots, out=run.path, resume=True, epochs=4)
    assert changed is None or run.log_file.read_bytes() == changed
    run.state_file.unlink()  # the remedy that the message gives
    if how != "cut in a line" and changed is not None and "as long" not in how:
        write_report(run, spots)


def test_what_came_after_the_checkpoint_is_cut_at_its_line(run: Run, spots: Splits) -> None:
    whole = run.log_file.read_bytes()
    run.append_log("note", {"text": "written after the last checkpoint"})
    files.append(run.log_file, '{"half')
    api.train(data=spots, out=run.path, resume=True, epochs=3)
    log = run.log_file.read_bytes()
    assert log.startswith(whole)
    assert not run.read_log("note") or b"after the last" not in log
    assert len(run.read_log("epoch")) == 3


def test_a_run_without_a_mark_of_its_log_goes_on(run: Run, spots: Splits) -> None:
    tensors, meta = files.load_tensors(run.state_file)
    del meta["position"]["log_crc"]  # as older versions wrote it
    files.save_tensors(run.state_file, tensors, meta)
    api.train(data=spots, out=run.path, resume=True, epochs=3)
    assert len(run.read_log("epoch")) == 3


def test_weights_that_are_not_finite_are_refused_by_name(run: Run, spots: Splits) -> None:
    tensors, meta = files.load_tensors(run.model_file)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[0] = torch.nan
    files.save_tensors(run.model_file, tensors, meta)
    with pytest.raises(RunError, match=rf"1 of [\d,]+ weights of {name} are not finite"):
        api.load(run.path)
    state, about = files.load_tensors(run.state_file)
    state[f"model/{name}"] = tensors[name]
    files.save_tensors(run.state_file, state, about)
    with pytest.raises(RunError, match="are not finite"):
        api.train(data=spots, out=run.path, resume=True, epochs=3)


def test_a_configuration_cannot_ask_for_more_than_its_weights(run: Run) -> None:
    tensors, meta = files.load_tensors(run.model_file)
    for hidden in ([10**9], [10**6, 10**6], [30_000] * 9):
        meta["config"]["model"]["encoder"]["hidden"] = hidden
        files.save_tensors(run.model_file, tensors, meta)
        files.write_yaml(run.config_file, meta["config"])
        with pytest.raises(RunError, match="asks for a far larger model than it holds"):
            run.load()
    meta["shape"] = ["1", -2, 10**12]
    files.save_tensors(run.model_file, tensors, meta)
    with pytest.raises(RunError, match=r"model\.safetensors: is damaged \(shape"):
        run.load()


DECLARED = {
    "title": "T",
    "base": {"training": {"epochs": 1, "batch_size": 96}, "model": {"encoder": {"widths": [4]}}},
    "cases": [{"name": "a"}, {"name": "CON"}, {"name": "x" * 900}],
    "seeds": 1,
    "measure": {"also": [], "limit": 20},
}


@pytest.mark.parametrize("key", ["../../escaped", "/tmp/x", "..", "a/b", "", "a\0b", "nul", "A"])
def test_a_key_of_a_study_is_the_name_of_a_folder(key: str, tmp_path: Path) -> None:
    study = Study(tmp_path / "study")
    study.begin(make_plan(DECLARED, "here"))
    assert [case.key[:6] for case in study.read_plan().cases] == ["a", "case-c", "xxxxxx"]
    values = read_yaml(study.plan_file)
    values["cases"][0]["key"] = key
    files.write_yaml(study.plan_file, values)
    with pytest.raises(RunError, match="is no key of a case"):
        study.read_plan()


def test_the_runs_of_a_study_stay_in_it(tmp_path: Path) -> None:
    study = Study(tmp_path / "study")
    study.begin(make_plan(DECLARED, "here"))
    (tmp_path / "outside").mkdir()
    (study.path / "runs").symlink_to(tmp_path / "outside")
    with pytest.raises(RunError, match=r"runs.* outside .*study"):
        study.jobs(study.read_plan())


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"seeds": 300_000_000}, "seeds"),
        ({"seeds": 1_000, "grid": {"training.epochs": list(range(1, 200))}}, "100,000 runs"),
        (
            {"grid": {f"options.o{n}": list(range(100)) for n in range(6)}},
            "3,000,000,000,000 cases",
        ),
    ],
)
def test_a_study_too_large_is_refused_before_it_is_written_out(
    values: dict[str, Any], why: str
) -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=why):
        make_plan({**DECLARED, **values}, "here")
    assert time.monotonic() - began < 30


def test_workers_run_nothing_of_the_folder_they_are_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", blobs(40, 8, 8))
    for name in ("yaml", "torch", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('RAN', 'w').close(); raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    study = Study("study")
    base = {**DECLARED["base"], "data": {"spec": "x.npy"}}  # type: ignore[dict-item]
    study.begin(make_plan({**DECLARED, "base": base, "cases": [{"name": "a"}]}, "here"))
    run_study(study, 1, 1, lambda state: None)
    assert not Path("RAN").exists()
    assert all(job.measured for job in study.jobs(study.read_plan()))


def made(count: int) -> tuple[Made, Splits]:
    splits = load_data((blobs(40, 8, 8), np.arange(40) % 2))
    images = torch.from_numpy(blobs(count, 8, 8))
    nearest = torch.zeros(count, dtype=torch.int64)
    return Made(images, torch.arange(count) % 2, None, torch.ones(count), nearest, count), splits


def test_half_a_generated_set_is_never_there(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.test_hostile_runs import made, write_labelled\n"
        "import vaelab.explore.labelled as labelled\n"
        "def die(*a): os.kill(os.getpid(), signal.SIGKILL)\n"
        "labelled.save_png = die\n"
        "some, splits = made(20)\n"
        "write_labelled(Path(sys.argv[1]), some, splits.train, {})"
    )
    place = tmp_path / "made"
    for there in (False, True):
        if there:
            shutil.rmtree(place)
            place.mkdir()
        done = subprocess.run([sys.executable, "-c", code, str(place)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert list(tmp_path.rglob("00000.png"))  # what was written lies hidden
        with pytest.raises(DataError):
            load_data(place)
        some, splits = made(20)
        images = write_labelled(place, some, splits.train, {"run": "r"})
        names = ["images", "manifest.yaml", "neighbours.png"]
        assert sorted(path.name for path in place.iterdir()) == names
        assert [path.name for path in tmp_path.iterdir()] == ["made"]
        assert len(list(images.rglob("*.png"))) == 20


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize("part", ["images-idx3", "labels-idx1"])
def test_idx_files_are_files_of_their_folder(kind: str, part: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rows = blobs(40, 8, 8)[:, 0]
    head = b"\0\0\x08"
    sides = b"".join(side.to_bytes(4, "big") for side in rows.shape)
    (folder / "train-images-idx3-ubyte").write_bytes(head + b"\3" + sides + rows.tobytes())
    (folder / "train-labels-idx1-ubyte").write_bytes(
        head + b"\1" + (40).to_bytes(4, "big") + bytes(n % 2 for n in range(40))
    )
    assert len(load_data(folder).train) == 32
    path = folder / f"train-{part}-ubyte"
    path.rename(tmp_path / "elsewhere")
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
    with pytest.raises(DataError, match=r"outside|is a pipe"):
        load_data(folder)


def test_images_without_pixels_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    for count in (3_000_000_000, 2**62):
        text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, 0, 6), }}"
        head = text.ljust(117).encode() + b"\n"
        (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head)
        with pytest.raises(DataError, match="an image has no pixels"):
            load_data(tmp_path / "x.npy")


def test_a_folder_of_folders_has_a_bottom(tmp_path: Path) -> None:
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    with pytest.raises(DataError, match="deeper than 64 folders"):
        load_data(tmp_path)
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


def test_large_images_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Lock

    allotment, lock, state = Allotment(100), Lock(), {"now": 0, "most": 0}

    def decode(pixels: int) -> None:
        with allotment.share(pixels):
            with lock:
                state["now"] += pixels
                state["most"] = max(state["most"], state["now"])
            time.sleep(0.002)
            with lock:
                state["now"] -= pixels

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(decode, [30] * 40))
    assert 60 <= state["most"] <= 100
    decode(1_000)  # alone, whatever its size
    assert state["most"] == 1_000
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert load_data(tmp_path).train.shape == (1, 8, 8)


def test_a_damaged_cache_is_noticed_and_written_anew(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (50, 5, 7), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)

    def pixels() -> torch.Tensor:
        splits = load_data(tmp_path / "x.npy", memory_budget=1, cache_dir=tmp_path / "c")
        return torch.cat([part.take(torch.arange(len(part))) for part in
                          (splits.train, splits.validation, splits.test)])  # fmt: skip

    want = pixels()
    (cache,) = (tmp_path / "c").glob("*.pixels")
    whole = cache.read_bytes()
    for at in [0, 34, 35, 800, 50 * 35 - 1, 50 * 35 + 3, len(whole) - 30, len(whole) - 5]:
        broken = bytearray(whole)
        broken[at] ^= 16
        cache.write_bytes(broken)
        assert torch.equal(pixels(), want)
        assert cache.read_bytes()[: 50 * 35] == whole[: 50 * 35]
    status = os.stat(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", 255 - images)
    os.utime(tmp_path / "x.npy", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert torch.equal(pixels(), 255 - want)


def test_a_temporary_cache_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    from vaelab.data.filed import PixelFile, sums_of

    images = np.arange(60, dtype=np.uint8).reshape(4, 1, 3, 5)
    assert len(set(sums_of(images).tolist())) == 4
    (tmp_path / "p").write_bytes(images.tobytes()[:-1] + b"x")
    file = PixelFile(tmp_path / "p", (4, 1, 3, 5), sums_of(images))
    assert torch.equal(file.read(np.array([2, 0])), torch.from_numpy(images[[2, 0]]))
    with pytest.raises(DataError, match="was damaged"):
        file.read(np.array([3]))
