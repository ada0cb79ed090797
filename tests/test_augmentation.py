"""Augmentation studies: the arms, what each may see, the statistics, and a whole study."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.test_cli import vaelab
from vaelab.config import merge
from vaelab.data.images import ImageSet, Splits
from vaelab.data.load import load_data
from vaelab.errors import ConfigError
from vaelab.evaluation.figures import Figure
from vaelab.evaluation.record import Evaluation
from vaelab.explore.augment import make_images
from vaelab.recipes import resolve
from vaelab.report.arm_plots import arm_plots
from vaelab.report.augmentation import augmentation_sections, augmentation_tables
from vaelab.report.study import _statistics
from vaelab.studies import gains
from vaelab.studies.arms import ARMS, WITHOUT_LABELS
from vaelab.studies.mixture import labelled_part, mixed, tiled
from vaelab.studies.plan import Plan, make_plan, read_study, with_lead
from vaelab.studies.results import Result, Results, read_results
from vaelab.studies.statistics import Estimate
from vaelab.studies.study import Study
from vaelab.studies.work import work
from vaelab.training.fit import train_config
from vaelab.training.progress import Silent
from vaelab.training.run import Run

TINY: dict[str, Any] = {
    "recipe": "cvae",
    "model": {"latent_dim": 2, "encoder": {"kind": "mlp", "hidden": [16]}},
    "training": {"epochs": 2, "batch_size": 16, "lr": 0.005},
}


def crosses(n: int = 240) -> tuple[Any, Any]:
    """Noise with a bright row (class 0), column (1) or both (2)."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 60, (n, 8, 8)).astype(np.uint8)
    labels = np.arange(n) % 3
    for image, label, place in zip(images, labels, generator.integers(2, 6, n), strict=True):
        if label != 1:
            image[place] = 255
        if label != 0:
            image[:, place] = 255
    return images, labels


def declared(path: Path | str = "x.npz", **more: Any) -> dict[str, Any]:
    pools = {**TINY, "recipe": "vae"}
    return {
        "title": "Arms",
        "base": {
            "recipe": "classifier",
            "data": {"spec": str(path)},
            "training": {"epochs": 1, "batch_size": 16, "device": "cpu"},
        },
        "augmentation": {
            "fractions": [0.1, 1],
            "images": 64,
            "classical": {"shift": 1},
            "generators": {
                "cvae": {"train": TINY, "images": 64},
                "pools": {"train": pools, "images": 64, "make": {"sampler": "pool"}},
            },
            **more,
        },
        "lead": "accuracy",
        "seeds": 2,
    }


