"""The colours of every page and picture: one for each class, one scale for quantities, two grounds.

The ten class colours were found by maximising their smallest distance in OKLab as seen with normal
vision, protanopia, deuteranopia and tritanopia (Machado et al., 2009), with a contrast of at least
2.2 to both grounds. From the eleventh class on they come again with another shape of `MARKERS`.
"""

from __future__ import annotations

CLASS_COLORS = (
    "#2387f0",
    "#ff8d10",
    "#047e00",
    "#be3273",
    "#03bcf6",
    "#84218d",
    "#a4b583",
    "#8165ae",
    "#435626",
    "#b18288",
)

MARKERS = ("dot", "square", "plus", "cross")

LIGHT = {
    "ground": "#ffffff",
    "raised": "#f4f5f7",
    "text": "#1b1f24",
    "muted": "#59636e",
    "rule": "#d5dae0",
    "accent": "#0a5bb5",
    "warning": "#8a4600",
    "warning-ground": "#fff4e0",
    "neutral": "#7d8793",
}

DARK = {
    "ground": "#14171a",
    "raised": "#1e2328",
    "text": "#e8eaed",
    "muted": "#a3adb8",
    "rule": "#383f47",
    "accent": "#7ab7ff",
    "warning": "#ffc46b",
    "warning-ground": "#33270f",
    "neutral": "#8b95a1",
}

TEXT_ON_GROUND = (
    ("text", "ground"),
    ("text", "raised"),
    ("muted", "ground"),
    ("muted", "raised"),
    ("accent", "ground"),
    ("accent", "raised"),
    ("warning", "warning-ground"),
    ("text", "warning-ground"),
)
"""Which colours of text stand on which grounds."""


def class_color(label: int) -> str:
    """Return the colour of a class, the same everywhere: ``#rrggbb``; grey where unknown, −1."""
    if label < 0:
        return "var(--neutral)"
    return CLASS_COLORS[label % len(CLASS_COLORS)]


def class_marker(label: int) -> str:
    """Return the shape that tells classes of one colour apart, one of `MARKERS`."""
    return MARKERS[max(label, 0) // len(CLASS_COLORS) % len(MARKERS)]


def variables() -> str:
    """Return the CSS that sets the colours of both themes; paper is always light."""
    light, dark = (
        "".join(f"--{name}:{value};" for name, value in theme.items()) for theme in (LIGHT, DARK)
    )
    return (
        f":root{{{light}color-scheme:light dark}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    )


def luminance(color: str) -> float:
    """Return the relative luminance of ``#rrggbb``, 0 for black and 1 for white (WCAG 2)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, from 1 to 21 (WCAG 2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
