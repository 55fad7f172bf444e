"""Covers extraction: cached features equal recomputed ones, each image is computed once, and an interruption loses little."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counted import Counted
from crossroads.data.dataset import digest_of
from crossroads.data.images import Resize, load
from crossroads.data.loading import digests_of
from crossroads.data.partition import load_and_split
from crossroads.data.readers import read
from crossroads.errors import DataError, FeatureError
from crossroads.features import extract as extract_module
from crossroads.features.cache import Cache, Key
from crossroads.features.extract import extract
from crossroads.features.views import view
from crossroads.progress import Silent
from crossroads.recipe import Augmentation, Recipe
from pictures import folder_of, stripes
from refusals import refused

SIZE = 6
AUGMENTATION = Augmentation(shift=0.2, rotation=20, flip=True)


class Sums:
    """An engine that returns distinct features for each image, and counts the images."""

    def __init__(self):
        self.images = 0

    def stream(self, chunks):
        for chunk in chunks:
            self.images += len(chunk)
            for part in np.array_split(chunk, 3):  # other sizes than the chunks
                yield sums(part)


def sums(images):
    weights = np.random.default_rng(0).integers(-9, 9, (SIZE * SIZE * 3, 4))  # integers, so that sums are exact in any order
    return (images.reshape(len(images), SIZE * SIZE * 3) @ weights).astype(np.float32)


def store_in(cache, augmentation=None):
    return cache.store(Key("w", "x", Resize(SIZE), "c", "none", augmentation, "float32", "computed by tests"), (4,))


def run(dataset, folder, engine=None, *, limit=10**9, augmentation=None, **options):
    cache = Cache(folder, limit)
    engine = engine or Sums()
    found = extract(
        dataset,
        resize=Resize(SIZE),
        engine=lambda: engine,
        cache=cache,
        store=store_in(cache, augmentation),
        augmentation=augmentation,
        **options,
    )
    return found, engine


def no_engine():
    raise AssertionError("no feature is missing")


@pytest.fixture
def dataset(tmp_path):
    return read(folder_of(tmp_path / "data", *stripes(30)))


def recomputed(dataset, views=1, augmentation=None):
    found = []
    for number in range(views):
        for row in range(len(dataset)):
            raw = dataset.read(row)
            found.append(view(load(raw, SIZE), digest_of(raw), number, augmentation))
    return sums(np.stack(found))


@pytest.mark.parametrize(("views", "augmentation"), [(1, None), (3, AUGMENTATION)])
def test_cached_equals_recomputed(tmp_path, dataset, views, augmentation):
    seen = []
    found, engine = run(
        dataset, tmp_path / "c", views=views, augmentation=augmentation, progress=lambda done, n: seen.append((done, n))
    )
    expected = recomputed(dataset, views, augmentation)
    np.testing.assert_array_equal(found.features[:], expected)
    assert found.digests.tolist() == [list(digest_of(dataset.read(row))) for row in range(30)]
    assert engine.images == found.computed == 30 * views
    assert seen[-1] == (30, 30)
    cache = Cache(tmp_path / "c")
    again = extract(
        dataset,
        resize=Resize(SIZE),
        engine=no_engine,
        cache=cache,
        store=store_in(cache, augmentation),
        views=views,
        augmentation=augmentation,
    )
    assert again.computed == 0
    np.testing.assert_array_equal(again.features[:], expected)


@settings(max_examples=15, deadline=None)
@given(parts=st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=8), min_size=1, max_size=4))
def test_features_are_right_whatever_was_extracted_before(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("any")
    whole = read(folder_of(folder / "data", *stripes(12)))
    expected = recomputed(whole)
    known = set()
    for rows in parts:
        found, engine = run(whole.select(rows), folder / "c")
        np.testing.assert_array_equal(found.features[:], expected[rows])
        assert engine.images == len(set(rows) - known)
        known |= set(rows)


class Unreadable:
    """Images that fail the test when they are read."""

    def __len__(self):
        return 30

    def name(self, index):
        return str(index)

    def read(self, index):
        raise AssertionError(f"image {index} was read")


def test_images_with_known_digests_and_cached_features_are_not_read(tmp_path, dataset):
    first, _ = run(dataset, tmp_path / "cache")
    known = replace(dataset, images=Unreadable(), digests=digests_of(dataset))
    again, engine = run(known, tmp_path / "cache")
    assert engine.images == again.computed == 0
    assert np.array_equal(again.features[:], first.features[:])
    assert np.array_equal(again.digests, first.digests)
    forgotten = replace(dataset, digests=None)
    assert np.array_equal(forgotten.known_digests(), first.digests), "the first extraction has read each image"
    augmented, engine = run(replace(known, images=dataset.images), tmp_path / "cache", augmentation=AUGMENTATION, views=2)
    assert augmented.computed == 60


def test_a_run_reads_each_file_once_and_copies_twice(tmp_path):
    data = read(folder_of(tmp_path / "data", *stripes(40, size=64), suffix="bmp"))
    copies = sorted((tmp_path / "data" / "level").iterdir())[:2]
    copies[1].write_bytes(copies[0].read_bytes())
    images = Counted(data.images)
    parts = load_and_split(replace(data, images=images), None, Recipe(validation=0.2, test_fraction=0.2), Silent())
    assert images.full == {0: 1, 1: 1}
    used = np.concatenate([part.indices for part in (parts.train, parts.validation)]).tolist()
    for part in (parts.train, parts.validation):
        run(part, tmp_path / "cache")
    once = dict.fromkeys(used, 1) | {0: 1, 1: 1}
    assert images.full == {index: once[index] + (index in (0, 1) and index in used) for index in once}
    before = images.full.copy()
    for part in (parts.train, parts.validation):
        found, _ = run(part, tmp_path / "cache")
        assert found.computed == 0
    assert images.full == before


def test_an_image_without_a_digest_is_read_again_and_refused(tmp_path):
    images, labels = stripes(4)
    folder = folder_of(tmp_path / "data", images, labels)
    run(read(folder), tmp_path / "cache")
    gone = read(folder)
    next(folder.rglob("*.png")).unlink()
    assert digests_of(gone).any(axis=1).sum() == 3
    again, _ = run(gone, tmp_path / "cache")
    assert (len(again.dataset), len(again.refusals)) == (3, 1)


def test_only_missing_views_are_computed(tmp_path, dataset):
    run(dataset, tmp_path / "c", views=2, augmentation=AUGMENTATION)
    found, engine = run(dataset, tmp_path / "c", views=3, augmentation=AUGMENTATION)
    assert engine.images == 30
    np.testing.assert_array_equal(found.features[:], recomputed(dataset, 3, AUGMENTATION))


def test_copies_of_an_image_are_computed_once(tmp_path, monkeypatch):
    """Written features are found in the store, so memory holds the digests of a few pending images only."""
    images, labels = stripes(40, size=SIZE)
    many = np.tile(images, (10, 1, 1, 1)), np.tile(labels, 10)
    monkeypatch.setattr(extract_module, "CHUNK", 8)
    monkeypatch.setattr(extract_module, "WRITE_BYTES", 1)  # every batch of features is written
    pending, claims = [], extract_module._Reading._claims

    def counted(self, read, number):
        claimed = claims(self, read, number)
        pending.append(len(self._pending))
        return claimed

    monkeypatch.setattr(extract_module._Reading, "_claims", counted)
    found, engine = run(read(many), tmp_path / "c", workers=1)
    assert engine.images == found.computed == 40
    assert len(store_in(Cache(tmp_path / "c"))) == 40
    assert max(pending) <= 3 * 8
    np.testing.assert_array_equal(found.features[:][:40], found.features[:][-40:])


def test_refused_images_are_listed(tmp_path):
    data = folder_of(tmp_path / "data", *stripes(6))
    (data / "level" / "0002.png").write_bytes(b"no image")
    dataset = read(data)
    found, _ = run(dataset, tmp_path / "c")
    assert [refusal.name.endswith("0002.png") for refusal in found.refusals] == [True]
    assert len(found.dataset) == len(found.features) == len(found.digests) == 5
    with pytest.raises(DataError, match=r"0002\.png"):
        run(dataset, tmp_path / "other", strict=True)
    row = found.refusals[0].row
    with pytest.raises(DataError):
        run(dataset.select([row]), tmp_path / "c")
    with refused("no-images", DataError):
        run(dataset.select([]), tmp_path / "c")


def test_too_many_features_are_refused_before_any_is_computed(tmp_path, dataset):
    cache = Cache(tmp_path / "c", 500)
    with refused("cache-too-small", FeatureError):
        extract(dataset, resize=Resize(SIZE), engine=no_engine, cache=cache, store=store_in(cache))


def test_cached_features_need_no_room(tmp_path, dataset):
    run(dataset, tmp_path / "c")
    taken = sum(entry.bytes for entry in Cache(tmp_path / "c").info())
    found, engine = run(dataset, tmp_path / "c", limit=taken)
    assert (engine.images, found.computed) == (0, 0)


def test_large_files_are_decoded_a_few_at_a_time(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(extract_module, "RAW_BYTES", 1)
    found, _ = run(dataset, tmp_path / "c")
    np.testing.assert_array_equal(found.features[:], recomputed(dataset))


def test_an_error_of_the_engine_keeps_the_features_written_so_far(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(extract_module, "WRITE_BYTES", 1)
    monkeypatch.setattr(extract_module, "CHUNK", 4)

    class Breaks(Sums):
        def stream(self, chunks):
            for number, values in enumerate(super().stream(chunks)):
                if number == 6:
                    raise KeyboardInterrupt
                yield values

    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path / "c", Breaks())
    found, engine = run(dataset, tmp_path / "c")
    assert engine.images == 22
    np.testing.assert_array_equal(found.features[:], recomputed(dataset))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_an_extraction_resumes_after_a_kill(tmp_path, dataset):
    code = f"""
