"""Feature spaces to compare images in: a classifier trained once on the data, or an ONNX network.

A distance between sets of images means nothing without the network that it was measured in, so
every one carries its `Features.name`.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vaelab.data.images import Splits
from vaelab.errors import ConfigError, DataError, refuse_pickle
from vaelab.models.model import Images
from vaelab.opening import open_regular
from vaelab.training.judge import trained_judge
from vaelab.training.progress import Progress, Silent


@dataclass(frozen=True)
class Features:
    """A map from images to points.

    Arguments:
        name: which network it is, for the protocol.
        of: images ``(N, C, H, W)``, 8-bit or in [0, 1], to features ``(N, F)``.
        images: number of images that the network was trained on, if known.
        accuracy: of the network as a classifier, on validation images, if known.
    """

    name: str
    of: Callable[[Images], Tensor]
    images: int | None = None
    accuracy: float | None = None


def find_features(
    splits: Splits,
    network: Path | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Features:
    """Return the features of an ONNX ``network``, or else of a classifier of the data's own labels.

    Raises:
        ConfigError: there is neither a network nor a label.
    """
    if network is not None:
        return onnx_features(network)
    if len(splits.train.class_names) < 2:
        raise ConfigError(
            f"generation: {splits.name} has no classes to train a feature network on. Name one as "
            "an ONNX file: --features NETWORK.onnx."
        )
    return classifier_features(splits, cache, progress or Silent())


def classifier_features(splits: Splits, cache: Path | None, progress: Progress) -> Features:
    """Return the last hidden layer of a small classifier of these images; see `trained_judge`."""
    judge = trained_judge(splits, cache, progress)
    name = f"last hidden layer of {judge.name}"
    return Features(name, judge.classifier.features, judge.images, judge.accuracy)


def onnx_features(path: Path) -> Features:
    """Return the first output of an ONNX network, flattened.

    Its input is float32 in [0, 1], ``(N, C, H, W)``: images are resized to a fixed H and W, and a
    grey image is repeated for three channels. Normalisation belongs into the network.

    Raises:
        ConfigError: onnxruntime is not installed, or the file is no such network.
    """
    refuse_pickle(path)
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise ConfigError(
            f"{path}: ONNX networks need onnxruntime. Install it with: pip install vaelab[onnx]"
        ) from None
    try:
        with open_regular(path, error=ConfigError) as file:
            content = file.read()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from None
    try:
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own, by kind of fault
        why = " ".join(str(error).split())
        raise ConfigError(f"{path}: is no ONNX network that can be read ({why}).") from None
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise ConfigError(f"{path}: needs one input of images, (N, C, H, W).")
    if any(isinstance(side, int) and side < 1 for side in inputs[0].shape):
        raise ConfigError(f"{path}: its input has shape {inputs[0].shape}, which holds no image.")
    name = f"{path.name}, sha256 {_digest(content)}"
    return Features(name, lambda images: _run(session, inputs[0], images))


def _run(session: Any, inputs: Any, images: Images, rows: int = 256) -> Tensor:
    channels, height, width = inputs.shape[1:]
    parts = []
    if isinstance(inputs.shape[0], int):  # exported with a fixed batch
        rows = inputs.shape[0]
    for part in torch.as_tensor(images).cpu().split(rows):
        x = part.float() / 255 if part.dtype == torch.uint8 else part.float()
        if channels == 3 and x.shape[1] == 1:
            x = x.repeat(1, 3, 1, 1)
        if isinstance(channels, int) and x.shape[1] != channels:
            raise DataError(f"features: the network takes {channels} channels, not {x.shape[1]}.")
        if isinstance(height, int) and isinstance(width, int) and x.shape[2:] != (height, width):
            x = interpolate(x, (height, width), mode="bilinear", antialias=True)
        missing = rows - len(x) if isinstance(inputs.shape[0], int) else 0
        padded = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])])
        try:
            out = session.run(None, {inputs.name: padded.numpy()})[0]
        except Exception as error:  # onnxruntime has its own, by kind of fault
            why = " ".join(str(error).split())
            raise DataError(f"features: the network cannot take these images ({why}).") from None
        if not isinstance(out, np.ndarray) or out.ndim < 2 or len(out) < len(x):
            raise DataError("features: the network does not give a row of numbers an image.")
        parts.append(torch.from_numpy(out)[: len(x)].flatten(1).float())
    return torch.cat(parts)


def _digest(content: str | bytes) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(raw).hexdigest()[:12]
