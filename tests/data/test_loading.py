"""Rows become pixels in order; refused images are listed, never replaced."""

from __future__ import annotations

import io
import tarfile
import threading
import time
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossroads.data import _pool, loading
from crossroads.data.dataset import Dataset, digest_of
from crossroads.data.images import load
from crossroads.data.loading import digests_of, load_all, median_side, require_readable, sample_notes, stream, stream_pictures
from crossroads.errors import DataError, ImageRefused
from refusals import refused


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pool, "usable_processors", lambda most: 4)


class Memory:
    """Images in a list; an entry that is an exception is raised. Records which images were read."""

    def __init__(self, items: Sequence[object], pause: float = 0) -> None:
        self.items, self.pause = items, pause
        self.reads: list[int] = []
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return f"image{index}.png"

    def read(self, index: int) -> bytes | np.ndarray:
        with self.lock:
            self.reads.append(index)
        time.sleep(self.pause * (index % 3))
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def dataset(items: Sequence[object], pause: float = 0) -> Dataset:
    n = len(items)
    return Dataset("memory", Memory(items, pause), np.arange(n), np.zeros(n, np.int32), ("a",))


def png(value: int, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_rows_keep_their_order_and_each_is_read_once() -> None:
    data = dataset([png(i % 256) for i in range(300)], pause=0.0001)
    seen: list[tuple[int, int]] = []
    loaded = load_all(data, 8, progress=lambda done, total: seen.append((done, total)))
    assert loaded.pixels.shape == (300, 8, 8, 3)
    assert loaded.pixels[:, 0, 0, 0].tolist() == [i % 256 for i in range(300)]
    assert sorted(data.images.reads) == list(range(300))
    assert seen == [(0, 300), (64, 300), (128, 300), (192, 300), (256, 300), (300, 300)]
    assert loaded.refusals == ()
    assert len(loaded.dataset) == 300


def test_digests_are_of_the_bytes_that_were_read() -> None:
    items = [png(1), np.full((8, 8, 3), 5, np.uint8), png(1)]
    loaded = load_all(dataset(items), 8)
    assert [row.tobytes() for row in loaded.digests] == [digest_of(item) for item in items]
    assert loaded.digests[0].tobytes() == loaded.digests[2].tobytes()


def test_arrays_and_files_become_the_same_pixels() -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 12, 3), np.uint8)
    loaded = load_all(dataset([array, array[..., 0], np.repeat(array[:12], 1, 0)]), 12)
    np.testing.assert_array_equal(loaded.pixels[0], load(array, 12))
    np.testing.assert_array_equal(loaded.pixels[1], load(array[..., 0], 12))
    np.testing.assert_array_equal(loaded.pixels[2], array[:12])


def test_refusals_are_listed_and_the_rest_keeps_its_order() -> None:
    items: list[object] = [png(i) for i in range(200)]
    items[0], items[70], items[71], items[199] = b"", b"text", FileNotFoundError(2, "No such file or directory"), png(3)[:40]
    loaded = load_all(dataset(items), 8)
    assert [refusal.row for refusal in loaded.refusals] == [0, 70, 71, 199]
    assert loaded.refusals[1].name == "image70.png"
    assert "not an image" in loaded.refusals[1].reason
    assert "No such file or directory" in loaded.refusals[2].reason
    kept = [i for i in range(200) if i not in (0, 70, 71, 199)]
    assert loaded.pixels[:, 0, 0, 0].tolist() == kept
    assert loaded.dataset.indices.tolist() == kept
    assert [row.tobytes() for row in loaded.digests] == [digest_of(items[i]) for i in kept]


def test_strict_makes_the_first_refusal_in_row_order_an_error() -> None:
    items: list[object] = [png(0)] * 300
    items[100], items[250] = b"one", b"two"
    with refused("image-refused", DataError, field="strict") as caught:
        load_all(dataset(items, pause=0.0001), 8, strict=True)
    assert caught.value.rule.startswith("image100.png: ")


