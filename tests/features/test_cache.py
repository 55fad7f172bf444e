"""Covers the cache: keys, entries, limits, and removal by other processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from crossroads.data.images import Resize
from crossroads.errors import FeatureError
from crossroads.features.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, Cache, Key
from crossroads.recipe import Augmentation
from refusals import refused

KEY = Key("abc", "small-cnn", Resize(8), "conv2", "average", None, "float32", "float32")


def fill(store, n, seed=0):
    digests = np.random.default_rng(seed).integers(0, 256, (n, 16), dtype=np.uint8)
    store.append(digests, np.zeros(n, np.uint32), np.ones((n, *store.shape), np.float32))


def elsewhere(folder, code, limit=10**9):
    """Runs `code` in another process that has its own `cache`."""
    start = f"from pathlib import Path; from crossroads.features.cache import Cache; cache = Cache(Path({str(folder)!r}), {limit})"
    return subprocess.run([sys.executable, "-c", f"{start}\n{code}"], check=True, capture_output=True, text=True).stdout


def abandoned_store(folder, **changes):
    """Creates a store that no living process holds."""
    code = """
import sys; sys.path[:0] = {tests!r}
from test_cache import KEY, fill, replace
fill(cache.store(replace(KEY, **{changes!r}), (100,)), 10)
"""
    elsewhere(folder, code.format(tests=[str(folder) for folder in Path(__file__).parents[:2]], changes=changes))
    return folder / "features" / replace(KEY, **changes).digest


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "abd"},
        {"backbone": "quiz-cnn"},
        {"resize": Resize(9)},
        {"cut": "conv3"},
        {"pooling": "average-4"},
        {"augmentation": Augmentation(shift=0.1)},
        {"dtype": "float16"},
        {"computed_by": "openvino 2026.4"},
    ],
)
def test_each_part_of_the_key_changes_its_digest(change):
    assert replace(KEY, **change).digest != KEY.digest
    assert replace(KEY).digest == KEY.digest


def test_the_key_is_stored_with_the_features(tmp_path):
    store = Cache(tmp_path).store(replace(KEY, computed_by="openvino 2026.4"), (2,))
    facts = json.loads((store.folder / "key.json").read_text(encoding="utf-8"))
    assert (facts["key"]["computed_by"], facts["shape"]) == ("openvino 2026.4", [2])


def test_info_lists_entries_and_clear_keeps_those_in_use(tmp_path):
    unused = abandoned_store(tmp_path)
    cache = Cache(tmp_path)
    store = cache.store(replace(KEY, cut="conv1"), (2,))
    fill(store, 3)
    newest, oldest = cache.info()
    assert (newest.rows, oldest.rows) == (3, 10)
    assert "small-cnn conv1 8 px" in newest.name
    assert oldest.bytes >= 10 * 100 * 4
    assert cache.clear() == oldest.bytes
    assert not unused.exists()
    assert store.folder.exists()


def test_another_process_cannot_remove_a_store_in_use(tmp_path):
    cache = Cache(tmp_path)
    store = cache.store(KEY, (2,))
    fill(store, 3)
    assert elsewhere(tmp_path, "print(cache.clear())").strip() == "0"
    assert store.folder.exists()


def test_locks_of_ended_processes_are_removed_and_others_stay(tmp_path):
    users = abandoned_store(tmp_path) / "users"
    abandoned_store(tmp_path)
    store = Cache(tmp_path).store(KEY, (100,))
    (mine,) = users.glob("*.lock")
    assert mine.name.startswith(f"{os.getpid()}-")
    abandoned_store(tmp_path)
    assert mine.exists()
    assert elsewhere(tmp_path, "print(cache.clear())").strip() == "0"
    assert (store.folder.exists(), list(users.glob("*.lock"))) == (True, [mine])


def test_an_unfinished_graph_is_removed_only_once_it_is_old(tmp_path):
    cache = Cache(tmp_path)
    young, old = (tmp_path / "graphs" / f".partial-{name}" / "made" for name in ("young", "old"))
    for folder in (young, old):
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(bytes(100))
    os.utime(old.parent, (1, 1))
    assert [entry.folder for entry in cache.info()] == [old.parent]
    assert cache.clear() == 100
    assert (young.exists(), old.parent.exists()) == (True, False)


def test_the_default_limit_is_a_quarter_of_the_available_disk_space(tmp_path, monkeypatch):
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    monkeypatch.setattr("crossroads.features.cache.shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
    assert Cache(tmp_path).limit == 2500
    abandoned_store(tmp_path)
    taken = sum(entry.bytes for entry in Cache(tmp_path).info())
    assert taken > 4000
    assert Cache(tmp_path).limit == (10_000 + taken) // 4


def test_a_store_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "features").write_text("")
    with refused("cache-not-writable", FeatureError):
        Cache(tmp_path).store(KEY, (2,))


def test_the_least_recently_used_entries_make_room(tmp_path):
    old, new = abandoned_store(tmp_path, cut="a"), abandoned_store(tmp_path, cut="b")
    os.utime(old / "key.json", (1, 1))
    os.utime(new / "key.json", (2, 2))
    cache = Cache(tmp_path, limit=3 * 10 * 432)
    store = cache.store(KEY, (100,))
    assert not cache.has_room(store, 12)
    cache.require_room(store, 12)
    assert (old.exists(), new.exists()) == (False, True)


def test_nothing_is_removed_if_the_disk_is_too_small_or_entries_are_in_use(tmp_path, monkeypatch):
    unused = abandoned_store(tmp_path)
    cache = Cache(tmp_path, limit=10_000)
    store = cache.store(KEY, (100,))
    other = cache.store(replace(KEY, cut="other"), (100,))
    (other.folder / "rows").write_bytes(bytes(7_000))  # of this process, which uses it
    with refused("cache-in-use", FeatureError):
        cache.require_room(store, 12)
    assert unused.exists()
    monkeypatch.setattr("crossroads.features.cache.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with refused("no-disk-space", FeatureError):
        Cache(tmp_path, limit=10**9).require_room(store, 1000)
    assert unused.exists()


def test_a_process_holds_a_store_by_one_lock(tmp_path):
    cache = Cache(tmp_path)
    for _ in range(5):
        store = cache.store(KEY, (100,))
    assert len(list((store.folder / "users").glob("*.lock"))) == 1
    assert cache.clear() == 0
    shutil.rmtree(store.folder)  # by the user
    assert len(list((cache.store(KEY, (100,)).folder / "users").glob("*.lock"))) == 1


def test_features_larger_than_the_limit_are_refused_and_nothing_is_removed(tmp_path):
    unused = abandoned_store(tmp_path)
    cache = Cache(tmp_path, limit=10_000)
    with refused("cache-too-small", FeatureError):
        cache.require_room(cache.store(KEY, (100,)), 1000)
    assert unused.exists()


def test_folder_and_limit_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "here"))
    monkeypatch.setenv(LIMIT_VARIABLE, "2e6")
    cache = Cache()
    assert (cache.folder, cache.limit) == (tmp_path / "here", 2_000_000)
    monkeypatch.setenv(LIMIT_VARIABLE, "plenty")
    with refused("cache-limit-invalid", FeatureError, received="'plenty'"):
        Cache()
    monkeypatch.delenv(LIMIT_VARIABLE)
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME" if os.name != "nt" else "LOCALAPPDATA", str(tmp_path / "user"))
    assert Cache().folder == tmp_path / "user" / "crossroads"


def test_a_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with refused("cache-not-writable", FeatureError):
        Cache(tmp_path / "file" / "cache")
