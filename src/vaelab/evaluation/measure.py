"""One pass of a model over images: what every figure is made from, one row for each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vaelab.data.batches import Batch, fetch
from vaelab.data.images import ImageSet
from vaelab.evaluation import latents, reconstruction
from vaelab.models.kl import analytic_kl, kl_per_dimension
from vaelab.models.model import evaluating, seeded
from vaelab.models.similarity import ssim
from vaelab.models.vae import Trace, Vae
from vaelab.objectives.objective import is_point
from vaelab.training.step import with_target

Report = Callable[[int], None]
"""Told how many codes were decoded since the last call."""


@dataclass(frozen=True)
class Observed:
    """What one pass gave, on the CPU.

    Arguments:
        log_px: log p(x|z), mean over the draws of z, ``(N,)`` nats.
        log_mass: the same of the mass of the levels; None where targets have none.
        rate: KL(q(z|x) ‖ p(z)), ``(N,)`` nats; None for a point posterior.
        closed: whether the rate is in closed form.
        kl: rate of each dimension, ``(N, D)`` nats; None where the posterior does not factorise.
        means: posterior means, ``(N, D)``.
        codes: one draw from each posterior, ``(N, D)``.
        mse, psnr, ssim: of the decoded posterior mean against the encoder's input, ``(N,)``.
    """

    log_px: Tensor
    log_mass: Tensor | None
    rate: Tensor | None
    closed: bool
    kl: Tensor | None
    means: Tensor
    codes: Tensor
    mse: Tensor
    psnr: Tensor
    ssim: Tensor


def batches(model: Vae, images: ImageSet, index: Tensor, size: int) -> Iterator[Batch]:
    """Yield the images at ``index`` as the model is trained on them, on its device."""
    for rows in torch.split(index, max(1, size)):
        yield with_target(fetch(images, rows, model.device), model.binarize)


@torch.no_grad()
def codes_of(model: Vae, images: ImageSet, index: Tensor) -> Tensor:
    """Return the posterior means of the images at ``index``, ``(n, D)``, on the CPU.

    Binarised where the model was trained on binary images, with noise of a fixed seed.
    """
    with evaluating(model), seeded(0, model.device):
        parts = [
            model.distributions(batch)[0].mean.float().cpu()
            for batch in batches(model, images, index, model.rows)
        ]
    return torch.cat(parts)


def observe(model: Vae, images: ImageSet, index: Tensor, samples: int, report: Report) -> Observed:
    """Run the images at ``index`` through the model, with ``samples`` draws of z for each."""
    parts: dict[str, list[Tensor]] = {}
    closed = True
    for batch in batches(model, images, index, model.rows // samples):
        trace = model(batch, samples)
        latent = trace.latents["z"]
        row = {
            "log_px": trace.log_px.mean(0),
            **({"log_mass": trace.log_mass.mean(0)} if trace.measured else {}),
            "means": latent.posterior.mean,
            "codes": latent.value[0],
            **_rate(trace),
            **_fidelity(
                batch.images, model.decode(latent.posterior.mean, trace.context).mean.clamp(0, 1)
            ),
        }
        closed = closed and analytic_kl(latent.posterior, latent.prior) is not None
        for name, values in row.items():
            parts.setdefault(name, []).append(values.cpu())
        report(len(batch) * (samples + 1))
    rows = {name: torch.cat(values) for name, values in parts.items()}
    log_mass, rate, kl = (rows.pop(name, None) for name in ("log_mass", "rate", "kl"))
    return Observed(log_mass=log_mass, rate=rate, kl=kl, closed=closed, **rows)


def _rate(trace: Trace) -> dict[str, Tensor]:
    latent = trace.latents["z"]
    if is_point(latent.posterior):
        return {}
    kl = kl_per_dimension(latent.posterior, latent.prior)
    return {"rate": trace.rate.mean(0), **({} if kl is None else {"kl": kl})}


def _fidelity(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    return {
        "mse": reconstruction.mse(x, y),
        "psnr": reconstruction.psnr(x, y),
        "ssim": ssim(x, y),
    }


def split_rate(model: Vae, images: ImageSet, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return `latents.split_rate` of the images at ``index``, on the CPU."""
    features = [model.features(batch) for batch in batches(model, images, index, model.rows)]
    posterior = model.encoder.family(torch.cat(features))
    prior = model.marginal_prior()
    told, wasted = latents.split_rate(posterior, prior, posterior.rsample())
    return told.cpu(), wasted.cpu()