def test_arms_times_fractions_times_generators() -> None:
    plan = make_plan(declared(), "here")
    assert len(plan.cases) == 2 * (2 + 5 * 2)
    assert len({case.key for case in plan.cases}) == len(plan.cases)
    by_name = {case.name: case for case in plan.cases}
    both = by_name["real + classical + pools, 10 %"]
    assert both.config.options["shift"] == 1
    assert both.mix is not None
    assert both.mix.share == 0.5
    assert both.mix.train["recipe"] == "vae"
    semi = by_name["real + cvae of all images, 10 %"].mix
    assert semi is not None
    assert semi.make.sampler == "pool"  # few labels among many images: the prior would ignore them
    only = by_name["cvae only, 100 %"].mix
    assert only is not None
    assert only.share == 1
    assert only.make.sampler == "prior"
    fractions = {case.key: case.mix.fraction for case in plan.cases if case.mix}
    assert all(fractions[one] == fractions[other] for one, other in plan.pairs)
    assert len(plan.pairs) == 2 * (11 + 10)
    some = declared()
    some["augmentation"]["generators"]["cvae"]["arms"] = ["semi"]
    names = [case.name for case in make_plan(some, "here").cases if "cvae" in case.name]
    assert names == ["real + cvae of all images, 10 %", "real + cvae of all images, 100 %"]
    less = make_plan(declared(), "here", fractions=[0.5], generators=["pools"])
    assert [case.name for case in less.cases][:3] == [
        "real, 50 %",
        "real + classical, 50 %",
        "real + pools, 50 %",
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"use": ["gan"]}, "no generator is called 'gan'"),
        ({"arms": ["classical"]}, "needs `real`"),
        ({"fractions": [0]}, "fractions"),
        ({"generators": {"c": {"train": {"recipe": "classifier"}, "images": 9}}}, "no images"),
        ({"generators": {"c": {"train": {"recipe": "cvae", "optons": {}}, "images": 9}}}, "optons"),
        ({"generators": {"c": {"share": 0.2}}}, "c: needs train and images"),
        (
            {"generators": {"c": {"train": {**TINY, "data": {"split_seed": 1}}, "images": 9}}},
            "test images could come to it",
        ),
        ({"generators": {"c": {"like": "d"}}}, "c: like: d is no generator"),
        ({"generators": {"c": {"train": TINY, "images": 9, "like": "c"}}}, "is trained like c"),
    ],
)
def test_what_cannot_be_an_arm_is_named(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(declared(**more), "here")
    with pytest.raises(ConfigError, match="has no augmentation"):
        make_plan({"title": "t", "cases": [{"name": "a"}]}, "here", fractions=[0.1])
    values = declared()
    values["base"]["recipe"] = "vae"
    with pytest.raises(ConfigError, match="is no classifier"):
        make_plan(values, "here")


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"patience": 2}, "different numbers of steps"), ({"labelled": 20}, "augmentation.fractions")],
)
def test_settings_that_make_arms_unlike_are_refused(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(declared(), "here", base={"training": setting})


def test_arms_are_compared_in_accuracy() -> None:
    values = declared()
    del values["lead"]
    assert make_plan(values, "here").lead == "accuracy"
    with pytest.raises(ConfigError, match="is about accuracy or balanced_accuracy"):
        make_plan({**values, "lead": "elbo"}, "here")
    with pytest.raises(ConfigError, match="is about accuracy or balanced_accuracy"):
        make_plan(values, "here", lead="elbo")


def test_uneven_classes_are_told_and_may_be_counted_alike(tmp_path: Path) -> None:
    values = declared(arms=["real", "classical"], fractions=[0.1])
    shares = {"real, 10 %": [0.80, 0.70], "real + classical, 10 %": [0.85, 0.751]}
    found = told(make_plan(values, "here"), shares, tmp_path)
    assert "uneven" not in " ".join(gains.sentences(found))
    rows = [[50, 0, 0], [0, 0, 0], [1, 23, 0]]  # a class without test images counts for nothing
    runs = []
    for run in found.runs:
        assert run.evaluation is not None
        figures = {**run.evaluation.figures, "balanced_accuracy": Figure(0.6, None, 100, "", "")}
        evaluation = replace(run.evaluation, figures=figures, confusion=rows)
        runs.append(replace(run, evaluation=evaluation))
    uneven = replace(found, runs=tuple(runs))
    assert gains.sentences(uneven)[0].startswith("The classes are uneven")
    alike = replace(uneven, plan=with_lead(found.plan, "balanced_accuracy", "here"))
    (line,) = gains.sentences(alike)
    assert "30 labels of 3 classes, real" in line  # not so many a class
    assert "real images alone reach 60" in line
    assert "% balanced accuracy." in line


def test_another_figure_leads_without_another_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, source, out = tmp_path / "crosses.npz", tmp_path / "arms.yaml", tmp_path / "study"
    images, labels = crosses()
    np.savez(data, images=images, labels=labels)
    source.write_text(yaml.safe_dump(declared(data, arms=["real", "classical"], fractions=[0.1])))
    assert vaelab(capsys, "study", str(source), "-o", str(out))[0] == 0
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    code, text, err = vaelab(capsys, "study", str(out), "--lead", "balanced_accuracy", "--json")
    assert code == 0, err
    assert "% balanced accuracy." in " ".join(json.loads(text)["verdict"])
    assert "Balanced accuracy against labels" in (out / "report.html").read_text()
    assert files == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    code, _, err = vaelab(capsys, "study", str(out), "--lead", "elbo")
    assert code == 1
    assert "is about accuracy or balanced_accuracy" in err


def test_an_arm_that_was_interrupted_on_other_images_starts_anew(tmp_path: Path) -> None:
    data, study = tmp_path / "crosses.npz", Study(tmp_path / "study")
    images, labels = crosses()
    np.savez(data, images=images, labels=labels)
    plan = make_plan(declared(data, arms=["real"], fractions=[0.1]), "here", seeds=1)
    study.begin(plan)
    (job,) = study.jobs(plan)
    others = load_data((255 - images, labels))
    train_config(plan.config(job.case, 0), others, job.run, Silent())
    job.run.model_file.unlink()  # interrupted
    work(study)
    (run,) = read_results(study).runs
    assert run.failure is None
    assert run.evaluation is not None


def test_images_without_classes_are_refused_before_any_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, source, out = tmp_path / "bare.npz", tmp_path / "arms.yaml", tmp_path / "study"
    np.savez(data, images=crosses(30)[0])
    source.write_text(yaml.safe_dump(declared(data)))
    arguments = ["study", str(source), "--generators", "cvae, pools", "-o", str(out)]
    code, _, err = vaelab(capsys, *arguments)
    assert code == 1
    assert err.count("two classes or more") == 1
    assert not (out / "study.yaml").exists()


def test_labels_beyond_the_fraction_are_unknown_and_alike_in_all_arms() -> None:
    splits = load_data(crosses())
    few = labelled_part(splits.train, 0.1, seed=3)
    assert few.labels is not None
    known = few.labels >= 0
    assert int(known.sum()) == round(0.1 * len(splits.train))
    assert splits.train.labels is not None
    assert torch.equal(few.labels[known], splits.train.labels[known])
    again = labelled_part(splits.train, 0.1, seed=3)
    assert torch.equal(again.labels, few.labels)  # type: ignore[arg-type]
    other = labelled_part(splits.train, 0.1, seed=4)
    assert not torch.equal(other.labels, few.labels)  # type: ignore[arg-type]
    assert torch.bincount(few.labels[known]).max() - torch.bincount(few.labels[known]).min() <= 1


def test_attributes_of_unlabelled_images_are_unknown_but_what_is_measured() -> None:
    splits = load_data(crosses())
    columns = torch.rand(len(splits.train), 2)
    images = replace(splits.train, attributes=columns, attribute_names=("glasses", "thickness"))
    few = labelled_part(images, 0.1, seed=3)
    assert few.labels is not None
    assert few.attributes is not None
    assert torch.equal(few.attributes[:, 0].isnan(), few.labels < 0)
    assert torch.equal(few.attributes[few.labels >= 0], columns[few.labels >= 0])
    assert torch.equal(few.attributes[:, 1], columns[:, 1])


def test_a_share_that_is_too_few_labels_is_raised_and_it_is_said(tmp_path: Path) -> None:
    splits = load_data(crosses())
    plan = make_plan(declared(arms=["real"], fractions=[0.001, 0.1]), "here")
    notes = []
    for case in plan.cases:
        assert case.mix is not None
        notes.append(mixed(case.mix, splits, 0, tmp_path, lambda _: splits).notes)
    assert notes == [
        ("0.1 % of 192 labels would be 0: 6 were used, the fewest that a study takes.",),
        (),
    ]


def test_a_few_images_are_repeated_evenly() -> None:
    images = ImageSet(torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1), torch.arange(5))
    many = tiled(images, 13, seed=0)
    assert many.labels is not None
    assert sorted(torch.bincount(many.labels).tolist()) == [2, 2, 3, 3, 3]
    assert torch.equal(many.images[:, 0, 0, 0].long(), many.labels)  # type: ignore[index]


