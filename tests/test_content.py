"""What is known of images by their content: fingerprints, copies, what a run has seen."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vaelab
from tests.test_cli import vaelab as cli
from vaelab.cli.main import run as run_cli
from vaelab.data.images import ImageSet, Splits, joined
from vaelab.data.load import load_data
from vaelab.data.summary import fingerprint
from vaelab.errors import RunError
from vaelab.training.run import Run

TINY: dict[str, Any] = {
    "latent_dim": 2,
    "batch_size": 500,
    "config": {"model": {"encoder": {"widths": [4, 8]}}},
}


def noise(count: int, seed: int = 0, side: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side), dtype=np.uint8)


def splits_of(count: int = 3000) -> Splits:
    generator = torch.Generator().manual_seed(1)
    images = ImageSet(
        torch.from_numpy(noise(count))[:, None],
        torch.randint(3, (count,), generator=generator),
        torch.randn(count, 2, generator=generator),
        ("a", "b", "c"),
        ("long", "wide"),
    )
    rows = torch.arange(count).chunk(3)
    train, validation, test = (images.subset(part) for part in rows)
    return Splits("noise", train, validation, test)


def test_the_hash_of_an_image_is_that_of_its_pixels_in_memory_and_in_a_file(tmp_path: Path) -> None:
    images = noise(50)
    np.save(tmp_path / "x.npy", images)
    known = [
        int.from_bytes(
            hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little", signed=True
        )
        for row in images
    ]
    for budget in (None, 1):  # in memory; in a file, from the pixels, and from the cache
        for _ in range(2):
            splits = load_data(
                tmp_path / "x.npy", split=(1, 0, 0), memory_budget=budget, cache_dir=tmp_path / "c"
            )
            assert splits.train.hashes.tolist() == known
            assert splits.train.subset(torch.tensor([7, 3])).hashes.tolist() == [known[7], known[3]]
    assert len(list((tmp_path / "c" / "hashes").iterdir())) == 1


def test_a_fingerprint_covers_every_image_label_attribute_and_name() -> None:
    splits = splits_of()
    known = fingerprint(splits)
    assert fingerprint(splits_of()) == known
    test = splits.test
    assert test.labels is not None
    assert test.attributes is not None
    for row in (1, 333, 998):  # none of those that an even sample would hold
        pixels = test.images.index_select(0, torch.arange(len(test))).clone()
        pixels[row, 0, 2, 3] ^= 1
        labels, attributes = test.labels.clone(), test.attributes.clone()
        labels[row] = (labels[row] + 1) % 3
        attributes[row, 1] += 1e-3
        for other in (
            replace(test, images=pixels),
            replace(test, labels=labels),
            replace(test, attributes=attributes),
            replace(test, class_names=("a", "c", "b")),
            replace(test, attribute_names=("wide", "long")),
        ):
            assert fingerprint(replace(splits, test=other)) != known
    turned = replace(splits, train=splits.test, test=splits.train)
    assert fingerprint(turned) != known


def test_parts_together_are_the_set() -> None:
    splits = splits_of(30)
    whole = joined([splits.train, splits.validation, splits.test])
    assert whole.take(torch.arange(30)).squeeze(1).numpy().tolist() == noise(30).tolist()
    assert whole.labels is not None
    assert whole.labels[10:20].tolist() == splits.validation.labels.tolist()  # type: ignore[union-attr]
    assert whole.hashes[20:].tolist() == splits.test.hashes.tolist()


def test_copies_of_images_in_another_part_are_counted(tmp_path: Path) -> None:
    train, test = noise(40), noise(10, seed=1)
    test[:3] = train[[0, 0, 7]]
    np.savez(tmp_path / "x.npz", images=train, test_images=test)
    notes = load_data(tmp_path / "x.npz", split=(0.9, 0.1, 0)).notes
    said = [note for note in notes if note.startswith("Equal in every pixel")]
    # which of the two training images were drawn for validation decides where the copies are
    assert said == [
        "Equal in every pixel: 3 of 10 test images among the training or validation images. On "
        "these, figures say nothing of new images; keep copies in one part."
    ]
    assert not any("Equal" in note for note in load_data(noise(40)).notes)


def test_one_changed_image_of_many_is_noticed_before_a_resume(tmp_path: Path) -> None:
    images = noise(2400, side=8)
    np.save(tmp_path / "x.npy", images)
    vaelab.train("vae", tmp_path / "x.npy", out=tmp_path / "r", epochs=1, **TINY)
    images[1001, 4, 4] ^= 255
    np.save(tmp_path / "x.npy", images)
    with pytest.raises(RunError, match="not those that it was trained on"):
        vaelab.train(out=tmp_path / "r", resume=True, epochs=2)
    images[1001, 4, 4] ^= 255
    np.save(tmp_path / "x.npy", images)
    vaelab.train(out=tmp_path / "r", resume=True, epochs=2)


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        run_cli(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def photos(folder: Path, count: int = 90, seed: int = 0) -> Path:
    """Bars of two classes as PNG files of 9 × 7, RGB, no two alike."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        kind = number % 2
        image = generator.integers(0, 40, (9, 7, 3), dtype=np.uint8)
        image[:, 1 + 3 * kind : 4 + 3 * kind] += generator.integers(150, 200, dtype=np.uint8)
        place = folder / ("left", "right")[kind]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:03}.png")
    return folder


