"""WebDataset shards."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from crossroads.data.readers import read
from crossroads.errors import DataError


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
