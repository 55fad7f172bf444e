"""Tables beside class folders: the better source of labels is read, or the conflict is refused."""

from __future__ import annotations

import zlib
from collections import Counter
from pathlib import Path

import pytest
from layout_list import images, table, trees
from making import codes, figures, write

from crossroads.data.readers import read
from crossroads.errors import DataError
from refusals import refused


def beside(tmp_path: Path, text: str, name: str = "list.csv", n: int = 20) -> Path:
    """Writes two class folders with a table beside them."""
    return write(tmp_path, trees("", n=n) | {name: text})


@pytest.mark.parametrize(
    ("rows", "code", "facts"),
    [
        (("cat/1.jpg,cat", "dog/1.jpg,dog"), "table-ignored", {"tables": "list.csv", "common": 2, "in_folders": 40}),
        (("cat/1.jpg,7", "dog/1.jpg,8"), "table-ignored", {"tables": "list.csv", "common": 2, "in_folders": 40}),
        (("old/1.jpg,good", "old/2.jpg,bad"), "table-ignored", {"tables": "list.csv", "common": 0, "in_folders": 40}),
        (("cat/1.jpg,cat", "dog/1.jpg,"), "table-unreadable", {"tables": "list.csv", "reason": "empty-label"}),
    ],
)
def test_folders_win_over_a_stray_table(rows: tuple[str, ...], code: str, facts: dict[str, object], tmp_path: Path) -> None:
    dataset = read(beside(tmp_path, table("path,label", *rows)))
    assert dataset.classes == ("cat", "dog")
    assert len(dataset) == 40
    assert figures(dataset, code) == [facts]


def test_a_stray_table_that_disagrees_is_refused_with_both_readings(tmp_path: Path) -> None:
    folder = beside(tmp_path, table("path,label", "cat/1.jpg,good", "dog/1.jpg,bad"))
    with refused("conflicting-labels", DataError) as caught:
        read(folder)
    assert "cat/1.jpg is 'good' in the table and 'cat' by its folder" in str(caught.value.received)
    assert read(folder / "list.csv").classes == ("bad", "good"), "the hint works"


def test_a_table_of_all_images_wins_over_folders_that_say_something_else(tmp_path: Path) -> None:
    rows = [f"{name}/{n}.jpg,{('sharp', 'blurred')[n % 2]}" for name in ("cat", "dog") for n in range(4)]
    dataset = read(beside(tmp_path, table("path,label", *rows), n=4))
    assert dataset.classes == ("blurred", "sharp")
    assert "folders-not-classes" in codes(dataset)


def test_a_table_that_agrees_adds_its_splits_and_groups(tmp_path: Path) -> None:
    rows = [f"{name}/{n}.jpg,{name},{('train', 'test')[n % 2]},{n}" for name in ("cat", "dog") for n in range(4)]
    dataset = read(beside(tmp_path, table("path,label,split,group", *rows), n=4))
    assert Counter(dataset.row(row).split for row in range(8)) == {"train": 4, "test": 4}
    assert dataset.groups is not None


def test_numbers_in_lists_mean_the_folders(tmp_path: Path) -> None:
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
    assert figures(dataset, "split-lists-ignored") == [{"lists": "test.txt, train.txt"}]


def test_a_table_without_labels_is_noted(tmp_path: Path) -> None:
    dataset = read(beside(tmp_path, table("path,width,height", "cat/1.jpg,10,10", "dog/1.jpg,12,9")))
    assert dataset.classes == ("cat", "dog")
    assert figures(dataset, "table-without-labels") == [{"table": "list.csv"}]


def test_images_that_only_a_table_without_labels_names_are_refused(tmp_path: Path) -> None:
    files = images("{}.jpg") | {"list.csv": table("path,width,height", "0.jpg,10,10", "1.jpg,12,9")}
    with refused("no-label-column", DataError, received="'path', 'width', 'height'"):
        read(write(tmp_path, files))


