"""Milliseconds from a movement of the hand to the decoded image, in headless Chromium.

Model M is trained for an epoch and explored; the mouse is dragged over the map, and each movement
is timed to the end of the frame in which the image is drawn. Work is what the script takes of it:
decoding, drawing, and setting all sliders.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from machine import Table, finish, load, parser
from plain import SAME_NETWORK

import vaelab

MOST = 16.0
WATCH = """() => {
  window.times = [];
  let moved = null;
  document.addEventListener("pointermove", (event) => { moved ??= event.timeStamp; }, true);
  const render = explorer.render.bind(explorer);
  explorer.render = () => {
    const begun = performance.now();
    render();
    const done = performance.now();
    if (moved !== null) window.times.push([done - begun, done - moved]);
    moved = null;
  };
}"""


def main() -> int:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--run", type=Path, help="explore this run instead of model M")
    given = arguments.parse_args()
    if find_spec("playwright") is None or program() is None:
        print("No Playwright or no Chromium: the explorer is left out. See CONTRIBUTING.md.\n")
        return 0
    moves = 60 if given.quick else 400
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or Path(folder) / "m"
        if given.run is None:
            vaelab.train("vae", "mnist", out=run, epochs=1, **SAME_NETWORK)
        page = vaelab.write_explorer(run, out=Path(folder) / "explorer.html")
        times = drag(page, moves)
    work, total = ([row[k] for row in times] for k in (0, 1))
    table = Table("The explorer: dragging over the map", ["", "10 %", "median", "90 %", "frames"])
    for name, values in (("work, ms", work), ("movement to image, ms", total)):
        low, high = (sorted(values)[int(share * len(values))] for share in (0.1, 0.9))
        figures = [f"{value:.1f}" for value in (low, median(values), high)]
        table.rows.append([name, *figures, str(len(values))])
    what = "model M" if given.run is None else str(given.run)
    table.notes.append(f"{what}, headless Chromium without a GPU. Load: {load()}.")
    table.require(median(total) <= MOST, f"the image follows within {MOST:.0f} ms (median)")
    return finish([table], given.json)


def program() -> str | None:
    """Return the browser that is installed, if there is one."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def drag(page: Path, moves: int) -> list[list[float]]:
    """Return work and latency of every frame, in ms."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1200, "height": 900})
        opened.goto(f"file://{page.resolve()}")
        opened.wait_for_selector("body[data-ready]")
        opened.wait_for_selector("#nearest canvas")
        opened.evaluate(WATCH)
        box = opened.locator("#map").bounding_box()
        assert box is not None
        opened.mouse.move(box["x"] + 100, box["y"] + 100)
        opened.mouse.down()
        for step in range(moves):
            x, y = 100 + step % 400, 100 + (step * 7) % 400
            opened.mouse.move(box["x"] + x, box["y"] + y)
            opened.wait_for_timeout(20)
        opened.mouse.up()
        found: list[list[float]] = opened.evaluate("window.times")
        browser.close()
    return found[5:]


if __name__ == "__main__":
    sys.exit(main())
