"""Whatever bytes are read: images, or a `DataError`."""

from __future__ import annotations

import gzip
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.test_data import idx_bytes, noise
from vaelab.data import load_data
from vaelab.errors import DataError

bounded = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def picture(suffix: str) -> bytes:
    image = Image.fromarray(noise(6, 5, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(lambda file: image.save(file, suffix, exif=exif))


IDX = idx_bytes(noise(12, 4, 4))
NPY = saved(lambda file: np.save(file, noise(12, 4, 4)))
NPZ = saved(lambda file: np.savez(file, images=noise(12, 4, 4), labels=np.arange(12)))
PACKED = saved(lambda file: np.savez_compressed(file, images=noise(12, 4, 4) / 255))
PNG = saved(lambda file: Image.fromarray(noise(6, 5, 3)).save(file, "png"))
CSV = b"file,a,b\na.png,1,0\nb.png,,1\n"


@st.composite
def mutated(draw: st.DrawFn, whole: bytes, head: int = 400) -> bytes:
    """A valid file with some bytes changed, mostly near its start, cut or lengthened."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        end = draw(st.sampled_from([head, len(data)]))
        at = draw(st.integers(0, min(end, len(data)) - 1))
        data[at] = draw(st.one_of(st.integers(0, 255), st.just(data[at] ^ 1)))
    cut = draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    return bytes(data[:cut]) + draw(st.binary(max_size=8))


def readable(
    name: str, data: bytes, beside: dict[str, bytes] | None = None, **options: Any
) -> bool:
    """Whether a folder with this file, and others beside it, holds images that load.

    Nothing but a `DataError` that ends as a sentence may come out where it does not.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        for other, content in (beside or {}).items():
            Path(folder, other).write_bytes(content)
        try:
            splits = load_data(
                path if path.suffix in (".npy", ".npz") else folder,
                memory_budget=2**26,
                cache_dir=Path(folder, "cache"),
                **options,
            )
        except DataError as error:
            if not str(error).endswith("."):
                raise
            return False
        first = splits.train.take(torch.tensor([0]))
        assert first.dtype == torch.uint8
        assert first.shape == (1, *splits.train.shape)
        return True


@bounded
@given(st.one_of(st.binary(max_size=200), mutated(IDX), mutated(gzip.compress(IDX, mtime=0))))
@example(IDX)
def test_idx(data: bytes) -> None:
    found = readable("train-images-idx3-ubyte", data)
    assert found or data != IDX


@bounded
@given(mutated(idx_bytes(np.arange(12, dtype=np.uint8))))
def test_idx_labels(data: bytes) -> None:
    readable("train-images-idx3-ubyte", IDX, {"train-labels-idx1-ubyte": data})


@bounded
@given(st.one_of(st.binary(max_size=200), mutated(NPY, 128)))
@example(NPY)
def test_npy(data: bytes) -> None:
    found = readable("a.npy", data)
    assert found or data != NPY


@bounded
@given(st.one_of(st.binary(max_size=200), mutated(NPZ), mutated(PACKED, 200)))
@example(PACKED)
def test_npz(data: bytes) -> None:
    found = readable("a.npz", data)
    assert found or data != PACKED


@pytest.mark.parametrize("suffix", ["png", "jpeg", "bmp", "webp", "tiff"])
@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_image_folder(suffix: str, data: st.DataObject) -> None:
    whole = picture(suffix)
    content = data.draw(st.one_of(st.binary(max_size=100), mutated(whole, 120)))
    assert readable(f"b.{suffix}", content, {"a.png": PNG}, skip_bad=True, size=(6, 5))
    readable(f"b.{suffix}", content)


@bounded
@given(
    st.one_of(
        mutated(CSV),
        st.binary(max_size=60).map(lambda tail: b"file,a\n" + tail),
        st.text(max_size=60).map(lambda tail: b"file,a\n" + tail.encode()),
        st.lists(
            st.sampled_from(["a.png", "b.png", ",", "1", "-0.5", "1e39", "\n", '"', "../a.png"])
        ).map(lambda parts: ("file,a\n" + "".join(parts)).encode()),
    )
)
@example(CSV)
def test_attributes(data: bytes) -> None:
    found = readable("attributes.csv", data, {"a.png": PNG, "b.png": PNG})
    assert found or data != CSV


@given(st.binary(max_size=64), st.sampled_from(["a.pixels.tmp", "x.pixels"]))
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
def test_other_files_in_the_cache(data: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(data)
        splits = load_data(noise(12, 4, 4), memory_budget=0, cache_dir=Path(folder))
        assert len(splits.train) == 10


def test_a_header_cannot_make_memory_or_disk_run_out(tmp_path: Path) -> None:
    header = saved(lambda file: np.save(file, noise(12, 4, 4)))[:128]
    huge = header.replace(b"(12, 4, 4), }    ", b"(9999999, 4, 4),}")
    assert len(huge) == 128
    assert huge != header
    (tmp_path / "a.npy").write_bytes(huge)
    with pytest.raises(DataError, match=r"is truncated \(shape \(9999999, 4, 4\)\)"):
        load_data(tmp_path / "a.npy")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (ran,)

    trap = np.array([Trap()] * 12, dtype=object)
    np.save(tmp_path / "a.npy", trap, allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=noise(12, 4, 4), labels=trap)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match="objects are never read"):
            load_data(tmp_path / name)
    assert not ran.exists()
