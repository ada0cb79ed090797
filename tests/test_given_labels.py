"""Likelihoods of conditional models are called what they are, and unfinished runs too."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.test_cli import vaelab
from tests.test_names import QUICK, parts
from vaelab import files
from vaelab.api import train
from vaelab.evaluation.bounds import bound_figures
from vaelab.evaluation.evaluate import evaluate
from vaelab.evaluation.figures import long_name, short_name
from vaelab.evaluation.record import verdict
from vaelab.report.study import as_markdown
from vaelab.studies.plan import make_plan
from vaelab.studies.results import Results, apart, as_csv, read_results
from vaelab.studies.results import _read as read_job
from vaelab.studies.study import Study
from vaelab.studies.verdict import failures
from vaelab.studies.work import prepare, work
from vaelab.training.run import Run


def test_the_elbo_of_a_conditional_model_is_of_x_given_its_labels() -> None:
    settings = QUICK | {"epochs": 2, "standardize": False, "sigma": 0.1}
    model = train("cvae", parts(), **settings)
    result = evaluate(model, parts().test, samples=2, bound_images=4)
    elbo, bound = result.figures["elbo"], result.figures["log_prob"]
    assert elbo.given == bound.given == ("label", "low", "tall")
    assert long_name("elbo", elbo) == "ELBO of x given its labels"
    assert long_name("log_prob", bound).startswith("log p(x | labels given)")
    assert elbo.protocol.startswith("Of p(x|y), y the labels of the image (label, low, tall)")
    assert "Test ELBO of x given its labels −" in verdict(result)
    assert "elbo_joint" not in result.figures  # attributes have no p(y) in closed form
    assert result.figures["rate"].given == ()
    few = bound_figures(model, parts().test, draws=(1, 5), limit=4)
    assert few["iwae_5"].given == ("label", "low", "tall")
    assert long_name("iwae_5", few["iwae_5"]).endswith("given labels")
    bare = replace(parts().test, labels=None, class_names=())
    said = evaluate(model, bare, samples=2, bound_images=4).figures["elbo"].protocol
    assert "unobserved (label of 30 images) are predicted by the model's own classifier" in said
    settings.pop("dropout")
    plain = evaluate(train("vae", parts(), **settings), parts().test, samples=2, bound_images=4)
    assert plain.figures["elbo"].given == ()
    assert long_name("elbo", plain.figures["elbo"]) == "ELBO"
    stacked = train("m1+m2", parts(), **settings | {"latent_dim": 2, "second": 2, "hidden": 8})
    assert stacked.conditions == ()  # its ELBO is the first VAE's, which knows no labels


def test_log_p_of_the_class_is_added_where_the_class_is_all_that_is_given() -> None:
    splits = parts()
    assert splits.train.labels is not None
    rows = torch.cat(
        [(splits.train.labels == k).nonzero().squeeze(1)[:n] for k, n in enumerate((40, 20, 20))]
    )
    uneven = replace(splits, train=splits.train.subset(rows.sort().values))
    model = train("cvae", uneven, **QUICK | {"epochs": 2, "given": ["label"]})
    result = evaluate(model, splits.test, samples=2, bound_images=4)
    labels = splits.test.labels
    assert labels is not None
    log_prior = torch.tensor([math.log(0.5), math.log(0.25), math.log(0.25)])[labels].mean()
    for name in ("elbo", "log_prob"):
        given, joint = result.figures[name], result.figures[f"{name}_joint"]
        assert joint.value == pytest.approx(given.value + float(log_prior), abs=1e-4)
        assert joint.given == ()
        assert f"({float(log_prior):.3f} nats on the mean)" in joint.protocol
    bare = replace(splits.test, labels=None, class_names=())
    assert "elbo_joint" not in evaluate(model, bare, samples=2, bound_images=4).figures


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of a model of images, one given the class, and one given an attribute."""
    folder = tmp_path_factory.mktemp("mixed")
    whole = parts()
    values: dict[str, Any] = {}
    for prefix, part in (("", whole.train), ("test_", whole.test)):
        assert part.labels is not None
        assert part.attributes is not None
        values[f"{prefix}images"] = part.take(torch.arange(len(part))).squeeze(1).numpy()
        values[f"{prefix}labels"] = part.labels.numpy()
        values[f"{prefix}attributes"] = part.attributes.numpy()
    np.savez(
        folder / "x.npz", **values, class_names=np.array(whole.train.class_names),
        attribute_names=np.array(whole.train.attribute_names),
    )  # fmt: skip
    declared = {
        "title": "Mixed",
        "base": {
            "recipe": "vae",
            "data": {"spec": str(folder / "x.npz"), "split": [0.9, 0.1, 0.0]},
            "model": {"latent_dim": 1, "likelihood": "gaussian",
                      "encoder": {"kind": "mlp", "hidden": [8], "activation": "tanh"}},
            "training": {"epochs": 2, "batch_size": 36, "device": "cpu", "precision": "fp32"},
        },
        "seeds": 1,
        "cases": [
            {"name": "plain"},
            {"name": "class", "set": {"recipe": "cvae", "options": {"given": ["label"]}}},
            {"name": "size", "set": {"recipe": "cvae", "options": {"given": ["tall"]}}},
        ],
        "measure": {"samples": 2, "bound_images": 4},
    }  # fmt: skip
    study = Study(folder / "s")
    plan = make_plan(declared, "here")
    study.begin(plan)
    prepare(study, plan)
    work(study)
    return study


