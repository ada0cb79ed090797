"""Labelled images made by a model: labels, filters, the check for copies, and the folder."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import SMALL, blobs
from tests.test_cli import QUICK, vaelab
from vaelab.api import train
from vaelab.config import read_yaml
from vaelab.data.images import ImageSet, Splits
from vaelab.data.load import load_data
from vaelab.errors import ConfigError, DataError
from vaelab.explore.augment import Making, Near, hardly_vary, make_images
from vaelab.explore.labelled import folder_names
from vaelab.models.classifier import Classifier
from vaelab.models.model import Images
from vaelab.models.vae import Vae


@pytest.fixture(scope="module")
def halves() -> Splits:
    """Images that are dark (class 0) or bright (class 1) all over."""
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    level = np.where(labels, 200, 40)[:, None, None] + generator.integers(-30, 30, (200, 8, 6))
    return load_data((level.astype(np.uint8), labels))


@pytest.fixture(scope="module")
def told(halves: Splits) -> Vae:
    return train("cvae", halves, **{**SMALL, "epochs": 20, "lr": 5e-3})


class Brightness(Classifier):
    """Takes an image for class 1 with the probability that is its brightness."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity(), torch.nn.Linear(1, 1), (1, 8, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros(len(x)), x.mean((1, 2, 3)).logit(1e-4)], 1)


def test_made_images_are_of_their_class_and_follow_the_seed(halves: Splits, told: Vae) -> None:
    made = make_images(told, halves.train, 7, Making(seed=3))
    assert made.labels.tolist() == [0] * 7 + [1] * 7
    level = made.images.float().mean((1, 2, 3))
    assert float(level[:7].max()) < 100 < float(level[7:].min())
    again = make_images(told, halves.train, 7, Making(seed=3))
    assert torch.equal(made.images, again.images)
    other = make_images(told, halves.train, 7, Making(seed=4))
    assert not torch.equal(made.images, other.images)


@pytest.mark.parametrize("sampler", ["pool", "gmm"])
def test_pools_of_codes_make_classes_of_a_model_without_labels(
    halves: Splits, sampler: str
) -> None:
    model = train("vae", halves, **{**SMALL, "epochs": 20, "lr": 5e-3})
    made = make_images(model, halves.train, 5, Making(sampler))
    level = made.images.float().mean((1, 2, 3))
    assert float(level[:5].max()) < 120 < float(level[5:].min())
    with pytest.raises(ConfigError, match="knows no classes"):
        make_images(model, halves.train, 5, Making("prior"))
    with pytest.raises(ConfigError, match="only the prior"):
        make_images(model, halves.train, 5, Making(sampler, temperature=0.5))


