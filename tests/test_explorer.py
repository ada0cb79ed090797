"""What the explorer's page holds, and that it can be had from command line and Python."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SMALL, blobs
from vaelab.api import configure, settings_to_config, train, write_explorer
from vaelab.cli.main import run as run_cli
from vaelab.data.images import ImageSet, Splits
from vaelab.data.load import load_data
from vaelab.data.summary import pixels_of
from vaelab.errors import DataError
from vaelab.explorer.graph import Weights, rounded
from vaelab.explorer.page import content, render
from vaelab.explorer.points import ink, neighbours, points
from vaelab.explorer.sheets import fitting, sheet
from vaelab.models.vae import Vae
from vaelab.recipes import Setup, build
from vaelab.report.page import write_report
from vaelab.training.run import Run

MODEL_M: dict[str, Any] = {
    "latent_dim": 20,
    "encoder": {"kind": "conv", "widths": [32, 64], "kernel": 4, "activation": "relu"},
    "likelihood": "bernoulli",
}
"""As in benchmarks/plain.py."""

LARGEST = 3_000_000


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def untrained(settings: dict[str, Any], splits: Splits) -> Vae:
    torch.manual_seed(0)
    config = configure(settings_to_config(settings))
    mean = pixels_of(splits.train)
    model, _ = build(config, Setup(config.model, config.data.binarize, mean, 10))
    assert isinstance(model, Vae)
    return model.eval()


def halves(held: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(held["halves"]), "<f2")


def test_model_m_fits_into_three_megabytes() -> None:
    splits = load_data("mnist")
    model = untrained(MODEL_M, splits)
    page = render("m", "model M", content(model, splits))
    size = len(page.encode())
    print(f"explorer of model M: {size / 1e6:.2f} MB")
    assert size <= LARGEST
    held = json.loads(re.findall(r'id="held">(.*?)</script>', page, re.DOTALL)[0])
    assert held["points"]["count"] == 2000
    assert held["train"]["total"] == 55_000
    kernel = next(layer for layer in held["model"]["encoder"]["layers"] if layer["op"] == "conv")
    first, count = kernel["weight"]
    stored = halves(held["weights"])[first : first + count].reshape(4, 4, 1, 32)
    weight = dict(model.encoder.network.named_parameters())["maps.0.weight"].detach()
    expected = weight.permute(2, 3, 1, 0).half().numpy()
    assert (stored == expected).all()


def test_points_are_what_the_rounded_model_makes_of_the_images(spots: Splits) -> None:
    model = rounded(untrained({**SMALL, "latent_dim": 3}, spots))
    weights = Weights()
    held = points(model, spots.test, weights)
    mean, deviation = model.posterior(spots.test.take(torch.arange(len(spots.test))))
    first, count = held["points"]["means"]
    stored = halves(weights.encoded())
    got = stored[first : first + count].reshape(-1, 3).astype(np.float32)
    np.testing.assert_allclose(got, mean.numpy(), atol=2e-3)
    rates = 0.5 * (mean**2 + deviation**2 - 1) - deviation.log()
    np.testing.assert_allclose(held["dimensions"]["rates"], rates.mean(0), rtol=1e-3)
    order = held["dimensions"]["order"]
    assert order == rates.mean(0).argsort(descending=True).tolist()
    assert held["dimensions"]["active"] == (mean.double().var(0, correction=0) > 0.01).tolist()
    axes = torch.tensor(held["layouts"]["pca"]["components"])
    torch.testing.assert_close(axes @ axes.T, torch.eye(2), atol=1e-4, rtol=0)
    along = (mean - mean.mean(0)) @ axes.T
    total = mean.var(0).sum()
    shares = held["layouts"]["pca"]["shares"]
    torch.testing.assert_close(torch.tensor(shares), along.var(0) / total, atol=1e-3, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_gives_back_its_images(channels: int) -> None:
    images = torch.from_numpy(blobs(7, 37, 53, channels))
    made = sheet(images)
    picture = Image.open(io.BytesIO(base64.b64decode(made["data"]))).convert("RGB")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    for place in range(7):
        row, column = divmod(place, made["columns"])
        part = pixels[:channels, row * 37 : row * 37 + 37, column * 53 : column * 53 + 53]
        assert torch.equal(part, images[place])


def test_images_that_compress_badly_are_fewer_and_told() -> None:
    noise = torch.randint(0, 256, (600, 3, 64, 64), dtype=torch.uint8)
    index, exact = fitting(ImageSet(noise), 2000)
    assert not exact
    assert 1 <= len(index) < 600
    made = sheet(noise[index], exact)
    assert not made["exact"]
    assert len(base64.b64decode(made["data"])) < 1_000_000


def test_typical_distance_is_that_to_the_nearest_training_image() -> None:
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    images[1] = 255
    tests = torch.full((3, 1, 8, 8), 51, dtype=torch.uint8)  # 0.2 from the black ones
    held = neighbours(ImageSet(tests), ImageSet(images))
    assert held["typical"] == pytest.approx(0.2, abs=1e-4)
    assert (held["count"], held["total"]) == (4, 4)


def test_ink_is_measured_and_photographs_have_none() -> None:
    drawn = torch.full((5, 1, 20, 20), 255, dtype=torch.uint8)
    drawn[:, :, 4:14, 7:11] = 0  # black on white, 10 rows of 4
    found = ink(ImageSet(drawn))
    assert found == {"ground": 1.0, "extent": 10.0, "centre": [9.0, 9.0]}
    assert ink(ImageSet(torch.randint(0, 256, (5, 1, 20, 20), dtype=torch.uint8))) is None


def test_the_page_needs_nothing_else_and_says_so(spots: Splits, tmp_path: Path) -> None:
    nasty = "</script><script>alert(1)</script>"
    labels = np.arange(120) % 2
    images = ImageSet(torch.from_numpy(blobs()), torch.from_numpy(labels), class_names=(nasty, "b"))
    splits = Splits("<b>", images, images, images)
    train("vae", splits, out=tmp_path / "run", **SMALL)
    page = write_explorer(tmp_path / "run", splits)
    assert page == tmp_path / "run" / "explorer.html"
    html = page.read_text(encoding="utf-8")
    tags = Tags(html).seen
    scripts = [attributes for tag, attributes in tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "held"}, {}]
    assert not {tag for tag, _ in tags} & {"link", "iframe", "object", "img"}
    assert not [a for _, a in tags if "src" in a or "href" in a]
    policy = next(a["content"] for _, a in tags if a.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    assert nasty not in html
    before = html
    assert write_explorer(tmp_path / "run", splits).read_text(encoding="utf-8") == before


def test_the_report_links_the_explorer_where_there_is_one(tmp_path: Path, spots: Splits) -> None:
    train("vae", spots, out=tmp_path / "run", **SMALL)
    run = Run(tmp_path / "run")
    assert "explorer.html" not in write_report(run, spots).read_text(encoding="utf-8")
    write_explorer(run.path, spots)
    assert '<a href="explorer.html">' in write_report(run, spots).read_text(encoding="utf-8")


def test_images_of_another_shape_are_refused(tmp_path: Path, spots: Splits) -> None:
    train("vae", spots, out=tmp_path / "run", **SMALL)
    with pytest.raises(DataError, match="do not fit a model"):
        write_explorer(tmp_path / "run", load_data(blobs(30, 8, 8)))


def test_the_command_writes_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spots: Splits
) -> None:
    np.savez(tmp_path / "spots.npz", images=blobs(60), labels=np.arange(60) % 3)
    train("vae", str(tmp_path / "spots.npz"), out=tmp_path / "run", **SMALL)
    out = tmp_path / "page.html"
    with pytest.raises(SystemExit) as ended:
        run_cli(["explore", str(tmp_path / "run"), "--out", str(out), "--json"])
    assert ended.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"explorer": str(out), "bytes": out.stat().st_size}


def test_a_classifier_has_nothing_to_explore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_cli(["explore", str(tmp_path / "nowhere")])
    assert ended.value.code == 1
    assert "is no run" in capsys.readouterr().err


def test_float32_survives_in_singles() -> None:
    weights = Weights()
    place = weights.single(torch.tensor([1 / 3, -2.5e-7]))
    assert place == [0, 2]
    data = base64.b64decode(weights.encoded()["singles"])
    assert struct.unpack("<2f", data) == pytest.approx((1 / 3, -2.5e-7), rel=1e-7)
