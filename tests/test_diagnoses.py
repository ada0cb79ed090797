"""What is found to be wrong with a run, on cases where it must be found and where it must not."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.conftest import SMALL, blobs
from tests.test_cli import vaelab as run_vaelab
from vaelab.api import diagnose, train
from vaelab.config import RunConfig
from vaelab.data.images import ImageSet, Splits
from vaelab.data.load import load_data
from vaelab.data.stems import groups_of, stem_of
from vaelab.data.titles import listed
from vaelab.errors import ConfigError
from vaelab.evaluation import diagnose as measuring
from vaelab.models.transport import Transport
from vaelab.models.vae import Vae
from vaelab.training.diagnoses import findings
from vaelab.training.finding import Kin, LabelEffect, Measured

RUN = "runs/my run"


def config(recipe: str = "vae", likelihood: str = "bernoulli", **options: Any) -> RunConfig:
    return RunConfig.model_validate(
        {"recipe": recipe, "options": options, "model": {"likelihood": likelihood}}
    )


def found(measured: Measured) -> dict[str, str]:
    """Return the commands by the names of the findings."""
    return {finding.name: finding.command for finding in findings(measured)}


def epochs(*losses: float) -> list[dict[str, Any]]:
    return [{"step": 100 * (k + 1), "validation/loss": loss} for k, loss in enumerate(losses)]


def test_nothing_is_found_where_nothing_is_known() -> None:
    assert findings(Measured(config())) == []


@pytest.mark.parametrize(
    ("losses", "advised"),
    [
        ([400, 200, 160, 150], 80),  # fell by a third: by a sixth in the next doubling, then 1/12
        ([400, 115, 105, 100], 40),
        ([400, 900, 300, 100], 160),  # never more than eight times
        ([400, 109, 103, 100], None),  # by less than a tenth: the end of a training
        ([400, 100, 102, 104], None),  # rose: overfitting
        ([400, 300, 200, 201, 203, 204], None),  # so it does here, after a fall
        ([1e308, 1e308, 1e-308, 1e-308], 160),  # as a file from elsewhere may say
        ([400], None),
    ],
)
def test_a_loss_that_fell_in_the_second_half_asks_for_more_epochs(
    losses: list[float], advised: int | None
) -> None:
    measured = Measured(config(), RUN, epochs=epochs(*losses))
    command = f"vaelab train --resume --out '{RUN}' --epochs {advised}"
    assert found(measured) == ({"too few steps": command} if advised else {})
    assert found(replace(measured, adversarial=True)) == {}


def test_nats_of_a_fitted_scale_are_read_as_squared_error() -> None:
    """−log p(x|z) of D numbers is D/2 log mse and a constant: it may be below 0."""
    for mse, expected in ((0.02, False), (0.0223, True)):
        losses = [500 * math.log(each) for each in (0.1, mse, 0.0201, 0.02)]
        measured = Measured(config(likelihood="gaussian"), RUN, epochs=epochs(*losses))
        measured = replace(measured, numbers=1000)
        assert ("too few steps" in found(measured)) is expected
    (finding,) = findings(measured)
    assert "squared error of validation images still fell by 10% in the second half of 400" in str(
        finding
    )


def test_a_model_no_better_than_the_mean_image_is_named() -> None:
    measured = Measured(config(), RUN, mse=(0.0799, 0.08), rate=3.0)
    assert found(measured) == {
        "no better than the mean image": f"vaelab train --resume --out '{RUN}' --epochs 80"
    }
    assert found(replace(measured, mse=(0.07, 0.08))) == {}
    assert [*found(replace(measured, rate=0.0))] == ["posterior collapse"]  # its symptom


def test_posterior_collapse_names_its_cause() -> None:
    base = f"vaelab train --config '{RUN}/config.yaml' -s "
    strong = Measured(config("beta-vae", beta=50.0, free_bits=0.0), RUN, rate=0.02)
    assert found(strong) == {"posterior collapse": base + "options.beta=1"}
    plain = Measured(config("vae", beta=1.0, free_bits=0.0), RUN, rate=0.02)
    assert found(plain) == {"posterior collapse": base + "options.free_bits=0.5"}
    bare = Measured(config("aae"), RUN, variance=torch.full((4,), 0.009))
    assert found(bare) == {"posterior collapse": base + "training.lr=0.0003"}
    short = found(replace(plain, steps=100))
    assert short == {"posterior collapse": f"vaelab train --resume --out '{RUN}' --epochs 100"}
    assert "KL divergence is 0.02 nats" in str(findings(strong)[0])
    assert found(replace(plain, rate=0.2, variance=torch.full((4,), 0.02))) == {}


def test_some_unused_dimensions_are_only_information() -> None:
    measured = Measured(config(), RUN, rate=5.0, variance=torch.tensor([1.0, 0.5, 0.001]))
    (finding,) = findings(measured)
    assert finding.text.startswith("1 of 3 latent dimensions is not active")
    assert finding.command == ""


def test_images_in_memory_are_answered_in_python() -> None:
    held = config("vae", beta=4.0).model_copy(
        update={"data": config().data.model_copy(update={"spec": "(in memory)"})}
    )
    measured = Measured(held, "runs/a", rate=0.0)
    expected = "vaelab.train(config='runs/a/config.yaml', data=images, beta=1)"
    assert found(measured) == {"posterior collapse": expected}
    assert found(replace(measured, steps=250))["posterior collapse"] == (
        "vaelab.train(data=images, out='runs/a', resume=True, epochs=40)"
    )


def test_labels_that_move_no_sample_are_named() -> None:
    effect = LabelEffect(samples=0.0004, images=0.010, chance=0.0004, example="food & drink")
    measured = Measured(config("cvae"), "runs/a", labels=effect)
    expected = "vaelab sample runs/a --sampler gmm --label 'food & drink'"
    assert found(measured) == {"labels ignored": expected}
    assert found(replace(measured, labels=replace(effect, samples=0.004))) == {}
    alike = replace(effect, images=0.0003)  # classes whose means are alike: no more than chance
    assert found(replace(measured, labels=alike)) == {}


def test_far_samples_ask_for_a_mixture_and_then_for_steps() -> None:
    measured = Measured(config(), "runs/a", frechet=(40.0, 10.0))
    assert found(measured) == {"samples far from real": "vaelab sample runs/a --sampler gmm"}
    mixed = replace(measured, sampler="a mixture of 10 normals")
    assert found(mixed) == {
        "samples far from real": "vaelab train --resume --out runs/a --epochs 40"
    }
    assert found(replace(measured, frechet=(29.0, 10.0))) == {}


def test_a_tenth_of_the_prior_is_two_nats() -> None:
    measured = Measured(config(), "runs/a", prior_gap=2.4, rate=5.0)
    assert found(measured) == {"prior not filled": "vaelab sample runs/a --sampler gmm"}
    assert found(replace(measured, prior_gap=2.2)) == {}
    assert found(replace(measured, sampler="a mixture of 10 normals")) == {}  # not drawn from


def test_a_flow_that_leaves_information_in_z_asks_for_more_epochs() -> None:
    measured = Measured(config("csvae"), "runs/a", flow=("smile", 0.7))
    expected = "vaelab train --resume --out runs/a --epochs 40"
    assert found(measured) == {"conditional flow not settled": expected}
    assert found(replace(measured, flow=("smile", 0.55))) == {}


def test_the_gap_to_the_prior_is_that_of_normal_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 20, generator=generator)
    assert abs(measuring.normal_gap(noise)[0]) < 0.6  # biased, it would be 20 · 21 / 1600 more…
    biased = [measuring.normal_gap(torch.randn(60, 20, generator=generator))[0] for _ in range(50)]
    assert abs(sum(biased) / 50) < 0.5  # … and 4.4 nats of 60
    gap, low, high = measuring.normal_gap(0.3 * noise + 1)
    assert gap == pytest.approx(20 * (0.5 * (0.09 + 1 - 1) - math.log(0.3)), rel=0.05)
    assert 0.2 < low < 0.3 < high < 0.4


@pytest.fixture(scope="module")
def halves() -> Splits:
    """Images of two classes, bright above or below, of a brightness that varies."""
    generator = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = np.zeros((120, 1, 8, 8), np.float32)
    bright = generator.uniform(0.5, 1.0, 120)
    for k, label in enumerate(labels):
        images[k, 0, 4 * label : 4 * label + 4] = bright[k]
    return load_data((images, labels))


class Drawn(Vae):
    """A conditional model whose samples are what a test says they are."""

    follows: float = 1.0

    def decoded(self, codes: Tensor, context: Tensor, guidance: float = 1.0) -> Tensor:
        """Return a half of 0.75 more or less above or below, as far as it follows the class."""
        images = torch.full((len(codes), 1, 8, 8), 0.375)
        sign = context[:, 0] - context[:, 1]
        step = 0.375 * self.follows * sign[:, None, None, None]
        images[:, :, :4] += step
        images[:, :, 4:] -= step
        return images


@pytest.mark.parametrize(("follows", "ignored"), [(1.0, False), (0.1, True)])
def test_a_sample_of_every_class_is_compared_with_the_means_of_real_images(
    halves: Splits, follows: float, ignored: bool
) -> None:
    """A half is 0.75 on average in one class and 0 in the other: a variance of 0.28125."""
    model = train("cvae", halves, **{**SMALL, "epochs": 1})
    model.__class__ = Drawn
    assert isinstance(model, Drawn)
    model.follows = follows
    effect = measuring.label_effect(model, halves.train, 0)
    assert effect is not None
    assert effect.samples == pytest.approx(0.28125 * follows**2, rel=1e-4)
    assert effect.images == pytest.approx(0.28125, rel=0.06)
    assert ("labels ignored" in found(Measured(config("cvae"), labels=effect))) is ignored


def test_a_linear_discriminant_is_right_as_often_as_it_can_be() -> None:
    """Two normals 1 apart in each of 4 dimensions: Φ(√4 / 2) = 0.841; none apart: ½."""
    generator = torch.Generator().manual_seed(0)
    on = torch.arange(4000) % 2 == 0
    z = torch.randn(4000, 4, generator=generator)
    for apart, expected in ((1.0, 0.841), (0.0, 0.5)):
        moved = z + apart * on[:, None]
        hits = measuring._discriminated(moved[:2000], on[:2000], moved[2000:]) == on[2000:]
        assert float(hits.double().mean()) == pytest.approx(expected, abs=0.03)


def test_a_flow_is_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow that takes the brightness out of z leaves chance; one that moves by it does not."""
    images = np.repeat(np.linspace(0.1, 0.9, 400, dtype=np.float32), 64).reshape(400, 1, 8, 8)
    rows = np.random.default_rng(0).permutation(400)
    bright = (images[:, 0, 0, 0] > 0.5).astype(np.float32)
    splits = load_data({"images": images[rows], "attributes": bright[rows, None]})
    model = train("csvae", splits, **{**SMALL, "latent_dim": 2, "epochs": 1})

    def moved_by(shift: float) -> float:
        def forward(self: Transport, h: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
            noise = torch.randn(h.shape, generator=torch.Generator().manual_seed(0))
            return noise + shift * u[:, :1], torch.zeros(len(h))

        monkeypatch.setattr(Transport, "forward", forward)
        accuracy = measuring.flow_accuracy(model, splits.train, splits.validation)
        assert accuracy is not None
        return accuracy[1]

    assert moved_by(2.0) > 0.85
    assert moved_by(0.0) < 0.6


def test_the_mean_image_is_measured_as_it_is(spots: Splits) -> None:
    model = train("vae", spots, **{**SMALL, "epochs": 1})
    flat = [np.full((20, 1, 12, 10), value, np.uint8) for value in (51, 102)]
    train_set, images = (ImageSet(torch.from_numpy(each)) for each in flat)
    error = measuring.mean_image_error(model, images, torch.arange(20), train_set)
    assert error == pytest.approx(0.2**2, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a/photo12_crop3.png", "a/photo12"),
        ("aitzgorri-00.jpg", "aitzgorri"),
        ("walk.gif#7", "walk.gif"),
        ("IMG_0001.jpg", "IMG"),
        ("photo12.png", ""),
        ("2024-05-01 12.30.55.jpg", ""),
        ("1f1e6-1f1e8.png", ""),
        ("DejaVuSans-Bold.png", ""),
        ("0007.png", ""),
    ],
)
def test_the_stem_of_a_name_ends_before_its_last_number(name: str, stem: str) -> None:
    assert stem_of(name) == stem


