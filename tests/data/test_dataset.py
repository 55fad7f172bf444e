"""A data set whose columns disagree is refused when it is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from crossroads.data.dataset import DIGEST_BYTES, Dataset, encode_groups
from crossroads.errors import DataError


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
    ("columns", "message"),
    [
        ({"labels": np.zeros(3, np.int32)}, r"mine: labels must have the shape \(4,\).*received shape \(3,\)"),
        ({"labels": np.array([0, 1, 2, 0])}, r"labels must lie in 0\.\.1; received 2"),
        ({"labels": np.array([0, 1, -1, 0])}, r"labels must lie in 0\.\.1; received -1"),
        ({"labels": np.array([0.0, 1, 0, 1])}, "labels must be whole numbers"),
        ({"labels": None}, "labels must be whole numbers"),
        ({"labels": np.zeros((4, 1), int)}, r"labels must have the shape \(4,\)"),
        ({"indices": np.array([0, 1, 2, 4])}, r"indices must lie in 0\.\.3; received 4"),
        ({"groups": np.arange(5)}, r"groups must have the shape \(4,\)"),
        ({"groups": np.array([1, 2, np.nan, 4])}, "groups must be whole numbers"),
        ({"groups": np.array(list("abcd"))}, "groups must be whole numbers.*numpy.unique"),
        ({"splits": np.array([1, 2, 3, 4])}, r"splits must lie in 0\.\.3"),
        ({"splits": np.zeros(2, np.uint8)}, "splits must have the shape"),
        ({"digests": np.zeros((4, 8), np.uint8)}, r"digests must have the shape \(4, 16\)"),
    ],
)
def test_columns_that_disagree_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataset(**columns)


def test_a_column_put_in_afterwards_is_looked_at_too() -> None:
    with pytest.raises(DataError, match="groups must have the shape"):
        replace(dataset(), groups=np.arange(3))
    assert replace(dataset(), groups=[5, 5, 6, 6]).groups.dtype == np.int64


def test_lists_become_columns_and_arrays_are_not_copied() -> None:
    made = dataset(labels=[0, 1, 1, 0], classes=["a", "b"], splits=[0, 1, 2, 3], digests=np.zeros((4, DIGEST_BYTES), np.int64))
    assert (made.labels.dtype, made.splits.dtype, made.digests.dtype) == (np.int32, np.uint8, np.uint8)
    assert made.classes == ("a", "b")
    labels = np.zeros(4, np.int32)
    assert dataset(labels=labels).labels is labels


def test_an_empty_data_set_is_one() -> None:
    assert len(dataset(0, classes=())) == len(dataset().select([])) == 0
    assert len(Dataset("mine", Images(0), [], [], ("a",), groups=[])) == 0


@pytest.mark.parametrize("groups", [list("aabb"), [7, 7, -1, -1], [True, True, False, False], [0.5, 0.5, 2, 2]])
def test_groups_of_any_kind_are_numbered(groups: Any) -> None:
    found = encode_groups(groups, 4)
    assert found.dtype == np.int64
    assert found[0] == found[1] != found[2] == found[3]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (list("abc"), r"groups must have the shape \(4,\).*received shape \(3,\)"),
        (np.zeros((4, 1)), r"groups must have the shape \(4,\)"),
        (3, r"groups must have the shape \(4,\)"),
        ([1.0, np.nan, 2.0, 2.0], "each image must have a group; received nan in row 1"),
        (np.array(["a", None, "b", "b"], object), "each image must have a group; received None in row 1"),
        (np.array(["a", 1, "b", 2], object), "groups must be of one type"),
    ],
)
def test_groups_that_are_wrong_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_groups(groups, 4)
