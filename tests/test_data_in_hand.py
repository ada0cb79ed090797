"""What goes with images in Python is read whatever form it has, or is an error that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.test_data_sources import Column, Frame, png
from vaelab.data import Splits, load_data
from vaelab.errors import DataError

KINDS = [k % 3 for k in range(24)]
IMAGES = np.full((24, 9, 11), 200, np.uint8)
IMAGES[:, 0, 0] = KINDS
IMAGES[:, 0, 1] = np.arange(24)
MARKS = [[float(k == 0), k / 2] for k in KINDS]


def every(splits: Splits) -> list[tuple[int, str | None, list[float] | None]]:
    """Number of each image by its pixels, with the name of its class and its attributes."""
    found = {}
    for part in (splits.train, splits.validation, splits.test):
        pixels = part.take(torch.arange(len(part)))[:, 0, 0, 1].tolist()
        for row, number in enumerate(pixels):
            label = -1 if part.labels is None else int(part.labels[row])
            name = part.class_names[label] if label >= 0 else None
            marks = None if part.attributes is None else part.attributes[row].tolist()
            found[number] = (number, name, marks)
    return [found[number] for number in sorted(found)]


def names(splits: Splits) -> list[str | None]:
    return [name for _, name, _ in every(splits)]


class Named(Column):
    """As a Series of pandas that has a name."""

    def __init__(self, name: str, values: list[Any]) -> None:
        super().__init__(values)
        self.name = name


WORDS = ["fig", "oak", "yew"]
LABELS: dict[str, tuple[Any, list[str | None]]] = {
    "a tuple": (tuple(KINDS), [str(k) for k in KINDS]),
    "None first": ([None, *KINDS[1:]], [None, *(str(k) for k in KINDS[1:])]),
    "tensors": ([torch.tensor(k) for k in KINDS], [str(k) for k in KINDS]),
    "a column": (Column([WORDS[k] for k in KINDS]), [WORDS[k] for k in KINDS]),
    "one-hot lists": ([np.eye(3)[k].tolist() for k in KINDS], [str(k) for k in KINDS]),
    "one-hot tensors": ([torch.eye(3)[k] for k in KINDS], [str(k) for k in KINDS]),
    "a table of one column": (Frame({"kind": KINDS}), [str(k) for k in KINDS]),
    "one-hot columns": (
        Frame({word: [float(k == n) for k in KINDS] for n, word in enumerate(WORDS)}),
        [WORDS[k] for k in KINDS],
    ),
}


@pytest.mark.parametrize("form", LABELS)
@pytest.mark.parametrize("way", ["tuple", "dict", "part", "pictures"])
def test_labels_of_any_form_are_read_alike_in_every_place(form: str, way: str) -> None:
    labels, expected = LABELS[form]
    source: Any = {
        "tuple": (IMAGES, labels),
        "dict": {"images": IMAGES, "labels": labels},
        "part": {"train": (IMAGES, labels)},
        "pictures": {"image": [Image.fromarray(image) for image in IMAGES], "label": labels},
    }[way]
    assert names(load_data(source)) == expected


@pytest.mark.parametrize("form", ["lists", "columns", "array", "pictures"])
def test_attributes_of_any_form_are_read_with_their_names(form: str) -> None:
    frame = Frame({"b": [m[1] for m in MARKS], "a": [m[0] for m in MARKS]})
    source: dict[str, Any] = {
        "images": list(map(Image.fromarray, IMAGES)) if form == "pictures" else IMAGES,
        "attributes": {"lists": MARKS, "array": np.array(MARKS)}.get(form, frame),
        "labels": KINDS,
    }
    if form in ("lists", "array"):
        source["attribute_names"] = ("a", "b")
    splits = load_data(source)
    order = splits.train.attribute_names
    assert order == (("a", "b") if form in ("lists", "array") else ("b", "a"))
    flip = 1 if order == ("a", "b") else -1
    assert [(n, m and m[::flip]) for _, n, m in every(splits)] == [
        (str(k), marks) for k, marks in zip(KINDS, MARKS, strict=True)
    ]


def test_a_table_of_marks_goes_by_the_names_of_its_columns_in_every_part() -> None:
    def frame(rows: slice, order: str) -> Frame:
        values = dict(zip("ab", zip(*MARKS[rows], strict=True), strict=True))
        return Frame({name: list(values[name]) for name in order})

    one, other = slice(0, 16), slice(16, 24)
    source = ((IMAGES[one], frame(one, "ba")), (IMAGES[other], frame(other, "ab")))
    splits = load_data(source)
    assert splits.train.attribute_names == ("b", "a")
    assert [marks for _, _, marks in every(splits)] == [m[::-1] for m in MARKS]
    strange = Frame({"a": [0.0] * 8, "c": [1.0] * 8})
    with pytest.raises(DataError, match="has the columns a, c, and another part has b, a"):
        load_data((source[0], (IMAGES[other], strange)))
    with pytest.raises(DataError, match=r"labels, column 'b': 'oak' is no number"):
        load_data((IMAGES, Frame({"a": KINDS, "b": ["oak"] * 24})))
    single = load_data({"images": IMAGES, "attributes": Named("age", [k / 2 for k in KINDS])})
    assert single.train.attribute_names == ("age",)


def test_class_names_and_parts_in_lists() -> None:
    source = {
        "x_train": IMAGES[:16],
        "y_train": KINDS[:16],
        "x_test": list(IMAGES[16:]),
        "y_test": tuple(KINDS[16:]),
        "class_names": tuple(WORDS),
    }
    splits = load_data(source)
    assert names(splits) == [WORDS[k] for k in KINDS]
    assert len(splits.test) == 8
    nested = load_data({"images": IMAGES.tolist(), "labels": KINDS})
    assert names(nested) == [str(k) for k in KINDS]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"images": IMAGES, "labels": 3}, "`labels` is int, which holds no labels"),
        ({"images": IMAGES, "labels": {"a": 1}}, "`labels` is dict, which holds no labels"),
        ({"images": "photos", "labels": KINDS}, "`images` is str, which holds no images"),
        ({"images": IMAGES, "labels": [[1], [2, 3]] * 12}, r"dict\[images\]: labels: .*no array"),
        ({"train": "a", "test": "b"}, "'train' is the path 'a', and paths are not read as parts"),
        ({"train": IMAGES, "test": ["a.png"]}, "dict: holds paths and images"),
        ((IMAGES, IMAGES[:5], KINDS, KINDS[:5]), r"\(5, 9, 11\).*no order that is read"),
        ((IMAGES, KINDS[:5]), "5 labels for 24 images"),
        ((IMAGES.reshape(24, -1), KINDS), r"shape \(24, 99\).*array.reshape\(-1, HEIGHT, WIDTH\)"),
        (["https://a.org/b.png"], "is a URL, and nothing is downloaded"),
        (["a.png", None], "member 1 is NoneType among paths"),
    ],
)
def test_what_is_not_read_is_named(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(source)


def test_parts_that_are_mappings_and_two_images_of_colours() -> None:
    parts = {
        "test": {"image": list(IMAGES[16:]), "label": KINDS[16:]},
        "train": {"image": list(IMAGES[:16]), "label": KINDS[:16], "class_names": WORDS},
    }
    splits = load_data(parts)
    assert names(splits) == [WORDS[k] for k in KINDS]
    assert len(splits.test) == 8
    for axes in ((0, 1, 2), (2, 0, 1)):
        two = tuple(np.full((16, 16, 3), 90 * k, np.uint8).transpose(axes) for k in (1, 2))
        train = load_data(two, split=(1, 0, 0)).train
        assert train.take(torch.arange(2)).unique().tolist() == [90, 180]
    masks = load_data((IMAGES, IMAGES > 9))
    assert any("left alone: it has the shape of images" in note for note in masks.notes)


def test_images_with_None_or_in_a_list_with_their_labels() -> None:
    assert names(load_data((IMAGES, None))) == [None] * 24
    assert names(load_data([IMAGES, KINDS])) == [str(k) for k in KINDS]
    assert names(load_data([torch.from_numpy(IMAGES), None])) == [None] * 24


# ------------------------------------------------------------------------------ one image or many


@pytest.mark.parametrize("shape", [(16, 14, 3), (14, 18, 4), (9, 9, 1), (16, 12, 2)])
@pytest.mark.parametrize("way", ["array", "npy", "npz"])
def test_one_image_is_not_taken_for_its_rows(
    shape: tuple[int, ...], way: str, tmp_path: Path
) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    source: Any = image
    if way != "array":
        source = tmp_path / f"a.{way}"
        np.save(source, image) if way == "npy" else np.savez(source, images=image)
    splits = load_data(source)
    assert np.array_equal(splits.train.take(torch.arange(1))[0].numpy(), image.transpose(2, 0, 1))
    assert any("was read as one image" in note for note in splits.notes)


def test_what_may_be_one_image_or_several_is_asked_for() -> None:
    chance = np.random.default_rng(2)
    for sides in ((20, 8, 3), (900, 28, 1)):
        with pytest.raises(DataError, match=r"which is one image .* or (20|900) images of"):
            load_data(chance.integers(0, 256, sides, np.uint8))
    many = load_data(chance.integers(0, 256, (90, 8, 3), np.uint8))
    assert many.train.shape == (1, 8, 3)
    assert any("was read as 90 images of 8×3; array[None] is one image" in n for n in many.notes)
    with pytest.raises(DataError, match=r"\(16, 12\), no images.*array\[None\]"):
        load_data(chance.integers(0, 256, (16, 12), np.uint8))
    with pytest.raises(DataError, match=r"tensor\[None\] for one image"):
        load_data(torch.rand(3, 16, 16))
    narrow = chance.integers(0, 256, (20, 12, 3), np.uint8)
    assert load_data((narrow, [0, 1] * 10)).train.shape == (1, 12, 3)  # labels count the images
    assert load_data(chance.integers(0, 256, (30, 4, 4), np.uint8)).train.shape == (1, 4, 4)
    three = load_data(chance.integers(0, 256, (3, 16, 16), np.uint8))
    assert any("was read as 3 images of 16×16" in note for note in three.notes)


# ------------------------------------------------------------------------------------------ paths


def saved(folder: Path) -> list[str]:
    found = []
    for number, image in enumerate(IMAGES):
        found.append(str(folder / f"p{number:02}.png"))
        Image.fromarray(image).save(found[-1])
    return found


PATHS: dict[str, Callable[[list[str], list[Any]], Any]] = {
    "two columns": lambda paths, labels: (paths, labels),
    "a list of two": lambda paths, labels: [paths, labels],
    "an array of text": lambda paths, labels: (np.array(paths), np.array(labels, object)),
    "pairs": lambda paths, labels: list(zip(paths, labels, strict=True)),
    "pairs of Path": lambda paths, labels: [
        (Path(p), k) for p, k in zip(paths, labels, strict=True)
    ],
    "a mapping": lambda paths, labels: {"image": paths, "label": labels},
    "mappings": lambda paths, labels: [
        {"image": path, "label": label} for path, label in zip(paths, labels, strict=True)
    ],
    "a table": lambda paths, labels: Frame({"path": paths, "label": labels}),
    "a table of images": lambda paths, labels: Frame({"image": paths, "species": labels}),
    "a part": lambda paths, labels: {"train": (paths, labels)},
}


@pytest.mark.parametrize("form", PATHS)
@pytest.mark.parametrize("kind", ["words", "numbers"])
def test_paths_with_labels(form: str, kind: str, tmp_path: Path) -> None:
    labels: list[Any] = [WORDS[k] if kind == "words" else k for k in KINDS]
    labels[4] = None if kind == "words" else -1
    splits = load_data(PATHS[form](saved(tmp_path), labels))
    expected = [None if label in (None, -1) else str(label) for label in labels]
    assert names(splits) == expected
    assert splits.train.names is not None
    first = splits.train.take(torch.tensor([0]))[0, 0, 0, 1]
    assert splits.train.names[0].endswith(f"p{int(first):02}.png")


def test_paths_alone_and_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = saved(tmp_path)
    assert names(load_data(np.array(paths))) == [None] * 24
    splits = load_data({"train": paths[:20], "test": paths[20:]})
    assert [number for number, _, _ in every(splits)] == [*range(24)]
    assert len(splits.test) == 4
    splits = load_data({"train": (paths[:20], KINDS[:20]), "test": (paths[20:], KINDS[20:])})
    assert names(splits) == [str(k) for k in KINDS]
    assert len(splits.test) == 4
    monkeypatch.chdir(tmp_path)
    near = [Path(path).name for path in paths]
    assert names(load_data((near, KINDS))) == [str(k) for k in KINDS]
    marks = load_data(list(zip(near, MARKS, strict=True)))
    assert [m for _, _, m in every(marks)] == MARKS


def test_labels_of_a_stack_go_to_all_its_pages(tmp_path: Path) -> None:
    pages = [Image.fromarray(image) for image in IMAGES[:6]]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    paths = [str(tmp_path / "a.tif"), *saved(tmp_path)[6:]]
    splits = load_data((paths, ["stack", *(WORDS[k] for k in KINDS[6:])]))
    assert names(splits) == ["stack"] * 6 + [WORDS[k] for k in KINDS[6:]]


# ------------------------------------------------------------------------------------------ parts

SPLIT = ["train"] * 14 + ["val"] * 4 + ["test"] * 6


def columns(form: str, split: list[Any], folder: Path) -> Any:
    images = [Image.fromarray(image) for image in IMAGES]
    if form == "a table of images":
        return Frame({"image": images, "label": KINDS, "split": split})
    if form == "a table of paths":
        return Frame({"path": saved(folder), "label": KINDS, "split": split})
    if form == "a mapping":
        words = np.array(split) if isinstance(split[0], str) else torch.tensor(split)
        return {"images": IMAGES, "labels": KINDS, "split": words}
    rows = zip(images, KINDS, split, strict=True)
    return [{"image": image, "label": kind, "split": word} for image, kind, word in rows]


@pytest.mark.parametrize("form", ["a table of images", "a table of paths", "a mapping", "mappings"])
def test_a_column_of_parts_is_honoured_everywhere(form: str, tmp_path: Path) -> None:
    splits = load_data(columns(form, SPLIT, tmp_path))
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [14, 4, 6]
    assert sorted(splits.test.take(torch.arange(6))[:, 0, 0, 1].tolist()) == [*range(18, 24)]
    assert names(splits) == [str(k) for k in KINDS]
    assert any("`split` names the parts" in note for note in splits.notes)
    coded = load_data(columns(form, [0] * 14 + [1] * 4 + [2] * 6, tmp_path))
    assert len(coded.test) == 6
    other = load_data(columns(form, ["A", "B"] * 12, tmp_path))
    assert any("`split`" in note and "left alone" in note for note in other.notes)
    with pytest.raises(DataError, match="image 0, column 'split': 'later' names no part"):
        load_data(columns(form, ["later", *SPLIT[1:]], tmp_path))


def test_a_column_of_parts_in_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(split: list[Any]) -> Path:
        cells = {"image": [png(image) for image in IMAGES], "label": KINDS, "set": split}
        parquet.write_table(pyarrow.table({**cells, "age": KINDS}), tmp_path / "a.parquet")
        return tmp_path / "a.parquet"

    splits = load_data(write(SPLIT))
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [14, 4, 6]
    assert sorted(splits.test.take(torch.arange(6))[:, 0, 0, 1].tolist()) == [*range(18, 24)]
    assert any("age left alone" in note for note in splits.notes)
    missing = load_data(write([None, *SPLIT[1:]]))
    assert len(missing.train) == 14
    assert any("1 image without one is among the training images" in n for n in missing.notes)
    assert any("'set' names no parts" in n for n in load_data(write(["A", "B"] * 12)).notes)


# --------------------------------------------------------------------------- columns of pixels


def test_a_table_with_one_cell_of_pixels_an_image_and_its_parts() -> None:
    for scale in (1, 255):
        cells = [" ".join(f"{p / scale:g}" for p in image[:9, :9].ravel()) for image in IMAGES]
        frame = Frame({"emotion": KINDS, "pixels": cells, "Usage": SPLIT})
        splits = load_data(frame)
        assert [len(splits.train), len(splits.validation), len(splits.test)] == [14, 4, 6]
        assert names(splits) == [str(k) for k in KINDS]


SQUARES = np.random.default_rng(3).integers(0, 256, (10, 11, 11), np.uint8)
NUMBERED: dict[str, list[str]] = {
    "from 0": [f"pixel{k}" for k in range(121)],
    "from 1": [f"pixel{k + 1}" for k in range(121)],
    "row and column": [f"{row + 1}x{column + 1}" for row in range(11) for column in range(11)],
    "of scikit-learn": [f"pixel_{row}_{column}" for row in range(11) for column in range(11)],
    "x and y": [f"x{column}y{row}" for row in range(11) for column in range(11)],
    "numbers alone": [str(k) for k in range(121)],
}


@pytest.mark.parametrize("form", NUMBERED)
@pytest.mark.parametrize("way", ["csv", "table"])
@pytest.mark.parametrize("label", ["label", "kind", ""])
def test_columns_of_pixels_go_by_their_numbers(
    form: str, way: str, label: str, tmp_path: Path
) -> None:
    values = dict(zip(NUMBERED[form], SQUARES.reshape(10, 121).T.tolist(), strict=True))
    columns = {name: values[name] for name in sorted(values)}
    if label:
        columns = {**columns, label: [k % 2 for k in range(10)]}
    source: Any = Frame(columns)
    if way == "csv":
        rows = [
            ",".join(columns),
            *(",".join(map(str, r)) for r in zip(*columns.values(), strict=True)),
        ]
        source = tmp_path / "a.csv"
        source.write_text("\n".join(rows))
    splits = load_data(source)
    found = [p.take(torch.arange(len(p)))[:, 0] for p in (splits.train, splits.validation)]
    found.append(splits.test.take(torch.arange(len(splits.test)))[:, 0])
    assert {each.numpy().tobytes() for each in torch.cat(found)} == {x.tobytes() for x in SQUARES}
    assert splits.train.class_names == (("0", "1") if label else ())


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("p0,p1,p2,p4", "numbered from 0 to 4, and number 3 is missing"),
        ("p0,p1,p2,p2", "column 'p2' is there twice"),
        ("p0,p1,p1.1,p3,label", "number 2 is missing"),
        ("p4,p5,p6,p7", "do not number the pixels of an image from 0 or 1"),
        ("a1b1,a1b2,a2b1,a3b2", "do not number the pixels"),
    ],
)
def test_numbers_that_are_missing_or_there_twice_are_named(
    header: str, message: str, tmp_path: Path
) -> None:
    rows = [header, *[",".join(map(str, range(k, k + header.count(",") + 1))) for k in range(9)]]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match=message):
        load_data(tmp_path / "a.csv")


def test_columns_beside_the_pixels_are_named(tmp_path: Path) -> None:
    rows = ["age,p0,p1,p2,p3,label,size", *[f"{k},1,2,3,{k},{k % 2},7" for k in range(9)]]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    splits = load_data(tmp_path / "a.csv")
    assert splits.train.shape == (1, 2, 2)
    assert any("'age', 'size' left alone, beside the pixels" in note for note in splits.notes)


# ------------------------------------------------------------------------------------ in files


def test_marks_and_unlabelled_images_in_an_npz_file(tmp_path: Path) -> None:
    marks = (np.random.default_rng(4).random((24, 5)) < 0.4).astype(np.uint8)
    marks[:4] = np.eye(5, dtype=np.uint8)[:4]  # one-hot rows in one part alone
    arrays: dict[str, Any] = {
        "train_images": IMAGES[4:20],
        "train_labels": marks[4:20],
        "val_images": IMAGES[:4],
        "val_labels": marks[:4],
        "test_images": IMAGES[20:],
        "test_labels": marks[20:],
    }
    np.savez(tmp_path / "chest.npz", **arrays)
    for source in (tmp_path / "chest.npz", arrays):
        splits = load_data(source)
        assert [found for _, _, found in every(splits)] == marks.astype(float).tolist()
        assert "5 marks an image were read as attributes." in splits.notes
    arrays = {"x_train": IMAGES[:10], "y_train": KINDS[:10], "x_unlabeled": IMAGES[10:18]}
    arrays |= {"x_test": IMAGES[18:], "y_test": KINDS[18:]}
    np.savez(tmp_path / "few.npz", **arrays)
    for source in (tmp_path / "few.npz", arrays, {**arrays, "x_unlabeled": list(IMAGES[10:18])}):
        splits = load_data(source, split=(1, 0, 0))
        expected = [str(k) for k in KINDS[:10]] + [None] * 8 + [str(k) for k in KINDS[18:]]
        assert names(splits) == expected
        assert len(splits.test) == 6
