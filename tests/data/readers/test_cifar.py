"""CIFAR's batches: channels last, and refused where they are not as they should be."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from making import write

from crossroads.data.readers import read
from crossroads.errors import DataError


def batch(n: int = 3, width: int = 3072, labels: list[int] | None = None) -> bytes:
    pixels = np.arange(n * width, dtype=np.uint64).astype(np.uint8).reshape(n, width)
    return pickle.dumps({b"data": pixels, b"labels": labels or [0, 1, 0]})


META = pickle.dumps({b"label_names": [b"oak", b"elm"]})


def test_cifar_pixels_are_channels_last(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, {"data_batch_1": batch(), "batches.meta": META}))
    assert dataset.splits is None, "one part alone is no split"
    pixels = np.asarray(dataset.read(1))
    flat = np.arange(3 * 3072, dtype=np.uint64).astype(np.uint8).reshape(3, 3, 32, 32)[1]
    assert np.array_equal(pixels, flat.transpose(1, 2, 0))
    assert dataset.row(1).label == "elm"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"data_batch_1": batch(width=3000)}, r"data_batch_1 must hold data \(n, 3072\) and labels"),
        ({"data_batch_1": batch(labels=[0, 1, 2])}, "a number from 0 to 1"),
        ({"data_batch_1": pickle.dumps([1])}, "must hold a dict; received a list"),
        ({"data_batch_1": b"\x80\x04cos\nsystem\n."}, "data_batch_1: a pickle may hold arrays"),
        ({"data_batch_1": batch(), "batches.meta": pickle.dumps({})}, "names of the classes"),
    ],
)
def test_bad_batches(files: dict[str, str | bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path, {"batches.meta": META, **files}))
