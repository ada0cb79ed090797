"""Plots as SVG in the reader's light or dark theme: marks carry classes, CSS the colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files as resources

from markupsafe import Markup, escape

from vaelab.report.palette import class_color, class_marker, variables

Points = Iterable[tuple[float, float]]

_MARKER_PATHS = {
    "dot": "h0",
    "square": "h0",
    "plus": "m-2 0h4m-2-2v4",
    "cross": "m-1.5-1.5l3 3m0-3l-3 3",
}


class Plot:
    """One panel that maps data to pixels and collects marks; `svg` gives the picture.

    Arguments:
        x: the range of the data, left to right.
        y: the range of the data, bottom to top.
        size: width and height of the whole picture in pixels.
        margins: left, top, right and bottom, in pixels.
    """

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        size: tuple[int, int],
        margins: tuple[int, int, int, int] = (46, 10, 12, 38),
    ) -> None:
        self.x, self.y, self.size = x, y, size
        left, top, right, bottom = margins
        self.box = left, top, size[0] - right, size[1] - bottom
        self.marks: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a point of the data."""
        left, top, right, bottom = self.box
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    def line(self, points: Points, cls: str, style: str = "") -> None:
        """Join points by a line; what leaves the panel is cut off."""
        path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in (self.at(*p) for p in points))
        self._add(f'<path class="{cls}" d="{path}"{_style(style)}/>', clip=True)

    def bars(self, edges: Sequence[float], heights: Sequence[float], cls: str) -> None:
        """Draw a histogram as one filled outline."""
        x, y = self.at(edges[0], 0)
        path = f"M{x:.1f} {y:.1f}"
        for right, height in zip(edges[1:], heights, strict=True):
            px, py = self.at(right, height)
            path += f"V{py:.1f}H{px:.1f}"
        self._add(f'<path class="{cls}" d="{path}V{y:.1f}Z"/>', clip=True)

    def dots(self, points: Points, label: int | None, width: float = 3.4) -> None:
        """Draw points in the colour and shape of a class, or in the accent colour."""
        marker = "dot" if label is None else class_marker(label)
        path = "".join(
            f"M{px:.1f} {py:.1f}{_MARKER_PATHS[marker]}" for px, py in (self.at(*p) for p in points)
        )
        if not path:
            return
        color = "var(--accent)" if label is None else class_color(label)
        thick = 1.2 if marker in ("plus", "cross") else width
        cap = "butt" if thick == 1.2 else "square" if marker == "square" else "round"
        style = f"stroke:{color};stroke-width:{thick};stroke-linecap:{cap}"
        self._add(f'<path class="points" d="{path}"{_style(style)}/>', clip=True)

    def circle(self, radius: float, cls: str, about: tuple[float, float] = (0, 0)) -> None:
        """Draw the circle of a radius about a point, in the units of the data."""
        (x, y), (right, _) = self.at(*about), self.at(about[0] + radius, about[1])
        self._add(
            f'<circle class="{cls}" cx="{x:.1f}" cy="{y:.1f}" r="{right - x:.1f}"/>', clip=True
        )

    def circle_at(self, x: float, y: float, pixels: float, cls: str) -> None:
        """Draw a circle of so many pixels about a point of the data."""
        px, py = self.at(x, y)
        self._add(f'<circle class="{cls}" cx="{px:.1f}" cy="{py:.1f}" r="{pixels:g}"/>')

    def circle_filled(self, x: float, y: float, pixels: float, color: str) -> None:
        """Draw a dot of so many pixels' radius in a colour at a point of the data."""
        px, py = self.at(x, y)
        self._add(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{pixels:g}" style="fill:{color}"/>', clip=True
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        cls: str = "label",
        shift: tuple[float, float] = (0, 0),
    ) -> None:
        """Write at a point of the data, ``shift`` pixels to the right and down."""
        px, py = self.at(x, y)
        self.write(px + shift[0], py + shift[1], text, cls)

    def write(self, px: float, py: float, text: str, cls: str = "label", extra: str = "") -> None:
        """Write at a pixel."""
        self._add(f'<text class="{cls}" x="{px:.1f}" y="{py:.1f}"{extra}>{escape(text)}</text>')

    def axes(
        self,
        xlabel: str,
        ylabel: str = "",
        xticks: Sequence[float] | None = None,
        yticks: Sequence[float] | Mapping[float, float] | None = None,
        frame: bool = False,
        log: bool = False,
    ) -> None:
        """Draw the numbers and names of the axes, with quiet rules at the heights or a frame.

        With ``log`` the horizontal data are decimal logarithms, and the numbers their powers.
        ``yticks`` may map heights to the numbers that stand there.
        """
        left, top, right, bottom = self.box
        for value in ticks(*self.x) if xticks is None else xticks:
            px, _ = self.at(value, self.y[0])
            self._add(f'<path class="rule" d="M{px:.1f} {bottom}v4"/>')
            self.write(px, bottom + 15, number(10**value if log else value), "tick middle")
        heights = ticks(*self.y) if yticks is None else yticks
        if not isinstance(heights, Mapping):
            heights = {value: value for value in heights}
        for height, value in heights.items():
            _, py = self.at(self.x[0], height)
            self._add(f'<path class="rule" d="M{left} {py:.1f}{"h-4" if frame else f"H{right}"}"/>')
            self.write(left - 7, py + 3.5, number(value), "tick end")
        box = f"M{left} {top}V{bottom}H{right}V{top}Z" if frame else f"M{left} {bottom}H{right}"
        self._add(f'<path class="rule" d="{box}"/>')
        self.write((left + right) / 2, bottom + 31, xlabel, "axis middle")
        if ylabel:
            turn = f' transform="rotate(-90 11 {(top + bottom) / 2:.1f})"'
            self.write(11, (top + bottom) / 2, ylabel, "axis middle", turn)

    def _add(self, mark: str, clip: bool = False) -> None:
        self.marks.append(mark if not clip else f'<g clip-path="url(#CLIP)">{mark}</g>')

    def svg(self, alt: str, name: str) -> Markup:
        """Return the picture for a page; ``name`` must be unique within it."""
        width, height = self.size
        left, top, right, bottom = self.box
        clip = f"clip-{name}"
        body = "".join(self.marks).replace("url(#CLIP)", f"url(#{clip})")
        return Markup(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="{escape(alt)}" class="plot">'
            f'<clipPath id="{clip}"><rect x="{left - 4}" y="{top - 4}" width="{right - left + 8}" '
            f'height="{bottom - top + 8}"/></clipPath>{body}</svg>'
        )


