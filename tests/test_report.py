from __future__ import annotations

import dataclasses
import itertools
import json
import re
import signal
from collections.abc import Callable, Mapping
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SMALL, blobs
from vaelab.api import train
from vaelab.data.images import ImageSet, Splits
from vaelab.data.load import load_data
from vaelab.errors import DataError, RunError
from vaelab.evaluation.evaluate import evaluate
from vaelab.evaluation.record import read, write
from vaelab.models.vae import Vae
from vaelab.report import palette
from vaelab.report.curves import learning_curves
from vaelab.report.latent_plots import aggregate_plots, deviations_plot, latent_map
from vaelab.report.latents import Latents, find_latents
from vaelab.report.page import write_report
from vaelab.report.pictures import reduced, shown
from vaelab.report.plot import Plot, number, ticks
from vaelab.report.structure import structure
from vaelab.report.words import plain
from vaelab.training.interrupt import Interrupted
from vaelab.training.progress import Silent
from vaelab.training.run import Run

NASTY = "<script>alert('7 & \"8\"')</script>"
SECTIONS = ("figures", "trained", "curves", "reconstructions", "latents", "notes", "measured")


def labelled(classes: int | None = 2, **shape: int) -> Splits:
    images = blobs(**shape)
    if classes is None:
        return load_data(images)
    return load_data((images, np.arange(len(images)) % classes))


CASES: dict[str, tuple[str, dict[str, Any], Callable[[], Splits], set[str]]] = {
    "plane": ("vae", {"latent_dim": 2}, labelled, {"manifold", "samples"}),
    "autoencoder": ("ae", {"latent_dim": 2}, labelled, {"manifold"}),
    "deep autoencoder": ("ae", {"latent_dim": 4}, labelled, {"traversals"}),
    "line": ("vae", {"latent_dim": 1}, labelled, {"samples", "traversals"}),
    "many dimensions": ("beta-vae", {"latent_dim": 20}, labelled, {"samples", "traversals"}),
    "colour": (
        "vae",
        {"latent_dim": 3, "likelihood": "gaussian"},
        lambda: labelled(height=37, width=53, channels=3, n=40),
        {"samples", "traversals"},
    ),
    "two images": ("vae", {}, lambda: labelled(None, n=2), {"manifold", "samples"}),
    "one image": ("vae", {}, lambda: labelled(None, n=1), {"manifold", "samples"}),
    "no labels": ("iwae", {"latent_dim": 3}, lambda: labelled(None), {"samples", "traversals"}),
    "one class": ("vae", {"binarize": "dynamic"}, lambda: labelled(1), {"manifold", "samples"}),
    "many classes": ("vae", {}, lambda: labelled(45, n=400), {"manifold", "samples"}),
    "full": ("vae", {"latent_dim": 3, "posterior": "full"}, labelled, {"samples", "traversals"}),
    "mixture": ("vae", {"prior": "mixture"}, labelled, {"manifold", "samples"}),
}


@pytest.fixture(scope="module", params=CASES)
def reported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, str, set[str]]:
    """A run of every kind, evaluated and reported, and the sections that only some have."""
    recipe, settings, data, special = CASES[request.param]
    run, splits = Run(tmp_path_factory.mktemp("run") / "r"), data()
    train(recipe, splits, run.path, **{**SMALL, **settings})
    write(run, evaluate(run.load_model(), splits.test, held_out=splits.held_out, samples=5))
    return run, write_report(run, splits).read_text(encoding="utf-8"), special


@pytest.fixture(scope="module")
def spotted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Splits]:
    """A run that is not evaluated, of a class with a hostile name."""
    splits = labelled()
    parts = (splits.train, splits.validation, splits.test)
    hostile = [dataclasses.replace(part, class_names=(NASTY, "plain")) for part in parts]
    splits = Splits(NASTY, hostile[0], hostile[1], hostile[2], notes=(NASTY,))
    run = Run(tmp_path_factory.mktemp("spotted") / "a & <b>")
    train("vae", splits, run.path, **SMALL)
    return run, splits


class Page(HTMLParser):
    """Checks that tags nest, and gathers what the tests ask for."""

    VOID = ("meta", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self) -> set[str]:
        found = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(found) == len(set(found)), "an id occurs twice"
        return {str(name) for name in found}


def test_every_model_has_its_sections_and_needs_nothing_else(
    reported: tuple[Run, str, set[str]],
) -> None:
    run, html, special = reported
    page = Page(html)
    assert page.ids >= set(SECTIONS) | special
    assert page.ids & {"manifold", "samples", "traversals"} == special
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "@import" not in html
    assert "url(" not in re.sub(r"url\(#clip-[a-z0-9-]+\)", "", html)
    sources = [image["src"] for image in page.all("img")]
    assert sources
    assert all(source and source.startswith("data:image/png;base64,") for source in sources)
    assert all(image["alt"] for image in page.all("img"))
    addresses = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, not a place
    assert len(html.encode()) < 3_000_000
    assert len(page.all("h1")) == 1
    assert "nan" not in page.text.lower().split()
    wanted = {"reconstructions.png", "latents.svg", "curves.svg"} | {
        f"{name}.png" for name in special
    }
    assert {path.name for path in run.figures.iterdir()} == wanted


