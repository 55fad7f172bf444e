"""The idx files of MNIST, Fashion-MNIST, KMNIST and EMNIST."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from making import codes, write

from crossroads.data.readers import read
from crossroads.errors import DataError
from refusals import refused


def idx(n: int, side: int = 4, magic: int = 0x803, cut: int = 0) -> bytes:
    raw = struct.pack(">IIII", magic, n, side, side) + bytes(range(n * side * side))
    return raw[: len(raw) - cut]


LABELS = struct.pack(">II", 0x801, 3) + bytes((7, 1, 7))


def test_idx_files(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, {"train-images-idx3-ubyte": idx(3), "train-labels-idx1-ubyte": LABELS}))
    assert [dataset.row(row).label for row in range(3)] == ["7", "1", "7"]
    assert np.array_equal(np.asarray(dataset.read(1)), np.arange(16, 32).reshape(4, 4))


def test_emnist_is_turned_upright(tmp_path: Path) -> None:
    names = [f"emnist-letters-train-{what}-ubyte" for what in ("images-idx3", "labels-idx1")]
    dataset = read(write(tmp_path, dict(zip(names, (idx(3), LABELS), strict=True))))
    assert np.array_equal(np.asarray(dataset.read(1)), np.arange(16, 32).reshape(4, 4).T)
    assert codes(dataset)[0] == "images-transposed"


@pytest.mark.parametrize("raw", [idx(3, cut=1), idx(3, magic=0x801), b"", idx(3) + b"x"])
def test_malformed_idx_files_are_refused(raw: bytes, tmp_path: Path) -> None:
    with refused("malformed-idx", DataError):
        read(write(tmp_path, {"train-images-idx3-ubyte": raw, "train-labels-idx1-ubyte": LABELS}))


def test_several_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    kinds = {"images-idx3": idx(3), "labels-idx1": LABELS}
    files = {f"emnist-{name}-train-{kind}-ubyte": raw for name in ("letters", "digits") for kind, raw in kinds.items()}
    with refused("several-sets", DataError) as caught:
        read(write(tmp_path, files))
    assert "emnist-digits" in str(caught.value.received)
    assert "emnist-letters" in str(caught.value.received)
