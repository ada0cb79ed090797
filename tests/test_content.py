"""What is known of images by their content: fingerprints, copies, what a run has seen."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vaelab
from vaelab.data.images import ImageSet, Splits, joined
from vaelab.data.load import load_data
from vaelab.data.summary import fingerprint
from vaelab.errors import RunError

TINY = {"latent_dim": 2, "batch_size": 500, "config": {"model": {"encoder": {"widths": [4, 8]}}}}


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
    return Splits("noise", *(images.subset(part) for part in rows))


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
