"""Recipes: one short function per paper, from the options of a run to a model and its objective.

A recipe's keyword arguments are its options: their names, types, ranges and defaults are what
``vaelab recipes`` shows and what ``config.yaml`` is checked against. A new model is one function
here and one line in the contract test.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import wraps
from types import MappingProxyType
from typing import Annotated, Any, Literal, NoReturn, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from torch import Tensor, nn

from vaelab.config import (
    Binarize,
    Count,
    Draws,
    Fraction,
    ModelConfig,
    NonNegative,
    Positive,
    Rate,
    RunConfig,
    Width,
    explain,
    merge,
    parse_config,
)
from vaelab.data.images import ImageSet
from vaelab.data.summary import Pixels
from vaelab.errors import ConfigError, cut
from vaelab.models.build import FEW_READER, READER, build_stacked, build_vae
from vaelab.models.classifier import (
    Activations,
    Classifier,
    ClassifierName,
    build_classifier,
)
from vaelab.models.conditioning import LABEL, Balance, Conditioning, Told
from vaelab.models.discriminator import AdversarialLoss, build_discriminator, code_judge
from vaelab.models.model import Model
from vaelab.models.subspaces import SubspacePrior
from vaelab.models.vae import Part, Vae
from vaelab.objectives import terms
from vaelab.objectives.adversarial import Adversarial, VaeGan
from vaelab.objectives.classify import Classification, class_weights
from vaelab.objectives.critics import Independence, LabelCritic
from vaelab.objectives.guided import Guided, Weights
from vaelab.objectives.objective import Objective
from vaelab.objectives.perceptual import Compared, Distance, FeatureDistance, dissimilarity
from vaelab.objectives.perceptual import focal_frequency as frequency_distance
from vaelab.objectives.read import Read
from vaelab.objectives.schedules import Schedule, constant, linear
from vaelab.objectives.semi import SemiSupervised, Stacked
from vaelab.objectives.subspaced import Subspaced
from vaelab.objectives.terms import Capacity, Distortion, ImportanceWeighted, Term
from vaelab.objectives.variation import Variation


@dataclass(frozen=True)
class Setup:
    """What a recipe may know of a run.

    Arguments:
        model: the part of the configuration that describes networks and distributions.
        binarize: how targets are made.
        pixels: what the training images are like.
        steps: number of steps of the whole training.
        told: what the training images are labelled with.
        judge: gives a classifier that was trained on the real images.
        labelled: gives the training images that have a label, 8-bit, and their labels.
        images: gives the training images.
        augment: varies images in training, as every batch is.
        network: gives the network that an option names, to compare images in its features.
    """

    model: ModelConfig
    binarize: Binarize
    pixels: Pixels
    steps: int
    told: Told = field(default_factory=Told)
    judge: Callable[[], Classifier] = lambda: _missing("a classifier of real images")
    labelled: Callable[[], tuple[Tensor, Tensor]] = lambda: _missing("labelled images")
    images: Callable[[], ImageSet] = lambda: _missing("the training images")
    augment: Callable[[Tensor], Tensor] = lambda images: images
    network: Callable[[str], nn.Module] = lambda name: _missing(f"the network {name}")

    def vae(self) -> Vae:
        """Return the model that the configuration describes, freshly initialised."""
        return build_vae(self.model, self.pixels, self.binarize)

    def warmup(self, end: float, share: float) -> Schedule:
        """Return the schedule that rises from 0 to ``end`` in the first ``share`` of training."""
        return constant(end) if share == 0 else linear(0.0, end, share * self.steps)


Built = tuple[Model, Objective]
_PRIOR: tuple[Part, ...] = ("prior",)
Shift = Annotated[int, Field(ge=0, le=16)]
Angle = Annotated[float, Field(ge=0, le=180)]
Bend = Annotated[float, Field(ge=0, le=16)]
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Weight = NonNegative | Literal["auto"]
"""A number, or what suits the likelihood: see `resolved_options`."""


@dataclass(frozen=True)
class Recipe:
    """A named recipe with what it presets in the configuration of model and training."""

    name: str
    build: Callable[..., Built]
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    options: type[BaseModel]
    classifies: bool
    by_images: bool = False
    compares: bool = False

    @property
    def summary(self) -> str:
        """The first line of the recipe's documentation."""
        return (inspect.getdoc(self.build) or "").partition("\n")[0]


