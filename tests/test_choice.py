"""What samples come from: the prior, or a mixture fitted to latents; never one that copies."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import vaelab
from tests.conftest import SMALL
from vaelab import files
from vaelab.api import choose_samples
from vaelab.cli.main import app
from vaelab.data.images import ImageSet, Splits
from vaelab.errors import RunError
from vaelab.evaluation.choice import choose_sampler, nearer
from vaelab.evaluation.generation import frechet
from vaelab.evaluation.random_features import random_features
from vaelab.evaluation.samplers import find_sampler, fit_normals
from vaelab.explore.pictures import samples
from vaelab.export.hub import export_hub
from vaelab.models.likelihoods import GaussianLikelihood
from vaelab.models.mixture import LatentMixture
from vaelab.models.posteriors import build_posterior
from vaelab.models.priors import build_prior
from vaelab.models.vae import Conditional, Vae
from vaelab.training.run import Run

SIDE = 4
DIMS = SIDE * SIDE


class Pixels(nn.Module):
    """The "posterior" of an image: latents that are its pixels, times ten, with deviation s."""

    def __init__(self, deviation: float, scale: float) -> None:
        super().__init__()
        raw = math.log(math.expm1(deviation - 1e-4)) - math.log(math.expm1(1 - 1e-4))
        self.raw, self.scale = raw, scale

    def forward(self, x: Tensor) -> Tensor:
        mean = self.scale * (x.flatten(1) - 0.5)
        return torch.cat([mean, torch.full_like(mean, self.raw)], 1)


class Drawn(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))
        self.scale = scale

    def forward(self, z: Tensor) -> Tensor:
        return (z / self.scale + 0.5).view(-1, 1, SIDE, SIDE)


def through(scale: float, deviation: float = 0.02) -> Vae:
    """A model whose latents are pixels: image x is z = scale (x − ½)."""
    shape = (1, SIDE, SIDE)
    return Vae(
        Conditional(Pixels(deviation, scale), build_posterior("diagonal", DIMS), 3),
        Conditional(Drawn(scale), GaussianLikelihood(shape, 0.1), 1),
        build_prior("normal", DIMS),
        shape,
        DIMS,
    ).eval()


def split(pixels: Tensor) -> Splits:
    """Three quarters to train on, the others held out."""
    images = ImageSet((255 * pixels.clamp(0, 1)).round().to(torch.uint8))
    count = len(images) * 3 // 4
    held = images.subset(torch.arange(count, len(images)))
    return Splits("made", images.subset(torch.arange(count)), held, held)


def two_kinds(count: int, seed: int = 0) -> Tensor:
    """Dark images and light ones, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    light = torch.randint(2, (count, 1, 1, 1), generator=generator)
    return 0.25 + 0.5 * light + 0.05 * torch.randn(count, 1, SIDE, SIDE, generator=generator)


