"""Discriminators: their losses by hand, R1 of a linear one in closed form, who pays what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

import vaelab
from tests.conftest import SMALL
from tests.test_conditional import pixels, shades
from vaelab.config import NetworkConfig
from vaelab.data.batches import Batch
from vaelab.data.images import Splits
from vaelab.data.summary import Pixels
from vaelab.errors import ConfigError
from vaelab.models.discriminator import (
    AdversarialLoss,
    Discriminator,
    build_discriminator,
    fool_loss,
    gradient_penalty,
    judge_loss,
)
from vaelab.models.model import seeded
from vaelab.models.vae import Vae
from vaelab.objectives.adversarial import Adversarial, VaeGan, balance
from vaelab.objectives.objective import Loss
from vaelab.objectives.schedules import constant, linear
from vaelab.recipes import Setup, build, resolve
from vaelab.training.progress import Silent
from vaelab.training.run import Run

CPU = torch.device("cpu")
REAL, MADE = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])


def test_losses_of_logits_are_those_of_the_papers() -> None:
    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    minimax = -(math.log(sigmoid(2)) + math.log(sigmoid(-1))) / 2
    minimax -= (math.log(1 - sigmoid(0.5)) + math.log(1 - sigmoid(-3))) / 2
    assert float(judge_loss(REAL, MADE, "minimax")) == pytest.approx(minimax)
    assert float(judge_loss(REAL, MADE, "hinge")) == pytest.approx((0 + 2) / 2 + (1.5 + 0) / 2)
    fooled = -(math.log(sigmoid(0.5)) + math.log(sigmoid(-3))) / 2
    assert float(fool_loss(MADE, "minimax")) == pytest.approx(fooled)
    assert float(fool_loss(MADE, "hinge")) == pytest.approx(1.25)
    far = torch.tensor([500.0])  # no overflow far from the edge
    assert float(judge_loss(-far, far, "minimax")) == pytest.approx(1000)


class Linear(nn.Module):
    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.slope = nn.Parameter(slope)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.slope + 7


def test_the_penalty_of_a_linear_discriminator_is_its_squared_slope() -> None:
    judge = Linear(torch.tensor([3.0, -4.0, 0.0, 12.0]))
    images = torch.rand(5, 1, 2, 2)
    penalty = gradient_penalty(judge, images)
    assert penalty.item() == pytest.approx(169)
    penalty.backward()  # it can be trained through: ∇ ‖a‖² = 2 a
    torch.testing.assert_close(judge.slope.grad, torch.tensor([6.0, -8.0, 0.0, 24.0]))
    assert images.grad is None


def test_the_penalty_is_the_mean_over_images() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * x.square().flatten(1).sum(1)

    at = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    assert gradient_penalty(Square(), at).item() == 7  # ∇ = x


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_features_are_what_the_last_layer_reads(kind: Any) -> None:
    config = NetworkConfig(kind=kind, widths=[4, 8], hidden=[6], normalization="batch")
    torch.manual_seed(0)
    judge = build_discriminator(config, (1, 8, 8), spectral=False)
    last = [m for m in judge.modules() if isinstance(m, nn.Linear)][-1]
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(last(judge.features(x))[:, 0], judge(x))
    kinds = {type(module) for module in judge.modules()}
    assert nn.LeakyReLU in kinds
    assert not kinds & {nn.BatchNorm2d, nn.BatchNorm1d, nn.GroupNorm, nn.LayerNorm, nn.Dropout}


def test_spectral_normalisation_makes_every_layer_of_norm_one() -> None:
    config = NetworkConfig(kind="mlp", hidden=[12, 6])
    for spectral in (False, True):
        torch.manual_seed(0)
        judge = build_discriminator(config, (1, 8, 8), spectral).train()
        with torch.no_grad():
            for _ in range(100):  # power iterations
                judge(torch.rand(2, 1, 8, 8))
        layers = [m for m in judge.modules() if isinstance(m, nn.Linear)]
        norms = [float(torch.linalg.matrix_norm(m.weight.detach(), 2)) for m in layers]
        assert len(norms) == 3
        assert (norms == pytest.approx([1, 1, 1], rel=0.01)) == spectral


class Seen(Discriminator):
    """A discriminator of 8 × 8 images in closed form: f(x) = x R, D(x) = f(x) · v."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        generator = torch.Generator().manual_seed(1)
        self.matrix = nn.Parameter(torch.randn(64, 3, generator=generator))
        self.vector = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x) @ self.vector


