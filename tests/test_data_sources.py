"""What people have in hand, and files of arrays: each is taken with the right classes, or named."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset
from torch.utils.data import TensorDataset as Tensors

from vaelab.config import IN_MEMORY, DataConfig
from vaelab.data import Splits, load_config, load_data
from vaelab.data.pixel_columns import layout
from vaelab.errors import ConfigError, DataError, PickleError

KINDS = np.arange(30) % 3


def striped(kind: int, number: int) -> NDArray[np.uint8]:
    """An RGB image of 5 × 7 pixels whose first pixel tells its class, and the next its number."""
    image = np.full((5, 7, 3), 9, np.uint8)
    image[0, 0], image[0, 1] = 50 + kind, number
    return image


IMAGES = np.stack([striped(int(kind), number) for number, kind in enumerate(KINDS)])


def pairs(splits: Splits) -> list[tuple[int, str | None]]:
    """The kind of each image by its first pixel, and the name of its class."""
    found: list[tuple[int, str | None]] = []
    for part in (splits.train, splits.validation, splits.test):
        pixels = part.take(torch.arange(len(part)))[:, 0, 0, 0].tolist()
        numbers = [-1] * len(part) if part.labels is None else part.labels.tolist()
        names = [part.class_names[k] if k >= 0 else None for k in numbers]
        found += [(pixel - 50, name) for pixel, name in zip(pixels, names, strict=True)]
    return found


def expect(splits: Splits, names: list[str | None]) -> None:
    """Each image has the class that ``names`` gives its kind, and none is lost."""
    found = pairs(splits)
    assert len(found) == len(IMAGES)
    assert {*found} == {(kind, names[kind]) for kind in range(3)}


class Folder(Dataset[Any]):
    """As torchvision's ImageFolder: images of Pillow, numbers, and the names of the classes."""

    classes = ("ant", "bee", "cat")

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> Any:
        return Image.fromarray(IMAGES[index]), int(KINDS[index])


class Column:
    """As a column of pandas: a length, values by iteration, and ``__array__``."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values
        self.shape = (len(values),)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    def __getitem__(self, index: int) -> Any:
        return self.values[index]

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return np.array(self.values, object)


class Frame:
    """As a DataFrame of pandas, as far as images are read from one."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def to_numpy(self) -> NDArray[Any]:
        return np.array(list(self._columns.values()), object).T

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        columns = [np.array(values) for values in self._columns.values()]
        return np.stack(columns, 1).astype(dtype or columns[0].dtype)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return Frame({name: values[key] for name, values in self._columns.items()})
        if isinstance(key, list):
            return Frame({name: self._columns[name] for name in key})
        return Column(self._columns[key])


class ClassLabel:
    """As that of Hugging Face's ``datasets``."""

    def __init__(self, names: list[str]) -> None:
        self.names = names


class Hub:
    """As a ``Dataset`` of Hugging Face: mappings by index, and features with the names."""

    def __init__(self, rows: list[int], names: list[str], label: str = "label") -> None:
        self.rows, self.label = rows, label
        self.features = {"image": object(), label: ClassLabel(names), "id": object()}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        image = Image.fromarray(IMAGES[row])
        return {"image": image, self.label: int(KINDS[row]), "id": f"row {row}"}


def png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


