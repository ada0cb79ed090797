"""The words and tables of a report: what was measured, what was trained, what to beware of."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from vaelab.config import NetworkConfig, RunConfig
from vaelab.data.images import Splits
from vaelab.data.pixels import colours
from vaelab.errors import counted
from vaelab.evaluation.figures import long_name
from vaelab.evaluation.record import Evaluation, origin
from vaelab.models.vae import Vae
from vaelab.report.latents import Latents, sub
from vaelab.report.pictures import LARGEST
from vaelab.training.finding import DIAGNOSIS
from vaelab.training.progress import duration
from vaelab.training.run import Run

Entry = Mapping[str, Any]


def figure_rows(
    evaluation: Evaluation, lead: str | None = None, simple: bool = False
) -> list[dict[str, str]]:
    """Return the table of figures, the verdict's own first.

    Arguments:
        evaluation: the figures.
        lead: the first; by default the ELBO or what stands for it.
        simple: leave out those of single classes or attributes.
    """
    lead = lead or ("elbo" if "elbo" in evaluation.figures else "mse")
    names = sorted(evaluation.figures, key=lambda name: name != lead)
    names = [name for name in names if not (simple and ":" in name)]
    rows = []
    for name in names:
        figure = evaluation.figures[name]
        rows.append(
            {
                "label": long_name(name, figure),
                "value": figure.number,
                "unit": figure.unit,
                "error": plain(figure.standard_error or None),  # 0 is no certainty
                "n": f"{figure.n:,}",
                "protocol": figure.protocol,
            }
        )
    return rows


def plain(error: float | None) -> str:
    """Write a standard error with two digits and no exponent; – where there is none."""
    if error is None:
        return "–"
    if error == 0:
        return "0"
    decimals = 1 - math.floor(math.log10(error))
    return f"{round(error, decimals):,.{max(0, decimals)}f}"


def dimensions(model: Vae) -> str:
    """Return in brackets how a code is divided; empty where it is one piece."""
    if not model.subspaces:
        return ""
    dims = next(iter(model.subspaces.values())).dims
    count = len(model.subspaces)
    whose = "the attribute" if count == 1 else f"each of {count} attributes"
    return f" ({model.plain_dims} + {dims.stop - dims.start} for {whose})"


def summary(config: RunConfig, splits: Splits, model: Vae) -> str:
    """Return in a line which model learned from which images."""
    channels, height, width = splits.train.shape
    colour = colours(channels)
    dims = model.latent_dim
    return (
        f"{config.recipe} with {dims} latent dimension{'s' * (dims > 1)}{dimensions(model)} · "
        f"{splits.name}, {len(splits.train):,} training images of {height} × {width} pixels, "
        f"{colour}"
    )


def facts(
    config: RunConfig, splits: Splits, model: Vae, epochs: Sequence[Entry], steps: Sequence[Entry]
) -> list[tuple[str, str]]:
    """Return what was trained, as terms and their values."""
    m, t = config.model, config.training
    options = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in config.options.items()
        if value is not None
    )
    sizes = " / ".join(f"{len(s):,}" for s in (splits.train, splits.validation, splits.test))
    found = [
        ("Recipe", config.recipe + (f" ({options})" if options else "")),
        ("Images", f"{splits.name}: {sizes} for training / validation / test"),
        ("Posterior q(z|x)", f"{m.posterior}, {model.latent_dim}-dimensional{dimensions(model)}"),
        ("Likelihood p(x|z)", m.likelihood + _binarized(config)),
        ("Prior p(z)", "none" if m.posterior == "dirac" else m.prior),
        ("Encoder", _network(m.encoder)),
        ("Decoder", _network(m.decoder)),
        ("Parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
        (
            "Optimiser",
            f"{t.optimizer}, learning rate {t.lr:g} ({t.schedule}), batches of {t.batch_size:,}",
        ),
        ("Seed", str(t.seed)),
    ]
    if epochs:
        last = epochs[-1]
        took = f" in {duration(last['seconds'])}" if last.get("seconds") is not None else ""
        found.append(
            (
                "Training",
                f"{last['epoch']:,} of {counted(t.epochs, 'epoch')}, "
                f"{counted(last['step'], 'step')}{took}",
            )
        )
    speeds = sorted(entry["speed"] for entry in steps if entry.get("speed"))
    if speeds:
        found.append(("Speed", f"{speeds[len(speeds) // 2]:,.0f} images/s (median)"))
    return found


def _binarized(config: RunConfig) -> str:
    return "" if config.data.binarize == "none" else f", targets binarised ({config.data.binarize})"


def _network(network: NetworkConfig) -> str:
    layers = [] if network.kind == "mlp" else [f"widths {_list(network.widths)}"]
    if network.hidden:
        layers.append(f"hidden {_list(network.hidden)}")
    return ", ".join([network.kind, *layers, network.activation])


def _list(numbers: Sequence[int]) -> str:
    return "–".join(map(str, numbers))


def preliminary(epochs: Sequence[Entry]) -> str:
    """Return the verdict of a run that is not evaluated: what the last validation says."""
    if not epochs:
        return "Not evaluated, and no epoch is finished yet."
    last = epochs[-1]
    key, label = ("elbo", "ELBO") if "validation/elbo" in last else ("distortion", "distortion")
    value = last.get(f"validation/{key}")
    if value is None:
        return f"Not evaluated; the validation {label} after epoch {last['epoch']} is not finite."
    figure = f"{value:.1f}".replace("-", "−")
    bits = last.get("validation/bits_per_dim")
    also = "" if bits is None else f", ≤ {bits:.3f} bits per dimension"
    return (
        f"Not evaluated. Validation {label} after epoch {last['epoch']}: {figure} nats per "
        f"image{also}."
    )


def notes(
    splits: Splits,
    evaluation: Evaluation | None,
    log: Sequence[Entry],
    epochs: Sequence[Entry],
    latents: Latents,
) -> list[str]:
    """Return what a reader should know before believing the page, the gravest first."""
    said = [  # findings have a section of their own, and are found again for it
        entry["text"]
        for entry in log
        if entry.get("kind") == "note"
        and not str(entry.get("about")).startswith((DIAGNOSIS, "latent space"))
        and (
            entry.get("about") != "divergence"
            or (epochs and entry.get("step") == epochs[-1]["step"])
        )
    ]
    found = list({text.partition(":")[0]: text for text in said}.values())  # the last of a kind
    if not splits.held_out:
        found.append("No images were held out: the figures are over images that were trained on.")
    dead = [f"z{sub(d)}" for d, active in enumerate(latents.active) if not active]
    if dead:
        which = ", ".join(dead[:20]) + (" …" if len(dead) > 20 else "")
        found.append(f"Not in use, hardly another code from image to image: {which}.")
    skipped = epochs[-1].get("skipped", 0) if epochs else 0
    if skipped:
        found.append(
            f"{counted(skipped, 'step')} with a non-finite loss or gradient "
            f"{'was' if skipped == 1 else 'were'} skipped."
        )
    if evaluation is not None:
        found.extend(evaluation.notes)
    found.extend(splits.notes)
    return list(dict.fromkeys(found))


def captions(latents: Latents) -> dict[str, str]:
    """Return what to see in each plot."""
    count = f"{len(latents.means):,} test images"
    if len(latents.means) < latents.total:
        count += f", evenly spread over {latents.total:,}"
    return {
        "curve_caption": (
            "Training: mean over the batches since the last line of the log, as the weights moved. "
            "Validation: after each epoch, over all validation images. What the first tenth of the "
            "training steps has above or below the panel is cut off."
        ),
        "reconstruction_caption": (
            "Test images above, the decoded means of their posteriors below; the first of each "
            "class, whatever they look like."
            if latents.labels is not None
            else "Test images above, the decoded means of their posteriors below; the first ones, "
            "whatever they look like."
        ),
        "latent_caption": f"{_map_caption(latents)} {count}.",
        "deviation_caption": (
            "Grey: from the 5th to the 95th percentile of the images. "
            + ("Dots: median of each class. " if latents.labels is not None else "Dot: median. ")
            + "At 1 the posterior is as wide as the prior and tells nothing."
        ),
        **_aggregate(latents),
        "traversal_caption": _traversal_caption(latents),
    }


def _map_caption(latents: Latents) -> str:
    if latents.dims == 1:
        lines = "dashed lines: 1σ and 2σ of the prior. " if latents.prior is not None else ""
        return f"Posterior mean and standard deviation of each image; {lines}"
    text = "Posterior means"
    if latents.dims > 2:
        one, two = latents.order[:2]
        use = "highest rate" if latents.kl is not None else "largest variance"
        text += f" in the two of {latents.dims} dimensions of {use}, z{sub(one)} and z{sub(two)}"
    if latents.labels is not None:
        text += ", coloured by class, names at the medians"
    if latents.prior is None:
        return f"{text}."
    which = "1σ and 2σ contours" if latents.standard else "densest regions"
    return f"{text}. Dashed: the prior's {which}, which hold 39 % and 86 % of its draws."


def _aggregate(latents: Latents) -> dict[str, str]:
    which = f" (the 8 dimensions in most use of {latents.dims})" if latents.dims > 8 else ""
    if latents.point:
        return {
            "aggregate_title": "Distribution of the codes",
            "aggregate_caption": f"Codes of the images, by dimension{which}.",
        }
    line = "N(0, 1)" if latents.standard else "estimated from draws"
    return {
        "aggregate_title": "Aggregate posterior against the prior",
        "aggregate_caption": (
            f"Filled: the posteriors of all images together, by dimension{which}. Line: the "
            f"prior, {line}. Where they differ, samples from the prior are unlike the images."
        ),
    }


def _traversal_caption(latents: Latents) -> str:
    use = "rate" if latents.kl is not None else "variance over images"
    middle = "the mean code" if latents.prior is None else "the middle of the prior"
    return (
        f"One dimension at a time from −3 to 3 standard deviations around {middle}, the others "
        f"held there. Ordered by {use}, largest first; those not in use are folded away."
    )


def measured(evaluation: Evaluation | None, latents: Latents, model: Vae) -> list[str]:
    """Return how the figures and pictures came about, a sentence or two for each."""
    lines = []
    if evaluation is not None:
        kept = origin(evaluation.held_out, evaluation.trained_on)
        lines += [
            f"On {evaluation.images:,} images, {kept}, with the seed {evaluation.seed}: the same "
            "seed gives the same figures. The protocol of each figure folds out under its name.",
            "± is the 95 % interval, 1.96 standard errors of the mean over images. It says how far "
            "other images would move the figure, not another training with another seed. A share "
            "of few images, or whose ± would be 0 or leave [0, 1], has Wilson's in brackets.",
        ]
        if "elbo" in evaluation.figures:
            lines.append(
                "ELBO = −distortion − rate, in nats per image: summed over pixels and channels, "
                "averaged over images. It is a lower bound of log p(x); higher is better."
            )
        if "bits_per_dim" in evaluation.figures:
            lines.append(
                "Bits per dimension are −log₂ P(x) over the numbers of an image, P being the mass "
                "of its 8-bit levels: the one figure by which all likelihoods compare on the same "
                "images. An upper bound, hence ≤; lower is better."
            )
    lines.append(
        "Reconstructions are decoded posterior means; every picture shows the mean of p(x|z), "
        "without the noise of the pixels."
    )
    if max(model.shape[1:]) > LARGEST:
        lines.append(
            f"Images are shown smaller, with sides of at most {LARGEST} pixels: blocks of pixels "
            "are averaged. `vaelab sample` and `vaelab reconstruct` write them at their own size."
        )
    if not latents.point:
        lines.append(
            "A latent dimension is in use when its posterior mean varies over images by a "
            "variance above 0.01 (Burda et al., 2016)."
        )
    return lines


def reproduce(run: Run, config: RunConfig) -> tuple[str, str]:
    """Return what to say and the commands that repeat the run."""
    seed = config.training.seed
    commands = [
        f"vaelab train --config {shlex.quote(str(run.config_file))} --out NEW",
        "vaelab evaluate NEW",
        "vaelab report NEW",
    ]
    text = (
        f"Seed {seed}, which decides initial weights, order of images and noise. The configuration "
        "above is that file: saved from this page it serves as well."
    )
    if config.data.spec == "(in memory)":
        text = (
            f"Seed {seed}. The images were given in memory, so the run is repeated from Python, "
            "with the configuration above and the same images."
        )
        path = str(run.config_file)
        commands = ["import vaelab", f'vaelab.train(data=images, config={path!r}, out="NEW")']
    return text, "\n".join(commands)