def small(recipe: str, **model: Any) -> Vae:
    config = resolve(
        {
            "recipe": recipe,
            "model": {"latent_dim": 2, "encoder": {"kind": "mlp", "hidden": [8]}, **model},
        }
    )
    torch.manual_seed(0)
    setup = Setup(config.model, "none", Pixels(torch.full((1, 8, 8), 0.5)), 10)
    built = build(config, setup)[0]
    assert isinstance(built, Vae)
    return built


def batch() -> Batch:
    x = pixels(shades().train)[:6].float() / 255
    return Batch(x, x, None, None, torch.arange(6))


def losses(objective: VaeGan | Adversarial, model: Vae, step: int = 0) -> dict[str, Loss]:
    found = {}
    for name, player in objective.players(model).items():
        with seeded(4, CPU):
            found[name] = player.loss(batch(), step)
    return found


@pytest.mark.parametrize("kind", ["minimax", "hinge"])
def test_what_each_player_of_a_vae_gan_pays(kind: AdversarialLoss) -> None:
    """D_l = ½ E‖f(x) − f(x̃)‖² + p · distortion; encoder β KL + D_l; decoder D_l + λ fool; judge."""
    judge, model = Seen(), small("vae-gan")
    weight, pixel_weight, beta, r1 = 20.0, 0.25, 0.5, 0.1
    found = losses(VaeGan(judge, kind, weight, pixel_weight, beta, r1), model)
    x = batch().images
    with torch.no_grad(), seeded(4, CPU):
        posterior, _ = model.distributions(batch())
        z = posterior.rsample()
        likelihood = model.decode(z)
        drawn = torch.randn(1, 6, 2)[0]
        made = torch.cat([likelihood.mean, model.decode(drawn).mean])
        kl = 0.5 * (posterior.mean**2 + posterior.variance - 1 - posterior.variance.log()).sum(1)
        near = 0.5 * (judge.features(x) - judge.features(made[:6])).square().sum(1).mean()
        alike = near - pixel_weight * likelihood.log_prob(x).mean()
        said, of = judge(x), judge(made)
        if kind == "hinge":
            fooled = -of.mean()
            judged = (1 - said).clamp(min=0).mean() + (1 + of).clamp(min=0).mean()
        else:
            fooled, judged = softplus(-of).mean(), softplus(-said).mean() + softplus(of).mean()
        slope = (judge.matrix @ judge.vector).square().sum()  # ‖∇D‖² of a linear discriminator
    torch.testing.assert_close(found["encoder"].total.detach(), alike + beta * kl.mean())
    torch.testing.assert_close(found["decoder"].total.detach(), alike + weight * fooled)
    torch.testing.assert_close(
        found["discriminator"].total.detach(), judged + 0.5 * r1 * slope, rtol=1e-5, atol=1e-4
    )
    figures = found["discriminator"].figures
    assert float(figures["real"]) == pytest.approx(float((said > 0).float().mean()))
    assert float(figures["made"]) == pytest.approx(float((of < 0).float().mean()))
    torch.testing.assert_close(found["encoder"].figures["rate"], kl.mean())


