"""Distances between sets of images, samplers and neighbours, against known answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from tests.conftest import SMALL
from vaelab import api
from vaelab.data.images import ImageSet, Splits
from vaelab.errors import ConfigError, DataError
from vaelab.evaluation.features import Features, find_features
from vaelab.evaluation.generate import WEAK, generation_figures, generation_notes
from vaelab.evaluation.generation import detail, frechet, kernel_distance, nearest, neighbourhoods
from vaelab.evaluation.neighbours import neighbour_figures, vote
from vaelab.evaluation.samplers import Sampler, find_sampler
from vaelab.models.vae import Vae


def with_moments(n: int, mean: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """Points whose sample mean and covariance are exactly these."""
    x = torch.randn(n, len(mean), dtype=torch.double)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    points: torch.Tensor = white @ torch.linalg.cholesky(covariance).T + mean
    return points


def test_frechet_distance_of_normals_has_its_closed_form() -> None:
    torch.manual_seed(0)
    a = torch.tensor([[2.0, 0.3], [0.3, 0.5]]).double()
    b = torch.tensor([[1.0, -0.4], [-0.4, 3.0]]).double()
    shift = torch.tensor([3.0, -1.0]).double()
    x, y = with_moments(500, torch.zeros(2).double(), a), with_moments(400, shift, b)
    # of 2×2 matrices: tr (AB)^½ = √(tr AB + 2 √det AB)
    root = math.sqrt(float((a @ b).trace()) + 2 * math.sqrt(float((a @ b).det())))
    expected = 10 + float(a.trace() + b.trace()) - 2 * root
    assert frechet(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet(y, x) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_few_images_is_finite() -> None:
    torch.manual_seed(0)
    x = torch.randn(10, 64)  # singular covariance
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet(x, x + 2) == pytest.approx(4 * 64, rel=1e-6)


def test_kernel_distance_is_its_definition_and_unbiased() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(7, 3).double(), torch.randn(5, 3).double()

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within_x = [k(x[i], x[j]) for i in range(7) for j in range(7) if i != j]
    within_y = [k(y[i], y[j]) for i in range(5) for j in range(5) if i != j]
    between = [k(a, b) for a in x for b in y]
    expected = sum(within_x) / 42 + sum(within_y) / 20 - 2 * sum(between) / 35
    assert kernel_distance(x, y) == pytest.approx(expected)
    draws = [kernel_distance(torch.randn(40, 4), torch.randn(40, 4)) for _ in range(400)]
    error = float(np.std(draws)) / 20
    assert abs(float(np.mean(draws))) < 4 * error
    assert min(draws) < 0


@pytest.mark.filterwarnings("ignore:Metric")
@pytest.mark.parametrize("metric", ["frechet", "kernel"])
def test_distances_agree_with_torchmetrics(metric: str) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(300, 3, 6, 6), torch.rand(300, 3, 6, 6) ** 1.3

    class Flat(torch.nn.Module):
        num_features = 108

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1).double()

    if metric == "frechet":
        oracle: Any = FrechetInceptionDistance(
            feature=Flat(), normalize=True, input_img_size=(3, 6, 6)
        ).set_dtype(torch.double)
        found = frechet(x.flatten(1), y.flatten(1))
    else:
        oracle = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=300, normalize=True)
        found = kernel_distance(x.flatten(1), y.flatten(1))
    oracle.update(x, real=True)
    oracle.update(y, real=False)
    value = oracle.compute()
    expected = float(value[0] if isinstance(value, tuple) else value)
    assert found == pytest.approx(expected, rel=1e-4)


def test_neighbourhoods_of_constructed_sets() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(60, 3), torch.randn(60, 3) + 100
    both = torch.cat([one, other])
    same = neighbourhoods(both, both, 5)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(6 / 5)  # its own ball, and those of five on average
    far = neighbourhoods(one, other, 5)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    half = neighbourhoods(both, one, 5)  # one of two modes: sharp, but not all
    assert (half.precision, half.recall, half.coverage) == (1, 0.5, 0.5)
    wide = neighbourhoods(one, both, 5)  # all, and as much again that is wrong
    assert (wide.precision, wide.recall, wide.coverage) == (0.5, 1, 1)
    with pytest.raises(ValueError, match="neighbours"):
        neighbourhoods(one[:5], other, 5)


def test_density_expects_one() -> None:
    torch.manual_seed(0)
    found = neighbourhoods(torch.randn(2000, 4), torch.randn(2000, 4), 5)
    assert found.density == pytest.approx(1, abs=0.05)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.02)  # Naeem et al., lemma 2: n → ∞


def test_nearest_by_hand() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert nearest(points, torch.tensor([[0.0, 1.0], [3.0, 2.0]])).tolist() == [1, 2]


@pytest.fixture(scope="module")
def model(spots: Splits) -> Vae:
    return api.train(data=spots, **{**SMALL, "epochs": 8})


@pytest.fixture(scope="module")
def points(spots: Splits) -> Vae:
    return api.train("ae", data=spots, **{**SMALL, "epochs": 8})


PIXELS = Features("pixels", lambda images: torch.as_tensor(images).float().flatten(1))


def test_generation_figures_tell_a_model_from_noise(model: Vae, spots: Splits) -> None:
    both = ImageSet(
        torch.cat([spots.train.take(torch.arange(60)), spots.test.take(torch.arange(6))])
    )
    scaled = Features("pixels", lambda images: _unit(images).flatten(1))

    def figures(sampler: str, seed: int = 0) -> dict[str, Any]:
        drawn = find_sampler(sampler, model, spots.train)
        return generation_figures(both, scaled, drawn, known=spots.train, seed=seed, sets=2)

    found = figures("pool")
    assert found["frechet"].n == 66
    assert found["frechet"].standard_error is not None
    assert found == figures("pool")
    assert found["frechet"] != figures("pool", seed=1)["frechet"]
    assert found["frechet_floor"].value < found["frechet"].value
    error = found["frechet"].standard_error
    assert found["frechet"].interval == pytest.approx(12.706 * error, rel=1e-3)  # t of 1 degree

    class Noise:
        device = torch.device("cpu")

        def decoded(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            return torch.rand(len(z), 1, 12, 10)

    noise: Any = Noise()
    sampler = Sampler("noise", noise, lambda n: (torch.zeros(n, 1), torch.zeros(n, 0)))
    worse = generation_figures(both, scaled, sampler, sets=2)
    assert worse["frechet"].value > 5 * found["frechet"].value
    assert worse["coverage"].value == 0
    assert worse["sharpness"].value > 2 > found["sharpness"].value


def test_detail_is_the_energy_of_the_laplacian() -> None:
    point = torch.zeros(1, 1, 5, 5)
    point[0, 0, 2, 2] = 1  # 4 there, −1 at each of four neighbours
    assert detail(point).tolist() == pytest.approx([20 / 25])
    assert detail(2 * point).tolist() == pytest.approx([80 / 25])
    flat = torch.full((1, 1, 40, 40), 0.5)
    assert detail(flat)[0] < 0.1 * detail(torch.rand(1, 1, 40, 40))[0]


def _unit(images: Any) -> torch.Tensor:
    x = torch.as_tensor(images)
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def test_too_few_images_are_named(model: Vae, spots: Splits) -> None:
    few = spots.train.subset(torch.arange(5))
    sampler = find_sampler("prior", model, spots.train)
    with pytest.raises(DataError, match="5 images are too few"):
        generation_figures(few, PIXELS, sampler)


@pytest.mark.parametrize("name", ["gmm", "flow", "pool"])
def test_samplers_have_the_moments_of_the_codes(name: str, model: Vae, spots: Splits) -> None:
    mean, deviation = model.posterior(spots.train.take(torch.arange(len(spots.train))))
    torch.manual_seed(0)
    codes = find_sampler(name, model, spots.train).draw(4000)[0]
    assert codes.shape == (4000, 2)
    spread = (mean.var(0) + deviation.square().mean(0)).sqrt()
    assert torch.allclose(codes.mean(0), mean.mean(0), atol=0.15)
    assert torch.allclose(codes.std(0), spread, rtol=0.15)


def test_the_pool_of_a_class_holds_only_it(points: Vae, spots: Splits) -> None:
    assert spots.train.labels is not None
    codes = points.encode(spots.train.take(torch.arange(len(spots.train))))
    torch.manual_seed(0)
    drawn = find_sampler("pool", points, spots.train, label=1).draw(300)[0]
    own = codes[spots.train.labels == 1]
    width = codes.std(0) * (len(own)) ** (-1 / 6)
    gaps = (drawn[:, None] - own).abs() / width
    assert float(gaps.amax(2).min(1).values.max()) < 5  # within the kernel of some code
    assert float(gaps.amax(2).min(1).values.min()) > 0  # and never a code itself


def test_samplers_refuse_what_has_no_meaning(model: Vae, spots: Splits) -> None:
    for settings, message in (
        ({"name": "vamp"}, "choose one of"),
        ({"name": "prior", "label": 1}, "knows no classes"),
        ({"name": "pool", "label": 7}, "no class number 7"),
        ({"name": "gmm", "temperature": 0.5}, "only the prior"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_sampler(**{"model": model, "images": spots.train, **settings})  # type: ignore[arg-type]


def test_neighbours_vote() -> None:
    known = torch.cat([torch.zeros(10, 2), torch.ones(10, 2)])
    labels = torch.tensor([0] * 10 + [1] * 10)
    found = vote(torch.tensor([[0.1, 0.0], [0.9, 1.0]]), known, labels, 2)
    assert found.tolist() == [0, 1]
    mixed = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 1] + [0] * 10)
    assert vote(torch.zeros(1, 2), known, mixed, 2).tolist() == [1]


def test_neighbours_of_codes_that_hold_the_class(points: Vae, spots: Splits) -> None:
    images = spots.train.take(torch.arange(len(spots.train)))
    codes = points.encode(images)
    labels = (codes[:, 0] > codes[:, 0].median()).long()  # a class that the code tells by itself
    told = ImageSet(images, labels, class_names=("a", "b"))
    assert neighbour_figures(points, told, told)["neighbour_accuracy"].value > 0.9
    random = ImageSet(images, torch.arange(len(images)) % 2, class_names=("a", "b"))
    chance = neighbour_figures(points, random, random)["neighbour_accuracy"]
    assert chance.value < 0.75
    assert neighbour_figures(points, ImageSet(images), told) == {}


def test_feature_networks_are_trained_once(spots: Splits, tmp_path: Path) -> None:
    first = find_features(spots, cache=tmp_path)
    weights = next(tmp_path.rglob("model.safetensors"))
    before = weights.stat().st_mtime_ns, weights.read_bytes()
    second = find_features(spots, cache=tmp_path)
    assert (weights.stat().st_mtime_ns, weights.read_bytes()) == before
    x = spots.test.take(torch.arange(len(spots.test)))
    assert torch.equal(first.of(x), second.of(x))
    assert first.of(x).shape == (len(x), 128)
    assert "classifier" in first.name


def onnx_network(path: Path, shape: list[int | str]) -> Path:
    """A network whose two features are the mean and the largest value of an image."""
    images = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])
    axes = onnx.numpy_helper.from_array(np.array([1, 2, 3]), "axes")
    nodes = [
        onnx.helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        onnx.helper.make_node("ReduceMax", ["x", "axes"], ["max"], keepdims=0),
        onnx.helper.make_node("Unsqueeze", ["mean", "last"], ["a"]),
        onnx.helper.make_node("Unsqueeze", ["max", "last"], ["b"]),
        onnx.helper.make_node("Concat", ["a", "b"], ["y"], axis=1),
    ]
    last = onnx.numpy_helper.from_array(np.array([1]), "last")
    graph = onnx.helper.make_graph(nodes, "g", [images], [out], [axes, last])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def test_features_of_an_onnx_network(spots: Splits, tmp_path: Path) -> None:
    x = spots.test.take(torch.arange(5))
    plain = find_features(spots, onnx_network(tmp_path / "a.onnx", ["n", 1, 12, 10]))
    scaled = x.float() / 255
    expected = torch.stack([scaled.mean((1, 2, 3)), scaled.amax((1, 2, 3))], 1)
    torch.testing.assert_close(plain.of(x), expected)
    assert "a.onnx, sha256" in plain.name
    color = find_features(spots, onnx_network(tmp_path / "b.onnx", ["n", 3, 24, 20]))
    torch.testing.assert_close(color.of(x)[:, 0], expected[:, 0], atol=0.01, rtol=0)
    fixed = find_features(spots, onnx_network(tmp_path / "f.onnx", [2, 1, 12, 10]))
    torch.testing.assert_close(fixed.of(x), expected)  # five images by two
    five = find_features(spots, onnx_network(tmp_path / "c.onnx", ["n", 5, 12, 10]))
    with pytest.raises(DataError, match="takes 5 channels, not 1"):
        five.of(x)
    (tmp_path / "e.onnx").write_bytes(b"no network")
    with pytest.raises(ConfigError, match="is no ONNX network that can be read"):
        find_features(spots, tmp_path / "e.onnx")
    with pytest.raises(ConfigError, match="cannot be read"):
        find_features(spots, tmp_path / "missing.onnx")


def test_images_without_classes_need_a_network(spots: Splits) -> None:
    plain = api.load_data(np.zeros((40, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match=r"--features NETWORK\.onnx"):
        find_features(plain)


def test_images_that_are_all_alike_do_not_come_out_as_good() -> None:
    """A collapsed generator: every image is close to the mean of the real ones."""
    real, count = torch.Generator().manual_seed(0), 120
    images = (torch.rand(2 * count, 1, 4, 5, generator=real) * 255).to(torch.uint8)
    test, train = ImageSet(images[:count]), ImageSet(images[count:])
    mean = images.float().mean(0) / 255

    class Blobs:
        device = torch.device("cpu")

        def decoded(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            return (mean + 0.01 * torch.randn(len(z), 1, 4, 5)).clamp(0, 1)

    blobs: Any = Blobs()
    sampler = Sampler("blobs", blobs, lambda n: (torch.zeros(n, 1), torch.zeros(n, 0)))
    features = Features("pixels", lambda x: _unit(x).flatten(1), images=60, accuracy=0.62)
    found = generation_figures(test, features, sampler, known=train, sets=2)
    assert found["precision"].value == 1
    assert found["density"].value > 1
    assert found["recall"].value < 0.1  # coverage, in 20 dimensions, is no help: 0.95
    assert list(found)[:2] == ["frechet", "frechet_floor"]
    assert found["frechet"].value > 3 * found["frechet_floor"].value
    weak, alike = generation_notes(found, features)
    assert weak.startswith(WEAK)
    assert "only 120 real images" in weak
    assert "trained on 60 images" in weak
    assert "62%" in weak
    assert "Precision 1.00 and density" in alike
    assert "all alike" in alike
    assert "120 generated images against 120 real ones" in found["frechet"].protocol
    assert "Biased upwards for few images" in found["frechet"].protocol


def test_a_perfect_generator_reaches_the_floor_and_is_not_doubted() -> None:
    count = 1_000
    images = (torch.rand(2 * count, 1, 2, 3, generator=torch.Generator().manual_seed(1)) * 255).to(
        torch.uint8
    )
    test, train = ImageSet(images[:count]), ImageSet(images[count:])

    class Perfect:
        device = torch.device("cpu")

        def decoded(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            return torch.rand(len(z), 1, 2, 3)

    perfect: Any = Perfect()
    sampler = Sampler("perfect", perfect, lambda n: (torch.zeros(n, 1), torch.zeros(n, 0)))
    features = Features("pixels", lambda x: _unit(x).flatten(1), images=5_000, accuracy=0.97)
    found = generation_figures(test, features, sampler, known=train, sets=20)
    # of independent sets from one distribution both are the bias of a thousand images
    assert found["frechet"].value == pytest.approx(found["frechet_floor"].value, rel=0.6)
    assert found["frechet"].value < 0.01 * float(_unit(images).var(0).sum())
    assert generation_notes(found, features) == ()
