from __future__ import annotations

import gc
import os
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from vaelab.data import (
    Batches,
    ImageSet,
    Splits,
    binarize,
    epoch_order,
    fetch,
    load_data,
    resident,
)
from vaelab.data.filed import FileImages
from vaelab.errors import DataError


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def image_set(count: int = 103) -> ImageSet:
    images = torch.from_numpy(noise(count, 3, 4, 5))
    return ImageSet(images, torch.arange(count) % 7, torch.rand(count, 2).round())


def drawn(images: ImageSet, batch_size: int = 10, **options: Any) -> list[list[int]]:
    return [batch.index.tolist() for batch in Batches(images, batch_size, device="cpu", **options)]


# ------------------------------------------------------------------------------------------ batches


def test_a_pass_gives_every_image_once_with_its_own_label() -> None:
    images = image_set()
    assert images.labels is not None
    assert images.attributes is not None
    seen = []
    for batch in Batches(images, 10, device="cpu", seed=3, epoch=2):
        assert batch.images.dtype == torch.float32
        assert batch.target is batch.images
        assert batch.labels is not None
        assert batch.attributes is not None
        expected = images.take(batch.index).double() / 255
        torch.testing.assert_close(batch.images.double(), expected, rtol=0, atol=1e-7)
        assert torch.equal(batch.labels, images.labels[batch.index])
        assert torch.equal(batch.attributes, images.attributes[batch.index])
        seen += batch.index.tolist()
    assert sorted(seen) == list(range(103))
    assert seen == epoch_order(103, 3, 2).tolist()