def test_names_that_only_number_images_make_no_groups() -> None:
    assert groups_of([f"IMG_{k:04}.jpg" for k in range(9)]) is None
    assert groups_of([f"{c}/{c}_{k}.png" for c in "ab" for k in range(9)]) is None
    assert groups_of(["a_1.png", "a_2.png", "b_1.png"]) == ["a", "a", "b"]


def crops(alike: float) -> tuple[ImageSet, ImageSet]:
    """Return 5 crops of each of 30 photos, of a colour of its own as far as they are ``alike``."""
    generator = np.random.default_rng(0)
    colours = generator.uniform(0, 1, (30, 1, 3, 1, 1))
    noise = generator.uniform(0, 1, (30, 5, 3, 8, 8))
    pixels = (255 * (alike * colours + (1 - alike) * noise)).astype(np.uint8).reshape(150, 3, 8, 8)
    names = listed([f"photo{k // 5}_{k % 5}.png" for k in range(150)])
    images = ImageSet(torch.from_numpy(pixels), names=names)
    held_out = torch.arange(150) % 5 == 0
    return images.subset((~held_out).nonzero()[:, 0]), images.subset(held_out.nonzero()[:, 0])


def test_crops_of_the_same_photo_are_known_by_name_and_look() -> None:
    kin = measuring.kin_of(*crops(0.9))
    assert kin is not None
    assert (kin.held_out, kin.kin, kin.pair) == (30, 30, ("photo0_0.png", "photo0_4.png"))
    assert kin.nearest > 0.9
    assert kin.chance == pytest.approx(4 / 120)
    commands = found(Measured(config(), "runs/a", kin=kin))
    expected = "vaelab train --config runs/a/config.yaml -s data.group=file-name"
    assert commands == {"parts of the same photo": expected}


