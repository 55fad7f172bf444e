"""Class folders and split folders, wrapped or not, loose or packed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from making import archive, codes, facts, figures, write

from crossroads.artifact import MANIFEST
from crossroads.data.dataset import SPLITS
from crossroads.data.readers import ARTIFACT, READERS, read
from crossroads.errors import DataError, ImageRefused
from refusals import refused

KINDS = ("folder", "zip", "tar", "tar.gz", "tar.xz")


def source(folder: Path, kind: str) -> Path:
    return folder if kind == "folder" else archive(folder, kind)


def rows(path: Path) -> list[tuple[str, str, str]]:
    dataset = read(path)
    return [(row.source, row.label, row.split) for row in map(dataset.row, range(len(dataset)))]


@pytest.mark.parametrize("kind", KINDS)
def test_class_folders(kind: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", ["10/1.png", "2/2.jpg", "2/10.JPG", "2/3.ppm", ".DS_Store", "__MACOSX/2/._2.jpg", "2/Thumbs.db"])
    assert rows(source(folder, kind)) == [("2/2.jpg", "2", ""), ("2/3.ppm", "2", ""), ("2/10.JPG", "2", ""), ("10/1.png", "10", "")]
    assert read(source(folder, kind)).classes == ("2", "10")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "Valid", "TESTING"), ("train", "validation", "test")])
def test_split_folders(kind: str, words: tuple[str, str, str], tmp_path: Path) -> None:
    train, validation, test = words
    names = [f"{train}/a/1.png", f"{train}/b/1.png", f"{validation}/b/2.png", f"{test}/a/3.png", f"{test}/c/3.png"]
    dataset = read(source(write(tmp_path / "d", names), kind))
    assert dataset.classes == ("a", "b", "c")
    rows = {(row.source, row.label, row.split) for row in map(dataset.row, range(len(dataset)))}
    assert rows == {
        (name, name.split("/")[1], split)
        for name, split in zip(names, ["train", "train", "validation", "test", "test"], strict=True)
    }
    assert figures(dataset, "class-missing-in-split") == [
        {"split": "train", "classes": ["c"]},
        {"split": "validation", "classes": ["a", "c"]},
        {"split": "test", "classes": ["b"]},
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrap", ["photos/", "a/b/c/"])
def test_wrapping_folders_are_taken_off(kind: str, wrap: str, tmp_path: Path) -> None:
    names = [
        f"{wrap}{name}" for name in ("train/ants/1.png", "train/bees/2.png", "val/ants/3.png", "README.md", "train/README.txt")
    ]
    dataset = read(source(write(tmp_path / "d", dict.fromkeys(names) | {names[3]: "", names[4]: "", "LICENSE": ""}), kind))
    assert dataset.classes == ("ants", "bees")
    assert dataset.name(0) == names[0], "a message names the file as it is in the tree"
    assert [SPLITS[split] for split in dataset.splits] == ["train", "train", "validation"]  # type: ignore[union-attr]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert [row[1:] for row in rows(write(tmp_path, ["bus/1.png", "car/1.png", "train/1.png"]))] == [
        ("bus", ""),
        ("car", ""),
        ("train", ""),
    ]


def test_what_is_ignored_beside_classes_is_noted(tmp_path: Path) -> None:
    names = dict.fromkeys(["a/1.png", "b/deep/2.png", "loose.png", "empty/"]) | {
        "a/notes.txt": "x",
        "b/list.xml": "x",
        "texts/x.txt": "x",
    }
    dataset = read(write(tmp_path, names))
    assert len(dataset) == 2
    assert dataset.row(1).label == "b"
    assert dataset.notes == (
        "1 image outside the class folders was ignored",
        "1 image in subfolder 'deep' of class folders was counted as images of the class",
        "folders 'empty', 'texts' have no images and are not classes",
        "3 files are left out because they are not images: 2 .txt, 1 .xml; the first is a/notes.txt",
    ), "the wording of these notes is what a user reads"
    assert codes(dataset) == ["images-outside-folders", "images-in-subfolders", "empty-folders", "files-ignored"]
    assert figures(dataset, "files-ignored") == [{"count": 3, "suffixes": {".txt": 2, ".xml": 1}, "example": "a/notes.txt"}]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
@pytest.mark.parametrize("inner", ["", "trip/photos/", "train/"])
def test_files_that_are_not_images_are_counted_by_suffix_once(inner: str, kind: str, tmp_path: Path) -> None:
    photos = [f"{inner}{name}/IMG_{number}.HEIC" for name in ("cat", "dog") for number in range(4)]
    others = [*(photo.replace("HEIC", "MOV") for photo in photos), *(photo.replace("HEIC", "aae") for photo in photos[:3])]
    others += ["README.txt", "LICENSE"]
    dataset = read(source(write(tmp_path / "d", dict.fromkeys([*photos, *others], "x")), kind))
    assert len(dataset) == len(photos)
    (found,) = figures(dataset, "files-ignored")
    assert found["suffixes"] == {".mov": 8, ".aae": 3, ".txt": 1, "without suffix": 1}
    assert list(found["suffixes"]) == [".mov", ".aae", ".txt", "without suffix"], "the most frequent first"
    assert found["count"] == len(others)


def test_one_file_that_is_not_an_image_is_named(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, {"a/1.png": None, "b/2.png": None, "b/notes.txt": "x"}))  # type: ignore[dict-item]
    assert dataset.notes == ("b/notes.txt is left out: it is not an image",), "the wording of this note is what a user reads"


def test_what_is_ignored_beside_splits_is_noted(tmp_path: Path) -> None:
    names = ["train/a/1.png", "train/b/2.png", "test/3.png", "test/4.png", "more/a/5.png", "train/none/"]
    dataset = read(write(tmp_path, names))
    assert codes(dataset) == ["folder-without-labels", "folder-not-a-split", "empty-folders"]
    assert figures(dataset, "folder-without-labels") == [{"count": 2, "folder": "test"}]
    assert figures(dataset, "empty-folders") == [{"folders": ["none"]}]


def test_copies_of_split_folders_count_once(tmp_path: Path) -> None:
    dataset = read(archive(write(tmp_path / "d", ["Train/a/1.png", "train/a/1.png", "Train/b/2.png", "train/b/2.png"]), "zip"))
    assert len(dataset) == 2
    assert figures(dataset, "copy-ignored") == [{"folder": "train", "original": "Train"}]


def test_one_class_is_read(tmp_path: Path) -> None:
    assert read(write(tmp_path, ["ants/1.png", "ants/2.png"])).classes == ("ants",)


def test_a_file_that_is_gone_is_refused_by_name(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, ["a/1.png", "b/2.png"]))
    (tmp_path / "a" / "1.png").unlink()
    with refused("file-unreadable", ImageRefused):
        dataset.read(0)
    assert dataset.read(1)


def test_an_empty_folder_is_refused_with_the_known_layouts(tmp_path: Path) -> None:
    with refused("no-images", DataError, received="no files") as caught:
        read(tmp_path)
    assert all(reader.layout in str(caught.value.hint) for reader in READERS)


def test_flat_images_without_labels_are_refused(tmp_path: Path) -> None:
    with refused("no-labels", DataError):
        read(write(tmp_path, ["1.png", "2.png"]))


def test_unknown_data_is_refused_with_the_types_of_its_files(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.txt": "", "a/2.txt": "", "b.doc": "", "Makefile": ""})
    with refused("unknown-layout", DataError, received="2 .txt, 1 .doc, 1 without suffix"):
        read(tmp_path)


def test_an_archive_in_a_folder_is_suggested(tmp_path: Path) -> None:
    packed = archive(write(tmp_path / "d", ["a/1.png", "b/2.png"]), "zip")
    with refused("unknown-layout", DataError, hint="give the archive itself: d.zip"):
        read(write(tmp_path / "outer", {"d.zip": packed.read_bytes()}))


def test_one_image_is_no_data_set(tmp_path: Path) -> None:
    with refused("unknown-layout", DataError, received="1 .png"):
        read(write(tmp_path, ["1.png"]) / "1.png")


def test_a_missing_path_is_refused_with_a_similar_one(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with refused("no-such-file", DataError) as caught:
        read(str(tmp_path / "photo"))
    assert "photos" in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["zip", "tar.xz"])
def test_a_packed_folder_reads_as_the_folder(kind: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", ["train/1/1.png", "train/2/1.png", "train/10/1.png", "val/2/2.png", "val/empty/", "val/x.txt"])
    assert facts(read(source(folder, kind))) == facts(read(folder))


def test_ants_and_bees(shared_data: Path) -> None:
    dataset = read(shared_data / "ants_bees.tar")
    assert len(dataset) == 398
    assert dataset.classes == ("ants", "bees")
    assert dataset.splits is not None
    assert np.bincount(dataset.splits).tolist() == [0, 245, 153]
    assert dataset.groups is None
    assert bytes(dataset.read(0))[:2] == b"\xff\xd8"


def test_an_artifact_is_not_taken_for_arrays_of_images(tmp_path: Path) -> None:
    for name in ARTIFACT:
        (tmp_path / name).write_bytes(b"{}")
    np.save(tmp_path / "seen.npy", np.zeros((3, 16), np.uint8))
    with refused("artifact-as-data", DataError):
        read(tmp_path)
    assert ARTIFACT == (MANIFEST, "model.xml")


def test_a_logo_beside_the_only_folder_is_ignored_with_a_note(tmp_path: Path) -> None:
    names = [f"data/{name}/{i}.png" for name in ("ant", "bee") for i in range(6)]
    dataset = read(write(tmp_path, [*names, "logo.svg"]))
    assert (dataset.classes, len(dataset)) == (("ant", "bee"), 12)
    assert figures(dataset, "images-outside-folders") == [{"count": 1}]


def test_captions_are_no_labels(tmp_path: Path) -> None:
    lines = "\n".join(f"{i}.png,a photo of thing {i % 3}" for i in range(9))
    with refused("no-label-column", DataError):
        read(write(tmp_path, {**dict.fromkeys(f"{i}.png" for i in range(9)), "metadata.csv": f"file_name,text\n{lines}\n"}))


@pytest.mark.parametrize("litter", ["assets/logo.svg", "icons/a/favicon.ico", "work/scan.psd", "dumps/0.raw"])
def test_a_folder_of_icons_and_drawings_is_not_a_class(litter: str, tmp_path: Path) -> None:
    for root in ("", "data/"):
        names = [f"{root}{name}/{n}.png" for name in ("oak", "elm") for n in range(3)] + [litter]
        dataset = read(write(tmp_path / f"at {root}", dict.fromkeys(names[:-1]) | {litter: "x"}))  # type: ignore[arg-type]
        assert dataset.classes == ("elm", "oak")
        assert figures(dataset, "artwork-ignored") == [{"count": 1, "folder": litter.split("/")[0]}]


def test_a_folder_of_a_format_of_photographs_stays_a_class(tmp_path: Path) -> None:
    files = {f"oak/{n}.png": "x" for n in range(3)} | {f"elm/{n}.HEIC": "x" for n in range(3)}
    assert read(write(tmp_path, files)).classes == ("elm", "oak")


def test_test_and_control_are_classes(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, [f"{name}/{n}.png" for name in ("test", "control") for n in range(5)]))
    assert dataset.classes == ("control", "test")
    assert figures(dataset, "class-named-like-split") == [{"folder": "test"}]


@pytest.mark.parametrize("sizes", [{"test": 20, "control": 3}, {"test": 5, "cat": 5, "dog": 5}])
def test_a_test_folder_that_may_hold_images_to_predict_is_refused(sizes: dict[str, int], tmp_path: Path) -> None:
    with refused("ambiguous-layout", DataError):
        read(write(tmp_path, [f"{name}/{n}.png" for name, count in sizes.items() for n in range(count)]))
