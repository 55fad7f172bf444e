"""The columns of a data set: what is checked when it is made, and how groups are encoded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from crossroads.data.dataset import DIGEST_BYTES, Dataset, encode_groups
from crossroads.errors import DataError
from refusals import refused


class Images:
    """A source that is never read."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def name(self, index: int) -> str:
        return f"{index}.png"

    def read(self, index: int) -> bytes:
        raise AssertionError(index)


def dataset(n: int = 4, **columns: Any) -> Dataset:
    usual = {"indices": np.arange(n), "labels": np.arange(n) % 2, "classes": ("a", "b")}
    return Dataset("mine", Images(n), **(usual | columns))


@pytest.mark.parametrize(
    ("columns", "code", "received"),
    [
        ({"labels": np.zeros(3, np.int32)}, "wrong-shape", "shape (3,)"),
        ({"labels": np.array([0, 1, 2, 0])}, "out-of-range", 2),
        ({"labels": np.array([0, 1, -1, 0])}, "out-of-range", -1),
        ({"labels": np.array([0.0, 1, 0, 1])}, "not-integers", "an array of dtype float64"),
        ({"labels": None}, "not-integers", "an array of dtype object"),
        ({"labels": np.zeros((4, 1), int)}, "wrong-shape", "shape (4, 1)"),
        ({"indices": np.array([0, 1, 2, 4])}, "out-of-range", 4),
        ({"groups": np.arange(5)}, "wrong-shape", "shape (5,)"),
        ({"groups": np.array([1, 2, np.nan, 4])}, "not-integers", "an array of dtype float64"),
        ({"groups": np.array(list("abcd"))}, "not-integers", "an array of dtype <U1"),
        ({"splits": np.array([1, 2, 3, 4])}, "out-of-range", 4),
        ({"splits": np.zeros(2, np.uint8)}, "wrong-shape", "shape (2,)"),
        ({"digests": np.zeros((4, 8), np.uint8)}, "wrong-shape", "shape (4, 8)"),
    ],
)
def test_a_wrong_column_is_refused(columns: dict[str, Any], code: str, received: object) -> None:
    (field,) = columns
    with refused(code, DataError, field=field, received=received):
        dataset(**columns)


def test_a_replaced_column_is_checked_too() -> None:
    with refused("wrong-shape", DataError, field="groups"):
        replace(dataset(), groups=np.arange(3))
    assert replace(dataset(), groups=[5, 5, 6, 6]).groups.dtype == np.int64


def test_lists_become_columns_and_arrays_are_not_copied() -> None:
    made = dataset(labels=[0, 1, 1, 0], classes=["a", "b"], splits=[0, 1, 2, 3], digests=np.zeros((4, DIGEST_BYTES), np.int64))
    assert (made.labels.dtype, made.splits.dtype, made.digests.dtype) == (np.int32, np.uint8, np.uint8)
    assert made.classes == ("a", "b")
    labels = np.zeros(4, np.int32)
    assert dataset(labels=labels).labels is labels


def test_a_data_set_may_be_empty() -> None:
    assert len(dataset(0, classes=())) == len(dataset().select([])) == 0
    assert len(Dataset("mine", Images(0), [], [], ("a",), groups=[])) == 0


@pytest.mark.parametrize("groups", [list("aabb"), [7, 7, -1, -1], [True, True, False, False], [0.5, 0.5, 2, 2]])
def test_groups_of_any_type_are_encoded(groups: Any) -> None:
    encoded = encode_groups(groups, 4)
    assert encoded.dtype == np.int64
    assert encoded[0] == encoded[1] != encoded[2] == encoded[3]


@pytest.mark.parametrize(
    ("groups", "code", "received"),
    [
        (list("abc"), "wrong-shape", "shape (3,)"),
        (np.zeros((4, 1)), "wrong-shape", "shape (4, 1)"),
        (3, "wrong-shape", "shape ()"),
        ([1.0, np.nan, 2.0, 2.0], "missing-group", "nan in row 1"),
        (np.array(["a", None, "b", "b"], object), "missing-group", "None in row 1"),
    ],
)
def test_groups_of_the_wrong_shape_or_with_gaps_are_refused(groups: Any, code: str, received: str) -> None:
    with refused(code, DataError, field="groups", received=received):
        encode_groups(groups, 4)


def test_groups_of_several_types_are_refused() -> None:
    with refused("mixed-types", DataError, field="groups"):
        encode_groups(np.array(["a", 1, "b", 2], object), 4)


PICTURES = [1, 1, 2, 1, 3, 0, 0]
"""What each image shows; 0 for images without a digest."""


def test_duplicates_and_conflicting_labels_are_found_by_digest() -> None:
    digests = np.array(PICTURES, np.uint8)[:, None].repeat(DIGEST_BYTES, axis=1)
    data = dataset(7, labels=[0, 0, 0, 1, 1, 0, 1], digests=digests)
    ids = data.duplicate_ids()
    assert ids is not None
    assert ids[0] == ids[1]
    assert len(set(ids.tolist())) == 6
    assert data.conflicting_rows().tolist() == [0, 1, 3]
    for rows in ([0, 2], [5, 6], []):
        assert data.select(rows).duplicate_ids() is None
        assert data.select(rows).conflicting_rows().tolist() == []
    assert dataset().duplicate_ids() is None  # no digests
    assert dataset().conflicting_rows().tolist() == []