TEXT = np.array(["ox", "ape", "yak"])[KINDS]
NAMED: dict[str, tuple[Callable[[], Any], list[str | None]]] = {
    "numbers from 1": (lambda: (IMAGES, KINDS + 1), ["1", "2", "3"]),
    "gaps": (lambda: (IMAGES, np.array([2, 40, 7])[KINDS]), ["2", "40", "7"]),
    "a column": (lambda: (IMAGES, KINDS[:, None]), ["0", "1", "2"]),
    "one-hot": (lambda: (IMAGES, np.eye(3)[KINDS]), ["0", "1", "2"]),
    "text": (lambda: (IMAGES, TEXT), ["ox", "ape", "yak"]),
    "a list": (lambda: (IMAGES, TEXT.tolist()), ["ox", "ape", "yak"]),
    "a column of pandas": (lambda: (IMAGES, Column(TEXT.tolist())), ["ox", "ape", "yak"]),
    "unknown": (lambda: (IMAGES, np.array([4, -1, 0])[KINDS]), ["4", None, "0"]),
    "None": (lambda: (IMAGES, np.array([4, None, 0])[KINDS]), ["4", None, "0"]),
    "NaN": (lambda: (IMAGES, np.array([1.0, np.nan, 0])[KINDS]), ["1", None, "0"]),
    "empty text": (lambda: (IMAGES, np.array(["a", "", "b"])[KINDS]), ["a", None, "b"]),
    "three arrays": (lambda: (IMAGES, KINDS, np.arange(30)), ["0", "1", "2"]),
    "TensorDataset": (
        lambda: Tensors(torch.from_numpy(IMAGES), torch.from_numpy(KINDS)),
        ["0", "1", "2"],
    ),
    "TensorDataset of three": (
        lambda: Tensors(torch.from_numpy(IMAGES), torch.from_numpy(KINDS), torch.arange(30)),
        ["0", "1", "2"],
    ),
    "items of three": (
        lambda: [(image, int(kind), 7) for image, kind in zip(IMAGES, KINDS, strict=True)],
        ["0", "1", "2"],
    ),
    "items with tensors": (
        lambda: [(image, torch.tensor([k])) for image, k in zip(IMAGES, KINDS, strict=True)],
        ["0", "1", "2"],
    ),
    "items without some labels": (
        lambda: [
            (image, None if kind == 1 else str(kind))
            for image, kind in zip(IMAGES, KINDS, strict=True)
        ],
        ["0", None, "2"],
    ),
    "one-hot items": (
        lambda: [(image, np.eye(3)[kind]) for image, kind in zip(IMAGES, KINDS, strict=True)],
        ["0", "1", "2"],
    ),
    "mappings": (
        lambda: [
            {"pixel_values": image, "fine_label": text}
            for image, text in zip(IMAGES, TEXT, strict=True)
        ],
        ["ox", "ape", "yak"],
    ),
    "bytes": (
        lambda: [
            {"image": {"bytes": png(image), "path": None}, "target": kind}
            for image, kind in zip(IMAGES, KINDS, strict=True)
        ],
        ["0", "1", "2"],
    ),
    "ImageFolder": (Folder, ["ant", "bee", "cat"]),
    "Subset": (lambda: Subset(Folder(), range(30)), ["ant", "bee", "cat"]),
    "ConcatDataset": (
        lambda: ConcatDataset([Subset(Folder(), range(9)), Subset(Folder(), range(9, 30))]),
        ["ant", "bee", "cat"],
    ),
    "pictures and labels": (
        lambda: ([Image.fromarray(image) for image in IMAGES], TEXT.tolist()),
        ["ox", "ape", "yak"],
    ),
    "arrays by name": (
        lambda: {"images": IMAGES, "target": KINDS, "target_names": np.array(["p", "q", "r"])},
        ["p", "q", "r"],
    ),
    "a table of images": (
        lambda: Frame({"image": list(IMAGES), "label": TEXT.tolist()}),
        ["ox", "ape", "yak"],
    ),
    "Hugging Face": (lambda: Hub([*range(30)], ["u", "v", "w"]), ["u", "v", "w"]),
}


@pytest.mark.parametrize("kind", NAMED)
def test_each_source_in_hand_gives_its_classes(kind: str) -> None:
    make, names = NAMED[kind]
    expect(load_data(make()), names)


def test_images_alone_in_a_list_an_object_array_or_a_tensor_data_set() -> None:
    one = np.empty(30, object)
    one[:] = [Image.fromarray(image) for image in IMAGES]
    for source in (list(IMAGES), one, Tensors(torch.from_numpy(IMAGES)), {"x": IMAGES}):
        splits = load_data(source)
        assert splits.train.labels is None
        assert sorted(kind for kind, _ in pairs(splits)) == sorted(KINDS.tolist())


def test_kerass_second_pair_is_the_test_part_and_classes_are_numbered_alike() -> None:
    train = (IMAGES[:20], np.where(KINDS[:20] == 2, 0, KINDS[:20])[:, None])
    test = (IMAGES[20:], KINDS[20:, None])
    splits = load_data((train, test))
    assert len(splits.test) == 10
    assert splits.test.labels is not None
    assert splits.test.labels.tolist() == KINDS[20:].tolist()
    assert splits.train.class_names == ("0", "1", "2")
    assert "No training image is of class 2." in splits.notes


def test_parts_by_name_with_classes_in_another_order_agree_by_name() -> None:
    class Splitted(dict[str, Hub]):
        """As a DatasetDict."""

    data = Splitted(test=Hub([*range(20, 30)], ["u", "v", "w"], "labels"))
    data["train"] = Hub([*range(20)], ["u", "v", "w"], "labels")
    data["other"] = Hub([3], ["u", "v", "w"], "labels")
    splits = load_data(data)
    expect(splits, ["u", "v", "w"])
    assert len(splits.test) == 10
    assert any(note.startswith("other: left alone") for note in splits.notes)
    data["train"] = Hub([*range(20)], ["w", "v", "u"], "labels")  # numbers mean other names here
    found = pairs(load_data(data))
    assert {*found[:20]} == {(0, "w"), (1, "v"), (2, "u")}
    assert {*found[20:]} == {(0, "u"), (1, "v"), (2, "w")}


