"""The explorer in a real browser: hands, keys, colours, files, and what assistive software sees."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.browser import missing
from tests.conftest import SMALL, blobs
from vaelab.api import load, train, write_explorer
from vaelab.data.images import ImageSet, Splits
from vaelab.explorer.graph import rounded
from vaelab.models.mixture import LatentMixture
from vaelab.training.run import Run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AXE = Path(__file__).parent.parent / "node_modules" / "axe-core" / "axe.min.js"
CLOSE = 1e-3
Box = dict[str, float]


def labelled_spots(channels: int = 1) -> Splits:
    """Spots with two classes and a binary attribute: whether the spot is in the upper half."""
    images = torch.from_numpy(blobs(90, channels=channels))
    rows = images.float().sum((1, 3)).argmax(1).float()
    labels = torch.arange(90) % 2
    attributes = (rows < 6).float()[:, None]
    whole = ImageSet(images, labels, attributes, ("even", "odd"), ("high",))
    parts = [whole.subset(torch.arange(*ends)) for ends in ((0, 60), (60, 70), (70, 90))]
    return Splits("spots", parts[0], parts[1], parts[2])


MODELS: dict[str, tuple[str, dict[str, Any], int]] = {
    "plain": ("vae", {"latent_dim": 4}, 1),
    "labels": ("cvae", {"latent_dim": 2, "given": ["label", "high"], "dropout": 0.1}, 1),
    "handles": ("csvae", {"latent_dim": 2, "attributes": ["high"]}, 1),
    "colour": ("vae", {"latent_dim": 1, "likelihood": "gaussian", "output": "sigmoid"}, 3),
    "point": ("ae", {"latent_dim": 3}, 1),
    "flow": ("vae", {"latent_dim": 2, "posterior": "flow", "prior": "nsf"}, 1),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every model's page."""
    folder = tmp_path_factory.mktemp("explorer")
    made = {}
    for name, (recipe, settings, channels) in MODELS.items():
        splits = labelled_spots(channels)
        train(recipe, splits, out=folder / name, **{**SMALL, "epochs": 3, **settings})
        made[name] = write_explorer(folder / name, splits)
    for name in ("plain", "labels"):  # again, with samples from elsewhere than the prior
        run = folder / f"{name}-mixture"
        shutil.copytree(folder / name, run)
        model = load(run)
        model.mixture, model.samples_from = mixture(model.latent_dim, model.classes), "From two."
        Run(run).save_sampler(model, {})
        made[run.name] = write_explorer(run, labelled_spots())
    return made


def mixture(dims: int, classes: int) -> LatentMixture:
    """Two normals, far from each other and from the prior, with dimensions that go together."""
    generator = torch.Generator().manual_seed(4)
    roots = torch.tril(0.4 * torch.randn(2, dims, dims, generator=generator))
    means = torch.stack([torch.full((dims,), -9.0), torch.arange(7.0, 7 + dims)])
    return LatentMixture(torch.tensor([0.25, 0.75]), means, roots, torch.eye(2)[:classes])


