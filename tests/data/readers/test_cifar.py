"""CIFAR's batches: pixels become channels-last, and malformed batches are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from making import write

from crossroads.data.readers import read
from crossroads.errors import DataError
from refusals import refused


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
    ("files", "code"),
    [
        ({"data_batch_1": batch(width=3000)}, "malformed-batch"),
        ({"data_batch_1": batch(labels=[0, 1, 2])}, "label-out-of-range"),
        ({"data_batch_1": pickle.dumps([1])}, "not-a-dict"),
        ({"data_batch_1": b"\x80\x04cos\nsystem\n."}, "unsafe-pickle"),
        ({"data_batch_1": batch(), "batches.meta": pickle.dumps({})}, "no-class-names"),
    ],
)
def test_malformed_batches_are_refused(files: dict[str, str | bytes], code: str, tmp_path: Path) -> None:
    with refused(code, DataError):
        read(write(tmp_path, {"batches.meta": META, **files}))
