"""TIFF files of more channels or bits than Pillow reads: all samples, as numbers.

Pillow has 8 bits for colours and no mode for other channels: of two samples it reads the first, of
five three, and turns 16 bits into 8. Here the strips or tiles of a page are decoded as bytes: as a
grey TIFF whose rows are as wide as the samples have bytes.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from vaelab.errors import DataError, counted

Values = NDArray[Any]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_ORIENTATION = 274

_OF_BYTES = (1, 5, 8, 32773, 32946, 34925, 50000)  # compressions that know nothing of samples
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_MOST = 2**30  # bytes of a page or a tile
_RATIO = 5000  # above, nothing was compressed so
_ALPHA = ((1,), (2,))  # what extra samples are: premultiplied or not
_WHITE_IS_0, _RGB = 0, 2


class Tiff(TiffImageFile):
    """A TIFF of any number of samples. Where Pillow does them justice it is Pillow's image."""

    def _setup(self) -> None:
        if not self.deep:
            super()._setup()
            return
        width, height = self.tag_v2[_WIDTH], self.tag_v2[_HEIGHT]
        if not isinstance(width, int) or not isinstance(height, int):
            raise SyntaxError("no size")
        self._size, self._mode, self.tile = (width, height), "L", []  # see `values`

    @property
    def samples(self) -> int:
        """Samples a pixel."""
        return int(self.tag_v2.get(_SAMPLES, 1))

    @property
    def alpha(self) -> bool:
        """Whether the last sample is said to be alpha."""
        extra = tuple(self.tag_v2.get(_EXTRA, ()))
        colours = 3 if self.tag_v2.get(_PHOTOMETRIC) == _RGB else 1
        return self.samples == colours + 1 and (extra in _ALPHA or (not extra and colours == 3))

    @property
    def deep(self) -> bool:
        """Whether Pillow would lose channels or bits of the page."""
        photometric, bits = self.tag_v2.get(_PHOTOMETRIC, 0), {*self._each(_BITS)}
        if photometric > _RGB or not bits & {8, 16, 32, 64}:
            return False  # YCbCr, CMYK, palettes; masks of 1 to 4 bits
        kinds = {*self._each(_FORMAT)}
        if self.samples == 1:
            plain = {8: (1, 4), 16: (1, 2, 4), 32: (2, 3)}.get(max(bits), ())
            inverted = photometric == _WHITE_IS_0 and max(bits) > 8
            return not kinds <= {*plain} or inverted
        eight = bits == {8} and kinds <= {1, 4}
        return not (eight and (self.alpha or (photometric == _RGB and self.samples == 3)))

    def values(self) -> Values:
        """All samples of the page, ``(H, W, C)``, upright; alpha is not premultiplied.

        Raises:
            DataError: the page is of a kind that is not read; says which.
        """
        dtype = self._dtype()
        try:
            return self._values(dtype)
        except (KeyError, IndexError, TypeError, ValueError, SyntaxError, struct.error) as error:
            raise DataError(f"damaged: {error}") from None

    def _values(self, dtype: np.dtype[Any]) -> Values:
        tags, planar = self.tag_v2, self.tag_v2.get(_PLANAR, 1) == 2
        height, width = int(tags[_HEIGHT]), int(tags[_WIDTH])
        planes = self.samples if planar else 1
        pieces = self._pieces(width * height * self.samples * dtype.itemsize)
        each = len(pieces) // planes
        inner = self.samples // planes
        layers = []
        for plane in range(planes):
            mine = pieces[plane * each : (plane + 1) * each]
            rows = self._bytes(mine, inner * dtype.itemsize)
            layer = np.ascontiguousarray(rows).view(dtype).astype(dtype.newbyteorder("="))
            layers.append(self._summed(layer.reshape(height, width, inner)))
        found = np.concatenate(layers, -1)
        if tags.get(_PHOTOMETRIC, 1) == _WHITE_IS_0 and dtype.kind == "u":
            found = ~found
        if self.alpha and tuple(tags.get(_EXTRA, ())) == (1,):
            found = _unmultiplied(found)
        return upright(found, int(tags.get(_ORIENTATION, 1)))

    def _each(self, tag: int) -> tuple[int, ...]:
        found = self.tag_v2.get(tag, (1,))
        return tuple(found) if isinstance(found, tuple) else (found,)

    def _dtype(self) -> np.dtype[Any]:
        """Type of the samples, in the order of bytes of the file."""
        bits, kinds = {*self._each(_BITS)}, {*self._each(_FORMAT)}
        kind, compression = _KINDS.get(max(kinds), ""), self.tag_v2.get(_COMPRESSION, 1)
        whole = len(bits) == len(kinds) == 1 and max(bits) in (8, 16, 32, 64) and kind
        if not whole or (kind == "f" and bits == {8}) or compression not in _OF_BYTES:
            raise self._refused("")
        if self.tag_v2.get(_PREDICTOR, 1) not in (1, 2):
            raise self._refused(" and a predictor of floats")
        order = "<" if self.tag_v2.prefix == b"II" else ">"
        return np.dtype(f"{order}{kind}{max(bits) // 8}")

    def _refused(self, more: str) -> DataError:
        bits = " and ".join(map(str, sorted({*self._each(_BITS)})))
        of = f"{counted(self.samples, 'sample')} of {bits} bits"
        compression = self.tag_v2.get(_COMPRESSION, 1)
        return DataError(
            f"a TIFF of {of}, compression {compression}{more}, which is not read. Save the images "
            "as .npy or .npz"
        )

    def _pieces(self, size: int) -> list[bytes]:
        """The strips or tiles of the page as they are in the file."""
        if size > _MOST:
            raise DataError(f"{size:,} bytes of pixels, taken for a decompression bomb")
        tiled = _TILES in self.tag_v2
        starts = self._each(_TILES if tiled else _STRIPS)
        lengths = self.tag_v2.get(_TILE_BYTES if tiled else _STRIP_BYTES, (size,))
        assert self.fp is not None
        end = self.fp.seek(0, io.SEEK_END)
        most = sum(lengths) * (1 if self.tag_v2.get(_COMPRESSION, 1) == 1 else _RATIO)
        if len(lengths) != len(starts) or sum(lengths) > 2 * end or size > most:
            raise DataError("damaged: its strips do not fit the file")
        found = []
        for start, length in zip(starts, lengths, strict=True):
            self.fp.seek(start)
            found.append(self.fp.read(length))
        return found

    def _bytes(self, pieces: Sequence[bytes], wide: int) -> NDArray[np.uint8]:
        """Decode strips or tiles to rows of bytes, ``wide`` of them a pixel."""
        tags = self.tag_v2
        entries = {
            _WIDTH: tags[_WIDTH] * wide,
            _HEIGHT: tags[_HEIGHT],
            _BITS: 8,
            _COMPRESSION: tags.get(_COMPRESSION, 1),
            _PHOTOMETRIC: 1,
            _SAMPLES: 1,
        }
        if _TILES in tags:
            if tags[_TILE_WIDTH] * tags[_TILE_HEIGHT] * wide > _MOST:
                raise DataError("damaged: its tiles are larger than any image")
            entries |= {_TILE_WIDTH: tags[_TILE_WIDTH] * wide, _TILE_HEIGHT: tags[_TILE_HEIGHT]}
        else:
            entries[_ROWS] = min(tags.get(_ROWS, tags[_HEIGHT]), tags[_HEIGHT])
        with TiffImageFile(io.BytesIO(_grey_file(pieces, entries, _TILES in tags))) as image:
            return np.asarray(image)

    def _summed(self, layer: Values) -> Values:
        """Undo horizontal differences, which begin anew in each tile."""
        if self.tag_v2.get(_PREDICTOR, 1) == 1:
            return layer
        step = int(self.tag_v2.get(_TILE_WIDTH, layer.shape[1]))
        for start in range(0, layer.shape[1], step):
            part = layer[:, start : start + step]
            np.cumsum(part, axis=1, dtype=part.dtype, out=part)
        return layer


