"""Models that are told labels: the vector, the priors, what can be asked, edits and their price."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.distributions import Independent, MixtureSameFamily, Normal, kl_divergence
from torch.distributions.categorical import Categorical

from tests.conftest import SMALL
from vaelab.api import configure, settings_to_config, train
from vaelab.data.batches import Batch
from vaelab.data.images import ImageSet, Splits
from vaelab.data.summary import Pixels
from vaelab.errors import ConfigError
from vaelab.evaluation.probes import balanced, information_gap, probe, right
from vaelab.explore.directions import find_direction
from vaelab.explore.edits import strips, transferred, walks
from vaelab.models.conditioning import ROWS, Balance, Conditioning, Told, cut_at, drop
from vaelab.models.handles import Direction, Subspace
from vaelab.models.kl import kl_per_dimension
from vaelab.models.posteriors import DiagonalNormal
from vaelab.models.subspaces import SubspacePrior
from vaelab.models.vae import Vae
from vaelab.objectives.critics import LabelCritic
from vaelab.recipes import Setup, build
from vaelab.training.backend import Backend
from vaelab.training.step import Part, Update

NAN = float("nan")


def told() -> Told:
    return Told(
        ("cat", "dog", "owl"),
        ("size", "tame"),
        torch.tensor([0, 1, 2, 1, -1]),
        torch.tensor([[2.0, 0.0], [4.0, 1.0], [6.0, NAN], [8.0, 1.0], [NAN, 0.0]]),
    )


def test_labels_become_a_vector_with_a_place_for_unknown() -> None:
    known = told()
    vectors = Conditioning(known, known.names).encode(known.labels, known.attributes)
    assert vectors.shape == (5, 3 + 2 * 2)
    torch.testing.assert_close(
        vectors[:, :3],
        torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]]),
    )
    size = torch.tensor([-3.0, -1, 1, 3, 0]) / math.sqrt(5)  # mean 5, deviation √5
    torch.testing.assert_close(vectors[:, 3], size)
    assert vectors[:, 5].tolist() == [1, 1, 1, 1, 0]
    assert vectors[:, 6].tolist() == [1, 1, 0, 1, 1]


def test_a_cut_lies_at_the_median_or_between_0_and_1() -> None:
    known = told()
    cut = Conditioning(known, ("size", "tame"), cut=True)
    vectors = cut.encode(known.labels, known.attributes)
    assert vectors[:, 0].tolist() == [-1, -1, 1, 1, 0]
    assert vectors[:, 1].tolist() == [-1, 1, 0, 1, -1]
    assert cut.location.tolist() == [4.0, 0.5]
    assert cut.side("size", torch.tensor([3.0, 5.0, NAN])).tolist()[:2] == [0, 1]


def test_what_is_asked_for_is_what_the_vector_says() -> None:
    known = told()
    conditioning = Conditioning(known, known.names)
    assert len(conditioning.rows) == ROWS
    torch.testing.assert_close(
        conditioning.ask(2, {"label": "dog", "size": 8.0}),
        torch.tensor([[0, 1, 0, 3 / math.sqrt(5), 0, 1, 0]] * 2),
    )
    each = conditioning.ask(3, {"label": torch.tensor([2, 0, 1]), "tame": [0, 1, NAN]})
    assert each[:, :3].argmax(1).tolist() == [2, 0, 1]
    assert each[:, 6].tolist() == [1, 1, 0]
    torch.manual_seed(0)
    drawn = conditioning.ask(500, {"label": 1}, draw=True)  # dogs: sizes 4 and 8, all tame
    assert set(drawn[:, 3].mul(math.sqrt(5)).round().tolist()) == {-1, 3}
    assert drawn[:, 6].min() == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"colour": 1}, "colour"),
        ({"label": "cow"}, "Classes: cat, dog, owl"),
        ({"label": 3}, "no class 3"),
        ({"size": "big"}, "size: give one number"),
        ({"size": [1.0, 2.0]}, "one for each of 3"),
        ({"label": ["cat", "dog"]}, "one for each of 3"),
    ],
)
def test_what_cannot_be_asked_is_said(given: dict[str, Any], words: str) -> None:
    known = told()
    with pytest.raises(ConfigError, match=words):
        Conditioning(known, known.names).ask(3, given)


def test_a_conditional_model_needs_labels() -> None:
    with pytest.raises(ConfigError, match="needs labels"):
        Conditioning(Told(), ())
    with pytest.raises(ConfigError, match="Did you mean size"):
        Conditioning(told(), ("sizes",))


def test_labels_are_withheld_as_often_as_asked() -> None:
    torch.manual_seed(0)
    kept = drop(torch.ones(20_000, 3), 0.25)
    assert kept.mean() == pytest.approx(0.75, abs=0.01)
    assert set(kept.sum(1).tolist()) == {0.0, 3.0}  # all of an image or nothing


def prior() -> SubspacePrior:
    return SubspacePrior(("size", "tame"), 1, 2, (0.0, 3.0), (1.0, 0.5))


def test_a_subspace_has_the_prior_of_its_label() -> None:
    context = torch.tensor([[1.0, -1, 1, 1], [-1, 1, 1, 1]])
    given = prior()(context)
    assert isinstance(given, DiagonalNormal)
    torch.testing.assert_close(given.loc, torch.tensor([[0.0, 3, 3, 0, 0], [0, 0, 0, 3, 3]]))
    torch.testing.assert_close(
        given.scale, torch.tensor([[1, 0.5, 0.5, 1, 1], [1, 1, 1, 0.5, 0.5]])
    )
    assert prior().subspaces["tame"] == Subspace("tame", slice(3, 5), (0.0, 3.0), (1.0, 0.5))


def test_an_unknown_label_gives_half_of_each_prior() -> None:
    given = prior()(torch.tensor([[1.0, 0, 1, 0]]))  # the second attribute is unknown
    value = torch.tensor([[0.3, 2.0, 3.5, 1.0, 2.0]])
    sides = MixtureSameFamily(
        Categorical(torch.tensor([0.5, 0.5])),
        Independent(
            Normal(torch.tensor([[0.0, 0], [3, 3]]), torch.tensor([[1.0, 1], [0.5, 0.5]])), 1
        ),
    )
    expected = (
        Normal(0, 1).log_prob(value[:, 0])
        + Normal(3, 0.5).log_prob(value[:, 1:3]).sum(1)
        + sides.log_prob(value[:, 3:])
    )
    torch.testing.assert_close(given.log_prob(value), expected)
    torch.manual_seed(0)
    drawn = given.sample((40_000,))[:, 0]
    torch.testing.assert_close(drawn.mean(0), given.mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.var(0), given.variance[0], atol=0.06, rtol=0)
    assert drawn[:, 3].mean() == pytest.approx(1.5, abs=0.03)


def test_the_rate_against_any_diagonal_prior() -> None:
    torch.manual_seed(0)
    q = DiagonalNormal(torch.randn(4, 3), torch.rand(4, 3) + 0.1)
    p = DiagonalNormal(torch.randn(4, 3), torch.rand(4, 3) + 0.1)
    parts = kl_per_dimension(q, p)
    assert parts is not None
    torch.testing.assert_close(parts, kl_divergence(Normal(q.loc, q.scale), Normal(p.loc, p.scale)))


def test_a_critic_costs_what_the_equations_say() -> None:
    conditioning = Conditioning(told(), told().names, cut=True)
    critic = LabelCritic(
        2, conditioning, Balance(Told(attribute_names=told().attribute_names), conditioning)
    )
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0, -1.0]])
    critic.net = torch.nn.Sequential(_Constant(logits))
    context = torch.tensor([[0.0, 1, 0, 1, -1, 1, 0]])  # a dog, large; tame is unknown
    log = torch.log_softmax(logits[0, :3], 0)
    expected = -log[1] - torch.log(torch.sigmoid(torch.tensor(2.0)))
    torch.testing.assert_close(critic.cost(torch.zeros(1, 4), context, None)[0], expected)
    on = torch.sigmoid(logits[0, 3:])
    sided = (on * on.log() + (1 - on) * (1 - on).log())[0]  # the other attribute is unknown
    entropy = (log.exp() * log).sum() + sided
    found = critic.negative_entropy(torch.zeros(1, 4), context, None)[0]
    torch.testing.assert_close(found, entropy)


def test_weights_make_an_attribute_independent_of_the_class() -> None:
    labels = torch.tensor([0] * 10 + [1] * 10)
    sides = torch.tensor([1.0] * 8 + [0.0] * 2 + [1.0] * 3 + [0.0] * 7)[:, None]
    known = Told(("a", "b"), ("big",), labels, sides)
    conditioning = Conditioning(known, ("big",), cut=True)
    values, _ = conditioning.attribute_parts(conditioning.encode(labels, sides))
    weights = Balance(known, conditioning)(labels, values)[:, 0]
    for k in (0, 1):
        on = weights[(labels == k) & (sides[:, 0] > 0)].sum()
        off = weights[(labels == k) & (sides[:, 0] == 0)].sum()
        assert on == pytest.approx(5)
        assert off == pytest.approx(5)


class _Constant(torch.nn.Module):
    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value.expand(len(x), -1)


def shades(n: int = 240) -> Splits:
    """Images of 8 × 8: the right half tells the class (0.2 or 0.8), the left half an attribute."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(n) % 2
    left = (torch.arange(n) // 2) % 2
    x = torch.full((n, 1, 8, 8), 0.2)
    x[:, :, :, 4:] += 0.6 * label[:, None, None, None]
    x[:, :, :, :4] += 0.6 * left[:, None, None, None]
    x += 0.05 * torch.randn(n, 1, 8, 8, generator=generator)
    images = (x.clamp(0, 1) * 255).round().to(torch.uint8)
    whole = ImageSet(images, label, left[:, None].float(), ("dark", "bright"), ("left",))
    first, second, third = (torch.arange(n).split(n // 4)[i] for i in (0, 1, 2))
    train = torch.cat([first, second])
    return Splits("shades", whole.subset(train), whole.subset(third), whole.subset(third + n // 4))


QUICK: dict[str, Any] = {
    "latent_dim": 1, "encoder": {"kind": "mlp", "hidden": [32], "activation": "tanh"},
    "epochs": 60, "batch_size": 32,
    "optimizer": "adam", "lr": 0.01, "likelihood": "gaussian", "sigma": 0.1, "device": "cpu",
    "precision": "fp32", "standardize": False,
}  # fmt: skip


def pixels(images: ImageSet) -> torch.Tensor:
    return images.take(torch.arange(len(images)))


@pytest.fixture(scope="module")
def conditional() -> Vae:
    return train("cvae", shades(), **QUICK, dropout=0.0)


@pytest.fixture(scope="module")
def structured() -> Vae:
    # At a rate of 0.01 one run in four or so is stuck: its edits reach grey.
    return train("csvae", shades(), **{**QUICK, "epochs": 200, "lr": 0.003})


def test_a_conditional_model_makes_what_is_asked_for(conditional: Vae) -> None:
    torch.manual_seed(0)
    dark, bright = (conditional.sample(64, label=name) for name in ("dark", "bright"))
    assert dark[..., 4:].mean() == pytest.approx(0.2, abs=0.05)
    assert bright[..., 4:].mean() == pytest.approx(0.8, abs=0.05)
    lit = conditional.sample(64, label="dark", left=1)
    assert lit[..., 4:].mean() == pytest.approx(0.2, abs=0.05)
    assert lit[..., :4].mean() == pytest.approx(0.8, abs=0.05)
    mixed = conditional.sample(400)[..., 4:].mean((1, 2, 3)) > 0.5
    assert mixed.float().mean() == pytest.approx(0.5, abs=0.1)  # as in the training images


def test_labels_that_are_given_raise_the_elbo(conditional: Vae) -> None:
    test = shades().test
    assert test.labels is not None
    assert test.attributes is not None
    x, left = pixels(test), test.attributes[:, 0]
    true_ = conditional.elbo(x, 20, label=test.labels, left=left)
    wrong = conditional.elbo(x, 20, label=1 - test.labels, left=left)
    assert true_.mean() > wrong.mean() + 200  # 32 pixels off by 6 deviations cost 576 nats


def test_labels_that_nobody_says_are_read_from_the_image(conditional: Vae) -> None:
    test = shades().test
    x = pixels(test)
    said = conditional.labels(x)
    assert test.labels is not None
    assert test.attributes is not None
    assert (said["label"] == test.labels).float().mean() > 0.95
    torch.testing.assert_close(said["left"], test.attributes[:, 0], atol=0.3, rtol=0)
    told = conditional.encode(x, label=test.labels, left=test.attributes[:, 0])
    partly = conditional.encode(x, left=test.attributes[:, 0])
    torch.testing.assert_close(partly, told)
    assert (conditional.reconstruct(x) - x.float() / 255).square().mean().sqrt() < 0.1
    with pytest.raises(ConfigError, match="label: this model must be told it"):
        conditional.generate(torch.zeros(1, 1))
    assert conditional.ordinary() == {"label": "dark", "left": pytest.approx(0, abs=1)}


def test_guidance_extrapolates_from_the_unknown(conditional: Vae) -> None:
    with pytest.raises(ConfigError, match="also trained without labels"):
        conditional.sample(1, guidance=2)
    conditional = train("cvae", shades(), **{**QUICK, "epochs": 1}, dropout=0.1)
    z = torch.zeros(1, 1)
    context = conditional.told_of(1, {"label": "bright"})
    with torch.no_grad():
        raw = [conditional.decoder.network(z, c) for c in (torch.zeros_like(context), context)]
        family = conditional.decoder.family
        expected = family(raw[0] + 3 * (raw[1] - raw[0])).mean
        torch.testing.assert_close(conditional.guided(z, context, 3.0).mean, expected)
        same = conditional.guided(z, context, 1.0).mean
        torch.testing.assert_close(same, conditional.decode(z, context).mean)
        unknown = conditional.guided(z, context, 0.0).mean
        torch.testing.assert_close(unknown, conditional.decode(z).mean)


def test_a_conditional_model_edits_what_it_is_told(conditional: Vae) -> None:
    test = shades().test
    assert test.labels is not None
    edited = conditional.edit(pixels(test), "left", 1.0, label=test.labels)
    assert edited[..., :4].mean() == pytest.approx(0.8, abs=0.05)
    moved = edited[..., 4:].mean((1, 2, 3)) > 0.5
    assert (moved == (test.labels == 1)).float().mean() > 0.95


def test_a_subspace_holds_its_attribute_and_nothing_else(structured: Vae) -> None:
    test = shades().test
    space = structured.subspace("left")
    assert space.dims == slice(1, 3)
    assert structured.plain_dims == 1
    codes = structured.encode(pixels(test))
    assert codes.shape[1] == 3
    edited = structured.edit(pixels(test), "left", torch.arange(len(test)) % 2)
    bright = edited[..., :4].mean((1, 2, 3))
    assert bright[1::2].min() > 0.6 > 0.4 > bright[::2].max()
    assert test.labels is not None
    assert ((edited[..., 4:].mean((1, 2, 3)) > 0.5) == (test.labels == 1)).float().mean() > 0.95
    still = structured.edit(pixels(test), "left", strength=0.0)
    torch.testing.assert_close(still, structured.reconstruct(pixels(test)))
    pair = pixels(test)[:2]
    swapped = transferred(structured, pair[:1], pair[1:], "left")
    mixed = codes[1:2].clone()
    mixed[:, space.dims] = codes[:1, space.dims]
    told = structured.generate(mixed, label=structured.labels(pair[1:])["label"])
    torch.testing.assert_close(swapped, told)
    assert strips(structured, pair, "left").shape == (2, 3, 1, 8, 8)
    assert walks(structured, pair, "left").shape == (2, 6, 1, 8, 8)


def test_a_model_says_what_it_cannot_edit(structured: Vae) -> None:
    plain = train("vae", shades(), **{**QUICK, "epochs": 1})
    with pytest.raises(ConfigError, match="trained without labels"):
        plain.edit(pixels(shades().test), "left")
    with pytest.raises(ConfigError, match="knows no labels"):
        plain.sample(4, label=1)
    with pytest.raises(ConfigError, match="no subspace"):
        structured.subspace("size")


def test_a_direction_moves_along_the_difference_of_means() -> None:
    codes = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    handle = Direction("left", torch.tensor([1.0, 0.0]), (-2.0, 2.0), "")
    moved = handle.move(codes, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(moved, torch.tensor([[2.0, 1.0], [-2.0, -1.0]]))
    half = handle.move(codes, torch.tensor([1.0, 0.5]), 0.5)
    torch.testing.assert_close(half, torch.tensor([[1.0, 1.0], [0.0, -1.0]]))


@pytest.mark.parametrize("how", ["difference", "logistic"])
def test_directions_of_a_plain_model_edit_it(how: Any) -> None:
    splits = shades()
    plain = train("vae", splits, **{**QUICK, "latent_dim": 3})
    handle = find_direction(plain, splits.train, "left", how)
    assert handle.vector.norm() == pytest.approx(1)
    assert handle.means[1] > handle.means[0]
    low, high = (plain.edit(pixels(splits.test), "left", to, handle=handle) for to in (0.0, 1.0))
    assert (high - low)[..., :4].mean() == pytest.approx(0.6, abs=0.15)
    assert abs((high - low)[..., 4:].mean()) < 0.2


def test_players_move_no_parameter_of_another() -> None:
    for name in ("csvae", "cvae-info", "vae-gan", "aae"):
        splits = shades()
        config = configure({**settings_to_config(SMALL), "recipe": name})
        torch.manual_seed(0)
        setup = Setup(
            config.model, "none", Pixels(torch.full((1, 8, 8), 0.5)), 10, Told.by(splits.train)
        )
        model, objective = build(config, setup)
        players = objective.players(model)
        assert len(players) > 1
        everything = dict(model.named_parameters(prefix="model"))
        everything |= dict(objective.named_parameters(prefix="objective"))
        rows = torch.arange(16)
        x = splits.train.take(rows).float() / 255
        assert splits.train.labels is not None
        assert splits.train.attributes is not None
        batch = Batch(x, x, splits.train.labels[rows], splits.train.attributes[rows], rows)
        for number, player in enumerate(players.values()):
            update = Update(
                player, number, config.training, 10, Backend(config.training, None), model
            )
            before = {key: value.detach().clone() for key, value in everything.items()}
            update([Part(batch, 1.0, (0, 16, 16))], 3, "none")  # all move
            moved = {k for k, v in everything.items() if not torch.equal(v, before[k])}
            assert moved == set(player.parameters), f"{name}: {player.name}"


def test_probes_read_what_is_there_and_only_that() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 3, generator=generator)
    cases = {
        "plain": (z[:, 0] > 0, 0.97, 0.97),
        "crossed": (z[:, 0] * z[:, 1] > 0, 0.5, 0.93),  # no plane divides it
        "absent": (torch.rand(4000, generator=generator) > 0.5, 0.5, 0.5),
    }
    for name, (on, linear, mlp) in cases.items():
        for kind, expected in (("linear", linear), ("mlp", mlp)):
            judge = probe(z[:3000], on[:3000], "mlp" if kind == "mlp" else "linear")
            read = float(right(judge, z[3000:], on[3000:]).mean())
            assert abs(read - expected) < 0.06 or read > expected > 0.9, f"{name} {kind}: {read}"
    rows = balanced(z[:, 0] > 1)
    assert (z[rows, 0] > 1).double().mean() == 0.5


def test_the_information_gap_is_1_for_one_dimension_and_0_for_two_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    on = torch.rand(5000, generator=generator) > 0.5
    noise = torch.randn(5000, 1, generator=generator)
    side = on[:, None] * 6.0 + 0.1 * noise
    other = torch.randn(5000, 1, generator=generator)
    assert information_gap(torch.cat([side, other], 1), on, []) == pytest.approx(1, abs=0.04)
    assert information_gap(torch.cat([side, side], 1), on, []) == pytest.approx(0, abs=0.01)
    grouped = information_gap(torch.cat([other, side, side], 1), on, [slice(1, 3)])
    assert grouped == pytest.approx(1, abs=0.04)
    assert information_gap(torch.cat([other, noise], 1), on, []) == pytest.approx(0, abs=0.01)


def test_the_cut_of_a_set() -> None:
    assert cut_at(shades().train, "left") == 0.5


def test_an_attribute_that_most_images_have_can_be_changed() -> None:
    """Its median is 1, the greatest value: no image lies above it."""
    sides = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    conditioning = Conditioning(Told((), ("tame",), torch.full((4,), -1), sides), ("tame",))
    context = conditioning.encode(torch.full((4,), -1), sides)
    for to in (0.0, 1.0):
        changed = conditioning.change(context, "tame", torch.full((4,), to))
        torch.testing.assert_close(conditioning.say(changed)["tame"], torch.full((4,), to))