def test_names_or_looks_alone_are_no_sign_of_the_same_photo() -> None:
    kin = measuring.kin_of(*crops(0.0))  # names of which the looks know nothing
    assert kin is not None
    assert kin.nearest < 0.2
    assert found(Measured(config(), kin=kin)) == {}
    few_classes = Kin(held_out=100, kin=100, nearest=0.6, chance=0.5, pair=("cat.1", "cat.2"))
    assert found(Measured(config(), kin=few_classes)) == {}
    train_set, held_out = crops(0.9)
    numbered = replace(held_out, names=listed([f"{k}.png" for k in range(30)]))
    assert measuring.kin_of(train_set, numbered) is None
    grouped = config().model_copy(
        update={"data": config().data.model_copy(update={"group": "file-name"})}
    )
    assert found(Measured(grouped, kin=measuring.kin_of(train_set, held_out))) == {}


def test_images_are_grouped_by_their_names(tmp_path: Path) -> None:
    for k in range(60):
        pixels = np.full((8, 8), k, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photo{k // 6}_{k % 6}.png")
    splits = load_data(tmp_path, group="file-name", cache_dir=tmp_path / "cache")
    parts = [
        {stem_of(name) for name in part.names or ()}
        for part in (splits.train, splits.validation, splits.test)
    ]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10
    assert all(parts)
    for path in tmp_path.glob("*.png"):
        path.rename(tmp_path / f"{path.stem.replace('_', '')}.png")
    with pytest.raises(ConfigError, match=r"data\.group: no names of .* differ in more than"):
        load_data(tmp_path, group="file-name", cache_dir=tmp_path / "cache")


def test_commands_say_it_once_and_what_they_advise_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, run = tmp_path / "spots.npz", tmp_path / "run"
    np.savez(images, images=blobs(100, 12, 12))
    settings = ["--latent-dim", "2", "--batch-size", "8", "--epochs", "60", "--beta", "1e5"]
    settings += ["-s", "model.encoder.widths=[4]", "--device", "cpu"]
    command = ["train", "beta-vae", "--data", str(images), "--out", str(run), *settings]
    code, out, err = run_vaelab(capsys, *command)
    assert code == 0, err
    assert (out + err).count("Posterior collapse") == 1
    (finding,) = [each for each in diagnose(run) if each.name == "posterior collapse"]
    assert finding.command in out + err
    program, *advised = shlex.split(finding.command)
    assert program == "vaelab"
    code, text, err = run_vaelab(capsys, "--json", *advised, "--dry-run")
    assert code == 0, err
    assert json.loads(text)["config"]["options"]["beta"] == 1
    code, text, err = run_vaelab(capsys, "--json", "evaluate", str(run), "--samples", "5")
    assert code == 0, err
    assert "posterior collapse" in [each["name"] for each in json.loads(text)["findings"]]
    _, out, _ = run_vaelab(capsys, "evaluate", str(run), "--samples", "5")
    assert f"Noted before ({run}/log.jsonl): posterior collapse" in out
    assert "Posterior collapse" not in out
    assert run_vaelab(capsys, "report", str(run))[0] == 0
    page = (run / "report.html").read_text()
    assert page.index("What is wrong") < page.index('id="figures"') < page.index('id="notes"')
    assert page.count("Posterior collapse") == 1
