"""Tables beside class folders: the better reading is taken and said, or both are named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from layout_list import images, table, trees
from making import write

from crossroads.data.readers import read
from crossroads.errors import DataError


def beside(tmp_path: Path, text: str, name: str = "list.csv", n: int = 20) -> Path:
    """Two class folders with a table beside them."""
    return write(tmp_path, trees("", n=n) | {name: text})


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (("cat/1.jpg,cat", "dog/1.jpg,dog"), "list.csv names 2 of the 40 images in class folders: not read"),
        (("cat/1.jpg,7", "dog/1.jpg,8"), "list.csv names 2 of the 40 images in class folders: not read"),
        (("old/1.jpg,good", "old/2.jpg,bad"), "names 0 of the 40 images in class folders and 2 files that are not found: not read"),
        (("cat/1.jpg,cat", "dog/1.jpg,"), "list.csv not read, but the folders: list.csv line 3: the label must not be empty"),
    ],
)
def test_folders_win_over_a_stray_table(rows: tuple[str, ...], said: str, tmp_path: Path) -> None:
    dataset = read(beside(tmp_path, table("path,label", *rows)))
    assert dataset.classes == ("cat", "dog")
    assert len(dataset) == 40
    assert any(said in note for note in dataset.notes)


def test_a_stray_table_that_disagrees_is_refused_with_both_readings(tmp_path: Path) -> None:
    folder = beside(tmp_path, table("path,label", "cat/1.jpg,good", "dog/1.jpg,bad"))
    with pytest.raises(DataError, match=r"2 of the 40 images.*cat/1\.jpg as 'good'; its folder says 'cat'; give list\.csv itself"):
        read(folder)
    assert read(folder / "list.csv").classes == ("bad", "good"), "the way out works"


def test_a_table_of_all_images_wins_over_folders_that_say_something_else(tmp_path: Path) -> None:
    rows = [f"{name}/{n}.jpg,{('sharp', 'blurred')[n % 2]}" for name in ("cat", "dog") for n in range(4)]
    dataset = read(beside(tmp_path, table("path,label", *rows), n=4))
    assert dataset.classes == ("blurred", "sharp")
    assert any("folders 'cat', 'dog' are not taken as classes" in note for note in dataset.notes)


def test_a_table_that_agrees_brings_its_splits_and_groups(tmp_path: Path) -> None:
    rows = [f"{name}/{n}.jpg,{name},{('train', 'test')[n % 2]},{n}" for name in ("cat", "dog") for n in range(4)]
    dataset = read(beside(tmp_path, table("path,label,split,group", *rows), n=4))
    assert Counter(dataset.row(row).split for row in range(8)) == {"train": 4, "test": 4}
    assert dataset.groups is not None


def test_numbers_in_lists_stand_for_the_folders(tmp_path: Path) -> None:
    lists = {
        f"{split}.txt": "".join(f"{name}/{n}.jpg {code}\n" for code, name in enumerate(("dog", "cat")) for n in numbers)
        for split, numbers in (("train", (0, 1)), ("val", (2,)))
    }
    dataset = read(write(tmp_path, trees("") | lists))
    assert dataset.classes == ("cat", "dog")
    assert all(dataset.row(row).source.startswith(dataset.row(row).label) for row in range(6))
    assert Counter(dataset.row(row).split for row in range(6)) == {"train": 4, "validation": 2}


def test_lists_that_leave_images_out_are_not_read(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, trees("") | {"train.txt": "cat/0.jpg\ndog/0.jpg\n", "test.txt": "cat/1.jpg\n"}))
    assert dataset.splits is None
    assert any("test.txt, train.txt not read" in note for note in dataset.notes)


def test_a_table_without_labels_is_said(tmp_path: Path) -> None:
    dataset = read(beside(tmp_path, table("path,width,height", "cat/1.jpg,10,10", "dog/1.jpg,12,9")))
    assert dataset.classes == ("cat", "dog")
    assert any("list.csv names images and has no column of labels: not read" in note for note in dataset.notes)


def test_images_that_only_a_table_without_labels_names_are_refused(tmp_path: Path) -> None:
    files = images("{}.jpg") | {"list.csv": table("path,width,height", "0.jpg,10,10", "1.jpg,12,9")}
    with pytest.raises(
        DataError, match=r"list\.csv must have a header line with a column of labels; received 'path', 'width', 'height'"
    ):
        read(write(tmp_path, files))


def test_a_table_that_brings_nothing_leaves_the_splits_of_the_folders(tmp_path: Path) -> None:
    rows = [f"{split}/{name}/{n}.jpg,{name}" for split in ("train", "test") for name in ("cat", "dog") for n in range(3)]
    dataset = read(write(tmp_path, trees("train/", "test/") | {"list.csv": table("path,label", *rows)}))
    assert Counter(dataset.row(row).split for row in range(12)) == {"train": 6, "test": 6}


def test_a_table_of_images_in_flat_split_folders_takes_their_splits(tmp_path: Path) -> None:
    rows = [f"{split}/{n}.jpg,{('cat', 'dog')[n % 2]}" for split in ("training", "testing") for n in range(3)]
    dataset = read(write(tmp_path, images("training/{}.jpg", "testing/{}.jpg") | {"list.csv": table("path,label", *rows)}))
    assert Counter(dataset.row(row).split for row in range(6)) == {"train": 3, "test": 3}
    assert any("splits are the folders" in note for note in dataset.notes)
