"""pythae's VAE, and its RAE-L2 with a mixture for a sampler, over the plain VAE's networks."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sigma_vae import SigmaVae
from torch import Tensor

if TYPE_CHECKING:
    from own_contenders import Job

BATCH, LATENTS, LR = 32, 64, 2e-3
"""As in `sigma_vae.py`; otherwise pythae's defaults."""


def pythae_vae(job: Job) -> None:
    """The VAE as pythae has it: a Gaussian likelihood of variance 1."""
    from pythae.models import VAE, VAEConfig

    _trained(job, VAE, VAEConfig, scale=2)


def pythae_rae(job: Job) -> None:
    """A regularised autoencoder (Ghosh et al., 2020), the best of pythae in samples."""
    from pythae.models import RAE_L2, RAE_L2_Config

    _trained(job, RAE_L2, RAE_L2_Config, scale=1)


def _trained(job: Job, kind: Any, config: Any, scale: int) -> None:
    """Train for ``job.steps`` and write what contenders write; scale: 2 if q has a variance."""
    from pythae.data.datasets import BaseDataset
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.samplers import GaussianMixtureSampler, NormalSampler
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    images, test = (torch.from_numpy(np.load(job.split / f"{x}.npy")) for x in ("train", "test"))
    x = images.float() / 255
    torch.manual_seed(job.seed)
    given = argparse.Namespace(widths=job.widths, latents=LATENTS, norm="batch")
    network = SigmaVae(given, x.shape[1], list(x.shape[2:]))

    class Encoder(BaseEncoder):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.network = network.encoder
            self.latent_dim = LATENTS

        def forward(self, x: Tensor) -> Any:
            mu, log_var = network.encode(x)
            if scale == 1:
                return ModelOutput(embedding=mu)
            return ModelOutput(embedding=mu, log_covariance=log_var)

    class Decoder(BaseDecoder):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.network = network.decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=network.decode(z))

    shape = tuple(x.shape[1:])
    model = kind(config(input_dim=shape, latent_dim=LATENTS), Encoder(), Decoder())
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        training = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=max(1, round(job.steps * BATCH / len(x))),
            learning_rate=LR,
            per_device_train_batch_size=BATCH,
            no_cuda=True,
            seed=job.seed,
        )
        trainer = BaseTrainer(model, BaseDataset(x, torch.ones(len(x))), training_config=training)
        trainer.train()
    spent = time.process_time() - begun
    model.eval()
    mixture, prior = GaussianMixtureSampler(model), NormalSampler(model)
    mixture.fit(x[:20_000])
    with torch.no_grad():
        decoded = [
            network.decode(network.encode(part.float() / 255)[0]) for part in test.split(200)
        ]
        prior_images = prior.sample(job.samples) if scale == 2 else mixture.sample(job.samples)
        made = {
            "reconstructions": torch.cat(decoded),
            "prior": prior_images,
            "mixture": mixture.sample(job.samples),
        }
    for name, values in made.items():
        np.save(job.out / f"{name}.npy", values.mul(255).round().byte().numpy())
    report = {"steps": job.steps, "seconds": spent, "widths": job.widths, "latents": LATENTS}
    (job.out / "report.json").write_text(json.dumps(report), encoding="utf-8")