def test_nothing_readable_is_an_error_even_without_strict() -> None:
    for items in ([b"x", b"y", b"z"], []):
        with refused("no-readable-image", DataError):
            load_all(dataset(items), 8)


def test_a_programming_error_is_not_taken_for_a_bad_image() -> None:
    with pytest.raises(ZeroDivisionError):
        load_all(dataset([png(0), ZeroDivisionError("a bug")]), 8)


def test_stream_gives_pixels_or_refusals_in_row_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CHUNK", 3)
    items: list[object] = [png(i) for i in range(20)]
    items[5] = b"text"
    got = list(stream(dataset(items, pause=0.001), 8))
    assert [found.row for found in got] == list(range(20))
    assert isinstance(got[5].image, ImageRefused)
    assert got[5].digest == b""
    rest = [found for found in got if found.row != 5]
    assert [int(found.image[0, 0, 0]) for found in rest] == [found.row for found in rest]
    assert [found.digest for found in rest] == [digest_of(png(found.row)) for found in rest]
    assert list(stream(dataset([]), 8)) == []


def test_stream_reads_only_a_little_ahead_and_stops_when_left() -> None:
    data = dataset([png(1)] * 1000)
    rows = stream(data, 8, chunk=4)
    for _ in range(40):
        next(rows)
    assert len(data.images.reads) <= 40 + 2 * 4 * 4 + 4
    rows.close()
    ended = len(data.images.reads)
    time.sleep(0.02)
    assert len(data.images.reads) == ended < 100


def test_the_median_side_comes_from_headers_and_skips_unreadable_files() -> None:
    items = [png(0, side) for side in (10, 20, 30, 40)] + [b"text"]
    assert median_side(dataset(items), 0) == 25
    cut = png(0, 50)[:60]  # header only: the sample must not decode
    assert median_side(dataset([cut]), 0) == 50
    with refused("no-readable-image", DataError):
        median_side(dataset([b"text"]), 0)


def test_the_sample_for_the_median_side_is_bounded_and_depends_on_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "SIDES", 10)
    items = [png(0, 8 + i) for i in range(100)]
    first, second = dataset(items), dataset(items)
    assert median_side(first, 3) == median_side(second, 3)
    assert len(first.images.reads) == 10
    assert first.images.reads == second.images.reads


def test_real_photographs_load_and_stay_in_order(shared_data: Path) -> None:
    with tarfile.open(shared_data / "ants_bees.tar") as archive:
        members = [m for m in archive.getmembers() if m.isfile() and "/val/" in m.name and m.name.endswith(".jpg")][:40]
        items = [archive.extractfile(member).read() for member in members]
    loaded = load_all(dataset(items), 64)
    assert len(loaded.dataset) + len(loaded.refusals) == 40
    for row, index in enumerate(loaded.dataset.indices):
        np.testing.assert_array_equal(loaded.pixels[row], load(items[index], 64))
    assert loaded.pixels.std() > 40


def test_pixels_that_exceed_the_memory_limit_are_kept_in_a_file(tmp_path: Path) -> None:
    items: list[object] = [png(i) for i in range(20)]
    items[3] = b"text"
    kept, spilt = (load_all(dataset(items), 8, spill=tmp_path / "pixels", in_memory=limit) for limit in (10**9, 1000))
    assert (tmp_path / "pixels").stat().st_size == 20 * 8 * 8 * 3
    assert not isinstance(kept.pixels, np.memmap)
    np.testing.assert_array_equal(spilt.pixels, kept.pixels)
    assert len(spilt.pixels) == 19


def test_pixels_that_fit_neither_in_memory_nor_on_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=10))
    with refused("pixels-too-large", DataError):
        load_all(dataset([png(0), png(1)]), 8, spill=tmp_path / "pixels", in_memory=10)