def test_a_part_without_labels_beside_one_with_labels_is_unknown() -> None:
    images = {"x_train": IMAGES[:20], "y_train": KINDS[:20] + 1, "x_test": IMAGES[20:]}
    splits = load_data(images)
    assert splits.test.labels is not None
    assert splits.test.labels.tolist() == [-1] * 10
    assert splits.test.class_names == ("1", "2", "3")
    assert "dict: 10 of 30 images have no label." in splits.notes


def test_classes_of_unreadable_images_alone_are_left_out() -> None:
    items: list[Any] = [(image, str(k)) for image, k in zip(IMAGES, KINDS, strict=True)]
    items[4] = (np.full((5, 7, 3), np.nan), "zebra")
    splits = load_data(items, skip_bad=True)
    assert splits.train.class_names == ("0", "1", "2")
    assert len(pairs(splits)) == 29


def test_marks_of_items_are_attributes() -> None:
    marks = np.stack([KINDS == 0, KINDS < 2], 1).astype(np.float32)
    splits = load_data(list(zip(IMAGES, torch.from_numpy(marks), strict=True)))
    assert splits.train.attributes is not None
    kinds = splits.train.take(torch.arange(len(splits.train)))[:, 0, 0, 0] - 50
    assert splits.train.attributes.tolist() == [[float(k == 0), float(k < 2)] for k in kinds]
    assert splits.train.labels is None


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(IMAGES)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: DataLoader(Folder()), "gives batches. Pass its data set: loader.dataset"),
        (lambda: (image for image in IMAGES), r"Read them into a list first: list\(data\)"),
        (Stream, r"Stream: gives its items in one order alone.*list\(data\)"),
        (lambda: {"a": 1}, "has the keys a. Name its parts train, validation and test"),
        (lambda: [("a.png", 1)] * 12, "12 of 12 images are unreadable .first: a.png, missing"),
        (lambda: [(IMAGES[0], object())] * 12, "item 0 has a label of type object"),
    ],
)
def test_what_cannot_be_indexed_is_refused_with_the_line_that_helps(
    source: Callable[[], Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_data(source())


# ------------------------------------------------------------------------------- files of arrays


@pytest.mark.parametrize(
    "names",
    [
        "x_train y_train x_test y_test",
        "train_images train_labels test_images test_labels",
        "XTrain yTrain XTest yTest",
        "train_set_x train_set_y test_set_x test_set_y",
        "images labels test_images test_labels",
        "X y X_te y_te",
    ],
)
def test_names_that_people_give_arrays(names: str, tmp_path: Path) -> None:
    arrays = (IMAGES[:21], KINDS[:21, None], IMAGES[21:], KINDS[21:, None])
    named: dict[str, Any] = dict(zip(names.split(), arrays, strict=True))
    np.savez(tmp_path / "a.npz", **named, extra=np.ones(3))
    splits = load_data(tmp_path / "a.npz")
    expect(splits, ["0", "1", "2"])
    assert len(splits.test) == 9
    assert any("extra was left alone" in note for note in splits.notes)


def test_the_only_array_that_can_be_images_is_taken_with_a_note(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", IMAGES, KINDS)
    splits = load_data(tmp_path / "a.npz")
    expect(splits, ["0", "1", "2"])
    assert any("`arr_0` was read as the images" in note for note in splits.notes)


def test_class_names_go_by_number_and_an_empty_class_is_left_out(tmp_path: Path) -> None:
    names = np.array(["bud", "leaf", "root", "stem"])
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=KINDS + (KINDS == 2), class_names=names)
    splits = load_data(tmp_path / "a.npz")
    expect(splits, ["bud", "leaf", "stem"])
    assert any("Class root has no image and was left out" in note for note in splits.notes)
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=KINDS + 1, class_names=names[:3])
    splits = load_data(tmp_path / "a.npz")
    expect(splits, ["bud", "leaf", "root"])
    assert any("labels count from 1, so class 1 was named bud" in note for note in splits.notes)


def test_labels_that_do_not_fit_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vaelab.data import arrays

    monkeypatch.setattr(arrays, "_LARGE", 2**10)
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES, labels=np.zeros((30, 400)))
    with pytest.raises(DataError, match=r"a.npz\[labels\]: is larger .*bytes\) than the images"):
        load_data(tmp_path / "a.npz")


GREY = np.stack([np.full((4, 4), 50 + kind, np.uint8) for kind in KINDS])
GREY[:, 3, 3] = np.arange(30)


