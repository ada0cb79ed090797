"""How much faster the networks train than PyTorch's plain layers, as ratios of one interleaved run.

    python benchmarks/layers.py [--rounds 30] [--threads 2]

Rival jobs slow all contestants of a round alike, so only the ratios mean something.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaelab.config import NetworkConfig
from vaelab.models.layers import ConvTranspose2d
from vaelab.models.networks import build_decoder, build_encoder

Step = Callable[[], None]
DIMENSIONS = 20


def interleave(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Return the median seconds of each step; all are run in turn in every round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 3):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_ >= 3:
                times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def plain() -> tuple[nn.Module, nn.Module]:
    encoder = nn.Sequential(
        *(nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(3136, 2 * DIMENSIONS)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(DIMENSIONS, 3136), nn.Unflatten(1, (64, 7, 7)), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1)),
    )
    return encoder, decoder


def ours() -> tuple[nn.Module, nn.Module]:
    config, shape = NetworkConfig(), (1, 28, 28)
    return (
        build_encoder(config, shape, 2 * DIMENSIONS),
        build_decoder(config, DIMENSIONS, shape, 1),
    )


def training_step(networks: tuple[nn.Module, nn.Module], x: Tensor, bf16: bool) -> Step:
    """One step of a Bernoulli VAE with Adam."""
    encoder, decoder = networks
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-3, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            mu, log_var = encoder(x).float().chunk(2, -1)
            logits = decoder(mu + torch.randn_like(mu) * (log_var / 2).exp())
        distortion = F.binary_cross_entropy_with_logits(logits.float(), x, reduction="sum")
        rate = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum()
        optimizer.zero_grad()
        ((distortion + rate) / len(x)).backward()
        optimizer.step()

    return step


def layer_step(layer: nn.Module, x: Tensor) -> Step:
    """Forward and backward, to the input as well."""
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    upstream = torch.randn_like(layer(x))

    def step() -> None:
        layer(x).backward(upstream)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for batch in (128, 512):
        x = torch.rand(batch, 1, 28, 28)
        steps = {
            f"{name} {'bf16' if bf16 else 'fp32'}": training_step(networks(), x, bf16)
            for bf16 in (False, True)
            for name, networks in (("plain", plain), ("vaelab", ours))
        }
        seconds = interleave(steps, arguments.rounds)
        for name, value in seconds.items():
            ratio = seconds["plain fp32"] / value
            print(f"step, batch {batch:3d}: {name:12s} {batch / value:7.0f} images/s {ratio:5.2f}x")
    for dtype in (torch.float32, torch.bfloat16):
        for channels in (1, 2, 3, 4, 6, 8, 16, 32):
            x = torch.randn(128, 32, 14, 14, dtype=dtype)
            kinds = {"plain": nn.ConvTranspose2d, "vaelab": ConvTranspose2d}
            seconds = interleave(
                {
                    name: layer_step(kind(32, channels, 4, 2, 1).to(dtype), x)
                    for name, kind in kinds.items()
                },
                arguments.rounds,
            )
            ratio = seconds["plain"] / seconds["vaelab"]
            print(f"transposed convolution 32 to {channels:2d}, {dtype}: {ratio:.2f}x")


if __name__ == "__main__":
    main()