def spied(
    plan: Plan, splits: Splits, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Splits, list[Splits]]:
    """Return the training set of an arm, and what its generator was trained on."""
    seen: list[Splits] = []

    def train(config: Any, own: Splits, run: Run, progress: Any) -> None:
        from vaelab.training.fit import train_config

        seen.append(own)
        train_config(config, own, run, progress)

    monkeypatch.setattr("vaelab.studies.mixture.train_config", train)
    case = next(case for case in plan.cases if case.name == name)
    assert case.mix is not None
    return mixed(case.mix, splits, 0, tmp_path / name, lambda _: splits).splits, seen


def rows(images: ImageSet) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.take(torch.arange(len(images)))}


def test_no_arm_but_the_leaky_one_sees_more_labels_than_its_fraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits, plan = load_data(crosses()), make_plan(declared(), "here")
    few = labelled_part(splits.train, 0.1, 0)
    assert few.labels is not None
    known = rows(few.subset((few.labels >= 0).nonzero().squeeze(1)))
    beyond = rows(splits.train) - known
    held_out = rows(splits.validation) | rows(splits.test)
    for name, sees_all, all_labels, with_real in (
        ("real + cvae, 10 %", False, False, True),
        ("cvae only, 10 %", False, False, False),
        ("real + cvae of all images, 10 %", True, False, True),
        ("real + pools of all images, 10 %", True, False, True),
        ("real + cvae of all labels (leaky), 10 %", True, True, True),
    ):
        train, (own,) = spied(plan, splits, name, tmp_path, monkeypatch)
        assert len(train.train) == 64
        assert not rows(train.train) & (beyond | held_out)
        assert bool(rows(train.train) & known) == with_real
        assert train.test is splits.test
        assert rows(own.train) & beyond == (beyond if sees_all else set())
        assert not rows(own.train) & held_out
        assert not rows(own.validation) & held_out
        for images in (own.train, own.validation):
            assert images.labels is not None
            told = images.subset((images.labels >= 0).nonzero().squeeze(1))
            assert bool(rows(told) & beyond) == all_labels
        assert own.train.labels is not None
        told = own.train.subset((own.train.labels >= 0).nonzero().squeeze(1))
        labelled = known | beyond if all_labels else known
        assert rows(told) == (set() if name.startswith("real + pools") else labelled)


