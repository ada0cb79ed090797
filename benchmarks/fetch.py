"""Packages with images or fonts in them, fetched by the clients of their registries and unpacked.

Nothing is installed. A package that is there already is not fetched again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

EMOJI = "emoji-datasource-google@16.0.0"
PICTURES = "scikit-image==0.26.0"


def default_folder() -> Path:
    """Return where image sets are kept: ``$VAELAB_SETS``, or a folder of the user's cache."""
    return Path(os.environ.get("VAELAB_SETS", Path.home() / ".cache" / "vaelab-benchmarks"))


def npm(package: str, folder: Path) -> Path:
    """Return the unpacked folder of a package of npm."""
    return _fetched(package, folder, ["npm", "pack", "--silent", package], _untar)


def deb(package: str, folder: Path) -> Path:
    """Return the unpacked folder of a package of Debian (or of what `apt-get` knows)."""
    return _fetched(package, folder, ["apt-get", "download", package], _unpack_deb)


def wheel(package: str, folder: Path) -> Path:
    """Return the unpacked folder of a wheel of PyPI."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", package]
    return _fetched(package, folder, pip, _unzip)


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``folder`` once the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        yield partial
        partial.chmod(0o755)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fetched(
    package: str, folder: Path, command: list[str], unpack: Callable[[Path, Path], None]
) -> Path:
    """Return ``folder/package``, after running ``command`` and unpacking the one file it leaves."""
    out = folder / package
    if out.is_dir():
        return out
    print(f"fetching {package}", flush=True)
    with whole(out) as partial, tempfile.TemporaryDirectory() as download:
        done = subprocess.run(command, cwd=download, capture_output=True, text=True, check=False)
        files = [path for path in Path(download).iterdir() if path.is_file()]
        if done.returncode or len(files) != 1:
            raise SystemExit(f"{' '.join(command)}: no package came back.\n{done.stderr[-2000:]}")
        unpack(files[0], partial)
    return out


def _untar(archive: Path, folder: Path) -> None:
    shutil.unpack_archive(archive, folder, "gztar", filter="data")


def _unpack_deb(archive: Path, folder: Path) -> None:
    subprocess.run(["dpkg", "-x", str(archive), str(folder)], check=True)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