def test_a_mixture_is_chosen_where_latents_lie_in_two_heaps() -> None:
    model, splits = through(10.0), split(two_kinds(1_200))
    choice = choose_sampler(model, splits)
    assert choice.mixture is not None
    prior, *mixtures = choice.candidates
    assert prior.components == 0
    best = next(each for each in mixtures if each.components == len(choice.mixture.weights))
    assert best.frechet <= 1.03 * min(each.frechet for each in mixtures if not each.copies)
    assert best.frechet < 0.2 * prior.frechet
    one = next(each for each in mixtures if each.components == 1)
    assert best.frechet < 0.7 * one.frechet  # one normal lies between the heaps
    model.mixture = choice.mixture
    torch.manual_seed(0)
    means = model.sample(2_000).mean((1, 2, 3))
    middle = ((means > 0.35) & (means < 0.65)).float().mean()
    assert float(middle) < 0.02
    assert float((means > 0.5).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_the_prior_stays_where_latents_fill_it() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = 0.5 + 0.1 * torch.randn(4_000, 1, SIDE, SIDE, generator=generator)
    choice = choose_sampler(through(10.0), split(pixels))
    assert choice.mixture is None
    assert "hardly better" in choice.reason


def test_a_mixture_that_gives_training_images_back_is_never_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kernels(latents: Tensor, count: int, seed: int) -> tuple[Tensor, ...]:
        size = len(latents)
        roots = 0.01 * torch.eye(DIMS).expand(size, -1, -1)
        return torch.full((size,), 1 / size), latents, roots

    monkeypatch.setattr("vaelab.evaluation.choice.fit_normals", kernels)
    choice = choose_sampler(through(10.0), split(two_kinds(1_200)))
    prior, *others = choice.candidates
    assert all(each.frechet < 0.1 * prior.frechet for each in others)  # it would win by far
    assert all(each.copies and each.nearer_latents > 0.9 for each in others)
    assert choice.mixture is None
    assert "give training images back" in choice.reason


def test_too_few_images_keep_the_prior() -> None:
    for count in (2, 20, 60):
        choice = choose_sampler(through(10.0), split(two_kinds(count)))
        assert choice.mixture is None
        assert "too few" in choice.reason


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_model_that_gives_no_numbers_keeps_the_prior(part: str) -> None:
    splits = split(two_kinds(400))
    model = vaelab.train("vae", splits, **SMALL)
    for parameter in getattr(model, part).parameters():
        parameter.data.fill_(math.nan)
    choice = choose_sampler(model, splits)
    assert choice.mixture is None
    assert ("not finite" in choice.reason) == (part == "encoder")
    assert all(math.isfinite(each.frechet) for each in choice.candidates)


def test_a_mixture_of_ten_is_drawn_as_a_chosen_one_is() -> None:
    model, splits = through(10.0), split(two_kinds(1_200))
    sampler = find_sampler("gmm", model, splits.train)
    torch.manual_seed(0)
    means = sampler.images(2_000).mean((1, 2, 3))
    assert float(((means > 0.35) & (means < 0.65)).float().mean()) < 0.02
    assert float((means > 0.5).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_the_same_seed_chooses_the_same_and_leaves_the_generator_alone() -> None:
    model, splits = through(10.0), split(two_kinds(400))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = choose_sampler(model, splits)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    again = choose_sampler(model, splits)
    assert first.candidates == again.candidates
    assert first.mixture is not None
    assert again.mixture is not None
    assert torch.equal(first.mixture.roots, again.mixture.roots)


def test_draws_follow_weights_means_covariances_and_classes() -> None:
    root = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    mixture = LatentMixture(
        torch.tensor([0.25, 0.75]),
        torch.tensor([[-50.0, 0.0], [50.0, 10.0]]),
        torch.stack([root, torch.eye(2)]),
        torch.tensor([[1.0, 0.0], [0.5, 0.5]]),
    )
    torch.manual_seed(0)
    drawn = mixture.draw(torch.full((20_000,), -1))
    left = drawn[drawn[:, 0] < 0]
    assert len(left) / 20_000 == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(left.mean(0), mixture.means[0], rtol=0, atol=0.1)
    torch.testing.assert_close(left.T.cov(), root @ root.T, rtol=0.06, atol=0.06)
    assert bool((mixture.draw(torch.zeros(500).long())[:, 0] < 0).all())
    second = mixture.draw(torch.ones(4_000).long())[:, 0] < 0
    assert float(second.float().mean()) == pytest.approx(0.5, abs=0.03)
    cold = mixture.draw(torch.zeros(5).long(), temperature=0)
    assert torch.equal(cold, mixture.means[:1].expand(5, -1))


def test_fitted_normals_find_what_made_the_latents() -> None:
    torch.manual_seed(1)
    root = torch.tensor([[1.0, 0.0], [0.8, 0.3]])
    first, second = torch.randn(3_000, 2) @ root.T + 6, 0.5 * torch.randn(1_000, 2)
    weights, means, roots = fit_normals(torch.cat([first, second]), 2, 0)
    order = weights.argsort(descending=True)
    torch.testing.assert_close(weights[order], torch.tensor([0.75, 0.25]), rtol=0, atol=5e-3)
    torch.testing.assert_close(means[order[0]], first.mean(0), rtol=0, atol=1e-2)
    covariance = roots[order[0]] @ roots[order[0]].T
    torch.testing.assert_close(covariance, first.T.cov(correction=0), rtol=0.02, atol=0.01)


def test_the_share_of_nearer_pairs() -> None:
    values = torch.tensor([1.0, 2.0, 3.0])
    assert nearer(values, values) == 0.5
    assert nearer(torch.tensor([0.0, 2.5]), values) == pytest.approx((3 + 1) / 6)
    assert nearer(values + 9, values) == 0
    assert nearer(values - 9, values) == 1


def test_random_features_rank_noise_by_its_strength() -> None:
    torch.manual_seed(0)
    x, y = two_kinds(600, 1).clamp(0, 1), two_kinds(600, 2).clamp(0, 1)
    features = random_features(x)
    assert features(x).shape == (600, 64)
    same = features((255 * x).round().to(torch.uint8))
    torch.testing.assert_close(same, features(x), rtol=0, atol=0.2)
    distances = [
        frechet(features(x), features((y + s * torch.randn_like(y)).clamp(0, 1)))
        for s in (0.0, 0.05, 0.1, 0.2)
    ]
    assert distances == sorted(distances)
    assert distances[0] < 0.4 * distances[1]
    assert distances[1] < 0.4 * distances[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run of images in two heaps, whose latents are pulled to no prior."""
    folder = tmp_path_factory.mktemp("choice")
    np.savez(folder / "images.npz", images=(255 * two_kinds(600).clamp(0, 1)).byte().numpy())
    place = folder / "run"
    vaelab.train(
        "ae", folder / "images.npz", place, latent_dim=2, likelihood="gaussian", epochs=2, seed=1
    )
    return Run(place)


def test_a_run_keeps_what_its_samples_come_from(run: Run, tmp_path: Path) -> None:
    model = vaelab.load(run.path)
    assert model.mixture is not None
    assert "mixture" in model.samples_from
    again = vaelab.load(run.path)
    assert torch.equal(samples(model, 9, seed=2), samples(again, 9, seed=2))
    prior = samples(model, 9, seed=2, sampler="prior")
    assert not torch.equal(samples(model, 9, seed=2), prior)
    model.mixture = None
    assert torch.equal(samples(model, 9, seed=2), prior)
    hub = export_hub(run, tmp_path / "hub")
    assert torch.equal(samples(vaelab.load(hub), 9, seed=2), samples(again, 9, seed=2))


def test_a_sampler_of_other_weights_is_not_used(run: Run) -> None:
    kept = run.sampler_file.read_bytes()
    try:
        tensors, about = files.load_tensors(run.sampler_file)
        files.save_tensors(run.sampler_file, tensors, {**about, "weights": "0" * 64})
        assert not run.sampler_is_known()
        assert run.load_model().mixture is None
        files.save_tensors(run.sampler_file, {**tensors, "means": tensors["means"][:, :1]}, about)
        with pytest.raises(RunError, match="means is not float32 of shape"):
            run.load_model()
        wrong = {**tensors, "weights": 2 * tensors["weights"]}
        files.save_tensors(run.sampler_file, wrong, about)
        with pytest.raises(RunError, match="no shares"):
            run.load_model()
    finally:
        run.sampler_file.write_bytes(kept)


def test_the_command_chooses_where_training_did_not(run: Run, tmp_path: Path) -> None:
    run.sampler_file.unlink()
    out = tmp_path / "made.npz"
    done = CliRunner().invoke(app, ["sample", str(run), "--n", "5", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert run.sampler_is_known()
    with np.load(out) as arrays:
        found = torch.from_numpy(arrays["images"])
    wanted = (255 * samples(run.load_model(), 5)).round().to(torch.uint8)
    assert int((found.int() - wanted.int()).abs().max()) <= 1


def test_classes_draw_from_components_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaelab.evaluation.choice._BETTER", 100)  # whatever the prior is worth
    x = two_kinds(800)
    labels = (x.mean((1, 2, 3)) > 0.5).long()
    images = ImageSet((255 * x.clamp(0, 1)).byte(), labels, class_names=("dark", "light"))
    held = images.subset(torch.arange(600, 800))
    splits = Splits("made", images.subset(torch.arange(600)), held, held)
    model = vaelab.train(
        "cvae", splits, latent_dim=2, likelihood="gaussian", epochs=2, batch_size=32, seed=0
    )
    choose_samples(model, splits)
    assert model.mixture is not None
    every = model.mixture
    assert every.by_class.shape == (2, len(every.weights))
    torch.testing.assert_close(every.by_class.sum(1), torch.ones(2))
    assert float(every.by_class.prod(0).max()) == 0  # no component is of both
    light = samples(model, 50, label="light").mean()
    assert float(light) > float(samples(model, 50, label="dark").mean()) + 0.2
