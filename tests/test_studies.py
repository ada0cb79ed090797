"""Studies: what is declared, what is run, what survives a kill, and what is claimed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import blobs
from vaelab.cli.main import run
from vaelab.cli.study import _progress
from vaelab.config import merge
from vaelab.data.load import load_data
from vaelab.defaults import with_defaults
from vaelab.errors import ConfigError, RunError
from vaelab.evaluation.evaluate import evaluate
from vaelab.evaluation.figures import Figure, sense
from vaelab.evaluation.record import Evaluation, write
from vaelab.recipes import resolve
from vaelab.studies import verdict
from vaelab.studies.plan import make_plan, read_study, shipped
from vaelab.studies.results import Result, Results, as_csv, read_results
from vaelab.studies.study import Study
from vaelab.studies.watch import THREADS, State
from vaelab.studies.work import prepare, work
from vaelab.training.fit import train_config
from vaelab.training.progress import Silent
from vaelab.training.run import flat


def declared(**more: Any) -> dict[str, Any]:
    """A study of two tiny networks."""
    return {
        "title": "Widths",
        "base": {
            "model": {"encoder": {"widths": [4], "hidden": [8]}},
            "training": {"epochs": 2, "batch_size": 16, "device": "cpu", "precision": "fp32"},
        },
        "cases": [
            {"name": "narrow"},
            {"name": "wide", "set": {"model": {"encoder": {"widths": [8]}}}},
        ],
        "seeds": 2,
        "measure": {"also": ["neighbours"], "samples": 20},
        **more,
    }


# What is declared


def test_cases_are_the_base_with_their_own_settings() -> None:
    more = {
        "cases": [
            {"name": "A b"},
            {"name": "slow", "set": {"training": {"lr": 0.1, "epochs": 5}}},
            {"name": "slower", "like": "slow", "set": {"training": {"lr": 0.01}}},
        ],
        "baseline": "slow",
        "compare": [["slower", "A b"]],
    }
    plan = make_plan(declared(**more), "here", seeds=4, base={"data": {"spec": "x"}})
    assert [case.name for case in plan.cases] == ["slow", "A b", "slower"]
    assert [case.key for case in plan.cases] == ["slow", "a-b", "slower"]
    assert plan.pairs == (("slower", "a-b"),)
    assert plan.seeds == (0, 1, 2, 3)
    slower = plan.cases[2].config
    assert (slower.training.lr, slower.training.epochs, slower.data.spec) == (0.01, 5, "x")
    assert plan.config(plan.cases[0], 3).training.seed == 3


def test_a_grid_is_every_combination() -> None:
    grid = {"options.beta": [1, 4], "training.lr": [0.1, 0.01]}
    plan = make_plan(declared(cases=[], grid=grid), "here")
    assert [case.name for case in plan.cases] == [
        "beta 1, lr 0.1", "beta 1, lr 0.01", "beta 4, lr 0.1", "beta 4, lr 0.01",
    ]  # fmt: skip
    assert plan.cases[3].config.options["beta"] == 4
    both = make_plan(declared(grid={"training.lr": [0.1]}), "here")
    assert [case.name for case in both.cases] == ["narrow, lr 0.1", "wide, lr 0.1"]


def test_presets_change_cases_by_name() -> None:
    presets = {"quick": {"seeds": 1, "cases": {"wide": {"training": {"epochs": 7}}}}}
    plan = make_plan(declared(presets=presets), "here", preset="quick")
    assert [case.config.training.epochs for case in plan.cases] == [2, 7]
    assert plan.cases[1].config.model.encoder.widths == [8]
    assert len(plan.seeds) == 1


def test_cases_multiply_what_they_start_from() -> None:
    cases = [
        {"name": "a", "set": {"training": {"lr": 0.2}}},
        {"name": "b", "like": "a", "scale": {"training.lr": 0.5, "model.encoder.widths": 2}},
        {"name": "c", "like": "b", "scale": {"training.lr": 3, "training.epochs": 0.1}},
    ]
    found = [case.config for case in make_plan(declared(cases=cases), "here").cases]
    assert [config.training.lr for config in found] == pytest.approx([0.2, 0.1, 0.6])
    assert [config.model.encoder.widths for config in found] == [[4], [8], [8]]
    assert found[1].model.decoder.widths == [8]
    assert [config.training.epochs for config in found] == [2, 2, 1]
    grid = {"training.epochs": [10, 20]}
    crossed = make_plan(declared(cases=cases, grid=grid), "here").cases
    assert [case.config.training.epochs for case in crossed] == [10, 20, 10, 20, 1, 2]


def test_cases_vary_what_the_images_choose(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=blobs(600, 16, 16, 3))
    base = {"data": {"spec": str(tmp_path / "x.npz")}, "training": {"seed": 0}}
    values, where = read_study("defaults")
    plan = make_plan(values, where, preset="quick", base={"data": base["data"]})
    images = load_data(tmp_path / "x.npz").train
    alone = with_defaults(resolve({"preset": "small", "data": base["data"]}), images)
    by_key = {case.key: case.config for case in plan.cases}
    first = by_key["chosen"].model_copy(update={"versions": {}})
    assert first == alone
    assert "gaussian" not in by_key  # for it is what was chosen
    assert len(by_key) == len(values["cases"]) - 1
    for key, config in by_key.items():
        if key != "chosen":
            changed = {k for k, v in flat(config).items() if v != flat(by_key["chosen"])[k]}
            assert changed == CHANGED[key], key
    half = by_key["half-the-batch"].training
    assert (half.batch_size, half.epochs) == (16, 50)  # 1,500 steps
    assert by_key["twice-the-width"].model.decoder.widths == [32, 64]
    assert by_key["twice-the-learning-rate"].training.lr == pytest.approx(3e-2)
    few = make_plan(values, where, base=merge(base, {"training": {"epochs": 8}})).cases
    epochs = {case.key: case.config.training.epochs for case in few}
    assert (epochs["chosen"], epochs["half-the-batch"], epochs["twice-the-batch"]) == (8, 4, 16)


CHANGED = {
    "adamw": {"training.optimizer", "training.lr"},
    "laplace": {"model.likelihood"},
    "bernoulli": {"model.likelihood"},
    "linear-output": {"model.output"},
    "half-the-latents": {"model.latent_dim"},
    "twice-the-latents": {"model.latent_dim"},
    "half-the-width": {"model.encoder.widths", "model.decoder.widths"},
    "twice-the-width": {"model.encoder.widths", "model.decoder.widths"},
    "half-the-batch": {"training.batch_size", "training.epochs"},
    "twice-the-batch": {"training.batch_size", "training.epochs"},
    "not-standardized": {"model.standardize"},
    "group-normalization": {"model.encoder.normalization", "model.decoder.normalization"},
    "half-the-learning-rate": {"training.lr"},
    "twice-the-learning-rate": {"training.lr"},
}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"cases": []}, "has no cases"),
        ({"base": {"preset": "small"}}, "preset: chooses settings by the images"),
        ({"base": {"recipe": "m2"}, "by_images": True}, "nothing is chosen by the images for the"),
        ({"cases": [{"name": "a", "scale": {"training.l": 2}}]}, "here: a: scale: training.l: the"),
        ({"cases": [{"name": "a", "scale": {"model.prior": 2}}]}, "is 'normal', no number to mult"),
        ({"cases": [{"name": "a", "scale": {"training.lr": 0}}]}, "cases.0.scale.training.lr"),
        ({"case": []}, "did you mean cases"),
        ({"baseline": "none"}, "no case is called 'none'"),
        ({"compare": [["wide", "x"]]}, "no case is called 'x'"),
        ({"cases": [{"name": "a"}, {"name": "a"}]}, "two cases are called 'a'"),
        ({"cases": [{"name": "a", "like": "b"}]}, "no case before it"),
        ({"cases": [{"name": "a", "set": {"model": {"latent": 2}}}]}, "here: a: model.latent"),
        ({"base": {"recipe": "classifier"}}, "is no VAE"),
        ({"lead": "elboo"}, "'elboo' does not tell better from worse"),
        ({"lead": "rate"}, "'rate' does not tell better from worse"),
        ({"compare": [["wide", "wide"]]}, "'wide' cannot be compared with itself"),
        ({"cases": [{"name": ""}]}, "name"),
        ({"presets": [1]}, "presets"),
        ({"cases": ["a", "b"]}, "cases"),
    ],
)
def test_what_cannot_be_is_named(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(declared(**more), "here")
    with pytest.raises(ConfigError, match="no preset is called 'x'"):
        make_plan(declared(), "here", preset="x")


@pytest.mark.parametrize("preset", [3, None, {"cases": ["wide"]}])
def test_a_preset_of_another_shape_is_named(preset: Any) -> None:
    with pytest.raises(ConfigError, match="preset"):
        make_plan(declared(presets={"quick": preset}), "here", preset="quick")


def test_a_start_that_fails_leaves_no_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "widths.yaml", tmp_path / "s"
    source.write_text(yaml.safe_dump(declared()))
    with pytest.raises(SystemExit):
        run(["study", str(source), "--out", str(out), "--data", str(tmp_path / "nowhere")])
    assert "nowhere" in capsys.readouterr().err
    assert not Study(out).plan_file.exists()
    with pytest.raises(SystemExit):
        run(["study", str(source), "--out", str(out), "-s", "training.seed=7"])
    assert "--seeds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "preset"),
    [(name, key) for name in shipped() for key in read_study(name)[0]["presets"]],
)
def test_shipped_studies_can_be(name: str, preset: str) -> None:
    values, where = read_study(name)
    assert {"quick", "full"} <= values["presets"].keys()
    plan = make_plan(values, where, preset=preset)
    assert len(plan.cases) > 1
    assert len(plan.seeds) >= 2
    configs = [f"{case.config.model_dump_json()} {case.mix}" for case in plan.cases]
    assert len(set(configs)) == len(configs), "two cases are the same"


# What is claimed


def results(values: Mapping[str, Sequence[float]], lead: str = "elbo") -> Results:
    """Results of a study whose runs gave these values."""
    cases = [{"name": name} for name in values]
    seeds = max(map(len, values.values()))
    plan = make_plan(declared(cases=cases, lead=lead), "here", seeds=seeds)
    runs = []
    for job in Study("nowhere").jobs(plan):
        case = values[job.case.name]
        evaluation = None
        if job.seed < len(case):
            figure = Figure(case[job.seed], 0.5, 100, "nats per image", "by hand")
            evaluation = Evaluation({lead: figure}, {}, (), 100, True, 0)
        failure = None if evaluation else "exploded"
        runs.append(Result(job, evaluation, failure, 1.0, 10, ()))
    return Results(plan, tuple(runs))


def test_sentences_say_what_is_decided() -> None:
    found = results(
        {
            "plain": [-100.0, -100.2, -99.8],
            "good": [-90.1, -90.0, -90.2],
            "bad": [-120.0, -120.3, -120.1],
            "same": [-100.3, -99.9, -100.0],
        }
    )
    assert verdict.headline(found).startswith("Good is best: ELBO −90.1")
    good, bad, same = verdict.comparisons(found)
    assert good.startswith("Good beats plain by 9.9")
    assert bad.startswith("Bad costs 20.1")
    assert same.startswith("Same against plain: not decided (difference −0.1 ± ")
    less = results({"plain": [5.0, 5.1], "low": [2.0, 2.1]}, lead="mse")
    assert verdict.headline(less).startswith("Low is best")
    assert verdict.comparisons(less)[0].startswith("Low beats plain by 3")


def test_a_tie_for_the_first_place_is_called_one() -> None:
    found = results({"a": [1.0, 2.0, 3.0], "b": [1.1, 2.2, 2.9], "c": [-50.0, -51.0, -52.0]})
    assert "do not decide between it and" in verdict.headline(found)
    assert "c" not in verdict.headline(found).rpartition("between it and")[2]
    alone = results({"a": [1.0], "b": [2.0]})
    assert "one seed is not enough" in verdict.comparisons(alone)[0]


def test_a_study_that_is_half_done_has_no_winner() -> None:
    found = results({"a": [1.0, 1.1], "b": [9.0, 9.1]})
    unfinished = replace(found.runs[1], evaluation=None)  # b, seed 0
    half = Results(found.plan, (found.runs[0], unfinished, *found.runs[2:]))
    other = replace(found.runs[2], evaluation=None)  # a, seed 1: no seed in common
    apart = Results(found.plan, (found.runs[0], unfinished, other, found.runs[3]))
    assert "do not decide" in verdict.headline(apart)
    assert "do not decide" in verdict.headline(half)
    none = Results(found.plan, tuple(replace(run, evaluation=None) for run in found.runs))
    assert verdict.headline(none) == "No run of this study is measured yet."


@pytest.mark.parametrize("name", shipped())
def test_shipped_studies_know_what_is_better(name: str) -> None:
    values, where = read_study(name)
    lead = make_plan(values, where).lead
    assert sense(lead) == (-1 if name in ("bound", "autoencoder", "guides", "defaults") else 1)


def test_runs_that_end_together_are_counted_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = tuple(Study(tmp_path).jobs(make_plan(declared(), "here"))[:2])
    with _progress() as tell:
        tell(State(6, 0, 9, (), 1.0, None, jobs))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"5 of 9 runs: {jobs[0]}: done", f"6 of 9 runs: {jobs[1]}: done"]


def test_failures_are_told() -> None:
    found = results({"a": [1.0, 2.0], "b": [1.0]})
    assert verdict.failures(found) == ["b, seed 1 failed: exploded"]
    found = results({"a": [1.0, 2.0], "b": [1.0], "c": []})
    assert verdict.failures(found) == ["c, seed 0; b, seed 1; c, seed 1 failed: exploded"]


# What is run


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "spots.npz"
    pictures = blobs(160)
    np.savez(path, images=pictures, labels=np.arange(len(pictures)) % 2)
    return path


def begun(path: Path, images: Path, **more: Any) -> Study:
    study = Study(path)
    plan = make_plan(declared(**more), "here", base={"data": {"spec": str(images)}})
    study.begin(plan)
    return study


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = begun(tmp_path_factory.mktemp("study") / "s", images)
    work(study)
    return study


def test_every_run_is_trained_and_measured(finished: Study) -> None:
    found = read_results(finished)
    assert [run.failure for run in found.runs] == [None] * 4
    assert {"elbo", "log_prob", "neighbour_accuracy"} <= set(found.figures())
    assert len({run.evaluation.figures["elbo"].value for run in found.runs if run.evaluation}) == 4
    assert found.runs[1].parameters > found.runs[0].parameters > 0
    assert len(found.runs[0].curve) == 2
    rows = as_csv(found).splitlines()
    assert rows[0].startswith("case,seed,figure,value")
    assert len(rows) == 1 + 4 * len(found.figures())


def test_finished_runs_are_not_trained_again(finished: Study) -> None:
    weights = sorted(finished.path.rglob("*.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    work(finished)
    assert [path.stat().st_mtime_ns for path in weights] == before


def test_a_folder_holds_one_study(finished: Study, images: Path) -> None:
    spec = {"data": {"spec": str(images)}}
    for more, message in (
        ({"cases": [{"name": "other"}]}, "holds another study"),
        ({"cases": [{"name": "narrow"}, {"name": "wide"}]}, "other settings"),
        ({"measure": {"also": []}}, "measured in another way"),
        ({"seeds": 1}, "2 seeds already"),
    ):
        with pytest.raises(RunError, match=message):
            finished.begin(make_plan(declared(**more), "here", base=spec))
    finished.begin(make_plan(declared(), "here", base=spec))


def test_a_plan_that_was_changed_is_refused(images: Path, tmp_path: Path) -> None:
    study = begun(tmp_path / "s", images)
    study.plan_file.write_text(study.plan_file.read_text().replace("epochs: 2", "epochs: 3"))
    with pytest.raises(RunError, match="was changed"):
        study.read_plan()


@pytest.mark.parametrize(
    ("training", "fault"),
    [({"lr": 1e9, "nonfinite_limit": 1}, "not finite"), ({"lr": 5.0}, "has diverged")],
)
def test_a_failed_run_is_told_and_the_others_go_on(
    images: Path, tmp_path: Path, training: dict[str, Any], fault: str
) -> None:
    broken = {"name": "broken", "set": {"training": training}}
    study = begun(tmp_path / "s", images, cases=[broken, {"name": "sound"}], seeds=1)
    said: list[str] = []
    work(study, said.append)
    one, other = read_results(study).runs
    assert one.failure is not None
    assert fault in one.failure
    assert other.evaluation is not None
    assert said[0].startswith("broken, seed 0: ")
    work(study, said.append)
    assert len(said) == 1  # a failure is not tried again by itself
    study.jobs(study.read_plan())[0].retry()
    work(study, said.append)
    assert len(said) == 2


def figures(study: Study) -> str:
    """Return all figures of a study but what they cost."""
    rows = [row.rpartition(",")[0] for row in as_csv(read_results(study)).splitlines()]
    return "\n".join(rows)


def started(study: Study) -> subprocess.Popen[bytes]:
    """Start a worker."""
    command = [sys.executable, "-m", "vaelab.studies", str(study)]
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}  # as here: sums in the same order
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)


def logged(study: Study) -> int:
    """Return how many bytes all logs of a study have."""
    return sum(path.stat().st_size for path in study.path.rglob("log.jsonl"))


@pytest.mark.slow
def test_killed_at_random_moments_a_study_gives_the_same_figures(
    images: Path, tmp_path: Path
) -> None:
    base = {"training": {**declared()["base"]["training"], "epochs": 60, "checkpoint_seconds": 0}}
    study = begun(tmp_path / "s", images, base=base)
    whole = begun(tmp_path / "whole", images, base=base)
    work(whole)
    jobs = study.jobs(study.read_plan())
    chance = random.Random(0)
    hits = 0
    for _ in range(10):
        before = logged(study)
        with started(study) as process:
            deadline = time.monotonic() + 60
            while logged(study) == before and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.25))
            process.send_signal(signal.SIGKILL)
        hits += any(not job.settled for job in jobs)
    assert hits >= 5  # it was under way when it was killed
    work(study)
    assert figures(study) == figures(whole)


@pytest.mark.slow
def test_a_worker_takes_over_from_one_that_is_killed(
    images: Path, finished: Study, tmp_path: Path
) -> None:
    study = begun(tmp_path / "s", images)
    with started(study) as one, started(study) as other:
        while len(list(study.path.rglob("log.jsonl"))) < 2 and one.poll() is None:
            time.sleep(0.01)
        one.send_signal(signal.SIGKILL)
        assert other.wait(120) == 0
    assert figures(study) == figures(finished)


def test_a_look_at_a_run_does_not_settle_it(images: Path, tmp_path: Path) -> None:
    study = begun(tmp_path / "s", images, seeds=1)
    job = study.jobs(study.read_plan())[0]
    epochs = {"training": {**job.case.config.training.model_dump(), "epochs": 1}}
    short = resolve(merge(job.case.config.model_dump(), epochs))
    splits = load_data(images)
    train_config(short, splits, job.run, Silent())  # as a run that was stopped behind an epoch
    write(job.run, evaluate(job.run.load_model(), splits.test, samples=5))
    assert not job.measured
    work(study)
    assert job.measured
    assert len(job.run.read_log("epoch")) == 2
    kept = read_results(study).runs[0].evaluation
    write(job.run, evaluate(job.run.load_model(), splits.test, samples=5, limit=3))
    assert read_results(study).runs[0].evaluation == kept


def test_measures_that_cannot_be_are_left_out_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "plain.npy"
    np.save(path, blobs(100))
    more = {"measure": {"also": ["generation", "neighbours", "paths"], "samples": 5}, "seeds": 1}
    study = begun(tmp_path / "s", path, **more)
    plan = study.read_plan()
    prepare(study, plan)
    work(study)
    (one, _) = read_results(study).runs
    assert one.failure is None
    assert one.evaluation is not None
    assert "elbo" in one.evaluation.figures
    assert any("generation: left out" in note for note in one.evaluation.notes)
    said = verdict.failures(read_results(study))
    assert len([text for text in said if text.startswith("generation: left out")]) == 1
    holes = begun(tmp_path / "h", path, **more, lead="holes")
    with pytest.raises(ConfigError, match="has none"):
        prepare(holes, holes.read_plan())


def test_runs_of_other_images_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, blobs(100))
    study = begun(tmp_path / "s", path, seeds=1)
    plan = study.read_plan()
    prepare(study, plan)
    work(study)
    prepare(study, plan)
    np.save(path, 255 - blobs(100))
    with pytest.raises(RunError, match=r"images.*has changed since .* another --out"):
        prepare(study, plan)


def test_a_damaged_run_is_named_and_trained_anew(images: Path, tmp_path: Path) -> None:
    study = begun(tmp_path / "s", images, seeds=1)
    work(study)
    whole = figures(study)
    job = study.jobs(study.read_plan())[0]
    job.run.model_file.write_bytes(job.run.model_file.read_bytes()[:-9])
    with pytest.raises(RunError, match=f"trained anew by the study, delete {job.run}"):
        read_results(study)
    shutil.rmtree(job.run.path)
    work(study)
    assert figures(study) == whole


def test_a_run_without_the_leading_figure_is_told(images: Path, tmp_path: Path) -> None:
    cases = [{"name": "sound"}, {"name": "point", "set": {"recipe": "ae"}}]
    study = begun(tmp_path / "s", images, cases=cases, seeds=1)
    work(study)
    assert verdict.failures(read_results(study)) == [
        "point, seed 0 has no ELBO and counts in no comparison of it."
    ]


def test_a_place_for_the_figures_is_asked_for_first(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "widths.yaml"
    source.write_text(yaml.safe_dump(declared()))
    with pytest.raises(SystemExit) as ended:
        run(["study", str(source), "--out", str(tmp_path / "s"), "--csv", str(tmp_path / "no/x")])
    assert ended.value.code == 1
    assert "there is no folder" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_workers_share_a_study(images: Path, finished: Study, tmp_path: Path) -> None:
    source = tmp_path / "widths.yaml"
    source.write_text(yaml.safe_dump(declared()))
    out = tmp_path / "s"
    with pytest.raises(SystemExit) as ended:
        run(["study", str(source), "--data", str(images), "--out", str(out), "--jobs", "2"])
    assert ended.value.code in (0, None)
    assert figures(Study(out)) == figures(finished)
    page = (out / "report.html").read_text()
    assert "Widths" in page
    assert page.count("<article>") == 2
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert (out / "figures.csv").exists()


def test_a_worker_ends_with_its_parent(images: Path, tmp_path: Path) -> None:
    study = begun(tmp_path / "s", images, base={"training": {"epochs": 5000}})
    command = [sys.executable, "-m", "vaelab.studies", str(study)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    log = study.jobs(study.read_plan())[0].run.log_file
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()  # as the system does when the parent is killed
    assert process.wait(20) == 1