def table(form: str) -> str:
    """Images with 16 pixels as text, labels in their place."""
    rows = [[str(pixel) for pixel in image.ravel()] for image in GREY]
    labels = [str(kind + 1) for kind in KINDS]
    head = [f"pixel{k}" for k in range(16)]
    if form == "label first":
        lines = [["label", *head], *([a, *r] for a, r in zip(labels, rows, strict=True))]
    elif form == "label last":
        lines = [[*head, "class"], *([*r, a] for a, r in zip(labels, rows, strict=True))]
    elif form == "no header":
        lines = [[a, *r] for a, r in zip(labels, rows, strict=True)]
    elif form == "no header, words last":
        lines = [[*r, f"kind {a}"] for a, r in zip(labels, rows, strict=True)]
    elif form == "rows numbered":
        lines = [["", "label", *head]]
        lines += [[str(n), a, *r] for n, (a, r) in enumerate(zip(labels, rows, strict=True))]
    elif form == "floats":
        lines = [["label", *head]]
        for a, image in zip(labels, GREY, strict=True):
            lines.append([a, *(repr(float(pixel) / 255) for pixel in image.ravel())])
    else:
        lines = [
            ["emotion", "pixels"],
            *([a, " ".join(r)] for a, r in zip(labels, rows, strict=True)),
        ]
    return "\n".join(("\t" if form == "label last" else ",").join(line) for line in lines) + "\n"