def test_table_gives_the_figures_of_the_evaluation(reported: tuple[Run, str, set[str]]) -> None:
    run, html, _ = reported
    evaluation = read(run)
    cells = re.findall(r'<td class="number value">(.*?)</td>', html)
    shown = {unescape(cell) for cell in cells}
    assert len(cells) == len(evaluation.figures)
    for figure in evaluation.figures.values():
        assert str(figure).removesuffix(f" {figure.unit}") in shown
        assert figure.protocol in unescape(html)
    first = "elbo" if "elbo" in evaluation.figures else "mse"
    lead = str(evaluation.figures[first]).replace(" ± ", "\u00a0±\u00a0")
    heading = unescape(html[html.index("<h1>") : html.index("</h1>")])
    assert lead in heading
    assert unescape(cells[0]).replace(" ± ", "\u00a0±\u00a0") in heading


def test_structure_counts_every_parameter_once(reported: tuple[Run, str, set[str]]) -> None:
    run, html, _ = reported
    model = run.load_model()
    parts = structure(model)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert sum(part.parameters for part in parts) == total
    assert f"{total:,} parameters in all" in html
    encoder, decoder = parts[0].layers, parts[1].layers
    features = {"dirac": 1, "diagonal": 2, "full": 3}  # numbers for each of the dimensions; D = 3
    posterior = run.read_config().model.posterior
    assert encoder[-1].shape == str(features[posterior] * model.latent_dim)
    height, width = model.shape[1:]
    assert decoder[-1].shape.endswith(f"{height} × {width}")


def test_same_run_gives_the_same_page(spotted: tuple[Run, Splits]) -> None:
    run, splits = spotted
    first = write_report(run, splits).read_bytes()
    told: list[tuple[int, int]] = []
    torch.manual_seed(99)
    again = write_report(run, splits, progress=lambda *step: told.append(step)).read_bytes()
    assert first == again
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not list(run.path.glob(".*.part"))


def test_text_from_outside_is_escaped(spotted: tuple[Run, Splits]) -> None:
    run, splits = spotted
    html = write_report(run, splits).read_text(encoding="utf-8")
    assert "<script" not in html
    page = Page(html)
    assert page.text.count(NASTY) >= 5  # heading, facts, note, reconstructions, legend
    assert "a & <b>" in page.text
    svg = (run.figures / "latents.svg").read_text(encoding="utf-8")
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg


def test_unevaluated_run_says_so_with_the_command(spotted: tuple[Run, Splits]) -> None:
    run, splits = spotted
    page = Page(write_report(run, splits).read_text(encoding="utf-8"))
    last = run.read_log("epoch")[-1]["validation/elbo"]
    assert f"Validation ELBO after epoch 2: {last:.1f} nats".replace("-", "−") in page.text
    assert "vaelab evaluate" in page.text
    assert "not finished" not in page.text


class Stopper(Silent):
    """Asks for an end at the first logged step of the second epoch."""

    def step(self, step: int, epoch: int, speed: float, figures: Mapping[str, float]) -> None:
        if epoch == 1:
            signal.raise_signal(signal.SIGINT)


def test_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    run, splits = Run(tmp_path / "r"), labelled()
    with pytest.raises(Interrupted):
        train("vae", splits, run.path, progress=Stopper(), **{**SMALL, "epochs": 3, "log_every": 1})
    page = Page(write_report(run, splits).read_text(encoding="utf-8"))
    assert "Training is not finished (1 of 3 epochs, step " in page.text
    assert f"vaelab train --resume --out {run}" in page.text
    run.log_file.unlink()
    with pytest.raises(RunError, match=r"log\.jsonl: is missing, .* Restore it"):
        write_report(run, splits)
    run.state_file.unlink()
    assert "The log holds no step yet." in write_report(run, splits).read_text(encoding="utf-8")


def test_no_run_is_an_error_that_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"config\.yaml"):
        write_report(Run(tmp_path), labelled())
    assert list(tmp_path.iterdir()) == []


