"""A plain σ-VAE (Rybkin et al., 2021), tuned as README.md says. Nothing of vaelab.

IMAGES holds train.npy and test.npy, uint8 ``(N, C, H, W)``. OUT receives ``reconstructions.npy``,
samples of the prior and of a mixture of ten normals on the latents, and ``report.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn


class SigmaVae(nn.Module):
    """Stride-2 convolutions and their mirror; images are padded to what halves evenly."""

    def __init__(self, given: argparse.Namespace, channels: int, sides: list[int]) -> None:
        super().__init__()
        self.sides, halved = sides, 2 ** len(given.widths)
        self.padding = [-side % halved for side in sides]
        low = [math.ceil(side / halved) for side in sides]
        down, up, before = list[nn.Module](), list[nn.Module](), channels
        for width in given.widths:
            down += [nn.Conv2d(before, width, 4, 2, 1), norm(given.norm, width), nn.SiLU()]
            larger = nn.ConvTranspose2d(width, before, 4, 2, 1)
            up, before = [norm(given.norm, width), nn.SiLU(), larger, *up], width
        size = before * math.prod(low)
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(size, 2 * given.latents))
        first = [nn.Linear(given.latents, size), nn.Unflatten(1, (before, *low))]
        self.decoder = nn.Sequential(*first, *up)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z|x)."""
        padded = nn.functional.pad(x, (0, self.padding[1], 0, self.padding[0]), "replicate")
        mu, log_var = self.encoder(2 * padded - 1).float().chunk(2, 1)
        return mu, log_var.clamp(-12, 6)

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean of p(x|z), in [0, 1]."""
        x: Tensor = self.decoder(z)[:, :, : self.sides[0], : self.sides[1]]
        return x.float().sigmoid()

    def loss(self, x: Tensor) -> Tensor:
        """Return −ELBO in nats per image, but for a constant; σ² is the MSE of the batch."""
        mu, log_var = self.encode(x)
        error = self.decode(mu + torch.exp(log_var / 2) * torch.randn_like(mu)) - x
        rate = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(1).mean()
        return 0.5 * x[0].numel() * torch.log(error.square().mean() + 1e-6) + rate


def norm(kind: str, width: int) -> nn.Module:
    return nn.BatchNorm2d(width) if kind == "batch" else nn.GroupNorm(min(8, width), width)


def train(model: SigmaVae, images: Tensor, given: argparse.Namespace) -> dict[str, float]:
    """Train for some seconds of this process; the learning rate falls linearly with them."""
    optimizer = torch.optim.AdamW(model.parameters(), given.lr, weight_decay=given.decay)
    order, trial, step, spent = torch.empty(0).long(), [0.0, 0.0], 0, 0.0
    begun = time.process_time()
    while spent < given.seconds and step < given.steps:
        if len(order) < given.batch:
            order = torch.cat([order, torch.randperm(len(images))])
        index, order = order[: given.batch], order[given.batch :]
        bf16 = step % 2 if step < 14 else int(trial[1] < trial[0])  # whichever is faster
        left = 1 - max(spent / given.seconds, step / given.steps)
        optimizer.param_groups[0]["lr"] = given.lr * min(1, (step + 1) / given.warmup) * left
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(bf16)):
            loss = model.loss(images[index].float() / 255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trial[bf16] += (time.process_time() - begun - spent) * (4 <= step < 14)
        step, spent = step + 1, time.process_time() - begun
    size = sum(parameter.numel() for parameter in model.parameters())
    return {"steps": step, "bf16": bf16, "seconds": spent, "loss": loss.item(), "parameters": size}


@torch.inference_mode()
def write(model: SigmaVae, train: Tensor, test: Tensor, given: argparse.Namespace) -> None:
    """Write reconstructions and samples."""

    def means(images: Tensor) -> Tensor:
        return torch.cat([model.encode(each.float() / 255)[0] for each in images.split(200)])

    latents = means(train)[torch.randperm(len(train))[:20_000]].double().numpy()
    mixture = GaussianMixture(10, reg_covar=1e-6, random_state=given.seed).fit(latents)
    sampled = torch.from_numpy(mixture.sample(given.samples)[0]).float()
    prior = torch.randn(given.samples, given.latents)
    for name, z in {"reconstructions": means(test), "prior": prior, "mixture": sampled}.items():
        images = torch.cat([model.decode(each) for each in z.split(200)])
        np.save(given.out / f"{name}.npy", images.mul(255).round().byte().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    whole = {"seed": 0, "steps": 10**9, "warmup": 50, "batch": 32, "latents": 64, "samples": 2_000}
    for name, value in {"seconds": 30.0, "lr": 2e-3, "decay": 0.01, **whole}.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--norm", choices=["batch", "group"], default="batch")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(given.seed)
    images, test = (torch.from_numpy(np.load(given.images / f"{x}.npy")) for x in ("train", "test"))
    model = SigmaVae(given, images.shape[1], list(images.shape[2:]))
    (given.out / "report.json").write_text(json.dumps(train(model, images, given)))
    write(model.eval(), images, test, given)


if __name__ == "__main__":
    main()
