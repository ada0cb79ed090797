"""Sphinx: the guides as they are, in Markdown, and a reference made from the docstrings."""

from __future__ import annotations

import re
from importlib.metadata import version as installed
from typing import Any

project = "vaelab"
author = "The vaelab authors"
release = version = installed("vaelab")
html_theme = "furo"
html_title = f"vaelab {release}"
html_show_copyright = False
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
exclude_patterns = ["_build", "studies/**"]
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository that are no pages


def as_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn the conventions of our docstrings into reStructuredText.

    Indented lines after an empty one are equations or examples, shown as they are; a bar or a star
    is a bar or a star.
    """
    made: list[str] = []
    shown = False
    for number, line in enumerate(lines):
        before = lines[number - 1] if number else ""
        if line.strip() and not line.startswith("    "):
            shown = False
        elif line.startswith("    ") and not before.strip() and number and not shown:
            last = next((text for text in reversed(made) if text.strip()), "")
            if not last.startswith(" "):
                made += ["::", ""]
                shown = True
        made.append(line if shown else _escaped(line))
    lines[:] = made


def _escaped(line: str) -> str:
    parts = re.split(r"(``.*?``|`.*?`)", line)
    return "".join(
        part if part.startswith("`") else re.sub(r"(?<!\\)([|*])", r"\\\1", part) for part in parts
    )


def setup(app: Any) -> None:
    """Let docstrings be rewritten before anything else reads them."""
    app.connect("autodoc-process-docstring", as_rst, priority=100)
