"""vaelab: variational autoencoders on your own images.

    import vaelab
    model = vaelab.train("vae", "mnist", latent_dim=2)
    images = model.sample(16)

Names are imported when they are first used, so that ``import vaelab`` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from vaelab.errors import (
    ConfigError,
    DataError,
    ExportError,
    PickleError,
    RunError,
    TrainingError,
    VaelabError,
)

if TYPE_CHECKING:
    from vaelab.api import diagnose, load, load_data, train, write_explorer
    from vaelab.data.images import ImageSet, Splits
    from vaelab.evaluation.ranked import rank
    from vaelab.export.hub import export_hub
    from vaelab.export.onnx import export_onnx
    from vaelab.models.vae import Vae

__version__ = version("vaelab")

_HOMES = {
    "ImageSet": "vaelab.data.images",
    "Splits": "vaelab.data.images",
    "Vae": "vaelab.models.vae",
    "diagnose": "vaelab.api",
    "export_hub": "vaelab.export.hub",
    "export_onnx": "vaelab.export.onnx",
    "load": "vaelab.api",
    "load_data": "vaelab.api",
    "rank": "vaelab.evaluation.ranked",
    "train": "vaelab.api",
    "write_explorer": "vaelab.api",
}

__all__ = [
    "ConfigError",
    "DataError",
    "ExportError",
    "ImageSet",
    "PickleError",
    "RunError",
    "Splits",
    "TrainingError",
    "Vae",
    "VaelabError",
    "diagnose",
    "export_hub",
    "export_onnx",
    "load",
    "load_data",
    "rank",
    "train",
    "write_explorer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vaelab' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
