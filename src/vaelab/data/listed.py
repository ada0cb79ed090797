"""Image files that are named one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from vaelab.data.folder import FORMATS, FolderSource
from vaelab.data.pixels import Geometry
from vaelab.data.source import Source
from vaelab.errors import DataError


class FileListSource(FolderSource):
    """Images in the order in which their files are named; without classes."""

    def __init__(self, paths: Sequence[Path], geometry: Geometry) -> None:
        for path in paths:
            if not path.exists():
                raise DataError(f"{path}: does not exist. Check the path.")
            if path.is_dir():
                raise DataError(f"{path}: is a folder, not an image. Pass it alone.")
        self._root, self._shape = Path(), None
        self._files = [str(path) for path in paths]
        name = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
        Source.__init__(self, name, len(paths), geometry)


def is_image(path: Path) -> bool:
    """Tell whether a file begins as an image does, whatever its name."""
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
