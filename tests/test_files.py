"""Files: tables that no spreadsheet runs, and what is opened, written and left behind."""

from __future__ import annotations

import csv
import io
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vaelab import files
from vaelab.config import read_yaml
from vaelab.errors import ConfigError, RunError

posix = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")


def test_text_that_would_be_a_formula_is_quoted_and_numbers_stay() -> None:
    rows = [
        ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1"),
        ("-1.5", "+2", "-inf", "a=b", "-", "x-1", "'", ""),
        (-1.5, 7, None, float("nan"), True, "1e-3", "a,b", 'say "a"'),
    ]
    first, second, third = csv.reader(io.StringIO(files.csv_text(rows), newline=""))
    assert first == [f"'{text}" for text in rows[0]]
    assert second == ["-1.5", "+2", "-inf", "a=b", "'-", "x-1", "'", ""]
    assert third == ["-1.5", "7", "", "nan", "True", "1e-3", "a,b", 'say "a"']


def test_a_name_that_is_no_text_is_written_all_the_same() -> None:
    assert files.csv_text([["caf\udce9.png"]]) == "caf\\udce9.png\n"


@pytest.mark.parametrize("name", ["=a.png", "@b.png"])
def test_tables_quote_names(name: str) -> None:
    import torch

    from vaelab.evaluation.ranked import Ranking

    scores = {"error": torch.tensor([1.0])}
    table = Ranking((name,), scores, {"error": torch.zeros(60)}, "error", "60 images").table()
    assert next(csv.DictReader(io.StringIO(table)))["name"] == f"'{name}"


