"""Parts and classes by folders, kinds of files, frames, lists of paths and archives."""

from __future__ import annotations

import unicodedata
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.test_data import expect_images, noise, save_images
from vaelab.data import Splits, load_data, summary
from vaelab.errors import DataError


def tree(root: Path, **counts: int) -> None:
    """Write so many images into each folder, named with __ for a slash."""
    for number, (name, count) in enumerate(counts.items()):
        images = noise(count, 6, 5, seed=number)
        save_images(root / name.replace("__", "/"), images)


def found(splits: Splits) -> dict[str, dict[str, int]]:
    """Images of each class in each part, the validation part drawn from train counted to it."""
    classes = summary(splits)["classes"]
    return {part: {k: n for k, n in of.items() if n} for part, of in classes.items()}


def said(splits: Splits) -> str:
    return " ".join(splits.notes)


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Testing", "Validation"),
        ("TRAIN", "TEST", "VAL"),
        ("training_set", "test_set", "dev"),
        ("train-images", "test images", "Valid"),
        ("outer/inner/train", "outer/inner/test", "outer/inner/valid"),
    ],
)
def test_words_for_parts(names: tuple[str, str, str], tmp_path: Path) -> None:
    for number, name in enumerate(names):
        for kind, count in (("ant", 3), ("bee", 4)):
            save_images(tmp_path / name / kind, noise(count + number, 6, 5))
    assert found(load_data(tmp_path)) == {
        "train": {"ant": 3, "bee": 4},
        "test": {"ant": 4, "bee": 5},
        "validation": {"ant": 5, "bee": 6},
    }


def test_a_part_that_repeats_its_name_is_no_class(tmp_path: Path) -> None:
    tree(
        tmp_path,
        training_set__training_set__cat=6,
        training_set__training_set__dog=6,
        test_set__test_set__cat=2,
        test_set__test_set__dog=3,
    )
    assert found(load_data(tmp_path))["test"] == {"cat": 2, "dog": 3}


def test_a_lone_folder_is_a_class_and_said(tmp_path: Path) -> None:
    tree(tmp_path, img=10)
    splits = load_data(tmp_path)
    assert splits.train.class_names == ("img",)
    assert "img is the only folder, and the only class" in said(splits)
    tree(tmp_path, other=10)
    assert "only" not in said(load_data(tmp_path))


def test_parts_below_classes(tmp_path: Path) -> None:
    tree(tmp_path, nut__train__ok=6, nut__test__bad=2, bolt__train__ok=7, bolt__test__ok=3)
    splits = load_data(tmp_path)
    assert found(splits)["test"] == {"bolt": 3, "nut": 2}
    assert len(splits.train) + len(splits.validation) == 13
    assert "the parts are the folders below those of the classes" in said(splits)


def test_a_part_beside_class_folders_is_refused_with_both_remedies(tmp_path: Path) -> None:
    tree(tmp_path, car=4, Train=4, bus=4)
    with pytest.raises(DataError, match=r"bus/000.png is beside Train.*or rename Train if it is a"):
        load_data(tmp_path)


@pytest.mark.parametrize("below", ["test", "test/test", "test/images"])
def test_a_test_part_without_labels_costs_train_none(below: str, tmp_path: Path) -> None:
    tree(tmp_path, train__a=8, train__b=8)
    save_images(tmp_path / below, noise(5, 6, 5))
    splits = load_data(tmp_path)
    assert splits.train.class_names == ("a", "b")
    assert splits.train.labels is not None
    assert splits.test.labels is not None
    assert sorted(splits.train.labels.tolist()) == [0] * 7 + [1] * 7
    assert splits.test.labels.tolist() == [-1] * 5
    assert "5 images in no class folder (first: test/" in said(splits)


def test_loose_and_unlabelled_images_keep_the_classes_of_others(tmp_path: Path) -> None:
    tree(tmp_path, a=5, b=5, Unlabeled=4)
    save_images(tmp_path, noise(3, 6, 5))
    splits = load_data(tmp_path, split=(1, 0, 0))
    assert splits.train.labels is not None
    assert Counter(splits.train.labels.tolist()) == {-1: 7, 0: 5, 1: 5}
    assert splits.train.class_names == ("a", "b")
    assert "7 images in no class folder" in said(splits)