@pytest.mark.parametrize(
    "form",
    [
        "label first",
        "label last",
        "no header",
        "no header, words last",
        "rows numbered",
        "floats",
        "one cell",
    ],
)
def test_tables_of_pixels(form: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.tsv" if form == "label last" else "a.csv")
    path.write_text(table(form), encoding="utf-8-sig" if form == "label first" else "utf-8")
    splits = load_data(path)
    names = [f"kind {k}" if "words" in form else str(k) for k in (1, 2, 3)]
    expect(splits, [*names])
    parts = (splits.train, splits.validation, splits.test)
    ends = torch.cat([part.take(torch.arange(len(part)))[:, 0, 3, 3] for part in parts])
    assert sorted(ends.tolist()) == [*range(30)]


def test_a_table_without_labels_and_one_with_parts(tmp_path: Path) -> None:
    lines = table("label first").splitlines()
    alone = "\n".join(line.split(",", 1)[1] for line in lines)
    (tmp_path / "test.csv").write_text(alone)
    splits = load_data(tmp_path / "test.csv")
    assert splits.train.labels is None
    assert splits.train.shape == (1, 4, 4)
    usage = ["Usage", *(["Training"] * 20), *(["PublicTest"] * 4), *(["PrivateTest"] * 6)]
    parted = [f"{line},{word}" for line, word in zip(lines, usage, strict=True)]
    (tmp_path / "fer.csv").write_text("\n".join(parted))
    splits = load_data(tmp_path / "fer.csv")
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [20, 4, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,a,b,c\n1,2,3,4\n", r"3 columns of pixels are no square.*reshape\(-1, HEIGHT"),
        ("a,b,c,label\n1,2,3,4\n", r"no square.*images=pixels.reshape\(-1, HEIGHT, WIDTH\)\)\.$"),
        ("label,a,b,c,d\n1,2,3,4,5\n1,2,3\n", "row 3 has 3 columns, not 5"),
        ("label,a,b,c,d\n1,2,3,4,256\n", r"whole numbers in \[2, 256\]"),
        ("label,a,b,c,d\n1,2,x,4,5\n", "column 'b' holds 'x', which is no pixel"),
        ("file,beard\na.png,1\n", "holds 'a.png', which is no pixel|no square"),
        ("", "is empty"),
        ("label,a,b,c,d\n", "has a header and no rows"),
        ("label,a,b,c,d\n1,2,3,4,nan\n", "NaN or infinite"),
    ],
)
def test_tables_that_are_none_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_data(tmp_path / "a.csv")


def test_a_table_of_pixels_in_hand() -> None:
    columns: dict[str, list[Any]] = {"label": TEXT.tolist()}
    columns |= {f"pixel{k}": GREY.reshape(30, 16)[:, k].tolist() for k in range(16)}
    expect(load_data(Frame(columns)), ["ox", "ape", "yak"])


@pytest.mark.parametrize("layout", ["svhn", "first", "grey", "flat", "alone"])
def test_matlab_files(layout: str, tmp_path: Path) -> None:
    from scipy.io import savemat

    labels = (KINDS + 1)[:, None].astype(np.uint8)
    values: dict[str, Any] = {
        "svhn": {"X": IMAGES.transpose(1, 2, 3, 0), "y": labels},
        "first": {"train_x": IMAGES, "train_y": labels.T},
        "grey": {"faces": GREY.transpose(1, 2, 0), "labels": labels},
        "flat": {"data": GREY.reshape(30, 16).T, "label": labels.T},
        "alone": {"X": GREY.transpose(1, 2, 0)},
    }[layout]
    savemat(tmp_path / "a.mat", values, do_compression=layout == "svhn")
    splits = load_data(tmp_path / "a.mat")
    expect(splits, ["1", "2", "3"] if layout != "alone" else [None] * 3)
    assert splits.train.shape == ((3, 5, 7) if layout in ("svhn", "first") else (1, 4, 4))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("labels", [None, "cell", "letters", "numbers"])
@pytest.mark.parametrize("axes", ["N H W", "H W N", "N H W C", "N C H W", "H W C N"])
def test_the_axis_that_counts_is_found_without_a_guess(
    axes: str, labels: str | None, packed: bool, tmp_path: Path
) -> None:
    from scipy.io import savemat

    images = np.full((30, 12, 12, 3), 200, np.uint8)
    images[:, 0, 0] = 50 + KINDS[:, None]
    order = {
        "N H W": (0, 1, 2),
        "H W N": (1, 2, 0),
        "N H W C": (0, 1, 2, 3),
        "N C H W": (0, 3, 1, 2),
        "H W C N": (1, 2, 3, 0),
    }[axes]
    array = images[..., 0] if len(order) == 3 else images
    values: dict[str, Any] = {"faces": array.transpose(order)}
    if labels is not None:
        values["labels"] = {
            "cell": TEXT.astype(object),
            "letters": TEXT,
            "numbers": (KINDS + 1)[:, None],
        }[labels]
    savemat(tmp_path / "a.mat", values, do_compression=packed)
    splits = load_data(tmp_path / "a.mat")
    names: list[str | None] = ["ox", "ape", "yak"]
    expect(splits, [None] * 3 if labels is None else ["1", "2", "3"] if "n" in labels[0] else names)
    assert splits.train.shape == (3 if "C" in axes else 1, 12, 12)


def test_matlab_shapes_that_leave_it_open(tmp_path: Path) -> None:
    from scipy.io import savemat

    chance = np.random.default_rng(8)
    for shape in ((16, 16, 16), (30, 20, 25), (100, 256)):
        savemat(tmp_path / "a.mat", {"X": chance.integers(0, 256, shape).astype(np.uint8)})
        with pytest.raises(DataError, match=r"X: has shape .* may "):
            load_data(tmp_path / "a.mat")
    faces = chance.integers(0, 256, (28, 20, 600)).astype(np.uint8)
    savemat(tmp_path / "a.mat", {"ff": faces})
    assert load_data(tmp_path / "a.mat").train.shape == (1, 28, 20)
    savemat(tmp_path / "a.mat", {"image": faces[..., :3]})
    assert load_data(tmp_path / "a.mat").train.shape == (3, 28, 20)
    cube = {"X": faces[:20, :, :20], "y": np.arange(20) % 2}
    savemat(tmp_path / "a.mat", cube)
    with pytest.raises(DataError, match="axis 1 or 2 or 3 may count the images"):
        load_data(tmp_path / "a.mat")
    named = {"X": faces, "y": np.arange(600) % 2 + 1, "class_names": np.array(["q", "r"], object)}
    savemat(tmp_path / "a.mat", {**named, "info": "of a camera"})
    splits = load_data(tmp_path / "a.mat")
    assert splits.train.class_names == ("q", "r")
    assert any("info left alone" in note for note in splits.notes)


def test_texts_of_matlab_files_are_those_that_scipy_reads(tmp_path: Path) -> None:
    from scipy.io import savemat

    from vaelab.data.mat5 import MatFile

    words = ["", "añ", "long word", "x", "日本"]
    values = {"cell": np.array(words, object), "mixed": np.array(["a", 1.5], object)}
    for packed in (False, True):
        savemat(tmp_path / "a.mat", {**values, "rows": words}, do_compression=packed)
        file = MatFile(tmp_path / "a.mat")
        found = {e.name: file.texts(e) for e in file.entries if e.is_text}
        assert found["mixed"] is None
        for name in ("cell", "rows"):
            texts = found[name]
            assert texts is not None
            assert texts.tolist() == words
        data = (tmp_path / "a.mat").read_bytes()
        for cut in range(130, len(data), 7):
            (tmp_path / "cut.mat").write_bytes(data[:cut])
            with pytest.raises(DataError):
                load_data(tmp_path / "cut.mat")


def test_matlab_faults(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"X": IMAGES.transpose(1, 2, 3, 0), "y": np.arange(9)})
    with pytest.raises(DataError, match="there are 9 labels: no axis fits"):
        load_data(tmp_path / "a.mat")
    savemat(tmp_path / "a.mat", {"cells": np.array([IMAGES, "x"], object)})
    with pytest.raises(DataError, match="holds cells, and none is named as images"):
        load_data(tmp_path / "a.mat")
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(DataError, match="is no MAT-file of version 5"):
        load_data(tmp_path / "a.mat")


