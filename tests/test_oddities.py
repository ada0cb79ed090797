"""Scores of how odd an image is, and the area under the curve, against known answers."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from tests.conftest import SMALL, blobs
from vaelab.api import train
from vaelab.cli.main import run as run_cli
from vaelab.data.batches import Batch
from vaelab.data.images import ImageSet, Splits
from vaelab.errors import ConfigError, DataError, RunError
from vaelab.evaluation.bounds import linear_density
from vaelab.evaluation.oddities import SCORES, likelihood_regret, reference_codes, score
from vaelab.evaluation.ranked import Ranking
from vaelab.evaluation.ranking import auroc, placements
from vaelab.models.kl import analytic_kl
from vaelab.models.posteriors import FullNormal
from vaelab.models.vae import Vae


def test_auroc_is_the_share_of_pairs_in_order_with_ties_half() -> None:
    odd, usual = torch.tensor([1.0, 3.0, 3.0, 9.0]), torch.tensor([0.0, 3.0, 4.0])
    pairs = [1.0 * (a > b) + 0.5 * (a == b) for a, b in itertools.product(odd, usual)]
    figure = auroc(odd, usual)
    assert figure.value == pytest.approx(sum(pairs) / 12)
    labels, values = [1] * 4 + [0] * 3, [*odd.tolist(), *usual.tolist()]
    assert figure.value == pytest.approx(roc_auc_score(labels, values))
    # V: 1/3, 1/2, 1/2, 1; W: 1, 1/2, 1/4 (share of odd ones above each usual one)
    spread = np.var([1 / 3, 1 / 2, 1 / 2, 1], ddof=1) / 4 + np.var([1, 1 / 2, 1 / 4], ddof=1) / 3
    assert figure.standard_error == pytest.approx(math.sqrt(spread))


def test_auroc_at_its_ends() -> None:
    low, high = torch.arange(5.0), torch.arange(5.0) + 10
    assert (auroc(high, low).value, auroc(high, low).standard_error) == (1.0, 0.0)
    assert auroc(low, high).value == 0.0
    assert auroc(torch.ones(3), torch.ones(4)).value == 0.5
    assert auroc(torch.tensor([math.inf]), low).value == 1.0
    assert auroc(torch.tensor([2.0]), low).standard_error is None
    with pytest.raises(ConfigError, match="images of both kinds"):
        auroc(torch.zeros(0), low)
    with pytest.raises(ConfigError, match="NaN"):
        auroc(torch.tensor([math.nan]), low)


def test_standard_error_of_auroc_is_that_of_repeated_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    figures = [
        auroc(torch.randn(60, generator=generator) + 1, torch.randn(90, generator=generator))
        for _ in range(400)
    ]
    errors = [figure.standard_error for figure in figures if figure.standard_error is not None]
    assert np.mean(errors) == pytest.approx(np.std([f.value for f in figures]), rel=0.12)
    expected = 0.5 * (1 + math.erf(1 / 2))  # Φ(1/√2) for two normals one deviation apart
    assert np.mean([f.value for f in figures]) == pytest.approx(expected, abs=0.006)


def test_placements_are_shares_below() -> None:
    assert placements(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 3.0])).tolist() == [
        0, pytest.approx(1 / 3), pytest.approx(2 / 3),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def linear() -> tuple[Vae, Batch]:
    """A linear model with normal noise and full posteriors, its encoder spoiled, and images."""
    data = blobs(64, 6, 5)
    model = train(
        data=data,
        posterior="full",
        sigma=0.2,
        **{
            **SMALL,
            "encoder": {"kind": "mlp", "hidden": []},
            "epochs": 60,
            "lr": 1e-2,
            "likelihood": "gaussian",
        },
    )
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter[:2].mul_(0.9)  # the means: the scales are about right
    x = model.as_images(torch.from_numpy(data))
    return model, Batch(x, x, None, None, torch.arange(len(x)))


def exact_elbo(model: Vae, x: torch.Tensor) -> torch.Tensor:
    """Return the ELBO of a linear decoder in closed form: log p(x|μ) − tr(W Σ Wᵀ)/2σ² − KL."""
    with torch.no_grad():
        posterior = model.infer(x, None)
        assert isinstance(posterior, FullNormal)
        origin = model.decode(torch.zeros(1, 2)).mean
        weight = (model.decode(torch.eye(2)).mean - origin).flatten(1)  # (D, X)
        spread = (posterior.scale_tril.mT @ weight).square().sum((1, 2))
        rate = analytic_kl(posterior, model.prior())
        assert rate is not None
        log_px = model.decode(posterior.mean).log_prob(x)
        return (log_px - spread / (2 * 0.2**2) - rate).double()


def test_regret_of_a_linear_model_is_what_its_posterior_misses(linear: tuple[Vae, Batch]) -> None:
    model, batch = linear
    density = linear_density(model)
    assert density is not None
    exact = density(batch.images) - exact_elbo(model, batch.images)
    assert exact.median() > 0.5  # the encoder is bad enough for this to mean something
    torch.manual_seed(0)
    regret = likelihood_regret(model, batch, None, steps=400, draws=1000).double()
    torch.testing.assert_close(regret, exact, rtol=0.05, atol=0.15)


def test_regret_does_not_depend_on_the_rest_of_the_batch(linear: tuple[Vae, Batch]) -> None:
    model, batch = linear
    x = batch.images[:6]
    few = Batch(x, x, None, None, torch.arange(6))
    torch.manual_seed(0)
    alone = likelihood_regret(model, few, None, steps=400, draws=1000)
    among = likelihood_regret(model, batch, None, steps=400, draws=1000)[:6]
    torch.testing.assert_close(alone, among, rtol=0.05, atol=0.15)


def test_distance_is_in_deviations_of_the_training_codes(spots: Splits) -> None:
    model = train("ae", spots, **{**SMALL, "latent_dim": 3})
    reference = reference_codes(model, spots.train)
    codes = model.encode(spots.train.take(torch.arange(len(spots.train))))
    distances = reference.distance(codes)
    # the mean of squared Mahalanobis distances of the sample itself is D (n − 1)/n
    n = len(codes)
    assert float(distances.square().mean()) == pytest.approx(3 * (n - 1) / n, rel=1e-4)
    assert float(reference.distance(codes.double().mean(0, keepdim=True))) < 1e-4
    by_hand = np.linalg.inv(np.cov(codes.double().numpy().T))
    one = (codes[0] - codes.mean(0)).double().numpy()
    assert float(distances[0]) == pytest.approx(math.sqrt(one @ by_hand @ one), rel=1e-3)


CASES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("vae", {}, set(SCORES)),
    ("vae", {"posterior": "flow", "prior": "mixture"}, set(SCORES)),
    ("vae", {"binarize": "dynamic"}, set(SCORES)),
    ("vae", {"likelihood": "logistic-mixture", "posterior": "full"}, set(SCORES)),
    ("ae", {}, {"error", "distance"}),
    ("cvae", {}, set(SCORES)),
    ("csvae", {"latent_dim": 3}, set(SCORES)),
    ("csvae", {"independence": "critic"}, set(SCORES)),
    ("m1+m2", {"latent_dim": 4, "hidden": 8, "second": 3}, set(SCORES)),
]


def with_sizes(splits: Splits) -> Splits:
    """Return the spots with an attribute."""

    def sized(images: ImageSet) -> ImageSet:
        sizes = images.take(torch.arange(len(images))).float().mean((1, 2, 3))[:, None]
        return replace(images, attributes=sizes, attribute_names=("size",), binary=(False,))

    train, validation, test = map(sized, (splits.train, splits.validation, splits.test))
    return Splits(splits.name, train, validation, test)


@pytest.mark.parametrize(
    ("recipe", "settings", "expected"),
    CASES,
    ids=lambda v: str(sorted(v) if isinstance(v, set) else v)[:40],
)
def test_every_kind_of_model_scores_images(
    recipe: str, settings: dict[str, Any], expected: set[str], spots: Splits
) -> None:
    splits = with_sizes(spots) if recipe == "csvae" else spots
    model = train(recipe, splits, **{**SMALL, "epochs": 1, **settings})
    reference = reference_codes(model, spots.train)
    found = score(model, spots.test, reference, draws=3, steps=3)
    assert set(found) == expected
    for values in found.values():
        assert values.shape == (len(spots.test),)
        assert values.isfinite().all()
    again = score(model, spots.test, reference, draws=3, steps=3)
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_noise_is_odd_to_a_model_of_spots(spots: Splits) -> None:
    model = train("vae", spots, **{**SMALL, "epochs": 30})
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (40, *spots.train.shape), generator=generator, dtype=torch.uint8)
    reference = reference_codes(model, spots.train)
    odd = score(model, ImageSet(noise), reference, draws=10, steps=30)
    usual = score(model, spots.test, reference, draws=10, steps=30)
    for name in ("improbability", "regret", "error"):
        assert auroc(odd[name], usual[name]).value > 0.98, name


def test_what_cannot_be_scored_is_said(spots: Splits) -> None:
    model = train("vae", spots, **{**SMALL, "epochs": 1})
    with pytest.raises(ConfigError, match="'beauty' is unknown"):
        score(model, spots.test, scores=["beauty"])
    with pytest.raises(ConfigError, match="steps: must be 1 to 1,000,000"):
        score(model, spots.test, steps=0)
    other = ImageSet(torch.zeros(3, 1, 5, 5, dtype=torch.uint8))
    with pytest.raises(DataError, match="3 images of shape"):
        score(model, other)
    with torch.no_grad():
        next(model.decoder.parameters()).fill_(math.nan)
    with pytest.raises(RunError, match="is no number for some images: training has diverged"):
        score(model, spots.test, steps=1, draws=1)
    with pytest.raises(DataError, match="two training images"):
        reference_codes(model, spots.train.subset(torch.arange(1)))


def ranking(by: str = "regret") -> Ranking:
    usual = torch.arange(100.0)
    scores = {
        "improbability": torch.tensor([50.0, -7.0, 1000.0]),
        "regret": torch.tensor([60.0, 200.0, 99.5]),
    }
    return Ranking(("a", "b, c", "d"), scores, {name: usual for name in scores}, by, "100 images")


def test_images_are_ranked_with_reasons() -> None:
    ranked = ranking()
    assert ranked.order() == [1, 2, 0]
    assert ranked.order("improbability") == [2, 0, 1]
    assert ranked.shares().tolist() == pytest.approx([0.605, 1, 1])
    assert ranked.beyond() == 2
    assert ranked.beyond("improbability") == 1
    assert ranked.reasons(0) == ["regret 60 nats, usually 49 (odder than 60.5 %)"]
    assert not ranked.unusual(0)
    assert ranked.reasons(1) == [
        "new to the encoder: another code explains it 200.0 nats better, usually 49.0 "
        "(odder than all 100)",
        "yet more probable than 100 % of these, as simple images are",
    ]
    both = ranked.reasons(2)
    assert both[0].startswith("new to the encoder")  # the score that ranks goes first
    assert both[1].startswith("improbable: log p(x) is −1,000 nats, usually −49")
    assert len(both) == 2
    lines = list(csv.DictReader(io.StringIO(ranked.table())))
    assert [line["name"] for line in lines] == ["b, c", "d", "a"]
    assert (lines[0]["rank"], lines[0]["regret"], lines[0]["improbability"]) == ("1", "200", "-7")
    assert lines[2]["reason"] == ranked.reasons(0)[0]


def test_few_usual_images_are_warned_of() -> None:
    ranked = ranking()
    assert ranked.notes() == []
    few = {name: values[:6] for name, values in ranked.usual.items()}
    (note,) = replace(ranked, usual=few, what="6 validation images").notes()
    assert "Only 6 validation images" in note


def test_the_oddest_image_of_a_folder_is_found_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, spot in enumerate(blobs(60)):
        path = tmp_path / "spots" / f"spot-{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(spot[0]).save(path)
    (tmp_path / "mine").mkdir()
    for name in ("spot-03", "spot-11"):
        shutil.copy(tmp_path / "spots" / f"{name}.png", tmp_path / "mine")
    generator = np.random.default_rng(0)
    odd = "<b>&odd.png"
    Image.fromarray(generator.integers(0, 256, (12, 10), np.uint8)).save(tmp_path / "mine" / odd)
    run = tmp_path / "run"
    train("vae", tmp_path / "spots", run, **{**SMALL, "epochs": 60})
    table = tmp_path / "odd.csv"
    command = ["score", str(run), str(tmp_path / "mine"), "--out", str(table), "--steps", "20"]
    with pytest.raises(SystemExit) as ended:
        run_cli(["--json", *command])
    out, err = capsys.readouterr()
    assert ended.value.code == 0
    facts = json.loads(out)
    assert facts["oddest"][0]["name"] == odd
    assert facts["images"] == 3
    assert "Only 6 validation images" in facts["notes"][0]
    assert "were made grey" not in err
    assert facts["beyond"] >= 1
    assert table.read_text().splitlines()[1].startswith(f"1,{odd},")
    page = (tmp_path / "odd.html").read_text()
    assert "&lt;b&gt;&amp;odd.png" in page
    assert "<b>&odd" not in page
    assert page.count("data:image/png;base64,") == 2 * 3 + 4
    assert "Only 6 validation images" in page
    assert "Nothing about it" not in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_images_of_another_shape_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "spots.npy", blobs(60))
    np.save(tmp_path / "wide.npy", blobs(20, 37, 53, 3))
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(blobs(3, 37, 53, 3)):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"photos/{number}.png")
    Image.fromarray(blobs(1)[0, 0]).save(tmp_path / "photos/3.png")
    run = tmp_path / "run"
    train("ae", tmp_path / "spots.npy", run, **{**SMALL, "epochs": 1})
    for command, count in (
        (["score", str(run), str(tmp_path / "photos")], 3),
        (["reconstruct", str(run), "--data", str(tmp_path / "wide.npy")], 20),
    ):
        with pytest.raises(SystemExit) as ended:
            run_cli(command)
        assert ended.value.code == 0
        told = f"{count} images were made grey and fitted to 12×10 pixels (pad), as the model needs"
        assert told in capsys.readouterr().err


def test_mistakes_of_scoring_get_a_line(
    tmp_path: Path, spots: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "spots.npy", blobs(40))
    run = tmp_path / "run"
    train("ae", tmp_path / "spots.npy", run, **{**SMALL, "epochs": 1})
    for more, message in (
        (["--by", "regret"], "this model has no 'regret'. It has: error, distance"),
        (["--split", "exam"], "choose train, validation, test"),
        (["--out", "odd.xlsx"], "name a .csv"),
        (["nowhere"], "nowhere: does not exist"),
    ):
        with pytest.raises(SystemExit) as ended:
            run_cli(["score", str(run), *more])
        assert ended.value.code == 1
        assert message in capsys.readouterr().err
