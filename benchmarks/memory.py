"""Memory: held from epoch to epoch, and of training on a folder of a million images.

The first part trains some epochs and reads the resident set after each. The second writes a
million real PNG files, reads them through the cache file and trains an epoch on them; its
baseline is the peak of a process that does the same with a thousand of them in memory.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from machine import Table, cores, finish, load, parser
from turns import Contender

GROWTH_LIMIT = 0.5  # MB an epoch, over the second half of the epochs
ABOVE_LIMIT = 1000.0  # MB of a million images above the baseline
CACHE_BUDGET = 2**20  # bytes that loading may hold in memory: images go to the file
PER_FOLDER = 1000


def held(epochs: int) -> None:
    """Child: train on the digits and report the resident set after every epoch."""
    import psutil
    from plain import SAME_NETWORK
    from turns import Turn

    import vaelab
    from vaelab.training.progress import Silent

    turn, process = Turn(), psutil.Process()
    turn.wait()

    class Look(Silent):
        def epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
            turn.report(held=process.memory_info().rss / 1e6)

    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/run"
        vaelab.train("vae", "mnist", out, progress=Look(), epochs=epochs + 1, **SAME_NETWORK)
    turn.wait()


def train_folder(path: Path, budget: int | None) -> None:
    """Child: read a folder, train one epoch on it, report times; the peak rides along."""
    from plain import SAME_NETWORK
    from torch import Tensor
    from turns import Turn

    import vaelab

    turn = Turn()
    turn.wait()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        splits = vaelab.load_data(path, memory_budget=budget, cache_dir=Path(folder) / "cache")
        reading = turn.seconds()
        vaelab.train("vae", splits, f"{folder}/run", epochs=1, **SAME_NETWORK)
        turn.report(
            reading=reading,
            training=turn.seconds() - reading,
            count=len(splits.train),
            in_memory=isinstance(splits.train.images, Tensor),
        )
    turn.wait()


def write_folder(path: Path, first: int) -> None:
    """Write `PER_FOLDER` grey PNG files of 28×28 pixels: noisy discs, each of its own seed."""
    import numpy as np
    from PIL import Image

    path.mkdir(parents=True)
    rows, columns = np.mgrid[:28, :28]
    random = np.random.default_rng(first)
    for number in range(first, first + PER_FOLDER):
        y, x, radius = random.uniform((8, 8, 3), (20, 20, 8))
        disc = 200 * ((rows - y) ** 2 + (columns - x) ** 2 < radius**2)
        pixels = (disc + random.integers(0, 55, (28, 28))).astype(np.uint8)
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "png", compress_level=1)
        (path / f"{number:07d}.png").write_bytes(encoded.getvalue())


def held_table(epochs: int, threads: int) -> Table:
    """Measure memory held after each epoch, and require that it does not grow."""
    child = Contender("held", [__file__, "held", str(epochs)], threads)
    sizes = [child.turn()["held"], *(child._listen()["held"] for _ in range(epochs - 1))]
    child.stop()
    steady = sizes[epochs // 2 :]
    middle = (len(steady) - 1) / 2
    slope = sum((i - middle) * size for i, size in enumerate(steady)) / sum(
        (i - middle) ** 2 for i in range(len(steady))
    )
    table = Table("Memory held after each epoch", ["epoch", "resident MB"])
    table.rows = [[str(number), f"{size:,.1f}"] for number, size in enumerate(sizes, 1)]
    table.require(
        slope <= GROWTH_LIMIT,
        f"growth of {slope:+.2f} MB an epoch in the second half (least squares), at most "
        f"{GROWTH_LIMIT:g}; {sizes[-1] - sizes[epochs // 2]:+.1f} MB in all.",
    )
    return table


def folder_table(count: int, threads: int) -> Table:
    """Measure training on a folder of ``count`` files, and require that memory stays bounded."""
    with tempfile.TemporaryDirectory() as root:
        begun = time.perf_counter()
        small, large = Path(root) / "small", Path(root) / "large"
        write_folder(small / "00000", 0)
        starts = range(0, count, PER_FOLDER)
        with ProcessPoolExecutor(cores()) as pool:
            folders = [large / f"{start // PER_FOLDER:05d}" for start in starts]
            list(pool.map(write_folder, folders, starts))
        writing = time.perf_counter() - begun
        reports = {}
        for path, budget in ((small, None), (large, CACHE_BUDGET)):
            arguments = [__file__, "folder", str(path), str(budget or "")]
            child = Contender(path.name, arguments, threads)
            reports[path.name] = child.turn()
            child.stop()
    baseline, found = reports["small"], reports["large"]
    if found["in_memory"]:
        raise RuntimeError("the images were kept in memory, not in the cache file")
    above = found["peak_mb"] - baseline["peak_mb"]
    table = Table(
        f"A folder of {count:,} images",
        ["", "trained on", "images/s, reading", "images/s, training", "peak MB"],
    )
    for name, report, size in (
        ("baseline, in memory", baseline, PER_FOLDER),
        ("cache file", found, len(starts) * PER_FOLDER),
    ):
        table.rows.append(
            [
                name,
                f"{report['count']:,}",
                f"{size / report['reading']:,.0f}",
                f"{report['count'] / report['training']:,.0f}",
                f"{report['peak_mb']:,.0f}",
            ]
        )
    table.notes = [
        f"{len(starts) * PER_FOLDER:,} grey PNG files of 28×28 in {len(starts):,} folders, written "
        f"in {writing:,.0f} s; one epoch of model M, batch 128, validation included. Peaks are of "
        "the whole process.",
    ]
    table.require(
        above <= ABOVE_LIMIT,
        f"{above:,.0f} MB above the baseline, at most {ABOVE_LIMIT:,.0f}.",
    )
    return table


def main() -> int:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--epochs", type=int, default=20, help="whose held memory is read")
    arguments.add_argument("--images", type=int, help="in the folder; 1,000,000 unless --quick")
    given = arguments.parse_args()
    before = load()
    tables = [
        held_table(max(6, given.epochs), given.threads),
        folder_table(given.images or (20_000 if given.quick else 1_000_000), given.threads),
    ]
    tables[-1].notes.append(f"{given.threads} threads; load before: {before}.")
    return finish(tables, given.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["held"]:
        held(int(sys.argv[2]))
    elif sys.argv[1:2] == ["folder"]:
        train_folder(Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3] else None)
    else:
        sys.exit(main())
