"""A plain σ-VAE (Rybkin et al., 2021), as well as anybody would tune it. Nothing of vaelab.

    python benchmarks/sigma_vae.py IMAGES OUT --seconds 30

IMAGES holds train.npy and test.npy, uint8 ``(N, C, H, W)``. OUT receives ``reconstructions.npy``
of the test images, 2,000 samples from the prior (``prior.npy``) and from a mixture of ten normals
on the latents of the training images (``mixture.npy``), and ``report.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.nn import functional


def norm(kind: str, width: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(width)
    return nn.GroupNorm(min(8, width), width) if kind == "group" else nn.Identity()


class SigmaVae(nn.Module):
    """Stride-2 convolutions and their mirror; images are padded to what halves evenly."""

    def __init__(self, given: argparse.Namespace, channels: int, sides: list[int]) -> None:
        super().__init__()
        self.sides, widths = sides, given.widths
        low = [math.ceil(side / 2 ** len(widths)) for side in sides]
        self.padding = [-side % 2 ** len(widths) for side in sides]
        down, up = list[nn.Module](), list[nn.Module]()
        for i, width in enumerate(widths):
            before = widths[i - 1] if i else channels
            down += [nn.Conv2d(before, width, 4, 2, 1), norm(given.norm, width), nn.SiLU()]
            up = [
                norm(given.norm, width),
                nn.SiLU(),
                nn.ConvTranspose2d(width, before, 4, 2, 1),
                *up,
            ]
        features = widths[-1] * math.prod(low)
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(features, 2 * given.latents))
        spread = [nn.Linear(given.latents, features), nn.Unflatten(1, (widths[-1], *low))]
        self.decoder = nn.Sequential(*spread, *up)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x)."""
        padded = functional.pad(x, (0, self.padding[1], 0, self.padding[0]), "replicate")
        mu, log_var = self.encoder(2 * padded - 1).float().chunk(2, 1)
        return mu, log_var.clamp(-12, 6)

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean of p(x|z), in [0, 1]."""
        out = self.decoder(z)[:, :, : self.sides[0], : self.sides[1]]
        return torch.sigmoid(out.float())

    def loss(self, x: Tensor) -> Tensor:
        """Return −ELBO in nats per image, but for a constant; σ² is the MSE of the batch."""
        mu, log_var = self.encode(x)
        error = self.decode(mu + torch.exp(log_var / 2) * torch.randn_like(mu)) - x
        rate = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(1).mean()
        return 0.5 * x[0].numel() * torch.log(error.square().mean() + 1e-6) + rate


def train(model: SigmaVae, images: Tensor, given: argparse.Namespace) -> dict[str, float]:
    """Train for some seconds of this process; the learning rate falls linearly with them."""
    optimizer = torch.optim.AdamW(model.parameters(), given.lr, weight_decay=given.decay)
    order, trial, step, spent = torch.empty(0, dtype=torch.long), [0.0, 0.0], 0, 0.0
    begun = time.process_time()
    while spent < given.seconds and step < given.steps:
        if len(order) < given.batch:
            order = torch.cat([order, torch.randperm(len(images))])
        index, order = order.split([given.batch, len(order) - given.batch])
        bf16 = step % 2 if step < 14 else int(trial[1] < trial[0])  # whichever is faster
        done = max(spent / given.seconds, step / given.steps)
        optimizer.param_groups[0]["lr"] = given.lr * min(1, (step + 1) / given.warmup) * (1 - done)
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(bf16)):
            loss = model.loss(images[index].float() / 255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        now = time.process_time() - begun
        trial[bf16] += (now - spent) * (4 <= step < 14)
        step, spent = step + 1, now
    return {"steps": step, "bf16": int(trial[1] < trial[0]), "seconds": spent, "loss": loss.item()}


@torch.inference_mode()
def write(model: SigmaVae, train: Tensor, test: Tensor, given: argparse.Namespace) -> None:
    """Write reconstructions and samples."""

    def decoded(z: Tensor) -> NDArray[np.uint8]:
        images = torch.cat([model.decode(each) for each in z.split(200)])
        return images.mul(255).round().byte().numpy()

    def means(images: Tensor) -> Tensor:
        return torch.cat([model.encode(each.float() / 255)[0] for each in images.split(200)])

    np.save(given.out / "reconstructions.npy", decoded(means(test)))
    np.save(given.out / "prior.npy", decoded(torch.randn(given.samples, given.latents)))
    latents = means(train)[torch.randperm(len(train))[:20_000]].double().numpy()
    mixture = GaussianMixture(10, reg_covar=1e-6, random_state=given.seed).fit(latents)
    z = torch.from_numpy(mixture.sample(given.samples)[0]).float()
    np.save(given.out / "mixture.npy", decoded(z))


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    floats = {"seconds": 30.0, "lr": 2e-3, "decay": 0.01}
    whole = {"seed": 0, "steps": 10**9, "warmup": 50, "batch": 32, "latents": 64, "samples": 2_000}
    for name, value in {**floats, **whole}.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--norm", choices=["batch", "group", "none"], default="batch")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    images, test = (torch.from_numpy(np.load(given.images / f"{x}.npy")) for x in ("train", "test"))
    model = SigmaVae(given, images.shape[1], list(images.shape[2:]))
    report = train(model, images, given)
    report["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    given.out.mkdir(parents=True, exist_ok=True)
    write(model.eval(), images, test, given)
    (given.out / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
