"""A classifier of real images that judges made ones, trained once and kept in the cache."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, replace
from importlib.resources import as_file
from importlib.resources import files as resources
from pathlib import Path

import torch
from torch import nn

from vaelab import files
from vaelab.config import IN_MEMORY, merge, read_yaml
from vaelab.data.images import ImageSet, Splits, with_labels
from vaelab.data.store import default_cache
from vaelab.data.summary import fingerprint
from vaelab.errors import BusyError, ConfigError, RunError
from vaelab.models.classifier import Activations, Classifier, ClassifierName
from vaelab.models.model import Shape
from vaelab.recipes import resolve
from vaelab.training.backend import alone
from vaelab.training.progress import Progress, Silent
from vaelab.training.run import Run, check_same

PRESET = "classifier.yaml"

MEASURES, GUIDES = 0, 1
"""Seeds: the classifier that measures is never the one that a model was trained to please."""


_PASS = 6_400  # images


@dataclass(frozen=True)
class Judge:
    """A classifier that was trained on real images, and has no part in the model it judges.

    Arguments:
        name: which classifier it is, for the protocol.
        classifier: the network.
        images: number of images that it was trained on, if known.
        accuracy: on validation images, if known.
    """

    name: str
    classifier: Classifier
    images: int | None = None
    accuracy: float | None = None


def trained_judge(
    splits: Splits,
    cache: Path | None = None,
    progress: Progress | None = None,
    seed: int = MEASURES,
    network: ClassifierName = "cnn-small",
) -> Judge:
    """Return a small classifier of these images.

    It is trained on the training part the first time, with a fixed seed, and kept in the cache
    under the fingerprint of the data, labels included. Few images are repeated in every pass:
    some passes over a hundred of them are too few steps for a classifier that is sure of anything.

    Arguments:
        splits: with classes.
        cache: folder; None for that of vaelab.
        progress: told of the training.
        seed: of the training.
        network: architecture.
    """
    from vaelab.training.fit import train_config  # which trains models that have a judge

    labelled = with_labels(splits.train)
    splits = replace(splits, train=_repeated(labelled))
    with as_file(resources("vaelab") / "presets" / PRESET) as preset:
        values = merge(read_yaml(preset), {"data": {"spec": splits.name}})
    values = merge(values, {"training": {"seed": seed}})
    if network != "cnn-small":
        values = merge(values, {"options": {"network": network}})
    config = resolve(values, PRESET)
    name = fingerprint(splits) + _suffix(seed, network)
    run = Run((cache or default_cache()) / "classifiers" / name)
    if run.exists:
        try:
            check_same(run.read_config(), config, run.config_file)
        except RunError:  # of another version of vaelab
            digest = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:12]
            run = Run(run.path.with_name(f"{run.path.name}-{digest}"))
    if progress is not None and not run.model_file.exists():
        progress.say(f"Training a reference classifier ({network}) of {splits.name}:")
    while True:
        try:
            with alone():  # one process trains it, those beside it wait
                train_config(config, splits, run, progress or Silent())
            break
        except BusyError:  # another process trains it
            time.sleep(1)
    accuracy = run.epochs("validation/accuracy")[-1]["validation/accuracy"]
    kind = "a small classifier" if network == "cnn-small" else f"a classifier ({network})"
    about = (
        f"{kind} of {splits.name}, trained by vaelab to {accuracy:.1%} on validation "
        f"images (weights {files.checksum(run.model_file)[:12]})"
    )
    return Judge(about, run.load_classifier(), len(labelled), accuracy)


def feature_network(name: str, shape: Shape, given: nn.Module | None = None) -> nn.Module:
    """Return the network whose features images of a shape are to be compared in.

    Arguments:
        name: folder of the run of a classifier, or `IN_MEMORY`.
        shape: channels, height and width of the images.
        given: the module that is meant by `IN_MEMORY`.

    Raises:
        ConfigError: no such network, or one that no gradient passes, or of other images.
        RunError: the run is damaged or holds no classifier.
    """
    if name == IN_MEMORY:
        if given is None:
            raise ConfigError(
                "options.features: this run compares images in the features of a module that was "
                "passed from Python. Pass it again: vaelab.train(..., features=network)."
            )
        return given
    if Path(name).suffix == ".onnx":
        raise ConfigError(
            f"features: {name} is an ONNX network, and no gradient passes through onnxruntime, so "
            "nothing can be trained in its features. Name the run of a classifier (vaelab classify "
            "train), or from Python pass the network as a PyTorch module, features=network."
        )
    classifier = Run(name).load_classifier()
    if classifier.shape != shape:
        takes, has = (" × ".join(map(str, each)) for each in (classifier.shape, shape))
        raise ConfigError(
            f"features: {name} is a classifier of images of {takes} (channels, height, width), and "
            f"these are {has}. Train one on images of this shape (vaelab classify train)."
        )
    return Activations(classifier.body)


def _suffix(seed: int, network: ClassifierName) -> str:
    """Return what the folder of a classifier is called beside the fingerprint of its images."""
    if network == "cnn-small":
        return f"-guide-{seed}" if seed else ""
    return f"-{network}-{seed}"


def _repeated(images: ImageSet) -> ImageSet:
    """Return the images, as often as it takes for a pass."""
    if not 0 < len(images) < _PASS:
        return images
    return images.subset(torch.arange(len(images)).repeat(math.ceil(_PASS / len(images))))
