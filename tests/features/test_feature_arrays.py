"""Covers arrays of features that are read on demand."""

import numpy as np
import pytest

from crossroads.features.arrays import Stacked


@pytest.mark.parametrize(
    "index", [slice(0, 3), slice(2, 6), slice(5, 8), slice(4, 5), slice(None), np.array([7, 0, 4]), np.array([], int)], ids=str
)
def test_stacked_rows_are_those_of_one_array_after_another(index):
    first, second = np.arange(10.0, dtype=np.float32).reshape(5, 2), np.arange(20.0, 26.0, dtype=np.float32).reshape(3, 2)
    stacked = Stacked(first, second)
    assert stacked.shape == (8, 2)
    np.testing.assert_array_equal(stacked[index], np.concatenate([first, second])[index])