@pytest.mark.parametrize("packed", [False, True])
def test_numbers_of_matlab_files_are_those_that_scipy_reads(packed: bool, tmp_path: Path) -> None:
    from scipy.io import loadmat, savemat

    from vaelab.data.mat5 import MatFile

    chance = np.random.default_rng(7)
    kinds = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "?")
    values: dict[str, Any] = {
        kind.replace("?", "flag"): chance.integers(0, 99, (2, 3, 4)).astype(kind) for kind in kinds
    }
    values |= {"one": 5, "row": np.arange(3.0), "empty": np.zeros((0, 3))}
    values |= {"text": "words", "cell": np.array([1, "x"], object), "z": np.array([1 + 2j])}
    savemat(tmp_path / "a.mat", values, do_compression=packed)
    file, read = MatFile(tmp_path / "a.mat"), loadmat(tmp_path / "a.mat")
    assert {entry.name for entry in file.entries} == {*values}
    for entry in file.entries:
        if entry.name in ("text", "cell", "z"):  # which are no numbers
            assert entry.dtype is None
        else:
            found = file.read(entry)
            assert np.array_equal(found, read[entry.name])
            assert found.dtype == (bool if entry.name == "flag" else read[entry.name].dtype)


def test_hdf5_files_and_matlab_7_3(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train/images"], file["train/labels"] = IMAGES[:20], KINDS[:20] + 1
        file["test/images"], file["test/labels"] = IMAGES[20:], KINDS[20:] + 1
        file["class_names"] = np.array([b"fig", b"oak", b"yew"])
    splits = load_data(tmp_path / "a.h5")
    expect(splits, ["fig", "oak", "yew"])
    assert len(splits.test) == 10
    with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as file:
        file["X"], file["y"] = IMAGES.transpose(0, 3, 2, 1), KINDS[None]
    with (tmp_path / "b.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    expect(load_data(tmp_path / "b.mat"), ["0", "1", "2"])


def test_what_is_left_alone_in_an_hdf5_file_is_said(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["labels"] = IMAGES, TEXT.tolist()  # text of variable length
    notes = load_data(tmp_path / "a.h5").notes
    assert any("labels left alone, as it is" in note and "'S'" in note for note in notes)
    with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as file:
        file["X"] = IMAGES.transpose(0, 3, 2, 1)
        letters = file.create_dataset("y", data=np.full((3, 30), 97, np.uint16))
        letters.attrs["MATLAB_int_decode"] = np.int32(2)
    with (tmp_path / "b.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    splits = load_data(tmp_path / "b.mat")
    assert splits.train.attributes is None
    assert any("y left alone" in note for note in splits.notes)


def test_no_link_leads_out_of_an_hdf5_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["images"] = IMAGES
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = h5py.ExternalLink("secret.h5", "/images")
        raw = [("raw.bin", 0, IMAGES.nbytes)]
        file.create_dataset("x", IMAGES.shape, np.uint8, external=raw)
        layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
        layout[:] = h5py.VirtualSource("secret.h5", "images", IMAGES.shape)
        file.create_virtual_dataset("img", layout)
    with pytest.raises(DataError, match="holds no arrays"):
        load_data(tmp_path / "a.h5")


def test_parquet_of_hugging_face(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    features = {"label": {"names": ["u", "v", "w", "none"], "_type": "ClassLabel"}}
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}

    def write(name: str, rows: range) -> None:
        cells = [{"bytes": png(IMAGES[row]), "path": f"{row}.png"} for row in rows]
        columns = {"image": cells, "label": KINDS[rows].tolist()}
        found = pyarrow.table(columns).replace_schema_metadata(about)
        parquet.write_table(found, tmp_path / "data" / name)

    (tmp_path / "data").mkdir()
    write("train-00000-of-00002.parquet", range(9))
    write("train-00001-of-00002.parquet", range(9, 20))
    write("test-00000-of-00001.parquet", range(20, 30))
    for place in (tmp_path, tmp_path / "data"):
        splits = load_data(place)
        expect(splits, ["u", "v", "w"])
        assert len(splits.test) == 10
    one = load_data(tmp_path / "data" / "train-00000-of-00002.parquet")
    assert len(one.train) == 9
    bad = pyarrow.table({"image": [b"no picture"] * 3, "label": [0, 1, 2]})
    parquet.write_table(bad, tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"3 of 3 images are unreadable.*bad.parquet row 0"):
        load_data(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.tfrecord", r"as_numpy_iterator"),
        ("a.7z", r"7z x a.7z"),
        ("a.tar", r"tar -xf a.tar"),
        ("a.rar", r"unrar x a.rar"),
        ("data.mdb", r"LMDB"),
        ("a.dcm", r"pydicom"),
        ("train-images-idx3-ubyte", r"Pass the folder"),
        ("notes.txt", r"no file of images that is read"),
    ],
)
def test_what_is_not_read_is_named_with_the_line_that_converts_it(
    name: str, line: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"\x07" * 50)
    with pytest.raises(DataError, match=line):
        load_data(tmp_path / name)


def test_a_pickled_batch_is_refused_as_pickle(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}q\x01." + struct.pack("<I", 7))
    with pytest.raises(PickleError, match=r"data_batch_1: is pickle.*reshape\(-1, 3, 32, 32\)"):
        load_data(tmp_path / "data_batch_1")


# -------------------------------------------------------------------------- random transforms


class Shifting(Dataset[Any]):
    """Images whose brightness is drawn anew each time they are read."""

    classes: tuple[str, ...] = ("dark", "light")

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        level = int(torch.randint(100, (1,))) + int(np.random.randint(20)) + 100 * (index % 2)
        return np.full((6, 5), level, np.uint8), index % 2


def test_a_random_data_set_is_frozen_the_same_each_time_and_says_so() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = load_data(Shifting())
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    other = load_data(Shifting())
    assert torch.equal(one.train.take(torch.arange(9)), other.train.take(torch.arange(9)))
    note = "Shifting: gives another image each time it is read; one reading of each was kept."
    assert [n for n in one.notes if n.startswith(note)]
    assert not [n for n in load_data(Folder()).notes if "another image" in n]


def test_live_images_are_a_function_of_seed_epoch_and_image() -> None:
    from vaelab.data.batches import Batches

    splits = load_data(Shifting(), live=True)
    assert splits.validation.live is None

    def passed(epoch: int, start: int = 0, rank: int = 0, world: int = 1) -> dict[int, float]:
        batches = Batches(
            splits.train, 8, device="cpu", seed=5, epoch=epoch, start=start, rank=rank, world=world
        )
        return {
            index: value
            for batch in batches
            for index, value in zip(
                batch.index.tolist(), batch.images[:, 0, 0, 0].tolist(), strict=True
            )
        }

    first, again, second = passed(0), passed(0), passed(1)
    assert first == again
    assert first != second
    assert passed(0, start=2).items() <= first.items()
    assert passed(0, rank=1, world=2).items() <= first.items()
    frozen = splits.train.take(torch.arange(len(splits.train)))[:, 0, 0, 0].tolist()
    assert [round(255 * first[k]) for k in range(len(frozen))] != frozen
    half = splits.train.subset(torch.tensor([3, 1]))
    assert half.live is not None
    assert half.live.take(torch.tensor([0]), 5, 0)[0, 0, 0, 0] == round(255 * first[3])


def test_arrays_of_other_libraries_are_read_by_their_protocol() -> None:
    class Foreign:
        """As an array of JAX or TensorFlow."""

        def __init__(self, values: NDArray[Any]) -> None:
            self.values, self.shape = values, values.shape

        def __len__(self) -> int:
            return len(self.values)

        def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
            return self.values

    expect(load_data((Foreign(IMAGES), Foreign(KINDS))), ["0", "1", "2"])


def test_emnist_is_said_to_be_transposed(tmp_path: Path) -> None:
    head = struct.pack(">HBB3I", 0, 8, 3, *GREY.shape)
    for name, noted in (("emnist-letters", True), ("kmnist", False)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}-train-images-idx3-ubyte").write_bytes(head + GREY.tobytes())
        assert any("transposed" in note for note in load_data(folder).notes) == noted


def test_live_is_for_data_sets_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(ConfigError, match=r"data.live: .*a.npy gives the same images each time"):
        load_data(tmp_path / "a.npy", live=True)
    with pytest.raises(DataError, match="arrays give the same image each time"):
        load_data(IMAGES, live=True)
    config = DataConfig(spec=IN_MEMORY, live=True)
    assert load_config(config, tmp_path / "a.npy").train.live is None  # other data of such a run
    assert load_config(config, Shifting()).train.live is not None
    with pytest.raises(ConfigError, match=r"data.live: .*a.npy"):
        load_config(DataConfig(spec=str(tmp_path / "a.npy"), live=True))


@pytest.mark.parametrize("at", [0, -1])
@pytest.mark.parametrize("corner", [[0], [0, 7, 250], list(range(40, 95, 3))])
def test_the_labels_of_a_table_without_header_are_found_at_either_end(
    at: int, corner: list[int]
) -> None:
    chance = np.random.default_rng(4)
    rows = chance.integers(0, 256, (60, 25))
    rows[:, 0] = rows[:, -1] = np.resize(corner, 60)
    rows = np.insert(rows, 0 if at == 0 else 25, np.arange(60) % 10, 1)
    found = layout("t.csv", None, [[str(value) for value in row] for row in rows])
    assert found.label == (0 if at == 0 else 25)
    assert len(found.pixels) == 25


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("labelled", [False, True])
def test_a_row_that_numbers_the_columns_is_no_image(
    first: int, labelled: bool, tmp_path: Path
) -> None:
    rows = np.random.default_rng(5).integers(100, 256, (12, 9))
    if labelled:
        rows = np.insert(rows, 0, np.arange(12) % 3, 1)
    head = ",".join(str(first + k) for k in range(rows.shape[1]))
    lines = [head, *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    splits = load_data(tmp_path / "a.csv")
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 12
    assert int(splits.train.take(torch.arange(len(splits.train))).min()) >= 100
    assert any("first row numbers the columns" in note for note in splits.notes)
    assert splits.train.class_names == (("0", "1", "2") if labelled else ())
    (tmp_path / "a.csv").write_text("\n".join([*lines, "1,2"]))
    with pytest.raises(DataError, match="row 14 has 2 columns"):
        load_data(tmp_path / "a.csv")


@pytest.mark.parametrize("form", ["pillow", "arrays of two sizes", "bytes"])
def test_lists_by_name_are_images_with_labels(form: str) -> None:
    grey = [np.full((6, 8), 20 * k, np.uint8) for k in range(10)]
    images: list[Any] = [Image.fromarray(each) for each in grey]
    if form == "arrays of two sizes":
        images = [np.pad(each, 2, "edge") if k % 2 else each for k, each in enumerate(grey)]
    if form == "bytes":
        images = [{"bytes": png(np.stack([each] * 3, -1)), "path": None} for each in grey]
    data = {"image": images, "label": [k % 2 for k in range(10)], "id": list("abcdefghij")}
    splits = load_data(data, size=(6, 8))
    assert splits.train.class_names == ("0", "1")
    assert any(note == "dict: id left alone, beside the images." for note in splits.notes)
    for part in (splits.train, splits.validation, splits.test):
        assert part.labels is not None
        values = part.take(torch.arange(len(part)))[:, 0, 3, 3]
        assert (values // 20 % 2).tolist() == part.labels.tolist()
    assert load_data({"images": images}, size=(6, 8)).train.labels is None
    with pytest.raises(DataError, match=r"dict\[image\]: 3 labels for 10 images"):
        load_data({"image": images, "label": [0, 1, 0]})


@pytest.mark.parametrize(
    "words", [("train_set", "valid-set", "TestSet"), ("Training", "Validate", "tst")]
)
@pytest.mark.parametrize("form", ["arrays", "pairs", "items"])
def test_parts_go_by_the_words_that_folders_have(words: tuple[str, ...], form: str) -> None:
    images = np.random.default_rng(6).integers(0, 256, (9, 5, 5), np.uint8)
    pieces = [images[:4], images[4:6], images[6:]]
    data: dict[str, Any] = {}
    for number, (word, piece) in enumerate(zip(words, pieces, strict=True)):
        pairs = (piece, np.full(len(piece), number))
        data[word] = {"arrays": piece, "pairs": pairs, "items": list(zip(*pairs, strict=True))}[
            form
        ]
    splits = load_data(dict(reversed(data.items())))
    parts = (splits.train, splits.validation, splits.test)
    for number, (part, piece) in enumerate(zip(parts, pieces, strict=True)):
        assert np.array_equal(part.take(torch.arange(len(part)))[:, 0].numpy(), piece)
        if form != "arrays":
            assert part.labels is not None
            assert part.labels.tolist() == [number] * len(piece)


def test_idx_files_take_words_of_parts_that_are_whole(tmp_path: Path) -> None:
    for word, count in (("Training", 4), ("Validate", 3), ("t10k", 2)):
        head = np.array([0x803, count, 4, 4], ">i4").tobytes()
        (tmp_path / f"{word}-images-idx3-ubyte").write_bytes(head + GREY[:count].tobytes())
    splits = load_data(tmp_path)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [4, 3, 2]


def test_a_cell_may_hold_more_pixels_than_csv_takes(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    side = 200
    images = np.random.default_rng(7).integers(100, 256, (4, side, side), np.uint8)
    cells = [" ".join(map(str, image.ravel())) for image in images]
    assert len(cells[0]) > limit
    (tmp_path / "faces.csv").write_text(
        "emotion,pixels\n" + "\n".join(f"{k % 2},{cell}" for k, cell in enumerate(cells))
    )
    splits = load_data(tmp_path / "faces.csv")
    assert splits.train.shape == (1, side, side)
    found = splits.train.take(torch.arange(len(splits.train)))[:, 0].numpy()
    assert all(any(np.array_equal(each, image) for image in images) for each in found)
    assert csv.field_size_limit() == limit
