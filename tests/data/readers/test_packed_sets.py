"""CIFAR's batches, idx files and WebDataset shards that are not as they should be."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
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
    assert "upright" in dataset.notes[0]


@pytest.mark.parametrize("raw", [idx(3, cut=1), idx(3, magic=0x801), b"", idx(3) + b"x"])
def test_incomplete_idx_files(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train-images-idx3-ubyte must be a complete idx file"):
        read(write(tmp_path, {"train-images-idx3-ubyte": raw, "train-labels-idx1-ubyte": LABELS}))


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as packed:
        for name, raw in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            packed.addfile(info, io.BytesIO(raw))
    return path


def test_one_shard_alone(tmp_path: Path) -> None:
    samples = {"n/a.jpg": b"1", "n/a.cls": b"oak\n", "n/b.seg.png": b"2", "n/b.cls": b"elm", "n/c.jpg": b"3"}
    dataset = read(tar(tmp_path / "x.tar", samples))
    assert [dataset.row(row)[:2] for row in range(2)] == [("n/a.jpg", "oak"), ("n/b.seg.png", "elm")]
    assert dataset.notes == ("1 image without a .cls file left out",)


def test_an_empty_label_in_a_shard(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.cls in .* must hold a label"):
        read(tar(tmp_path / "x.tar", {"a.jpg": b"1", "a.cls": b" "}))
