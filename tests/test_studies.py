"""Studies: what is declared, what is run, what survives a kill, and what is claimed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import blobs
from vaelab.cli.main import run
from vaelab.errors import ConfigError, RunError
from vaelab.evaluation.figures import Figure
from vaelab.evaluation.record import Evaluation
from vaelab.studies import verdict
from vaelab.studies.plan import make_plan, read_study, shipped
from vaelab.studies.results import Result, Results, as_csv, read_results
from vaelab.studies.statistics import Common, common_variance, estimates, paired
from vaelab.studies.study import Study
from vaelab.studies.watch import THREADS
from vaelab.studies.work import work


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


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"cases": []}, "has no cases"),
        ({"case": []}, "did you mean cases"),
        ({"baseline": "none"}, "no case is called 'none'"),
        ({"compare": [["wide", "x"]]}, "no case is called 'x'"),
        ({"cases": [{"name": "a"}, {"name": "a"}]}, "two cases are called 'a'"),
        ({"cases": [{"name": "a", "like": "b"}]}, "no case before it"),
        ({"cases": [{"name": "a", "set": {"model": {"latent": 2}}}]}, "here: a: model.latent"),
        ({"base": {"recipe": "classifier"}}, "is no VAE"),
    ],
)
def test_what_cannot_be_is_named(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(declared(**more), "here")
    with pytest.raises(ConfigError, match="no preset is called 'x'"):
        make_plan(declared(), "here", preset="x")


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("preset", ["quick", "full"])
def test_shipped_studies_can_be(name: str, preset: str) -> None:
    values, where = read_study(name)
    plan = make_plan(values, where, preset=preset)
    assert len(plan.cases) > 1
    assert len(plan.seeds) >= 2
    configs = [case.config.model_dump_json() for case in plan.cases]
    assert len(set(configs)) == len(configs), "two cases are the same"


# What is claimed


def test_the_common_variance_is_found_again() -> None:
    generator = np.random.default_rng(0)
    freedom, groups = 4, 4000
    true = 2.5 * 8 / generator.chisquare(8, groups)  # d₀ = 8, s₀² = 2.5
    found = true * generator.chisquare(freedom, groups) / freedom
    common = common_variance([(float(s), freedom) for s in found])
    assert common.freedom == pytest.approx(8, rel=0.15)
    assert common.variance == pytest.approx(2.5, rel=0.05)
    variance, total = common.moderated(9.0, freedom)
    assert total == common.freedom + freedom
    expected = (common.freedom * common.variance + 4 * 9) / total
    assert variance == pytest.approx(expected)


def test_equal_variances_are_pooled_and_no_more_is_known_than_they_tell() -> None:
    common = common_variance([(1.0, 2), (1.0, 2), (1.0, 2)])
    assert common.variance == pytest.approx(1)
    assert common.freedom == 6
    assert common_variance([(3.0, 2)]) == Common(0.0, 0.0)  # nothing but itself
    assert common_variance([]) == Common(0.0, 0.0)


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_intervals_hold_as_often_as_they_say(seeds: int, spread: float) -> None:
    generator = np.random.default_rng(1)
    held = total = 0
    for _ in range(400):
        deviations = np.exp(spread * generator.standard_normal(8))
        draws = deviations[:, None] * generator.standard_normal((8, seeds))
        for estimate in estimates({str(k): row for k, row in enumerate(draws)}).values():
            assert estimate.interval is not None
            held += abs(estimate.value) <= estimate.interval
            total += 1
    # deviations that differ by factors of e, known from two seeds each, are the hardest case
    assert held / total == pytest.approx(0.95, abs=0.05 if (seeds, spread) == (2, 1.0) else 0.03)


def test_intervals_at_once_hold_together() -> None:
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(600):
        draws = generator.standard_normal((8, 3))
        found = estimates({str(k): row for k, row in enumerate(draws)}, at_once=8)
        held += all(not estimate.decided for estimate in found.values())
    assert held / 600 == pytest.approx(0.95, abs=0.03)


def test_one_seed_decides_nothing() -> None:
    found = estimates({"a": [1.0], "b": [2.0]})
    assert found["a"].interval is None
    assert not found["a"].decided


def test_pairs_are_of_the_same_seed() -> None:
    assert paired({0: 5.0, 1: 7.0, 2: 1.0}, {1: 4.0, 0: 1.0, 3: 9.0}) == [4.0, 3.0]


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


def test_failures_are_told() -> None:
    found = results({"a": [1.0, 2.0], "b": [1.0]})
    assert verdict.failures(found) == ["b, seed 1 failed: exploded"]


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


def test_a_failed_run_is_told_and_the_others_go_on(images: Path, tmp_path: Path) -> None:
    broken = {"name": "broken", "set": {"training": {"lr": 1e30, "nonfinite_limit": 1}}}
    study = begun(tmp_path / "s", images, cases=[broken, {"name": "sound"}], seeds=1)
    said: list[str] = []
    work(study, said.append)
    one, other = read_results(study).runs
    assert one.failure is not None
    assert "not finite" in one.failure
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


@pytest.mark.slow
def test_killed_at_random_moments_a_study_gives_the_same_figures(
    images: Path, finished: Study, tmp_path: Path
) -> None:
    study = begun(tmp_path / "s", images)
    command = [sys.executable, "-m", "vaelab.studies", str(study)]
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}  # as here: sums in the same order
    chance = random.Random(0)
    for _ in range(10):
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
            time.sleep(chance.uniform(1.5, 4.5))
            process.send_signal(signal.SIGKILL)
    work(study)
    assert figures(study) == figures(finished)


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