def test_a_study_does_not_rank_p_of_x_given_y_among_p_of_x(mixed: Study) -> None:
    results = read_results(mixed)
    plain, by_class, by_size = results.plan.cases
    raw = {
        case.name: files.read_json(
            next(j for j in mixed.jobs(results.plan) if j.case.key == case.key).measured_file
        )["figures"]
        for case in results.plan.cases
    }
    assert results.values(plain, "elbo") == {0: raw["plain"]["elbo"]["value"]}
    assert results.values(by_class, "elbo") == {0: raw["class"]["elbo_joint"]["value"]}
    assert raw["class"]["elbo_joint"]["value"] == pytest.approx(
        raw["class"]["elbo"]["value"] - math.log(3), abs=0.01
    )  # thirds of the images are of each class
    assert results.values(by_size, "elbo") == {}  # log p(y) of an attribute is not known
    for case in (by_class, by_size):
        assert results.values(case, "elbo_given") == {0: raw[case.name]["elbo"]["value"]}
    assert results.values(plain, "elbo_given") == {}
    assert (by_class.key, plain.key) in results.comparisons("elbo")
    assert (by_size.key, plain.key) not in results.comparisons("elbo")
    assert short_name("elbo_given") == "ELBO given labels"
    said = failures(results)
    assert any(t.startswith("class is conditioned on label") and "(−1.10" in t for t in said)
    assert any(t.startswith("size is conditioned on tall") and "not compared" in t for t in said)
    rows = [line.split(",") for line in as_csv(results).splitlines()]
    assert {(r[0], r[2]) for r in rows if r[2].startswith("elbo")} == {
        ("plain", "elbo"), ("class", "elbo"), ("class", "elbo_given"), ("size", "elbo_given"),
    }  # fmt: skip
    page = as_markdown(results)
    assert "ELBO given labels" in page
    assert "log p(y)" in page


def test_a_study_of_conditional_models_alone_says_so(mixed: Study) -> None:
    results = read_results(mixed)
    plan = replace(results.plan, cases=results.plan.cases[1:])
    runs = tuple(run for run in results.runs if run.conditions)
    assert Results(plan, runs).conditional is False  # what stands for ELBO is of log p(x, y)
    alone = tuple(read_job(run.job) for run in runs)
    both = Results(plan, apart(alone))
    assert both.conditional
    assert both.called("elbo") == "ELBO given labels"
    assert both.called("rate") == "rate"


def test_an_unfinished_run_is_said_to_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8))
    told = ["train", "vae", "-d", str(tmp_path / "x.npy"), "-o", str(path), "--epochs", "5"]
    told += ["--latent-dim", "2", "--batch-size", "16", "-s", "model.encoder.widths=[4,8]"]
    with monkeypatch.context() as patch:
        patch.setattr("vaelab.training.loop.Trainer._over", lambda self: self.position.epoch >= 2)
        assert vaelab(capsys, *told)[0] == 0
    state = Run(path).state_file
    tensors, meta = files.load_tensors(state)
    meta["position"]["finished"] = False
    files.save_tensors(state, tensors, meta)
    said = "Training is not finished (2 of 5 epochs, step 4)"
    code, out, err = vaelab(capsys, "--json", "evaluate", str(path), "--samples", "2")
    assert code == 0, err
    assert err.count(said) == 1
    result = json.loads(out)
    assert result["notes"][0].startswith(said)
    assert all(said in figure["protocol"] for figure in result["figures"].values())
    for command in (
        ["report"], ["sample", "--n", "2"], ["encode"], ["reconstruct"],
        ["score", "--draws", "2", "--steps", "2", "--by", "error"],
    ):  # fmt: skip
        code, _, err = vaelab(capsys, command[0], str(path), *command[1:])
        assert code == 0, err
        assert err.count(said) == 1
    assert said in Run(path).report_file.read_text()
    assert vaelab(capsys, "train", "--resume", "-o", str(path))[0] == 0
    code, out, err = vaelab(capsys, "evaluate", str(path), "--samples", "2")
    assert "not finished" not in out + err