@pytest.mark.parametrize("name", ["cvae", "csvae", "vae-gan", "vae-pools", "m1+m2"])
def test_every_shipped_generator_makes_images_for_each_arm(name: str, tmp_path: Path) -> None:
    values, _ = read_study("augmentation")
    generator = values["augmentation"]["generators"][name]
    train = merge(generator["train"], {"training": {"epochs": 1, "batch_size": 16}})
    small = {"encoder": {"hidden": [8], **({"widths": [4]} if name == "vae-gan" else {})}}
    train = merge(train, {"model": {"latent_dim": 2, **small}})
    tiny = {**generator, "train": train, "images": 32}
    plan = make_plan(declared(generators={name: tiny}, fractions=[0.1], images=12), "here")
    splits = load_data(crosses())
    sized = load_data(crosses(), attributes=["thickness", "slant"], cache_dir=tmp_path / "cache")
    for case in plan.cases:
        assert case.mix is not None
        if case.mix.arm in ("semi", "leaky", "only"):
            made = mixed(
                case.mix, splits, 0, tmp_path, lambda data: sized if data.attributes else splits
            )
            assert made.splits.train.images.shape == (12, 1, 8, 8)
            assert made.splits.train.labels is not None
            assert len(made.splits.train.labels.unique()) == 3
            assert made.figures["nearness"].value > 0


