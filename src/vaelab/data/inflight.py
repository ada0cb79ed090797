"""How many pixels are decoded at once, whatever the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from vaelab.data.pixels import MAX_PIXELS


class Allotment:
    """A number of pixels that threads share; one image alone may always be decoded.

    While it is decoded and converted an image takes up to about 20 bytes a pixel, so that sixteen
    threads with images of 67 megapixels would take 20 GB.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels, self._used = pixels, 0
        self._free = Condition()

    @contextmanager
    def share(self, pixels: int) -> Iterator[None]:
        """Hold so many pixels while the context lasts; waits until there are as many."""
        with self._free:
            self._free.wait_for(lambda: self._used == 0 or self._used + pixels <= self._pixels)
            self._used += pixels
        try:
            yield
        finally:
            with self._free:
                self._used -= pixels
                self._free.notify_all()


DECODING = Allotment(MAX_PIXELS)
