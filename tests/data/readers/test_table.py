"""Tables: headers and forms, look-up of images, splits and groups, and errors that name the line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_list import images
from layout_list import table as lines
from making import archive, codes, facts, figures, write

from crossroads.data.dataset import SPLITS
from crossroads.data.readers import read
from crossroads.errors import DataError
from refusals import refused

IMAGES = ("img/1.png", "img/2.png", "img/sub/3.png", "img/4.png")


def table(tmp_path: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    write(tmp_path, IMAGES)
    (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return tmp_path / name


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nimg/1.png,5\nimg/2.png,b\n",
        "\ufeffpath,label\r\nimg/1.png,5\r\nimg/2.png,b\r\n",
        "Filename;Width;ClassId\nimg/1.png;3;5\nimg/2.png;3;b\n",
        "class\timage\n5\timg/1.png\nb\timg/2.png\n",
        '"file","category"\n"img/1.png","5"\n\n"./img/sub/../2.png"," b "\n',
        "Path,LABEL,x,\nimg\\1.png,5,,\nimg/2.png,b\n",
        "image_path, label \nimg/1.png, 5\nimg/2.png,b",
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_headers_delimiters_and_quotes(text: str, whole: bool, tmp_path: Path) -> None:
    path = table(tmp_path, text)
    dataset = read(tmp_path if whole else path)
    assert [dataset.row(row).label for row in range(2)] == ["5", "b"]
    assert [dataset.read(row) for row in range(2)] == [(tmp_path / name).read_bytes() for name in IMAGES[:2]]
    assert dataset.splits is None
    assert dataset.groups is None


def test_utf16_as_spreadsheets_export_it(tmp_path: Path) -> None:
    assert read(table(tmp_path, "path\tlabel\nimg/1.png\tfünf\n".encode("utf-16"), "labels.txt")).classes == ("fünf",)


def test_splits_and_groups(tmp_path: Path) -> None:
    rows = "img/1.png,a,Train,g1\nimg/2.png,a,valid,\nimg/sub/3.png,b,,g1\nimg/4.png,b,TEST,\n"
    dataset = read(table(tmp_path, "path,label,split,group\n" + rows))
    assert dataset.splits is not None
    assert dataset.groups is not None
    assert [SPLITS[split] for split in dataset.splits] == ["train", "validation", "", "test"]
    assert dataset.groups[0] == dataset.groups[2]
    assert len(set(dataset.groups.tolist())) == 3


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_table_inside_an_archive(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    table(folder / "wrap", "path,label\nimg/1.png,a\nimg/./sub/3.png,b\n", "list.csv")
    dataset = read(archive(folder, kind))
    assert dataset.name(1) == "wrap/img/sub/3.png"
    assert dataset.read(1) == (folder / "wrap" / "img" / "sub" / "3.png").read_bytes()


def test_a_table_for_each_split(tmp_path: Path) -> None:
    table(tmp_path, "path,label\nimg/1.png,a\n", "train.csv")
    table(tmp_path, "path,label\nimg/2.png,b\n", "test.csv")
    table(tmp_path, "ClassId,SignName\n1,Stop\n", "signnames.csv")
    dataset = read(tmp_path)
    assert dataset.splits is not None
    assert {(dataset.row(row).label, dataset.row(row).split) for row in range(2)} == {("a", "train"), ("b", "test")}
    table(tmp_path, "path,label\nimg/2.png,b\n", "all.csv")
    with refused("several-files", DataError, received="all.csv, test.csv, train.csv"):
        read(tmp_path)


def test_a_table_wins_over_class_folders(tmp_path: Path) -> None:
    write(tmp_path, ["x/1.png", "y/2.png"])
    (tmp_path / "labels.csv").write_text("path,label\nx/1.png,cat\n")
    assert read(tmp_path).classes == ("cat",)


def test_paths_may_lead_out_of_the_folder_on_disk_but_not_out_of_an_archive(tmp_path: Path) -> None:
    write(tmp_path, ["other/1.png"])
    text = "path,label\n../other/1.png,a\n"
    path = table(tmp_path / "d", text + f"{tmp_path / 'other' / '1.png'},b\n")
    dataset = read(path)
    assert dataset.read(0) == dataset.read(1) == (tmp_path / "other" / "1.png").read_bytes()
    path.write_text(text)
    with refused("path-outside-folder", DataError, received="'../other/1.png'"):
        read(archive(tmp_path / "d", "zip"))
    path.write_text("path,label\n/etc/passwd,a\n")
    with refused("path-outside-folder", DataError):
        read(archive(tmp_path / "d", "tar"))


@pytest.mark.parametrize("packed", [False, True])
def test_missing_files_are_counted_and_shown_with_their_lines(packed: bool, tmp_path: Path) -> None:
    rows = "img/1.png,a\nimg/x.png,a\n\nno/1.png,b\nno/2.png,b\nimg/2.png,b\nimg/z.png,b\n"
    path = table(tmp_path / "d", "path,label\n" + rows)
    first = "labels.csv line 3: img/x.png; labels.csv line 5: no/1.png; labels.csv line 6: no/2.png; …"
    with refused("missing-files", DataError, received=first, rule="4 of the 6 files in the table do not exist"):
        read(archive(tmp_path / "d", "zip") if packed else path)


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("path,label\nimg/1.png,a\nimg/2.png, \n", "empty-label", "line 3"),
        ("path,label\n,a\n", "empty-path", "line 2"),
        ("path,label\nimg/1.png\n", "column-count", "line 2"),
        ("path,label\nimg/1.png,a,b\n", "column-count", "line 2"),
        ('path,label,x\nimg/1.png,a,"1\n2"\nimg/2.png,,1\n', "empty-label", "line 4"),
        ('path,label\nimg/1.png,"a\n', "malformed-row", "line 2"),
        ("path,label,split\nimg/1.png,a,trian\n", "unknown-split", "line 2"),
        ("path,label\n", "no-images", ""),
        ("path,size\nimg/1.png,3\n", "no-label-column", ""),
        ("x,label\nred,3\n", "no-image-column", ""),
        ("", "no-image-column", ""),
        (b"path,label\nimg/1.png,\xff\n", "not-utf8", ""),
        ("path,label\nimg/1.png," + "x" * 200_000 + "\n", "malformed-row", "line 2"),
    ],
)
def test_errors_name_the_table_and_the_line(text: str | bytes, code: str, place: str, tmp_path: Path) -> None:
    with refused(code, DataError) as caught:
        read(table(tmp_path, text))
    assert f"labels.csv {place}".strip() in caught.value.rule


def test_a_misspelt_split_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with refused("unknown-split", DataError, received="'trian'", hint="did you mean 'train'?"):
        read(table(tmp_path, "path,label,split\nimg/1.png,a,trian\n"))


cells = st.text(alphabet='ab ,;"\n\t1é', min_size=1, max_size=6).map(str.strip).filter(bool)


@given(st.lists(st.tuples(cells, st.none() | cells), min_size=1, max_size=6), st.sampled_from(",;\t"))
@settings(max_examples=50, deadline=None)
def test_anything_that_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str | None]], delimiter: str
) -> None:
    folder = tmp_path_factory.mktemp("table")
    write(folder, [f"a b{number}.png" for number in range(len(rows))])
    with (folder / "t.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows(
            [["label", "path", "group"], *([label, f"a b{number}.png", group or ""] for number, (label, group) in enumerate(rows))]
        )
    dataset = read(folder / "t.csv")
    assert [dataset.row(row).label for row in range(len(dataset))] == [label for label, _ in rows]
    if dataset.groups is not None:
        names = {}
        for number, (_, group) in zip(dataset.groups.tolist(), rows, strict=True):
            assert names.setdefault(number, group) == group


def test_a_folder_of_a_table_and_the_archive_are_the_same(tmp_path: Path) -> None:
    table(tmp_path / "d", "path,label,group\nimg/1.png,a,x\nimg/2.png,b,x\n")
    loose, packed = facts(read(tmp_path / "d")), facts(read(archive(tmp_path / "d", "tar.xz")))
    assert loose == packed


def test_a_long_table_takes_little_memory(tmp_path: Path) -> None:
    """Reads 100,000 rows in another process. A million must stay under 1 GB, so a row may take 500 bytes at most."""
    (tmp_path / "0").mkdir()
    for index in range(1000):
        (tmp_path / "0" / f"img_{index:06d}.png").touch()
    for folder in range(1, 100):
        (tmp_path / f"{folder}").symlink_to(tmp_path / "0")
    with (tmp_path / "labels.csv").open("w") as file:
        file.write("path,label,group\n")
        file.writelines(
            f"{index // 1000}/img_{index % 1000:06d}.png,class {index % 43},{index // 30}\n" for index in range(100_000)
        )
    code = (
        "import resource, sys; from crossroads.data.readers import read\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); dataset = read(sys.argv[1]); print(len(dataset), peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "labels.csv")], capture_output=True, text=True, check=True)
    count, kilobytes = map(int, done.stdout.split())
    assert count == 100_000
    assert kilobytes < 50_000


def test_labels_are_stored_as_numbers(tmp_path: Path) -> None:
    write(tmp_path, [f"{number}.png" for number in range(100)])
    dataset = read(table(tmp_path, "path,label\n" + "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(100))))
    assert dataset.labels.dtype == np.int32
    assert dataset.counts().tolist() == [50, 50]


def photos(tmp_path: Path, text: str, name: str = "list.csv", n: int = 4) -> Path:
    return write(tmp_path, images("photos/p{}.jpg", n=n) | {name: text})


@pytest.mark.parametrize("header", ["id,species", "Image ID,Label Name", "img_id,diagnosis", "photo,class", "uuid,what it is"])
@pytest.mark.parametrize("suffix", ["", ".jpg"])
@pytest.mark.parametrize("whole", [True, False])
def test_names_without_folder_or_suffix_are_looked_up(header: str, suffix: str, whole: bool, tmp_path: Path) -> None:
    folder = photos(tmp_path, lines(header, *(f"p{n}{suffix},{'ab'[n % 2]}" for n in range(4))))
    dataset = read(folder if whole else folder / "list.csv")
    assert [dataset.row(row)[:2] for row in range(4)] == [(f"photos/p{n}.jpg", "ab"[n % 2]) for n in range(4)]


def test_a_label_column_with_an_unusual_header_is_noted(tmp_path: Path) -> None:
    dataset = read(photos(tmp_path, lines("id,cultivar", "p0,a", "p1,b")))
    assert figures(dataset, "label-column") == [{"column": "cultivar", "table": "list.csv", "others": []}]
    assert figures(dataset, "images-not-in-table") == [{"count": 2, "folder": "photos/", "tables": "list.csv"}]


def test_the_split_decides_between_two_images_of_one_name(tmp_path: Path) -> None:
    files = images("training/{}.png", "testing/{}.png") | {"train.csv": lines("id,label", "0,a", "1,b")}
    assert [row.source for row in map(read(write(tmp_path, files)).row, range(2))] == ["training/0.png", "training/1.png"]
    (tmp_path / "train.csv").rename(tmp_path / "test.csv")
    assert [row.source for row in map(read(tmp_path).row, range(2))] == ["testing/0.png", "testing/1.png"]


@pytest.mark.parametrize(
    ("header", "values", "splits"),
    [
        ("subset", ("train", "Train", "TEST", "val"), ["train", "train", "test", "validation"]),
        ("Data Set", ("training", "", "test", "valid"), ["train", "", "test", "validation"]),
        ("Usage", ("Training", "PublicTest", "PrivateTest", "Training"), ["train", "test", "test", "train"]),
        ("is_test", ("0", "1", "0", "0"), ["train", "test", "train", "train"]),
        ("is_valid", ("False", "True", "False", "False"), ["train", "validation", "train", "train"]),
        ("is_train", ("yes", "no", "yes", "yes"), ["train", "test", "train", "train"]),
        ("my own column", ("train", "test", "train", "train"), ["train", "test", "train", "train"]),
    ],
)
def test_splits_under_other_headers(header: str, values: tuple[str, ...], splits: list[str], tmp_path: Path) -> None:
    rows = (f"p{n}.jpg,{'ab'[n % 2]},{value}" for n, value in enumerate(values))
    dataset = read(photos(tmp_path, lines(f"file,label,{header}", *rows)))
    assert [dataset.row(row).split for row in range(4)] == splits
    assert figures(dataset, "split-column") == [{"column": header, "table": "list.csv"}]


def test_columns_that_look_relevant_and_are_not_used_are_noted(tmp_path: Path) -> None:
    rows = (f"p{n}.jpg,{'ab'[n % 2]},{n % 3},{n // 2},ab" for n in range(4))
    dataset = read(photos(tmp_path, lines("file,label,fold,patient_id,species", *rows)))
    assert dataset.splits is None
    assert dataset.groups is None
    assert [note["column"] for note in figures(dataset, "split-column-ignored")] == ["fold"]
    assert [note["column"] for note in figures(dataset, "group-column-ignored")] == ["patient_id"]
    assert [note["others"] for note in figures(dataset, "label-column")] == [["species"]]


def test_a_column_of_words_is_preferred_to_the_numbers_that_it_names(tmp_path: Path) -> None:
    dataset = read(photos(tmp_path, lines("file,label,class_name", "p0.jpg,0,oak", "p1.jpg,1,elm")))
    assert dataset.classes == ("elm", "oak")
    assert figures(dataset, "label-column") == [{"column": "class_name", "table": "list.csv", "others": ["label"]}]


@pytest.mark.parametrize(
    ("rows", "code", "received"),
    [
        (("p0.jpg,a,,", "p1.jpg,b,,", "p0.jpg,b,,"), "several-labels", "'a' and 'b' in list.csv line 2 and list.csv line 4"),
        (("p0.jpg,a,train,", "p0.jpg,a,test,"), "several-splits", "train and test in list.csv line 2 and list.csv line 3"),
        (("p0.jpg,a,,x", "p1.jpg,b,,x", "p0.jpg,a,,y"), "several-groups", "'x' and 'y' in list.csv line 2 and list.csv line 4"),
        (("p0.jpg,a|b,,", "p1.jpg,b,,"), "several-labels", "'a|b'"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(rows: tuple[str, ...], code: str, received: str, tmp_path: Path) -> None:
    with refused(code, DataError, received=received):
        read(photos(tmp_path, lines("file,label,split,group", *rows)))


def test_rows_that_repeat_each_other_count_once(tmp_path: Path) -> None:
    dataset = read(photos(tmp_path, lines("file,label", "p0.jpg,a", "photos/p0.jpg,a", "p1.jpg,b")))
    assert len(dataset) == 2
    assert figures(dataset, "duplicate-rows") == [{"count": 1}]


def test_several_labels_by_the_header_of_the_column(tmp_path: Path) -> None:
    rows = ("p0.jpg,rust", "p1.jpg,scab", "p2.jpg,rust scab")
    with refused("several-labels", DataError, received="'rust scab'"):
        read(photos(tmp_path, lines("file,tags", *rows)))
    dataset = read(photos(tmp_path, lines("file,label", *rows)))
    assert dataset.classes == ("rust", "rust scab", "scab")
    assert figures(dataset, "joined-label") == [{"label": "rust scab", "parts": ["rust", "scab"]}]


def test_boxes_are_not_read(tmp_path: Path) -> None:
    dataset = read(photos(tmp_path, lines("file,label,xmin,ymin,xmax,ymax", "p0.jpg,a,1,1,2,2", "p1.jpg,b,1,1,2,2")))
    assert "boxes-ignored" in codes(dataset)


def test_a_path_on_another_machine_is_found_by_its_end_but_not_in_another_folder(tmp_path: Path) -> None:
    write(tmp_path, ["oak/1.png", "elm/2.png"])
    (tmp_path / "list.csv").write_text("path,label\n/home/me/trees/oak/1.png,oak\nC:\\trees\\elm\\2.png,elm\n")
    assert [row.source for row in map(read(tmp_path / "list.csv").row, range(2))] == ["oak/1.png", "elm/2.png"]
    (tmp_path / "list.csv").write_text("path,label\n/home/me/trees/ash/1.png,ash\n")
    with refused("missing-files", DataError):
        read(tmp_path / "list.csv")


def test_file_names_are_found_in_either_unicode_form(tmp_path: Path) -> None:
    write(tmp_path, {"bl\u00e4tter/\u00e4.png": "x", "bla\u0308tter/o\u0308.png": "y"})
    (tmp_path / "list.csv").write_text("path,label\nbla\u0308tter/a\u0308.png,a\nbl\u00e4tter/\u00f6.png,b\n")
    dataset = read(tmp_path)
    assert [dataset.read(row) for row in range(2)] == [b"x", b"y"]


def test_json_of_names_and_labels(tmp_path: Path) -> None:
    assert read(photos(tmp_path, '{"p0.jpg": "elm", "p1.jpg": "oak"}', "labels.json")).classes == ("elm", "oak")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"path": "photos/p0.jpg", "label": "a"}\n{"path": ', "malformed-json"),
        ('{"path": "photos/p0.jpg", "label": "a"}\n[1]\n', "malformed-json"),
        ('{"path": "photos/p0.jpg", "label": "a"}\n{"path": "photos/p1.jpg"}\n', "empty-label"),
    ],
)
def test_malformed_json_lines_are_refused_by_their_number(text: str, code: str, tmp_path: Path) -> None:
    with refused(code, DataError) as caught:
        read(photos(tmp_path, text, "list.jsonl") / "list.jsonl")
    assert "list.jsonl line 2" in caught.value.rule


def test_file_names_are_found_in_upper_and_lower_case(tmp_path: Path) -> None:
    write(tmp_path, ["photos/P0.JPG", "photos/p1.jpg", "photos/P1.jpg"])
    (tmp_path / "list.csv").write_text("file,label\np0.jpg,a\nP1.jpg,b\n")
    assert [row.source for row in map(read(tmp_path).row, range(2))] == ["photos/P0.JPG", "photos/P1.jpg"]


def test_a_list_of_the_classes_is_no_table_of_labels(tmp_path: Path) -> None:
    files = images("photos/{}.jpg", n=5)
    with pytest.raises(DataError):
        read(write(tmp_path / "a", files | {"classes.csv": lines("id,name", "0,oak", "1,elm")}))
    rows = (f"{n},{('oak', 'elm')[n % 2]}" for n in range(5))
    dataset = read(
        write(tmp_path / "b", files | {"classes.csv": lines("id,name", "0,oak", "1,elm"), "y.csv": lines("id,label", *rows)})
    )
    assert len(dataset) == 5


def test_an_empty_submission_is_no_table_of_labels(tmp_path: Path) -> None:
    files = images("train/a{}.jpg", "test/b{}.jpg", n=2) | {"train.csv": lines("id,label", "a0,oak", "a1,elm")}
    dataset = read(write(tmp_path, files | {"sampleSubmission.csv": lines("id,label", "b0,oak", "b1,oak")}))
    assert [dataset.row(row).source for row in range(2)] == ["train/a0.jpg", "train/a1.jpg"]
    assert figures(dataset, "images-not-in-table") == [{"count": 2, "folder": "test/", "tables": "train.csv"}]


@pytest.mark.parametrize(
    ("header", "first", "second", "classes"),
    [
        ("file,label,category", "0,train", "1,test", ("0", "1")),
        ("file,label,choice", "3,ok", "4,ok", ("3", "4")),
        ("file,category,label", "train,oak", "test,elm", ("elm", "oak")),
    ],
)
def test_the_column_label_is_the_label(header: str, first: str, second: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    dataset = read(photos(tmp_path, lines(header, f"p0.jpg,{first}", f"p1.jpg,{second}", f"p2.jpg,{first}")))
    assert dataset.classes == classes
    if "category" in header:
        assert [dataset.row(row).split for row in range(3)] == ["train", "test", "train"]
    else:
        assert figures(dataset, "label-column") == [{"column": "label", "table": "list.csv", "others": ["choice"]}]


def test_splits_do_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    names = [f"i{n}.jpg" for n in range(80)]
    rows = [f"{name},{'ab'[at % 2]},{'train' if at < 70 else 'test'}" for at, name in enumerate(names)]
    for at, ordered in enumerate((rows, rows[::-1])):
        dataset = read(write(tmp_path / str(at), dict.fromkeys(names) | {"list.csv": lines("file,label,which", *ordered)}))
        assert sum(dataset.row(row).split == "test" for row in range(80)) == 10


@pytest.mark.parametrize("name", ["list.json", "list.jsonl"])
def test_a_key_of_late_records_counts(name: str, tmp_path: Path) -> None:
    names = [f"i{n}.jpg" for n in range(80)]
    records = [{"file": one, "label": "ab"[at % 2]} | ({"split": "test"} if at > 70 else {}) for at, one in enumerate(names)]
    text = json.dumps(records) if name.endswith("json") else "\n".join(map(json.dumps, records))
    dataset = read(write(tmp_path, dict.fromkeys(names) | {name: text}))
    assert sum(dataset.row(row).split == "test" for row in range(80)) == 9


def test_soft_labels_are_refused_in_any_row(tmp_path: Path) -> None:
    names = [f"i{n}.jpg" for n in range(70)]
    rows = [f"{name},{at % 2},{1 - at % 2}" for at, name in enumerate(names[:-1])] + [f"{names[-1]},0.4,0.6"]
    with refused("soft-label", DataError, received="'0.4'") as caught:
        read(write(tmp_path, dict.fromkeys(names) | {"list.csv": lines("file,oak,elm", *rows)}))
    assert "line 71" in caught.value.rule


def test_an_image_without_a_class_is_counted_once(tmp_path: Path) -> None:
    dataset = read(photos(tmp_path, lines("file,oak,elm", "p0.jpg,1,0", "p1.jpg,0,1", "p2.jpg,0,0", "p3.jpg,1,0")))
    assert codes(dataset) == ["rows-without-class"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_files_beside_a_table_are_counted_unless_the_table_alone_is_given(kind: str, tmp_path: Path) -> None:
    rows = "".join(f"images/{n}.heic,{n % 2}\n" for n in range(4))
    files = {f"images/{n}.{suffix}": "x" for n in range(4) for suffix in ("heic", "MOV")}
    folder = write(tmp_path / "d", files | {"labels.csv": "path,label\n" + rows, "README.md": "x"})
    (found,) = figures(read(folder if kind == "folder" else archive(folder, kind)), "files-ignored")
    assert found["suffixes"] == {".mov": 4, ".md": 1}, "the table is used"
    assert figures(read(folder / "labels.csv"), "files-ignored") == []


def test_many_files_of_rows_are_noted(tmp_path: Path) -> None:
    files = images("cat/{}.jpg", "dog/{}.jpg") | {f"labels/{n}.txt": "0 1 2 3" for n in range(70)}
    assert figures(read(write(tmp_path, files)), "many-files-ignored") == [{"count": 70, "suffix": ".txt", "folder": "labels"}]


def test_equal_names_in_many_folders_are_found_by_their_ends(tmp_path: Path) -> None:
    files = images("images/a/x/{}.png", "images/b/x/{}.png", "images/c/y/{}.png", n=2)
    rows = (f"/old/disk/images/{folder}/{n}.png,{folder[0]},{n}" for folder in ("b/x", "a/x", "c/y") for n in range(2))
    dataset = read(write(tmp_path, files | {"list.csv": lines("path,label,group", *rows)}))
    assert [dataset.row(row).source for row in range(6)] == [
        f"images/{folder}/{n}.png" for folder in ("b/x", "a/x", "c/y") for n in range(2)
    ]


@pytest.mark.parametrize(
    ("header", "values", "each", "is_class"),
    [
        ("age", range(24), 2, False),
        ("weight", [f"{value}.0" for value in range(30)], 1.5, False),
        ("age", range(24), 3, True),
        ("age", range(20), 2, True),
        ("label", range(24), 2, True),
        ("artist", [f"painter {letter}" for letter in "abcdefghijklmnopqrstuvwx"], 2, True),
    ],
)
def test_a_guessed_column_of_many_numbers_with_few_images_each_is_a_measurement(
    header: str, values: Sequence[object], each: float, is_class: bool, tmp_path: Path
) -> None:
    labels = [values[number % len(values)] for number in range(int(each * len(values)))]
    names = [f"img/{number}.png" for number in range(len(labels))]
    write(tmp_path, names)
    rows = "".join(f"{name},{label}\n" for name, label in zip(names, labels, strict=True))
    (tmp_path / "people.csv").write_text(f"path,{header}\n{rows}")
    if is_class:
        assert len(read(tmp_path / "people.csv").classes) == len(values)
    else:
        with refused("label-not-shared", DataError) as caught:
            read(tmp_path / "people.csv")
        assert f"the column '{header}'" in str(caught.value.received)


def test_a_list_without_a_header_keeps_its_numbers_as_classes(tmp_path: Path) -> None:
    names = [f"img/{number}.png" for number in range(48)]
    write(tmp_path, names)
    (tmp_path / "list.txt").write_text("".join(f"{name} {number % 24}\n" for number, name in enumerate(names)))
    assert len(read(tmp_path / "list.txt").classes) == 24