def killed_while_writing(folder: Path, name: str = "state.safetensors") -> None:
    """Let a process die between writing and renaming."""
    code = (
        "import os, signal, sys; from vaelab import files; from pathlib import Path\n"
        "os.fsync = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_atomic(Path(sys.argv[1]), b'x' * 1000)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / name)], check=False)


@posix
def test_parts_of_killed_writers_are_removed_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    killed_while_writing(tmp_path)
    killed_while_writing(tmp_path, "other.bin")
    left = [path.name for path in tmp_path.iterdir()]
    assert len(left) == 1  # the second writer removed what the first one left
    assert left[0].startswith(".other.bin.")
    machine = re.search(r"vaelab-(\w{8})-", left[0])
    assert machine is not None
    mine = tmp_path / f".a.vaelab-{machine[1]}-{os.getpid()}.part"
    elsewhere = tmp_path / ".a.vaelab-00000000-1.part"
    strangers = tmp_path / ".a.123.part"
    for path in (mine, elsewhere, strangers):
        path.write_bytes(b"half")
    files.write_atomic(tmp_path / "state.safetensors", b"whole")
    kept = {mine.name, elsewhere.name, strangers.name, "state.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    os.utime(elsewhere, (0, 0))  # nobody has written to it for years
    files.sweep(tmp_path)
    assert not elsewhere.exists()


@posix
def test_writing_in_place_follows_no_link_and_leaves_other_names_alone(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "run"
    precious.write_text("keep")
    folder.mkdir()
    for name in ("linked", "dangling"):
        (folder / name).symlink_to(precious if name == "linked" else tmp_path / "none")
        with (
            pytest.raises(RunError, match=r"is a link to .*writes through none"),
            files.locked(folder / name),
        ):
            pass
        with pytest.raises(RunError, match="is a link to"):
            files.append(folder / name, "x")
    assert not (tmp_path / "none").exists()
    os.link(precious, folder / "second")  # a backup of hard links
    files.append(folder / "second", " and more")
    assert (precious.read_text(), (folder / "second").read_text()) == ("keep", "keep and more")
    with files.locked(precious) as mine:
        assert mine
    assert precious.read_text() == "keep"


@posix
def test_reading_stays_in_the_folder_or_says_where_a_link_leads(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"1")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "own").write_bytes(b"2")
    (folder / "in").symlink_to("own")
    (tmp_path / "disk").symlink_to(folder)  # the whole folder on another disk
    assert files.read_bytes(folder / "in") == b"2"
    assert files.read_bytes(tmp_path / "disk" / "own") == b"2"
    with pytest.raises(RunError, match=r"run/out: is .*link to .*secret, outside"):
        files.read_bytes(folder / "out")
    with pytest.raises(RunError, match="no usable path"):
        files.inside(folder, folder / "a\0b")
    with pytest.raises(RunError, match="outside"):
        files.inside(folder, folder / ".." / "x")
    hub = tmp_path / "models--a--b"  # as huggingface_hub keeps what it has fetched
    (hub / "blobs").mkdir(parents=True)
    (hub / "blobs" / "0f").write_bytes(b"3")
    (hub / "snapshots" / "1").mkdir(parents=True)
    (hub / "snapshots" / "1" / "config.yaml").symlink_to("../../blobs/0f")
    assert files.read_bytes(hub / "snapshots" / "1" / "config.yaml") == b"3"


@posix
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_what_is_no_regular_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "c"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    else:
        path = Path("/dev/zero")
    with pytest.raises(ConfigError, match=f"is a {kind}, not a regular file"):
        read_yaml(path)
    with pytest.raises(RunError, match=f"is a {kind}, not a regular file"):
        files.read_bytes(path)


@posix
def test_a_configuration_may_come_through_standard_input(tmp_path: Path) -> None:
    code = "from vaelab.config import read_yaml; from pathlib import Path; import sys\n"
    code += "print(read_yaml(Path('/dev/stdin')))"
    done = subprocess.run(
        [sys.executable, "-c", code], input="recipe: ae", capture_output=True, text=True, check=True
    )
    assert done.stdout == "{'recipe': 'ae'}\n"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "set"

    def interrupted() -> None:
        with files.whole_folder(place) as half:
            files.write_atomic(half / "images" / "0.png", b"0")
            assert not place.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with files.whole_folder(place) as whole:
        files.write_atomic(whole / "images" / "0.png", b"0")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    with files.whole_folder(place, last="m") as whole:  # into what is there
        files.write_atomic(whole / "images" / "1.png", b"1")
        files.write_atomic(whole / "m", b"m")
    assert sorted(p.name for p in place.rglob("*")) == ["0.png", "1.png", "images", "m"]


LAUGHS = "\n".join(["a: &a0 [x]", *(f"b{n}: &a{n + 1} [*a{n}, *a{n}]" for n in range(40))])
MERGES = "\n".join(
    ["m0: &m0 {k: 1}"]
    + [f"m{n + 1}: &m{n + 1} {{<<: [{', '.join([f'*m{n}'] * 100)}], x{n}: 1}}" for n in range(9)]
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: !!timestamp x", "."),
        ("a: !!binary aGk=", "bytes"),
        ("a: {b: 1, b: 2}", "'b' is given twice"),
        ("a: " + "9" * 5000, "."),
        ("a: " + "[" * 3000, "nested"),
        ("a: &a [*a]", "nested|recursive"),
        ("a: " + "[" * 80 + "]" * 80, "nested more than 64"),
        (LAUGHS, "more than 1,000,000 values"),
        (MERGES, "more than 10,000 keys"),
    ],
)
def test_yaml_that_is_no_settings_is_an_error_in_words(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"is not valid YAML .*({why})"):
        read_yaml(tmp_path / "c.yaml")


def test_yaml_keeps_what_people_write(tmp_path: Path) -> None:
    text = "base: &b {x: 1, y: 2}\nover: {<<: *b, y: 3}\nday: 2001-02-03\nrate: 1.0e-3\n"
    (tmp_path / "c.yaml").write_text(text)
    base = {"x": 1, "y": 2}
    want = {"base": base, "over": {"x": 1, "y": 3}, "day": "2001-02-03", "rate": 0.001}
    assert read_yaml(tmp_path / "c.yaml") == want


@pytest.mark.parametrize("text", ['{"a": NaN}', "[" * 100_000, '{"a": -Infinity}', "9" * 5000])
def test_json_that_is_none_is_an_error_in_words(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RunError, match="is damaged"):
        files.read_json(tmp_path / "a.json")