def test_known_digests_are_not_computed_again() -> None:
    rows = dataset([png(0), png(1), ImageRefused("gone")])
    known = digests_of(rows)
    assert [row.tobytes() for row in known] == [digest_of(png(0)), digest_of(png(1)), bytes(16)]
    unread = Memory([b""] * 3)
    again = replace(rows, images=unread, digests=known).select([1, 0])
    np.testing.assert_array_equal(digests_of(again), known[[1, 0]])
    assert not unread.reads


def grey(top: int, full: int, kind: str = "PNG", **options: object) -> bytes:
    """An encoded grey gradient from 0 to `top` in 8 or 16 bits."""
    buffer = io.BytesIO()
    values = np.linspace(0, top, 24 * 24).round().reshape(24, 24).astype(np.uint16 if full == 65535 else np.uint8)
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("raw", "high", "full"),
    [
        (grey(1023, 65535), 1023, 65535),
        (grey(4095, 65535, "TIFF"), 4095, 65535),
        (grey(16383, 65535, "PPM"), 16383, 65535),
        (grey(1, 255), 1, 255),
        (grey(15, 255, "BMP"), 15, 255),
        (grey(40, 255, "JPEG", quality=95), 40, 255),
    ],
)
def test_files_that_use_only_the_dark_end_of_their_range_are_noted(raw: bytes, high: int, full: int) -> None:
    (note,) = sample_notes(dataset([raw] * 40 + [png(200)] * 10))
    assert note.startswith("memory: ")
    assert note.code == "value-range"
    assert note.figures["full"] == full
    assert note.figures["high"] == pytest.approx(high, abs=2 * (high == 40))


def test_ordinary_files_and_arrays_and_refusals_give_no_note() -> None:
    dark = np.arange(16, dtype=np.uint8).reshape(4, 4)  # arrays are checked by their reader
    items = [grey(255, 255), grey(60000, 65535), dark, dark, dark, b"junk", OSError(5, "gone"), png(0)]
    assert sample_notes(dataset(items)) == ()
    assert sample_notes(dataset([])) == ()


def test_only_a_bounded_sample_is_decoded() -> None:
    data = dataset([grey(9, 255)] * 500)
    (note,) = sample_notes(data)
    assert len(data.images.reads) == note.figures["sampled"] <= 32


def test_unread_frames_are_noted() -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png(200))).save(buffer, "TIFF", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    (note,) = sample_notes(dataset([buffer.getvalue()] * 3 + [png(200)] * 4))
    assert (note.code, note.figures) == ("frames-ignored", {"files": 3, "sampled": 7})


def test_each_class_needs_one_readable_header() -> None:
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(90)
    data = replace(dataset([png(1), heic, heic, png(2), heic]), labels=np.array([0, 1, 1, 1, 0], np.int32), classes=("a", "b", "c"))
    require_readable(data)  # classes without rows do not count
    assert len(data.images.reads) <= 5
    with refused("unreadable-class", DataError):
        require_readable(data.select([0, 1, 2]))


def test_pictures_come_in_order_whatever_their_kinds(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(7))
    pictures = [png(3), tmp_path / "a.png", b"junk", np.full((4, 4, 3), 9, np.uint8), str(tmp_path / "gone.png")] * 9
    results = list(stream_pictures(iter(pictures), 4))
    assert [result.row for result in results] == list(range(45))
    kinds = [int(result.image[0, 0, 0]) if isinstance(result.image, np.ndarray) else None for result in results]
    assert kinds == [3, 7, None, 9, None] * 9


def test_an_endless_iterator_of_pictures_is_read_only_a_little_ahead() -> None:
    taken = 0

    def endless():  # type: ignore[no-untyped-def]
        nonlocal taken
        while True:
            taken += 1
            yield np.zeros((4, 4), np.uint8)

    found = stream_pictures(endless(), 4)
    for _ in range(100):
        next(found)
    found.close()  # type: ignore[attr-defined]
    assert taken < 200