def test_pictures_hold_the_pixels_of_the_data(spotted: tuple[Run, Splits]) -> None:
    run, splits = spotted
    write_report(run, splits)
    picture = np.asarray(Image.open(run.figures / "reconstructions.png"))
    first = splits.test.images[int(shown(splits.test)[0]), 0]  # type: ignore[index]
    scale = -(-64 // 12)
    top = picture[4 : 4 + 12 * scale : scale, 4 : 4 + 10 * scale : scale, 0]
    np.testing.assert_array_equal(top, first)


def test_same_images_stand_for_all_in_every_run() -> None:
    labels = torch.tensor([2, 0, 1, 1, 0, 2, 2, 0])
    images = ImageSet(torch.zeros(8, 1, 2, 2, dtype=torch.uint8), labels, None, ("a", "b", "c"))
    assert shown(images, 6).tolist() == [1, 4, 2, 3, 0, 5]
    assert shown(images, 2).tolist() == [1, 2]
    assert shown(dataclasses.replace(images, labels=None), 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("error", "text"),
    [(0.5349, "0.53"), (9012.0, "9,000"), (0.000052, "0.000052"), (12.4, "12"), (0.0, "0"),
     (None, "–"), (1.0, "1.0"), (0.0996, "0.100")],
)  # fmt: skip
def test_standard_errors_have_two_digits(error: float | None, text: str) -> None:
    assert plain(error) == text


@pytest.mark.parametrize("theme", [palette.LIGHT, palette.DARK])
def test_text_is_readable(theme: dict[str, str]) -> None:
    for text, ground in palette.TEXT_ON_GROUND:
        assert palette.contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
    for color in palette.CLASS_COLORS:
        assert palette.contrast(color, theme["ground"]) >= 2.2, color
    assert palette.LIGHT.keys() == palette.DARK.keys()


def test_contrast_of_known_colours() -> None:
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert palette.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip


def oklab(color: str, sight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Coordinates in OKLab (Ottosson, 2020), times 100, as seen with a kind of sight."""
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lms = np.array(
        [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
         [0.0883024619, 0.2817188376, 0.6299787005]]
    ) @ np.clip(sight @ linear, 0, 1)  # fmt: skip
    lab = np.array(
        [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
         [0.0259040371, 0.7827717662, -0.8086757660]]
    )  # fmt: skip
    result: np.ndarray[Any, Any] = 100 * lab @ np.cbrt(lms)
    return result


@pytest.mark.parametrize("sight", SIGHT)
def test_class_colours_differ_for_every_sight(sight: str) -> None:
    colors = [oklab(color, SIGHT[sight]) for color in palette.CLASS_COLORS]
    nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(colors, 2))
    assert nearest > 8  # 2 is just noticeable side by side


def test_more_classes_than_colours_differ_by_shape() -> None:
    looks = {(palette.class_color(k), palette.class_marker(k)) for k in range(40)}
    assert len(looks) == 40
    assert palette.class_color(3) == palette.class_color(13)


def test_ticks_are_round_and_within() -> None:
    assert ticks(0, 860) == [0, 200, 400, 600, 800]
    assert ticks(-172.1, -131) == [-170, -160, -150, -140]
    assert ticks(0.02, 0.1) == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert number(-12_500) == "−12\u202f500"
    assert number(0.1 + 0.2) == "0.3"


def test_plot_puts_points_where_they_belong() -> None:
    plot = Plot((-4, 4), (-4, 4), (440, 440), (44, 8, 8, 40))
    assert plot.at(-4, -4) == (44, 400)
    assert plot.at(4, 4) == (432, 8)
    assert plot.at(0, 0) == (238, 204)


def entries(kind: str, **columns: list[float]) -> list[dict[str, Any]]:
    names = [name.replace("__", "/") for name in columns]
    return [
        {"kind": kind, **dict(zip(names, row, strict=True))}
        for row in zip(*columns.values(), strict=True)
    ]


def test_curves_have_a_panel_for_each_figure_and_one_for_another_loss() -> None:
    steps = entries(
        "step", step=[50, 100], loss=[210.0, 205.0], elbo=[-190.0, -180.0],
        distortion=[180.0, 170.0], rate=[10.0, 10.0],
    )  # fmt: skip
    titles = [
        re.findall(r'class="strong"[^>]*>(\w+)<', svg)[0] for svg in learning_curves(steps, [])
    ]
    assert titles == ["ELBO", "distortion", "rate", "loss"]
    same = [{**entry, "loss": -entry["elbo"]} for entry in steps]
    assert len(learning_curves(same, [])) == 3
    point = entries("step", step=[50, 100], loss=[5.0, 4.0], distortion=[5.0, 4.0])
    assert len(learning_curves(point, [])) == 1
    assert learning_curves([], []) == []


def test_curves_leave_out_what_is_not_finite() -> None:
    steps = entries("step", step=[50, 100, 150], loss=[9.0, 5.0, 4.0], distortion=[9.0, 5.0, 4.0])
    steps[1]["distortion"] = steps[1]["loss"] = None
    (panel,) = learning_curves(steps, [])
    assert panel.count("L", panel.index('class="training"')) >= 1
    assert "NaN" not in panel
    assert "from 9 to 4" in panel


def normal_latents(means: torch.Tensor, deviation: float) -> Latents:
    deviations = torch.full_like(means, deviation)
    prior = torch.randn(100, means.shape[1], generator=torch.Generator().manual_seed(0))
    return Latents(means, deviations, None, prior, True, None, (), len(means))


def test_aggregate_posterior_is_exact() -> None:
    """Two images at ±1 with σ = ½: mean 0, variance 1 + ¼, and density ½ (N(0; ±1, ½²)) at 0."""
    latents = normal_latents(torch.tensor([[1.0], [-1.0]]), 0.5)
    (plot,) = aggregate_plots(latents)
    assert "mean 0.00, s.d. 1.12" in plot
    (path,) = re.findall(r'class="histogram" d="M[\d.]+ ([\d.]+)([^"]*)"', plot)
    base = float(path[0])
    heights = [base - float(y) for y in re.findall(r"V([\d.]+)", path[1])][:-1]  # last: closes it
    edges = np.linspace(-4, 4, 49)
    from scipy.stats import norm

    mass = np.diff((norm.cdf(edges, 1, 0.5) + norm.cdf(edges, -1, 0.5)) / 2)
    expected = mass / mass.max() * max(heights)
    np.testing.assert_allclose(heights, expected, atol=0.11)  # a tenth of a pixel


def test_deviations_lie_on_a_log_scale() -> None:
    plot = deviations_plot(normal_latents(torch.zeros(3, 1), 0.1))
    (dot,) = re.findall(r'class="points" d="M([\d.]+) ', plot)
    (line,) = re.findall(r'class="prior" d="M([\d.]+) ', plot)
    marks = dict(re.findall(r'<text class="tick middle" x="([\d.]+)" y="[\d.]+">([^<]+)<', plot))
    assert marks[dot] == "0.1"
    assert marks[line] == "1"


def test_map_has_one_extent_for_all_runs() -> None:
    circles = re.compile(r'<circle class="prior"[^>]* r="([\d.]+)"')
    near, far = (normal_latents(s * torch.eye(2).repeat(5, 1), 0.1) for s in (0.5, 3.5))
    assert circles.findall(latent_map(near)) == circles.findall(latent_map(far))
    radii = [float(r) for r in circles.findall(latent_map(near))]
    assert radii == pytest.approx([388 / 8, 388 / 4], abs=0.1)


def test_latents_are_those_of_the_model() -> None:
    splits = labelled()
    model: Vae = train("vae", splits, **{**SMALL, "latent_dim": 3, "epochs": 1})
    latents = find_latents(model, splits.test)
    images = splits.test.take(torch.arange(len(splits.test)))
    means, deviations = model.posterior(images)
    torch.testing.assert_close(latents.means, means)
    torch.testing.assert_close(latents.deviations, deviations)
    kl = 0.5 * (means**2 + deviations**2 - 1) - deviations.log()
    assert latents.kl is not None
    torch.testing.assert_close(latents.kl.float(), kl.mean(0))
    assert latents.order == kl.mean(0).argsort(descending=True).tolist()
    few = find_latents(model, splits.test, limit=4)
    torch.testing.assert_close(few.means, means[[0, 3, 6, 9]])
    assert few.total == len(splits.test)


def test_images_of_another_shape_are_an_error(spotted: tuple[Run, Splits]) -> None:
    with pytest.raises(DataError, match=r"\(1, 8, 8\) do not fit a model of \(1, 12, 10\)"):
        write_report(spotted[0], labelled(height=8, width=8))


def test_diverged_model_is_an_error() -> None:
    splits = labelled(n=20)
    model = train("vae", splits, **{**SMALL, "epochs": 1})
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(RunError, match="diverged"):
        find_latents(model, splits.test)


def test_large_images_are_averaged_and_the_page_stays_small(tmp_path: Path) -> None:
    images = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 1, 130, 6)
    assert reduced(images).flatten().unique().tolist() == [1.0, 4.0]  # 130 > 2 · 64: blocks of 3
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (20, 150, 100, 3), dtype=np.uint8)
    run, splits = Run(tmp_path / "r"), load_data(noise)
    train("vae", splits, run.path, **{**SMALL, "latent_dim": 3, "epochs": 1})
    page = write_report(run, splits)
    assert page.stat().st_size < 3_000_000
    assert "sides of at most 64 pixels" in page.read_text(encoding="utf-8")


def test_damaged_evaluation_is_an_error(spotted: tuple[Run, Splits]) -> None:
    run, _ = spotted
    run.evaluation_file.write_text(json.dumps({"figures": {}}))
    try:
        with pytest.raises(RunError, match="damaged"):
            write_report(run, spotted[1])
    finally:
        run.evaluation_file.unlink()
