from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from crossroads.data.images import Resize
from crossroads.errors import FeatureError
from crossroads.features.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, Cache, Key
from crossroads.recipe import Augmentation

KEY = Key("abc", "small-cnn: x / 255", Resize(8), "conv2", "average", None, "float32", "float32")


def fill(store, n, seed=0):
    whose = np.random.default_rng(seed).integers(0, 256, (n, 16), dtype=np.uint8)
    store.append(whose, np.zeros(n, np.uint32), np.ones((n, *store.shape), np.float32))


def elsewhere(folder, code, limit=10**9):
    """Runs `code` in a process of its own with its cache."""
    start = f"from pathlib import Path; from crossroads.features.cache import Cache; cache = Cache(Path({str(folder)!r}), {limit})"
    return subprocess.run([sys.executable, "-c", f"{start}\n{code}"], check=True, capture_output=True, text=True).stdout


def left_by_another(folder, **changes):
    """A store that no living process holds."""
    code = """
import sys; sys.path.insert(0, {tests!r})
from test_cache import KEY, fill, replace
fill(cache.store(replace(KEY, **{changes!r}), (100,)), 10)
"""
    elsewhere(folder, code.format(tests=str(__import__("pathlib").Path(__file__).parent), changes=changes))
    return folder / "features" / replace(KEY, **changes).digest


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "abd"},
        {"preprocessing": "small-cnn: x"},
        {"resize": Resize(9)},
        {"cut": "conv3"},
        {"pooling": "max"},
        {"augmentation": Augmentation(shift=0.1)},
        {"precision": "int8"},
        {"dtype": "float16"},
        {"computed_by": "openvino 2026.4"},
    ],
)
def test_each_part_of_the_key_makes_a_store_of_its_own(change):
    assert replace(KEY, **change).digest != KEY.digest
    assert replace(KEY).digest == KEY.digest


def test_what_computed_the_rows_is_kept_beside_them(tmp_path):
    store = Cache(tmp_path).store(replace(KEY, computed_by="openvino 2026.4"), (2,))
    facts = json.loads((store.folder / "key.json").read_text(encoding="utf-8"))
    assert (facts["key"]["computed_by"], facts["shape"]) == ("openvino 2026.4", [2])


def test_info_tells_what_is_there_and_clear_leaves_what_is_in_use(tmp_path):
    left = left_by_another(tmp_path)
    cache = Cache(tmp_path)
    store = cache.store(replace(KEY, cut="conv1"), (2,))
    fill(store, 3)
    newest, oldest = cache.info()
    assert (newest.rows, oldest.rows) == (3, 10)
    assert "small-cnn conv1 8 px" in newest.name
    assert oldest.bytes >= 10 * 100 * 4
    assert cache.clear() == oldest.bytes
    assert not left.exists()
    assert store.folder.exists()


def test_another_process_cannot_remove_a_store_in_use(tmp_path):
    cache = Cache(tmp_path)
    store = cache.store(KEY, (2,))
    fill(store, 3)
    assert elsewhere(tmp_path, "print(cache.clear())").strip() == "0"
    assert store.folder.exists()


def test_marks_of_users_that_are_gone_are_removed_and_those_of_others_stay(tmp_path):
    users = left_by_another(tmp_path) / "users"
    left_by_another(tmp_path)
    store = Cache(tmp_path).store(KEY, (100,))
    (mine,) = users.glob("*.lock")
    assert mine.name.startswith(f"{os.getpid()}-")
    left_by_another(tmp_path)
    assert mine.exists()
    assert elsewhere(tmp_path, "print(cache.clear())").strip() == "0"
    assert (store.folder.exists(), list(users.glob("*.lock"))) == (True, [mine])


def test_a_graph_in_the_making_is_left_alone_and_what_was_left_over_goes(tmp_path):
    cache = Cache(tmp_path)
    young, old = (tmp_path / "graphs" / f".partial-{name}" / "made" for name in ("young", "old"))
    for folder in (young, old):
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(bytes(100))
    os.utime(old.parent, (1, 1))
    assert [entry.folder for entry in cache.info()] == [old.parent]
    assert cache.clear() == 100
    assert (young.exists(), old.parent.exists()) == (True, False)


def test_the_usual_limit_is_a_quarter_of_what_the_disk_has_for_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    monkeypatch.setattr("crossroads.features.cache.shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
    assert Cache(tmp_path).limit == 2500
    left_by_another(tmp_path)
    taken = sum(entry.bytes for entry in Cache(tmp_path).info())
    assert taken > 4000
    assert Cache(tmp_path).limit == (10_000 + taken) // 4, "what is there does not make room for less"


def test_a_store_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "features").write_text("")
    with pytest.raises(FeatureError, match="cache of features must be writable"):
        Cache(tmp_path).store(KEY, (2,))


def test_what_was_used_least_recently_makes_room(tmp_path):
    old, new = left_by_another(tmp_path, cut="a"), left_by_another(tmp_path, cut="b")
    os.utime(old / "key.json", (1, 1))
    os.utime(new / "key.json", (2, 2))
    cache = Cache(tmp_path, limit=3 * 10 * 432)
    store = cache.store(KEY, (100,))
    assert not cache.has_room(store, 12)
    cache.require_room(store, 12)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_disk_that_is_too_small_and_what_others_use_are_errors_and_nothing_is_removed(tmp_path, monkeypatch):
    left = left_by_another(tmp_path)
    cache = Cache(tmp_path, limit=10_000)
    store = cache.store(KEY, (100,))
    other = cache.store(replace(KEY, cut="other"), (100,))
    (other.folder / "rows").write_bytes(bytes(7_000))  # of this process, which uses it
    with pytest.raises(FeatureError, match=r"0\.00 GB for 12 rows, beside 0\.00 GB that are in use"):
        cache.require_room(store, 12)
    assert left.exists()
    monkeypatch.setattr("crossroads.features.cache.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(FeatureError, match="features must fit on the disk"):
        Cache(tmp_path, limit=10**9).require_room(store, 1000)
    assert left.exists()


def test_a_process_holds_a_store_by_one_lock_however_often_it_asks(tmp_path):
    cache = Cache(tmp_path)
    for _ in range(5):
        store = cache.store(KEY, (100,))
    assert len(list((store.folder / "users").glob("*.lock"))) == 1
    assert cache.clear() == 0
    shutil.rmtree(store.folder)  # by hand
    assert len(list((cache.store(KEY, (100,)).folder / "users").glob("*.lock"))) == 1


def test_features_larger_than_the_limit_are_one_error_and_nothing_is_removed(tmp_path):
    left = left_by_another(tmp_path)
    cache = Cache(tmp_path, limit=10_000)
    with pytest.raises(FeatureError, match=f"must fit into the cache.*set {LIMIT_VARIABLE}"):
        cache.require_room(cache.store(KEY, (100,)), 1000)
    assert left.exists()


def test_folder_and_limit_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "here"))
    monkeypatch.setenv(LIMIT_VARIABLE, "2e6")
    cache = Cache()
    assert (cache.folder, cache.limit) == (tmp_path / "here", 2_000_000)
    monkeypatch.setenv(LIMIT_VARIABLE, "plenty")
    with pytest.raises(FeatureError, match="'plenty'"):
        Cache()
    monkeypatch.delenv(LIMIT_VARIABLE)
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME" if os.name != "nt" else "LOCALAPPDATA", str(tmp_path / "user"))
    assert Cache().folder == tmp_path / "user" / "crossroads"


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatureError, match=FOLDER_VARIABLE):
        Cache(tmp_path / "file" / "cache")
