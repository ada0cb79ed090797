"""The arms of an augmentation study: what a classifier is trained on, and what made it.

Each arm is a case for each share of labels (and each generator). All see the same number of
images, so that all take the same number of steps; what differs is where these come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from vaelab.config import (
    Count,
    DataConfig,
    Factor,
    Fraction,
    NonNegative,
    RunConfig,
    Section,
    merge,
)
from vaelab.errors import ConfigError
from vaelab.recipes import find_recipe, resolve
from vaelab.training.run import versions

ArmName = Literal["real", "classical", "generated", "semi", "only", "both", "leaky"]
Sees = Literal["labelled", "images", "everything", "unlabelled"]
"""What a generator is trained on: the labelled images alone; all images, and the labels of those;
all images with all labels; all images and no label."""

Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Arm:
    """A way to make a training set.

    Arguments:
        words: with ``{}`` for the generator.
        sees: what the generator is trained on; None without one.
        classical: whether training images are shifted, turned and bent by chance.
        real: whether there are real images among them.
    """

    words: str
    sees: Sees | None = None
    classical: bool = False
    real: bool = True

    def named(self, generator: str) -> str:
        """Return the arm in plain words."""
        return self.words.format(generator)


LEADS = ("accuracy", "balanced_accuracy")
"""What arms may be compared in: of uneven classes, the second counts each alike."""

ARMS: dict[ArmName, Arm] = {
    "real": Arm("real"),
    "classical": Arm("real + classical", classical=True),
    "generated": Arm("real + {}", "labelled"),
    "semi": Arm("real + {} of all images", "images"),
    "only": Arm("{} only", "labelled", real=False),
    "both": Arm("real + classical + {}", "labelled", classical=True),
    "leaky": Arm("real + {} of all labels (leaky)", "everything"),
}


LEARNS_CLASSES = ("m2", "m1+m2")
"""Recipes that sum over the class where it is unknown: they read it of any image."""

WITHOUT_LABELS = ("ae", "vae", "beta-vae", "annealed-vae", "iwae", "vae-gan", "aae")
"""Recipes that never look at a label: of all images they make one model, however many have one."""


class MakeConfig(Section):
    """How images are made of a trained generator; see `vaelab.explore.augment.Making`."""

    sampler: Literal["prior", "pool", "gmm", "flow"] = "prior"
    temperature: Factor = 1.0
    guidance: Factor = 1.0
    confidence: Fraction = Field(0.0, description="least probability of the class asked for")
    farther: NonNegative = Field(0.0, description="least nearness; 1 is that of new images")


class GeneratorConfig(Section):
    """A model that makes labelled images, or another use of one: ``like``."""

    like: str = Field("", description="a generator that is trained alike, and so once for both")
    train: dict[str, Any] = Field({}, description="its configuration, section by section")
    images: Count | None = Field(
        None,
        description="training images in a pass: fewer are repeated to as many, of more all are "
        "taken, in fewer passes",
    )
    arms: list[ArmName] | None = Field(None, description="arms that it takes part in; all")
    make: MakeConfig = MakeConfig()
    share: Share | None = Field(None, description="of its images, in place of the common one")


class AugmentationConfig(Section):
    """The part of a study that declares arms in place of cases."""

    fractions: list[Share] = Field(min_length=1, description="shares of the training labels")
    generators: dict[Annotated[str, Field(max_length=80)], GeneratorConfig] = Field(min_length=1)
    use: list[str] | None = Field(None, description="generators to use, by name; all")
    arms: list[ArmName] = Field(list(ARMS), description="which; `real` among them")
    classical: dict[str, Any] = Field({}, description="options of the classifier's variation")
    images: Count = Field(description="images in a pass of the classifier, in every arm")
    share: Share = Field(0.5, description="of generated images, where there are real ones too")


class Mix(Section):
    """What the training images of one case are; stored with the plan of a study."""

    arm: ArmName
    fraction: Share
    images: Count
    share: Fraction
    generator: str = Field("", max_length=80)
    like: str = Field("", max_length=80)
    train: dict[str, Any] = Field({})
    generator_images: Count = 1
    make: MakeConfig = MakeConfig()

    @property
    def name(self) -> str:
        """The arm in plain words."""
        return ARMS[self.arm].named(self.generator)

    @property
    def sees(self) -> Sees:
        """What its generator is trained on: what makes no difference to it is left out.

        Raises:
            ValueError: it has no generator.
        """
        sees = ARMS[self.arm].sees
        if sees is None:
            raise ValueError(f"{self.name} has no generator")
        if sees == "labelled":
            return sees
        if self.train.get("recipe") in WITHOUT_LABELS:
            return "unlabelled"
        return "everything" if self.fraction == 1 else sees

    @property
    def trained_as(self) -> str:
        """The generator whose training is this one's."""
        return self.like or self.generator


@dataclass(frozen=True)
class Declared:
    """A case to be: its name, its settings, and what it is trained on."""

    name: str
    settings: dict[str, Any]
    mix: Mix


