"""Reading and splitting the images of a run, and the notes on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import crossroads
from crossroads.data import partition as partition_module
from crossroads.data.dataset import TEST
from crossroads.data.partition import Partition, absent_class_notes, count_seen, load_and_split
from crossroads.errors import DataError
from crossroads.progress import Note, Silent
from crossroads.recipe import Recipe
from pictures import stripes
from refusals import refused


def partition(data: object, test: object = None, **choices: object) -> Partition:
    return load_and_split(data, test, Recipe(**choices), Silent())


def notes(result: Partition) -> dict[str, dict[str, object]]:
    return {note.code: note.figures for note in result.notes if isinstance(note, Note)}


@pytest.mark.parametrize(("rare", "class_weights", "noted"), [(2, "none", True), (2, "balanced", False), (20, "none", False)])
def test_unbalanced_classes_are_noted_unless_they_are_weighted(rare: int, class_weights: str, noted: bool) -> None:
    images, labels = stripes(80, size=16)
    rows = np.r_[np.flatnonzero(labels == "level"), np.flatnonzero(labels == "upright")[:rare]]
    result = partition((images[rows], labels[rows]), validation=0.2, test_fraction=0.0, class_weights=class_weights)
    figures = {"largest": "level", "smallest": "upright", "counts": [32, 1]}
    assert notes(result).get("classes-unbalanced") == (figures if noted else None)


def test_equal_images_with_different_labels_are_noted() -> None:
    images, labels = stripes(40, size=16)
    images[7] = images[4]
    images[9] = images[4]
    images[2] = images[0]  # the same class: no conflict
    figures = notes(partition((images, labels)))["conflicting-labels"]
    assert figures == {"images": 3, "example": ["images[4] (level)", "images[7] (upright)"]}
    with_groups = {"x": images, "y": labels, "groups": np.arange(40)}  # data with groups is not compared
    assert "conflicting-labels" not in notes(partition(with_groups))
    images[[7, 9]] = 255 - images[[7, 9]]
    assert "conflicting-labels" not in notes(partition((images, labels)))


def test_a_separate_test_set_sets_the_test_fraction_to_0() -> None:
    result = partition(stripes(40, size=16), stripes(10, size=16, seed=1), test_fraction=0.3)
    assert result.recipe.test_fraction == 0
    assert result.test is not None
    assert result.test.n == 10
    assert result.median_side == 16


def test_a_class_in_an_unsupported_format_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(12):
            (tmp_path / name / f"{number}.jxl").write_bytes(b"\xff\x0a" + bytes([number] * 50) + name.encode())
    with refused("unreadable-class", DataError):
        partition(tmp_path)


def test_missing_data_and_a_single_class_are_refused() -> None:
    with refused("no-data", DataError, field="data"):
        partition(None)
    images, labels = stripes(20, size=16)
    with refused("too-few-classes", DataError):
        partition((images[labels == "level"], labels[labels == "level"]))


def test_a_class_without_training_images_is_refused() -> None:
    images, labels = stripes(20, size=16)
    train = labels == "level"
    with refused("empty-class", DataError):
        partition(((images[train], labels[train]), (images[~train], labels[~train])))


def test_only_the_test_rows_of_a_data_set_with_a_split_are_scored() -> None:
    images, labels = stripes(20, size=16)
    data = crossroads.read(((images[:14], labels[:14]), (images[14:], labels[14:])))
    chosen = partition_module.test_rows(data)
    assert data.splits is not None
    assert len(chosen) == np.count_nonzero(data.splits == TEST)
    assert [note.figures for note in chosen.notes if isinstance(note, Note)] == [{"ignored": 20 - len(chosen)}]
    assert partition_module.test_rows(chosen) is chosen


def test_images_seen_before_are_counted_and_absent_classes_noted() -> None:
    digests = np.arange(5, dtype=np.uint8)[:, None].repeat(16, axis=1)
    assert count_seen(digests, digests[2:4]) == 2
    data = crossroads.read(stripes(20, size=16))
    (note,) = absent_class_notes(data.select(np.flatnonzero(data.labels == 0)))
    assert note.figures == {"absent": ["upright"], "classes": 2}
    assert list(absent_class_notes(data)) == []