def test_a_model_of_few_labels_makes_images_by_the_classes_that_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pools of a class are of labelled images, and of all others that it reads as of the class."""
    splits = load_data(crosses())
    train = {**TINY, "recipe": "m1+m2", "options": {"second": 2, "hidden": 8}}
    plan = make_plan(declared(generators={"m": {"train": train, "images": 64}}), "here")
    case = next(c for c in plan.cases if c.name == "real + m of all images, 10 %")
    pools: list[ImageSet] = []
    original = make_images

    def spy(model: Any, known: ImageSet, *rest: Any, **more: Any) -> Any:
        pools.append(known)
        assert known.labels is not None
        unknown = labelled_part(splits.train, 0.1, 0).labels
        assert unknown is not None
        rows = (unknown < 0).nonzero().squeeze(1)
        said = model.labels(known.take(rows))["label"]
        assert torch.equal(known.labels[rows], said)
        assert torch.equal(known.labels[unknown >= 0], unknown[unknown >= 0])
        return original(model, known, *rest, **more)

    monkeypatch.setattr("vaelab.studies.mixture.make_images", spy)
    assert case.mix is not None
    mixed(case.mix, splits, 0, tmp_path, lambda _: splits)
    assert len(pools[0]) == len(splits.train)


def test_a_generator_of_everything_serves_all_shares_of_labels(tmp_path: Path) -> None:
    splits = load_data(crosses())
    plan = make_plan(declared(arms=["real", "leaky"], use=["cvae"]), "here")
    for case in plan.cases:
        assert case.mix is not None
        found = mixed(case.mix, splits, 0, tmp_path, lambda _: splits)
        expected = 19 if case.mix.fraction == 0.1 else len(splits.train)
        assert found.labels == expected
    assert len(list((tmp_path / "generators").iterdir())) == 1


def test_other_uses_of_a_generator_share_its_training_and_have_their_own_settings(
    tmp_path: Path,
) -> None:
    splits = load_data(crosses())
    generators = {
        "cvae": {"train": TINY, "images": 64},
        "fifth": {"like": "cvae", "share": 0.2},
        "cool": {"like": "cvae", "make": {"temperature": 0.0}},
    }
    plan = make_plan(
        declared(generators=generators, arms=["real", "generated", "only"], fractions=[0.1]), "here"
    )
    made, counts = {}, {}
    for case in plan.cases[1:]:
        assert case.mix is not None
        found = mixed(case.mix, splits, 0, tmp_path, lambda _: splits)
        made[case.name] = found.splits.train
        counts[case.name] = case.mix.share
    assert counts["real + fifth, 10 %"] == 0.2
    assert counts["real + cool, 10 %"] == 0.5
    assert "fifth only, 10 %" not in counts  # all made, which is "cvae only"
    (folder,) = (tmp_path / "generators").iterdir()  # one training for all
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures == {f"{name}-labelled-0.1.png" for name in generators}

    def variety(name: str) -> float:
        images = made[name]
        assert images.labels is not None
        return float(images.take((images.labels == 0).nonzero().squeeze(1)).float().std(0).mean())

    assert variety("cool only, 10 %") < 0.05  # the mean of the prior, again and again
    assert variety("cvae only, 10 %") > 1


@pytest.mark.parametrize(
    ("recipe", "fractions", "trained"),
    [("cvae", [0.1], 2), ("cvae", [1], 1), ("vae", [0.1, 0.2, 1], 1)],
)
def test_a_generator_that_sees_the_same_is_trained_once(
    recipe: str, fractions: list[float], trained: int, tmp_path: Path
) -> None:
    splits = load_data(crosses())
    make = {"sampler": "pool"}
    generators = {"g": {"train": {**TINY, "recipe": recipe}, "images": 64, "make": make}}
    arms = ["real", "semi", "leaky"]
    plan = make_plan(declared(arms=arms, generators=generators, fractions=fractions), "here")
    for case in plan.cases:
        assert case.mix is not None
        mixed(case.mix, splits, 0, tmp_path, lambda _: splits)
    assert len(list((tmp_path / "generators").iterdir())) == trained


@pytest.mark.parametrize("recipe", WITHOUT_LABELS)
def test_what_is_said_to_look_at_no_label_does_not(recipe: str) -> None:
    splits = load_data(crosses())
    config = resolve({**TINY, "recipe": recipe, "data": {"spec": "x"}}, "here")
    one = train_config(config, splits, None, Silent()).state_dict()
    assert splits.train.labels is not None
    blind = replace(
        splits, train=replace(splits.train, labels=torch.full_like(splits.train.labels, -1))
    )
    other = train_config(config, blind, None, Silent()).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_study_runs_goes_on_and_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path / "cache"))
    data, out = tmp_path / "crosses.npz", tmp_path / "study"
    images, labels = crosses()
    np.savez(data, images=images, labels=labels)
    study = Study(out)
    plan = make_plan(declared(data), "here", generators=["cvae"], fractions=[0.1])
    study.begin(plan)
    work(study)
    results = read_results(study)
    assert all(run.evaluation is not None for run in results.runs), [
        r.failure for r in results.runs
    ]
    steps = {run.job.run.read_log("epoch")[-1]["step"] for run in results.runs}
    assert steps == {4}  # the same in every arm
    trained = sorted(path.name for path in (out / "generators").iterdir())
    assert len(trained) == 3 * 2  # labelled, images and everything, for each seed: shared by arms
    (level,) = gains.levels(results)
    assert level.labels == 19
    assert level.classes == 3
    mean = np.mean(list(results.values(results.plan.cases[0], "accuracy").values()))
    assert level.accuracy["real-10"].value == pytest.approx(100 * mean)
    assert any("nearness" in run.evaluation.figures for run in results.runs if run.evaluation)
    code, text, err = vaelab(capsys, "study", str(out), "--json")
    assert code == 0, err
    said = json.loads(text)
    assert "19 labels (6.33 a class), real images alone reach" in " ".join(said["verdict"])
    page = (out / "report.html").read_text()
    assert "leaky" in page
    assert "nearest" in page
    (out / "runs" / "real-10" / "seed-0" / "measured.json").unlink()
    weights = (out / "generators" / trained[0] / "model.safetensors").stat().st_mtime_ns
    work(study)
    again = read_results(study)
    assert again.values(again.plan.cases[0], "accuracy") == results.values(
        results.plan.cases[0], "accuracy"
    )
    assert (out / "generators" / trained[0] / "model.safetensors").stat().st_mtime_ns == weights
    np.savez(data, images=255 - images, labels=labels)
    code, _, err = vaelab(capsys, "study", str(out))
    assert code == 1
    assert "has changed since" in err


def test_gains_are_told_as_they_are() -> None:
    assert gains._gain(Estimate(1.94, 0.62, 3)) == "raise it by 1.9 ± 0.6"
    assert gains._gain(Estimate(-1.94, 0.62, 3)) == "lower it by 1.9 ± 0.6"
    assert "nothing that is decided (0.3 ± 0.6)" in gains._gain(Estimate(0.3, 0.6, 3))
    assert gains._gain(Estimate(-0.3, None, 1)) == "−0.3"


@pytest.mark.parametrize(
    ("labels", "words"),
    [(19, "19 labels (6.33 a class)"), (11_000, "11,000 labels (3,667 a class)")],
)
def test_numbers_of_labels_are_written_out(labels: int, words: str, tmp_path: Path) -> None:
    plan = make_plan(declared(use=["cvae"], fractions=[0.1]), "here")
    accuracies = {case.name: [0.8, 0.8] for case in plan.cases}
    found = told(plan, accuracies, tmp_path, labels)
    assert words in " ".join(gains.sentences(found))


def told(plan: Plan, accuracies: dict[str, list[float]], path: Path, labels: int = 30) -> Results:
    """Return results of the given accuracies, by the name of the case."""
    runs = []
    for job in Study(path).jobs(plan):
        shares = accuracies[job.case.name]
        figures = {
            "accuracy": Figure(shares[job.seed], None, 100, "share of images", ""),
            "labels": Figure(labels, None, labels, "images", ""),
        }
        evaluation = Evaluation(figures, {}, (), 100, True, 0, confusion=[[0] * 3] * 3)
        runs.append(Result(job, evaluation, None, 1.0, 1, ()))
    return Results(plan, tuple(runs))


def test_the_headline_counts_only_honest_arms_that_are_decided(tmp_path: Path) -> None:
    plan = make_plan(
        declared(arms=["real", "classical", "generated", "leaky"], use=["cvae"], fractions=[0.1]),
        "here",
    )
    real, classical = [0.80, 0.70], [0.85, 0.751]
    generated, leaky = "real + cvae, 10 %", "real + cvae of all labels (leaky), 10 %"
    base = {"real, 10 %": real, "real + classical, 10 %": classical}
    found = told(plan, {**base, generated: [0.86, 0.74], leaky: [0.99, 0.89]}, tmp_path)
    assert gains.headline(found) == (
        "At 30 labels (10 a class) generated images do not beat classical augmentation by more "
        "than chance could."
    )
    said = " ".join(gains.sentences(found))
    assert "At 30 labels (10 a class), real images alone reach 80 ± 60 %." in said  # two seeds
    assert "classical augmentation raises it by 5 ±" in said
    assert "leaky" in said
    found = told(plan, {**base, generated: [0.95, 0.851], leaky: [0.99, 0.89]}, tmp_path)
    line = gains.headline(found)
    assert line.startswith("Generated images beat classical augmentation at 30 labels")
    assert "by 10" in line
    assert line.endswith("points (real + cvae).")
    one = make_plan(declared(fractions=[0.1], use=["cvae"]), "here", seeds=1)
    same = told(one, {case.name: [0.5] for case in one.cases}, tmp_path)
    assert gains.headline(same).startswith("Nothing is decided yet")
    assert "One seed is not enough" in gains.sentences(same)[0]


def test_no_more_is_said_than_is_there(tmp_path: Path) -> None:
    """Studies with nothing to compare, with seeds that tell nothing, and half done."""
    bare = make_plan(declared(arms=["real", "leaky"], use=["cvae"], fractions=[0.1]), "here")
    found = told(bare, {case.name: [0.5, 0.6] for case in bare.cases}, tmp_path)
    assert gains.headline(found).startswith("No arm of this study has generated images")
    assert "In points" not in gains.sentences(found)[0]
    plan = make_plan(declared(use=["cvae"]), "here")
    same = told(plan, {case.name: [0.5, 0.5] for case in plan.cases}, tmp_path)
    for text in (gains.headline(same), gains.sentences(same)[0]):
        assert "differ too little" in text
        assert "One seed" not in text
    shares = {case.name: [0.80, 0.70 + 0.001 * i] for i, case in enumerate(plan.cases)}
    done = told(plan, shares, tmp_path)
    assert gains.headline(done).endswith("by more than chance could.")
    undone = [run.job.case.mix is not None and run.job.case.mix.fraction == 1 for run in done.runs]
    runs = [
        replace(run, evaluation=None) if late else run
        for run, late in zip(done.runs, undone, strict=True)
    ]
    line = gains.headline(Results(plan, tuple(runs)))
    assert line.startswith("At no number of labels")
    assert line.endswith("by more than chance could so far.")
    one = make_plan(declared(fractions=[0.1], use=["cvae"]), "here", seeds=1)
    assert _statistics(told(one, {c.name: [0.5] for c in one.cases}, tmp_path))[:7] == "1 seed."


def test_a_leaky_arm_is_not_the_best_by_a_tie(tmp_path: Path) -> None:
    """A plain VAE of all images is the same with few labels and with all."""
    plan = make_plan(declared(use=["pools"], fractions=[1]), "here")
    best = ("real + pools of all images", "real + pools of all labels (leaky)")
    shares = {case.name: [0.7, 0.6] for case in plan.cases}
    shares |= {f"{name}, 100 %": [0.9, 0.8] for name in best}
    rows = augmentation_tables(told(plan, shares, tmp_path))[0].rows
    assert [name for name, _, cells in rows if cells[0].best] == [best[0]]


def test_a_study_without_generators_has_no_empty_section(tmp_path: Path) -> None:
    plan = make_plan(declared(arms=["real", "classical"], fractions=[0.1]), "here")
    found = told(plan, {case.name: [0.5, 0.6] for case in plan.cases}, tmp_path)
    titles = [part.title for part in augmentation_sections(found, Study(tmp_path))]
    assert titles == ["Accuracy against labels"]


def test_of_several_generators_each_is_told_by_itself(tmp_path: Path) -> None:
    plan = make_plan(declared(fractions=[0.1]), "here")
    base = {"real": (80, 70), "real + classical": (85, 75.2)}
    accuracies = {}
    for case in plan.cases:
        assert case.mix is not None
        flat = {"cvae only": (70, 60.1), "real + classical + pools": (90, 80.1)}
        pair = {**base, **flat}.get(case.mix.name, (80.1, 70))
        accuracies[case.name] = [value / 100 for value in pair]
    found = told(plan, accuracies, tmp_path)
    first, *others = gains.sentences(found)
    assert first.startswith("At 30 labels (10 a class), real images alone reach 80 ± 60 %")
    assert "Classical augmentation: +5 ± 4 points" in first  # 5.1 of two pairs
    assert "The best arm with generated images is real + classical + pools: +4.9 ±" in first
    assert len(others) == 2
    assert others[0].startswith("cvae images")
    assert "in place of the real images: −10.0 ±" in others[0]
    assert "beside classical augmentation, over that alone: +4.9 ±" in others[1]
    assert "at 30" in others[1]
    tables = {table.title: table for table in augmentation_tables(found)}
    rows = {name: cells[0] for name, _, cells in tables["Accuracy"].rows}
    assert rows["real + classical + pools"].best
    assert not rows["real"].best
    over = {name: cells for name, _, cells in tables["Gain over classical augmentation"].rows}
    assert float(over["real + classical + pools"][0].sort) == pytest.approx(4.95)
    assert over["real + classical + pools"][0].best
    assert not over["cvae only"][0].best  # decided, but a loss
    assert "real" not in over
    plots = arm_plots(gains.levels(found), list(ARMS), ["cvae", "pools"], "accuracy")
    assert len(plots) == 2
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', plots[0][0])]
    accuracy = [75, 80.1, 75.05, 75.05, 65.05, 75.05, 75.05]
    errors = [math.log(100 - value) for value in accuracy]
    line = np.polyfit(errors, heights, 1)
    assert np.allclose(np.polyval(line, errors), heights, atol=0.1)  # errors on a log scale


def test_shares_that_come_to_the_same_labels_are_one(tmp_path: Path) -> None:
    plan = make_plan(declared(fractions=[0.001, 0.01], use=["cvae"]), "here")
    found = told(plan, {case.name: [0.5, 0.6] for case in plan.cases}, tmp_path, labels=6)
    assert [level.fraction for level in gains.levels(found)] == [0.001]
    assert all(len(cells) == 1 for _, _, cells in augmentation_tables(found)[0].rows)


def test_names_that_would_share_a_folder_are_refused() -> None:
    generators = {name: {"train": TINY, "images": 9} for name in ("a+b", "a-b")}
    with pytest.raises(ConfigError, match="would share a folder"):
        make_plan(declared(generators=generators), "here")
