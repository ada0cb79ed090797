"""Grids to the pixel, paths and maps through a decoder whose images are known."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vaelab.config import ModelConfig
from vaelab.data.images import ImageSet
from vaelab.data.load import load_data
from vaelab.data.summary import Pixels
from vaelab.errors import ConfigError, DataError
from vaelab.explore import pictures
from vaelab.explore.encodings import encode_to_file
from vaelab.explore.grids import GAP, GROUND, grid, save_images
from vaelab.models.build import build_vae
from vaelab.models.vae import Vae

SHAPE = (1, 2, 3)


def linear_vae(latent_dim: int = 3, prior: str = "normal") -> Vae:
    """Return a model whose pixel d is ½ + z_d/20, and whose code of an image inverts that."""
    torch.manual_seed(0)
    linear = {"kind": "mlp", "hidden": []}
    values = {"latent_dim": latent_dim, "encoder": linear, "likelihood": "gaussian", "prior": prior}
    model = build_vae(ModelConfig.model_validate(values), Pixels(torch.full(SHAPE, 0.5)))
    encoder, decoder = (
        next(part for part in network.modules() if isinstance(part, torch.nn.Linear))
        for network in (model.encoder, model.decoder)
    )
    with torch.no_grad():
        decoder.weight.copy_(torch.eye(6)[:, :latent_dim] / 20)
        decoder.bias.fill_(0.5)
        encoder.weight.zero_()
        encoder.weight[:latent_dim] = 20 * torch.eye(6)[:latent_dim]
        encoder.bias.zero_()
        encoder.bias[:latent_dim] = -10
    return model.eval()


def codes_of(images: Tensor, latent_dim: int = 3) -> Tensor:
    """Read the codes off the images of `linear_vae`."""
    return (images.flatten(-3)[..., :latent_dim] - 0.5) * 20


@pytest.mark.parametrize("how", ["linear", "spherical"])
def test_interpolation_starts_and_ends_where_asked(how: pictures.Path) -> None:
    model = linear_vae()
    a, b = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([-2.0, 0.5, 3.0])
    images = pictures.interpolate(model, a, b, 7, how)
    ends = model.generate(torch.stack([a, b]))
    torch.testing.assert_close(images[[0, -1]], ends, atol=1e-6, rtol=0)
    from_images = pictures.interpolate(model, ends[0], ends[1], 7, how)
    torch.testing.assert_close(from_images, images, atol=1e-5, rtol=0)


def test_linear_interpolation_is_even() -> None:
    a, b = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([-2.0, 0.5, 3.0])
    codes = codes_of(pictures.interpolate(linear_vae(), a, b, 5))
    torch.testing.assert_close(
        codes[1:] - codes[:-1], ((b - a) / 4).repeat(4, 1), atol=1e-4, rtol=0
    )


def test_spherical_interpolation_keeps_the_length() -> None:
    a, b = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 3.0])
    codes = codes_of(pictures.interpolate(linear_vae(), a, b, 3, "spherical"))
    half = 3 / np.sqrt(2)
    assert codes[1].tolist() == pytest.approx([half, 0, half], abs=1e-4)


@pytest.mark.parametrize("b", [[-3.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
def test_an_arc_that_is_not_defined_is_a_line(b: list[float]) -> None:
    a, end = torch.tensor([3.0, 0.0, 0.0]), torch.tensor(b)
    arc, line = (
        pictures.interpolate(linear_vae(), a, end, 5, how) for how in ("spherical", "linear")
    )
    torch.testing.assert_close(arc, line)


def test_traversal_changes_one_dimension_only() -> None:
    code = torch.tensor([0.5, -1.0, 2.0])
    images = pictures.traverse(linear_vae(), code, dims=[2, 0], values=[-2.0, 0.0, 1.5])
    assert images.shape == (2, 3, *SHAPE)
    codes = codes_of(images)
    assert codes[0, :, 2].tolist() == pytest.approx([-2, 0, 1.5], abs=1e-4)
    assert codes[1, :, 0].tolist() == pytest.approx([-2, 0, 1.5], abs=1e-4)
    torch.testing.assert_close(codes[0, :, :2], code[:2].repeat(3, 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(codes[1, :, 1:], code[1:].repeat(3, 1), atol=1e-4, rtol=0)


def test_traversal_without_a_code_starts_in_the_middle() -> None:
    codes = codes_of(pictures.traverse(linear_vae()))
    assert codes.shape == (3, 9, 3)
    assert codes[1, :, 1].tolist() == pytest.approx(np.linspace(-3, 3, 9).tolist(), abs=1e-4)
    assert float(codes[1, :, 0].abs().max()) < 1e-4


def test_traversal_of_another_prior_spans_its_deviations() -> None:
    model = linear_vae(2, "mixture")
    with torch.no_grad():
        for name, value in model.prior.named_parameters():
            if name == "loc":
                value.copy_(torch.tensor([1.0, -2.0]))
    values = codes_of(pictures.traverse(model, values=[-1.0, 0.0, 1.0]), 2)
    assert values[0, :, 0].tolist() == pytest.approx([0.5, 1.0, 1.5], abs=0.05)  # σ = ½
    assert values[1, :, 1].tolist() == pytest.approx([-2.5, -2.0, -1.5], abs=0.05)


def test_manifold_lies_at_the_quantiles_of_the_prior() -> None:
    images = pictures.manifold(linear_vae(2), 5)
    codes = codes_of(images, 2)
    known = [NormalDist().inv_cdf((i + 0.5) / 5) for i in range(5)]
    assert codes[3, :, 0].tolist() == pytest.approx(known, abs=1e-4)
    assert codes[:, 1, 1].tolist() == pytest.approx(known[::-1], abs=1e-4)  # upwards


def test_manifold_of_two_of_three_dimensions() -> None:
    image = torch.zeros(SHAPE) + 0.6  # the code (2, 2, 2)
    codes = codes_of(pictures.manifold(linear_vae(), 2, dims=(2, 0), code=image))
    torch.testing.assert_close(codes[..., 1], torch.full((2, 2), 2.0), atol=1e-4, rtol=0)
    known = NormalDist().inv_cdf(0.75)
    assert codes[0, 1].tolist() == pytest.approx([known, 2, known], abs=1e-4)
    assert codes[1, 1].tolist() == pytest.approx([-known, 2, known], abs=1e-4)


@pytest.mark.parametrize("prior", ["normal", "mixture"])
def test_dimensions_by_rate(prior: str) -> None:
    """Pixels 0, 1 and 2 vary by 5, 30 and 15 levels, and so do the codes."""
    levels = torch.linspace(-1, 1, 21).unsqueeze(1) * torch.tensor([5, 30, 15, 0, 0, 0])
    images = (127 + levels).round().to(torch.uint8).reshape(21, *SHAPE)
    assert pictures.by_rate(linear_vae(prior=prior), images) == [1, 2, 0]


def test_samples_follow_from_the_seed() -> None:
    model = linear_vae()
    before = torch.get_rng_state()
    first = pictures.samples(model, 2000, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, pictures.samples(model, 2000, seed=1))
    assert not torch.equal(first, pictures.samples(model, 2000, seed=2))
    assert codes_of(first).std(0).tolist() == pytest.approx([1, 1, 1], abs=0.06)
    cool = codes_of(pictures.samples(model, 2000, temperature=0.5))
    assert cool.std(0).tolist() == pytest.approx([0.5, 0.5, 0.5], abs=0.03)


def test_reconstructions_stand_beside_their_originals() -> None:
    images = torch.full((2, *SHAPE), 102, dtype=torch.uint8)
    pairs = pictures.reconstructions(linear_vae(), images)
    assert pairs.shape == (2, 2, *SHAPE)
    torch.testing.assert_close(pairs[:, 0], torch.full((2, *SHAPE), 0.4))
    expected = torch.tensor([0.4, 0.4, 0.4, 0.5, 0.5, 0.5])  # the last three have no code
    torch.testing.assert_close(pairs[1, 1].flatten(), expected)


def test_what_cannot_be_drawn_is_said() -> None:
    model, code = linear_vae(), torch.zeros(3)
    with pytest.raises(ConfigError, match="steps: must be 2 to 10,000"):
        pictures.interpolate(model, code, code, 1)
    with pytest.raises(ConfigError, match="neither a code"):
        pictures.interpolate(model, torch.zeros(4), code)
    with pytest.raises(ConfigError, match="this model has 0 to 2"):
        pictures.traverse(model, dims=[3])
    with pytest.raises(ConfigError, match="two different"):
        pictures.manifold(model, dims=[1, 1])


def test_grid_to_the_pixel() -> None:
    images = torch.tensor([[[[0, 255]]], [[[10, 20]]], [[[30, 40]]]], dtype=torch.uint8)
    sheet = grid(images, columns=2, scale=3)
    assert sheet.shape == (2 * (3 + GAP) + GAP, 2 * (6 + GAP) + GAP, 3)
    expected = np.full(sheet.shape, GROUND, np.uint8)
    down, right = GAP + 3 + GAP, GAP + 6 + GAP
    for top, left, values in ((GAP, GAP, (0, 255)), (GAP, right, (10, 20)), (down, GAP, (30, 40))):
        expected[top : top + 3, left : left + 3] = values[0]
        expected[top : top + 3, left + 3 : left + 6] = values[1]
    np.testing.assert_array_equal(sheet, expected)


def test_grid_of_colours_and_of_alpha() -> None:
    red = torch.tensor([1.0, 0.0, 0.5]).reshape(1, 3, 1, 1)
    assert grid(red, scale=1)[GAP, GAP].tolist() == [255, 0, 128]
    clear = torch.tensor([1.0, 0.0, 0.5, 0.0]).reshape(1, 4, 1, 1)
    sheet = grid(clear, scale=1)
    assert sheet[GAP, GAP].tolist() == [255, 0, 128, 0]
    assert sheet[0, 0].tolist() == [GROUND, GROUND, GROUND, 255]


@pytest.mark.parametrize(
    ("size", "scale"), [((28, 28), 3), ((37, 53), 2), ((64, 20), 1), ((1, 1), 64)]
)
def test_small_images_are_made_visible(size: tuple[int, int], scale: int) -> None:
    sheet = grid(torch.zeros(1, 1, *size))
    assert sheet.shape == (scale * size[0] + 2 * GAP, scale * size[1] + 2 * GAP, 3)


def test_grid_needs_images() -> None:
    with pytest.raises(ConfigError, match="needs an image"):
        grid(torch.zeros(0, 1, 2, 2))
    with pytest.raises(ConfigError, match="columns=0"):
        grid(torch.zeros(1, 1, 2, 2), columns=0)


def test_images_as_a_picture(tmp_path: Path) -> None:
    images = torch.rand(5, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    save_images(tmp_path / "new" / "grid.png", images, columns=3)
    with Image.open(tmp_path / "new" / "grid.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), grid(images, 3))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grid.png"]


def test_images_as_numbers_that_can_be_trained_on(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (5, 3, 6, 4), generator=torch.Generator().manual_seed(0))
    save_images(tmp_path / "images.npz", images.float() / 255)
    with np.load(tmp_path / "images.npz", allow_pickle=False) as file:
        assert file["images"].dtype == np.uint8
        np.testing.assert_array_equal(file["images"], images.numpy())
    splits = load_data(tmp_path / "images.npz")
    assert splits.train.shape == (3, 6, 4)


def test_unknown_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.png for a picture or \.npz"):
        save_images(tmp_path / "images.gif", torch.zeros(1, 1, 2, 2))
    images = ImageSet(torch.zeros(1, *SHAPE, dtype=torch.uint8))
    with pytest.raises(ConfigError, match=r"\.csv for a table"):
        encode_to_file(linear_vae(), images, tmp_path / "codes")


@pytest.mark.parametrize("labelled", [True, False])
def test_codes_in_a_file(tmp_path: Path, labelled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1030, *SHAPE), generator=generator).to(torch.uint8)
    labels = torch.arange(1030) % 7 if labelled else None
    model = linear_vae()
    mu = codes_of(pixels.float() / 255)
    encode_to_file(model, ImageSet(pixels, labels), tmp_path / "codes.npz")
    encode_to_file(model, ImageSet(pixels, labels), tmp_path / "codes.csv")
    with np.load(tmp_path / "codes.npz", allow_pickle=False) as file:
        assert set(file) == {"mu", "sigma", "files"} | ({"labels"} if labelled else set())
        np.testing.assert_allclose(file["mu"], mu, atol=1e-4)
        np.testing.assert_allclose(file["sigma"], 1, rtol=1e-6)
        exact = np.hstack([file["mu"], file["sigma"]])
    with (tmp_path / "codes.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    names = ["mu_0", "mu_1", "mu_2", "sigma_0", "sigma_1", "sigma_2"]
    assert header == ["index", "file", "label", *names]
    assert [row[0] for row in rows] == [str(index) for index in range(1030)]
    assert rows[8][1:3] == ["8", "1" if labelled else ""]
    table = np.array([row[3:] for row in rows], np.float64).astype(np.float32)
    np.testing.assert_array_equal(table, exact)


@pytest.mark.parametrize("scale", [255.0, -1.0, float("nan")])
def test_floats_that_are_no_pixels_are_refused(scale: float) -> None:
    x = torch.linspace(0, 1, 12).view(2, *SHAPE)
    model = linear_vae()
    assert torch.equal(model.encode(x), model.encode(x.numpy()))
    with pytest.raises(DataError, match=r"must lie in \[0, 1\] but are in \[.*divide .* by 255"):
        model.encode(x * scale)