def standalone(panels: Sequence[Markup]) -> bytes:
    """Return panels side by side as one SVG file that has its own colours for light and dark."""
    placed, x, height = [], 0, 0
    for panel in panels:
        w, h = (
            int(panel.split(f'{side}="', 1)[1].split('"', 1)[0]) for side in ("width", "height")
        )
        placed.append(str(panel).replace("<svg ", f'<svg x="{x}" ', 1))
        x, height = x + w, max(height, h)
    css = f"{variables()}{stylesheet('plot.css')}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {x} {height}" width="{x}" '
        f'height="{height}"><style>{css}</style>'
        f'<rect width="100%" height="100%" style="fill:var(--ground)"/>{"".join(placed)}</svg>\n'
    ).encode(errors="backslashreplace")


def stylesheet(name: str) -> str:
    """Return the text of a style sheet of this package."""
    return resources("vaelab.report").joinpath(name).read_text(encoding="utf-8")


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) within a range."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def number(value: float) -> str:
    """Write a number of an axis: a true minus sign, thin spaces between thousands."""
    text = f"{value:,.6g}".replace(",", "\u202f") if abs(value) >= 1e-9 else "0"
    return text.replace("-", "−")


def _style(style: str) -> str:
    return f' style="{style}"' if style else ""


def padded(low: float, high: float) -> tuple[float, float]:
    """Return a range with room beside both ends, also where it is a point."""
    room = max(0.06 * (high - low) or 0.5, 1e-6 * abs(low), 1e-6 * abs(high))
    return low - room, high + room


def shown_range(values: Sequence[float], sign: int) -> tuple[float, float]:
    """Return a range that holds all values but the worst twentieth, which may be far off."""
    ordered = sorted(values)
    cut = len(ordered) // 20
    low, high = ordered[cut if sign > 0 else 0], ordered[-1 if sign > 0 else -1 - cut]
    return padded(low, high)
