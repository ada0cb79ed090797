"""Encoder and decoder as ONNX networks, checked against PyTorch before they are written.

`encoder.onnx` turns ``images`` (float32 in [0, 1], ``(N, C, H, W)``) into ``mean`` and ``stddev``
of q(z|x), each ``(N, D)``; `decoder.onnx` turns ``codes`` ``(N, D)`` into ``image``, the mean of
p(x|z) in [0, 1]. N is free. Networks that are told labels take a second input ``context``
``(N, K)``, whose layout the metadata of the file describes. Zeros say "unknown": an encoder that
reads unknown labels from the image has a third output ``context_read``, with what it read filled
in, to give to the decoder.
"""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaelab.errors import ConfigError, ExportError
from vaelab.files import whole_folder, write_atomic
from vaelab.models.model import evaluating
from vaelab.models.vae import Vae
from vaelab.training.run import versions

BATCHES = (1, 3, 64)
"""Batch sizes at which ONNX Runtime must give what PyTorch gives."""

TOLERANCE = 1e-4
"""Largest difference, in units of 1 + |value|."""


class Encoder(nn.Module):
    """Images, and contexts where the model is told labels, to the moments of q(z|x)."""

    def __init__(self, model: Vae) -> None:
        super().__init__()
        self.model = model
        self.told = model.conditioning is not None and "encoder" in model.told
        self.reads = self.told and model.reads
        self.inputs = ("images", *(["context"] if self.told else []))
        self.outputs = ("mean", "stddev", *(["context_read"] if self.reads else []))

    def forward(self, images: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return mean and deviation ``(N, D)``, and the contexts where the model reads them."""
        if context is not None:
            context = self.model.filled(images, context)
        posterior = self.model.infer(images, context)
        found = posterior.mean, posterior.stddev
        return (*found, context) if self.reads and context is not None else found


class Decoder(nn.Module):
    """Codes, and contexts where the model is told labels, to images."""

    def __init__(self, model: Vae) -> None:
        super().__init__()
        self.model = model
        self.told = bool(model.decoding_names)
        self.inputs = ("codes", *(["context"] if self.told else []))
        self.outputs = ("image",)

    def forward(self, codes: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the mean of p(x|z), ``(N, C, H, W)`` in [0, 1]."""
        return (self.model.decode(codes, context).mean.clamp(0, 1),)


def export_onnx(model: Vae, folder: Path | str) -> list[Path]:
    """Write ``encoder.onnx`` and ``decoder.onnx`` of a trained model; returns their paths.

    Neither is written unless both give what PyTorch gives at batches of 1, 3 and 64.

    Raises:
        ConfigError: onnx, onnxscript or onnxruntime is not installed.
        ExportError: a part of the model has no ONNX form, or comes out different.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise ConfigError(
                f"ONNX: needs {name}. Install it with: pip install 'vaelab[onnx]'"
            ) from None
    home = model.device
    made = {}
    try:
        model.to("cpu")
        for name, part in (("encoder", Encoder(model)), ("decoder", Decoder(model))):
            with evaluating(model), torch.no_grad():
                part.eval()
                data = _converted(name, part, model)
                check(name, data, part, model)
            made[f"{name}.onnx"] = data
    finally:
        model.to(home)
    with whole_folder(Path(folder)) as place:
        for file, data in made.items():
            write_atomic(place / file, data)
    return [Path(folder) / file for file in made]


def _converted(name: str, part: Encoder | Decoder, model: Vae) -> bytes:
    given = _examples(part, model, 2)
    rows = torch.export.Dim.DYNAMIC
    try:
        with _quiet():
            program = torch.onnx.export(
                part,
                given,
                dynamo=True,
                verbose=False,
                input_names=part.inputs,
                output_names=part.outputs,
                dynamic_shapes=tuple({0: rows} for _ in given),
            )
    except Exception as error:  # the exporter has its own, by stage; all are about this model
        raise ExportError(
            f"{name}: has no ONNX form ({_cause(error)}). Use model.safetensors with vaelab.load, "
            "or train a model with another posterior or likelihood to export."
        ) from None
    assert program is not None
    proto = program.model_proto
    for key, value in _about(part, model).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    data: bytes = proto.SerializeToString()
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says of its own inner workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def check(name: str, data: bytes, part: Encoder | Decoder, model: Vae) -> float:
    """Compare an ONNX network with PyTorch; returns the largest difference that was seen.

    Raises:
        ExportError: it is above `TOLERANCE`, or the network does not run.
    """
    runtime = importlib.import_module("onnxruntime")
    worst = 0.0
    try:
        session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
        for rows in BATCHES:
            given = _examples(part, model, rows)
            feed = {key: value.numpy() for key, value in zip(part.inputs, given, strict=True)}
            found = session.run(list(part.outputs), feed)
            for got, want in zip(found, part(*given), strict=True):
                difference = (torch.from_numpy(got) - want).abs() / (1 + want.abs())
                worst = max(worst, float(difference.max()))
                if got.shape != tuple(want.shape) or not difference.isfinite().all():
                    worst = float("inf")
    except Exception as error:  # onnxruntime has its own, by kind of fault
        raise ExportError(f"{name}: ONNX Runtime cannot run it ({_cause(error)}).") from None
    if not worst <= TOLERANCE:
        raise ExportError(
            f"{name}: ONNX Runtime and PyTorch differ by {worst:.2g} of 1 + |value|, more than "
            f"{TOLERANCE:g}. Nothing was written."
        )
    return worst


def _examples(part: Encoder | Decoder, model: Vae, rows: int) -> tuple[Tensor, ...]:
    """Return inputs to try: noise, and contexts of training images, the last one unknown."""
    generator = torch.Generator().manual_seed(rows)
    first = (
        torch.rand(rows, *model.shape, generator=generator)
        if isinstance(part, Encoder)
        else torch.randn(rows, model.latent_dim, generator=generator)
    )
    if not part.told:
        return (first,)
    assert model.conditioning is not None
    known = model.conditioning.rows.cpu()
    context = known[torch.arange(rows) * 7 % len(known)].clone()
    context[rows // 2 :][-1:] = 0
    return first, context


def _about(part: Encoder | Decoder, model: Vae) -> dict[str, str]:
    """Return what a file says of itself: versions, recipe, and the layout of the context."""
    now = versions()
    about = {"vaelab": now["vaelab"], "torch": now["torch"], "shape": json.dumps(model.shape)}
    if model.config is not None:
        about["recipe"] = model.config.recipe
    told = model.conditioning
    if part.told and told is not None:
        about["context"] = json.dumps(
            {
                "classes": list(told.class_names),
                "attributes": [
                    {"name": name, "minus": minus, "over": over, "sign": told.cut}
                    for name, minus, over in zip(
                        told.attribute_names,
                        _numbers(told.location),
                        _numbers(told.scale),
                        strict=True,
                    )
                ],
                "layout": "one-hot class, then each attribute as (value − minus) / over (its sign "
                "alone where sign is true), then 1 for each attribute that is known; unknown is 0",
            },
            ensure_ascii=False,
        )
    return about


def _numbers(values: Tensor) -> Sequence[float]:
    found: list[float] = values.tolist()
    return found


def _cause(error: Any) -> str:
    """Return the first cause of an error in a line without colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return " ".join(text.split())[:200]
