"""Fetches the image sets of the benchmarks and builds them as folders such as a person would have.

    python benchmarks/sets.py                # all of them
    python benchmarks/sets.py emoji letters  # some

Nothing of this comes with vaelab. README.md names the licences.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fetch
import sets_letters
import sets_photos

TONES = {
    "1F3FB": "light",
    "1F3FC": "medium-light",
    "1F3FD": "medium",
    "1F3FE": "medium-dark",
    "1F3FF": "dark",
}


@dataclass(frozen=True)
class BuiltSet:
    """How a set is built and read.

    Arguments:
        build: fills a folder, given the folder of fetched packages.
        settings: what a person adds to the command, such as the column of groups.
    """

    build: Callable[[Path, Path], None]
    settings: dict[str, Any]


def emoji(folder: Path, packages: Path, tones: bool = False) -> None:
    """Emoji of 64 pixels with transparency, a class folder for each category.

    With ``tones`` also the variants of one skin tone, and the tone of each image in ``tones.csv``.
    """
    package = fetch.npm(fetch.EMOJI, packages) / "package"
    records = json.loads((package / "emoji.json").read_text(encoding="utf-8"))
    rows = []
    for record in records:
        if record["category"] == "Component":  # five squares of skin colour
            continue
        name = record["category"].lower().replace(" & ", "-").replace(" ", "-")
        (folder / name).mkdir(exist_ok=True)
        images = {"none": record["image"]}
        if tones:
            found = record.get("skin_variations", {})
            images |= {TONES[key]: found[key]["image"] for key in TONES if key in found}
        for tone, image in images.items():
            shutil.copyfile(package / "img" / "google" / "64" / image, folder / name / image)
            rows.append([f"{name}/{image}", tone])
    if tones:
        with (folder / "tones.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["file", "tone"], *rows])


BY_PHOTO = {"group": "group", "split": [0.7, 0.1, 0.2]}
"""More to test on than a tenth, which is four or five photos."""

SETS = {
    "emoji": BuiltSet(emoji, {"channels": 3}),
    "emoji-tones": BuiltSet(partial(emoji, tones=True), {"channels": 3}),
    "letters": BuiltSet(sets_letters.letters, {"group": "family"}),
    **{
        f"photos-{size}": BuiltSet(partial(sets_photos.photos, size=size), BY_PHOTO)
        for size in (64, 128, 256)
    },
    **{
        f"photos-{size}-more": BuiltSet(partial(sets_photos.photos, size=size, more=True), BY_PHOTO)
        for size in (64, 128, 256)
    },
}


def built(name: str, folder: Path) -> Path:
    """Return the folder of a set, fetched and built first where it is not there."""
    out = folder / "images" / name
    if not out.is_dir():
        with fetch.whole(out) as partial_folder:
            SETS[name].build(partial_folder, folder / "packages")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SETS)}; all by default")
    parser.add_argument("--sets", type=Path, default=fetch.default_folder(), help="where to")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(SETS)):
        parser.error(f"{', '.join(unknown)}: no such set; there are {', '.join(SETS)}.")
    for name in given.names or SETS:
        folder = built(name, given.sets)
        count = sum(path.suffix in (".png", ".jpg") for path in folder.rglob("*"))
        print(f"{folder}: {count:,} images")


if __name__ == "__main__":
    main()