QUICK = (
    "--epochs", "2", "--latent-dim", "2", "--batch-size", "24", "--device", "cpu",
    "-s", "model.encoder.widths=[4,8]",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run ``r`` of the images in ``photos``: 72 to train on, 9, 9."""
    folder = tmp_path_factory.mktemp("content")
    photos(folder / "photos")
    arguments = ("train", "vae", "-d", str(folder / "photos"), "-o", str(folder / "r"), *QUICK)
    assert run(list(arguments)) == 0
    return folder


@pytest.fixture
def measured(trained: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def measure(*arguments: object) -> dict[str, Any]:
        told = ["--json", "evaluate", str(trained / "r"), "--samples", "5", "--bound-images", "5"]
        code = run([*told, *map(str, arguments)])
        out, err = capsys.readouterr()
        assert code == 0, err
        return {**json.loads(out), "said": err}

    return measure


def parts_of(folder: Path) -> dict[str, list[Path]]:
    """The files of each part, told by the hashes of the run."""
    seen = Run(folder / "r").seen()
    assert seen is not None
    found: dict[str, list[Path]] = {}
    for path in sorted((folder / "photos").rglob("*.png")):
        pixels = np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes()
        digest = hashlib.blake2b(pixels, digest_size=8).digest()
        value = int.from_bytes(digest, "little", signed=True)
        (part,) = (name for name in ("train", "validation", "test") if value in getattr(seen, name))
        found.setdefault(part, []).append(path)
    return found


def test_moved_renamed_and_saved_anew_the_images_are_the_same(
    trained: Path, tmp_path: Path, measured: Callable[..., dict[str, Any]]
) -> None:
    known = measured()
    assert known["verdict"].startswith("Test ELBO")
    assert (known["images"], known["held_out"], known["trained_on"]) == (9, True, 0)
    shutil.copytree(trained / "photos", tmp_path / "moved")
    for number, path in enumerate(sorted((tmp_path / "moved").rglob("*.png"))):
        path.rename(path.with_name(f"{(number * 37) % 101:03}-new.png"))
    files_ = sorted((trained / "photos").rglob("*.png"))
    images = np.stack([np.asarray(Image.open(path)) for path in files_[::-1]])
    np.savez(tmp_path / "anew.npz", images=images[:50], test_images=images[50:])
    for other in ("moved", "anew.npz"):
        found = measured("--data", tmp_path / other)
        assert "split as for its training" in found["said"]
        assert found["verdict"].startswith("Test ELBO")
        assert (found["images"], found["held_out"], found["trained_on"]) == (9, True, 0)
        assert {name: figure["value"] for name, figure in found["figures"].items()} == {
            name: figure["value"] for name, figure in known["figures"].items()
        }
    found = measured("--data", tmp_path / "moved", "--split", "train")
    assert found["verdict"].startswith("Training-set ELBO")
    assert (found["images"], found["trained_on"]) == (72, 72)


def test_images_that_were_trained_on_are_counted_and_never_called_a_test(
    trained: Path, tmp_path: Path, measured: Callable[..., dict[str, Any]]
) -> None:
    parts = parts_of(trained)
    mixed = photos(tmp_path / "mixed", 10, seed=5)
    for number, path in enumerate([*parts["train"][:4], *parts["validation"][:3]]):
        shutil.copy(path, mixed / "left" / f"copy-{number}.png")
    found = measured("--data", mixed)
    assert found["verdict"].startswith(f"ELBO of 17 images of {mixed}, 4 of them trained on: −")
    assert "training used 4 of them" in found["figures"]["elbo"]["protocol"]
    assert (found["held_out"], found["trained_on"]) == (False, 4)
    assert "3 are validation images, by which weights may be chosen" in found["notes"][0]
    some = measured("--data", mixed, "--limit", "6")
    assert some["images"] == 6
    assert some["trained_on"] <= 4
    # a test part of its own that holds an image to train on, beside ones that are new
    split = photos(tmp_path / "split" / "test", 6, seed=6).parent
    photos(split / "train", 12, seed=7)
    assert measured("--data", split)["verdict"].startswith("Test ELBO")
    shutil.copy(parts["train"][5], split / "test" / "left" / "copy.png")
    assert "of 7 images" in (again := measured("--data", split))["verdict"]
    assert again["trained_on"] == 1
    new = measured("--data", photos(tmp_path / "new", 11, seed=8))
    assert new["verdict"].startswith("Test ELBO")
    assert (new["images"], new["held_out"], new["trained_on"]) == (11, True, 0)
    for path in parts["test"]:  # and the run's own test images are new to it, in any company
        shutil.copy(path, tmp_path / "new" / "left" / f"own-{path.name}")
    assert (measured("--data", tmp_path / "new")["images"]) == 20


def test_part_of_the_run_s_images_is_split_as_they_were(
    trained: Path, tmp_path: Path, measured: Callable[..., dict[str, Any]]
) -> None:
    parts = parts_of(trained)
    for path in [*parts["train"][:20], *parts["test"][:4]]:
        place = tmp_path / "some" / "test" / path.parent.name  # whatever the folder says
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    found = measured("--data", tmp_path / "some")
    assert found["verdict"].startswith("Test ELBO")
    assert (found["images"], found["trained_on"]) == (4, 0)
    shutil.rmtree(tmp_path / "some" / "test")
    for path in parts["train"][:20]:
        place = tmp_path / "some" / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    found = measured("--data", tmp_path / "some")
    assert "ELBO of 20 images" in found["verdict"]
    assert "20 of them trained on" in found["verdict"]


def test_a_run_that_kept_no_hashes_does_not_know(
    trained: Path, tmp_path: Path, measured: Callable[..., dict[str, Any]]
) -> None:
    kept = (trained / "r" / "images.safetensors").read_bytes()
    (trained / "r" / "images.safetensors").unlink()
    try:
        assert measured()["verdict"].startswith("Test ELBO")  # by the fingerprint
        shutil.copytree(trained / "photos", tmp_path / "moved")
        assert measured("--data", tmp_path / "moved")["verdict"].startswith("Test ELBO")
        found = measured("--data", photos(tmp_path / "new", 11, seed=8))
        assert "whether trained on or not is not known" in found["verdict"]
        assert (found["held_out"], found["trained_on"]) == (None, None)
    finally:
        (trained / "r" / "images.safetensors").write_bytes(kept)


def test_a_data_set_that_is_gone_is_named_with_what_to_do(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trained / "photos").rename(trained / "elsewhere")
    try:
        assert run(["evaluate", str(trained / "r")]) == 1
        err = capsys.readouterr().err
        assert "does not exist" in err
        assert "If they were moved or renamed, name them with --data." in err
    finally:
        (trained / "elsewhere").rename(trained / "photos")


def test_a_ranking_of_other_images_says_which_were_trained_on(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = photos(tmp_path / "mixed", 6, seed=5)
    shutil.copy(parts_of(trained)["train"][0], mixed / "left" / "copy.png")
    told = ["score", str(trained / "r"), str(mixed), "--by", "error", "-o", str(tmp_path / "s.csv")]
    assert run([*told, "--draws", "2", "--steps", "2"]) == 0
    assert "1 of 7 images" in capsys.readouterr().err
    shutil.copytree(trained / "photos", tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*.png"):
        path.rename(path.with_name(f"{int(path.stem) * 37 % 101}-{path.name}"))
    told = ["score", str(trained / "r"), "--data", str(tmp_path / "moved"), "--by", "error"]
    assert run([*told, "-o", str(tmp_path / "t.csv"), "--draws", "2", "--steps", "2"]) == 0
    names = {
        line.split(",")[1].split("-")[-1] for line in (tmp_path / "t.csv").read_text().splitlines()
    }
    assert {path.name for path in parts_of(trained)["test"]} <= names
    assert len(names) == 10  # and the header


def test_so_few_images_that_none_is_held_out_are_training_images(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", noise(2, side=8))
    told = {**TINY, "batch_size": 2, "epochs": 1}
    vaelab.train("vae", tmp_path / "x.npy", out=tmp_path / "r", **told)
    seen = Run(tmp_path / "r").seen()
    assert seen is not None
    assert seen.train.tolist() == seen.test.tolist()
    assert seen.rows(seen.train) is None  # nothing to test on


def test_what_the_weights_were_trained_on_before_is_no_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run that starts from another, and of one that starts from that."""
    every = noise(90)
    np.save(tmp_path / "one.npy", every[:60])
    np.save(tmp_path / "two.npy", every[60:])
    np.save(tmp_path / "new.npy", noise(20, seed=5))
    vaelab.train("vae", tmp_path / "one.npy", tmp_path / "one", **TINY, epochs=1)
    known = Run(tmp_path / "one").seen()
    assert known is not None

    def said(*arguments: str) -> tuple[str, str]:
        code, out, err = cli(capsys, *arguments)
        assert code == 0
        return out, err

    def start(run: str, other: str, *options: str) -> str:
        made = ["--out", str(tmp_path / run), "--epochs", "1"]
        return said("train", "--from", str(tmp_path / other), *made, *options)[1]

    test = load_data(tmp_path / "one.npy", split_seed=3).test
    number = int(np.isin(test.hashes, known.train).sum())
    assert 1 < number < 6
    note = f"{number} of 6 test images were training images of a run that the weights come from."
    assert note in start("split", "one", "-s", "data.split_seed=3")
    out, err = said("evaluate", str(tmp_path / "split"), "--samples", "2")
    assert note in err
    assert "Test ELBO" not in out

    start("two", "one", "--data", str(tmp_path / "two.npy"))
    start("three", "two", "--data", str(tmp_path / "new.npy"))
    measure = ["evaluate", str(tmp_path / "three"), "--samples", "2"]
    out, err = said(*measure, "--data", str(tmp_path / "one.npy"))
    assert "are training images of this run or of one that its weights come from" in err
    assert "ELBO of 60 images" in out
    assert "48 of them trained on" in out
    assert "Test ELBO" in said(*measure)[0]
