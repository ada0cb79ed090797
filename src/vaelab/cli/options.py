"""Options on how images are read: declared once, taken by every command that reads new ones."""

from __future__ import annotations

from typing import Annotated

import typer

Size = Annotated[str | None, typer.Option(help="Fit images to HEIGHTxWIDTH, or N for a square.")]
Channels = Annotated[
    int | None, typer.Option(help="1 grey, 3 RGB, 4 RGBA.", show_default="as they are")
]
FitTo = Annotated[
    str | None, typer.Option("--fit", help="pad, crop or stretch.", show_default="pad")
]
ValueRange = Annotated[
    str | None,
    typer.Option(
        "--range",
        help="Values that are black and white: auto (by all images), full or LOW,HIGH.",
        show_default="auto",
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        help="white, black or #rrggbb: under transparent images and around padded ones.",
        show_default="white under transparent images, black around others",
    ),
]
Frames = Annotated[
    str | None,
    typer.Option(help="Of TIFF stacks and animations: all, first or every=K.", show_default="all"),
]
Group = Annotated[
    str | None,
    typer.Option(
        help="Column of a table: images with the same cell stay in one part of the split. "
        "file-name: those whose names differ in their last number alone."
    ),
]
SkipBadOrNot = Annotated[
    bool | None, typer.Option("--skip-bad", help="Leave unreadable images out.")
]
