"""Crops of photographs that come in Debian's packages of wallpapers and in two wheels."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import fetch
import numpy as np
from PIL import Image, ImageOps
from sklearn import datasets

CROPS, MORE = 48, 16
"""Crops of each photo in the set, and as many more that no model sees, to compare samples with."""

WALLPAPERS = {
    "lomiri-wallpapers-16.04": (
        *("Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Picture_0B_by_freespace"),
        *("Picture_1A_by_freespace", "Wine_by_Jakkub_Mede", "aitzgorri_by_Aitzol_Berasategi"),
        *("free_by_Peter_Nerlich", "friends_by_Aitzol_Berasategi", "greentock_by_Peter_Nerlich"),
        *("life_by_Aitzol_Berasategi", "picosdeeuropa_by_Aitzol_Berasategi"),
        *("seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi"),
    ),
    "lomiri-wallpapers-20.04": ("Kleiber_by_Lukas_Baubkus",),
    "mate-backgrounds": (
        *("Aqua", "Blinds", "Dune", "FreshFlower", "Garden", "GreenMeadow", "LadyBird"),
        *("RainDrops", "Storm", "TwoWings", "Wood", "YellowFlower"),
    ),
    "plasma-workspace-wallpapers": (
        *("BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow"),
        *("FallenLeaf", "Grey", "Kite", "OneStandsOut", "Path", "summer_1am"),
    ),
}
"""The photographs among them; the others are drawn or abstract."""

SKIMAGE = ("astronaut", "chelsea", "coffee", "rocket", "retina", "ihc")
SKLEARN = ("china", "flower")


def photos(folder: Path, packages: Path, size: int, more: bool = False) -> None:
    """Square crops as JPEG; ``photos.csv`` has the photo of each, which must not be in two parts.

    The same places at every size, and other ones with ``more``.
    """
    rows: list[list[str]] = [["file", "group"]]
    for number, (name, path) in enumerate(photographs(packages)):
        with Image.open(path) as opened:
            photo = ImageOps.exif_transpose(opened).convert("RGB")
        for crop, square in enumerate(squares(photo.size, number, more)):
            file = f"{name}-{crop:02d}.jpg"
            image = photo.resize((size, size), Image.Resampling.LANCZOS, square, reducing_gap=3)
            image.save(folder / file, quality=95, subsampling=0)
            rows.append([file, name])
    with (folder / "photos.csv").open("w", newline="", encoding="utf-8") as table:
        csv.writer(table).writerows(rows)


def photographs(packages: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and file of every photo."""
    for package, names in WALLPAPERS.items():
        unpacked = fetch.deb(package, packages)
        for name in names:
            files = [*unpacked.rglob(f"{name}.jpg"), *unpacked.rglob(f"{name}/contents/images/*.*")]
            yield name.split("_by_")[0].lower(), max(files, key=lambda file: file.stat().st_size)
    pictures = fetch.wheel(fetch.PICTURES, packages) / "skimage" / "data"
    for name in SKIMAGE:
        yield name, next(pictures.glob(f"{name}.*"))
    for name in SKLEARN:
        yield name, Path(datasets.__file__).parent / "images" / f"{name}.jpg"


def squares(
    size: tuple[int, int], seed: int, more: bool = False
) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes anywhere in an image, their side from a quarter to all of the shorter side."""
    random, shorter = np.random.default_rng([seed, more]), min(size)
    for _ in range(MORE if more else CROPS):
        side = int(random.uniform(max(0.25 * shorter, min(256, shorter)), shorter))
        left, top = (int(random.integers(0, length - side + 1)) for length in size)
        yield left, top, left + side, top + side
