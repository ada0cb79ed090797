"""The CSVAE's objective: what an edit costs, whom it moves, and when."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from tests.conftest import blobs
from tests.test_conditional import pixels, shades
from vaelab import train
from vaelab.config import TrainingConfig
from vaelab.data.batches import Batch
from vaelab.data.images import ImageSet, Splits
from vaelab.data.load import load_data
from vaelab.data.summary import Pixels
from vaelab.errors import ConfigError
from vaelab.models import noise
from vaelab.models.conditioning import Told
from vaelab.models.model import seeded
from vaelab.models.transport import Carried
from vaelab.models.vae import Vae
from vaelab.objectives.objective import Loss, Player
from vaelab.objectives.read import Read
from vaelab.objectives.subspaced import Subspaced, posteriors
from vaelab.recipes import Setup, build, resolve
from vaelab.training.backend import Backend
from vaelab.training.step import Part, Update

SMALL = {"latent_dim": 3, "encoder": {"kind": "mlp", "hidden": [16]}}


def built(edits: float, settle: float = 0.25) -> tuple[Vae, Subspaced]:
    train = shades().train
    options = {"edits": edits, "settle": settle}
    config = resolve({"recipe": "csvae", "model": SMALL, "options": options})
    torch.manual_seed(0)
    mean = Pixels(torch.full((1, 8, 8), 0.5))
    setup = Setup(config.model, "none", mean, 100, Told.by(train), images=lambda: train)
    model, objective = build(config, setup)
    assert isinstance(model, Vae)
    assert isinstance(objective, Subspaced)
    return model.eval(), objective


def batch() -> Batch:
    images, rows = shades().train, torch.arange(16)
    x = pixels(images)[:16].float() / 255
    assert images.labels is not None
    assert images.attributes is not None
    return Batch(x, x, images.labels[rows], images.attributes[rows], rows)


def figures(objective: Subspaced, model: Vae, step: int) -> dict[str, Tensor]:
    with seeded(0, torch.device("cpu")):
        return objective.forward(model, batch(), step).figures


def test_an_edit_costs_what_the_labeler_reads_otherwise_than_asked() -> None:
    """5 · [−log q(class) − Σ log q(sides)] of the decoded mean, w at the mean of the other side."""
    model, objective = built(5.0)
    found = figures(objective, model, 60)
    assert model.labeler is not None
    assert model.conditioning is not None
    with torch.no_grad():
        known = batch()
        context = model.conditioning(known)
        with seeded(0, torch.device("cpu")):
            codes = model(known).latents["z"].value[0]
        sides = context[:, model.classes : model.classes + len(model.subspaces)] > 0
        for row in range(16):
            attribute = row % len(model.subspaces)
            sides[row, attribute] = ~sides[row, attribute]
            space = list(model.subspaces.values())[attribute]
            codes[row, space.dims] = 3.0 * sides[row, attribute]
        raw = model.labeler(model.decode(codes, context).mean)
        assert known.labels is not None
        cost = cross_entropy(raw[:, : model.classes], known.labels)
        read = binary_cross_entropy_with_logits(
            raw[:, model.classes :], sides.float(), reduction="none"
        )
        cost = cost + read.sum(1).mean()
    torch.testing.assert_close(found["loss/read"], 5 * cost)
    plain = figures(built(0.0)[1], model, 60)
    assert "loss/read" not in plain
    torch.testing.assert_close(found["loss"], plain["loss"] + 5 * cost)


def test_edits_count_once_the_labeler_had_time_to_learn() -> None:
    model, objective = built(5.0)  # 100 steps, the model moves in 75
    assert "loss/read" not in figures(objective, model, 37)
    assert "loss/read" in figures(objective, model, 38)


def test_edits_move_the_decoder_alone() -> None:
    model, objective = built(1.0)
    trace, _ = objective.traced(model, batch(), 60)
    model.zero_grad()
    objective.misread(model, trace).backward()
    own = objective.players(model)["model"].parameters
    moved = {n for n, p in own.items() if p.grad is not None and bool(p.grad.any())}
    assert moved
    assert all(name.startswith("model.decoder.") for name in moved)


def test_who_moves_when() -> None:
    """The model in its share, then never; the transport's rate goes through its schedule twice."""
    model, objective = built(0.0)
    config = TrainingConfig(lr=1.0, schedule="cosine", lr_warmup=0.0)
    backend = Backend(config, None)

    def rates(player: Player) -> list[float]:
        update = Update(player, 0, config, 100, backend, model)
        return [update.lr(step) for step in (0, 74, 75, 99)]

    players = objective.players(model)
    assert rates(players["model"]) == pytest.approx([1, 0, 0, 0], abs=1e-9)
    assert rates(players["transport"]) == pytest.approx([1, 0, 1, 0], abs=1e-9)
    assert rates(players["labeler"]) == [1, 0, 0, 0]  # it has learnt when edits count


