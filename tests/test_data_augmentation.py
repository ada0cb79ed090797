"""Data augmentation of trainings: what it does to images, which it never sees, when it is off."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from tests.conftest import SMALL
from tests.test_cli import vaelab as command
from vaelab import api
from vaelab.config import AugmentConfig, augmentations
from vaelab.data.attributes import measure
from vaelab.data.batches import Batch
from vaelab.data.images import ImageSet, Splits
from vaelab.data.warp import flipped, recoloured, shifted, warped
from vaelab.errors import ConfigError
from vaelab.models.likelihoods import OneScale
from vaelab.models.model import seeded
from vaelab.models.vae import Vae
from vaelab.objectives.objective import Objective
from vaelab.objectives.semi import SemiSupervised
from vaelab.objectives.variation import Variation
from vaelab.training.augment import variation_of, varied
from vaelab.training.copies import Normal, changed, flip_gain, predicted
from vaelab.training.loop import Trainer
from vaelab.training.progress import Silent
from vaelab.training.run import Run
from vaelab.training.step import Part

CPU = torch.device("cpu")


def all_of(images: ImageSet) -> torch.Tensor:
    return images.take(torch.arange(len(images)))


def ones(*values: float) -> torch.Tensor:
    return torch.tensor(values)


# what it does to images


def test_what_comes_from_outside_continues_the_edge() -> None:
    x = torch.arange(1.0, 13).view(1, 1, 3, 4)
    moved = shifted(x, torch.tensor([[1, -2]]), edge=True)
    assert moved[0, 0].tolist() == [[3, 4, 4, 4], [3, 4, 4, 4], [7, 8, 8, 8]]
    still = {"angle": torch.zeros(1), "zoom": torch.ones(1)}
    same = warped(x, ones(1.0, -2.0)[None], **still, edge=True)
    torch.testing.assert_close(same, moved)
    white = torch.ones(1, 3, 9, 6)
    turned = warped(white, ones(2, 1)[None], torch.tensor([33.0]), torch.tensor([0.5]), edge=True)
    torch.testing.assert_close(turned, white)


@pytest.mark.parametrize("how", ["shifted", "warped"])
def test_what_comes_from_outside_a_transparent_image_is_transparent(how: str) -> None:
    x = torch.full((1, 4, 4, 6), 0.5)
    x[:, 3] = 1
    by = torch.tensor([[0, 2]])
    if how == "shifted":
        moved = shifted(x, by, edge=True)
    else:
        moved = warped(x, by.float(), torch.zeros(1), torch.ones(1), edge=True)
    torch.testing.assert_close(moved[:, :3], x[:, :3])
    torch.testing.assert_close(moved[0, 3], ones(0.0, 0, 1, 1, 1, 1).expand(4, 6))


def test_flips_mirror_half_of_the_images_and_touch_no_other() -> None:
    x = torch.rand(400, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flipped(x[:2], torch.tensor([True, False]))[0], x[0].flip(2))
    with seeded(0, CPU):
        found = Variation(flip=True)(x)
    mirrored = (found == x.flip(3)).flatten(1).all(1)
    assert torch.equal(mirrored, (found != x).flatten(1).any(1))
    assert 160 < int(mirrored.sum()) < 240


def test_a_crop_fills_the_image_with_a_part_of_it() -> None:
    x = torch.linspace(0, 1, 33).expand(200, 1, 21, 33).clone()
    x[:100] = torch.linspace(0, 1, 21)[:, None]  # rises downwards
    with seeded(0, CPU):
        found = Variation(crop=0.5, edge=True)(x)
    down, right = found[:100, 0, 1:-1, 16], found[100:, 0, 10, 1:-1]
    for rows, count in ((down, 21), (right, 33)):
        slopes = rows.diff(dim=1)
        torch.testing.assert_close(slopes, slopes[:, :1].expand_as(slopes), atol=1e-5, rtol=0)
        kept = slopes[:, 0] * (count - 1)  # share of the side that is left
        assert 0.49 < float(kept.min()) < 0.55
        assert 0.95 < float(kept.max()) < 1.01
        place = (rows.mean(1) - 0.5) / (1 - kept)  # ± 1/2 at the ends
        assert float(place[kept < 0.9].abs().max()) < 0.6
        assert float(place[kept < 0.9].std()) > 0.2


def test_colours_change_as_the_equation_says() -> None:
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) / 2
    one, zero, half = torch.ones(2), torch.zeros(2), torch.full((2,), 0.5)
    grey = x.mean(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    close = torch.testing.assert_close
    close(recoloured(x, one, one, one, zero), x)
    close(recoloured(x, half, one, one, zero), x / 2)
    close(recoloured(x, one, half, one, zero), (x + mean) / 2)
    close(recoloured(x, one, one, zero, zero), grey.expand_as(x))
    close(recoloured(x, one, one, one, torch.full((2,), 120.0)), x.roll(1, 1))  # red to green
    bright = recoloured(x, 9 * one, one, one, zero)
    close(bright, (9 * x).clamp(max=1))
    grey_image = grey.expand_as(x)
    close(recoloured(grey_image, one, one, 2 * one, 40 * one), grey_image)
    with pytest.raises(ValueError, match="1 channels have no colours"):
        recoloured(x[:, :1], one, one, one, zero)


def test_what_is_transparent_keeps_its_colour_and_counts_for_nothing() -> None:
    x = torch.rand(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    x[:, 3, :2], x[:, 3, 2:] = 0, 1
    half, one, zero = ones(0.5), ones(1), ones(0)
    found = recoloured(x, one, half, one, zero)
    assert torch.equal(found[:, :, :2], x[:, :, :2])
    assert torch.equal(found[:, 3], x[:, 3])
    torch.testing.assert_close(found[:, :3, 2:], recoloured(x[:, :3, 2:], one, half, one, zero))


@pytest.mark.parametrize("shape", [(1, 7, 12), (3, 16, 9), (4, 8, 8), (5, 6, 6)])
def test_any_shape_stays_within_its_values(shape: tuple[int, int, int]) -> None:
    named = "flip,shift=0.3,crop=0.5,zoom=0.5,rotation=90"
    colours = ",jitter=0.9,hue=180" if shape[0] in (3, 4) else ""
    variation = variation_of(AugmentConfig.model_validate(named + colours), shape)
    x = torch.rand(64, *shape, generator=torch.Generator().manual_seed(0)).round()
    with seeded(0, CPU):
        found = variation(x)
    assert found.shape == x.shape
    assert 0 <= float(found.min()) < float(found.max()) <= 1
    assert not torch.equal(found, x)


# settings


def test_augmentations_are_named_with_or_without_a_number() -> None:
    assert augmentations("flip, shift,rotation=20") == {"flip": True, "shift": 0.06, "rotation": 20}
    assert augmentations("flip=auto") == {"flip": "auto"}
    assert AugmentConfig.model_validate("shift=0.1").shift == 0.1
    full = api.configure(api.settings_to_config({"augment": "flip,zoom=0.3"})).training.augment
    assert (full.flip, full.zoom, full.shift) == (True, 0.3, 0)
    assert api.configure({}).training.augment == AugmentConfig()
    assert not variation_of(AugmentConfig(), (1, 8, 8)).varies


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flop", "there is no augmentation 'flop'; did you mean flip"),
        ("blur", "there is no augmentation 'blur'; known: flip, shift, crop, zoom"),
        ("shift=2", "training.augment.shift: input should be less than or equal to 0.5"),
        ("flip=maybe", "training.augment.flip"),
    ],
)
def test_what_is_no_augmentation_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        api.configure(api.settings_to_config({"augment": text}))


def test_a_shift_is_a_share_of_the_shorter_side_and_of_a_pixel_at_least() -> None:
    shift = AugmentConfig(shift=0.06)
    assert [variation_of(shift, (1, h, w)).shift for h, w in ((64, 99), (28, 28), (5, 5))] == [
        4, 2, 1,
    ]  # fmt: skip


def test_colours_of_grey_images_cannot_change(spots: Splits) -> None:
    with pytest.raises(ConfigError, match=r"augment\.jitter: .* have 1 channel\. .*--channels 3"):
        api.train(data=spots, **{**SMALL, "augment": "jitter"})


# noise and processes


def test_the_images_of_a_step_follow_from_seed_and_step() -> None:
    x = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    variation = variation_of(AugmentConfig.model_validate("flip,shift,zoom,jitter"), (3, 8, 8))

    def of(start: int, stop: int, seed: int = 0, step: int = 0, index: int = 0) -> torch.Tensor:
        rows = torch.arange(start, stop)
        part = Part(Batch(x[rows], x[rows], None, None, rows), 1.0, (start, stop, 7))
        found = varied(part, variation, seed, step, index).batch
        assert found.target is found.images
        return found.images

    whole = of(0, 7)
    assert torch.equal(torch.cat([of(0, 4), of(4, 7)]), whole)
    torch.rand(3)
    assert torch.equal(of(0, 7), whole)
    for other in ({"seed": 1}, {"step": 1}, {"index": 1}):
        assert not torch.equal(of(0, 7, **other), whole)


@pytest.mark.parametrize("more", [{}, {"optimizer": "batch-gd"}, {"binarize": "dynamic"}])
def test_a_resumed_run_sees_the_images_that_it_would_have_seen(
    more: dict[str, Any], spots: Splits, tmp_path: Path
) -> None:
    settings = {**SMALL, "augment": "flip,shift,rotation", "likelihood": "gaussian", **more}
    whole = api.train(data=spots, **settings)
    config = api.configure(api.settings_to_config(settings))
    trainer = Trainer(config, spots, Silent(), Run(tmp_path / "run"))
    trainer.model.train()
    trainer.objective.train()
    trainer._step(next(iter(trainer._groups())))
    trainer.save()
    resumed = Trainer(config, spots, Silent(), Run(tmp_path / "run"))
    resumed.restore()
    model = resumed.fit()
    plain = api.train(data=spots, **{**settings, "augment": "flip=false"})
    for name, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert not torch.equal(whole.encode(all_of(spots.test)), plain.encode(all_of(spots.test)))


# what never sees it


def test_only_training_sees_augmented_images(
    spots: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {x.numpy().tobytes() for x in all_of(spots.train).float() / 255}
    new = {x.numpy().tobytes() for x in all_of(spots.validation).float() / 255}
    seen: dict[bool, list[bytes]] = {True: [], False: []}
    forward = Objective.forward

    def look(self: Objective, model: Vae, batch: Batch, step: int) -> Any:
        seen[self.training] += [x.numpy().tobytes() for x in batch.images]
        return forward(self, model, batch, step)

    monkeypatch.setattr(Objective, "forward", look)
    settings = {**SMALL, "standardize": True}
    model = api.train(data=spots, **{**settings, "augment": "shift=0.3"})
    assert set(seen[False]) <= known | new
    assert new <= set(seen[False])
    assert len(set(seen[True]) - known) > 100
    plain = Trainer(api.configure(api.settings_to_config(settings)), spots, Silent()).model
    assert isinstance(plain, Vae)
    statistics = dict(plain.encoder.named_buffers()) | dict(plain.decoder.named_buffers())
    assert statistics
    for name, value in (*model.encoder.named_buffers(), *model.decoder.named_buffers()):
        assert torch.equal(value, statistics[name]), name


@pytest.mark.parametrize(("likelihood", "power"), [("gaussian", 2), ("laplace", 1)])
def test_a_fitted_scale_is_that_of_images_as_they_are(
    likelihood: str, power: int, spots: Splits
) -> None:
    settings = {**SMALL, "likelihood": likelihood, "epochs": 6, "posterior": "dirac"}
    model = api.train("ae", spots, **{**settings, "augment": "shift=0.4"})
    x = all_of(spots.train).float() / 255
    with torch.no_grad():
        found = model(Batch(x, x, None, None, torch.arange(len(x)))).likelihood.mean
    errors = (x - found).abs() ** power
    assert isinstance(model.likelihood, OneScale)
    scale = float(model.likelihood.scale.log_scale.exp())
    assert scale == pytest.approx(float(errors.mean()) ** (1 / power), rel=1e-3)


def test_labelled_images_of_m2_are_augmented_too(spots: Splits) -> None:
    settings = {**SMALL, "likelihood": "bernoulli", "augment": {"shift": 0.4, "unchecked": True}}
    config = api.configure({**api.settings_to_config(settings), "recipe": "m2"})
    trainer = Trainer(config, spots, Silent())
    x = all_of(spots.train)[:16].float() / 255
    assert isinstance(trainer.objective, SemiSupervised)
    assert isinstance(trainer.model, Vae)
    drawn = trainer.objective.draw(trainer.model, Batch(x, x, None, None, torch.arange(16)))
    known = {each.numpy().tobytes() for each in all_of(spots.train).float() / 255}
    assert len({each.numpy().tobytes() for each in drawn.images} - known) > 10


# whether flips help


def fields(count: int, seed: int, slope: int = 0) -> torch.Tensor:
    """Return random images of streaks that fall so many pixels over their length.

    Level ones are as probable as their mirror images, others are never like theirs.
    """
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, 12, 12, generator=g)
    streaks = torch.stack([x.roll((k * slope, k), (2, 3)) for k in range(6)]).mean(0)
    return (255 * streaks).to(torch.uint8)


def splits_of(slope: int = 0, held_out: int = 60) -> Splits:
    sizes = ((60, 0), (held_out, 1), (30, 2))
    train, validation, test = (ImageSet(fields(n, seed, slope)) for n, seed in sizes)
    return Splits("fields", train, validation, test)


def test_flips_gain_where_mirror_images_are_as_probable() -> None:
    symmetric, steep = splits_of(), splits_of(1)
    gain = flip_gain(symmetric.train, symmetric.validation)
    loss = flip_gain(steep.train, steep.validation)
    assert gain is not None
    assert loss is not None
    assert gain.is_there
    assert gain.nats > 4 * gain.error
    assert 0.3 < gain.recognised < 0.7
    assert not loss.is_there
    assert loss.recognised > 0.95
    even = ImageSet(torch.cat([all_of(symmetric.train), all_of(symmetric.train).flip(3)]))
    nothing = flip_gain(even, symmetric.validation)  # which has its mirror images already
    assert nothing is not None
    assert nothing.nats == pytest.approx(0, abs=1e-6)
    assert not nothing.is_there
    assert flip_gain(symmetric.train, symmetric.validation.subset(torch.arange(19))) is None


def test_colours_that_are_transparent_tell_nothing_of_mirror_images() -> None:
    def hidden(count: int, seed: int) -> ImageSet:
        alpha = torch.where(fields(count, seed) > 128, 255, 0)
        ramp = torch.arange(0, 240, 20).expand(count, 3, 12, 12)
        colours = torch.where(alpha > 0, 200, ramp)
        return ImageSet(torch.cat([colours, alpha], 1).to(torch.uint8))

    gain = flip_gain(hidden(100, 0), hidden(60, 1))
    assert gain is not None
    assert 0.3 < gain.recognised < 0.7


def test_a_shrunk_normal_has_the_likelihood_of_its_equation() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(50, 1, 2, 3, generator=g).double() * torch.arange(1, 7).view(1, 1, 2, 3) / 6
    new = torch.rand(9, 1, 2, 3, generator=g).double()
    flat = x.flatten(1)
    sample = torch.cov(flat.T, correction=0)
    shrunk = 0.75 * sample + 0.25 * sample.trace() / 6 * torch.eye(6).double()
    normal = MultivariateNormal(flat.mean(0), shrunk)
    found = Normal(x)
    torch.testing.assert_close(found.log_prob(new, 0.25), normal.log_prob(new.flatten(1)))
    best = max(float(found.log_prob(new, 2.0**-k).mean()) for k in range(1, 16))
    assert float(found.best(new).mean()) == best


class Said(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def say(self, text: str) -> None:
        self.texts.append(text)


def said(data: Splits, recipe: str = "vae", **settings: Any) -> str:
    progress = Said()
    api.train(recipe, data, progress=progress, **{**SMALL, "epochs": 1, **settings})
    return " ".join(progress.texts)


def test_flips_are_offered_where_they_help() -> None:
    text = said(splits_of())
    assert "Horizontal flips may help, as mirrored copies raise the log-likelihood " in text
    assert "add --augment flip." in text
    assert "flips" not in said(splits_of(1))
    assert "flips" not in said(splits_of(), augment={"flip": False})
    assert "flips" not in said(splits_of(held_out=19))
    assert "flips" not in said(splits_of(), augment="flip")


@pytest.mark.parametrize(("slope", "on"), [(0, True), (1, False)])
def test_auto_is_decided_and_written_down(slope: int, on: bool, tmp_path: Path) -> None:
    data, out = splits_of(slope), tmp_path / "run"
    settings = {**SMALL, "augment": "flip=auto"}
    model = api.train(data=data, out=out, **settings)
    assert Run(out).read_config().training.augment.flip is on
    assert model.config is not None
    assert model.config.training.augment.flip is on
    notes = [note["text"] for note in Run(out).read_log("note")]
    word = "on" if on else "off"
    assert any(f"flip=auto: horizontal flips are {word}, as mirrored " in note for note in notes)
    api.train(data=data, out=out, resume=True, **{**settings, "epochs": 3})
    assert Run(out).read_config().training.augment.flip is on
    again = api.train(data=data, **{**SMALL, "augment": {"flip": on}})
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


# where it would change a class or an attribute


def letters(count: int, seed: int, mirrored: bool) -> ImageSet:
    """Return b and d, or b and a bar, drawn with random sizes and places."""
    g = np.random.default_rng(seed)
    images = np.zeros((count, 1, 16, 16), np.uint8)
    labels = np.arange(count) % 2
    for image, label in zip(images[:, 0], labels, strict=True):
        top, left, size = g.integers(1, 4), g.integers(2, 6), g.integers(3, 6)
        image[top : top + 10, left : left + 2] = 255
        if label == 0 or mirrored:
            image[top + 10 - size : top + 10, left : left + 2 + size] = g.integers(150, 256)
        if label == 1 and mirrored:
            image[:] = image[:, ::-1]
    slant = measure(torch.from_numpy(images), ["slant", "thickness"])
    return ImageSet(
        torch.from_numpy(images), torch.from_numpy(labels), slant, ("b", "d"),
        ("slant", "thickness"), ("degrees", "pixels"),
    )  # fmt: skip


def split_letters(mirrored: bool = True, held_out: int = 60) -> Splits:
    sizes = ((120, 0), (held_out, 1), (20, 2))
    train, validation, test = (letters(n, seed, mirrored) for n, seed in sizes)
    return Splits("letters", train, validation, test)


FLIP, MOVE = Variation(flip=True), Variation(shift=1, edge=True)


def faults(variation: Variation, data: Splits, *names: str) -> str:
    return " ".join(changed(variation, data.train, data.validation, names))


def test_a_flip_that_turns_one_class_into_another_is_found() -> None:
    assert faults(FLIP, split_letters(), "label").startswith(
        "changes the class: on 60 validation images the squared error of a probe is "
    )
    assert faults(FLIP, split_letters(mirrored=False), "label") == ""
    assert faults(MOVE, split_letters(), "label") == ""
    few = split_letters(held_out=10)
    assert faults(FLIP, few, "label") == (
        "may change the class: 10 validation images and their training images cannot tell, which "
        "takes 20 of each"
    )


def test_measured_attributes_are_measured_again() -> None:
    data = split_letters()
    found = faults(FLIP, data, "slant", "thickness")
    assert found.startswith("changes slant: measured again, it differs by ")
    assert found.endswith(" degrees")
    assert data.validation.attributes is not None
    slant = data.validation.attributes[:, 0].double()
    rms = float((2 * slant).square().mean().sqrt()) / math.sqrt(2)  # every other image: a to −a
    assert float(found.split()[-2]) == pytest.approx(rms, rel=0.25)
    assert "thickness" in faults(Variation(zoom=0.4, edge=True), data, "thickness")


def test_an_attribute_of_the_data_is_probed() -> None:
    g = torch.Generator().manual_seed(0)
    bright = torch.rand(180, 1, generator=g)
    colours = 0.6 + 0.1 * torch.rand(180, 3, 8, 8, generator=g)
    pixels = (255 * colours * (0.5 + 0.5 * bright[:, :, None, None])).to(torch.uint8)
    whole = ImageSet(pixels, attributes=bright, attribute_names=("bright",))
    parts = [whole.subset(torch.arange(*ends)) for ends in ((0, 100), (100, 160), (160, 180))]
    data = Splits("shades", parts[0], parts[1], parts[2])
    assert faults(Variation(jitter=0.5), data, "bright").startswith("changes bright: on 60 ")
    assert faults(FLIP, data, "bright") == ""


def test_the_probe_is_kernel_ridge_regression() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(6, 2, generator=g).double(), torch.rand(6, 2, generator=g).double()
    torch.testing.assert_close(predicted(x, y, x, 0.2, 1e-12), y, atol=1e-6, rtol=0)
    one = predicted(x[:1], y[:1], x, 0.2, 0.5)  # of one image: its target everywhere
    torch.testing.assert_close(one, y[:1].expand(6, 2))
    two, far = x.new_tensor([[0.0], [50.0]]), x.new_tensor([[1.0]])
    found = predicted(two, two, far, 1.0, 0.25)  # 25 + k (0 − 25) / (1 + λ)
    assert float(found) == pytest.approx(25 - 25 * math.exp(-0.5) / 1.25)


@pytest.mark.parametrize("recipe", ["cvae", "m2", "classifier"])
def test_what_learns_classes_refuses_what_changes_them(recipe: str) -> None:
    values = {**api.settings_to_config({**SMALL, "augment": "flip"}), "recipe": recipe}
    with pytest.raises(ConfigError, match=r"augment\.flip: .*changes the class: .*unchecked=true"):
        Trainer(api.configure(values), split_letters(), Silent())
    Trainer(api.configure({**values, "recipe": "vae"}), split_letters(), Silent())
    values["training"]["augment"]["unchecked"] = True
    assert Trainer(api.configure(values), split_letters(), Silent()).variation.flip
    values["training"]["augment"] = "flip=auto"
    auto = Trainer(api.configure(values), split_letters(), Silent())
    assert auto.config.training.augment.flip is False


def test_only_what_the_model_is_given_matters() -> None:
    settings = {**SMALL, "epochs": 1, "augment": "flip"}
    data = split_letters(mirrored=False)
    with pytest.raises(ConfigError, match="changes slant"):
        api.train("cvae", data, given=["slant"], **settings)
    api.train("cvae", data, given=["thickness"], **settings)


def test_auto_flips_are_off_where_they_change_the_class() -> None:
    labels = torch.arange(60) % 2
    x = fields(60, 0)
    half = torch.zeros_like(x)
    half[..., :6] = 90
    marked = [
        ImageSet(
            torch.where(labels[:, None, None, None] == 1, half.flip(3), half) + fields(60, s) // 4,
            labels, class_names=("left", "right"),
        ) for s in (0, 1, 2)
    ]  # fmt: skip
    data = Splits("sides", marked[0], marked[1], marked[2])
    assert "horizontal flips are on, as mirrored copies" in said(data, augment="flip=auto")
    text = said(data, "cvae", augment="flip=auto")
    assert "horizontal flips are off, as a flip changes the class" in text
    assert "flips" not in said(data, "cvae")


def test_the_command_line_takes_augmentations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "fields.npy", fields(240, 0).numpy())
    place = ["--data", str(tmp_path / "fields.npy"), "--out", str(tmp_path / "run")]
    small = ["-s", "model.encoder.widths=[4, 8]", "--epochs", "1", "--device", "cpu"]
    named = ["--augment", "flip=auto,shift", "-s", "training.augment.rotation=5"]
    status, _, errors = command(capsys, "train", *place, *small, *named)
    assert status == 0, errors
    assert "flip=auto: horizontal flips are on" in errors
    augment = Run(tmp_path / "run").read_config().training.augment
    assert (augment.flip, augment.shift, augment.rotation) == (True, 0.06, 5)
    status, _, errors = command(capsys, "train", *place, "--augment", "flop")
    assert status == 1
    assert "did you mean flip" in errors