def test_the_features_of_real_images_are_a_fixed_goal() -> None:
    """An encoder that moved f itself, or a goal that moved, would make likeness cheap."""
    judge, model = Seen(), small("vae-gan")
    found = losses(VaeGan(judge, "minimax", 0.0, 0.0, 0.0, 0.0), model)
    (mine,) = torch.autograd.grad(found["encoder"].total, [judge.matrix])
    with torch.no_grad(), seeded(4, CPU):
        made = model(batch()).likelihood.mean.flatten(0, 1).flatten(1)
        gap = made @ judge.matrix - batch().images.flatten(1) @ judge.matrix
    torch.testing.assert_close(mine, made.T @ gap / 6)  # with x too it would be (made − x)ᵀ gap


class Codes(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return (z @ torch.tensor([1.0, -2.0]))[:, None] + 0.5


@pytest.mark.parametrize("kind", ["minimax", "hinge"])
def test_what_each_player_of_an_adversarial_autoencoder_pays(kind: AdversarialLoss) -> None:
    model = small("aae", posterior="dirac")
    found = losses(Adversarial(Codes(), kind, 10.0), model)
    with torch.no_grad(), seeded(4, CPU):
        posterior, _ = model.distributions(batch())
        z = posterior.mean
        distortion = -model.decode(z).log_prob(batch().images).mean()
        said, of = Codes()(torch.randn(6, 2))[:, 0], Codes()(z)[:, 0]
    assert found["discriminator"].total == pytest.approx(float(judge_loss(said, of, kind)))
    fooled = float(fool_loss(of, kind))
    assert found["model"].total.item() == pytest.approx(float(distortion) + 10 * fooled, rel=1e-5)
    assert float(found["model"].figures["loss/fool"]) == pytest.approx(10 * fooled, rel=1e-5)


def test_the_losses_of_a_vae_gan_are_larsens_with_the_weights_that_are_stated() -> None:
    """The table of docs/discriminator.md: γ = 2/λ, and generated images of half the weight."""
    judge, model, gamma = Seen(), small("vae-gan"), 0.4
    found = losses(VaeGan(judge, "minimax", 2 / gamma, 0.0, 1.0, 0.0), model)
    x = batch().images
    with torch.no_grad(), seeded(4, CPU):
        posterior, _ = model.distributions(batch())
        rebuilt = model.decode(posterior.rsample()).mean
        drawn = model.decode(torch.randn(1, 6, 2)[0]).mean
        alike = 0.5 * (judge.features(x) - judge.features(rebuilt)).square().sum(1).mean()
        kl = 0.5 * (posterior.mean**2 + posterior.variance - 1 - posterior.variance.log()).sum(1)
        real, near, far = (judge(images).double().sigmoid() for images in (x, rebuilt, drawn))
        decoder = gamma * alike - near.log().mean() - far.log().mean()
        spotted = (-(1 - near).log().mean() - (1 - far).log().mean()) / 2
    assert found["encoder"].total.item() == pytest.approx(float(kl.mean() + alike), rel=1e-5)
    assert gamma * found["decoder"].total.item() == pytest.approx(float(decoder), rel=1e-5)
    assert found["discriminator"].total.item() == pytest.approx(
        float(-real.log().mean() + spotted), rel=1e-4
    )


def test_a_balanced_loss_pulls_as_the_other_does() -> None:
    slopes = torch.tensor([3.0, -4.0]), torch.tensor([0.0, 0.5])
    theta = torch.tensor([1.0, 2.0], requires_grad=True)
    loss, other = (slopes[0] * theta).sum(), (slopes[1] * theta).sum()
    weight = balance(loss, other, theta)
    assert float(weight) == pytest.approx(5 / 0.5)
    assert not weight.requires_grad
    assert float(balance(0 * loss, other, theta)) == 0
    nothing = balance(loss, 0 * other, theta)  # to weigh: no loss either, and a finite one
    assert nothing.isfinite()
    (loss + weight * other).backward()  # the graph is still there
    assert theta.grad is not None


@pytest.mark.parametrize("pixel_weight", [0.0, 1.0])
def test_an_adaptive_weight_makes_the_discriminator_pull_by_a_share_of_the_other_loss(
    pixel_weight: float,
) -> None:
    judge, model = Seen(), small("vae-gan")
    adaptive = VaeGan(judge, "minimax", linear(0.1, 0.5, 4), pixel_weight, 1.0, 0.0)
    found = losses(adaptive, model, step=2)["decoder"]
    last = model.decoder.network.head[-1].weight  # type: ignore[index, union-attr]
    pulls, values = [], []
    for weight in (0.0, 1.0):  # D_l alone, then with −log D(x̃)
        fixed = losses(VaeGan(judge, "minimax", weight, pixel_weight, 1.0, 0.0), model)["decoder"]
        pulls.append(torch.autograd.grad(fixed.total, last)[0])
        values.append(float(fixed.total.detach()))
    share = 0.3  # of the schedule, half way
    expected = share * float(pulls[0].norm() / (pulls[1] - pulls[0]).norm())
    assert float(found.figures["weight"]) == pytest.approx(expected, rel=1e-3)
    total = values[0] + expected * (values[1] - values[0])
    assert float(found.total.detach()) == pytest.approx(total, rel=1e-3)
    (pull,) = torch.autograd.grad(found.total, last)
    torch.testing.assert_close(
        pull, pulls[0] + expected * (pulls[1] - pulls[0]), rtol=1e-3, atol=1e-3
    )


def test_no_gradient_of_the_discriminators_loss_reaches_the_model() -> None:
    judge, model = Seen(), small("vae-gan")
    found = losses(VaeGan(judge, "minimax", constant(1.0), 0.0, 1.0, 0.1), model)["discriminator"]
    reached = torch.autograd.grad(found.total, list(model.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in reached)
    (own,) = torch.autograd.grad(
        losses(VaeGan(judge, "minimax", constant(1.0), 0.0, 1.0, 0.1), model)[
            "discriminator"
        ].total,
        [judge.matrix],
    )
    assert own.abs().sum() > 0


def test_an_adaptive_weight_is_not_for_compiled_networks(spots: Splits) -> None:
    settings: dict[str, Any] = {**SMALL, "epochs": 1, "compile": True}
    with pytest.raises(ConfigError, match=r"training\.compile: .* options\.gan=1000"):
        vaelab.train("vae-gan", spots, **settings)


class Stopped(Exception):
    """A training is stopped."""


class Stopping(Silent):
    """Stops a training in its second epoch."""

    def step(self, step: int, epoch: int, speed: float, figures: Mapping[str, float]) -> None:
        if epoch == 1:
            raise Stopped


def test_a_vae_gan_starts_from_a_vae_with_a_discriminator_of_its_own(
    tmp_path: Path, spots: Splits
) -> None:
    settings: dict[str, Any] = {**SMALL, "epochs": 1, "lr": 3e-3, "beta": 2.0}
    first = vaelab.train("vae", spots, tmp_path / "vae", **settings)
    start = tmp_path / "vae"
    still = vaelab.train("vae-gan", spots, tmp_path / "still", start=start, lr=1e-30)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(still.state_dict()[name], value, atol=1e-6, rtol=0)
    old, new = Run(start).read_config(), Run(tmp_path / "still").read_config()
    assert new.model == old.model
    assert new.options == resolve({"recipe": "vae-gan"}).options
    assert new.training.betas == [0.5, 0.999]  # a discriminator's, not the VAE's
    assert new.training.batch_size == old.training.batch_size
    moved = vaelab.train("vae-gan", spots, tmp_path / "whole", start=start, epochs=2)
    assert Run(tmp_path / "whole").read_config().training.lr == 2e-4
    parts, stop = tmp_path / "parts", Stopping()
    with pytest.raises(Stopped):
        vaelab.train("vae-gan", spots, parts, start=start, epochs=2, progress=stop)
    assert Run(parts).last_epoch()["epoch"] == 1  # type: ignore[index]
    again = vaelab.train(None, spots, parts, resume=True)
    for name, value in moved.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert any(not torch.equal(v, first.state_dict()[n]) for n, v in moved.state_dict().items())