def test_the_flow_is_fine_tuned_on_latents_of_all_images() -> None:
    """The mean of −log p(h|y) over 8 × 16 of them, with 0.1 of their noise, or all of it in one of
    four; no step encodes.
    """
    model, objective = built(0.0)
    player = objective.players(model)["transport"]
    device = torch.device("cpu")
    loc, scale, u = posteriors(model, shades().train)
    assert loc.shape == (len(shades().train), 5)  # z and w
    posterior, _ = model.distributions(batch())
    assert isinstance(posterior, Carried)
    torch.testing.assert_close(posterior.base.loc, loc[:16])
    with seeded(3, device):
        found = player.loss(batch(), 75).total
    with seeded(3, device):
        rows = (torch.rand(16, 8).double() * len(loc)).long().flatten()
        drawn = torch.randn(128, 5)
    assert model.transport is not None
    grain = torch.tensor([1.0, 0.1, 0.1, 0.1]).repeat(32)[:, None]
    h = (loc[rows] + grain * scale[rows] * drawn)[:, :3]
    z, log_det = model.transport(h, u[rows])
    expected = 0.5 * z.square().sum(1) + 1.5 * math.log(2 * math.pi) - log_det
    torch.testing.assert_close(found, expected.mean())
    model.encoder.zero_grad()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.fill_(torch.nan)
    with seeded(3, device):
        torch.testing.assert_close(player.loss(batch(), 75).total, found)
    assert player.loss(batch(), 74).total.isnan()  # before, it follows the encoder


def test_two_processes_fine_tune_as_one() -> None:
    """The rows of the whole batch, halved: the mean of both losses is that of one process."""
    model, objective = built(0.0)
    loss, device = objective.players(model)["transport"].loss, torch.device("cpu")
    half = Batch(*(x[:8] for x in vars(batch()).values() if x is not None))
    with seeded(3, device):
        whole = loss(batch(), 80).total
    parts = []
    for start in (0, 8):
        with seeded(3, device), noise.sharded(start, start + 8, 16):
            parts.append(loss(half, 80).total)
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_a_player_that_rests_moves_no_running_statistics() -> None:
    layer = torch.nn.BatchNorm1d(1)
    weight = next(iter(layer.parameters()))

    def loss(batch: Batch, step: int) -> Loss:
        total = (weight * layer(batch.images.flatten(1)[:, :1])).mean()
        return Loss(total, {"loss": total.detach()})

    player = Player("model", {"weight": weight}, loss, active=0.5)
    backend = Backend(TrainingConfig(), None)
    update = Update(player, 0, TrainingConfig(), 10, backend, layer)
    assert layer.running_mean is not None
    update([Part(batch(), 1.0, (0, 16, 16))], 0, "none")
    moved = layer.running_mean.clone()
    assert float(moved) != 0
    update([Part(batch(), 1.0, (0, 16, 16))], 5, "none")
    torch.testing.assert_close(layer.running_mean, moved)


def cvae(network: dict[str, Any], **options: float) -> tuple[Vae, Read]:
    """Return a model of 8 × 8 pixels that is conditioned on the class, and its objective."""
    values = {"recipe": "cvae", "model": network, "options": {"given": ["label"], **options}}
    config, told = resolve(values), Told.by(shades().train)
    torch.manual_seed(0)
    setup = Setup(config.model, "none", Pixels(torch.full((1, 8, 8), 0.5)), 100, told)
    model, objective = build(config, setup)
    assert isinstance(model, Vae)
    assert isinstance(objective, Read)
    return model, objective


