"""Images as the bytes of an image file, such as Parquet and Hugging Face data sets hold them."""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from vaelab.data.formats import FORMATS, READ, searched
from vaelab.data.levels import Levels
from vaelab.data.pixels import Geometry, Pixels, native_shape
from vaelab.errors import DataError


def decoded(data: bytes, geometry: Geometry, levels: Levels) -> Pixels:
    """Bring the image in ``data`` to ``(C, H, W)``; raises `DataError` where it is none."""
    try:
        with Image.open(searched(io.BytesIO(data)), formats=FORMATS) as image:
            native_shape(image)  # refuses a decompression bomb before it goes off
            return geometry.image(image, levels)
    except UnidentifiedImageError:
        raise DataError(f"not an image that is read ({', '.join(READ)})") from None
    except Image.DecompressionBombError:
        raise DataError("taken for a decompression bomb") from None