def upright(values: Values, orientation: int) -> Values:
    """Turn ``(H, W, C)`` as its tag of orientation says, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def _unmultiplied(values: Values) -> Values:
    """Colours that were multiplied by alpha, as they were before."""
    most = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1
    alpha = values[..., -1:].astype(np.float64)
    colours = values[..., :-1].astype(np.float64) * most / np.where(alpha > 0, alpha, 1)
    if values.dtype.kind in "ui":
        colours = np.rint(colours.clip(0, most))
    return np.concatenate((colours.astype(values.dtype), values[..., -1:]), -1)


def _grey_file(pieces: Sequence[bytes], entries: dict[int, int], tiled: bool) -> bytes:
    """A TIFF of one 8-bit sample that holds these strips or tiles."""
    lengths = [len(piece) for piece in pieces]
    starts = [8 + sum(lengths[:number]) for number in range(len(pieces))]
    data = b"".join(pieces)
    lists = {_TILES if tiled else _STRIPS: starts, _TILE_BYTES if tiled else _STRIP_BYTES: lengths}
    data += bytes(len(data) % 2)
    at = {}
    for tag, numbers in lists.items():
        at[tag] = 8 + len(data)
        data += struct.pack(f"<{len(numbers)}I", *numbers)
    fields = [(tag, 1, value) for tag, value in entries.items()]
    fields += [
        (tag, len(numbers), at[tag] if len(numbers) > 1 else numbers[0])
        for tag, numbers in lists.items()
    ]
    table = b"".join(struct.pack("<HHII", tag, 4, *rest) for tag, *rest in sorted(fields))
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return head + data + struct.pack("<H", len(fields)) + table + bytes(4)
