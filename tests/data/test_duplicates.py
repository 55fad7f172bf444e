"""Equal images are found although most files are not read; what is read is counted between the data set and its images."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from counted import Counted
from crossroads.data.dataset import Dataset, FileSource
from crossroads.data.duplicates import digests_of_duplicates
from crossroads.data.loading import HEADERS, SIDES, digests_of, dimensions_of, load_all, median_side
from crossroads.data.partition import load_and_split
from crossroads.data.readers import read
from crossroads.data.readers._sources import FileImages, joined
from crossroads.errors import ImageRefused
from crossroads.files.byte_ranges import END
from crossroads.progress import Silent
from crossroads.recipe import Recipe

MIDDLE = 3 * END
"""Bytes of a file that its short digest does not cover in full."""


class Held:
    """Files in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def size(self, name: str) -> int:
        return len(self.files[name])

    def read(self, name: str) -> bytes:
        return self.files[name]

    def head(self, name: str, size: int) -> bytes:
        return self.files[name][:size]

    def short_digest(self, name: str) -> bytes:
        return (self.files[name][:1] + self.files[name][-1:]).ljust(16)


def dataset(images: Any, classes: tuple[str, ...] = ("a",)) -> Dataset:
    n = len(images)
    return Dataset("files", images, np.arange(n), np.arange(n) % len(classes), classes)


def held(contents: list[bytes]) -> Dataset:
    names = [f"{number}.jpg" for number in range(len(contents))]
    return dataset(Counted(FileImages(names, Held(dict(zip(names, contents, strict=True))))))


def picture(number: int, side: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)).save(buffer, "BMP")
    return buffer.getvalue()


def equal_pairs(digests: np.ndarray) -> set[tuple[int, int]]:
    known = [digest.tobytes() for digest in digests]
    return {(a, b) for a in range(len(known)) for b in range(a) if known[a] == known[b] and any(known[a])}


@settings(max_examples=100, deadline=None)
@given(contents=st.lists(st.text("ab", min_size=1, max_size=4), max_size=12))
def test_exactly_the_equal_files_have_equal_digests(contents: list[str]) -> None:
    data = held([content.encode() for content in contents])
    found = digests_of_duplicates(data)
    assert equal_pairs(found) == {(a, b) for a in range(len(contents)) for b in range(a) if contents[a] == contents[b]}
    full = digests_of(replace(data, images=data.images.images))
    assert all(digest.tobytes() in (bytes(16), whole.tobytes()) for digest, whole in zip(found, full, strict=True))


def test_only_files_that_agree_in_size_and_ends_are_read_in_full() -> None:
    data = held([b"alone in size", b"a---z", b"b---z", b"a-+-z", b"c---z", b"a---z"])
    found = digests_of_duplicates(data)
    assert data.images.full == {1: 1, 3: 1, 5: 1}
    assert data.images.parts == {1: 1, 2: 1, 3: 1, 4: 1, 5: 1}
    assert equal_pairs(found) == {(5, 1)}  # row 3 has the same size and ends, and another middle
    assert digests_of(data)[[1, 3, 5]].tolist() == found[[1, 3, 5]].tolist()
    assert data.images.full == dict.fromkeys(range(6), 1), "a digest that is known is not computed again"


@pytest.mark.parametrize("kind", ["folder", "tar", "zip", "stored", "paths"])
def test_every_kind_of_file_is_compared(kind: str, tmp_path: Path, pack: Callable[[str, dict[str, bytes]], object]) -> None:
    whole = picture(0)
    assert len(whole) > MIDDLE
    other_middle = whole[: MIDDLE // 2] + b"?" + whole[MIDDLE // 2 + 1 :]
    files = {f"{label}/{number}.bmp": picture(number * 2 + (label == "b") + 1) for label in "ab" for number in range(9)}
    files |= {"a/20.bmp": whole, "a/21.bmp": other_middle, "b/20.bmp": whole, "b/21.bmp": picture(99, side=41)}
    data = read(pack(kind, files))
    data = replace(data, images=Counted(data.images))
    assert isinstance(data.images, FileSource)
    found = digests_of_duplicates(data)
    names = [data.name(row) for row in range(len(data))]
    expected = {tuple(sorted((names.index(a), names.index(b)), reverse=True)) for a, b in [named(kind, "a/20", "b/20", tmp_path)]}
    assert equal_pairs(found) == expected
    assert len(data.images.full) == (2 if kind in ("zip", "stored") else 3)  # a CRC tells middles apart
    assert set(data.images.full.values()) == {1}


def named(kind: str, first: str, second: str, folder: Path) -> tuple[str, str]:
    prefix = f"{folder}/" if kind == "paths" else ""
    return f"{prefix}{first}.bmp", f"{prefix}{second}.bmp"


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[str, dict[str, bytes]], object]:
    def packed(kind: str, files: dict[str, bytes]) -> object:
        if kind in ("zip", "stored"):
            with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED if kind == "zip" else zipfile.ZIP_STORED) as to:
                for name, raw in files.items():
                    to.writestr(name, raw)
            return tmp_path / "set.zip"
        for name, raw in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(raw)
        if kind == "tar":
            import tarfile

            with tarfile.open(tmp_path / "set.tar", "w") as to:
                for label in "ab":
                    to.add(tmp_path / label, label)
            return tmp_path / "set.tar"
        paths = [tmp_path / name for name in files]
        return (paths, [path.parent.name for path in paths]) if kind == "paths" else tmp_path

    return packed


