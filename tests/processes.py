"""Trainings of every recipe, by one process or as one of several: see test_processes.py.

python -m tests.processes OUT      # RANK, WORLD_SIZE, … as torchrun sets them
"""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from vaelab.api import configure, settings_to_config
from vaelab.data.images import ImageSet, Splits
from vaelab.models.classifier import build_classifier
from vaelab.training.judge import Judge
from vaelab.training.loop import Trainer
from vaelab.training.progress import Silent

BATCH = 7  # odd: the processes hold 4 and 3 images of it
NETWORK = {"widths": [4], "hidden": [8], "normalization": "batch", "dropout": 0.2}
QUICK: dict[str, Any] = {
    "encoder": NETWORK, "decoder": NETWORK, "latent_dim": 3, "batch_size": BATCH, "epochs": 1,
    "optimizer": "momentum", "lr": 0.003, "precision": "fp32", "device": "cpu", "seed": 3,
}  # fmt: skip

CASES: dict[str, dict[str, Any]] = {
    "ae": {},
    "vae": {"free_bits": 0.6, "likelihood": "gaussian-scalar"},
    "vae, fitted scale": {"likelihood": "gaussian", "standardize": True},
    "iwae, fitted scale": {"likelihood": "laplace", "samples": 3},
    "vae, augmented": {
        "likelihood": "gaussian", "augment": "flip,shift=0.3,crop,zoom,rotation", "epochs": 2,
    },
    "m2, augmented": {"augment": {"flip": True, "rotation": 20.0, "unchecked": True}},
    "vae, full posterior": {
        "posterior": "full", "prior": "mixture", "free_bits": 2.5, "samples": 2,
    },
    "vae, whole set": {"optimizer": "batch-gd", "free_bits": 0.6, "epochs": 3},
    "vae, last batch of one": {
        "batch_size": 6, "encoder": {**NETWORK, "normalization": "group", "dropout": 0.0},
        "decoder": {"normalization": "group"}, "free_bits": 0.6,
    },
    "vae, compared": {
        "likelihood": "gaussian", "perceptual": 0.1, "ms_ssim": 0.1, "focal_frequency": 0.1,
        "samples": 2,
    },
    "beta-vae": {"free_bits": 0.3, "warmup": 0.5},
    "annealed-vae": {"capacity": 2.0, "growth": 0.0, "gamma": 20.0},
    "iwae": {"samples": 3, "binarize": "dynamic"},
    "cvae": {"given": ["label", "size"], "dropout": 0.3, "learned_prior": True},
    "cvae-info": {"given": ["label", "size"], "critic_steps": 2, "critic_lr": 1e-3},
    "csvae": {"posterior": "diagonal"},
    "csvae, critic": {"independence": "critic", "critic_steps": 1},
    "vae-gan": {"r1": 1.0, "pixels": 0.5},
    "aae": {},
    "m2": {},
    "m1+m2": {"hidden": 8, "second": 3},
    "guided-vae": {},
    "classifier": {"balance": 1.0, "lr": 0.05},
    "classifier, residual": {"lr": 0.05, "network": "cnn", "rotation": 10.0, "elastic": 1.0},
}  # fmt: skip


def splits() -> Splits:
    """Return 25 training images, three batches of 7 and one of 4, of which some are labelled."""
    g = torch.Generator().manual_seed(11)
    images = torch.randint(0, 256, (37, 2, 6, 9), generator=g, dtype=torch.uint8)[:, :1]
    labels = torch.randint(0, 3, (37,), generator=g)
    labels[::4] = -1
    size = torch.randn(37, 2, generator=g)
    size[5::9, 0] = torch.nan
    every = ImageSet(images, labels, size, ("a", "b", "c"), ("size", "slant"))
    train, held_out, test = (
        every.subset(torch.arange(*ends)) for ends in ((0, 25), (25, 31), (31, 37))
    )
    return Splits("dots", train, held_out, test)


def trained(name: str) -> dict[str, Tensor]:
    """Return the state of model and objective after the few steps of a case."""
    settings = {**QUICK, **CASES[name]}
    values = {**settings_to_config(settings), "recipe": name.partition(",")[0]}

    def judge(*_: object, **__: object) -> Judge:
        torch.manual_seed(5)
        return Judge("none", build_classifier((1, 6, 9), 3))

    with patch("vaelab.training.loop.trained_judge", judge):
        trainer = Trainer(configure(values), splits(), Silent())
        before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        trainer.fit()
    after = {**trainer.model.state_dict(), **trainer.objective.state_dict(prefix="objective.")}
    moved = [(after[n] - value).abs().max() for n, value in before.items()]
    return {**after, "moved": torch.stack(moved).max()}


def every_case() -> dict[str, dict[str, Tensor]]:
    """Return the state after each case, by name."""
    return {name: trained(name) for name in CASES}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save(every_case(), sys.argv[1])
