"""Images of any source as 8-bit tensors, split for honest measurement, in batches."""

from __future__ import annotations

from vaelab.data.batches import Batch, Batches, binarize, epoch_order, fetch, resident
from vaelab.data.images import ImageSet, Splits
from vaelab.data.load import load_config, load_data
from vaelab.data.summary import summary

__all__ = [
    "Batch",
    "Batches",
    "ImageSet",
    "Splits",
    "binarize",
    "epoch_order",
    "fetch",
    "load_config",
    "load_data",
    "resident",
    "summary",
]