def test_extreme_pixels_are_exact() -> None:
    images = ImageSet(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    assert fetch(images, torch.tensor([0, 1]), "cpu").images.flatten().tolist() == [0.0, 1.0]


def test_order_is_a_function_of_seed_and_epoch_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    orders = {tuple(epoch_order(50, seed, epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert tuple(epoch_order(50, 1, 1).tolist()) in orders
    assert epoch_order(8, 0, 0).tolist() == epoch_order(8, 0, 0).tolist()


def test_a_pass_resumes_where_it_was_left() -> None:
    images = image_set()
    whole = drawn(images, epoch=4)
    assert drawn(images, epoch=4, start=6) == whole[6:]
    assert len(Batches(images, 10, device="cpu", start=6)) == 5
    assert drawn(images, start=11) == []


def test_shards_put_together_are_the_batches_of_one_process() -> None:
    images = image_set()
    whole = drawn(images)
    shards = [drawn(images, rank=rank, world=3) for rank in range(3)]
    assert [list(chain(*parts)) for parts in zip(*shards, strict=True)] == whole
    assert max(len(part[0]) for part in shards) - min(len(part[0]) for part in shards) <= 1


def test_a_last_batch_of_fewer_images_than_processes_goes_to_each_of_them() -> None:
    images = image_set(101)
    shards = [drawn(images, rank=rank, world=2) for rank in range(2)]
    assert [len(shard) for shard in shards] == [11, 11]
    assert shards[0][-1] == shards[1][-1] == drawn(images)[-1]
    with pytest.raises(DataError, match="cannot feed 11 processes"):
        Batches(images, 10, device="cpu", world=11)


def test_without_shuffling_the_order_is_that_of_the_set() -> None:
    assert list(chain(*drawn(image_set(), shuffle=False))) == list(range(103))


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"start": -1}, {"rank": 1}, {"rank": -1}])
def test_impossible_batches(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="batch_size="):
        Batches(image_set(), **{"batch_size": 4, "device": "cpu", **options})  # type: ignore[arg-type]


def test_binarize() -> None:
    images = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    assert binarize(images, "none") is images
    assert binarize(images, "threshold").tolist() == [0, 0, 0, 1, 1]
    noise = torch.tensor([0.0, 0.2, 0.5, 0.7, 0.999])
    assert binarize(images, "dynamic", noise).tolist() == [0, 1, 0, 1, 1]
    many = torch.full((100_000,), 0.3)
    draws = binarize(
        many, "dynamic", torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    )
    assert abs(float(draws.mean()) - 0.3) < 4 * (0.3 * 0.7 / 100_000) ** 0.5
    with pytest.raises(ValueError, match="needs uniform noise"):
        binarize(images, "dynamic")


def test_batch_moves_with_its_target() -> None:
    batch = fetch(image_set(), torch.tensor([5, 2]), "cpu").to("meta")
    assert batch.target is batch.images
    assert batch.labels is not None
    assert {batch.images.device.type, batch.labels.device.type, batch.index.device.type} == {"meta"}
    assert len(batch) == 2


def test_resident_leaves_a_cpu_set_alone() -> None:
    images = image_set()
    assert resident(images, "cpu") is images


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_cuda_equal_those_on_the_cpu() -> None:
    images = image_set()
    kept = resident(images, "cuda")
    assert kept.images.device.type == "cuda"
    for given in (kept, images):
        for batch, expected in zip(
            Batches(given, 10, device="cuda"), Batches(images, 10, device="cpu"), strict=True
        ):
            assert batch.labels is not None
            assert expected.labels is not None
            assert torch.equal(batch.images.cpu(), expected.images)
            assert torch.equal(batch.labels.cpu(), expected.labels)


# ------------------------------------------------------------------------------- sets in a file


def expect_equal(filed: Splits, memory: Splits) -> None:
    assert isinstance(filed.train.images, FileImages)
    assert isinstance(memory.train.images, torch.Tensor)
    for one, two in (
        (filed.train, memory.train),
        (filed.validation, memory.validation),
        (filed.test, memory.test),
    ):
        assert one.shape == two.shape
        pairs = zip(Batches(one, 7, device="cpu"), Batches(two, 7, device="cpu"), strict=True)
        for first, second in pairs:
            assert torch.equal(first.images, second.images)
            assert torch.equal(first.index, second.index)
            if second.labels is not None:
                assert first.labels is not None
                assert torch.equal(first.labels, second.labels)


@pytest.mark.parametrize("kind", ["array", "items", "npy", "npz", "folder"])
def test_a_set_in_a_file_gives_the_same_batches(kind: str, tmp_path: Path) -> None:
    images = noise(60, 6, 9, 3)
    source: Any = images
    if kind == "items":
        source = [(image, number % 3) for number, image in enumerate(images)]
    elif kind == "npy":
        source = tmp_path / "a.npy"
        np.save(source, images)
    elif kind == "npz":
        source = tmp_path / "a.npz"
        np.savez_compressed(source, images=images, labels=np.arange(60))
    elif kind == "folder":
        source = tmp_path / "in"
        write_folder(source, images)
    cache = tmp_path / "cache"
    filed = load_data(source, memory_budget=0, cache_dir=cache)
    expect_equal(filed, load_data(source, cache_dir=tmp_path / "none"))
    expected = 0 if kind in ("array", "items") else 1  # what has no name has nothing to find again
    assert len(list(cache.iterdir())) == expected


def write_folder(folder: Path, images: NDArray[np.uint8]) -> None:
    for number, image in enumerate(images):
        path = folder / f"class{number % 2}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def test_a_view_of_a_view_picks_the_right_rows(tmp_path: Path) -> None:
    images = noise(40, 2, 3)
    kept = load_data(images, memory_budget=0, cache_dir=tmp_path, split=(1, 0, 0)).train
    view = kept.subset(torch.arange(0, 40, 2)).subset(torch.tensor([3, 1]))
    expected = torch.from_numpy(images[[2, 6]])[:, None]
    assert torch.equal(view.take(torch.tensor([1, 0])), expected)
    assert torch.equal(torch.cat(list(kept.chunks(7)))[:, 0], torch.from_numpy(images))


def test_budget_counts_the_images_twice(tmp_path: Path) -> None:
    images = noise(20, 10, 10)
    for budget, kind in ((4000, torch.Tensor), (3999, FileImages)):
        splits = load_data(images, memory_budget=budget, cache_dir=tmp_path)
        assert isinstance(splits.train.images, kind)


# ------------------------------------------------------------------------------------------- cache


class Counted:
    """Loads a folder through a cache and counts the images that were decoded for it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache, self.decoded = folder, cache, 0

    def load(self, **options: Any) -> Splits:
        self.decoded = 0

        def progress(done: int, total: int) -> None:
            assert 0 < done <= total
            self.decoded = done

        return load_data(
            self.folder, memory_budget=0, cache_dir=self.cache, progress=progress, **options
        )


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    write_folder(tmp_path / "in", noise(30, 5, 4))
    return Counted(tmp_path / "in", tmp_path / "cache")


def test_cache_is_used_again_and_renewed_when_the_folder_changes(counted: Counted) -> None:
    first = counted.load()
    assert counted.decoded == 30
    again = counted.load()
    assert counted.decoded == 0
    assert torch.equal(first.train.take(torch.arange(24)), again.train.take(torch.arange(24)))
    counted.load(size=(3, 3))
    assert counted.decoded == 30
    path = counted.folder / "class0" / "000.png"
    Image.fromarray(np.full((5, 4), 77, np.uint8)).save(path)
    os.utime(path, ns=(1, 1))
    changed = counted.load()
    assert counted.decoded == 30
    everything = [
        part.take(torch.arange(len(part)))
        for part in (changed.train, changed.validation, changed.test)
    ]
    assert int((torch.cat(everything) == 77).all((1, 2, 3)).sum()) == 1
    assert len(list(counted.cache.iterdir())) == 2  # one for each set of options
    (counted.folder / "class1" / "029.png").unlink()
    assert len(counted.load().train) == 23
    assert counted.decoded == 29


@pytest.mark.parametrize("damage", ["short", "empty", "footer", "middle", "long"])
def test_a_damaged_cache_is_written_anew(damage: str, counted: Counted) -> None:
    first = counted.load()
    (path,) = counted.cache.iterdir()
    data = path.read_bytes()
    path.unlink()  # the first set keeps its own file
    path.write_bytes(
        {
            "short": data[:-1],
            "empty": b"",
            "footer": data[:-16] + bytes(16),
            "middle": data[:100] + data[101:],
            "long": data + b"x",
        }[damage]
    )
    again = counted.load()
    assert counted.decoded == 30
    assert torch.equal(first.test.take(torch.arange(3)), again.test.take(torch.arange(3)))
    counted.load()
    assert counted.decoded == 0


def test_cache_remembers_unreadable_images(counted: Counted) -> None:
    (counted.folder / "class0" / "002.png").write_bytes(b"text")
    for decoded in (30, 0):
        with pytest.raises(DataError, match=r"1 of 30 .*class0/002.png.*--skip-bad"):
            counted.load()
        assert counted.decoded == decoded
    splits = counted.load(skip_bad=True)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 29


def test_a_source_that_fails_leaves_no_cache(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((20, 4, 4), 2.0))
    with pytest.raises(DataError, match=r"a.npy: all values are 2. Pass --range"):
        load_data(tmp_path / "a.npy", memory_budget=0, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/cache cannot be written .*VAELAB_CACHE"):
        load_data(noise(20, 4, 4), memory_budget=0, cache_dir=tmp_path / "file" / "cache")


def test_abandoned_files_are_removed_and_others_kept(counted: Counted) -> None:
    counted.cache.mkdir()
    old, new, other = (counted.cache / name for name in ("a.pixels.tmp", "b.pixels.tmp", "c.tmp"))
    for path in (old, new, other):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    counted.load()
    assert [old.exists(), new.exists(), other.exists()] == [False, True, True]


def test_cache_folder_comes_from_the_environment(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAELAB_CACHE", str(tmp_path / "named"))
    load_data(counted.folder, memory_budget=0)
    assert len(list((tmp_path / "named").iterdir())) == 1


def test_memory_stays_bounded_over_a_set_in_a_file(tmp_path: Path) -> None:
    count, side = 51_200, 64
    path = tmp_path / "big.npy"
    big = np.lib.format.open_memmap(path, "w+", np.uint8, (count, side, side))
    marked = torch.arange(0, count, 997)
    for row in marked.tolist():
        big[row] = row % 251
    del big
    gc.collect()
    process = psutil.Process()
    before, grown, total = process.memory_info().rss, [], 0

    def measure(*_: int) -> None:
        grown.append(process.memory_info().rss - before)

    splits = load_data(path, split=(1, 0, 0), memory_budget=0, cache_dir=tmp_path, progress=measure)
    for batch in Batches(splits.train, 256, device="cpu"):
        measure()
        total += len(batch)
    assert total == count
    assert len(grown) > 200
    assert max(grown) < 60e6  # of 210 MB written and read
    found = splits.train.take(marked).flatten(1)
    assert torch.equal(found, (marked % 251).to(torch.uint8)[:, None].expand(-1, side * side))