@pytest.fixture
def opened(browser: Browser, pages: dict[str, Path]) -> Iterator[Any]:
    """Open the page of a model; nothing may be said on the console, and nothing loaded."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_page(name: str = "plain", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{pages[name]}")
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def settled(page: Page) -> None:
    """Wait until two frames have been drawn."""
    page.evaluate("() => new Promise((f) => requestAnimationFrame(() => requestAnimationFrame(f)))")


def until(page: Page, expression: str) -> None:
    """Wait for something to hold; Playwright's own way would evaluate text, which is forbidden."""
    for _ in range(400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {expression}")


def code(page: Page) -> list[float]:
    found: list[float] = page.evaluate("Array.from(explorer.code)")
    return found


def shown(page: Page, canvas: str = "decoded") -> np.ndarray[Any, Any]:
    """Return the grey values of a canvas, (H, W)."""
    data = page.evaluate(
        f"""() => {{ const c = document.getElementById("{canvas}");
        const image = c.getContext("2d").getImageData(0, 0, c.width, c.height);
        return [c.width, c.height, ...image.data] }}"""
    )
    return np.array(data[2:]).reshape(data[1], data[0], 4)[..., 0] / 255


def box_of(page: Page, selector: str) -> Box:
    found = page.locator(selector).bounding_box()
    assert found is not None
    return {key: float(value) for key, value in found.items()}


def decoded(path: Path, z: list[float], **given: Any) -> np.ndarray[Any, Any]:
    """Return what PyTorch decodes, with the weights of the page, (H, W)."""
    model = rounded(load(path.parent)).eval()
    image: np.ndarray[Any, Any] = model.generate(torch.tensor([z]), **given)[0, 0].numpy()
    return image


def test_dragging_decodes_what_is_under_the_hand(opened: Any, pages: dict[str, Path]) -> None:
    page = opened()
    before = code(page)
    box = box_of(page, "#map")
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.down()
    for step in range(1, 6):
        page.mouse.move(box["x"] + 300 + 20 * step, box["y"] + 200 + 30 * step)
    settled(page)
    after = code(page)
    page.mouse.up()
    across, up = (int(page.input_value(f"#{name}")) for name in ("across", "up"))
    expected = page.evaluate("explorer.map.toMap([399, 349])")  # the border is 1 pixel wide
    assert [after[across], after[up]] == pytest.approx(expected, abs=1e-3)
    others = [d for d in range(4) if d not in (across, up)]
    assert [after[d] for d in others] == pytest.approx([before[d] for d in others])
    error = np.abs(shown(page) - decoded(pages["plain"], after))
    assert error.max() < CLOSE + 0.5 / 255  # of 8-bit pixels


def test_pressing_a_point_goes_on_from_its_image(opened: Any) -> None:
    page = opened()
    box = box_of(page, "#map")
    x, y = page.evaluate("explorer.map.toPage(explorer.map.layout.points[7])")
    page.mouse.move(box["x"] + x + 1, box["y"] + y + 1)
    assert page.locator("#card").is_visible()
    assert "test image" in page.inner_text("#card-title")
    page.mouse.down()
    page.mouse.up()
    settled(page)
    near = page.evaluate("explorer.map.nearest(explorer.map.toPage(explorer.at), 3)")
    assert code(page) == pytest.approx(
        page.evaluate(f"Array.from(explorer.codes[{near}])"), abs=5e-3
    )


def test_sliders_are_ordered_by_rate_and_move_their_dimension(opened: Any) -> None:
    page = opened()
    order, rates = page.evaluate("[explorer.held.dimensions.order, explorer.held.dimensions.rates]")
    assert [rates[d] for d in order] == sorted(rates, reverse=True)
    inputs = page.locator(":is(#sliders, #dead-sliders) input")
    names = inputs.evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    subscripts = "₀₁₂₃"
    assert [name.split(",")[0] for name in names] == [f"z{subscripts[d]}" for d in order]
    page.evaluate("document.getElementById('dead').open = true")
    before = code(page)
    inputs.first.fill("1.5")
    settled(page)
    after = code(page)
    assert after[order[0]] == pytest.approx(1.5, abs=0.02)
    assert [after[d] for d in order[1:]] == [before[d] for d in order[1:]]


def test_keys_move_the_cursor(opened: Any) -> None:
    page = opened()
    page.focus("#map")
    start = page.evaluate("explorer.map.toPage(explorer.at)")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowRight")
    settled(page)
    moved = page.evaluate("explorer.map.toPage(explorer.at)")
    assert moved == pytest.approx([start[0] + 9, start[1] - 8], abs=0.05)
    half = page.evaluate("explorer.map.view.half")
    page.keyboard.press("+")
    assert page.evaluate("explorer.map.view.half") == pytest.approx(half / 1.25)
    page.keyboard.press("0")
    assert page.evaluate("explorer.map.view.half") == pytest.approx(half)
    page.keyboard.press("Enter")
    settled(page)
    codes = page.evaluate("explorer.codes.map(z => Array.from(z))")
    assert np.abs(np.array(codes) - code(page)).max(1).min() < 5e-3
    until(page, "document.getElementById('said').textContent.includes('test image')")


def test_a_drawing_is_encoded_where_it_is_made(opened: Any, pages: dict[str, Path]) -> None:
    page = opened()
    page.click("#clear")
    box = box_of(page, "#sketch")
    page.mouse.move(box["x"] + 30, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 70, steps=4)
    page.mouse.up()
    settled(page)
    seen = shown(page, "seen")
    assert 0.3 < seen.max() <= 1
    model = rounded(load(pages["plain"].parent)).eval()
    image = torch.from_numpy(seen).float()[None, None]
    mean, deviation = model.posterior(image)
    assert code(page) == pytest.approx(mean[0].tolist(), abs=0.02)  # 8-bit rounding of what is seen
    spread = page.evaluate("explorer.posterior.spread.map((s, d) => s[d])")
    assert spread == pytest.approx(deviation[0].tolist(), abs=0.02)
    error = np.abs(shown(page, "again") - model.reconstruct(image)[0, 0].numpy())
    assert error.max() < 0.03


def test_an_image_file_is_opened_and_others_are_refused(opened: Any, tmp_path: Path) -> None:
    page = opened("colour")
    picture = blobs(1, 24, 20, 3)[0].transpose(1, 2, 0)
    Image.fromarray(picture).save(tmp_path / "a.png")
    page.set_input_files("#file", tmp_path / "a.png")
    until(page, "document.getElementById('source').textContent === 'Your image.'")
    small = picture.reshape(12, 2, 10, 2, 3).mean((1, 3))[..., 0] / 255
    assert np.abs(shown(page, "seen") - small).max() < 0.06
    (tmp_path / "b.txt").write_text("no image")
    page.set_input_files("#file", tmp_path / "b.txt")
    until(page, "document.getElementById('wrong').textContent.includes('no image')")


GIVEN = """async ([kind, bytes]) => {
  const carried = new DataTransfer();
  carried.items.add(new File([new Uint8Array(bytes)], "a.png", {type: "image/png"}));
  const target = document.querySelector("h1");
  target.dispatchEvent(kind === "drop"
    ? new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true})
    : new ClipboardEvent("paste", {clipboardData: carried, bubbles: true}));
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_is_dropped_or_pasted(kind: str, opened: Any, pages: dict[str, Path]) -> None:
    page = opened("colour")
    picture = blobs(1, 12, 10, 3)[0].transpose(1, 2, 0)
    memory = io.BytesIO()
    Image.fromarray(picture).save(memory, "png")
    page.evaluate(GIVEN, [kind, list(memory.getvalue())])
    until(page, "document.getElementById('source').textContent === 'Your image.'")
    assert np.abs(shown(page, "seen") - picture[..., 0] / 255).max() < 0.5 / 255  # to the bit
    expected = load(pages["colour"].parent).encode(blobs(1, 12, 10, 3))
    assert np.abs(np.array(code(page)) - expected[0].numpy()).max() < CLOSE


def test_images_that_are_shown_with_loss_are_told(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaelab.explorer.sheets.fitting.__defaults__", (2_000,))
    noise = ImageSet(torch.randint(0, 256, (600, 3, 12, 12), dtype=torch.uint8))
    splits = Splits("noise", noise, noise.subset(torch.arange(20)), noise)
    train("vae", splits, out=tmp_path / "run", **{**SMALL, "epochs": 1})
    page = browser.new_page()
    page.goto(f"file://{write_explorer(tmp_path / 'run', splits)}")
    page.wait_for_selector("body[data-ready]")
    assert "with a little loss" in page.inner_text("#notices")
    page.close()


def test_pins_make_a_path_and_its_files(opened: Any, pages: dict[str, Path]) -> None:
    page = opened()
    page.focus("#map")
    page.keyboard.press("a")
    a = code(page)
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
    settled(page)
    b = code(page)
    page.keyboard.press("b")
    page.locator("#strip button").nth(5).click()
    settled(page)
    middle = [(u + v) / 2 for u, v in zip(a, b, strict=True)]
    assert code(page) == pytest.approx(middle, abs=1e-5)
    with page.expect_download() as loading:
        page.click("#gif")
    with Image.open(loading.value.path()) as film:
        assert film.n_frames == 46  # type: ignore[attr-defined]
        assert film.size == (10 * 19, 12 * 19)
        film.seek(0)
        first = np.array(film.convert("L"))[9::19, 9::19] / 255
        assert np.abs(first - decoded(pages["plain"], a)).max() < CLOSE + 0.5 / 255
        film.seek(23)
        last = np.array(film.convert("L"))[9::19, 9::19] / 255
        assert np.abs(last - decoded(pages["plain"], b)).max() < CLOSE + 0.5 / 255
    with page.expect_download() as loading:
        page.click("#png")
    strip = Image.open(io.BytesIO(Path(loading.value.path()).read_bytes()))
    assert strip.size == (11 * (10 * 9 + 18) + 18, 12 * 9 + 36)


def test_the_nearest_training_images_are_found(opened: Any, pages: dict[str, Path]) -> None:
    page = opened()
    page.wait_for_selector("#nearest canvas")
    captions = page.locator("#nearest figcaption").all_inner_texts()
    images = labelled_spots().train.take(torch.arange(60)).float().flatten(1) / 255
    image = torch.from_numpy(decoded(pages["plain"], code(page))).flatten()
    distances = (images - image).square().mean(1).sqrt().sort().values[:5]
    assert [float(text) for text in captions] == pytest.approx(distances.tolist(), abs=2e-3)


def draws(page: Page, count: int) -> torch.Tensor:
    """Return the latents of so many presses of *Random*."""
    press = "() => { explorer.random(); return [...explorer.code]; }"
    found: list[list[float]] = page.evaluate(f"Array.from({{length: {count}}}, {press})")
    return torch.tensor(found)


def test_random_draws_from_the_mixture_or_the_prior(opened: Any) -> None:
    page, wanted = opened("plain-mixture"), mixture(4, 0)
    found = draws(page, 4_000)
    left = found[:, 0] < 0
    assert float(left.float().mean()) == pytest.approx(0.25, abs=0.03)
    for rows, k in ((found[left], 0), (found[~left], 1)):
        covariance = wanted.roots[k] @ wanted.roots[k].T
        torch.testing.assert_close(rows.mean(0), wanted.means[k], rtol=0, atol=0.12)
        torch.testing.assert_close(rows.T.cov(), covariance, rtol=0.15, atol=0.06)
    page.select_option("#sampler", "prior")
    assert float(draws(page, 500).abs().max()) < 6
    page = opened("plain")
    assert not page.is_visible("#sampler")


def test_random_draws_from_the_components_of_the_class(opened: Any) -> None:
    page = opened("labels-mixture")
    for number, side in ((0, -9.0), (1, 7.0)):
        page.evaluate(f"explorer.context = Float32Array.from([{1 - number}, {number}, 0, 0])")
        assert float(draws(page, 300)[:, 0].mean()) == pytest.approx(side, abs=0.3)


def test_controls_beside_the_image_do_not_cover_each_other(opened: Any) -> None:
    page = opened("plain-mixture")
    row = [box_of(page, name) for name in ("#random", "#temperature", "#save")]
    for one, other in pairwise(row):
        assert one["x"] + one["width"] <= other["x"]
    chosen = box_of(page, "#sampler")
    assert chosen["y"] >= max(box["y"] + box["height"] for box in row)


def test_random_follows_the_temperature(opened: Any) -> None:
    page = opened()
    page.locator("#temperature").fill("0")
    page.click("#random")
    settled(page)
    assert code(page) == [0.0] * 4
    page.locator("#temperature").fill("1")
    drawn = []
    for _ in range(30):
        page.click("#random")
        drawn.append(code(page))
    assert 0.5 < np.std(drawn) < 1.5


def test_every_way_to_lay_the_map_out_works(opened: Any) -> None:
    page = opened()
    for kind in ("pca", "plane"):
        page.select_option("#layout", kind)
        box = box_of(page, "#map")
        page.mouse.click(box["x"] + 240.5, box["y"] + 111.5)
        settled(page)
        place = page.evaluate("explorer.map.toPage(explorer.map.layout.place(explorer.code))")
        assert place == pytest.approx([239.5, 110.5], abs=0.6) or page.evaluate(
            "explorer.codes.some(z => z.every((v, d) => v === explorer.code[d]))"
        )
    page.select_option("#colour", "attribute high")
    assert page.inner_text("#legend").split() == ["without", "with"]
    page.check("#show-images")
    until(page, "explorer.map.tiles !== null")


def test_a_conditional_model_is_told_its_labels(opened: Any, pages: dict[str, Path]) -> None:
    page = opened("labels")
    for k, name in enumerate(("even", "odd", "unknown")):
        page.locator(".segments span", has_text=name).last.click()
        settled(page)
        told = page.evaluate("Array.from(explorer.context).slice(0, 2)")
        assert told == [float(k == 0), float(k == 1)]
        given = {} if name == "unknown" else {"label": name}
        high = page.evaluate("explorer.context[2] * explorer.held.model.labels.attributes[0].scale")
        high += page.evaluate("explorer.held.model.labels.attributes[0].location")
        if page.evaluate("explorer.context[3]"):
            given["high"] = high
        expected = decoded(pages["labels"], code(page), **given)
        assert np.abs(shown(page) - expected).max() < CLOSE + 0.5 / 255


def test_a_subspace_is_moved_by_its_handle(opened: Any, pages: dict[str, Path]) -> None:
    page = opened("handles")
    before = code(page)
    page.get_by_role("button", name="with high", exact=True).click()
    settled(page)
    after = code(page)
    assert after[2:] == pytest.approx([3.0, 3.0])
    assert after[:2] == before[:2]
    box = box_of(page, ".plane")
    page.mouse.click(box["x"] + 111, box["y"] + 111)
    settled(page)
    assert code(page)[2:] == pytest.approx([1.5, 1.5], abs=0.08)
    page.focus(".plane")
    page.keyboard.press("ArrowLeft")
    settled(page)
    assert code(page)[2] == pytest.approx(1.4, abs=0.08)
    label = ("even", "odd")[page.evaluate("explorer.context.indexOf(1)")]
    expected = decoded(pages["handles"], code(page), label=label)
    assert np.abs(shown(page) - expected).max() < CLOSE + 0.5 / 255


@pytest.mark.parametrize("name", ["plain", "labels", "handles", "point", "flow"])
@pytest.mark.parametrize("width", [1200, 390])
def test_the_first_view_holds_all_there_is_to_see(name: str, width: int, opened: Any) -> None:
    page = opened(name, viewport={"width": width, "height": 900})
    side = page.evaluate("explorer.map.side")
    pins = (
        "explorer.path.pins.map((pin) => explorer.map.toPage(explorer.map.layout.place(pin.code)))"
    )
    marks = np.array([page.evaluate("explorer.map.toPage(explorer.at)"), *page.evaluate(pins)])
    assert marks.min() > 20
    assert marks.max() < side - 20
    assert not ((marks[:, 0] > side - 60) & (marks[:, 1] < 130)).any()  # under the buttons
    rings = """explorer.map.circles.length
        ? [[-2, 0], [2, 0], [0, -2], [0, 2]].map((at) => explorer.map.toPage(
            at.map((v, k) => v + explorer.map.centre[k])))
        : explorer.draws.map((at) => explorer.map.toPage(at))"""
    seen = np.array(page.evaluate(rings)).reshape(-1, 2)
    assert (len(seen) == 0) == (name == "point")  # an autoencoder has no prior
    within = ((seen > 0) & (seen < side)).all(1)
    assert within.mean() > 0.86 if len(seen) else True  # the outer line holds 86 %


@pytest.mark.parametrize(("name", "words"), [("flow", "cannot run"), ("point", "no prior")])
def test_what_the_page_cannot_do_is_told(name: str, words: str, opened: Any) -> None:
    page = opened(name)
    assert words in page.inner_text("#notices")
    assert page.locator("#own").is_visible() == (name == "point")
    assert page.locator("#temperature").is_disabled() == (name == "flow")  # without effect there
    page.click("#random")
    settled(page)
    assert np.isfinite(code(page)).all()


def test_a_browser_that_computes_otherwise_is_told(opened: Any) -> None:
    page = opened()
    assert page.locator("#notices p").count() == 0
    page.evaluate("explorer.model.weights.halves[3] += 1; explorer.check()")
    assert "do not trust" in page.inner_text("#notices")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_is_fit_for_all_readers(scheme: str, width: int, opened: Any) -> None:
    if not AXE.exists():
        missing("axe-core is not installed: npm ci")
    for name in ("plain", "handles"):
        page = opened(name, color_scheme=scheme, viewport={"width": width, "height": 900})
        page.wait_for_selector("#nearest canvas")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run().then(r => r.violations)")
        assert [f"{v['id']}: {v['nodes'][0]['html']}" for v in found] == []


def test_a_finger_drags_and_two_zoom(opened: Any) -> None:
    page = opened(viewport={"width": 400, "height": 800}, has_touch=True, is_mobile=True)
    page.locator("#map").scroll_into_view_if_needed()
    before, half = code(page), page.evaluate("explorer.map.view.half")
    fire = """([kind, id, x, y]) => {
      const box = document.getElementById("map").getBoundingClientRect();
      const at = {clientX: box.left + x, clientY: box.top + y};
      const event = new PointerEvent(kind, {...at, pointerId: id, pointerType: "touch",
        bubbles: true, isPrimary: id === 1});
      document.getElementById("map").setPointerCapture = () => {};
      document.getElementById("map").dispatchEvent(event);
    }"""
    for event in (["pointerdown", 1, 100, 100], ["pointermove", 1, 140, 160]):
        page.evaluate(fire, event)
    settled(page)
    assert code(page) != before
    for event in (["pointerdown", 2, 240, 160], ["pointermove", 2, 340, 160]):
        page.evaluate(fire, event)
    settled(page)
    assert page.evaluate("explorer.map.view.half") == pytest.approx(half / 2, rel=0.01)
