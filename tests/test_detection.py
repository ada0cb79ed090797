"""How well scores find anomalies: areas, thresholds, which class is normal, and the command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

import vaelab
from tests.conftest import SMALL
from tests.test_cli import vaelab as command
from vaelab.errors import ConfigError
from vaelab.evaluation.detection import (
    area,
    area_interval,
    average_precision,
    detection,
    normal_classes,
    threshold,
)
from vaelab.evaluation.figures import Share


@pytest.mark.parametrize("ties", [False, True])
def test_areas_are_those_of_scikit_learn(ties: bool) -> None:
    chance = torch.Generator().manual_seed(3)
    odd = torch.randn(31, generator=chance) + 0.8
    usual = torch.randn(54, generator=chance)
    if ties:
        odd, usual = (2 * odd).round(), (2 * usual).round()
    truth = [1] * 31 + [0] * 54
    scores = torch.cat([odd, usual]).numpy()
    assert area(odd, usual).value == pytest.approx(roc_auc_score(truth, scores))
    found = average_precision(odd, usual).value
    assert found == pytest.approx(average_precision_score(truth, scores))


def test_interval_of_an_area_at_its_ends() -> None:
    low, high = area_interval(1.0, 12, 12)
    assert high == 1.0
    assert 0.7 < low < 0.9  # sets that do not overlap are no certainty
    assert area_interval(0.0, 12, 12) == pytest.approx((0.0, 1 - low), abs=1e-9)
    low, high = area_interval(0.5, 1000, 1000)
    # Hanley and McNeil (1982) at one half: V = (1 + N* 2/3) / (4 m n), N* = (m + n)/2 - 1
    error = np.sqrt((1 + 999 * 2 / 3) / 4 / 1000**2)
    assert (low, high) == pytest.approx((0.5 - 1.96 * error, 0.5 + 1.96 * error), abs=1e-4)


@pytest.mark.parametrize(("odd", "usual", "true"), [(12, 12, 0.9), (60, 20, 0.75), (10, 100, 0.97)])
def test_intervals_hold_the_true_area(odd: int, usual: int, true: float) -> None:
    chance = np.random.default_rng(11)
    shift = np.sqrt(2) * norm.ppf(true)
    held = []
    for _ in range(1500):
        above = chance.normal(shift, 1, odd)[:, None] > chance.normal(0, 1, usual)[None]
        low, high = area_interval(float(above.mean()), odd, usual)
        held.append(low <= true <= high)
    assert 0.93 <= np.mean(held) <= 0.985


def test_threshold_is_exceeded_by_five_per_cent() -> None:
    assert threshold(torch.arange(1.0, 101)) == 95.0  # 96 to 100 exceed it
    assert threshold(torch.arange(1.0, 20)) == 19.0  # one of 19 would be more than 5 %
    assert threshold(torch.arange(1.0, 21)) == 19.0
    assert threshold(torch.tensor([3.0])) == 3.0


def test_rates_and_kinds() -> None:
    scores = {"error": torch.tensor([1.0, 2.0, 9.0, 8.0, 3.0, 0.5, 7.0])}
    classes = ["good", "good", "crack", "crack", "dent", "dent", ""]
    found = detection(scores, {"error": torch.arange(5.0)}, classes, ["good"])["error"]
    assert found.threshold == 4.0
    assert (found.found, found.false) == (Share(2, 4), Share(0, 2))
    assert found.kinds["crack"].value == 1.0
    assert found.kinds["dent"].value == 0.5
    assert found.auroc.value == 0.75
    assert found.auroc.n == 6  # the image of unknown class is left out
    facts = found.facts()
    assert facts["true_positive_rate"]["of"] == [2, 4]
    assert facts["auroc"]["interval"] == found.auroc.ends


@pytest.mark.parametrize(
    ("names", "trained", "given", "expected"),
    [
        (["crack", "good"], ["good"], [], ("good",)),
        (["OK", "broken"], ["a"], [], ("OK",)),
        (["cat", "dog"], ["cat"], [], ("cat",)),
        (["cat", "dog"], ["cat", "dog"], [], ()),  # images like those of training
        (["cat", "dog"], [], ["dog"], ("dog",)),
        (["good"], ["good"], [], ()),
        ([], ["good"], [], ()),
    ],
)
def test_which_class_is_normal(
    names: list[str], trained: list[str], given: list[str], expected: tuple[str, ...]
) -> None:
    assert normal_classes(names, trained, given) == (expected, "")


def test_which_class_is_normal_is_asked_for() -> None:
    found, note = normal_classes(["cat", "dog"], [])
    assert found == ()
    assert "--normal cat" in note
    with pytest.raises(ConfigError, match=r"fox: no image is of this class\. Classes: cat"):
        normal_classes(["cat"], [], ["fox"])
    with pytest.raises(ConfigError, match="no anomaly"):
        normal_classes(["cat"], [], ["cat"])


def plate(path: Path, number: int, scratch: int = 0) -> None:
    """Draw a soft grey disc; scratched across, or with a bright spot."""
    chance = np.random.default_rng(number)
    image = Image.new("L", (18, 15), 20)
    x, y = (int(value) for value in chance.integers(2, 6, 2))
    draw = ImageDraw.Draw(image)
    draw.ellipse([x, y, x + 8, y + 8], fill=120)
    if scratch == 1:
        draw.line([0, int(chance.integers(0, 15)), 18, int(chance.integers(0, 15))], 255, 2)
    if scratch == 2:
        draw.rectangle([x + 3, y + 3, x + 5, y + 5], fill=255)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plates")
    for number in range(80):
        plate(root / "train" / "good" / f"{number}.png", number)
    for number in range(10):
        plate(root / "test" / "good" / f"{number}.png", 500 + number)
        plate(root / "test" / "scratch" / f"{number}.png", 600 + number, 1)
        plate(root / "test" / "spot" / f"{number}.png", 700 + number, 2)
    return root


def test_a_labelled_test_part_is_measured(
    plates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "odd.csv"
    vaelab.train("vae", plates, run, **{**SMALL, "epochs": 20, "lr": 5e-3})
    given = ["score", str(run), str(plates / "test"), "--steps", "5", "--draws", "5", "--by"]
    given += ["error", "--out", str(out)]
    code, text, err = command(capsys, "--json", *given)
    assert code == 0, err
    facts = json.loads(text)
    assert facts["normal"] == ["good"]
    found = facts["detection"]["error"]
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    odd = [float(row["error"]) for row in rows if row["class"] != "good"]
    good = [float(row["error"]) for row in rows if row["class"] == "good"]
    assert (len(odd), len(good)) == (20, 10)
    truth = [1] * 20 + [0] * 10
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(truth, odd + good), abs=1e-6)
    assert found["auroc"]["value"] > 0.9
    assert set(found["auroc_by_class"]) == {"scratch", "spot"}
    flagged = [row["class"] for row in rows if row["flag"] == "1"]
    true, false = found["true_positive_rate"]["of"], found["false_positive_rate"]["of"]
    assert true == [sum(name != "good" for name in flagged), 20]
    assert false == [flagged.count("good"), 10]
    limit = found["threshold"] * (1 + 1e-5)  # the table has six digits
    assert all((float(row["error"]) > limit) == (row["flag"] == "1") for row in rows)
    code, text, _ = command(capsys, *given)
    assert "AUROC" in text
    assert "20 anomalies against 10 normal images (good)" in text
    page = out.with_suffix(".html").read_text()
    assert "How well anomalies are found" in page
    assert "error, scratch" in page
    code, text, _ = command(capsys, "--json", *given, "--normal", "spot", "--normal", "good")
    assert json.loads(text)["normal"] == ["spot", "good"]
    assert json.loads(text)["detection"]["error"]["auroc"]["images"] == 30


def test_the_runs_own_test_part_is_measured_too(
    plates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vaelab.train("ae", plates, tmp_path / "run", **SMALL)
    code, text, err = command(capsys, "--json", "score", str(tmp_path / "run"))
    assert code == 0, err
    facts = json.loads(text)
    assert set(facts["detection"]) == {"error", "distance"}
    assert facts["detection"]["error"]["auroc"]["images"] == 30
