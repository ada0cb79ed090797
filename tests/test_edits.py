"""Edits, transfers and directions from the command line and Python, and what a page shows of them.

Images are `shades`: the right half tells the class, the left half the attribute.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import vaelab
from tests.test_cli import vaelab as cli
from tests.test_conditional import QUICK, pixels, shades
from tests.test_report import Page
from vaelab.data.images import ImageSet, Splits, with_few_labels, with_labels
from vaelab.errors import ConfigError
from vaelab.evaluation import probes
from vaelab.explore.edits import strips, transferred, walks
from vaelab.explore.grids import GAP
from vaelab.models.vae import Vae
from vaelab.report import words
from vaelab.report.labelled import GRID, labelled_sections
from vaelab.report.palette import class_color
from vaelab.report.pictures import Picture
from vaelab.report.plot import Plot
from vaelab.training.judge import GUIDES, trained_judge

RUNS: dict[str, dict[str, Any]] = {
    "csvae": {"epochs": 24, "lr": 0.003},  # at 0.01 a run in a few is stuck
    "cvae": {"epochs": 6, "dropout": 0.1},
    "vae": {"epochs": 6, "latent_dim": 3},
    "told": {"epochs": 6},  # a cvae that always knew
    "bare": {"epochs": 1},  # a vae of images without attributes
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images as two files, with attributes and without."""
    path, parts = (
        tmp_path_factory.mktemp("edits"),
        shades(1200),
    )  # many images, few epochs: each is saved
    sets = (parts.train, parts.validation, parts.test)
    whole: dict[str, Any] = {
        "images": torch.cat([pixels(each) for each in sets]).numpy(),
        "labels": torch.cat([each.labels for each in sets if each.labels is not None]).numpy(),
        "class_names": np.array(["dark", "bright"]),
    }
    left = torch.cat([each.attributes for each in sets if each.attributes is not None]).numpy()
    np.savez(path / "shades.npz", **whole, attributes=left, attribute_names=np.array(["left"]))
    np.savez(path / "bare.npz", **whole)
    return path


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Path]:
    """A trained run of every kind."""
    found = {}
    for name, settings in RUNS.items():
        data = folder / ("bare.npz" if name == "bare" else "shades.npz")
        recipe = {"told": "cvae", "bare": "vae"}.get(name, name)
        found[name] = folder / "runs" / name
        vaelab.train(recipe, data, found[name], **{**QUICK, **settings})
    return found


def own(run: Path) -> Splits:
    config = vaelab.load(run).config
    assert config is not None
    return vaelab.load_data(config.data.spec)


def halves(images: Any) -> tuple[Tensor, Tensor]:
    """The mean of the left and of the right half of images, in [0, 1]."""
    x = torch.as_tensor(images).float()
    x = x / 255 if x.max() > 1 else x
    return x[..., :4].mean((1, 2, 3)), x[..., 4:].mean((1, 2, 3))


def cell(path: Path, row: int, column: int, scale: int = 8) -> np.ndarray[Any, Any]:
    """The pixels of one image of a grid of images of 8 × 8."""
    sheet = np.asarray(Image.open(path))[..., 0]
    step = 8 * scale + GAP
    top, left = GAP + row * step, GAP + column * step
    return sheet[top : top + 8 * scale : scale, left : left + 8 * scale : scale]


