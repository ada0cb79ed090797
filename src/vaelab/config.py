"""What a run is made of, as typed, checked data: the whole of ``config.yaml``.

An unknown key, a value out of range or an option that the recipe does not have is an error that
names the key, never a silent default.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vaelab.errors import ConfigError, counted, cut, refuse_pickle
from vaelab.opening import open_regular, read_at_most
from vaelab.parsing import MAX_BYTES, parse_yaml

Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Width = Annotated[int, Field(ge=1, le=65_536)]
"""Of a layer, of the latent space: more would not fit into memory."""
Draws = Annotated[int, Field(ge=1, le=100_000)]
"""Of the latent, for each image of a batch."""
Factor = Annotated[float, Field(ge=0, le=100)]
"""Temperature or guidance."""

Fit = Literal["pad", "crop", "stretch"]
ValueRange = Literal["auto", "full"] | Annotated[list[float], Field(min_length=2, max_length=2)]
Binarize = Literal["none", "dynamic", "threshold"]
Output = Literal["linear", "sigmoid"]
LikelihoodName = Literal[
    "bernoulli",
    "continuous-bernoulli",
    "gaussian",
    "gaussian-scalar",
    "gaussian-pixel",
    "logistic-mixture",
    "laplace",
]
PosteriorName = Literal["diagonal", "full", "flow", "dirac"]
OptimizerName = Literal[
    "batch-gd", "sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "adamax", "muon"
]
ScheduleName = Literal["constant", "cosine", "one-cycle"]
PresetName = Literal["small", "base", "large"]


IN_MEMORY = "(in memory)"
"""What ``data.spec`` is for images that were given as such."""


class Section(BaseModel):
    """A part of the configuration: immutable, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DataConfig(Section):
    """Which images, in which shape, split how."""

    spec: str = Field(
        "mnist",
        description="mnist, swiss-roll, or the path of images (folder, zip, IDX, npz, csv, …)",
    )
    size: Annotated[list[Width], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="height and width to fit every image to; default: as they are, or of image "
        "files of several sizes a middle one, written by a run",
    )
    channels: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="1 grey, 3 RGB, 4 RGBA; any other number as the data has it"
    )
    fit: Fit = Field("pad", description="how an image of another size is brought to `size`")
    range: ValueRange = Field(
        "auto",
        description="values that are black and white: [low, high]; full, as the files say; or "
        "auto, by the values of the whole data set",
    )
    background: str | None = Field(
        None,
        description="white, black or #rrggbb, under transparent images and around padded ones; "
        "default: white under transparent images, black around others",
    )
    frames: str = Field("all", description="of a TIFF stack or an animation: all, first or every=K")
    group: str | None = Field(
        None,
        description="column of a table whose values keep images in one part of the split; "
        "file-name: images whose names differ in their last number alone stay together",
    )
    skip_bad: bool = Field(False, description="leave unreadable images out and count them")
    split: Annotated[list[Fraction], Field(min_length=3, max_length=3)] = Field(
        [0.8, 0.1, 0.1], description="train, validation and test share where the data has no split"
    )
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="seed of the split")
    binarize: Binarize = Field(
        "none", description="targets: grey as they are, drawn anew each time, or pixel > 1/2"
    )
    attributes: list[str] = Field(
        [],
        description="attributes to use, by name: the data's own, or measured on the images: "
        "thickness, slant, width, height, area, loops; default: the data's own",
    )
    signed: list[str] = Field(
        [],
        description="attributes whose -1 and 1 are numbers, as the training images showed; written "
        "by a run. Others of -1 and 1 alone are read as 0 and 1",
    )
    live: bool = Field(
        False,
        description="read a data set with random transforms anew in every epoch; in Python alone",
    )

    @field_validator("attributes", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if isinstance(value, str):  # thickness,slant
            return [name.strip() for name in value.split(",") if name.strip()]
        return value

    @field_validator("range", mode="before")
    @classmethod
    def _pair(cls, value: object) -> object:
        if isinstance(value, str) and "," in value:  # 0,4095
            return [part.strip() for part in value.split(",")]
        return value

    @field_validator("range")
    @classmethod
    def _ascends(cls, value: ValueRange) -> ValueRange:
        if isinstance(value, list) and not (value[0] < value[1] and math.isfinite(sum(value))):
            raise ValueError("give LOW,HIGH with LOW below HIGH, auto or full")
        return value

    @field_validator("background")
    @classmethod
    def _colour(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch("white|black|#[0-9a-fA-F]{6}", value):
            raise ValueError("give white, black or #rrggbb")
        return value

    @field_validator("frames")
    @classmethod
    def _counted(cls, value: str) -> str:
        if not re.fullmatch("all|first|every=[1-9][0-9]{0,8}", value):
            raise ValueError("give all, first or every=K, such as every=10")
        return value

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, value: object) -> object:
        if isinstance(value, str):  # 64, or 37x53: height x width
            sides = value.lower().split("x")
            if len(sides) > 2 or not all(side.strip().isdigit() for side in sides):
                raise ValueError("give N or HEIGHTxWIDTH, such as 64 or 37x53")
            return [int(sides[0]), int(sides[-1])]
        return [value, value] if isinstance(value, int) else value

    @field_validator("split")
    @classmethod
    def _sums_to_one(cls, value: list[float]) -> list[float]:
        if abs(sum(value) - 1) > 1e-6 or value[0] == 0:
            raise ValueError("shares must sum to 1 and leave some images for training")
        return value


MAX_LAYERS = 1_000
"""Of one kind in a network, at most."""


class NetworkConfig(Section):
    """An encoder or decoder: convolutions (none in an mlp), then fully connected layers."""

    kind: Literal["conv", "residual", "mlp"] = "conv"
    widths: Annotated[list[Width], Field(min_length=1, max_length=MAX_LAYERS)] = Field(
        [32, 64], description="channels of each convolution, from the image to the code"
    )
    strides: Annotated[list[Literal[1, 2]], Field(max_length=MAX_LAYERS)] | None = Field(
        None, description="of each convolution; default 2"
    )
    kernel: Annotated[int, Field(ge=1, le=15)] = 4
    hidden: Annotated[list[Width], Field(max_length=MAX_LAYERS)] = Field(
        [],
        description="widths of fully connected layers, from the image to the code; "
        "[512, 512] in an mlp, where [] makes it linear",
    )
    normalization: Literal["none", "batch", "layer", "group"] = "none"
    activation: Literal["relu", "leaky-relu", "elu", "gelu", "silu", "tanh"] = "relu"
    dropout: Rate = Field(0.0, description="dropout rate after every hidden layer")

    @model_validator(mode="before")
    @classmethod
    def _mlp_is_deep(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("kind") == "mlp":
            return {"hidden": [512, 512], **data}
        return data

    @model_validator(mode="after")
    def _one_stride_each(self) -> Self:
        if self.strides is not None and len(self.strides) != len(self.widths):
            raise ValueError(f"{len(self.strides)} strides for {len(self.widths)} widths")
        return self


class ModelConfig(Section):
    """Three conditional distributions: posterior q(z|x), likelihood p(x|z) and prior p(z)."""

    latent_dim: Width = Field(2, description="dimensions D of the latent space")
    encoder: NetworkConfig = NetworkConfig()
    decoder: NetworkConfig = Field(
        NetworkConfig(), description="mirrors the encoder; name only what differs"
    )
    likelihood: LikelihoodName = "bernoulli"
    sigma: Positive | Literal["auto"] = Field(
        "auto",
        description="σ of `gaussian`; scale of `laplace`; start of others. auto: the scale that "
        "fits the errors of each batch best; the start is the deviation of the images",
    )
    mixtures: Width = Field(3, description="components of `logistic-mixture`")
    output: Output = Field(
        "linear",
        description="what the decoder's output is to the mean of Gaussian likelihoods and "
        "`laplace`: the mean itself, or its logit (times ¼)",
    )
    standardize: bool = Field(
        False,
        description="the encoder sees pixels whitened over channels, and the decoder starts at the "
        "mean image",
    )
    posterior: PosteriorName = "diagonal"
    prior: str = Field("normal", description="normal, mixture, or a zuko flow such as nsf or maf")
    prior_components: Width = Field(50, description="components of the `mixture` prior")

    @model_validator(mode="before")
    @classmethod
    def _mirror(cls, data: Any) -> Any:
        """Let the decoder take from the encoder what it does not set itself."""
        if not isinstance(data, Mapping):
            return data
        encoder, decoder = data.get("encoder", {}), data.get("decoder", {})
        if isinstance(encoder, NetworkConfig):
            encoder = encoder.model_dump(exclude_unset=True)
        if isinstance(encoder, Mapping) and isinstance(decoder, Mapping):
            return {**data, "decoder": {**encoder, **decoder}}
        return data


class AugmentConfig(Section):
    """Data augmentation: how far chance varies each training image, anew in every step."""

    flip: bool | Literal["auto"] = Field(
        False,
        description="mirror every other image left and right; auto: where validation images show "
        "that it helps",
    )
    shift: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0, description="share of the shorter side, at most, that an image is moved"
    )
    crop: Annotated[float, Field(ge=0, le=0.9)] = Field(
        0.0, description="share of each side, at most, that is cut off; the rest fills the image"
    )
    zoom: Annotated[float, Field(ge=0, le=0.9)] = Field(
        0.0, description="share of the size, at most, that an image grows or shrinks"
    )
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(0.0, description="degrees at most")
    jitter: Rate = Field(
        0.0, description="share, at most, that brightness, contrast and saturation change"
    )
    hue: Annotated[float, Field(ge=0, le=180)] = Field(
        0.0, description="degrees, at most, that colours turn about the greys"
    )
    unchecked: bool = Field(
        False, description="also what changes a class or an attribute that the model learns"
    )

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, data: Any) -> Any:
        return augmentations(data) if isinstance(data, str) else data


