"""Words when it fails: what is wrong with a run, and the one command that helps.

A diagnosis is a pure function of what is measured already. It returns a `Finding`, or None where
all is well or nothing is known. Each threshold stands with its reason at its diagnosis.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from vaelab.data.stems import BY_NAME
from vaelab.errors import counted
from vaelab.training.finding import Finding, Measured
from vaelab.training.validation import ACTIVE_VARIANCE, FEW_STEPS

COLLAPSED_RATE = 0.1
"""KL divergence, in nats per image, under which the posterior tells nothing about the image."""

STRONG = 10.0
"""β that few steps cannot excuse: the usual ones of a β-VAE are less."""

FALLING, HALVED, MOST_DOUBLINGS, RISEN = 0.1, 0.5, 3, 0.75
NO_BETTER = 0.95
IGNORED = 0.15
KNOWN = 0.6
FAR = 3.0
FILLED = 0.1
KIN, NEAREST, OFTENER, FEWEST_KIN = 0.3, 0.25, 5.0, 10


def collapse(m: Measured) -> Finding | None:
    """Posterior collapse: the latent tells nothing about the image.

    A KL divergence below 0.1 nats is less than a seventh of one yes or no an image. Where no
    posterior mean varies over images by more than 0.01 (active units; Burda et al., 2016), every
    image has one latent. The remedy is the cause, as far as the configuration shows it.
    """
    dead = m.dead
    none_active = dead is not None and m.variance is not None and dead == len(m.variance)
    if m.rate is not None and m.rate < COLLAPSED_RATE:
        text = (
            f"Posterior collapse: the KL divergence is {m.rate:.2f} nats per image, so the latent "
            "tells nothing about the image and all reconstructions look alike."
        )
    elif none_active:
        text = (
            f"Posterior collapse: none of {dead} latent dimensions is active (variance over images "
            f"of their posterior mean at most {ACTIVE_VARIANCE}), so all reconstructions look "
            "alike."
        )
    else:
        return None
    return Finding("posterior collapse", text, _against_collapse(m))


def _against_collapse(m: Measured) -> str:
    options, few = m.config.options, m.steps is not None and m.steps < FEW_STEPS
    if options.get("beta", 0) > (STRONG if few else 1):
        return m.anew("options.beta", 1)
    if m.steps and few:
        return m.more(FEW_STEPS / m.steps)
    if "free_bits" in options and not options["free_bits"]:
        return m.anew("options.free_bits", 0.5)
    if "warmup" in options and not options["warmup"]:
        return m.anew("options.warmup", 0.3)
    return m.anew("training.lr", float(f"{m.config.training.lr / 3:.1g}"))


def unused(m: Measured) -> Finding | None:
    """Some latent dimensions are not active: information, as they cost nothing."""
    dead = m.dead
    if m.variance is None or not dead or dead == len(m.variance):
        return None
    are = "is" if dead == 1 else "are"
    text = (
        f"{dead} of {counted(len(m.variance), 'latent dimension')} {are} not active: the posterior "
        f"mean hardly varies over images. That costs little; {len(m.variance) - dead} would do."
    )
    return Finding("unused latent dimensions", text)


def too_short(m: Measured) -> Finding | None:
    """The validation loss fell by a tenth in the second half of the training.

    A loss that falls as a power of the steps, L∞ + a/t, falls half as much again when they are
    doubled. With a cosine schedule a part of the fall is the rate's own, and the curve is flat at
    its end however short the training; so the halves are compared, not the slope at the end. A
    tenth promises about a twentieth, which is what a seed moves. The fall is one of the squared
    error where the likelihood is a Gaussian of fitted σ (nats are its logarithm), else one of the
    loss. Where the least loss lies before the last quarter, the model overfits, and nothing is
    said. So many epochs are advised that the last doubling would bring less than a tenth.
    """
    fall, what = _fall(m)
    if fall < FALLING:
        return None
    doublings = 1
    while doublings < MOST_DOUBLINGS and fall * HALVED**doublings >= FALLING:
        doublings += 1
    last = m.epochs[-1]
    text = (
        f"Trained for too few steps: the {what} of validation images still "
        f"fell by {fall:.0%} in the second half of {counted(int(last['step']), 'step')}."
    )
    return Finding("too few steps", text, m.more(2**doublings))


def _fall(m: Measured) -> tuple[float, str]:
    """Return the share by which it fell in the second half, and what: loss or squared error."""
    known = [
        (int(line["step"]), float(line["validation/loss"]))
        for line in m.epochs
        if line.get("validation/loss") is not None
    ]
    if m.adversarial or len(known) < 2:
        return 0.0, ""
    steps, end = known[-1]
    if min(known, key=lambda point: point[1])[0] < RISEN * steps:
        return 0.0, ""
    half = min(known[:-1], key=lambda point: abs(point[0] - steps / 2))[1]
    if m.config.model.likelihood == "gaussian" and m.config.model.sigma == "auto":
        return 1 - math.exp(min(0.0, 2 * (end - half) / m.numbers)), "squared error"
    return ((half - end) / end if end > 0 else 0.0), "loss"


def no_better(m: Measured) -> Finding | None:
    """Reconstructions are within 5 % of the squared error of the mean training image.

    The mean image is what a decoder draws that knows nothing of the image. Posterior collapse, of
    which it is a symptom, is said by `collapse`.
    """
    if m.mse is None or collapse(m) is not None or not m.mse[0] > NO_BETTER * m.mse[1]:
        return None
    text = (
        f"Reconstructions are no better than the mean image: squared error {m.mse[0]:.3g}, that of "
        f"the mean image {m.mse[1]:.3g}."
    )
    return Finding("no better than the mean image", text, m.more(4))


def labels_ignored(m: Measured) -> Finding | None:
    """The conditional model ignores its labels: the class hardly moves a sample.

    If z is independent of y, and samples of every class have the mean of its images, then

        E_z Var_y E[x|z, y] ≥ Var_y E_z E[x|z, y] = Var_y E[x|y]

    so that the class moves a sample at least as much as it moves the mean of real images. On emoji
    of nine categories a classifier recognised 16 to 20 % of the samples of models with 2 to 11 % of
    that, and 32 to 45 % of those with 22 % or more; 15 % lies between. What is drawn is compared,
    so a learned prior p(z|y) counts. Nothing is said where the means of classes differ by no more
    than chance.

    The class is then in z, where a mixture fitted to the latents of a class finds it.
    """
    effect = m.labels
    if effect is None or effect.images < effect.chance or effect.images <= 0:
        return None
    share = effect.samples / effect.images
    if share >= IGNORED:
        return None
    text = (
        f"The decoder ignores the labels: the class moves a sample by {share:.0%} of what it moves "
        "the mean of real images (variance over classes at the same z)."
    )
    return Finding("labels ignored", text, m.sample("--label", effect.example))


def flow_unsettled(m: Measured) -> Finding | None:
    """The conditional flow is not settled: z still tells the attribute that it should not.

    Behind a flow that fits, z is N(0, I) whatever the label, and a classifier of z is right for
    half of balanced images. A linear one that is surely right for 60 % sees what edits will keep.
    """
    if m.flow is None or m.flow[1] < KNOWN:
        return None
    attribute, accuracy = m.flow
    text = (
        f"The conditional flow is not settled: a linear classifier predicts {attribute} from z for "
        f"at least {accuracy:.0%} of balanced images, where 50 % is chance."
    )
    return Finding("conditional flow not settled", text, m.more(2))


def far_from_real(m: Measured) -> Finding | None:
    """Generated images are far from real ones: Fréchet distance above three times its floor.

    The floor is the distance of as many real images, with the same bias of few images. Squared
    distances of three floors are beyond what other images of the same kind give.
    """
    if m.frechet is None or m.frechet[0] <= FAR * m.frechet[1]:
        return None
    distance, floor = m.frechet
    text = (
        f"Samples are far from real images: Fréchet distance {distance:.3g} when sampled from "
        f"{m.sampler}, of as many real images {floor:.3g}."
    )
    return Finding("samples far from real", text, m.sample() if m.from_prior else m.more(2))


def prior_unfilled(m: Measured) -> Finding | None:
    """The latents of images fill less than a tenth of the prior, which samples are drawn from.

    A uniform distribution over a share s of the prior has KL(q(z) ‖ p(z)) = −log s: a tenth is 2.3
    nats. The divergence of a normal distribution with mean and covariance of the latents is a lower
    bound of it. Decoded where no image is, draws of the prior look like nothing.
    """
    if m.prior_gap is None or not m.from_prior or collapse(m) is not None:
        return None
    if m.prior_gap < -math.log(FILLED):
        return None
    low, high = m.deviations
    text = (
        "The latents of images fill less than a tenth of the prior: KL(q(z) ‖ p(z)) is at least "
        f"{m.prior_gap:.1f} nats, and their standard deviations, by direction, are {low:.2g} to "
        f"{high:.2g} where the prior's are 1. Its samples will look worse than reconstructions."
    )
    return Finding("prior not filled", text, m.sample())


def shared_origin(m: Measured) -> Finding | None:
    """Held-out images are parts of the same photos as training images.

    Names alone may mean nothing (``cat.1.jpg``), looks alone neither (flags are alike). So both
    have to agree: a third of the images has names that differ in the last number; and the nearest
    training image is of the same name for a quarter of these, five times as often as at random.
    """
    kin = m.kin
    if m.config.data.group is not None or kin is None or kin.kin < FEWEST_KIN:
        return None
    if kin.kin < KIN * kin.held_out or kin.nearest < max(NEAREST, OFTENER * kin.chance):
        return None
    text = (
        f"{kin.kin:,} of {kin.held_out:,} held-out images seem to be parts of photos that are in "
        f"training too (such as {kin.pair[0]} and {kin.pair[1]}): for {kin.nearest:.0%} of them "
        f"the most similar training image has that name, by chance {kin.chance:.0%}. Metrics on "
        "them say little of new photos."
    )
    return Finding("parts of the same photo", text, m.anew("data.group", BY_NAME))


DIAGNOSES: tuple[Callable[[Measured], Finding | None], ...] = (
    shared_origin,
    collapse,
    no_better,
    too_short,
    labels_ignored,
    flow_unsettled,
    far_from_real,
    prior_unfilled,
    unused,
)
"""The gravest first: what makes other metrics mean nothing, then the model, then its samples."""


def findings(measured: Measured) -> list[Finding]:
    """Return what is wrong with a run, the gravest first; [] where nothing is."""
    found = (diagnosis(measured) for diagnosis in DIAGNOSES)
    return [finding for finding in found if finding is not None]