def test_samples_of_a_class_and_an_attribute(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.npz"
    command = ["sample", str(runs["cvae"]), "--n", "40", "--out", str(out)]
    asked = ["--label", "bright", "--given", "left=0"]
    model = vaelab.load(runs["cvae"])
    for guidance, seed in ((1.0, 0), (2.5, 3)):
        more = ["--guidance", str(guidance), "--seed", str(seed)]
        assert cli(capsys, *command, *asked, *more)[0] == 0
        torch.manual_seed(seed)
        expected = model.sample(40, guidance=guidance, label="bright", left=0.0)
        np.testing.assert_allclose(np.load(out)["images"] / 255, expected, atol=0.51 / 255)
        torch.manual_seed(seed)
        other = model.sample(40, guidance=guidance, label="dark", left=0.0)
        assert halves(expected)[1].mean() > halves(other)[1].mean() + 0.05
    made = runs["cvae"] / "figures" / "samples.png"
    assert not made.exists()
    code, said, _ = cli(
        capsys, "--json", "sample", str(runs["cvae"]), "--label", "dark", "--n", "4"
    )
    assert code == 0
    assert json.loads(said) == {"out": str(made), "images": 4}
    made.unlink()


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        ("cvae", ["sample", "--label", "grey"], "no class 'grey'. Classes: dark, bright."),
        ("cvae", ["sample", "--given", "lef=1"], "Did you mean left? Known: label, left."),
        ("cvae", ["sample", "--given", "left"], "--given left: write NAME=NUMBER"),
        ("cvae", ["sample", "--given", "left=on"], "--given left=on: write NAME=NUMBER"),
        ("cvae", ["sample", "--given", "left=inf"], "left: is infinite"),
        ("vae", ["sample", "--given", "left=1"], "only the prior of a conditional model"),
        ("vae", ["sample", "--sampler", "prior", "--label", "dark"], "the prior knows no classes"),
        ("vae", ["sample", "--guidance", "2"], "guidance: needs a conditional model that was also"),
        ("told", ["sample", "--guidance", "2", "--label", "dark"], "options.dropout=0.1"),
        ("csvae", ["edit", "-a", "lef"], "lef: this model has no subspace for it. Known: left."),
        ("cvae", ["edit", "-a", "lef"], "Did you mean left?"),
        ("vae", ["edit", "-a", "lef"], "Did you mean left?"),
        ("vae", ["edit", "--how", "pca"], "use difference or logistic"),
        ("bare", ["edit"], "the images have no attributes. Some can be measured"),
        ("csvae", ["edit", "--to", "2"], "--to"),
        ("csvae", ["edit", "--split", "exam"], "choose train, validation or test"),
        (
            "csvae",
            ["transfer", "--from", "120"],
            "--from 120: there are 120 images, numbered from 0.",
        ),
        ("csvae", ["transfer", "--to", "999"], "--to 999: there are 120 images"),
        ("csvae", ["transfer", "-a", "lef"], "lef: this model has no subspace for it. Known: left"),
        ("cvae", ["transfer"], "left: the code of this model does not hold it"),
        ("bare", ["directions"], "the images have no attributes"),
        ("bare", ["evaluate", "--attributes", "--samples", "2"], "the images have no attributes"),
        ("vae", ["directions", "--how", "pca"], "use difference or logistic"),
        ("vae", ["directions", "--out", "d.png"], "d.png: cannot write '.png'. Use .npz"),
    ],
)
def test_what_cannot_be_done_gets_a_line(
    run: str,
    arguments: list[str],
    message: str,
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *rest = arguments
    code, out, err = cli(capsys, command, str(runs[run]), *rest)
    assert code in (1, 2)
    assert message in " ".join(err.split()), err
    assert "Traceback" not in out + err
    assert not list(tmp_path.iterdir())
    assert not (runs[run] / "figures").exists() or not list((runs[run] / "figures").iterdir())


@pytest.mark.parametrize("run", ["csvae", "cvae", "vae"])
def test_an_edit_is_written_beside_its_image(
    run: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of image, reconstruction, edit; the left half goes where it is to, the right stays."""
    out = tmp_path / "e.npz"
    command = ["edit", str(runs[run]), "-a", "left", "--n", "12"]
    assert cli(capsys, *command, "--to", "1", "--out", str(out))[0] == 0
    made = np.load(out)["images"].reshape(12, 3, 1, 8, 8)
    images = pixels(own(runs[run]).test)[:12]
    np.testing.assert_array_equal(made[:, 0], images)
    model = vaelab.load(runs[run])
    np.testing.assert_allclose(made[:, 1] / 255, model.reconstruct(images), atol=0.51 / 255)
    assert halves(made[:, 2])[0].mean() == pytest.approx(0.8, abs=0.12)
    kept = (halves(made[:, 2])[1] > 0.5) == (halves(images)[1] > 0.5)
    assert kept.float().mean() >= 11 / 12
    assert cli(capsys, *command, "--strength", "0", "--out", str(out))[0] == 0
    still = np.load(out)["images"].reshape(12, 3, 1, 8, 8)
    np.testing.assert_array_equal(still[:, 2], still[:, 1])
    picture = tmp_path / "e.png"
    assert cli(capsys, *command, "--out", str(picture))[0] == 0
    np.testing.assert_array_equal(cell(picture, 0, 3), images[1, 0])  # four strips of three a row
    np.testing.assert_array_equal(cell(picture, 1, 0), images[4, 0])


def test_images_to_edit_need_no_attributes(
    runs: dict[str, Path], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["edit"], ["transfer", "--data"], ["reconstruct", "--data"]):
        name, *option = command
        out = tmp_path / f"{name}.npz"
        data = [*option, str(folder / "bare.npz")]
        code, _, err = cli(capsys, name, str(runs["csvae"]), *data, "--out", str(out))
        assert code == 0, err
        np.testing.assert_array_equal(np.load(out)["images"][0], pixels(own(runs["csvae"]).test)[0])


def test_a_transfer_takes_the_subspace_over_and_nothing_else(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = own(runs["csvae"]).test
    assert test.attributes is not None
    lit = int((test.attributes[:, 0] == 1).nonzero()[0])
    unlit = int((test.attributes[:, 0] == 0).nonzero()[0])
    out = tmp_path / "t.npz"
    command = ["transfer", str(runs["csvae"]), "--from", str(lit), "--to", str(unlit)]
    assert cli(capsys, *command, "--out", str(out))[0] == 0
    made = np.load(out)["images"]
    pair = pixels(test)[[lit, unlit]]
    np.testing.assert_array_equal(made[:2], pair)
    assert float(halves(made)[0][2]) == pytest.approx(0.8, abs=0.12)
    assert (halves(made)[1][2] > 0.5) == (halves(pair)[1][1] > 0.5)
    assert cli(capsys, *command)[0] == 0
    figure = runs["csvae"] / "figures" / "transfer-left.png"
    np.testing.assert_array_equal(cell(figure, 0, 1), pair[1, 0])
    figure.unlink()


def test_what_is_transferred_is_a_part_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vaelab.train("csvae", shades(), **{**QUICK, "epochs": 1})
    decoded: list[Tensor] = []

    def keep(codes: Tensor, context: Tensor) -> Tensor:
        decoded.append(codes)
        return torch.zeros(len(codes), 1, 8, 8)

    images = pixels(shades().test)
    source, target = images[:6], images[6:12]
    given, taken = model.encode(target), model.encode(source)
    monkeypatch.setattr(model, "decoded", keep)
    transferred(model, source, target, "left")
    dims = model.subspace("left").dims
    torch.testing.assert_close(decoded[0][:, dims], taken[:, dims])
    rest = [d for d in range(model.latent_dim) if d not in range(dims.start, dims.stop)]
    torch.testing.assert_close(decoded[0][:, rest], given[:, rest])
    assert not torch.equal(given[:, dims], taken[:, dims])


def test_strips_and_walks_are_the_edits_that_python_makes(runs: dict[str, Path]) -> None:
    model = vaelab.load(runs["csvae"])
    x = pixels(own(runs["csvae"]).test)[:5]
    strip = strips(model, x, "left", to=0.0, strength=0.5)
    torch.testing.assert_close(strip[:, 0], x / 255)
    torch.testing.assert_close(strip[:, 1], model.reconstruct(x))
    torch.testing.assert_close(strip[:, 2], model.edit(x, "left", 0.0, 0.5))
    walk = walks(model, x, "left", ends=(0.0, 0.25, 1.0))
    assert walk.shape == (5, 4, 1, 8, 8)
    for place, end in enumerate((0.0, 0.25, 1.0), 1):
        torch.testing.assert_close(walk[:, place], model.edit(x, attribute="left", to=end))
    each = model.edit(x, "left", torch.tensor([0.0, 1, 0, 1, 0.25]))
    torch.testing.assert_close(each, walk[range(5), [1, 3, 1, 3, 2]])
    space = model.subspace("left")
    codes = model.encode(x)
    torch.testing.assert_close(space.of(codes), codes[:, 1:3])
    moved = space.move(codes, torch.ones(5), 2.0)
    torch.testing.assert_close(moved[:, 1:3], 2 * 3.0 - codes[:, 1:3])  # as far beyond as before
    torch.testing.assert_close(moved[:, :1], codes[:, :1])


def test_strength_of_a_conditional_model_starts_at_its_reconstruction(
    runs: dict[str, Path],
) -> None:
    model, x = vaelab.load(runs["told"]), pixels(own(runs["told"]).test)
    torch.testing.assert_close(model.edit(x, "left", 1.0, 0.0), model.reconstruct(x))
    half, whole, beyond = (halves(model.edit(x, "left", 1.0, s))[0] for s in (0.5, 1.0, 2.0))
    dark = halves(x)[0] < 0.5
    assert (half[dark] < whole[dark]).all()
    assert beyond[dark].mean() > whole[dark].mean()


def test_directions_are_kept_and_shown(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = cli(capsys, "--json", "directions", str(runs["vae"]), "--n", "3")
    assert code == 0
    figures = runs["vae"] / "figures"
    said = json.loads(out)
    assert said == {
        "out": str(figures / "directions.npz"),
        "pictures": [str(figures / "direction-left.png")],
    }
    model, splits = vaelab.load(runs["vae"]), own(runs["vae"])
    codes = model.encode(pixels(splits.train))
    assert splits.train.attributes is not None
    on = splits.train.attributes[:, 0] == 1
    apart = codes[on].mean(0) - codes[~on].mean(0)
    vector = torch.from_numpy(np.load(said["out"])["left"])
    torch.testing.assert_close(vector, apart / apart.norm(), atol=1e-4, rtol=1e-3)
    images = pixels(splits.test)
    for row in range(3):
        np.testing.assert_array_equal(cell(Path(said["pictures"][0]), row, 0), images[row, 0])
    for path in figures.iterdir():
        path.unlink()


def test_an_attribute_with_a_path_for_a_name_stays_in_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = dict(np.load(folder / "shades.npz"))
    arrays["attribute_names"] = np.array(["../../left or <right>"])
    np.savez(folder / "odd.npz", **arrays)
    run = folder / "odd" / "deep" / "run"
    vaelab.train("csvae", folder / "odd.npz", run, **{**QUICK, "epochs": 1})
    before = {path for path in folder.rglob("*") if run not in path.parents}
    assert cli(capsys, "edit", str(run))[0] == 0
    assert cli(capsys, "directions", str(run))[0] == 0
    assert cli(capsys, "report", str(run))[0] == 0
    names = {path.name for path in (run / "figures").glob("*left*")}
    assert names == {"edit-left-or-right.png", "direction-left-or-right.png"}
    assert {path for path in folder.rglob("*") if run not in path.parents} == before
    html = (run / "report.html").read_text()
    assert "<right>" not in html
    assert "Attribute: ../../left or &lt;right&gt;" in html
    Page(html)


def test_attributes_are_measured_from_the_command_line(
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(probes, "STEPS", 100)
    monkeypatch.setattr(probes, "EPOCHS", 1)
    command = ["--json", "evaluate", str(runs["csvae"]), "--samples", "2", "--attributes"]
    code, out, err = cli(capsys, *command)
    assert code == 0, err
    figures = json.loads(out)["figures"]
    names = (
        "switch",
        "kept",
        "drift",
        "probe",
        "probe_inferred",
        "probe_linear",
        "probe_alone",
        "probe_w",
        "probe_w_inferred",
        "gap",
    )
    assert {f"{name}:left" for name in names} | {"elbo"} <= figures.keys()
    assert figures["switch:left"]["n"] == 120
    kept = json.loads((runs["csvae"] / "evaluation.json").read_text())["figures"]
    assert kept["switch:left"]["value"] == figures["switch:left"]["value"]
    judges = sorted((tmp_path / "cache" / "classifiers").iterdir())
    assert (
        len([path for path in judges if path.is_dir()]) == 6
    )  # three of the side, and three of the class
    assert err.count("Training a reference classifier (") == 6
    code, out, err = cli(capsys, *command[1:])
    assert "Edits that switch the attribute, left  " in out
    assert "probe_w_inferred" not in out
    assert "Training a reference" not in err  # it is kept
    (runs["csvae"] / "evaluation.json").unlink()


def test_judges_are_kept_by_seed_and_by_labels(tmp_path: Path) -> None:
    """Twice the same is trained once; who guides is not who measures; other labels, another."""
    splits = own_small()
    first = trained_judge(splits, tmp_path)
    weights = next(tmp_path.rglob("model.safetensors"))
    before = weights.stat().st_mtime_ns, weights.read_bytes()
    again = trained_judge(splits, tmp_path)
    assert (weights.stat().st_mtime_ns, weights.read_bytes()) == before
    assert again.name == first.name
    x = pixels(splits.test)
    assert torch.equal(again.classifier.predict(x), first.classifier.predict(x))
    guide = trained_judge(splits, tmp_path, seed=GUIDES)
    assert not torch.equal(guide.classifier.predict(x), first.classifier.predict(x))
    assert guide.name != first.name

    def turned(images: ImageSet) -> ImageSet:
        assert images.labels is not None
        return dataclasses.replace(images, labels=1 - images.labels)

    parts = (turned(splits.train), turned(splits.validation), turned(splits.test))
    trained_judge(Splits(splits.name, *parts), tmp_path)
    folders = [path for path in (tmp_path / "classifiers").iterdir() if path.is_dir()]
    assert len(folders) == 3
    assert [path.name for path in folders if path.name.endswith(f"-guide-{GUIDES}")] != []
    assert (weights.stat().st_mtime_ns, weights.read_bytes()) == before


def test_a_judge_of_few_images_is_sure_of_their_classes(tmp_path: Path) -> None:
    """A dozen images in a few passes of one step each would teach it nothing."""
    splits = own_small()
    few = with_labels(with_few_labels(splits.train, 12, 0))
    judge = trained_judge(dataclasses.replace(splits, train=few), tmp_path).classifier
    assert splits.test.labels is not None
    chances = judge.predict(pixels(splits.test)).cpu()
    right = chances[torch.arange(len(chances)), splits.test.labels.cpu()]
    assert float(right.median()) > 0.8


def own_small() -> Splits:
    splits = shades(80)
    return dataclasses.replace(splits, name="few shades")


def test_sections_are_those_that_a_model_has(runs: dict[str, Path]) -> None:
    found = {}
    for name, path in runs.items():
        sections = labelled_sections(vaelab.load(path), own(path).test)
        found[name] = [(each.key, len(each.figures)) for each in sections]
    assert found == {
        "csvae": [("classes", 1), ("attribute-left", 3)],  # scatter, plane and strips
        "cvae": [("classes", 1), ("attribute-left", 1)],
        "told": [("classes", 1), ("attribute-left", 1)],
        "vae": [],
        "bare": [],
    }


def test_what_a_page_shows_of_an_attribute(runs: dict[str, Path]) -> None:
    model, splits = vaelab.load(runs["csvae"]), own(runs["csvae"])
    classes, attribute = labelled_sections(model, splits.test)
    assert classes.title == "Samples by class"
    assert "(dark, bright)" in classes.figures[0][1]
    assert "12 samples of each of 2 classes" in getattr(classes.figures[0][0], "alt", "")
    assert attribute.title == "Attribute: left"
    (scatter, about), (plane, over), (_, edits) = attribute.figures
    assert "means of q(w|x)" in about
    assert "w₀ from −1.5 to 4.5 to the right, w₁ upwards" in over  # means 0 and 3, 1.5 σ beyond
    assert "same with left from −½ to 1½ in steps of ¼" in edits
    _check_scatter(str(scatter), model, splits.test)
    assert isinstance(plane, Picture)
    _check_plane(plane, model, splits.test)


def test_a_page_counts_the_dimensions_of_subspaces(runs: dict[str, Path]) -> None:
    model, splits = vaelab.load(runs["csvae"]), own(runs["csvae"])
    assert model.config is not None
    plain = model.config.model.latent_dim
    assert model.latent_dim == plain + 2
    divided = f"({plain} + 2 for the attribute)"
    heading = words.summary(model.config, splits, model)
    assert f"csvae with {plain + 2} latent dimensions {divided} · " in heading
    facts = dict(words.facts(model.config, splits, model, [], []))
    assert facts["Posterior q(z|x)"].endswith(f", {plain + 2}-dimensional {divided}")
    other = vaelab.load(runs["vae"])
    assert words.dimensions(other) == ""


def _check_scatter(svg: str, model: Vae, test: ImageSet) -> None:
    """Every image is a dot at its w, in the colour of its side; circles at the priors."""
    plot = Plot((-3, 6), (-3, 6), (440, 440), (44, 8, 8, 40))
    w = model.encode(pixels(test))
    assert test.attributes is not None
    assert test.labels is not None
    w = model.subspace("left").of(
        model.encode(pixels(test), label=test.labels, left=test.attributes[:, 0])
    )
    for side in (0, 1):
        paths = re.findall(rf'd="([^"]*)" style="stroke:{class_color(side)}', svg)
        seen = re.findall(r"M([\d.-]+) ([\d.-]+)", " ".join(paths))
        inside = w[test.attributes[:, 0] == side].tolist()
        wanted = [tuple(f"{value:.1f}" for value in plot.at(*point)) for point in inside]
        assert sorted(seen) == sorted(wanted), side
    circles = re.findall(r'class="prior" cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"', svg)
    unit = plot.at(1, 0)[0] - plot.at(0, 0)[0]
    assert [float(r) for *_, r in circles] == pytest.approx([unit, 2 * unit] * 2, abs=0.06)
    x, y = plot.at(3, 3)
    assert [float(value) for value in circles[2][:2]] == pytest.approx([x, y], abs=0.06)


def _check_plane(plane: Picture, model: Vae, test: ImageSet) -> None:
    """A corner of the grid is the image with w at that corner: bright at the upper right."""
    import io

    sheet = np.asarray(Image.open(io.BytesIO(plane.png)))[..., 0]
    step = (sheet.shape[0] - GAP) // GRID
    first = pixels(test)[:1]
    codes = model.encode(first)
    for row, column, w in ((0, 0, (-1.5, 4.5)), (0, GRID - 1, (4.5, 4.5)), (8, 0, (-1.5, -1.5))):
        corner = codes.clone()
        corner[0, 1:3] = torch.tensor(w)
        expected = model.decoded(corner, model.context_of(first))
        top, left = GAP + row * step, GAP + column * step
        scale = (step - GAP) // 8
        shown = sheet[top : top + 8 * scale : scale, left : left + 8 * scale : scale]
        np.testing.assert_allclose(shown / 255, expected[0, 0], atol=0.51 / 255)


def test_a_page_holds_the_sections(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(capsys, "report", str(runs["csvae"]))[0] == 0
    page = Page((runs["csvae"] / "report.html").read_text(encoding="utf-8"))
    assert {"classes", "attribute-left", "samples", "traversals"} <= page.ids
    for path in (runs["csvae"] / "figures").iterdir():
        path.unlink()


def test_python_says_what_a_model_does_not_hold(runs: dict[str, Path]) -> None:
    x = pixels(own(runs["vae"]).test)[:2]
    with pytest.raises(ConfigError, match="train one with: vaelab train csvae"):
        vaelab.load(runs["vae"]).subspace("left")
    with pytest.raises(ConfigError, match="this model was trained without labels"):
        vaelab.load(runs["vae"]).edit(x, "left")
    with pytest.raises(ConfigError, match=r"size: this model has no subspace for it\. Known: left"):
        vaelab.load(runs["csvae"]).edit(x, "size")
    with pytest.raises(ConfigError, match="left: is infinite"):
        vaelab.load(runs["cvae"]).sample(2, left=float("inf"))
