"""How well ``vaelab score`` finds flaws in drawn tiles: python benchmarks/detection.py FOLDER."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

FLAWS = ("good", "scratch", "spot", "stain")


def tile(number: int, flaw: str) -> Image.Image:
    """Return a striped, noisy tile in RGB, 40 by 32: period, angle and colour vary."""
    chance = np.random.default_rng(number)
    y, x = np.mgrid[:32, :40]
    angle, period = chance.uniform(0, 0.5), chance.uniform(5, 8)
    wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    colour = np.array([150, 110, 80]) + chance.normal(0, 10, 3)
    pixels = colour + 25 * wave[..., None] + chance.normal(0, 6, (32, 40, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    a, b = (int(value) for value in chance.integers(6, 26, 2))
    if flaw == "scratch":
        draw.line([a, 2, b, 30], fill=(215, 200, 190), width=1)
    elif flaw == "spot":
        draw.ellipse([a, b, a + 3, b + 3], fill=(40, 30, 25))
    elif flaw == "stain":
        soft = Image.new("L", image.size)
        ImageDraw.Draw(soft).ellipse([a - 4, b - 4, a + 8, b + 8], fill=70)
        image.paste((90, 90, 120), mask=soft.filter(ImageFilter.GaussianBlur(3)))
    return image


def main() -> None:
    """Draw 400 good tiles to train on and 100 of each kind to test, train, and score."""
    root = Path(sys.argv[1])
    for part, flaw, start, count in (
        ("train", "good", 0, 400),
        *(("test", flaw, 1000 * (k + 1), 100) for k, flaw in enumerate(FLAWS)),
    ):
        folder = root / "tiles" / part / flaw
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            tile(start + number, flaw).save(folder / f"{number:03}.png")
    run = [sys.executable, "-m", "vaelab"]
    for seed in range(3):
        out = str(root / f"run-{seed}")
        given = ["--latent-dim", "16", "--epochs", "60", "--batch-size", "32", "--lr", "0.0003"]
        given += ["-s", "model.likelihood=gaussian-scalar", "-s", "data.split=[0.75,0.25,0]"]
        data = ["--data", str(root / "tiles"), "--seed", str(seed), "--out", out]
        subprocess.run([*run, "train", "vae", *data, *given], check=True)
        subprocess.run([*run, "score", out, str(root / "tiles" / "test")], check=True)


if __name__ == "__main__":
    main()
