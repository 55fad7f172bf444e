"""The German traffic signs in the layout of the benchmark and in that of Kaggle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from making import archive, codes, facts, figures, write

from crossroads.data.readers import read
from crossroads.errors import DataError
from refusals import refused

HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


def official_train(folder: Path, classes: tuple[int, ...] = (0, 3, 20)) -> Path:
    for number in classes:
        names = [f"{track:05d}_{frame:05d}.ppm" for track in range(2) for frame in range(3)]
        place = folder / "GTSRB" / "Final_Training" / "Images" / f"{number:05d}"
        write(place, names)
        (place / f"GT-{number:05d}.csv").write_text(HEADER + "".join(f"{name};9;9;1;1;8;8;{number}\n" for name in names))
    return folder


def official_test(folder: Path, *, labelled: bool = True, beside: bool = False) -> Path:
    place = folder / "GTSRB" / "Final_Test"
    write(place / "Images", ["00000.ppm", "00001.ppm"])
    table = (place / "Images" if beside else place) / ("GT-final_test.csv" if labelled else "GT-final_test.test.csv")
    header = HEADER if labelled else HEADER.replace(";ClassId", "")
    end = (";20", ";3") if labelled else ("", "")
    table.write_text(header + f"00000.ppm;9;9;1;1;8;8{end[0]}\n00001.ppm;9;9;1;1;8;8{end[1]}\n")
    return folder


def column(dataset, attribute: str) -> list[str]:  # type: ignore[no-untyped-def]
    return [getattr(dataset.row(row), attribute) for row in range(len(dataset))]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.xz"])
def test_the_official_training_set(kind: str, tmp_path: Path) -> None:
    folder = official_train(tmp_path / "d")
    dataset = read(folder if kind == "folder" else archive(folder, kind))
    assert dataset.classes == ("0", "3", "20")
    assert dataset.splits is None
    assert dataset.groups is not None
    tracks = {(row.label, row.source.rsplit("/")[-1][:5]): set() for row in map(dataset.row, range(18))}
    for row in map(dataset.row, range(18)):
        tracks[row.label, row.source.rsplit("/")[-1][:5]].add(row.group)
    assert len(tracks) == 6
    assert all(len(groups) == 1 for groups in tracks.values())
    assert len(set().union(*tracks.values())) == 6, "a track number is unique over classes"
    assert facts(dataset) == facts(read(folder))


@pytest.mark.parametrize("beside", [True, False])
def test_the_official_test_set(beside: bool, tmp_path: Path) -> None:
    dataset = read(official_test(tmp_path, beside=beside))
    assert column(dataset, "label") == ["20", "3"]
    assert dataset.splits is None
    assert dataset.groups is None
    alone = read(next(tmp_path.rglob("GT-final_test.csv")))
    assert column(alone, "label") == ["20", "3"]
    assert alone.read(1) == dataset.read(1)


def test_both_parts_have_their_splits(tmp_path: Path) -> None:
    official_train(tmp_path)
    dataset = read(official_test(tmp_path))
    assert column(dataset, "split") == ["train"] * 18 + ["test"] * 2
    assert dataset.classes == ("0", "3", "20")


def test_a_test_table_without_labels_is_refused_or_noted(tmp_path: Path) -> None:
    with refused("no-label-column", DataError):
        read(official_test(tmp_path, labelled=False))
    official_train(tmp_path)
    dataset = read(tmp_path)
    assert len(dataset) == 18
    assert dataset.splits is None
    assert codes(dataset) == ["table-without-labels"]


def test_errors_in_official_tables(tmp_path: Path) -> None:
    table = next(official_train(tmp_path, (3,)).rglob("*.csv"))
    good = table.read_text()
    table.write_text(good.replace(";3\n", ";three\n", 1))
    with refused("class-id", DataError, received="'three'"):
        read(tmp_path)
    table.write_text(good.replace("00001_00002.ppm", "00009_00009.ppm"))
    with refused("missing-files", DataError) as caught:
        read(tmp_path)
    assert "GT-00003.csv line 7" in str(caught.value.received)
    table.write_text(good)
    write(table.parent, ["00007_00000.ppm"])
    assert figures(read(tmp_path), "images-not-in-table") == [{"count": 1}]


def test_duplicate_rows_of_official_tables_are_noted(tmp_path: Path) -> None:
    table = next(official_train(tmp_path, (3,)).rglob("*.csv"))
    table.write_text(table.read_text() + table.read_text().splitlines()[1] + "\n")
    dataset = read(tmp_path)
    assert len(dataset) == 6
    assert figures(dataset, "duplicate-rows") == [{"count": 1}]


def kaggle(folder: Path) -> Path:
    names = [f"{label}/{label:05d}_{track:05d}_{frame:05d}.png" for label in (2, 10) for track in range(2) for frame in range(2)]
    header = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path\n"
    write(folder, [*(f"Train/{name}" for name in names), "Test/00000.png", "Test/00001.png", "Meta/2.png", "Meta/10.png"])
    (folder / "Train.csv").write_text(header + "".join(f"9,9,1,1,8,8,{name.split('/')[0]},Train/{name}\n" for name in names))
    (folder / "Test.csv").write_text(header + "9,9,1,1,8,8,10,Test/00000.png\n9,9,1,1,8,8,2,Test/00001.png\n")
    (folder / "Meta.csv").write_text("Path,ClassId,ShapeId,ColorId,SignId\nMeta/2.png,2,0,0,3.1\n")
    return folder


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_kaggle(kind: str, tmp_path: Path) -> None:
    folder = kaggle(tmp_path / "d")
    dataset = read(folder if kind == "folder" else archive(folder, kind))
    assert len(dataset) == 10
    assert dataset.classes == ("2", "10")
    assert column(dataset, "split") == ["train"] * 8 + ["test"] * 2
    assert column(dataset, "label")[8:] == ["10", "2"]
    assert dataset.groups is not None
    assert len(set(dataset.groups[:8].tolist())) == 4
    assert dataset.read(9) == (folder / "Test" / "00001.png").read_bytes()


def test_a_lower_case_copy_of_kaggle_folders_does_not_double_the_rows(tmp_path: Path) -> None:
    folder = kaggle(tmp_path / "d")
    before = facts(read(folder))
    for name in ("Train", "Test", "Meta"):
        for path in sorted((folder / name).rglob("*.png")):
            write(folder, {path.relative_to(folder).as_posix().replace(name, name.lower()): path.read_bytes()})
    doubled = read(archive(folder, "zip"))
    assert figures(doubled, "copy-ignored") == [{"folder": "train", "original": "Train"}]
    assert {**facts(doubled), "notes": ()} == before


def test_kaggle_in_lower_case_only(tmp_path: Path) -> None:
    folder = kaggle(tmp_path / "d")
    for name in ("Train", "Test"):
        (folder / name).rename(folder / "x")
        (folder / "x").rename(folder / name.lower())
    dataset = read(archive(folder, "zip"))
    assert column(dataset, "split") == ["train"] * 8 + ["test"] * 2


def test_kaggle_in_parts(tmp_path: Path) -> None:
    folder = kaggle(tmp_path / "d")
    (folder / "Test.csv").unlink()
    train = read(folder)
    assert train.splits is None
    assert len(train) == 8
    assert codes(train) == ["table-missing"]
    table = read(folder / "Train.csv")
    assert len(set(table.groups.tolist())) == 4  # type: ignore[union-attr]
    assert sorted(column(table, "label")) == sorted(column(train, "label"))


def test_the_test_sample(shared_data: Path) -> None:
    dataset = read(shared_data / "gtsrb_test_sample_32px.tar")
    assert len(dataset) == 430
    assert dataset.classes == tuple(map(str, range(43)))
    assert dataset.row(0).label == "20"
    assert bytes(dataset.read(0))[:2] == b"P6"


@pytest.mark.real
def test_the_training_set_as_distributed(shared_data: Path) -> None:
    dataset = read(shared_data / "gtsrb_train_32px.tar.xz")
    assert len(dataset) == 39_209
    assert dataset.classes == tuple(map(str, range(43)))
    assert dataset.groups is not None
    sizes = np.bincount(dataset.groups)
    assert len(sizes) == 1307
    assert np.median(sizes) == 30
    assert {dataset.classes[label] for label in dataset.labels[dataset.groups == dataset.groups[-1]]} == {"42"}
