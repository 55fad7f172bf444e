"""Parquet as Hugging Face writes image data sets."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from making import archive, figures, png

from crossroads.data.readers import read
from crossroads.errors import DataError, ImageRefused, MissingExtraError
from refusals import refused

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ["frog", "ant", "bee"]


def shard(
    path: Path,
    labels: list[object],
    *,
    first: int = 0,
    names: list[str] | None = NAMES,
    image: str = "image",
    label: str = "label",
    plain: bool = False,
) -> Path:
    """Writes one shard with two rows per row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raws = [png(first + index) for index in range(len(labels))]
    cells = raws if plain else [{"bytes": raw, "path": f"{index}.png"} for index, raw in enumerate(raws)]
    kind = pa.binary() if plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(cells, kind), label: pa.array(labels)})
    if names is not None:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=2)
    return path


def labels_of(dataset) -> list[str]:  # type: ignore[no-untyped-def]
    return [dataset.row(row).label for row in range(len(dataset))]


@pytest.mark.parametrize("options", [{}, {"image": "img"}, {"plain": True}])
def test_a_file_with_class_labels(options: dict[str, object], tmp_path: Path) -> None:
    dataset = read(shard(tmp_path / "train.parquet", [2, 0, 1, 1, 0], **options))  # type: ignore[arg-type]
    assert dataset.classes == ("ant", "bee", "frog")
    assert labels_of(dataset) == ["bee", "frog", "ant", "ant", "frog"]
    assert [dataset.read(row) for row in range(5)] == [png(row) for row in range(5)]
    assert dataset.name(3) == "train.parquet[3]"
    assert dataset.splits is None


def test_labels_without_names(tmp_path: Path) -> None:
    assert read(shard(tmp_path / "a.parquet", ["x", "y"], names=None)).classes == ("x", "y")
    assert read(shard(tmp_path / "a.parquet", [10, 2], names=None)).classes == ("2", "10")


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_shards_and_splits(kind: str, tmp_path: Path) -> None:
    shard(tmp_path / "d" / "data" / "train-00000-of-00002.parquet", [0, 1, 2])
    shard(tmp_path / "d" / "data" / "train-00001-of-00002.parquet", [2, 2], first=3)
    shard(tmp_path / "d" / "data" / "test-00000-of-00001.parquet", [1], first=9)
    (tmp_path / "d" / "README.md").write_text("card")
    dataset = read(tmp_path / "d" if kind == "folder" else archive(tmp_path / "d", kind))
    assert [row.split for row in map(dataset.row, range(6))] == ["test"] + ["train"] * 5
    assert labels_of(dataset) == ["ant", "frog", "ant", "bee", "bee", "bee"]
    assert [dataset.read(row) for row in range(6)] == [png(seed) for seed in (9, 0, 1, 2, 3, 4)]
    assert dataset.name(4) == "data/train-00001-of-00002.parquet[0]"


def test_shards_without_splits_are_one_set(tmp_path: Path) -> None:
    shard(tmp_path / "0000.parquet", [0])
    shard(tmp_path / "0001.parquet", [1])
    assert read(tmp_path).splits is None
    shard(tmp_path / "test.parquet", [1])
    with refused("unnamed-split", DataError):
        read(tmp_path)


def test_a_split_without_labels_is_left_out(tmp_path: Path) -> None:
    shard(tmp_path / "train.parquet", [0, 1])
    shard(tmp_path / "test.parquet", [-1, -1])
    dataset = read(tmp_path)
    assert len(dataset) == 2
    assert figures(dataset, "file-without-labels") == [{"file": "test.parquet"}]


def test_many_threads_and_any_order(tmp_path: Path) -> None:
    dataset = read(shard(tmp_path / "a.parquet", [0] * 31))
    order = [row * 7 % 31 for row in range(93)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(dataset.read, order)) == [png(row) for row in order]


@pytest.mark.parametrize(
    ("labels", "options", "code"),
    [
        ([0, 7], {}, "label-out-of-range"),
        ([0, None], {}, "label-type"),
        ([0.5], {}, "label-type"),
        ([0], {"label": "size"}, "no-label-column"),
        ([0], {"image": "x"}, "no-image-column"),
    ],
)
def test_unusable_columns_are_refused(labels: list[object], options: dict[str, str], code: str, tmp_path: Path) -> None:
    with refused(code, DataError):
        read(shard(tmp_path / "a.parquet", labels, **options))  # type: ignore[arg-type]


def test_cells_that_hold_no_encoded_images_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["a.png"], "label": [1]}), tmp_path / "a.parquet")
    with refused("not-encoded-images", DataError, received="string"):
        read(tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": pa.array([None, b"x"], pa.binary()), "label": [1, 2]}), tmp_path / "a.parquet")
    with refused("empty-cell", ImageRefused):
        read(tmp_path / "a.parquet").read(0)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.parquet", [0, 1])
    path.write_bytes(path.read_bytes()[:-50])
    with refused("damaged-parquet", DataError):
        read(path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard(tmp_path / "a.parquet", [0, 1])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with refused("missing-extra", MissingExtraError) as caught:
        read(path)
    assert ".[parquet]" in str(caught.value.hint)
