"""What the README shows works as shown."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PROGRAM = Path(sys.executable).parent / "vaelab"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_commands_of_the_readme_run(tmp_path: Path) -> None:
    lines = [line for block in blocks("sh") for line in block.strip().splitlines()]
    assert len(lines) > 8
    for line in lines:
        name, *arguments = line.split()
        assert name == "vaelab"
        done = subprocess.run(
            [str(PROGRAM), *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    for made in (
        "samples.png",
        "codes.csv",
        "runs/first/report.html",
        "runs/first/evaluation.json",
    ):
        assert (tmp_path / made).stat().st_size > 1000


@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    shapes = {name: tuple(names[name].shape) for name in ("images", "codes", "again", "bound")}  # type: ignore[attr-defined]
    assert shapes == {
        "images": (16, 1, 28, 28),
        "codes": (100, 2),
        "again": (100, 1, 28, 28),
        "bound": (100,),
    }
    assert (names["logp"] >= names["bound"]).float().mean() > 0.5  # type: ignore[operator]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads((DOCS / "first.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "first.ipynb", "exec"), names)
    bound, probable = names["elbo"], names["logp"]
    assert isinstance(bound, torch.Tensor)
    assert isinstance(probable, torch.Tensor)
    assert -220 < bound.mean() < probable.mean() < -140
    for picture in ("samples.png", "pairs.png", "path.png"):
        assert (tmp_path / picture).stat().st_size > 1000


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (Path(__file__).parent.parent / target).exists(), target