USUAL: Mapping[str, Any] = {
    "flip": True, "shift": 0.06, "crop": 0.2, "zoom": 0.1, "rotation": 10.0, "jitter": 0.2,
    "hue": 10.0,
}  # fmt: skip
"""What an augmentation is that is named without a number."""


def augmentations(text: str) -> dict[str, Any]:
    """Return as keys of `AugmentConfig` what is named as ``flip,shift,rotation=20``.

    Raises:
        ConfigError: a name or a value that is none.
    """
    found: dict[str, Any] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, value = part.partition("=")
        if name not in USUAL:
            close = difflib.get_close_matches(name, USUAL, 1, 0.6)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(USUAL)}."
            raise ConfigError(f"augment: there is no augmentation {cut(name, 60)!r}; {hint}")
        found |= assignment(part) if value else {name: USUAL[name]}
    return found


class TrainingConfig(Section):
    """How the objective is optimised."""

    epochs: Count = 20
    batch_size: Count = Field(128, description="images a step, over all processes")
    lr: Positive = 1e-3
    optimizer: OptimizerName = "adam"
    betas: Annotated[list[Rate], Field(min_length=2, max_length=2)] = Field(
        [0.9, 0.999], description="decay of Adam's first and second moment"
    )
    momentum: Rate = Field(0.9, description="of `momentum` and `nesterov`; that of `muon` is 0.95")
    weight_decay: NonNegative = 0.0
    schedule: ScheduleName = Field("constant", description="of the learning rate")
    lr_warmup: Fraction = Field(0.0, description="share of training in which the rate rises to lr")
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay of an average of the weights, used in place of the last ones"
    )
    clip: Positive | None = Field(None, description="largest norm of a gradient")
    patience: Count | None = Field(
        None, description="stop after this many epochs without a better validation loss"
    )
    nonfinite_limit: Count = Field(20, description="skipped steps in a row before training stops")
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = Field(False, description="torch.compile the model")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    augment: AugmentConfig = Field(
        AugmentConfig(), description="data augmentation, such as flip,shift; see its keys"
    )
    labelled: Count | None = Field(
        None, description="show the labels of so many training images, evenly over the classes"
    )
    log_every: Count = Field(50, description="steps between two lines of log.jsonl")
    checkpoint_seconds: NonNegative = Field(
        60.0, description="a checkpoint is also written when the last is this old"
    )
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = []


