"""Covers the store: rows are found by image and view, survive interruptions, and are written by several processes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossroads.errors import FeatureError
from crossroads.features.store import Store
from refusals import refused


def digests(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 16), dtype=np.uint8)


def values(n, seed=0, shape=(3,)):
    return np.random.default_rng(seed).normal(size=(n, *shape)).astype(np.float32)


def views(n, number=0):
    return np.full(n, number, np.uint32)


def test_rows_are_found_by_image_and_view_also_by_another_reader(tmp_path):
    store, whose, kept = Store(tmp_path, (3,), "float32"), digests(10), values(20)
    store.append(whose, views(10), kept[:10])
    store.append(whose, views(10, 1), kept[10:])
    for seen in (store, Store(tmp_path, (3,), "float32")):
        assert seen.find(whose[::-1]).tolist() == list(range(10))[::-1]
        assert seen.find(whose, 1).tolist() == list(range(10, 20))
        assert seen.find(digests(2, seed=9)).tolist() == [-1, -1]
        np.testing.assert_array_equal(seen.rows(seen.find(whose, 1))[:], kept[10:])


def test_an_empty_store_has_no_rows(tmp_path):
    store = Store(tmp_path, (3,), "float32")
    assert store.find(digests(2)).tolist() == [-1, -1]
    assert store.find(digests(0)).shape == (0,)
    assert store.rows(np.empty(0, np.int64))[:].shape == (0, 3)


def test_an_existing_row_is_not_added_again(tmp_path):
    store, other = Store(tmp_path, (3,), "float32"), Store(tmp_path, (3,), "float32")
    store.append(digests(3), views(3), values(3))
    other.append(digests(5), views(5), values(5, seed=1))
    assert len(other) == 5
    np.testing.assert_array_equal(other.rows(np.arange(3))[:], values(3))


def test_rows_are_indexed_by_numbers_slices_and_arrays(tmp_path):
    store, kept = Store(tmp_path, (2, 2, 3), "float32"), values(9, shape=(2, 2, 3))
    store.append(digests(9), views(9), kept)
    order = np.array([8, 0, 3, 4, 5])
    rows = store.rows(order)
    assert (rows.shape, rows.dtype, len(rows)) == ((5, 2, 2, 3), np.float32, 5)
    for index in (0, -1, slice(None), slice(2, 5), slice(4, None, -2), np.array([4, 0, 0]), np.array([], np.int64), order > 3):
        np.testing.assert_array_equal(rows[index], kept[order][index])
    np.testing.assert_array_equal(np.asarray(rows), kept[order])


def test_float16_rows_are_read_as_float32(tmp_path):
    store = Store(tmp_path, (3,), "float16")
    store.append(digests(4), views(4), values(4))
    rows = store.rows(np.arange(4))[:]
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, values(4).astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "value", "code"), [("float16", 7e4, "features-overflow"), ("float32", np.nan, "features-not-finite")]
)
def test_values_that_are_not_finite_in_the_store_are_refused(tmp_path, dtype, value, code):
    store = Store(tmp_path, (3,), dtype)
    with refused(code, FeatureError):
        store.append(digests(1), views(1), np.full((1, 3), value, np.float32))
    assert len(store) == 0


def test_a_missing_row_is_refused(tmp_path):
    store = Store(tmp_path, (3,), "float32")
    store.append(digests(1), views(1), values(1))
    for rows in ([-1], [1]):
        with refused("feature-row-missing", FeatureError):
            store.rows(np.array(rows))


@settings(max_examples=40, deadline=None)
@given(data=st.integers(0, 60), index=st.integers(0, 5 * 32), garbage=st.binary(max_size=40))
def test_after_any_interruption_rows_are_right_and_the_store_can_grow(tmp_path_factory, data, index, garbage):
    folder = tmp_path_factory.mktemp("store")
    Store(folder, (3,), "float32").append(digests(5), views(5), values(5))
    for name, length in (("data", data), ("index", index)):
        with (folder / name).open("r+b") as file:
            file.truncate(length)
    with (folder / "index").open("ab") as file:
        file.write(garbage)
    store = Store(folder, (3,), "float32")
    whole = min(data // 12, index // 32)
    assert whole <= len(store) <= whole + 1  # a record that lost only its reserved bytes is valid
    store.append(digests(5), views(5), values(5))
    for seen in (store, Store(folder, (3,), "float32")):
        np.testing.assert_array_equal(seen.rows(seen.find(digests(5)))[:], values(5))


def test_two_processes_can_append_at_once(tmp_path):
    code = """
import sys
import numpy as np
from crossroads.features.store import Store
store = Store(__import__("pathlib").Path(sys.argv[1]), (2,), "float32")
whose = np.random.default_rng(0).integers(0, 256, (200, 16), dtype=np.uint8)
order = np.random.default_rng(int(sys.argv[2])).permutation(200)
for some in np.array_split(order, 40):
    store.append(whose[some], np.zeros(5, np.uint32), np.stack([some, some + 0.5], axis=1).astype(np.float32))
"""
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(seed)]) for seed in (1, 2)]
    assert [process.wait(60) for process in running] == [0, 0]
    store, whose = Store(tmp_path, (2,), "float32"), np.random.default_rng(0).integers(0, 256, (200, 16), dtype=np.uint8)
    assert len(store) == 200
    np.testing.assert_array_equal(store.rows(store.find(whose))[:][:, 0], range(200))
