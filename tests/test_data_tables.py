"""Tables beside images: as programs and people write them."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.test_data import noise, save_images
from vaelab.data import Splits, load_data, summary
from vaelab.data.roles import like_classes
from vaelab.data.split import split_rows
from vaelab.errors import ConfigError, DataError

N = 24
KINDS = ["owl" if k % 3 else "fox" for k in range(N)]


def folder(root: Path, name: Callable[[int], str] = lambda k: f"{k:03}.png") -> Path:
    """24 images; image k is named ``name(k)``."""
    for number, image in enumerate(noise(N, 6, 5)):
        path = root / name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return root


def whole(root: Path) -> tuple[dict[str, str], dict[str, dict[str, float]], str]:
    """Class and attributes of each image by its name, and all notes."""
    splits = load_data(root, split=(1, 0, 0))
    images, notes = splits.train, splits.notes
    names = list(images.names or ())
    classes = {}
    if images.labels is not None:
        classes = dict(zip(names, images.class_of_each(), strict=True))
    values: dict[str, dict[str, float]] = {}
    if images.attributes is not None:
        for name, row in zip(names, images.attributes.tolist(), strict=True):
            values[name] = dict(zip(images.attribute_names, row, strict=True))
    return classes, values, " ".join(notes)


FORMS: dict[str, tuple[str, Callable[[int], str], str]] = {
    "plain": ("filename,label", lambda k: f"{k:03}.png,{KINDS[k]}", "utf-8"),
    "excel": ("Datei;Klasse", lambda k: f"{k:03}.png;{KINDS[k]}", "cp1252"),
    "sep": ("sep=;\r\nfile;category", lambda k: f"{k:03}.png;{KINDS[k]}", "utf-8-sig"),
    "pandas": (",image,species", lambda k: f"{k},{k:03}.png,{KINDS[k]}", "utf-8"),
    "unnamed": ("Unnamed: 0,path,class", lambda k: f"{k},./{k:03}.png,{KINDS[k]}", "utf-8"),
    "tabs": ("img\ttarget", lambda k: f"{k:03}\t{KINDS[k]}", "utf-16"),
    "quoted": ('"file","y"', lambda k: f'"{k:03}.PNG","{KINDS[k]}"', "utf-8"),
    "windows": ("path,label", lambda k: f"C:\\photos\\all\\{k:03}.png,{KINDS[k]}", "utf-8"),
    "absolute": ("path,label", lambda k: f"/home/me/all/{k:03}.png,{KINDS[k]}", "utf-8"),
    "converted": ("path,label", lambda k: f"{k:03}.jpeg,{KINDS[k]}", "utf-8"),
    "by content": ("what,bird", lambda k: f"{k:03}.png,{KINDS[k]}", "utf-8"),
    "words and numbers": (
        "file,class_id,class_name",
        lambda k: f"{k:03}.png,{int(k % 3 > 0)},{KINDS[k]}",
        "utf-8",
    ),
    "no header": ("", lambda k: f"{k:03}.png,{KINDS[k]}", "utf-8"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_labels_in_the_forms_of_many_programs(form: str, end: str, tmp_path: Path) -> None:
    header, line, encoding = FORMS[form]
    lines = ([header] if header else []) + [line(k) for k in range(N)]
    lines.insert(4, "")
    text = end.join(lines) + end * 2
    (folder(tmp_path) / "labels.csv").write_bytes(text.encode(encoding))
    classes, _, notes = whole(tmp_path)
    assert classes == {f"{k:03}.png": kind for k, kind in enumerate(KINDS)}
    assert "names the images" in notes
    assert "is the class" in notes


def test_names_with_accents_in_either_form(tmp_path: Path) -> None:
    folder(tmp_path, lambda k: unicodedata.normalize("NFD", f"größe/é{k}.png"))
    lines = [f"{unicodedata.normalize('NFC', f'größe/é{k}.png')},{KINDS[k]}" for k in range(N)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *lines]), encoding="utf-8")
    classes, _, _ = whole(tmp_path)
    assert Counter(classes.values()) == {"owl": 16, "fox": 8}


def test_numbers_without_zeros_are_matched_last_and_said(tmp_path: Path) -> None:
    lines = [f"{k},{KINDS[k]}" for k in range(N)]
    (folder(tmp_path) / "labels.csv").write_text("\n".join(["id,label", *lines]))
    classes, _, notes = whole(tmp_path)
    assert classes["007.png"] == KINDS[7]
    assert "names the images by number" in notes


def test_columns_are_told_by_their_cells(tmp_path: Path) -> None:
    header = "file;Alter;raucht;Herkunft;label;n;Kommentar"
    lines = [
        f"{k:03}.png;{k},5;{['ja', 'Nein', ''][k % 3]};{'ab'[k % 2]};{KINDS[k]};;frei {k}"
        for k in range(N)
    ]
    (folder(tmp_path) / "daten.csv").write_text("\n".join([header, *lines]))
    classes, values, notes = whole(tmp_path)
    assert classes["003.png"] == "fox"
    assert values["003.png"] == {"Alter": 3.5, "raucht": 1}
    assert values["004.png"] == {"Alter": 4.5, "raucht": 0}
    assert np.isnan(values["005.png"]["raucht"])
    assert "'Alter', 'raucht' are attributes; 'Herkunft', 'Kommentar' left alone" in notes


def test_thousands_and_decimal_commas(tmp_path: Path) -> None:
    (folder(tmp_path) / "attributes.csv").write_text(
        'file,area,width\n000.png,"1,234","0,5"\n001.png,"12,345,678","1,25"\n'
    )
    _, values, _ = whole(tmp_path)
    assert values["000.png"] == {"area": 1234, "width": 0.5}
    assert values["001.png"] == {"area": 12345678, "width": 1.25}


def test_lists_of_celeba(tmp_path: Path) -> None:
    folder(tmp_path / "img_align", lambda k: f"{k + 1:06}.jpg")
    rows = [f"{k + 1:06}.jpg  {'1' if k % 2 else '-1'} -1" for k in range(N - 1)]
    text = f"{N}\n5_o_Clock_Shadow Male\n" + "\n".join([*rows, f"{N:06}.jpg  1  1"])
    (tmp_path / "list_attr_celeba.txt").write_text(text)
    parts = [f"{k + 1:06}.jpg {0 if k < 12 else 1 if k < 17 else 2}" for k in range(N)]
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(parts))
    splits = load_data(tmp_path)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [12, 5, 7]
    assert splits.train.attribute_names == ("5_o_Clock_Shadow", "Male")
    assert splits.train.attributes is not None
    assert splits.train.attributes[:, 0].tolist() == [0, 1] * 6
    assert splits.test.attributes is not None
    assert splits.test.attributes[:, 1].sum() == 1


def test_a_column_of_parts_and_a_part_without_labels(tmp_path: Path) -> None:
    words = ["Training"] * 14 + ["Val"] * 4 + ["testing"] * 6
    lines = [f"{k:03}.png,{words[k]},{KINDS[k] if k < 18 else ''}" for k in range(N)]
    (folder(tmp_path) / "meta.csv").write_text("\n".join(["image,split,label", *lines]))
    splits = load_data(tmp_path)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [14, 4, 6]
    assert splits.test.labels is not None
    assert splits.test.labels.tolist() == [-1] * 6
    assert "6 of 24 images have no label" in " ".join(splits.notes)


def test_tables_of_parts_are_brought_together(tmp_path: Path) -> None:
    folder(tmp_path)
    for name, rows in (("train.csv", range(18)), ("test.csv", range(18, N))):
        lines = [f"{k:03}.png,{KINDS[k]}" for k in rows]
        (tmp_path / name).write_text("\n".join(["file,label", *lines]))
    (tmp_path / "sample_submission.csv").write_text("file,label\n018.png,owl\n")
    splits = load_data(tmp_path)
    assert len(splits.test) == 6
    assert summary(splits)["classes"]["test"] == {"fox": 2, "owl": 4}
    assert "parts are those that the tables are named by" in " ".join(splits.notes)


def test_rows_and_images_that_do_not_meet_are_counted(tmp_path: Path) -> None:
    lines = [f"{k:03}.png,{KINDS[k]}" for k in range(20)]
    more = ["gone.png,owl", "lost.png,owl", "000.png,fox"]
    (folder(tmp_path) / "labels.csv").write_text("\n".join(["file,label", *lines, *more]))
    classes, _, notes = whole(tmp_path)
    assert Counter(classes.values()) == {"owl": 13, "fox": 7, "": 4}
    assert "2 rows name no image (first: line 22, 'gone.png') and were left out" in notes
    assert "4 images (first: 020.png) have no row in a table" in notes
    assert "1 row repeats another" in notes


def test_a_table_about_something_else_is_left_alone_and_named(tmp_path: Path) -> None:
    (folder(tmp_path) / "losses.csv").write_text("epoch,loss\n1,3.5\n2,2.5\n")
    classes, values, notes = whole(tmp_path)
    assert not classes
    assert not values
    assert "losses.csv: names no image (column 'epoch', first cell '1')" in notes


def test_labels_of_a_table_go_before_folders_that_say_otherwise(tmp_path: Path) -> None:
    folder(tmp_path, lambda k: f"site{k % 2}/{k:03}.png")
    lines = [f"{k:03}.png,{KINDS[k]}" for k in range(N)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *lines]))
    classes, _, notes = whole(tmp_path)
    assert classes["site1/003.png"] == "fox"
    assert "the 2 class folders say otherwise and were not used" in notes


TWO = "".join(f"{k:03}.png,{'xy'[k % 2]},{'pqr'[k % 3]}\n" for k in range(N))
AGES = "".join(f"{k:03}.png,{k}\n" for k in range(4)) + "004.png,old\n"
TWICE = "file,label\n000.png,owl\n000.png,fox\n"
HOLDOUT = "file,split,label\n000.png,train,a\n001.png,holdout,b\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,1\n", r"names no image .*column 'file', first cell 'a'"),
        (f"file,breed,coat\n{TWO}", r"columns 'breed' and 'coat' could both be the labels"),
        (f"file,species,class\n{TWO}", r"columns 'species' and 'class' could both be"),
        (f"file,age\n{AGES}", r"line 6, column 'age': 'old' is no number"),
        (TWICE, r"line 3: '000.png' was named before, in line 2"),
        (HOLDOUT, r"line 3, column 'split': 'holdout' names no part. Write train, val or test"),
        ("file,age\n000.png,1,5\n", r"line 2 has 3 cells and the header has 2"),
        ('file,label\n"000.png,owl\n', "cannot be read"),
    ],
)
def test_what_is_open_is_an_error_that_quotes_it(text: str, message: str, tmp_path: Path) -> None:
    (folder(tmp_path) / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_data(tmp_path)


def test_of_two_columns_the_one_named_label_is_the_class(tmp_path: Path) -> None:
    (folder(tmp_path) / "labels.csv").write_text(f"file,label,class\n{TWO}")
    classes, _, notes = whole(tmp_path)
    assert {*classes.values()} == {"x", "y"}
    assert "'class' left alone" in notes


def test_a_name_that_several_images_have_needs_its_folder(tmp_path: Path) -> None:
    for kind in ("a", "b"):
        save_images(tmp_path / kind, noise(12, 6, 5))
    (tmp_path / "attributes.csv").write_text("file,size\n003.png,1\n")
    with pytest.raises(DataError, match=r"line 2: '003.png' names several images. Give their fol"):
        load_data(tmp_path)
    (tmp_path / "attributes.csv").write_text("file,size\nb/003.png,1\n")
    _, values, _ = whole(tmp_path)
    assert values["b/003.png"] == {"size": 1}


def test_rows_of_frames(tmp_path: Path) -> None:
    pages = [Image.fromarray(page) for page in noise(12, 6, 5)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "attributes.csv").write_text("file,depth\ns.tif#3,30\ns.tif#12,120\n")
    _, values, _ = whole(tmp_path)
    assert {n: v["depth"] for n, v in values.items() if v["depth"] == v["depth"]} == {
        "s.tif#3": 30,
        "s.tif#12": 120,
    }


# -------------------------------------------------------------------------------- parts and classes


FLAGS: dict[str, tuple[str, Callable[[int], str], list[int]]] = {
    "test": ("is_test", lambda k: str(k >= 15), [15, 0, 9]),
    "train": ("train", lambda k: str(int(k < 15)), [15, 0, 9]),
    "floats": ("isTrain", lambda k: str(float(k < 15)), [15, 0, 9]),
    "valid": ("is_valid", lambda k: "yes" if k >= 15 else "no", [15, 9, 0]),
    "two": ("is_val,is_test", lambda k: f"{int(15 <= k < 19)},{int(k >= 19)}", [15, 4, 5]),
    "three": (
        "train,validation,test",
        lambda k: f"{k < 15},{15 <= k < 19},{k >= 19}",
        [15, 4, 5],
    ),
    "with words": (
        "split,test",
        lambda k: f"{'train' if k < 15 else 'test'},{k >= 15}",
        [15, 0, 9],
    ),
    "codes": ("set", lambda k: str(float(k >= 15)), [15, 9, 0]),
    "three codes": ("partition", lambda k: str(int(k >= 15) + int(k >= 19)), [15, 4, 5]),
    "some": ("is_test", lambda k: ["0", "1", ""][k % 3], [16, 0, 8]),  # unknown are trained on
}


@pytest.mark.parametrize("form", FLAGS)
def test_columns_of_yes_and_no_are_parts(form: str, tmp_path: Path) -> None:
    header, line, counts = FLAGS[form]
    lines = [f"{k:03}.png,{KINDS[k]},{line(k)}" for k in range(N)]
    (folder(tmp_path) / "labels.csv").write_text("\n".join([f"file,label,{header}", *lines]))
    splits = load_data(tmp_path, split=(1, 0, 0))
    own = [
        len(part) if part is not splits.train else 0 for part in (splits.validation, splits.test)
    ]
    assert [len(splits.train), *own] == counts
    assert not splits.train.attribute_names
    assert "names the parts" in " ".join(splits.notes)


@pytest.mark.parametrize(
    ("header", "cells", "message"),
    [
        ("split", "123", r"line 2, column 'split': '1' names no part"),
        ("subset", "AB", r"column 'subset': 'A' names no part"),
        ("phase", ["train", "unseen"], r"line 3, column 'phase': 'unseen' names no part"),
        ("dataset", ["train", "other"], r"line 3, column 'dataset': 'other' names no part"),
        ("is_train,is_test", ["1,0", "1,1"], r"line 3 is in two parts, by column 'is_test'"),
        ("split,is_test", ["test,1", "test,0"], r"line 3: columns 'split' and 'is_test' \(else"),
    ],
)
def test_parts_that_are_none_are_errors(
    header: str, cells: Sequence[str], message: str, tmp_path: Path
) -> None:
    lines = [f"{k:03}.png,{KINDS[k]},{cells[k % len(cells)]}" for k in range(N)]
    (folder(tmp_path) / "labels.csv").write_text("\n".join([f"file,label,{header}", *lines]))
    with pytest.raises(DataError, match=message):
        load_data(tmp_path)


@pytest.mark.parametrize("cell", ["{}", "fold{}"])
def test_folds_and_origins_are_neither_attribute_nor_class(cell: str, tmp_path: Path) -> None:
    lines = [f"{k:03}.png,{cell.format(k % 5)},{'xy'[k % 2]},{KINDS[k]}" for k in range(N)]
    (folder(tmp_path) / "a.csv").write_text("\n".join(["file,fold,dataset,label", *lines]))
    classes, values, notes = whole(tmp_path)
    assert {*classes.values()} == {"owl", "fox"}
    assert not values
    assert "'fold', 'dataset' left alone" in notes


@pytest.mark.parametrize("word", ["None", "none", "NA", "unknown"])
def test_words_for_nothing_are_quoted_with_the_remedy(word: str, tmp_path: Path) -> None:
    cells = [[word, "mild", "severe"][k % 3] for k in range(N)]
    lines = [f"{k:03}.png,{cell}" for k, cell in enumerate(cells)]
    (folder(tmp_path) / "labels.csv").write_text("\n".join(["file,label", *lines]))
    classes, _, notes = whole(tmp_path)
    assert Counter(classes.values()) == {"": 8, "mild": 8, "severe": 8}
    assert f"8 images have {word!r} in column 'label' and so no label. If it is a class" in notes
    lines = [f"{k:03}.png,{k % 3 or word}" for k in range(N)]  # numbers, and some unknown
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *lines]))
    classes, _, notes = whole(tmp_path)
    assert Counter(classes.values()) == {"": 8, "1": 8, "2": 8}
    assert f"8 images have {word!r} in column 'label' and so no label." in notes
    assert "If it is a class" not in notes


@pytest.mark.parametrize(
    ("header", "cell", "expected"),
    [
        ("age", lambda k: 20 + k, None),  # as many as images
        ("digit", lambda k: k % 10, "classes"),
        ("target", lambda k: 20 + k, "classes"),  # named so
        ("", lambda k: 20 + k, None),
        ("", lambda k: k % 3, "classes"),
        ("x,y", lambda k: f"{k % 7},{k % 5}", None),
        ("y", lambda k: k % 5, "classes"),
    ],
)
def test_whole_numbers_that_do_not_repeat_are_no_classes(
    header: str, cell: Callable[[int], Any], expected: str | None, tmp_path: Path
) -> None:
    lines = [f"file,{header}"] if header else []
    lines += [f"{k:03}.png,{cell(k)}" for k in range(N)]
    (folder(tmp_path) / "labels.csv").write_text("\n".join(lines))
    classes, values, notes = whole(tmp_path)
    if expected:
        assert [classes[f"{k:03}.png"] for k in range(N)] == [str(cell(k)) for k in range(N)]
        assert not values
        return
    assert not classes
    found = [list(values[f"{k:03}.png"].values()) for k in range(N)]
    assert found == [[float(part) for part in str(cell(k)).split(",")] for k in range(N)]
    assert "attribute" in notes


def test_many_numbers_with_gaps_are_no_classes() -> None:
    chance = np.random.default_rng(0)
    assert not like_classes(chance.permutation(np.repeat(np.arange(0, 240, 2.0), 4)))
    assert like_classes(chance.permutation(np.repeat(np.arange(120.0), 4)))
    assert like_classes(chance.permutation(np.repeat(np.arange(0, 240, 2.0), 6)))


# ------------------------------------------------------------------------------- rows and images


def test_lines_of_json(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", lambda k: f"{'test' if k > 17 else 'train'}/{k:03}.png")
    for part, rows in (("train", range(18)), ("test", range(18, N))):
        lines = [
            json.dumps(
                {"file_name": f"{k:03}.png", "label": KINDS[k], "size": k / 4, "wild": k < 3}
            )
            for k in rows
        ]
        (root / part / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    splits = load_data(root, split=(1, 0, 0))
    assert summary(splits)["classes"]["test"] == {"fox": 2, "owl": 4}
    assert splits.train.attribute_names == ("size", "wild")
    assert splits.train.attributes is not None
    assert splits.train.attributes[:4].tolist() == [[0, 1], [0.25, 1], [0.5, 1], [0.75, 0]]
    (root / "train" / "metadata.jsonl").write_text('{"file_name": "000.png"}\n[1]\n')
    with pytest.raises(DataError, match=r"metadata.jsonl: line 2 is no JSON object. Write one"):
        load_data(root)


@pytest.mark.parametrize("table", ["train.csv", "train_labels.csv", "trainLabels.csv"])
@pytest.mark.parametrize("above", ["", "images/"])
def test_a_table_named_after_a_part_is_about_its_folder(
    table: str, above: str, tmp_path: Path
) -> None:
    root = folder(tmp_path / "d", lambda k: f"{above}{'test' if k > 11 else 'train'}/{k % 12}.png")
    lines = [f"{k},{KINDS[k]}" for k in range(12)]
    (root / table).write_text("\n".join(["id,target", *lines]))
    splits = load_data(root, split=(1, 0, 0))
    assert [len(splits.train), len(splits.test)] == [12, 12]
    assert summary(splits)["classes"]["train"] == {"fox": 4, "owl": 8}
    assert splits.test.labels is not None
    assert splits.test.labels.tolist() == [-1] * 12


def test_tables_that_join_a_part_to_others_are_parts(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    for name, rows in (("labels_train.csv", range(18)), ("labels_test.csv", range(18, N))):
        lines = [f"{k:03}.png,{KINDS[k]}" for k in rows]
        (root / name).write_text("\n".join(["file,label", *lines]))
    assert len(load_data(root).test) == 6


def test_rows_of_boxes_are_of_one_image(tmp_path: Path) -> None:
    lines = [
        f"{k:03}.png,{KINDS[k]},{k / 2},{box},{2 * box}" for k in range(N) for box in range(k % 3)
    ]
    root = folder(tmp_path / "data")
    (root / "boxes.csv").write_text("\n".join(["file,class,weight,xmin,ymin", *lines]))
    classes, values, notes = whole(root)
    assert [classes[f"{k:03}.png"] for k in range(N)] == [
        KINDS[k] if k % 3 else "" for k in range(N)
    ]
    assert values["004.png"] == {"weight": 2}
    assert "8 images have several boxes ('xmin', 'ymin'), which were left alone" in notes
    (root / "boxes.csv").write_text("file,class,xmin\n000.png,a,1\n000.png,b,1\n001.png,a,1\n")
    with pytest.raises(
        DataError, match=r"line 2, with another 'class' \('a', then 'b'\). Keep one"
    ):
        load_data(root)


def test_classes_of_a_table_that_differ_by_case_are_said(tmp_path: Path) -> None:
    lines = [f"{k:03}.png,{['cat', 'Cat', 'dog'][k % 3]}" for k in range(N)]
    (folder(tmp_path) / "labels.csv").write_text("\n".join(["file,label", *lines]))
    classes, _, notes = whole(tmp_path)
    assert Counter(classes.values()) == {"cat": 8, "Cat": 8, "dog": 8}
    assert "classes Cat and cat differ by case alone and are kept apart" in notes


def test_a_folder_of_tables_of_pixels_names_the_file_to_pass(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).write_text("label,pixel0\n1,0\n")
    with pytest.raises(DataError, match=r"images, pass it itself: .*/train.csv"):
        load_data(tmp_path)


# ------------------------------------------------------------------------------------------- groups


def of_groups(splits: Splits) -> list[set[int]]:
    """The groups of each part: images are one level a group."""
    parts = (splits.train, splits.validation, splits.test)
    return [{*part.take(torch.arange(len(part)))[:, 0, 0, 0].tolist()} for part in parts]


@pytest.mark.parametrize("seed", range(8))
def test_no_group_is_in_two_parts_and_shares_are_close(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(40), rng.integers(1, 9, 40))
    images = np.repeat(groups.astype(np.uint8), 30).reshape(-1, 6, 5) * 6
    save_images(tmp_path, images)
    lines = [f"{k:03}.png,p{group},{'xy'[k % 2]}" for k, group in enumerate(groups)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,patient,label", *lines]))
    splits = load_data(tmp_path, group="patient", split=(0.7, 0.15, 0.15), split_seed=seed)
    train, validation, test = of_groups(splits)
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(train | validation | test) == 40
    for part in (splits.validation, splits.test):
        assert abs(len(part) / len(groups) - 0.15) < 0.02
        assert part.labels is not None
        assert len(part.labels.unique()) == 2
    assert "patient" not in splits.train.attribute_names


def test_groups_that_are_too_large_or_too_few_are_said() -> None:
    parts = np.zeros(40, np.int8)
    groups = ["big"] * 25 + [f"g{k // 3}" for k in range(15)]
    rows, held_out, notes = split_rows(parts, (0.8, 0.1, 0.1), 0, None, groups)
    assert held_out
    assert sum(map(len, rows)) == 40
    assert "1 group is larger than the 4 images of a part (largest: 'big', 25 images)" in notes[0]
    assert 0 in rows[0]
    rows, held_out, notes = split_rows(parts, (0.8, 0.1, 0.1), 0, None, ["a"] * 20 + ["b"] * 20)
    assert not held_out
    assert len({*rows[2].tolist()} & {*rows[0].tolist()}) == 0
    assert "2 groups cannot be in 3 parts" in " ".join(notes)


def test_a_group_in_two_parts_of_the_data_is_a_leak(tmp_path: Path) -> None:
    folder(tmp_path, lambda k: f"{'train' if k < 16 else 'test'}/{k:03}.png")
    lines = [f"{k:03}.png,s{k // 5}" for k in range(N)]
    (tmp_path / "meta.csv").write_text("\n".join(["file,slide", *lines]))
    notes = " ".join(load_data(tmp_path, group="slide").notes)
    assert "Leak: 1 of 5 groups lies in more than one part of the data (first: 's3', in tr" in notes
    with pytest.raises(
        ConfigError, match=r"no table of .* has a column 'patient'. Columns: file, s"
    ):
        load_data(tmp_path, group="patient")
    with pytest.raises(ConfigError, match="images has no table with a column 'slide'"):
        load_data(noise(12, 4, 4), group="slide")


def test_folders_of_a_table_say_nothing_of_its_cells(tmp_path: Path) -> None:
    root = folder(tmp_path / "my_partition")
    lines = [f"{k:03}.png,{k % 3}" for k in range(N)]
    (root / "labels.csv").write_text("\n".join(["file,label", *lines]))
    classes, _, _ = whole(root)
    assert [classes[f"{k:03}.png"] for k in range(N)] == [str(k % 3) for k in range(N)]
    (root / "class_a").mkdir()
    (root / "class_a" / "notes.csv").write_text("day,weather\n1,rain\n2,sun\n")
    (root / "labels.csv").rename(root / "sample_submission.csv")
    classes, _, notes = whole(root)
    assert not classes
    assert "notes.csv: names no image" in notes


def test_parts_without_header_are_parts(tmp_path: Path) -> None:
    root = folder(tmp_path / "data")
    words = ["train", "train", "val", "test"]
    (root / "list.csv").write_text("\n".join(f"{k:03}.png,{words[k % 4]}" for k in range(N)))
    splits = load_data(root)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [12, 6, 6]
    assert splits.train.labels is None


@pytest.mark.parametrize("by", ["table", "folders", "mapping"])
def test_parts_without_one_to_train_on_are_one_set_and_that_is_said(
    tmp_path: Path, by: str
) -> None:
    images, source = noise(N, 6, 5), None
    if by == "table":
        source = folder(tmp_path / "data")
        lines = [f"{k:03}.png,{'val' if k % 2 else 'test'}" for k in range(N)]
        (tmp_path / "data" / "of.csv").write_text("\n".join(["file,split", *lines]))
    if by == "folders":
        source = folder(tmp_path / "data", lambda k: f"{'valid' if k % 2 else 'test'}/{k}.png")
    splits = load_data(source or {"val_images": images[::2], "test_images": images[1::2]})
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [20, 2, 2]
    said = [note for note in splits.notes if "taken as one set" in note]
    assert len(said) == 1
    assert "names validation and test images but none to train on" in said[0]


def test_images_without_a_row_keep_the_class_of_their_folder(tmp_path: Path) -> None:
    places = {f"{KINDS[k]}/{k:03}.png": KINDS[k] for k in range(N)}
    root = folder(tmp_path / "data", lambda k: f"{KINDS[k]}/{k:03}.png")
    few = [*places.items()][:5]
    for words in ({"owl": "owl", "fox": "fox"}, {"owl": "7", "fox": "3"}):
        lines = [f"{name},{words[kind]}" for name, kind in few]
        (root / "labels.csv").write_text("\n".join(["file,label", *lines]))
        classes, _, notes = whole(root)
        assert classes == {name: words[kind] for name, kind in places.items()}
        assert "19 images keep the class of the folder, having no row" in notes
    lines = [f"{name},{'ab'[k % 2]}" for k, (name, _) in enumerate(few)]
    (root / "labels.csv").write_text("\n".join(["file,label", *lines]))
    classes, _, notes = whole(root)
    assert [classes[name] for name, _ in few] == ["a", "b", "a", "b", "a"]
    assert sum(map(bool, classes.values())) == 5
    assert "2 class folders say otherwise and were not used" in notes


def test_whole_paths_and_files_beside_the_table_come_first(tmp_path: Path) -> None:
    root = folder(tmp_path / "one", lambda k: f"sub/{k // 2}.png" if k % 2 else f"{k // 2}.png")
    lines = [f"{k}.png,{'ab'[k % 2]}" for k in range(12)]
    (root / "labels.csv").write_text("\n".join(["file,label", *lines]))
    classes, _, _ = whole(root)
    assert classes == {
        **{f"{k}.png": "ab"[k % 2] for k in range(12)},
        **{f"sub/{k}.png": "" for k in range(12)},
    }
    parts = ("train", "test")
    root = folder(tmp_path / "two", lambda k: f"{parts[k % 2]}/all/{k // 2}.png")
    for part, kinds in zip(parts, ("ab", "ba"), strict=True):
        lines = [f"{k}.png,{kinds[k % 2]}" for k in range(12)]
        (root / part / "labels.csv").write_text("\n".join(["file,label", *lines]))
    splits = load_data(root, split=(1, 0, 0))
    for images, kinds in ((splits.train, "ab"), (splits.test, "ba")):
        numbers = [int(Path(name).stem) for name in images.names or ()]
        assert images.class_of_each() == [kinds[k % 2] for k in numbers]


def test_numbers_name_files_whose_zeros_run_out(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", lambda k: f"{k + 995:04}.png")
    lines = [f"{k + 995},{KINDS[k]}" for k in range(N)]
    (root / "labels.csv").write_text("\n".join(["id,label", *lines]))
    classes, _, notes = whole(root)
    assert classes == {f"{k + 995:04}.png": KINDS[k] for k in range(N)}
    assert "names the images by number" in notes


def test_first_line_that_names_an_image_without_ending_is_no_header(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", lambda k: f"p{k:03}.png")
    lines = [f"p{k:03},{KINDS[k]}" for k in range(N)]
    (root / "labels.csv").write_text("\n".join(lines))
    classes, _, _ = whole(root)
    assert classes == {f"p{k:03}.png": KINDS[k] for k in range(N)}
    Image.fromarray(noise(1, 6, 5)[0]).save(root / "name.png")
    (root / "labels.csv").write_text("\n".join(["name,label", *lines[1:]]))
    classes, _, _ = whole(root)
    assert classes["p000.png"] == classes["name.png"] == ""
    assert classes["p001.png"] == KINDS[1]
