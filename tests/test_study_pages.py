"""What the page of a study shows: pictures of every case, and the sections that some ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import blobs
from vaelab.config import TrainingConfig
from vaelab.data.images import Splits
from vaelab.data.load import load_data
from vaelab.report.study import write_study_report
from vaelab.studies.knee import knee
from vaelab.studies.plan import make_plan
from vaelab.studies.results import read_results
from vaelab.studies.study import Study
from vaelab.studies.surfaces import RATE, plane, valley
from vaelab.studies.work import work


def test_the_knee_is_where_the_curve_turns() -> None:
    bent = [(0.0, 10.0), (1.0, 5.0), (2.0, 1.0), (4.0, 0.6), (8.0, 0.0)]
    assert knee(bent) == 2
    assert knee([(x, 1 / x) for x in (0.1, 0.3, 1.0, 3.0, 10.0)]) == 2  # symmetric about 1
    assert knee([(0.0, 1.0), (1.0, 0.5), (2.0, 0.0)]) is None  # a straight line
    assert knee(bent[:2]) is None


def methods(**more: Any) -> dict[str, TrainingConfig]:
    names = ("batch-gd", "sgd", "momentum", "nesterov", "rmsprop", "adam")
    return {name: TrainingConfig(optimizer=name, **more) for name in names}


def test_paths_over_the_valley_are_those_of_the_equations() -> None:
    surface = valley(methods())
    x, y = -4.0, 1.0  # z ← z − η f'(z): 1.8/80 along, and over the middle and back across
    for point in surface.paths["batch-gd"][1:]:
        x, y = x - RATE * x, y - 1.8 * y
        assert point == pytest.approx((x, y), abs=1e-4)
    left = {name: abs(path[-1][0]) for name, path in surface.paths.items()}
    assert left["momentum"] < left["batch-gd"] / 3  # it went much farther along the flat direction
    assert left["adam"] < left["batch-gd"]
    assert surface.paths["sgd"] != surface.paths["batch-gd"]
    assert float(surface.loss.min()) >= 0


@pytest.fixture(scope="module")
def splits() -> Splits:
    images = blobs(150)
    return load_data((images, np.arange(len(images)) % 2))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("pages")
    np.savez(folder / "spots.npz", images=blobs(150), labels=np.arange(150) % 2)
    declared = {
        "title": "All <sections>",
        "base": {
            "recipe": "beta-vae",
            "data": {"spec": str(folder / "spots.npz")},
            "model": {"encoder": {"widths": [4], "hidden": [8]}},
            "training": {"epochs": 2, "batch_size": 16, "device": "cpu", "precision": "fp32"},
        },
        "cases": [
            {"name": "Adam"},
            {"name": "momentum", "set": {"training": {"optimizer": "momentum", "lr": 1e-4}}},
            {"name": "point & line", "set": {"recipe": "ae"}},
            {"name": "much", "set": {"options": {"beta": 0.1}}},
            {
                "name": "little",
                "set": {"options": {"beta": 30}, "training": {"optimizer": "muon"}},
            },
        ],
        "extras": ["pools", "surfaces", "knee"],
        "seeds": 1,
        "measure": {"also": ["neighbours", "bounds"], "samples": 10, "bound_images": 20},
    }
    made = Study(folder / "s")
    made.begin(make_plan(declared, "here"))
    work(made)
    return made


def test_the_plane_holds_the_loss_of_the_trained_models(study: Study, splits: Splits) -> None:
    one, other = read_results(study).runs[:2]
    surface = plane(one, other, methods(), splits)
    assert surface.marks["start"] == (0, 0)
    assert surface.marks["Adam"] == (1, 0)
    model = one.job.run.load_model()
    x = splits.train.take(torch.arange(len(splits.train))[:256])
    trained = -float(model.elbo(x, 50).mean())

    def at(a: float, b: float) -> float:
        i = int((surface.x - a).abs().argmin())
        j = int((surface.y - b).abs().argmin())
        return float(surface.loss[j, i])

    assert at(1, 0) < at(0, 0)  # training went down
    assert at(1, 0) == pytest.approx(trained, rel=0.25)  # β is 4: the rate is small here
    for path in surface.paths.values():
        assert path[0] == (0, 0)
    assert surface.paths["adam"][-1] != (0, 0)


def test_a_page_with_all_sections(study: Study, splits: Splits) -> None:
    page = write_study_report(study, lambda case: splits).read_text()
    assert "All &lt;sections&gt;" in page
    assert "point &amp; line" in page
    assert "point & line" not in page
    for title in (
        "Latent pools by class", "Paths of the optimizers", "Rate and distortion", "Bounds by draws"
    ):  # fmt: skip
        assert title in page
    assert "Muon is left out" in page
    assert page.count('aria-label="Bounds of') == 4  # an autoencoder has none
    assert page.count("<article>") == 5
    assert '<p class="settings">options.beta=0.1</p>' in page
    assert "<script>" in page
    assert "sha256-" in page
    ids = [part.split('"', 1)[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids)), "two elements share an id"
    assert "NaN" not in page.partition("<script>")[0]
    again = write_study_report(study, lambda case: splits).read_text()
    assert again == page


def test_the_summary_is_the_table_of_the_page(study: Study, splits: Splits) -> None:
    write_study_report(study, lambda case: splits)
    lines = study.summary_file.read_text().splitlines()
    results = read_results(study)
    assert lines[0].startswith("**")
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    head, ruler, *cases = rows
    assert head[:2] == ["case", "ELBO (nats)"]
    assert {len(row) for row in rows} == {len(head)}
    bounds = [float(cell.strip("*").split()[0].replace("−", "-")) for cell in cases[0][3:8]]
    assert [cell.split(" (")[0] for cell in head[3:8]] == [
        "IWAE 1", "IWAE 5", "IWAE 50", "IWAE 500", "IWAE 5,000"
    ]  # fmt: skip
    assert bounds == sorted(bounds)  # each is above the one before, up to noise
    assert [row[0] for row in cases] == [case.name for case in results.plan.cases]
    assert ruler[1] == "--:"
    column = next(i for i, name in enumerate(head) if name.startswith("active units"))
    means = results.means("active_units")
    for case, row in zip(results.plan.cases, cases, strict=True):
        assert float(row[column].split()[0]) == means[case.key].value
    best = max(results.means("elbo").items(), key=lambda item: item[1].value)[0]
    bold = [case.key for case, row in zip(results.plan.cases, cases, strict=True) if "*" in row[1]]
    assert bold == [best]


def test_a_page_before_anything_is_done(study: Study, splits: Splits, tmp_path: Path) -> None:
    fresh = Study(tmp_path / "s")
    fresh.begin(study.read_plan())
    page = write_study_report(fresh, lambda case: splits).read_text()
    assert "No run of this study is measured yet." in page
    assert "5 of 5 runs are not done yet." in page