def test_images_without_a_size_are_compared_by_their_digests() -> None:
    arrays = np.zeros((4, 5, 5, 3), np.uint8)
    arrays[2] += 1
    data = read((arrays, ["a", "b", "a", "b"]))
    assert equal_pairs(digests_of_duplicates(data)) == {(1, 0), (3, 0), (3, 1)}
    files = FileImages(["x.jpg", "y.jpg"], Held({"x.jpg": b"x", "y.jpg": b"y"}))
    mixed = dataset(joined([data.images, files]))
    assert equal_pairs(digests_of_duplicates(mixed)) == {(1, 0), (3, 0), (3, 1)}


def test_files_that_cannot_be_read_equal_nothing(tmp_path: Path) -> None:
    for name in ("a/1.bmp", "a/2.bmp", "b/1.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(0))
    data = read(tmp_path)
    (tmp_path / "a/2.bmp").unlink()
    assert equal_pairs(digests_of_duplicates(data)) == {(2, 0)}
    (tmp_path / "a/1.bmp").unlink()
    assert equal_pairs(digests_of_duplicates(data)) == set()


def photos(folder: Path, count: int) -> Dataset:
    """Files of two classes and of different sizes, of which the first of each class is there three times."""
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number:03}.bmp"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(number % 2 if number < 6 else number, side=90) + bytes(0 if number < 6 else number))
    data = read(folder)
    return replace(data, images=Counted(data.images))


def test_a_split_reads_only_copies_in_full_and_keeps_them_together(tmp_path: Path) -> None:
    data = photos(tmp_path, 60)
    assert len(picture(0, side=90)) > HEADERS[0]
    for seed in range(4):
        data.images.full.clear()
        fresh = replace(data, images=Counted(data.images.images))
        parts = load_and_split(fresh, None, Recipe(seed=seed, validation=0.3, test_fraction=0.3), Silent())
        assert fresh.images.full == dict.fromkeys([*range(3), *range(30, 33)], 1)
        assert fresh.images.parts.total() <= 6 + len(parts.train) + 2  # copies, sizes, and one header of each class
        sets = [set(part.indices.tolist()) for part in (parts.train, parts.validation, parts.test.unseal())]
        for copies in ({0, 1, 2}, {30, 31, 32}):
            assert sum(bool(copies & rows) for rows in sets) == 1
        assert parts.median_side == 90


def test_an_image_that_was_decoded_is_not_read_for_its_digest(tmp_path: Path) -> None:
    data = photos(tmp_path, 20)
    first, second = data.select(range(10)), data.select(range(8, 20))
    loaded = load_all(first, 8)
    assert data.images.full == dict.fromkeys(range(10), 1)
    digests = digests_of(second)
    assert data.images.full == dict.fromkeys(range(20), 1)
    assert digests[:2].tolist() == loaded.digests[8:].tolist()
    (tmp_path / "a" / "000.bmp").write_bytes(picture(77, side=90))
    assert load_all(first, 8).digests[0].tolist() != loaded.digests[0].tolist(), "a file that is read again may have changed"
    other = replace(data, images=Counted(data.images.images))
    assert not other.known_digests().any(), "other images are not known"


def test_sizes_come_from_headers(tmp_path: Path) -> None:
    data = photos(tmp_path, 40)
    assert median_side(data, 0) == 90
    assert not data.images.full
    assert data.images.bytes == min(SIDES, 40) * HEADERS[0]


def test_a_header_that_is_far_from_the_beginning_is_found(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "x" * 50_000
    for number, (suffix, options) in enumerate([("jpg", {"exif": exif, "quality": 100}), ("webp", {"lossless": True})]):
        (tmp_path / f"{number}").mkdir()
        noise.save(tmp_path / f"{number}" / f"a.{suffix}", **options)
    data = read(tmp_path)
    data = replace(data, images=Counted(data.images))
    assert dimensions_of(data, 0) == (200, 300)
    assert (data.images.full, data.images.parts) == ({}, {0: 2})
    assert dimensions_of(data, 1) == (300, 200)
    assert data.images.full == {1: 1}
    (tmp_path / "1" / "a.webp").unlink()
    with pytest.raises(ImageRefused):
        dimensions_of(data, 1)
