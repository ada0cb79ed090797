"""Imports point one way, and nothing that can run code from a file is used."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "vaelab"
ORDER = (
    ("errors",),
    ("opening", "parsing"),
    ("checked",),
    ("config", "files"),
    ("data",),
    ("models",),
    ("objectives",),
    ("recipes",),
    ("defaults",),
    ("training",),
    ("evaluation",),
    ("explore",),
    ("studies",),
    ("report",),
    ("explorer",),
    ("export",),
    ("api",),
    ("sklearn",),
    ("cli",),
    ("__main__", "__init__"),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
MODULES = sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Rooms that a module imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "vaelab" and len(parts) > 1 and parts[1] in LEVEL:
                found.add(parts[1])
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    level = LEVEL[room_of(path)]
    wrong = {room for room in imports(path) if LEVEL[room] > level}
    assert not wrong, f"{path.name} imports from the right: {wrong}"


def test_rooms_are_all_known() -> None:
    assert {room_of(path) for path in MODULES} == set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_runs_code_from_files(path: Path) -> None:
    calls = {
        ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }  # fmt: skip
    banned = {
        "torch.load",
        "pickle.load",
        "pickle.loads",
        "joblib.load",
        "eval",
        "exec",
        "yaml.load",
    }
    assert not calls & banned
    assert "allow_pickle=True" not in path.read_text()


def test_every_file_goes_into_the_package() -> None:
    project = tomllib.loads((SOURCE.parent.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["vaelab"]
    packed = {path for pattern in patterns for path in SOURCE.glob(pattern)}
    files = {p for p in SOURCE.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert {p for p in files - packed if p.suffix != ".py"} == set()


def test_names_that_are_imported_late_are_listed() -> None:
    import vaelab

    assert {*vaelab.__all__, "__version__"} <= {*dir(vaelab)}