def test_a_table_that_adds_nothing_leaves_the_splits_of_the_folders(tmp_path: Path) -> None:
    rows = [f"{split}/{name}/{n}.jpg,{name}" for split in ("train", "test") for name in ("cat", "dog") for n in range(3)]
    dataset = read(write(tmp_path, trees("train/", "test/") | {"list.csv": table("path,label", *rows)}))
    assert Counter(dataset.row(row).split for row in range(12)) == {"train": 6, "test": 6}


def test_a_table_of_images_in_flat_split_folders_takes_their_splits(tmp_path: Path) -> None:
    rows = [f"{split}/{n}.jpg,{('cat', 'dog')[n % 2]}" for split in ("training", "testing") for n in range(3)]
    dataset = read(write(tmp_path, images("training/{}.jpg", "testing/{}.jpg") | {"list.csv": table("path,label", *rows)}))
    assert Counter(dataset.row(row).split for row in range(6)) == {"train": 3, "test": 3}
    assert "splits-from-folders" in codes(dataset)


LINES = [f"{name}/{n}.jpg" for name in ("cat", "dog") for n in range(10)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SHA1SUMS.txt", "".join(f"{zlib.crc32(path.encode()):08x}  {path}\n" for path in LINES)),
        ("credits.txt", "".join(f"{path} https://example.org/{at}\n" for at, path in enumerate(LINES))),
        ("authors.csv", table("filename,author", *(f"{path},{('Ann', 'Bo')[at % 2]}" for at, path in enumerate(LINES)))),
        ("dates.csv", table("file_name,taken", *(f"{path},2020-01-{at + 1:02d}" for at, path in enumerate(LINES)))),
        ("captions.csv", table("path,label", *(f"{path},picture number {at}" for at, path in enumerate(LINES)))),
        ("scores.json", "{" + ",".join(f'"{path}": {at % 3}' for at, path in enumerate(LINES)) + "}"),
        ("facts.json", "[" + ",".join(f'{{"file_name": "{path}", "label": {{"x": {at}}}}}' for at, path in enumerate(LINES)) + "]"),
    ],
)
def test_a_column_of_something_else_never_replaces_class_folders(name: str, text: str, tmp_path: Path) -> None:
    dataset = read(beside(tmp_path, text, name, n=10))
    assert dataset.classes == ("cat", "dog")
    assert len(dataset) == 20
    assert any(name in note for note in dataset.notes)


@pytest.mark.parametrize("header", ["filename,link", "path,md5"])
def test_flat_images_that_each_have_their_own_value_are_refused(header: str, tmp_path: Path) -> None:
    rows = (f"{n}.jpg,value{n}" for n in range(9))
    with refused("label-not-shared", DataError):
        read(write(tmp_path, images("{}.jpg", n=9) | {"list.csv": table(header, *rows)}))


@pytest.mark.parametrize("header", ["filename,label", "filename,confidence,predicted"])
def test_predictions_beside_class_folders_are_refused_with_the_disagreement(header: str, tmp_path: Path) -> None:
    middle = ",0.9" if "confidence" in header else ""
    rows = (f"{path}{middle},{'dog' if path == 'cat/3.jpg' else path[:3]}" for path in LINES)
    with refused("conflicting-labels", DataError) as caught:
        read(beside(tmp_path, table(header, *rows), "out.csv", n=10))
    assert "they disagree on 1 of them; cat/3.jpg is 'dog'" in str(caught.value.received)


def test_a_number_without_a_folder_is_refused(tmp_path: Path) -> None:
    rows = [f"{path},{('cat', 'dog').index(path[:3])},train" for path in LINES] + ["0.jpg,2,test"]
    files = trees("", n=10) | images("{}.jpg", n=2) | {"list.csv": table("path,label,split", *rows)}
    with refused("number-without-folder", DataError):
        read(write(tmp_path, files))


def test_an_ambiguous_layout_that_a_table_settles_is_noted(tmp_path: Path) -> None:
    files = trees("north/") | trees("south/")
    rows = (f"{path},{('good', 'bad')[at % 2]}" for at, path in enumerate(files))
    dataset = read(write(tmp_path, files | {"list.csv": table("path,label", *rows)}))
    assert dataset.classes == ("bad", "good")
    assert "folders-not-classes" in codes(dataset)
