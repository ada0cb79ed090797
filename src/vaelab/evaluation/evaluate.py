"""All measures of one model on one set of images.

Everything is computed in single precision, in evaluation mode, in memory that does not grow with
the number of images or of draws, and is the same for the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vaelab.data.batches import epoch_order
from vaelab.data.images import ImageSet
from vaelab.errors import DataError, RunError, whole_number
from vaelab.evaluation import latents
from vaelab.evaluation.figures import Figure, mean, share
from vaelab.evaluation.likelihood import (
    NATS,
    bits_bound_figure,
    bits_figure,
    bound_gaps,
    describe_bits,
    describe_bound,
    describe_target,
    elbo_figures,
    given_labels,
    joint_figures,
    log_prob_figure,
    no_bits,
)
from vaelab.evaluation.measure import Observed, Report, batches, observe, split_rate
from vaelab.evaluation.record import Evaluation, origin
from vaelab.models.conditioning import LABEL
from vaelab.models.model import evaluating, seeded
from vaelab.models.posteriors import DiracPosterior
from vaelab.models.vae import MOST_IMAGES, MOST_SAMPLES, Vae
from vaelab.training.step import mix_seed

Progress = Callable[[int, int], None]
"""Told how many codes were decoded so far, and how many there are to decode."""

DECODINGS = 200_000
"""Codes of 28 × 28 numbers that the importance-weighted bound decodes by default."""

MIXED = 2_000
"""Images that stand for all in the aggregate posterior, at most."""

AT_CAP = 0.05
"""Nats below its cap, log N, at which a mutual information is no more than a lower bound."""

POINT = "A point posterior (autoencoder) has no rate, ELBO, log p(x) or bits per dimension."

_BOUND, _MIX = 1, 2  # parts of the seed


def evaluate(
    model: Vae,
    images: ImageSet,
    *,
    samples: int | None = None,
    bound_images: int | None = None,
    limit: int | None = None,
    held_out: bool | None = True,
    trained_on: Tensor | None = None,
    what: str = "test images",
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure likelihood, reconstruction and use of the latent space.

    Arguments:
        model: any `Vae`; figures that have no meaning for it are left out, with a note.
        images: what to measure on, usually ``splits.test``; a conditional model finds its classes
            and attributes by their names.
        samples: K, draws of z for each image in the importance-weighted bound; by default 200, or
            more where there are few images.
        bound_images: number of images, drawn by chance, that the bound is measured on; by default
            as many as take well under a minute.
        limit: measure on this many images drawn by chance, not on all.
        held_out: whether these images were kept from training, None where it is not known; every
            protocol says it.
        trained_on: which of them are training images, bool ``(N,)``, where it is known.
        what: the part and the data set that the images are, for the verdict.
        seed: of every draw: the same seed gives the same figures.
        progress: told how far it is.

    Raises:
        ConfigError: a count below 1.
        DataError: there are no images, they do not have the model's shape, or have a class or
            attribute that a conditional model does not know.
        RunError: the model's codes are not finite, as after a training that diverged.
    """
    for name, count in (("samples", samples), ("bound_images", bound_images), ("limit", limit)):
        if count is not None:
            whole_number(name, count, 1, MOST_SAMPLES if name == "samples" else MOST_IMAGES)
    if len(images) == 0:
        raise DataError(
            "evaluation: there are no images. Give the test split a share (data.split)."
        )
    if images.shape != model.shape:
        raise DataError(
            f"evaluation: images of shape {images.shape} do not fit a model of {model.shape}. "
            "Read them with the size and channels that the model was trained on."
        )
    images, lacking = model.matched(images)
    plan = _plan(model, len(images), samples, bound_images, limit, seed)
    index = plan.index
    seen_before = None if trained_on is None else int(trained_on[index].sum())
    where = _where(len(index), len(images), origin(held_out, seen_before), seed)
    point = isinstance(model.encoder.family, DiracPosterior)
    decodings = len(index) * (plan.draws + 1) + (0 if point else len(plan.bound) * plan.samples)
    report = _counter(progress, decodings)
    with evaluating(model), torch.no_grad(), single_precision():
        with seeded(seed, model.device):
            seen = observe(model, images, index, plan.draws, report)
        if no_bits(model, images):
            seen = replace(seen, log_mass=None)
        _check(seen)
        figures = _likelihood(model, seen, plan.draws, where)
        if seen.rate is not None:
            figures |= _bounds(model, images, seen, plan, seed, where, report)
            if model.transport is None:  # else every pair of images is a transport of its own
                with seeded(mix_seed(seed, _MIX), model.device):
                    mixed = split_rate(model, images, index[plan.mixed])
                figures |= _information(*mixed, where)
        figures |= _read(model, images, index, where)
    figures |= _use(seen, where) | _fidelity(model, seen, where)
    kept, notes = finite(given_labels(figures, model, images, index))
    notes = (*lacking, *notes)
    if point:
        notes = (POINT, *notes)
    elif said := no_bits(model, images):
        notes = (*notes, said)
    return Evaluation(
        kept, _latent(seen), notes, len(index), held_out, seed, what, trained_on=seen_before
    )