def test_samples_of_a_conditional_model_are_read_as_what_was_asked() -> None:
    """5 · [−log q(class)] of the mean of p(x|z, y), z ~ N(0, I), once the labeler has learnt."""
    model, objective = cvae(SMALL, asked=5.0)
    model.eval()
    with seeded(0, torch.device("cpu")):
        assert "loss/read" not in objective.forward(model, batch(), 49).figures
    with seeded(0, torch.device("cpu")):
        found = objective.forward(model, batch(), 50).figures
    with seeded(0, torch.device("cpu")), torch.no_grad():
        context = model(batch()).context
        z = noise.normal((16, 3), batch_dim=0, device=context.device)
        assert model.labeler is not None
        logits = model.labeler(model.decode(z, context).mean)
        labels = batch().labels
        assert labels is not None
        torch.testing.assert_close(found["loss/read"], 5 * cross_entropy(logits, labels))
    with seeded(0, torch.device("cpu")):
        trace, _ = objective.traced(model, batch(), 60)
        model.zero_grad()
        objective.misread(model, trace).backward()
    own = objective.players(model)["model"].parameters
    moved = {n for n, p in own.items() if p.grad is not None and bool(p.grad.any())}
    assert moved
    assert all(name.startswith("model.decoder.") for name in moved)


def test_what_is_read_is_decoded_with_the_running_statistics() -> None:
    """As users will see it; so it moves no statistics, and the pass after it is what it was."""
    network = {**SMALL, "encoder": {"kind": "mlp", "hidden": [16], "normalization": "batch"}}
    model, objective = cvae(network)
    model.train()
    model.decode(torch.randn(16, 3), model.context(batch()))  # so that they are no longer 0 and 1
    before = {name: value.clone() for name, value in model.decoder.named_buffers()}
    assert any("running" in name for name in before)
    trace = model(batch())
    after = {name: value.clone() for name, value in model.decoder.named_buffers()}
    assert any(not torch.equal(before[name], after[name]) for name in before)
    with seeded(0, torch.device("cpu")):
        found = objective.misread(model, trace)
    for name, value in model.decoder.named_buffers():
        torch.testing.assert_close(value, after[name])
    assert model.decoder.training
    assert model.labeler is not None
    with seeded(0, torch.device("cpu")), torch.no_grad():
        codes, context = objective.asked(model, trace)
        model.decoder.eval()
        images = model.decode(codes, context).mean
        torch.testing.assert_close(found, model.labeler.cost(images, context))


def test_a_csvae_needs_attributes(tmp_path: Path) -> None:
    splits = load_data((blobs(20), np.arange(20) % 2))
    with pytest.raises(ConfigError, match="these images have none"):
        train("csvae", splits, out=tmp_path / "run", epochs=1)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_draws_of_thin_data_stay_where_the_flow_was_fitted() -> None:
    """Means on a curve, wide posteriors: fitted to the means alone, draws were sent 4,000 away."""
    turn = torch.linspace(0, 3 * math.pi, 900)
    shuffled = torch.randperm(900, generator=torch.Generator().manual_seed(0))
    curve = torch.stack([0.5 + 0.15 * turn.sin(), turn / 12 + 0.1, 0.5 + 0.15 * turn.cos()], 1)
    pixels = (255 * curve[shuffled, :, None, None]).round().to(torch.uint8)
    late = (turn > turn.median()).float()[shuffled, None]
    images = ImageSet(pixels, attributes=late, attribute_names=("late",))
    train_, test = images.subset(torch.arange(700)), images.subset(torch.arange(700, 900))
    model = train(
        "csvae",
        Splits("curve", train_, test, test),
        latent_dim=2,
        encoder={"kind": "mlp", "hidden": [32, 32], "activation": "silu"},
        likelihood="gaussian-scalar",
        epochs=60,
        batch_size=64,
        lr=0.003,
        schedule="one-cycle",
        device="cpu",
    )
    x = test.take(torch.arange(200))
    assert test.attributes is not None
    drawn = model.elbo(x, 50, late=test.attributes[:, 0])
    assert float(drawn.min()) > -30
    assert float(drawn.mean()) > -2