def expand(config: AugmentationConfig, base: Mapping[str, Any], where: str) -> list[Declared]:
    """Return the cases of all fractions, arms and generators.

    Arguments:
        config: declares them.
        base: settings of the study's cases; a generator has their data and device.
        where: what an error should name.

    Raises:
        ConfigError: an unknown generator, no arm of real images alone, or a classifier for a
            generator.
    """
    if "real" not in config.arms:
        raise ConfigError(f"{where}: arms: needs `real`, which others are compared with.")
    names = config.use if config.use is not None else list(config.generators)
    for name in names:
        if name not in config.generators:
            known = ", ".join(config.generators)
            raise ConfigError(f"{where}: no generator is called {name!r}. Generators: {known}.")
    folders: dict[str, str] = {}
    for name in names:
        other = folders.setdefault(safe_name(name), name)
        if other != name:
            raise ConfigError(f"{where}: {other!r} and {name!r} would share a folder: rename one.")
    trained = {name: _trained(config, name, base, f"{where}: {name}") for name in names}
    found = []
    for fraction in sorted(set(config.fractions)):
        for key in dict.fromkeys(config.arms):
            arm = ARMS[key]
            settings = {"options": dict(config.classical)} if arm.classical else {}
            for name in _makers(config, key, names) if arm.sees else [""]:
                values: dict[str, Any] = {}
                share = 0.0
                if arm.sees:
                    declared = config.generators[name]
                    values = {
                        "generator": name,
                        "like": declared.like,
                        "train": trained[name].config,
                        "generator_images": trained[name].images,
                        "make": _making(declared, key),
                    }
                    share = (declared.share or config.share) if arm.real else 1.0
                mix = Mix(arm=key, fraction=fraction, images=config.images, share=share, **values)
                title = f"{mix.name}, {100 * fraction:g} %"
                found.append(Declared(title, settings, mix))
    return found


def safe_name(generator: str) -> str:
    """Return the name of a generator as part of the name of a folder."""
    return "".join(c if c.isalnum() else "-" for c in generator)


def _makers(config: AugmentationConfig, arm: ArmName, names: list[str]) -> list[str]:
    """Return the generators that take part in an arm."""
    of = {name: config.generators[name].arms for name in names}
    part = [name for name, arms in of.items() if arms is None or arm in arms]
    return [name for name in part if not _repeats(config, arm, name, part)]


def _repeats(config: AugmentationConfig, arm: ArmName, name: str, part: list[str]) -> bool:
    """Tell whether a use of a generator is what that itself is: shares are of real and made."""
    own = config.generators[name]
    if ARMS[arm].real or own.like not in part:
        return False
    return _making(own, arm) == _making(config.generators[own.like], arm)


def _making(generator: GeneratorConfig, arm: ArmName) -> MakeConfig:
    """Return how an arm makes images.

    A model that saw few labels among many images hardly learns to follow the class it is told, and
    its prior gives images of any class. So the codes of a class are drawn from those of its
    labelled images, and of those that are read as of it by a model that is made to learn classes
    from few labels.
    """
    make = generator.make
    if arm != "semi" or make.sampler != "prior":
        return make
    return make.model_copy(update={"sampler": "pool", "temperature": 1.0, "guidance": 1.0})


def check_classifier(config: RunConfig, where: str) -> None:
    """Raise `ConfigError` for settings with which arms would not be comparable."""
    if config.training.patience is not None:
        raise ConfigError(
            f"{where}: training.patience: would end arms after different numbers of steps, chosen "
            "by labels beyond the fraction. Leave it out."
        )
    if config.training.labelled is not None:
        raise ConfigError(
            f"{where}: training.labelled: would leave out labels of real and made images alike. "
            "augmentation.fractions says how many images are labelled."
        )


def pairs(mixes: Mapping[str, Mix]) -> list[tuple[str, str]]:
    """Return which cases to compare: with real images, and with classical augmentation of them.

    Arguments:
        mixes: key of each case to what it is trained on.
    """
    found = []
    for other in ("real", "classical"):
        for one, mix in mixes.items():
            for key, against in mixes.items():
                same = against.fraction == mix.fraction
                if against.arm == other and same and mix.arm not in ("real", other):
                    found.append((one, key))
    return found


@dataclass(frozen=True)
class _Trained:
    """How a generator is trained."""

    config: dict[str, Any]
    images: int


def _trained(study: AugmentationConfig, name: str, base: Mapping[str, Any], where: str) -> _Trained:
    """Return how a generator is trained, which may be declared of another one."""
    own = study.generators[name]
    declared = own
    if own.like:
        if own.train or own.images is not None:
            raise ConfigError(f"{where}: is trained like {own.like}: without train and images.")
        declared = study.generators.get(own.like, own)
        if declared.like:
            raise ConfigError(f"{where}: like: {own.like} is no generator with a training.")
    if not declared.train or declared.images is None:
        raise ConfigError(f"{where}: needs train and images, or like: another generator.")
    training = base.get("training", {})
    shared: dict[str, Any] = {"data": base.get("data", {})}
    if isinstance(training, Mapping) and "device" in training:
        shared["training"] = {"device": training["device"]}
    config = resolve(merge({**shared, "versions": versions()}, declared.train), where)
    if _images_of(config.data) != _images_of(DataConfig.model_validate(base.get("data", {}))):
        raise ConfigError(
            f"{where}: train: data: a generator has the images of the study, or test images could "
            "come to it. Only attributes and binarize may be its own."
        )
    if find_recipe(config.recipe).classifies:
        raise ConfigError(f"{where}: recipe: {config.recipe} makes no images.")
    return _Trained(config.model_dump(mode="json"), declared.images)


def _images_of(data: DataConfig) -> DataConfig:
    """Return what decides which images there are and how they are split."""
    return data.model_copy(update={"attributes": [], "binarize": "none"})
