"""Which kind of file lies there: by its first bytes, whatever its name ends in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import IO, Any, cast

from PIL import features

from vaelab.errors import DataError, counted

HEAD = 136
"""Bytes at the start of a file that say what it is."""

_FORMATS = {
    "PNG": "PNG",
    "JPEG": "JPEG",
    "BMP": "BMP",
    "WebP": "WEBP",
    "TIFF": "TIFF",
    "GIF": "GIF",
    "JPEG 2000": "JPEG2000",
    "PNM": "PPM",
    "PCX": "PCX",
    **({"AVIF": "AVIF"} if features.check("avif") else {}),
}
FORMATS = tuple(_FORMATS.values())
"""What Pillow is let decode."""

READ = tuple(_FORMATS)
FRAMES = ("TIFF", "GIF", "WebP", "PNG", "AVIF")
"""Kinds that can hold more than one image."""

SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
    *(".gif", ".jp2", ".j2k", ".jpx", ".j2c", ".pgm", ".ppm", ".pnm", ".pbm", ".pfm"),
    ".pcx",
}
"""Endings that promise an image: a file with one that holds none is unreadable."""

_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftyp", "video"),
    (0, b"\x1aE\xdf\xa3", "video"),
    (8, b"AVI ", "video"),
    (128, b"DICM", "DICOM"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"8BPS", "Photoshop"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"qoif", "QOI"),
    (0, b"\0\0\x01\0", "icon"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x93NUMPY", "NumPy"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"MATLAB", "MATLAB"),
    (0, b"PAR1", "Parquet"),
)
_BY_ENDING = {
    **dict.fromkeys(
        (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"), "RAW"
    ),
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    **dict.fromkeys((".svg", ".svgz"), "SVG"),
    ".avif": "AVIF",
    ".jxl": "JPEG XL",
    ".nii": "NIfTI",
    ".tga": "Targa",
    ".sgi": "SGI",
    ".xls": "workbook",
    ".ico": "icon",
    ".exr": "OpenEXR",
    ".psd": "Photoshop",
}
_ZIPPED = {  # what else is a zip archive inside
    **dict.fromkeys((".xlsx", ".xlsm", ".ods"), "workbook"),
    **dict.fromkeys((".docx", ".pptx", ".odt", ".odp"), "document"),
    ".npz": "NumPy",
}
_CONVERT = {
    "PDF": "pdftoppm -png {name} page",
    "video": "ffmpeg -i {name} %05d.png",
    "zip": "unzip {name}",
}
_AS_ARRAY = ("NumPy", "HDF5", "MATLAB", "Parquet", "NIfTI", "FITS")  # not images for ImageMagick


_READS, _LEAST = 1_000_000, 2  # reads, and bytes of each on average, of a search without end
_WHOLE = 2**28  # bytes of a file that is decoded as a whole


class Searched:
    """A file whose decoder may not search for an image for ever in bytes that hold none.

    Some formats are looked through byte by byte, others are read as a whole: a file of zeros behind
    a right beginning would take hours, or all memory.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._reads = self._bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; raises `DataError` once there have been too many such calls."""
        whole = size is None or size < 0
        data = self._file.read(_WHOLE + 1 if whole else size)
        self._reads, self._bytes = self._reads + 1, self._bytes + len(data)
        if self._reads > _READS and self._bytes < _LEAST * self._reads:
            raise DataError(f"no image in its first {self._bytes:,} bytes")
        if whole and len(data) > _WHOLE:
            raise DataError(f"longer than {_WHOLE // 2**20} MiB")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def searched(file: IO[bytes]) -> IO[bytes]:
    """Return a file whose decoder may not search in it for ever, see `Searched`."""
    return cast("IO[bytes]", Searched(file))


def kind_of(name: str, head: bytes) -> str:
    """The kind of a file, by its name and its first `HEAD` bytes; "" where it is not known."""
    suffix = PurePosixPath(name).suffix.lower()
    if _BY_ENDING.get(suffix) == "RAW":  # TIFF inside, of which Pillow would read a preview
        return "RAW"
    for start, magic, kind in _MAGIC:
        if head[start : start + len(magic)] == magic:
            return _ZIPPED.get(suffix, kind) if kind == "zip" else kind
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456fF" and head[2:3] in (b"\n", b" ", b"\t", b"\r"):
        return "PNM"
    if head[:1] == b"\n" and head[1:2] in b"\0\2\3\4\5" and head[2:3] == b"\1":
        return "PCX" if head[3:4] in (b"\1", b"\2", b"\4", b"\x08") else ""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<svg") or (suffix == ".svg" and text.startswith(b"<")):
        return "SVG"
    return _BY_ENDING.get(suffix, "")


def conversion(kind: str, name: str) -> str:
    """The line that turns files of a kind that is not read into images; "" where there is none."""
    if kind in (*_AS_ARRAY, "workbook", "document"):
        return ""
    suffix = PurePosixPath(name).suffix
    if suffix.lower() in SUFFIXES or not suffix:  # others of that ending are what they say
        return f"magick {name} {PurePosixPath(name).with_suffix('.png')}"
    each = f"*{suffix}"
    return _CONVERT.get(kind, "magick mogrify -format png {each}").format(name=name, each=each)


def unread(files: Iterable[tuple[str, str]]) -> str:
    """Say which files of a known kind are not read, and how they are converted; "" for none.

    Arguments:
        files: kind and name of each.
    """
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for kind, name in files:
        counts[kind] += 1
        first.setdefault(kind, name)
    if not counts:
        return ""
    listed = ", ".join(
        f"{number:,} {kind} (first: {first[kind]})" for kind, number in counts.items()
    )
    lines = [line for kind in counts if (line := conversion(kind, first[kind]))]
    how = f" Convert with: {'; '.join(lines)}." if lines else ""
    arrays = [kind for kind in counts if kind in _AS_ARRAY]
    if arrays:
        how += f" Name the {arrays[0]} file itself, or save its images as .npy or PNG."
    if "workbook" in counts:
        how += f" Save the sheet of {first['workbook']} as CSV, whose columns are then read."
    total = sum(counts.values())
    was = (
        "is of a kind that is not read and was" if total == 1 else "are of kinds not read and were"
    )
    return f"{counted(total, 'file')} {was} left out: {listed}.{how}"