RECIPES: dict[str, Recipe] = {}


def recipe(
    name: str,
    *,
    classifies: bool = False,
    by_images: bool = False,
    compares: bool = False,
    training: Mapping[str, Any] = MappingProxyType({}),
    **model: Any,
) -> Callable[[Callable[..., Built]], Callable[..., Built]]:
    """Register a function as the recipe ``name``.

    Arguments:
        name: unique.
        classifies: whether its model is a classifier.
        by_images: whether what nobody names is chosen by the images (`vaelab.defaults`): not where
            other losses are weighed against nats that would be others then.
        compares: whether reconstructions may be compared by `comparisons` too.
        training: values that it presets in `TrainingConfig`.
        model: values that it presets in `ModelConfig`.
    """

    def register(build: Callable[..., Built]) -> Callable[..., Built]:
        fields = _options_of(build) | (_options_of(comparisons) if compares else {})
        strict = ConfigDict(extra="forbid", frozen=True)
        options = create_model(f"options of {name}", __config__=strict, **fields)
        whole = _comparing(build) if compares else build
        RECIPES[name] = Recipe(
            name, whole, model, training, options, classifies, by_images, compares
        )
        return build

    return register


def _options_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the keyword arguments of a function: type and default by name."""
    hints = get_type_hints(function, include_extras=True)
    return {
        key: (hints[key], parameter.default)
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def comparisons(
    setup: Setup,
    *,
    perceptual: NonNegative = 0.0,
    features: str | None = None,
    focal_frequency: NonNegative = 0.0,
    ms_ssim: NonNegative = 0.0,
) -> dict[str, Term]:
    """Return the terms for sharper images that a recipe is given: loss + Σ w · n/2 · log E d(x̃, x).

    See `vaelab.objectives.perceptual` for the distances d. None costs anything at weight 0.

    Arguments:
        setup: of the run.
        perceptual: weight of the distance in the features of a network.
        features: the run of a classifier whose features these are; None for one of the images' own
            classes, which is trained first.
        focal_frequency: weight of the focal frequency distance.
        ms_ssim: weight of 1 − MS-SSIM.
    """
    if features is not None and not perceptual:
        raise ConfigError(
            f"features: names the network {cut(features)}, and the weight of its distance, "
            "perceptual, is 0. Add -s options.perceptual=1, or leave it out."
        )
    if perceptual and features is None and len(setup.told.class_names) < 2:
        raise ConfigError(
            "perceptual: needs a network, and these images have no classes to train one on. Name "
            "the run of a classifier of images of the same size (vaelab classify train): "
            "--features runs/NAME; or from Python pass a module, features=network."
        )

    def network() -> nn.Module:
        return Activations(setup.judge().body) if features is None else setup.network(features)

    weighed: dict[str, tuple[Distance, float]] = {
        "perceptual": (FeatureDistance(network), perceptual),
        "focal-frequency": (frequency_distance, focal_frequency),
        "ms-ssim": (dissimilarity, ms_ssim),
    }
    return {name: Compared(distance, w) for name, (distance, w) in weighed.items() if w}


def _comparing(build: Callable[..., Built]) -> Callable[..., Built]:
    """Return a recipe whose objective has the terms of `comparisons` too."""

    @wraps(build)
    def whole(setup: Setup, **options: Any) -> Built:
        own = {key: options.pop(key) for key in _options_of(comparisons) if key in options}
        model, objective = build(setup, **options)
        objective.terms |= comparisons(setup, **own)
        return model, objective

    return whole


@recipe("ae", by_images=True, compares=True, posterior="dirac")
def ae(setup: Setup) -> Built:
    """Autoencoder: a point for a posterior, and no rate.

    loss = −log p(x | z = μ(x))
    """
    if setup.model.posterior != "dirac":
        raise ConfigError("model.posterior: an autoencoder (ae) has the posterior `dirac`.")
    return setup.vae(), Objective({"distortion": Distortion()})


@recipe("vae", by_images=True, compares=True)
def vae(
    setup: Setup,
    *,
    beta: NonNegative = 1.0,
    warmup: Fraction = 0.0,
    free_bits: NonNegative = 0.0,
    samples: Draws = 1,
) -> Built:
    """Variational autoencoder (Kingma and Welling, 2014): the negative ELBO.

    loss = E_q[−log p(x|z)] + β KL(q(z|x) ‖ p(z)), β = 1
    """
    _needs_density(setup, "vae")
    return setup.vae(), Objective(_elbo(setup, beta, warmup, free_bits), samples)


@recipe("beta-vae", by_images=True, compares=True)
def beta_vae(
    setup: Setup,
    *,
    beta: NonNegative = 4.0,
    warmup: Fraction = 0.0,
    free_bits: NonNegative = 0.0,
    samples: Draws = 1,
) -> Built:
    """β-VAE (Higgins et al., 2017): the rate weighted by β > 1, for less entangled latents.

    loss = E_q[−log p(x|z)] + β KL(q(z|x) ‖ p(z)), β = 4
    """
    return vae(setup, beta=beta, warmup=warmup, free_bits=free_bits, samples=samples)


@recipe("annealed-vae", by_images=True, compares=True)
def annealed_vae(
    setup: Setup,
    *,
    capacity: NonNegative = 25.0,
    gamma: NonNegative = 100.0,
    growth: Fraction = 0.7,
    samples: Draws = 1,
) -> Built:
    """Annealed-capacity VAE (Burgess et al., 2018): the rate is held at a target C that grows.

    loss = E_q[−log p(x|z)] + γ |E_x KL(q(z|x) ‖ p(z)) − C|, C from 0 to `capacity` nats in the
    first `growth` share of training
    """
    _needs_density(setup, "annealed-vae")
    target = setup.warmup(capacity, growth)
    return setup.vae(), Objective(
        {"distortion": Distortion(), "capacity": Capacity(target, gamma)}, samples
    )


@recipe("iwae", by_images=True)
def iwae(setup: Setup, *, samples: Draws = 5, warmup: Fraction = 0.0) -> Built:
    """Importance-weighted autoencoder (Burda et al., 2016): a tighter bound from several draws.

    loss = −log 1/S Σ_s p(x|z_s) p(z_s) / q(z_s|x)
    """
    _needs_density(setup, "iwae")
    return setup.vae(), Objective({"bound": ImportanceWeighted(setup.warmup(1.0, warmup))}, samples)


@recipe("cvae", by_images=True, compares=True)
def cvae(
    setup: Setup,
    *,
    given: list[str] = [],  # noqa: B006 (pydantic copies it)
    dropout: Rate = 0.0,
    learned_prior: bool = False,
    asked: Weight = "auto",
    beta: NonNegative = 1.0,
    warmup: Fraction = 0.0,
    samples: Draws = 1,
) -> Built:
    """Conditional VAE (Sohn et al., 2015): encoder and decoder are told class and attributes.

    loss = E_q(z|x,y)[−log p(x|z,y)] + β KL(q(z|x,y) ‖ p(z)) − `asked` E log q(y|x_s), samples x_s
    as a labeler reads them (0: as published; auto: 15 beside a Bernoulli likelihood, 0 beside any
    other); labels withheld with rate `dropout`
    """
    _needs_density(setup, "cvae")
    told: list[Part] = ["encoder", "decoder"]
    if learned_prior:
        told.append("prior")
    model = build_vae(
        setup.model,
        setup.pixels,
        setup.binarize,
        conditioning=Conditioning(setup.told, given or setup.told.names),
        told=told,
        dropout=dropout,
        reader=READER,
    )
    return model, Read(_elbo(setup, beta, warmup), float(asked), setup.steps, samples)


@recipe("cvae-info")
def cvae_info(
    setup: Setup,
    *,
    given: list[str] = [],  # noqa: B006 (pydantic copies it)
    dropout: Rate = 0.0,
    leak: NonNegative = 10.0,
    critic_steps: Count = 2,
    critic_lr: Positive = 1e-3,
    beta: NonNegative = 1.0,
    warmup: Fraction = 0.0,
    samples: Draws = 1,
) -> Built:
    """CVAE whose code tells little of the labels (Klys et al., 2018): a critic reads them from z.

    loss = CVAE's + `leak` · E Σ_y q_δ(y|z) log q_δ(y|z)
    """
    _needs_density(setup, "cvae-info")
    model = build_vae(
        setup.model,
        setup.pixels,
        setup.binarize,
        conditioning=Conditioning(setup.told, given or setup.told.names, cut=True),
        told=("encoder", "decoder"),
        dropout=dropout,
        reader=READER,
    )
    return model, _independent(setup, model, leak, critic_steps, critic_lr, beta, warmup, samples)


@recipe("csvae")
def csvae(
    setup: Setup,
    *,
    attributes: list[str] = [],  # noqa: B006 (pydantic copies it)
    width: Width = 2,
    means: Pair = [0.0, 3.0],  # noqa: B006
    scales: Pair = [1.0, 1.0],  # noqa: B006
    independence: Literal["transport", "critic"] = "transport",
    with_class: bool = True,
    settle: Fraction = 0.3,
    edits: Weight = "auto",
    leak: NonNegative = 10.0,
    critic_steps: Count = 2,
    critic_lr: Positive = 1e-3,
    beta: NonNegative = 1.0,
    warmup: Fraction = 0.0,
    samples: Draws = 1,
) -> Built:
    """Attribute subspaces (CSVAE; Klys et al., 2018): a subspace w for each attribute, z without.

    loss = E[−log p(x|z,w)] + β KL(q(z,w|x,y) ‖ p(z) p(w|y)) − `edits` E log q(y'|x̃'), edits x̃' as a
    labeler reads them (auto: 5 beside a Bernoulli likelihood, n/36 beside any other, of the n
    numbers of an image); z = f(h; y, and the class `with_class`), a conditional flow (`transport`)
    fine-tuned in the last `settle`, so that little information about y is in z given the class. As
    published, with a `critic`: no edits, + `leak` · E Σ_y q_δ(y|z) log q_δ(y|z)
    """
    _needs_density(setup, "csvae")
    names = tuple(attributes) or setup.told.attribute_names
    if not names:
        raise ConfigError(
            "csvae: a subspace belongs to an attribute, and these images have none. Compute some "
            "with data.attributes=thickness,slant (see: vaelab data), or give an npz `attributes`."
        )
    pairs = ((means[0], means[1]), (scales[0], scales[1]))
    prior = SubspacePrior(names, setup.model.latent_dim, width, *pairs)
    if independence == "critic":
        model = build_vae(
            setup.model,
            setup.pixels,
            setup.binarize,
            conditioning=Conditioning(setup.told, names, cut=True),
            told=_PRIOR,
            subspaces=prior,
        )
        return model, _independent(
            setup, model, leak, critic_steps, critic_lr, beta, warmup, samples
        )
    kinds = (LABEL,) if with_class and LABEL in setup.told.names else ()
    model = build_vae(
        setup.model,
        setup.pixels,
        setup.binarize,
        conditioning=Conditioning(setup.told, (*kinds, *names), cut=True),
        told=("encoder", "decoder", "prior") if kinds else ("encoder", "prior"),
        subspaces=prior,
        reader=READER,
        transported=True,
    )
    terms = _elbo(setup, beta, warmup)
    return model, Subspaced(terms, float(edits), settle, setup.steps, setup.images, samples)


@recipe(
    "vae-gan",
    compares=True,
    training={"lr": 2e-4, "betas": [0.5, 0.999]},
    decoder={"normalization": "batch"},
)
def vae_gan(
    setup: Setup,
    *,
    gan: NonNegative | Literal["adaptive"] = "adaptive",
    pull: NonNegative = 0.2,
    waits: Fraction = 0.1,
    pixels: NonNegative = 1.0,
    beta: NonNegative = 1.0,
    adversarial: AdversarialLoss = "minimax",
    r1: NonNegative = 0.1,
    spectral: bool = False,
) -> Built:
    """VAE-GAN (Larsen et al., 2016): likeness is judged in the features of a discriminator.

    encoder: β KL + D_l; decoder: D_l + `gan` · fool(made); discriminator: real against made;
    D_l = ½ E ‖f(x) − f(x̃)‖² + `pixels` · distortion; as published with `gan` 20 and `pixels` 0. An
    adaptive `gan` lets the discriminator pull at the decoder's last layer by a share `pull` of what
    D_l does (Esser et al., 2021), which rises from 0 in the first share `waits` of training
    """
    _needs_density(setup, "vae-gan")
    channels, height, width = setup.pixels.mean.shape
    judge = build_discriminator(setup.model.encoder, (channels, height, width), spectral)
    weight = setup.warmup(pull, waits) if gan == "adaptive" else gan
    return setup.vae(), VaeGan(judge, adversarial, weight, pixels, beta, r1)


@recipe("aae", posterior="dirac")
def aae(
    setup: Setup, *, gan: NonNegative = 10.0, adversarial: AdversarialLoss = "minimax"
) -> Built:
    """Adversarial autoencoder (Makhzani et al., 2016): a discriminator of codes for a rate.

    autoencoder: distortion + `gan` · fool(z); discriminator: draws of p(z) against codes
    """
    return setup.vae(), Adversarial(code_judge(setup.model.latent_dim), adversarial, gan)


@recipe("guided-vae")
def guided_vae(
    setup: Setup,
    *,
    head: NonNegative = 10.0,
    reconstructions: NonNegative = 10.0,
    samples: NonNegative = 10.0,
    given: list[str] = [],  # noqa: B006 (pydantic copies it)
    dropout: Rate = 0.0,
    beta: NonNegative = 1.0,
    warmup: Fraction = 0.0,
) -> Built:
    """VAE with a classifier in the loss: on the code, on reconstructions, on asked-for samples.

    loss = −ELBO − `head` log p(y|z) − `reconstructions` log p(y|x̃) − `samples` log p(y|x_s);
    conditional where `samples` > 0
    """
    _needs_density(setup, "guided-vae")
    classes = len(setup.told.class_names)
    _needs_classes(classes)
    weights = Weights(head, reconstructions, samples)
    model = setup.vae()
    if samples:
        conditioning = Conditioning(setup.told, given or (LABEL,))
        model = build_vae(
            setup.model,
            setup.pixels,
            setup.binarize,
            conditioning=conditioning,
            told=("encoder", "decoder"),
            dropout=dropout,
            reader=READER,
        )
    objective = Guided(
        _elbo(setup, beta, warmup), weights, setup.model.latent_dim, classes, setup.judge
    )
    return model, objective


@recipe("m2")
def m2(
    setup: Setup,
    *,
    alpha: NonNegative = 50.0,
    shift: Shift = 2,
    rotation: Angle = 10.0,
    zoom: Rate = 0.1,
    elastic: Bend = 1.0,
) -> Built:
    """Semi-supervised M2 (Kingma et al., 2014): a classifier from few labels; y is summed over.

    loss = 1/N (Σ_unlabelled U(x) + Σ_labelled L(x, y)) − `alpha` E_labelled log q(y|x), as
    published for `alpha` = 0.1; U = Σ_y q(y|x) (L(x, y) + log q(y|x)); q(y|x) learns from images
    that are shifted, turned, zoomed and bent at random
    """
    _needs_density(setup, "m2")
    _needs_classes(len(setup.told.class_names))
    model = build_vae(
        setup.model,
        setup.pixels,
        setup.binarize,
        conditioning=Conditioning(setup.told, (LABEL,)),
        told=("encoder", "decoder"),
        reader=FEW_READER,
    )
    return model, _semi_supervised(setup, alpha, Variation(shift, rotation, zoom, elastic))


@recipe("m1+m2", latent_dim=50)
def m1_m2(
    setup: Setup,
    *,
    alpha: NonNegative = 5.0,
    second: Width = 50,
    hidden: Width = 500,
    beta: NonNegative = 0.2,
    shift: Shift = 2,
    rotation: Angle = 10.0,
    zoom: Rate = 0.1,
    elastic: Bend = 1.0,
) -> Built:
    """M1+M2 (Kingma et al., 2014): a VAE of all images, and M2 on its codes, of `second` numbers.

    loss = distortion + `beta` rate for the first; M2's for the second, on draws z₁ of q(z₁|x)
    """
    _needs_density(setup, "m1+m2")
    _needs_classes(len(setup.told.class_names))
    model = build_stacked(
        setup.model,
        setup.pixels,
        setup.binarize,
        Conditioning(setup.told, (LABEL,)),
        second,
        hidden,
    )
    upper = _semi_supervised(setup, alpha, Variation(shift, rotation, zoom, elastic))
    return model, Stacked(_elbo(setup, beta, 0.0), upper)


def _semi_supervised(setup: Setup, alpha: float, variation: Variation) -> SemiSupervised:
    known = float((setup.told.labels >= 0).float().mean()) if len(setup.told.labels) else 1.0
    return SemiSupervised(
        alpha, setup.labelled, known, setup.steps, variation, augment=setup.augment
    )


def _independent(
    setup: Setup,
    model: Vae,
    leak: float,
    steps: int,
    lr: float,
    beta: float,
    warmup: float,
    samples: int,
) -> Objective:
    assert model.conditioning is not None
    told = model.conditioning
    critic = LabelCritic(model.plain_dims, told, Balance(setup.told, told))
    return Independence(_elbo(setup, beta, warmup), critic, told, leak, steps, lr, samples)


def _elbo(setup: Setup, beta: float, warmup: float, free_bits: float = 0.0) -> dict[str, Term]:
    return {"distortion": Distortion(), "rate": terms.Rate(setup.warmup(beta, warmup), free_bits)}


@recipe("classifier", classifies=True)
def classifier(
    setup: Setup,
    *,
    network: ClassifierName = "cnn-small",
    smoothing: Rate = 0.1,
    balance: Fraction = 1.0,
    shift: Shift = 2,
    rotation: Angle = 0.0,
    zoom: Rate = 0.0,
    elastic: Bend = 0.0,
) -> Built:
    """Classifier: `cnn-small` (two convolutions, max pooling), `cnn` (residual) or `mlp` (neither).

    loss = −Σ_k t_k log p(k|x), labels t smoothed by `smoothing`, rare classes weighted up by
    `balance`, images varied by chance: `shift` and `elastic` pixels, `rotation` degrees, `zoom`
    """
    classes = len(setup.told.class_names)
    _needs_classes(classes)
    channels, height, width = setup.pixels.mean.shape
    weights = None
    if len(setup.told.labels):
        weights = class_weights(setup.told.labels, classes, balance)
    built = build_classifier((channels, height, width), classes, network)
    built.class_names = setup.told.class_names
    return (
        built,
        Classification(smoothing, Variation(shift, rotation, zoom, elastic), weights),
    )


def _needs_classes(classes: int) -> None:
    if classes < 2:
        raise ConfigError(
            "data: a classifier needs images labelled with two classes or more: sub-folders named "
            "by class, a labels file, or `labels` in an npz."
        )


def _missing(what: str) -> NoReturn:
    raise ConfigError(f"this objective needs {what}, and none was given.")


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name; raises `ConfigError` with the known ones."""
    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, 1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise ConfigError(f"recipe: {name!r} is unknown. {hint}Known: {', '.join(RECIPES)}.")
    return RECIPES[name]