def test_unlabelled_images_beside_parts_are_trained_on(tmp_path: Path) -> None:
    tree(tmp_path, train__a=5, train__b=5, test__a=3, test__b=3, val__a=2, val__b=2, unlabelled=9)
    splits = load_data(tmp_path)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [19, 4, 6]


def test_folders_below_a_class_belong_to_it(tmp_path: Path) -> None:
    tree(tmp_path, train__a__left=3, train__a__right=2, train__b__left=6, test__b=2, val__a=2)
    assert found(load_data(tmp_path))["train"] == {"a": 5, "b": 6}


def test_classes_are_ordered_by_number_and_empty_ones_are_named(tmp_path: Path) -> None:
    tree(tmp_path, **{"2": 4, "10": 4, "1": 4})
    (tmp_path / "7").mkdir()
    (tmp_path / "8").mkdir()
    (tmp_path / "8" / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    splits = load_data(tmp_path)
    assert splits.train.class_names == ("1", "2", "10")
    assert "Class 7 has no image and was left out" in said(splits)
    assert "Class 8 has no image that is read (1 HEIC file) and was left out" in said(splits)


def test_only_test_images_are_a_set_of_their_own_and_that_is_said(tmp_path: Path) -> None:
    tree(tmp_path, test__a=10, test__b=10)
    splits = load_data(tmp_path)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [16, 2, 2]
    assert splits.train.class_names == ("a", "b")
    assert "test images but no training images" in said(splits)


# ------------------------------------------------------------- words for parts joined to others


AB = {"train": {"a": 12, "b": 11}, "test": {"a": 3, "b": 2}}
JOINED: dict[str, tuple[str, str]] = {
    "twice": ("seg_train/seg_train/{}", "seg_test/seg_test/{}"),
    "once": ("asl_train/{}", "asl_test/{}"),
    "behind": ("train-birds2019/{}", "test-birds2020/{}"),
    "german": ("Trainingsdaten/{}", "Testdaten/{}"),
    "class behind": ("train_{}", "test_{}"),
    "class in front": ("{}.train", "{}.test"),
    "class in both": ("{0}/{0}_train", "{0}/{0}_test"),
    "wrapped": ("x/birds train/images/{}", "x/birds test/images/{}"),
}


@pytest.mark.parametrize("form", JOINED)
def test_words_for_parts_joined_to_others(form: str, tmp_path: Path) -> None:
    for pattern, part in zip(JOINED[form], ("train", "test"), strict=True):
        for kind, count in AB[part].items():
            save_images(tmp_path / pattern.format(kind), noise(count, 6, 5))
    splits = load_data(tmp_path, split=(1, 0, 0))
    assert found(splits)["train"] == AB["train"]
    assert found(splits)["test"] == AB["test"]
    assert form == "german" or "folders are parts by their names" in said(splits)
    assert "has no image" not in said(splits)


def test_domains_of_two_parts_are_classes(tmp_path: Path) -> None:
    tree(tmp_path, trainA=12, trainB=5, testA=2, testB=3, trainC=2)
    splits = load_data(tmp_path, split=(1, 0, 0))
    assert found(splits)["train"] == {"A": 12, "B": 5, "C": 2}
    assert found(splits)["test"] == {"A": 2, "B": 3}
    assert "trainA, trainB, trainC as train; testA, testB as test. What is joined" in said(splits)


def test_classes_below_several_folders_of_a_part(tmp_path: Path) -> None:
    tree(tmp_path, north_train__a=5, south_train__a=4, south_train__b=6, north_test__b=3)
    splits = load_data(tmp_path, split=(1, 0, 0))
    assert found(splits)["train"] == {"a": 9, "b": 6}
    assert found(splits)["test"] == {"b": 3}


def test_images_to_be_predicted_have_no_class(tmp_path: Path) -> None:
    tree(tmp_path, seg_train__seg_train__a=8, seg_train__seg_train__b=8)
    tree(tmp_path, seg_test__seg_test__a=3, seg_test__seg_test__b=2, seg_pred__seg_pred=4)
    splits = load_data(tmp_path, split=(1, 0, 0))
    assert found(splits)["test"] == {"a": 3, "b": 2}
    assert splits.train.labels is not None
    assert Counter(splits.train.labels.tolist()) == {-1: 4, 0: 8, 1: 8}
    assert "seg_pred as images without labels" in said(splits)


@pytest.mark.parametrize("names", [("latest", "trainers", "contest"), ("test_tube", "train set x")])
def test_words_that_are_not_joined_are_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    tree(tmp_path, **dict.fromkeys(names[:1], 6), **dict.fromkeys((*names[1:], "owl"), 5))
    splits = load_data(tmp_path)
    assert splits.train.class_names == tuple(sorted((*names, "owl")))
    assert ("look like parts" in said(splits)) == (names[0] == "test_tube")


def test_folds_that_are_classes_are_said(tmp_path: Path) -> None:
    tree(tmp_path, fold_1__a=5, fold_2__a=4)
    assert "classes fold_1 and fold_2 look like folds, not classes" in said(load_data(tmp_path))


def test_parts_of_some_classes_are_mixed_and_said(tmp_path: Path) -> None:
    tree(tmp_path, cat__train=5, cat__test=4, dog=6)
    splits = load_data(tmp_path)
    assert splits.train.class_names == ("cat", "dog")
    assert "folders train and test look like parts, but not all" in said(splits)


@pytest.mark.parametrize("other", ["unlabelled", "unlabeled_images", "birds_unlabeled", ""])
def test_labelled_images_are_gone_into(other: str, tmp_path: Path) -> None:
    tree(tmp_path, labelled__a=6, labelled__b=7)
    save_images(tmp_path / other, noise(4, 6, 5))
    (tmp_path / "labelled" / "c").mkdir()
    splits = load_data(tmp_path, split=(1, 0, 0))
    assert splits.train.labels is not None
    assert splits.train.class_names == ("a", "b")
    assert Counter(splits.train.labels.tolist()) == {-1: 4, 0: 6, 1: 7}
    assert "classes are the folders in labelled" in said(splits)
    assert "Class c has no image" in said(splits)


# ------------------------------------------------------------------------------------ kinds of file


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path) -> None:
    images = noise(11, 6, 5)
    save_images(tmp_path, images)
    (tmp_path / "__MACOSX").mkdir()
    for name in ("__MACOSX/._000.png", "._000.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"no image")
    splits = load_data(tmp_path)
    expect_images(splits, images[:, None])
    assert "left alone" not in said(splits)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.gif", {}),
        ("a.pgm", {}),
        ("a.ppm", {}),
        ("a.jp2", {"irreversible": False}),
        ("a", {"format": "PNG"}),
        ("a.dat", {"format": "PNG"}),
        ("a.jpg", {"format": "PNG"}),
    ],
)
def test_images_are_known_by_what_is_inside(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    pixels = noise(6, 5) if name != "a.ppm" else noise(6, 5, 3)
    for number in range(10):
        Image.fromarray(np.roll(pixels, number)).save(tmp_path / f"{number}{name}", **options)
    splits = load_data(tmp_path, channels=3 if name == "a.ppm" else 1)
    wanted = pixels.transpose(2, 0, 1) if name == "a.ppm" else pixels[None]
    parts = (splits.train, splits.validation, splits.test)
    rows = torch.cat([part.take(torch.arange(len(part))) for part in parts])
    assert any(torch.equal(row, torch.from_numpy(wanted.copy())) for row in rows)
    assert len(rows) == 10


def test_kinds_that_are_not_read_are_counted_with_the_line_that_converts_them(
    tmp_path: Path,
) -> None:
    save_images(tmp_path, noise(3, 6, 5))
    (tmp_path / "a.svg").write_text("<svg/>")
    (tmp_path / "b.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (tmp_path / "c.heic").write_bytes(b"\0\0\0\x18ftypmif1" + bytes(40))
    (tmp_path / "d.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "e.dcm").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "f.nef").write_bytes(b"II*\0" + bytes(90))
    note = next(note for note in load_data(tmp_path).notes if "kinds not read" in note)
    for part in ("2 HEIC (first: b.HEIC)", "1 SVG", "1 PDF", "1 DICOM", "1 RAW"):
        assert part in note
    assert "magick mogrify -format png *.svg" in note
    assert "pdftoppm -png d.pdf page" in note


def test_a_folder_without_images_says_what_lies_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it is empty"):
        load_data(tmp_path)
    (tmp_path / "notes.md").write_text("text")
    with pytest.raises(DataError, match=r"no images but 1 other file \(first: notes.md\)"):
        load_data(tmp_path)
    for number in range(3):
        (tmp_path / f"{number}.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(DataError, match=r"3 HEIC \(first: 0.heic\). Convert with: magick mogrify"):
        load_data(tmp_path)


def test_another_kind_under_the_ending_of_an_image_is_unreadable_by_name(tmp_path: Path) -> None:
    save_images(tmp_path, noise(11, 6, 5))
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(DataError, match=r"phone.jpg, HEIC, which is not read.*magick phone.jpg ph"):
        load_data(tmp_path)
    assert len(load_data(tmp_path, skip_bad=True, split=(1, 0, 0)).train) == 11


# ------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".png"])
def test_pages_and_frames_are_images(suffix: str, tmp_path: Path) -> None:
    levels = [10 * k + 5 for k in range(12)]
    pages = [Image.fromarray(np.full((6, 5, 3), level, np.uint8)) for level in levels]
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    pages[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=pages[1:], **options)

    def shades(**how: Any) -> list[int]:
        splits = load_data(tmp_path, split=(1, 0, 0), range="full", **how)
        return splits.train.take(torch.arange(len(splits.train)))[:, 0, 0, 0].tolist()

    assert shades() == levels
    assert shades(frames="first") == levels[:1]
    assert shades(frames="every=5") == [5, 55, 105]
    assert "1 file holds 12 pages or frames: all are images" in said(load_data(tmp_path))
    assert "3 of them were read" in said(load_data(tmp_path, frames="every=5"))


def test_frames_have_names_and_broken_pages_are_counted(tmp_path: Path) -> None:
    pages = [Image.fromarray(page) for page in noise(4, 6, 5)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    Image.fromarray(noise(6, 5)).save(tmp_path / "t.png")
    names = load_data(tmp_path).train.names
    assert names is not None
    assert list(names) == ["s.tif#1", "s.tif#2", "s.tif#3", "s.tif#4", "t.png"]
    whole = (tmp_path / "s.tif").read_bytes()
    (tmp_path / "s.tif").write_bytes(whole[: len(whole) * 5 // 8])
    with pytest.raises(DataError, match=r"1 of 4 images are unreadable \(first: s.tif#3, "):
        load_data(tmp_path)
    splits = load_data(tmp_path, skip_bad=True)
    assert len(splits.train) == 3


# ---------------------------------------------------------------------------------- paths, archives


def test_a_list_of_paths_keeps_its_order(tmp_path: Path) -> None:
    images = noise(5, 6, 5)
    save_images(tmp_path / "x", images[:3])
    save_images(tmp_path / "y", images[3:])
    paths = [tmp_path / "y" / "001.png", str(tmp_path / "x" / "000.png")]
    for source in (paths, tuple(paths)):
        splits = load_data(source)
        assert torch.equal(
            splits.train.take(torch.arange(2))[:, 0], torch.from_numpy(images[[4, 0]])
        )
        assert "folders of a list of paths were not taken as classes" in said(splits)
    with pytest.raises(DataError, match=r"1 of 2 images are unreadable \(first: .*none.png, miss"):
        load_data([paths[0], tmp_path / "none.png"])


def test_one_file_is_a_data_set(tmp_path: Path) -> None:
    image = noise(6, 5)
    Image.fromarray(image).save(tmp_path / "a.png")
    splits = load_data(tmp_path / "a.png")
    assert torch.equal(splits.train.take(torch.arange(1))[0, 0], torch.from_numpy(image))


def test_an_archive_is_read_like_its_folder(tmp_path: Path) -> None:
    tree(tmp_path / "in", train__a=6, train__b=7, test__a=3, test__b=2)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((tmp_path / "in").rglob("*.png")):
            name = path.relative_to(tmp_path / "in").as_posix().replace("/", "\\", 1)
            archive.write(path, f"data/{name}")
        archive.writestr("__MACOSX/data/._a.png", b"no image")
        archive.writestr("data/labels.csv", "file,size\ntrain/a/000.png,7.5\ntrain/a/001.png,8.5\n")
    one, other = load_data(tmp_path / "in"), load_data(tmp_path / "a.zip")
    assert found(one) == found(other)
    for part in ("train", "validation", "test"):
        first, second = getattr(one, part), getattr(other, part)
        assert torch.equal(
            first.take(torch.arange(len(first))), second.take(torch.arange(len(second)))
        )
    assert other.train.attribute_names == ("size",)


def test_archives_that_climb_lock_or_burst_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for name in ("../a.png", "/etc/a.png", "C:/a.png"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
        with pytest.raises(DataError, match="leads out of the archive"):
            load_data(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"x")
    data = bytearray(path.read_bytes())
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        at = data.index(mark) + (6 if mark[2] == 3 else 8)
        data[at] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="is encrypted"):
        load_data(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.bmp", bytes(400 * 2**20))
    with pytest.raises(DataError, match="taken for a bomb"):
        load_data(path)
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match="no zip archive that can be read"):
        load_data(path)


def test_accents_in_either_form_are_one_class_and_case_is_said(tmp_path: Path) -> None:
    whole, apart = (unicodedata.normalize(form, "Bär") for form in ("NFC", "NFD"))
    counts = {f"train__{whole}": 12, f"test__{apart}": 3, "train__Ox": 4, "train__ox": 5}
    tree(tmp_path, **{**counts, "test__ox": 2})
    splits = load_data(tmp_path, split=(1, 0, 0))
    assert splits.train.class_names == (whole, "Ox", "ox")
    assert found(splits)["train"] == {whole: 12, "Ox": 4, "ox": 5}
    assert found(splits)["test"] == {whole: 3, "ox": 2}
    assert "classes Ox and ox differ by case alone and are kept apart" in said(splits)
    assert "has no image" not in said(splits)


def test_no_home_long_numbers_and_damaged_members_are_no_foreign_errors(tmp_path: Path) -> None:
    for source in ("~no-such-user/a", ["~no-such-user/a.png", "~no-such-user/b.png"]):
        with pytest.raises(DataError, match="no-such-user"):
            load_data(source)
    save_images(tmp_path / "in", noise(12, 40, 50))
    files = sorted((tmp_path / "in").glob("*.png"))
    path = tmp_path / "long.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for k, file in enumerate(files):
            archive.write(file, f"{('10' if k % 2 else '9') * 3000}/{'7' * 5000}{k}.png")
        archive.writestr("labels.csv", "file,weight\n" + "7" * 5000 + "0.png,3\n")
    names = load_data(path, split=(1, 0, 0)).train.class_names
    assert names == ("9" * 3000, "10" * 3000)
    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for file in files:
            archive.write(file, file.name)
        first = archive.infolist()[0]
    data = bytearray(path.read_bytes())
    start = first.header_offset + 30 + len(first.filename)
    data[start + 9 : start + first.compress_size] = b"\xff" * (first.compress_size - 9)
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"{files[0].name}, damaged in the archive"):
        load_data(path)
    assert len(load_data(path, split=(1, 0, 0), skip_bad=True).train) == 11


def test_a_workbook_is_no_archive_and_pcx_is_read(tmp_path: Path) -> None:
    images = noise(12, 6, 5)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number:02}.pcx")
    with zipfile.ZipFile(tmp_path / "labels.xlsx", "w") as file:
        file.writestr("xl/workbook.xml", "<a/>")
    np.savez(tmp_path / "a.npz", images=images)
    splits = load_data(tmp_path)
    expect_images(splits, images[:, None])
    assert "1 workbook (first: labels.xlsx)" in said(splits)
    assert "Save the sheet of labels.xlsx as CSV" in said(splits)
    assert "Name the NumPy file itself" in said(splits)
    assert "unzip" not in said(splits)


def test_folders_in_a_list_of_paths_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"a: is a folder in a list of paths.*rglob"):
        load_data([tmp_path / "a", tmp_path / "b"])