def test_nearness_of_copies_of_new_and_of_far_images() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = ImageSet(torch.randint(0, 256, (50, 1, 4, 4), generator=generator).to(torch.uint8))
    fresh = ImageSet(torch.randint(0, 256, (99, 1, 4, 4), generator=generator).to(torch.uint8))
    near = Near(seen, fresh)
    nearness, nearest = near(seen.take(torch.tensor([7, 3])))
    assert nearness.tolist() == [0, 0]
    assert nearest.tolist() == [7, 3]
    new, _ = near(fresh.take(torch.arange(99)))
    assert float(new.median()) == pytest.approx(1)
    plain, _ = Near(seen)(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
    lengths = seen.take(torch.arange(50)).double().flatten(1).norm(dim=1)
    assert float(plain) == pytest.approx(float(lengths.min()), rel=1e-5)


def test_filters_keep_what_they_say(halves: Splits, told: Vae) -> None:
    judge = Brightness().eval()
    free = make_images(told, halves.train, 20, Making(), judge=judge, fresh=halves.validation)
    assert free.confidence is not None
    least = float(free.confidence.median())
    how = Making(confidence=least, farther=float(free.nearness.quantile(0.2)))
    made = make_images(told, halves.train, 20, how, judge=judge, fresh=halves.validation)
    assert made.confidence is not None
    assert float(made.confidence.min()) >= least
    assert float(made.nearness.min()) >= how.farther
    assert made.tried > len(made.labels)
    near = Near(halves.train, halves.validation)
    torch.testing.assert_close(made.nearness, near(made.images)[0])
    with pytest.raises(DataError, match="class 0: of 30 images made none has nearness"):
        make_images(told, halves.train, 3, Making(farther=1e6))
    with pytest.raises(ConfigError, match="needs a classifier"):
        make_images(told, halves.train, 3, Making(confidence=0.5))


def test_class_names_become_safe_folders() -> None:
    names = folder_names(("cat", "../up", "a/b", "", "Test", "a_b", "a\\b"))
    assert names[0] == "cat"
    assert len(set(names)) == 7
    for name in names:
        assert "/" not in name
        assert not name.startswith(".")
        assert name.lower() != "test"


@pytest.mark.skipif(os.name == "nt", reason="some of these are no names there")
def test_names_that_can_be_folders_stay() -> None:
    names = ("box & square <b>", "Größe 10", "猫", "a, b (c)?", "it's")
    assert folder_names(names) == list(names)
    assert len(set(folder_names(("caf\u00e9", "cafe\u0301")))) == 2  # one folder on some systems
    assert folder_names(("con", "a\u202eb")) == ["con-0", "a_b"]


def test_images_that_are_all_alike_are_told(halves: Splits, told: Vae) -> None:
    made = make_images(told, halves.train, 20, Making())
    assert hardly_vary(made, halves.train) is None
    mean = made.images[:20].float().mean(0, keepdim=True).to(torch.uint8)
    same = replace(made, images=torch.cat([mean.expand(20, -1, -1, -1), made.images[20:]]))
    said = hardly_vary(same, halves.train)
    assert said is not None
    assert said.startswith("Made images of 0 are nearly all alike: they vary 0% as much")


def test_no_two_classes_share_a_folder() -> None:
    for classes in (("a_b-2", "a_b", "a/b"), ("Cat", "cat", "cat-1"), ("", "class-0", "Test")):
        names = folder_names(classes)
        assert len({name.casefold() for name in names}) == 3, names


def test_the_nearest_are_found_for_what_the_filters_left(halves: Splits, told: Vae) -> None:
    """Those that are shown, the first, are those that are checked, however few of a draw pass."""

    class Late(Brightness):
        """Believes only the last of the images that it is shown."""

        def predict(self, images: Images) -> torch.Tensor:
            return (torch.arange(len(images)) == len(images) - 1).float()[:, None].expand(-1, 2)

    made = make_images(told, halves.train, 6, Making(confidence=0.5), judge=Late(), checked=2)
    assert made.tried == 2 * 6 * 6
    distance, nearest = Near(halves.train)(made.images)
    for label in (0, 1):
        first, rest = (made.labels == label).nonzero().squeeze(1).split([2, 4])
        torch.testing.assert_close(made.nearness[first], distance[first])
        assert torch.equal(made.nearest[first], nearest[first])
        assert bool(made.nearness[rest].isnan().all())


def test_no_image_is_made_of_a_class_that_was_never_seen(halves: Splits, told: Vae) -> None:
    assert halves.train.labels is not None
    one = halves.train.subset((halves.train.labels == 1).nonzero().squeeze(1))
    made = make_images(told, one, 4, Making())
    assert made.labels.tolist() == [1] * 4


@pytest.mark.parametrize("form", ["folder", "npz"])
def test_what_is_written_can_be_trained_on(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, out = tmp_path / "spots.npz", tmp_path / "run", tmp_path / "made"
    np.savez(data, images=blobs(60), labels=np.arange(60) % 3, class_names=["a", "b & c", "d/e"])
    common = ["--data", str(data), "--out", str(run), "--latent-dim", "2", *QUICK]
    code, _, err = vaelab(capsys, "train", "cvae", *common)
    assert code == 0, err
    arguments = ["augment", str(run), "--per-class", "4", "-o", str(out), "--format", form]
    code, text, err = vaelab(capsys, *arguments, "--json")
    assert code == 0, err
    assert ("Images of 'd/e' are in d_e" in err) == (form == "folder")
    assert "Images of 'b" not in err
    said = json.loads(text)
    again = load_data(said["data"], split=(1, 0, 0)).train
    assert again.shape == (1, 12, 10)
    assert again.labels is not None
    assert torch.bincount(again.labels).tolist() == [4, 4, 4]
    manifest = read_yaml(out / "manifest.yaml")
    assert manifest["kept"] == 12
    assert manifest["sampler"] == "prior"
    assert (out / "neighbours.png").stat().st_size > 100
    code, _, err = vaelab(capsys, *arguments)
    assert code == 1
    assert "is not empty" in err
