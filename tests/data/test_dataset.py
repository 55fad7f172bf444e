"""Columns of a data set have one entry per row."""

from dataclasses import replace

import numpy as np
import pytest

from crossroads.errors import DataError
from rows import dataset


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("groups", np.arange(3)),
        ("groups", np.arange(5)),
        ("groups", np.int64(2)),
        ("labels", np.zeros(5, np.int32)),
        ("splits", np.zeros(0, np.uint8)),
        ("digests", np.zeros((3, 16), np.uint8)),
    ],
)
def test_a_column_of_another_length_than_the_rows_is_refused(column, value):
    with pytest.raises(DataError, match=rf"{column} must have one entry for each of the 4 rows; received shape \("):
        replace(dataset([0, 1, 0, 1]), **{column: value})


def test_a_column_of_the_right_length_is_taken():
    grouped = replace(dataset([0, 1, 0, 1]), groups=np.array([7, 7, 8, 8]))
    assert grouped.select([0, 3]).groups.tolist() == [7, 8]
