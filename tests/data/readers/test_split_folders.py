"""Split folders under many names, and folders that only look like splits."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from layout_list import images, table, trees
from making import codes, figures, write

from crossroads.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from crossroads.data.readers import read
from crossroads.data.readers._folder_names import split_in, words_of
from crossroads.errors import DataError
from refusals import refused

KINDS = ("oak", "elm")


def counts(dataset: Dataset) -> dict[str, int]:
    return dict(Counter(dataset.row(row).split for row in range(len(dataset))))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", TRAIN),
        ("Training Images", TRAIN),
        ("TrainImages", TRAIN),
        ("trainset", TRAIN),
        ("train2", TRAIN),
        ("03_TRAIN", TRAIN),
        ("leaves-train-v2", TRAIN),
        ("imgs.val", VALIDATION),
        ("valid_set", VALIDATION),
        ("dev", VALIDATION),
        ("EvalSet", VALIDATION),
        ("hold-out", TEST),
        ("PrivateTest", TEST),
        ("constrained", None),
        ("trainer", None),
        ("contest", None),
        ("train_and_test", None),
        ("", None),
    ],
)
def test_the_split_that_a_name_mentions(name: str, split: int | None) -> None:
    assert split_in(name) == split


def test_words_of_a_name() -> None:
    assert words_of("JPEGImages_2012-TrainVal") == ("jpeg", "images", "2012", "train", "val")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("birds_train/birds_train", "birds_test/birds_test"),
        ("TrainSet", "TestSet"),
        ("1-training", "2-testing"),
        ("train_data/images", "eval_data/images"),
        ("wrap/split/Train Photos", "wrap/split/Test Photos"),
        ("data_train/data/train", "data_train/data/val"),
        ("fit_train", "final_test"),
    ],
)
def test_folders_that_name_a_split_among_other_words(train: str, test: str, tmp_path: Path) -> None:
    dataset = read(write(tmp_path, trees(f"{train}/", f"{test}/", classes=KINDS)))
    assert dataset.classes == ("elm", "oak")
    assert sorted(counts(dataset).values()) == [6, 6]
    assert counts(dataset)["train"] == 6


def test_how_an_unusual_name_is_read_is_noted(tmp_path: Path) -> None:
    assert figures(read(write(tmp_path, trees("plants_train/", "plants_dev/"))), "folder-read-as-split") == [
        {"folder": "plants_dev", "split": "validation"},
        {"folder": "plants_train", "split": "train"},
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("tram", "train", "ferry"),
        ("test tube", "beaker", "training shoe"),
        ("valid", "invalid"),
        ("dev board", "test bench", "vice"),
    ],
)
def test_classes_may_have_names_like_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    dataset = read(write(tmp_path, trees("", classes=names)))
    assert set(dataset.classes) == set(names)
    assert dataset.splits is None


def test_a_class_called_train_may_hold_folders(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, images("tram/{}.jpg", "ferry/{}.jpg", "train/steam/{}.jpg")))
    assert dataset.classes == ("ferry", "train", "tram")


def test_a_folder_that_may_be_a_split_or_a_class_is_refused_with_both(tmp_path: Path) -> None:
    with refused("ambiguous-layout", DataError) as caught:
        read(write(tmp_path, images("tram/red/{}.jpg", "ferry/big/{}.jpg", "train/steam/{}.jpg")))
    assert re.search(r"train/ is the split train.*; or ferry, train, tram are the classes", caught.value.rule)


@pytest.mark.parametrize("names", [("train", "test"), ("training", "val", "test"), ("photos_train", "photos_test"), ("train",)])
def test_flat_split_folders_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    with refused("no-labels", DataError):
        read(write(tmp_path, images(*(f"{name}/x{{}}.jpg" for name in names))))


@pytest.mark.parametrize("name", ["unknown", "Unlabelled", "images", "to_predict"])
def test_a_folder_of_unlabelled_images_below_test_is_no_class(name: str, tmp_path: Path) -> None:
    dataset = read(write(tmp_path, trees("train/", "val/") | images(f"test/{name}/{{}}.jpg", n=7)))
    assert dataset.classes == ("cat", "dog")
    assert counts(dataset) == {"train": 6, "validation": 6}
    assert [note.get("count") for code in ("not-a-training-class", "folder-without-labels") for note in figures(dataset, code)] == [
        7
    ]


def test_a_folder_of_unlabelled_images_beside_the_classes_of_test_is_no_class(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, trees("train/", "test/") | images("test/unknown/{}.jpg")))
    assert dataset.classes == ("cat", "dog")
    assert figures(dataset, "not-a-training-class") == [{"count": 3, "folder": "test/unknown"}]


def test_splits_without_a_class_in_common_are_refused(tmp_path: Path) -> None:
    with refused("no-common-class", DataError):
        read(write(tmp_path, trees("train/") | trees("test/", classes=("cats", "dogs"))))


def test_splits_below_each_class(tmp_path: Path) -> None:
    names = [f"{kind}/{split}/{{}}.jpg" for kind in KINDS for split in ("Train", "Valid", "Test")]
    dataset = read(write(tmp_path, images(*names)))
    assert dataset.classes == ("elm", "oak")
    assert counts(dataset) == {"train": 6, "validation": 6, "test": 6}


def test_two_sets_of_the_same_classes_are_refused_with_both_readings(tmp_path: Path) -> None:
    with refused("ambiguous-layout", DataError) as caught:
        read(write(tmp_path, trees("north/", "south/", classes=KINDS)))
    assert re.search(r"'north', 'south' are the classes; or folders 'elm', 'oak' in each", caught.value.rule)
    assert "train/ and test/" in str(caught.value.hint)
    assert "DATA and the other as --test" in caught.value.text({"data": "DATA", "test": "--test"}.__getitem__)


def test_a_folder_with_the_classes_of_the_splits_beside_them_may_be_a_split(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, trees("train/", "final/") | images("others/fog/{}.jpg", "others/cat/{}.jpg")))
    assert {note["folder"]: note["like_split"] for note in figures(dataset, "folder-not-a-split")} == {
        "final": True,
        "others": False,
    }


def test_splits_inside_one_of_several_folders_are_suggested(tmp_path: Path) -> None:
    with refused("ambiguous-layout", DataError, hint="give plants/ itself"):
        read(write(tmp_path, trees("plants/train/", "plants/test/") | images("pictures of us/{}.jpg")))


@pytest.mark.parametrize("names", [("images",), ("imgs", "masks"), ("photos_01", "photos_02"), ("part1/images", "part2/images")])
def test_folders_that_only_hold_images_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    with refused("no-labels", DataError):
        read(write(tmp_path, images(*(f"{name}/x{{}}.jpg" for name in names))))


def test_labels_in_the_names_of_files_are_suggested(tmp_path: Path) -> None:
    with refused("no-labels", DataError) as caught:
        read(write(tmp_path, images("oak_{}.jpg", "elm_{}.jpg", n=5)))
    assert "(elm, oak)" in str(caught.value.hint)


def test_a_table_in_a_split_folder_labels_its_images(tmp_path: Path) -> None:
    files = trees("train/") | images("test/a{}.jpg", "test/b{}.jpg")
    files["test/truth.csv"] = table("filename,class,group", "a0.jpg,cat,1", "a1.jpg,dog,1", "a2.jpg,dog,2")
    dataset = read(write(tmp_path, files))
    assert counts(dataset) == {"train": 6, "test": 3}
    assert dataset.groups is not None
    assert figures(dataset, "images-not-in-table") == [{"count": 3, "folder": "test/", "tables": "test/truth.csv"}]


@pytest.mark.parametrize("inside", ["", "unknown/"])
def test_a_test_folder_beside_class_folders_is_refused_with_both_readings(inside: str, tmp_path: Path) -> None:
    with refused("ambiguous-layout", DataError) as caught:
        read(write(tmp_path, trees("", classes=KINDS) | images(f"test/{inside}{{}}.jpg")))
    assert re.search(r"test/ is the class 'test'; or it holds images to predict", caught.value.rule)


@pytest.mark.parametrize("name", ["images", "masks", "unlabeled"])
def test_a_class_whose_name_suggests_that_it_is_none_is_noted(name: str, tmp_path: Path) -> None:
    dataset = read(write(tmp_path, trees("", classes=(*KINDS, name))))
    assert name in dataset.classes
    assert figures(dataset, "unlikely-classes") == [{"folders": [name]}]


def test_a_folder_of_images_that_only_another_split_has_is_no_class(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, trees("train/", "val/", classes=KINDS) | images("val/images/{}.jpg")))
    assert dataset.classes == ("elm", "oak")
    assert figures(dataset, "not-a-training-class") == [{"count": 3, "folder": "val/images"}]


def test_a_table_beside_the_folders_labels_the_split_without_class_folders(tmp_path: Path) -> None:
    files = trees("train/") | images("test/x{}.jpg") | {"Test.csv": table("id,class", "x0,cat", "x2,dog")}
    dataset = read(write(tmp_path, files))
    assert counts(dataset) == {"train": 6, "test": 2}
    assert figures(dataset, "images-not-in-table") == [{"count": 1, "folder": "test/", "tables": "Test.csv"}]


def test_a_table_of_all_images_of_a_split_wins_over_its_folders(tmp_path: Path) -> None:
    rows = [f"{folder}/{n}.jpg,{('sharp', 'blurred')[n % 2]}" for folder in ("a", "b") for n in range(3)]
    files = trees("train/", "test/", classes=("a", "b"))
    dataset = read(
        write(tmp_path, files | {f"{split}/metadata.csv": table("file_name,label", *rows) for split in ("train", "test")})
    )
    assert dataset.classes == ("blurred", "sharp")
    assert counts(dataset) == {"train": 6, "test": 6}
    assert "folders-not-classes" in codes(dataset)


def test_tables_in_folders_that_name_no_split_are_refused_with_both_readings(tmp_path: Path) -> None:
    rows = table("filename,label", "0.jpg,sharp", "1.jpg,blurred")
    with refused("ambiguous-layout", DataError) as caught:
        read(write(tmp_path, images("north/{}.jpg", "south/{}.jpg") | {"north/labels.csv": rows, "south/labels.csv": rows}))
    assert re.search(r"'north', 'south' are the classes; or north/labels\.csv gives the labels", caught.value.rule)


def test_one_folder_with_a_split_among_its_words_only_wraps_the_classes(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, trees("birds_train/birds_train/", classes=KINDS)))
    assert dataset.classes == ("elm", "oak")
    assert dataset.splits is None


def test_files_missing_from_a_table_beside_a_split_folder_are_counted(tmp_path: Path) -> None:
    files = (
        trees("train/") | images("test/x{}.jpg", n=2) | {"Test.csv": table("file,class", *(f"test/x{n}.jpg,cat" for n in range(3)))}
    )
    with refused("missing-files", DataError):
        read(write(tmp_path, files))
