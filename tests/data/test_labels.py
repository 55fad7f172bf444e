"""Natural order, labels of any type, class names, and aligning one data set to another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossroads.data.dataset import Dataset
from crossroads.data.labels import align, encode, labelled_dataset, load_class_names, rename
from crossroads.data.readers._sources import MemoryImages
from crossroads.errors import DataError
from crossroads.files.text import natural_key
from refusals import refused


def dataset(*labels: str) -> Dataset:
    return labelled_dataset("here", MemoryImages(np.zeros((len(labels), 2, 2), np.uint8), None, "images"), labels)


def decoded(values: object) -> list[str]:
    codes, classes = encode(values)
    return [classes[code] for code in codes]


def test_natural_order() -> None:
    names = ["img10.png", "10", "b", "img2.png", "2", "-1", "img02.png", "a", "img2b.png"]
    assert sorted(names, key=natural_key) == ["-1", "2", "10", "a", "b", "img02.png", "img2.png", "img2b.png", "img10.png"]


@given(st.lists(st.text(alphabet="a0159/.-é٣", max_size=8), max_size=8, unique=True))
def test_natural_order_is_total(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)
    assert len({natural_key(name) for name in names}) == len(names)


@given(st.lists(st.integers(-(10**15), 10**15), min_size=1))
def test_integers_keep_their_values_and_order(values: list[int]) -> None:
    codes, classes = encode(values)
    assert [int(classes[code]) for code in codes] == values
    assert [int(name) for name in classes] == sorted(set(values))
    assert codes.dtype == np.int32


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([1, 5, 10], np.uint8), ["1", "5", "10"]),
        (["bee", "ant"], ["bee", "ant"]),
        (np.array(["bee", "ant"], object), ["bee", "ant"]),
        ([b"bee", b"ant"], ["bee", "ant"]),
        ([True, False], ["True", "False"]),
        (np.array([2.0, 1.0]), ["2", "1"]),
        (np.array([[3], [4]]), ["3", "4"]),
        (np.array([[0, 1], [1, 0]]), ["1", "0"]),
        ([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], ["2", "0"]),
        (np.array([[False, True]]), ["1"]),
        ((np.int64(3), np.int64(4)), ["3", "4"]),
    ],
)
def test_labels_of_many_types(values: object, expected: list[str]) -> None:
    assert decoded(values) == expected


@pytest.mark.parametrize(
    ("values", "code", "received"),
    [
        ([1.0, float("nan")], "label-not-finite", ""),
        ([0.5, 1.0], "label-type", "fractions"),
        ([[1, 1], [0, 1]], "label-not-one-hot", "[1, 1] in row 0"),
        ([[0, 1], [0, 0]], "label-not-one-hot", "row 1"),
        ([["a", "b"]], "label-not-one-hot", "row 0"),
        ([[1, 2], [3]], "label-shape", ""),
        ([None, 1], "label-type", "dtype object"),
        (["a", 1], "label-types", "int, str"),
        (["a", " "], "empty-label", "row 1"),
        (np.zeros((2, 2, 2)), "label-shape", "(2, 2, 2)"),
        ([b"\xff"], "label-encoding", ""),
        (3 + 1j, "label-type", "dtype complex"),
        (np.array(["2020-01-01"], "M8[D]"), "label-type", "dtype datetime"),
    ],
)
def test_labels_that_are_refused(values: object, code: str, received: str) -> None:
    with refused(code, DataError) as caught:
        encode(values)
    assert received in str(caught.value.received)


def test_groups_and_splits_of_rows() -> None:
    images = MemoryImages(np.zeros((4, 2, 2), np.uint8), None, "images")
    made = labelled_dataset("here", images, ["b", "a", "b", "a"], [1, 0, 0, 0], [("b", 1), None, ("b", 1), None])
    assert made.classes == ("a", "b")
    assert made.labels.tolist() == [1, 0, 1, 0]
    assert made.groups is not None
    assert made.splits is not None
    assert made.groups[0] == made.groups[2]
    assert len(set(made.groups.tolist())) == 3, "a row without a group stands alone"
    assert made.splits.tolist() == [1, 0, 0, 0]
    alone = dataset("a", "b")
    assert alone.groups is None
    assert alone.splits is None


def test_class_names_of_one_name_a_line(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\ufeffant\nbee, honey\n\n")
    assert load_class_names(path) == {0: "ant", 1: "bee, honey"}


@pytest.mark.parametrize(
    "text", ['ClassId,SignName\n1,Stop\n10,"Slow, curve"\n', '1,Stop\r\n10,"Slow, curve"', "ClassId;Name\n1;Stop\n10;Slow, curve\n"]
)
def test_class_names_with_numbers(text: str, tmp_path: Path) -> None:
    path = tmp_path / "signnames.csv"
    path.write_text(text)
    assert load_class_names(path) == {1: "Stop", 10: "Slow, curve"}


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("", "class-names-empty", ""),
        ("1,Stop\n1,Go\n", "class-names-repeated", "line 2"),
        ("1,Stop\n2,Stop\n", "class-names-repeated", "line 2"),
        ("a\na\n", "class-names-repeated", "line 2"),
        ("h,n\n1,Stop\nx,Go\n", "class-names-line", "line 3"),
    ],
)
def test_class_names_that_are_refused(text: str, code: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text(text)
    with refused(code, DataError, field="class_names") as caught:
        load_class_names(path)
    assert line in caught.value.rule


def test_a_missing_file_of_class_names_is_refused(tmp_path: Path) -> None:
    with refused("class-names-unreadable", DataError):
        load_class_names(tmp_path / "names.csv")


def test_rename_keeps_the_order_of_the_numbers() -> None:
    renamed = rename(dataset("10", "2", "00003"), {2: "zebra", 10: "ant", 3: "bee"})
    assert renamed.classes == ("zebra", "bee", "ant")
    assert [renamed.row(row).label for row in range(3)] == ["ant", "zebra", "bee"]


def test_rename_refuses_labels_without_a_name() -> None:
    with refused("class-without-name", received="label '5'; the names are for 0 to 4"):
        rename(dataset("1", "5"), ["a", "b", "c", "d", "e"])
    with refused("class-without-name"):
        rename(dataset("ant"), ["a"])
    with refused("class-names-repeated"):
        rename(dataset("0", "1"), ["a", "a"])


@given(st.lists(st.sampled_from(["a", "b", "2", "10", "c"]), min_size=1), st.permutations(["a", "b", "2", "10", "c", "d"]))
def test_align_keeps_every_label(labels: list[str], classes: list[str]) -> None:
    aligned = align(dataset(*labels), tuple(classes))
    assert aligned.classes == tuple(classes)
    assert [aligned.row(row).label for row in range(len(aligned))] == labels
    assert aligned.notes == ()


def test_align_matches_numbers_in_other_spellings() -> None:
    aligned = align(dataset("00020", "00003"), ("3", "20"))
    assert aligned.labels.tolist() == [1, 0]
    assert [(note.code, note.figures) for note in aligned.notes] == [("labels-matched-as-numbers", {"classes": 2})]
    assert "'00020' as '20'" in aligned.notes[0]


def test_align_does_not_guess_between_two_spellings() -> None:
    assert "'020'" in str(refusal(["020"], ("20", "0020")).received)


def refusal(labels: list[str], classes: tuple[str, ...]) -> DataError:
    with refused("unknown-label", DataError) as caught:
        align(dataset(*labels), classes)
    return caught.value


def test_align_names_every_unknown_label_and_the_first_row() -> None:
    error = refusal(["round", "striped", "rare", "striped"], ("circle", "round", "square"))
    assert str(error.received) == "'rare' (1 image), 'striped' (2 images), the first images[1]"
    assert error.hint == "the classes are circle, round, square"  # 'square' is no typo of 'rare'
    many = refusal([f"breed{letter}" for letter in "abcdefg"], ("x", "y"))
    assert " and 2 more" in str(many.received)


def test_align_suggests_a_class_only_for_a_near_typo() -> None:
    assert refusal(["50", "st0p"], ("50", "60", "stop")).hint == "did you mean 'stop'?"
    assert refusal(["Stop"], ("60", "stop")).hint == "did you mean 'stop'?"
    several = refusal(["squar", "striped", "tringle"], ("circle", "square", "triangle")).hint
    assert several == "did you mean 'square' for 'squar', 'triangle' for 'tringle'?"
    assert refusal(["1201"], ("120", "121")).hint == "the classes are 120, 121"


def test_align_ignores_classes_without_rows() -> None:
    kept = dataset("a", "x").select([0])
    assert align(kept, ("b", "a")).labels.tolist() == [1]


def test_labels_that_no_array_could_hold_are_refused() -> None:
    for values in ([2**70, 1], np.array([2**70, 1], object), np.empty((10**12, 0), np.uint8), np.array([None, 1], object)):
        with pytest.raises(DataError):
            encode(values)


def test_one_long_text_does_not_widen_a_million_short_ones() -> None:
    codes, classes = encode(["a" * 10_000_000, *["b"] * 1_000_000])  # an array of texts would take 40 TB
    assert codes[:3].tolist() == [0, 1, 1]
    assert len(classes) == 2
    with refused("label-encoding"):
        encode([b"a", b"\xff"])
    with refused("label-types"):
        encode([b"a", 1])


NFC, NFD = "p\u00e2t\u00e9", "pa\u0302te\u0301"


def test_one_class_in_two_unicode_forms_is_one_class() -> None:
    rows = dataset(NFD, NFC, "tea", "tea ")
    assert rows.classes == (NFC, "tea")
    assert rows.labels.tolist() == [0, 0, 1, 1]
    assert [(note.code, note.figures) for note in rows.notes] == [("class-spellings-united", {"classes": 2})]
    assert all(name in rows.notes[0] for name in (NFC, "tea"))
    assert dataset(NFC, "tea").notes == ()


def test_class_names_and_classes_of_another_set_match_in_any_form(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text(f"0,{NFD}\n1,tea\n", encoding="utf-8")
    named = rename(dataset("0", "1"), load_class_names(tmp_path / "names.csv"))
    assert named.classes == (NFC, "tea")
    assert align(dataset(NFD), (NFC, "tea")).labels.tolist() == [0]
    assert align(dataset(NFC), ("tea", NFD)).labels.tolist() == [1]
    (tmp_path / "names.csv").write_text(f"0,{NFD}\n1,{NFC}\n", encoding="utf-8")
    with refused("class-names-repeated"):
        load_class_names(tmp_path / "names.csv")


def test_names_that_differ_only_in_case_are_refused_unless_they_are_letters() -> None:
    with refused("classes-differ-in-case", received="'Oak' and 'oak'"):
        dataset("Oak", "elm", "oak")
    letters = dataset("A", "a", "b")
    assert letters.classes == ("A", "a", "b")
    assert [(note.code, note.figures) for note in letters.notes] == [("classes-differ-in-case", {"pairs": 1})]


def test_classes_that_spell_the_same_number_are_noted() -> None:
    notes = dataset("7", "007", "8", "x1", "x01").notes
    assert [(note.code, note.figures) for note in notes] == [("classes-spell-one-number", {"pairs": 1})]
    assert dataset("7", "007", "9", "+9").notes[0].figures == {"pairs": 2}
    assert not dataset("7", "8", "x1", "x01").notes