@dataclass(frozen=True)
class _Plan:
    """Which images are measured, with how many draws; positions refer to ``index``."""

    index: Tensor
    draws: int
    bound: Tensor
    samples: int
    mixed: Tensor


def _plan(
    model: Vae, n: int, samples: int | None, bound: int | None, limit: int | None, seed: int
) -> _Plan:
    index = choose(n, limit or n, seed)
    total = len(index)
    draws = max(1, min(50, 10_000 // total))  # few images: less noise in the same time
    budget = int(DECODINGS * min(1.0, 784 / math.prod(model.shape)))
    samples = samples or max(200, min(5_000, budget // min(total, bound or total)))
    some = choose(total, bound or max(10, budget // samples), mix_seed(seed, _BOUND))
    return _Plan(index, draws, some, samples, choose(total, MIXED, mix_seed(seed, _MIX)))


def choose(n: int, count: int, seed: int) -> Tensor:
    """Return ``count`` of n images by chance, in order: the first ones may be the easy ones."""
    return epoch_order(n, seed, 0)[:count].sort().values


def single_precision() -> AbstractContextManager[None]:
    """Context without TF32, in which cuDNN convolves by default, with 10 bits for a fraction."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def _counter(progress: Progress | None, total: int) -> Report:
    done = 0

    def report(decoded: int) -> None:
        nonlocal done
        done += decoded
        if progress is not None:
            progress(done, total)

    return report


def _where(n: int, of: int, origin: str, seed: int) -> str:
    chosen = "" if n == of else f", drawn by chance from {of:,}"
    count = "1 image" if n == 1 else f"{n:,} images"
    return f"Over {count}{chosen}, {origin}; single precision, seed {seed}."


def _likelihood(model: Vae, seen: Observed, draws: int, where: str) -> dict[str, Figure]:
    if seen.rate is None:
        how = "Decoded at the point z."
    else:
        count = "1 draw" if draws == 1 else f"{draws} draws"
        rate = "in closed form" if seen.closed else "from the same draws"
        how = f"{count} of z for each image, rate {rate}."
    target = describe_target(model.likelihood.measure, model.binarize)
    figures = elbo_figures(seen.log_px, seen.rate, f"{target} {how} {where}")
    if seen.rate is None or seen.log_mass is None:
        return figures
    protocol = f"{describe_bits(model)} {how} {where}"
    bits = bits_figure(seen.log_mass - seen.rate, math.prod(model.shape), protocol)
    return {"elbo": figures["elbo"], "bits_per_dim": bits, **figures}


def _bounds(
    model: Vae,
    images: ImageSet,
    seen: Observed,
    plan: _Plan,
    seed: int,
    where: str,
    report: Report,
) -> dict[str, Figure]:
    """Return importance-weighted bounds of log p(x), of log p(x, y), and in bits per dimension."""
    assert seen.rate is not None
    index, some, samples = plan.index, plan.bound, plan.samples
    with seeded(mix_seed(seed, _BOUND), model.device):
        few = batches(model, images, index[some], model.rows // samples)
        gaps, of_masses = bound_gaps(model, few, samples, report)
    elbo, over = seen.log_px - seen.rate, f"{describe_bound(model)} {where}"
    figures = {"log_prob": log_prob_figure(elbo, gaps, some, samples, over)}
    if seen.log_mass is not None:
        figures["bits_per_dim_iwae"] = bits_bound_figure(
            seen.log_mass - seen.rate,
            of_masses,
            some,
            samples,
            math.prod(model.shape),
            f"{describe_bits(model)} {where}",
        )
    prior = _log_prior(model, images, index)
    if prior is not None:
        figures |= joint_figures(elbo, gaps, some, samples, prior, over)
    return figures


def _log_prior(model: Vae, images: ImageSet, index: Tensor) -> Tensor | None:
    """Return log p(y) of each image, where its class is all that a likelihood is conditioned on."""
    if model.conditions != (LABEL,) or model.conditioning is None or images.labels is None:
        return None
    return model.conditioning.log_prior(images.labels.cpu()[index])


def _information(told: Tensor, wasted: Tensor, where: str) -> dict[str, Figure]:
    n = len(told)
    how = (
        "Split of the rate (Hoffman and Johnson, 2016), q(z) being the mean of q(z|x) over "
        f"{n:,} of the images, one draw of z for each. "
    )
    cap = math.log(n)
    near = f"A lower bound in expectation, at most log {n:,} = {cap:.2f} nats. "
    said = mean(told, NATS, how + near + where)
    if said.value > cap - AT_CAP:
        near = (
            f"It is at its cap, log {n:,} = {cap:.2f} nats: a lower bound of what the code says. "
        )
        protocol = f"{how}{near}{where}"
        said = Figure(said.value, None, n, NATS, protocol, ends=(said.value, None))
    how += "An upper bound in expectation: few images fill q(z) less than all would. "
    rest = mean(wasted, NATS, how + where)
    return {"mutual_information": said, "marginal_kl": replace(rest, ends=(None, rest.value))}


def _use(seen: Observed, where: str) -> dict[str, Figure]:
    if len(seen.means) < 2:
        return {}
    active, _ = latents.active_units(seen.means)
    how = "Latent dimensions whose posterior mean varies over images by a variance above 0.01 "
    unit = f"of {len(active)} dimensions"
    count = float(active.sum())
    return {
        "active_units": Figure(count, None, len(seen.means), unit, f"{how}(Burda, 2016). {where}")
    }


def _fidelity(model: Vae, seen: Observed, where: str) -> dict[str, Figure]:
    binary = "" if model.binarize == "none" else ", here binarised"
    how = f"Decoded posterior mean against the image that the encoder saw{binary}; pixels in [0, 1]"
    ssim = "Gaussian window of 11 × 11 pixels, σ 1.5 (Wang et al., 2004), smaller in small images"
    return {
        "mse": mean(seen.mse, "squared error per pixel", f"{how}. {where}"),
        "psnr": mean(seen.psnr, "dB", f"{how}; mean over images of one value each. {where}"),
        "ssim": mean(seen.ssim, "SSIM", f"{how}. {ssim}. {where}"),
    }


def _read(model: Vae, images: ImageSet, index: Tensor, where: str) -> dict[str, Figure]:
    """Return how often a model that reads classes is right; nothing where it cannot be known."""
    known = images.labels is not None and model.conditioning is not None
    if not (known and model.reads and model.classes):
        return {}
    assert images.labels is not None
    assert model.conditioning is not None
    rows = index[images.labels[index].cpu() >= 0]
    if not len(rows):
        return {}
    said = [model.labels(images.take(some))[LABEL].cpu() for some in rows.split(model.rows)]
    right = torch.cat(said) == images.labels.cpu()[rows]
    how = f"Share of images of which the model's own classifier reads the class rightly. {where}"
    return {"label_read": share(right, how)}


def _latent(seen: Observed) -> dict[str, list[Any]]:
    arrays: dict[str, Tensor] = {}
    if seen.kl is not None:
        arrays["kl"] = seen.kl.double().mean(0)
    if len(seen.means) > 1:
        _, arrays["variance"] = latents.active_units(seen.means)
        arrays["mean"], arrays["covariance"] = latents.aggregate_moments(seen.codes)
    return {name: values.tolist() for name, values in arrays.items() if values.isfinite().all()}


def _check(seen: Observed) -> None:
    bad = int((~seen.means.isfinite().all(1)).sum())
    if bad:
        raise RunError(
            f"evaluation: the codes of {bad:,} of {len(seen.means):,} images are not finite: "
            "training has diverged. Train again with a lower learning rate (training.lr) or "
            "with training.clip=1."
        )


def finite(figures: Mapping[str, Figure]) -> tuple[dict[str, Figure], tuple[str, ...]]:
    """Leave out figures that no file could hold, and say so."""
    kept = {
        name: figure
        for name, figure in figures.items()
        if math.isfinite(figure.value) and math.isfinite(figure.standard_error or 0)
    }
    lost = [name for name in figures if name not in kept]
    return kept, (f"Not finite, hence left out: {', '.join(lost)}.",) if lost else ()