class StartConfig(Section):
    """The weights that a run started from: a record, which resuming does not need."""

    run: str = Field(description="folder of the run whose weights these are")
    weights: str = Field(description="their checksum")
    classes: list[str] | None = Field(None, description="that the weights are conditioned on")
    attributes: list[str] | None = Field(None, description="that the weights are conditioned on")


class RunConfig(Section):
    """All that is needed to repeat a run."""

    recipe: str = "vae"
    preset: PresetName | None = Field(
        None, description="how large a model and a training are chosen by the images; default: base"
    )
    options: dict[str, Any] = Field({}, description="options of the recipe, such as beta")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    start: StartConfig | None = Field(
        None, description="the weights that training starts from; written by --from"
    )
    versions: dict[str, str] = Field({}, description="of the software; written, never read")


def parse_config(values: Mapping[str, Any], where: str = "configuration") -> RunConfig:
    """Check nested values; raises `ConfigError` naming every bad key."""
    try:
        return RunConfig.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(error, RunConfig, where)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader; raises `ConfigError` when it is none."""
    refuse_pickle(path)
    try:
        with open_regular(path, error=ConfigError, pipes=True) as file:
            values = parse_yaml(read_at_most(file, MAX_BYTES, path, ConfigError).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}).") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not valid YAML ({error}).") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: must hold `key: value` lines, such as `recipe: vae`.")
    return values


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``over`` laid on top, section by section."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merge(below, value)
        merged[key] = value
    return merged


def assignment(text: str) -> dict[str, Any]:
    """Turn ``a.b=value`` (the value in YAML) into ``{"a": {"b": value}}``."""
    key, sign, value = text.partition("=")
    names = key.strip().split(".")
    if not sign or not all(names):
        raise ConfigError(f"-s {text!r}: expected key=value, such as -s training.lr=0.001.")
    try:
        parsed: Any = parse_yaml(value)
    except ValueError as error:
        given = text if len(text) < 80 else f"{text[:80]}…"
        raise ConfigError(f"-s {given!r}: the value is not valid YAML ({error}).") from None
    if isinstance(parsed, str):  # YAML 1.1 reads 1e-3 as text
        try:
            parsed = float(parsed)
        except ValueError:
            pass
    for name in reversed(names):
        parsed = {name: parsed}
    return dict(parsed)


_TOLD = 10
"""Faults that a message names, at most."""


def explain(error: ValidationError, schema: type[BaseModel], where: str) -> str:
    """Say in one line a fault what is wrong with which key, and what was probably meant."""
    lines = []
    faults = error.errors()
    for fault in faults[:_TOLD]:
        path = [part for part in fault["loc"] if isinstance(part, str)]
        name = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = _keys(schema, path[:-1])
            close = difflib.get_close_matches(path[-1], known, 1, 0.6) or _elsewhere(path[-1])
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known) or 'none'}."
            lines.append(f"{cut(name, 100)} is unknown; {hint}")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
            got = f" (got {fault['input']!r})" if _short(fault["input"]) else ""
            lines.append(f"{cut(name or 'value', 100)}: {cut(message)}{got}.")
    if len(faults) > _TOLD:
        lines.append(f"{counted(len(faults) - _TOLD, 'more setting')} cannot be used.")
    return f"{where}: " + " ".join(lines)


def _short(value: object) -> bool:
    return isinstance(value, (str, int, float, bool)) and len(repr(value)) < 60


def _elsewhere(key: str) -> list[str]:
    """Return the full names of settings in any section whose last name is ``key``, or nearly so."""
    names = {
        below: f"{section}.{below}"
        for section in ("data", "model", "training")
        for below in _keys(RunConfig, [section])
    }
    return [names[name] for name in difflib.get_close_matches(key, names, 1, 0.8)]


def _keys(schema: type[BaseModel], path: list[str]) -> list[str]:
    for name in path:
        field = schema.model_fields.get(name)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return []
        schema = field.annotation
    return list(schema.model_fields)