def resolve(values: Mapping[str, Any], where: str = "configuration") -> RunConfig:
    """Return the full configuration of nested values: checked, with every default written out."""
    config = parse_config(values, where)
    chosen = find_recipe(config.recipe)
    if config.preset is not None and not chosen.by_images:
        known = ", ".join(each.name for each in RECIPES.values() if each.by_images)
        raise ConfigError(
            f"{where}: preset: `{chosen.name}` has settings of its own, which no preset changes "
            f"(those it does: {known}). Name what should differ, such as training.epochs."
        )
    presets = {"model": dict(chosen.model), "training": dict(chosen.training)}
    config = parse_config(merge(presets, values), where)
    return config.model_copy(update={"options": _options(config, where)})


def _options(config: RunConfig, where: str) -> dict[str, Any]:
    chosen = find_recipe(config.recipe)
    try:
        return chosen.options.model_validate(config.options).model_dump()
    except ValidationError as error:
        raise ConfigError(explain(error, chosen.options, f"{where}: {chosen.name}")) from None


def resolved_options(config: RunConfig, numbers: int) -> dict[str, Any]:
    """Return the options of a resolved configuration, with what `auto` stands for in its place.

    A Gaussian whose σ fits has n/2 nats of error, of the n ``numbers`` of an image, and a Bernoulli
    of digits about 90: the weight of the auxiliary classifier goes with them.
    """
    binary = "bernoulli" in config.model.likelihood
    meant = {"asked": 15.0 if binary else 0.0, "edits": 5.0 if binary else round(numbers / 36, 1)}
    return {k: meant[k] if v == "auto" else v for k, v in config.options.items()}


def build(config: RunConfig, setup: Setup) -> Built:
    """Return model and objective of a resolved configuration; a file may hold other options."""
    config = config.model_copy(update={"options": _options(config, "configuration")})
    options = resolved_options(config, setup.pixels.mean.numel())
    return find_recipe(config.recipe).build(setup, **options)


def _needs_density(setup: Setup, name: str) -> None:
    if setup.model.posterior == "dirac":
        raise ConfigError(
            f"model.posterior: {name} has a rate, which is infinite for the point posterior "
            "`dirac`; use `diagonal` or `full`, or the recipe `ae`."
        )
