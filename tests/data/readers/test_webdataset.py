"""WebDataset: images and labels in tar archives."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from making import figures, write

from crossroads.data.readers import read
from crossroads.errors import DataError
from refusals import refused


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as packed:
        for name, raw in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            packed.addfile(info, io.BytesIO(raw))
    return path


def test_a_single_shard_is_read(tmp_path: Path) -> None:
    samples = {"n/a.jpg": b"1", "n/a.cls": b"oak\n", "n/b.seg.png": b"2", "n/b.cls": b"elm", "n/c.jpg": b"3"}
    dataset = read(tar(tmp_path / "x.tar", samples))
    assert [dataset.row(row)[:2] for row in range(2)] == [("n/a.jpg", "oak"), ("n/b.seg.png", "elm")]
    assert figures(dataset, "images-without-label") == [{"count": 1}]


def test_an_empty_label_is_refused(tmp_path: Path) -> None:
    with refused("empty-label", DataError):
        read(tar(tmp_path / "x.tar", {"a.jpg": b"1", "a.cls": b" "}))


@pytest.mark.parametrize("stray", ["thesis.cls", "oak/3.cls"])
def test_a_stray_label_file_leaves_the_class_folders(stray: str, tmp_path: Path) -> None:
    images = dict.fromkeys(f"{name}/{n}.png" for name in ("oak", "elm") for n in range(5))
    dataset = read(write(tmp_path, images | {stray: "7"}))  # type: ignore[arg-type]
    assert dataset.classes == ("elm", "oak")
    assert len(dataset) == 10


def test_one_image_of_each_sample_is_read(tmp_path: Path) -> None:
    samples = {"0.seg.png": b"1", "0.png": b"2", "0.cls": b"oak", "1.left.png": b"3", "1.right.png": b"4", "1.cls": b"elm"}
    dataset = read(tar(tmp_path / "x.tar", samples))
    assert [dataset.row(row).source for row in range(len(dataset))] == ["0.png", "1.left.png"]
    assert figures(dataset, "further-images-ignored") == [{"count": 2}]


@pytest.mark.parametrize("shard", [True, False])
def test_other_fields_of_samples_are_counted(shard: bool, tmp_path: Path) -> None:
    fields = {f"{n}.{field}": b"x" for n in range(3) for field in ("png", "cls", "json")}
    path = tar(tmp_path / "x.tar", fields)
    assert figures(read(tmp_path if shard else path), "files-ignored") == [
        {"count": 3, "suffixes": {".json": 3}, "example": "0.json"}
    ]


def test_shards_in_which_nothing_is_labelled_are_refused(tmp_path: Path) -> None:
    tar(tmp_path / "x.tar", {"0.png": b"1", "1.cls": b"oak"})
    with refused("no-labels", DataError):
        read(tmp_path)


def test_shards_are_not_kept_open(tmp_path: Path) -> None:
    for n in range(60):
        tar(tmp_path / f"{n:03}.tar", {f"{n}.png": bytes([n]), f"{n}.cls": b"ab"[n % 2 : n % 2 + 1]})
    opened = Path("/proc/self/fd")
    before = len(list(opened.iterdir())) if opened.exists() else 0
    dataset = read(tmp_path)
    after = len(list(opened.iterdir())) if opened.exists() else 0
    assert [bytes(dataset.read(row)) for row in range(60)] == [bytes([n]) for n in range(60)]
    assert after - before < 60
