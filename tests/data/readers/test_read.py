"""`read`: a folder and every archive of it give the same data set, and class names are applied."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import archive, facts, png, write

from crossroads.data.readers import read
from crossroads.errors import DataError

components = (
    st.text(alphabet="ab01 é_-", min_size=1, max_size=6).map(str.strip).filter(lambda name: name not in ("", "train", "test"))
)


@given(
    wrap=st.lists(components, max_size=2),
    files=st.sets(st.tuples(st.sampled_from(["", "train", "val", "test"]), components, components), min_size=1, max_size=8),
    splits=st.booleans(),
    kind=st.sampled_from(["zip", "tar", "tar.gz", "tar.xz"]),
)
@settings(max_examples=25, deadline=None)
def test_a_folder_and_its_archive_are_the_same(wrap: list[str], files: set[tuple[str, str, str]], splits: bool, kind: str) -> None:
    files |= {(split, "k", "1") for split, _, _ in {*files, ("train", "", "")}}  # splits without a class in common are refused
    names = {"/".join([*wrap, *([split or "train"] if splits else []), label, f"{stem}.png"]) for split, label, stem in files}
    with tempfile.TemporaryDirectory() as place:
        folder = write(Path(place) / "d", dict.fromkeys(sorted(names), png(0)))
        loose = read(folder)
        assert facts(read(archive(folder, kind))) == facts(loose)
        assert len(loose) == len(names)
        assert loose.classes == tuple(dict.fromkeys(loose.classes))
        assert {row.label for row in map(loose.row, range(len(loose)))} == set(loose.classes)
        assert (loose.splits is not None) == splits


def test_class_names_from_a_file_a_mapping_or_a_list(tmp_path: Path) -> None:
    write(tmp_path / "d", ["0/1.png", "1/1.png", "1/2.png"])
    (tmp_path / "names.csv").write_text("ClassId,SignName\n0,Yield\n1,Stop\n")
    for names in (tmp_path / "names.csv", str(tmp_path / "names.csv"), {0: "Yield", 1: "Stop"}, ["Yield", "Stop"]):
        dataset = read(tmp_path / "d", class_names=names)
        assert dataset.classes == ("Yield", "Stop")
        assert dataset.row(2).label == "Stop"


def test_class_names_must_cover_the_labels() -> None:
    with pytest.raises(DataError, match="label '5'"):
        read((np.zeros((2, 4, 4), np.uint8), [1, 5]), class_names=["a", "b", "c", "d", "e"])


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.xz"])
def test_arrays_and_pickles_inside_archives(kind: str, tmp_path: Path) -> None:
    pixels, labels = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3), np.array([3, 1])
    for make in ("npz", "npy", "pickle"):
        folder = tmp_path / make
        (folder / "wrapped").mkdir(parents=True)
        if make == "npz":
            np.savez_compressed(folder / "wrapped" / "a.npz", features=pixels, labels=labels)
        elif make == "npy":
            np.save(folder / "wrapped" / "X.npy", pixels)
            np.save(folder / "wrapped" / "y.npy", labels)
        else:
            (folder / "wrapped" / "a.p").write_bytes(pickle.dumps({"features": pixels, "labels": labels}))
        dataset = read(archive(folder, kind))
        assert dataset.classes == ("1", "3")
        assert np.array_equal(np.asarray(dataset.read(1)), pixels[1])
        assert facts(dataset) == facts(read(folder))


def test_an_npz_is_recognised_without_its_suffix(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 4), np.uint8), y=[0, 1])
    (tmp_path / "a.npz").rename(tmp_path / "a.zip")
    assert read(tmp_path / "a.zip").classes == ("0", "1")
