"""Letters A to J in the fonts of Debian, with what the fonts' own tables say about them."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import fetch
from fontTools.ttLib import (  # type: ignore[import-untyped,import-not-found,unused-ignore]
    TTFont,
)
from PIL import Image, ImageDraw, ImageFont

logging.getLogger("fontTools").setLevel(logging.ERROR)  # dates of old fonts

LETTERS = "ABCDEFGHIJ"
SIDE = 32
MARGIN = 3

PACKAGES = (
    *("dejavu-core", "dejavu-extra", "liberation2", "urw-base35", "lato", "open-sans", "cmu"),
    *("linuxlibertine", "ebgaramond", "crosextra-carlito", "crosextra-caladea", "noto-core"),
    *("adf-accanthis", "adf-baskervald", "adf-gillius", "adf-universalis", "adf-verana"),
    *("adf-tribun", "paratype", "clear-sans", "go", "tuffy", "cabin", "karla", "inter"),
    *("averia-serif-gwf", "averia-sans-gwf", "yrsa-rasa", "oldstandard", "courier-prime"),
)
"""Without those that redraw a design of another package, which would be in two parts of a split."""

STYLES = frozenset(
    "Thin ExtraLight Light Regular Medium SemiBold DemiBold Bold ExtraBold Heavy Black Book "
    "Condensed SemiCondensed ExtraCondensed Cond Narrow Hairline Extra Display Caption".split()
)
"""Words that end the name of a family and name no design."""


LEFT_OUT = frozenset({"Rasa", "Smallcaps"})
"""Their capitals are those of Yrsa and Go."""


def letters(folder: Path, packages: Path) -> None:
    """Grey letters of 32 pixels in class folders; ``labels.csv`` has bold, italic and serif."""
    rows: list[list[object]] = []
    for letter in LETTERS:
        (folder / letter).mkdir()
    for package in PACKAGES:
        unpacked = fetch.deb(f"fonts-{package}", packages)
        for path in sorted(unpacked.rglob("*.[to]tf")):
            found = attributes(path)
            if path.is_symlink() or found is None:
                continue
            for letter in LETTERS:
                name = f"{letter}/{path.stem}.png"
                drawn(letter, path).save(folder / name)
                rows.append([name, letter, *found])
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["file", "label", "bold", "italic", "serif", "family"])
        csv.writer(file).writerows(rows)


def attributes(path: Path) -> tuple[int, int, int, str] | None:
    """Return whether a font is bold, italic and has serifs, and its family.

    None where it lacks a letter or where its tables do not say whether it has serifs (scripts,
    symbols).
    """
    with TTFont(path, lazy=True) as font:
        if not set(map(ord, LETTERS)) <= set(font.getBestCmap() or ()):
            return None
        serif = has_serifs(font["OS/2"])
        names = font["name"]
        family = str(names.getDebugName(16) or names.getDebugName(1) or path.stem)
        words = [word for word in family.split() if word not in STYLES]
        if LEFT_OUT & set(family.split()):
            return None
        if serif is None:
            serif = {"Serif": True, "Sans": False}.get(
                (set(words) & {"Serif", "Sans"} or {""}).pop()
            )
        if serif is None:
            return None
        style, head = font["OS/2"].fsSelection, font["head"].macStyle
        bold = bool(style & 1 << 5 or head & 1 or font["OS/2"].usWeightClass >= 600)
        italic = bool(style & 1 or head & 2 or font["post"].italicAngle)
        return int(bold), int(italic), int(serif), " ".join(words[:2])


def has_serifs(table: Any) -> bool | None:
    """Return what the table OS/2 says of serifs: by PANOSE, or by the class of the family."""
    panose = table.panose
    if panose.bFamilyType == 2 and panose.bSerifStyle > 1:
        return bool(panose.bSerifStyle < 11)
    family = table.sFamilyClass >> 8
    if family in (1, 2, 3, 4, 5, 7, 8):
        return bool(family != 8)
    return None


def drawn(letter: str, path: Path) -> Image.Image:
    """Return a letter, black on white, as large as fits and in the middle."""
    box = SIDE - 2 * MARGIN
    large = ImageFont.truetype(path, 200)
    left, top, right, bottom = large.getbbox(letter)
    image = Image.new("L", (round(right - left) + 2, round(bottom - top) + 2), 255)
    ImageDraw.Draw(image).text((1 - left, 1 - top), letter, 0, large)
    scale = box / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    out = Image.new("L", (SIDE, SIDE), 255)
    small = image.resize(size, Image.Resampling.LANCZOS)
    out.paste(small, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return out