import os, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
from pathlib import Path
from test_extract import Sums, extract_module, read, run
extract_module.WRITE_BYTES, extract_module.CHUNK = 1, 4
class Killed(Sums):
    def stream(self, chunks):
        for number, values in enumerate(super().stream(chunks)):
            if number == 8:
                os.kill(os.getpid(), {int(signal.SIGKILL)})
            yield values
run(read(Path({str(tmp_path / "data")!r})), Path({str(tmp_path / "c")!r}), Killed())
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    found, engine = run(dataset, tmp_path / "c")
    assert 0 < engine.images < 30
    np.testing.assert_array_equal(found.features[:], recomputed(dataset))


def test_the_resize_mode_is_applied(tmp_path):
    wide = np.zeros((SIZE, 3 * SIZE, 3), np.uint8)
    wide[:, SIZE : 2 * SIZE] = 200  # only the middle is bright
    dataset = read((np.stack([wide, wide // 2]), ["bright", "dim"]))
    cache = Cache(tmp_path / "c")
    for mode, bright in (("squash", False), ("crop", True)):
        resize = Resize(SIZE, mode, crop_fraction=0.875 if mode == "crop" else 1)
        key = Key("sums", "none", resize, "end", "none", None, "float32", "computed by tests")
        engine = Sums()
        found = extract(dataset, resize=resize, engine=lambda engine=engine: engine, cache=cache, store=cache.store(key, (4,)))
        full = sums(np.full((1, SIZE, SIZE, 3), 200, np.uint8))[0]
        assert np.allclose(found.features[0], full) is bright


def test_memory_grows_by_no_more_than_is_documented_for_each_image(tmp_path, monkeypatch):
    monkeypatch.setattr(extract_module, "WRITE_ROWS", 256)
    peaks = []
    for count in (1_000, 4_000, 16_000):  # the first one also loads modules
        images = np.zeros((count, SIZE, SIZE, 3), np.uint8)
        images.reshape(count, -1)[:, :4] = np.arange(count, dtype="<u4")[:, None].view(np.uint8)
        data = read((images, np.arange(count) % 2))
        tracemalloc.start()
        found, _ = run(data, tmp_path / f"{count}", workers=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.computed == count
    assert (peaks[2] - peaks[1]) / 12_000 < 170


def test_rows_of_few_bytes_are_written_before_too_many_wait(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(extract_module, "WRITE_ROWS", 10)
    sizes, append = [], extract_module.Store.append

    def counted(self, digests, views, values):
        sizes.append(len(values))
        append(self, digests, views, values)

    monkeypatch.setattr(extract_module.Store, "append", counted)
    run(dataset, tmp_path / "c")
    assert sizes == [10, 10, 10]


def test_the_same_reason_of_many_refusals_is_kept_once(tmp_path):
    data = folder_of(tmp_path / "data", *stripes(6))
    for number in range(50):
        (data / "level" / f"empty{number}.png").touch()
    found, _ = run(read(data), tmp_path / "c")
    assert len(found.refusals) == 50
    assert len({id(refusal.reason) for refusal in found.refusals}) == 1
