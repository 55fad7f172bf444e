"""Caches features and inference graphs on disk. The cache is content-addressed, shared by runs, and limited in size."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from crossroads.data.images import Resize
from crossroads.errors import FeatureError, option
from crossroads.features.store import Store, Stores, unwritable
from crossroads.recipe import Augmentation

FOLDER_VARIABLE, LIMIT_VARIABLE = "CROSSROADS_CACHE", "CROSSROADS_CACHE_LIMIT"
"""Environment variables: the folder of the cache, and its limit in bytes."""

DEFAULT_LIMIT = 20 * 10**9
"""Default limit of the cache in bytes. A quarter of the disk space available to it applies if that is less."""

UNFINISHED_SECONDS = 3600
"""An unfinished graph that is older than this counts as abandoned. Another process may still be writing a newer one."""

GRAPH = "graph"
"""Name of an entry that is an inference graph."""

_VERSION = 3
_HELD: dict[tuple[int, Path], FileLock] = {}  # locks on the stores that this process uses, by process and store, until it ends


@dataclass(frozen=True, slots=True)
class Key:
    """Everything that determines a feature, except the image and the number of its view.

    Attributes:
        weights: Digest of the function of the frozen part: its layers and weights.
        backbone: Name of the backbone.
        resize: How an image becomes a square.
        cut: The layer that ends the frozen part.
        pooling: How the last map becomes a vector; ``map`` if it stays a map.
        augmentation: The limits of the augmentation of further views; None for a single view.
        dtype: The type in which features are stored.
        computed_by: The libraries that computed them, with their versions, since each rounds differently.
    """

    weights: str
    backbone: str
    resize: Resize
    cut: str
    pooling: str
    augmentation: Augmentation | None
    dtype: Literal["float32", "float16"]
    computed_by: str = ""

    @property
    def digest(self) -> str:
        """Hexadecimal; equal keys have equal digests in every process."""
        return hashlib.blake2b(json.dumps([_VERSION, asdict(self)], sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the cache.

    Attributes:
        name: A readable name.
        rows: Number of cached features; 0 for a graph.
        bytes: Size on disk.
        used: When it was last used, in local time.
        folder: Its folder.
    """

    name: str
    rows: int
    bytes: int
    used: str
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self) | {"folder": str(self.folder)}


class Cache:
    """The cache in one folder.

    Args:
        folder: None for ``$CROSSROADS_CACHE``, or ``crossroads`` in the user's cache folder if that is not set.
        limit: Limit in bytes; None for ``$CROSSROADS_CACHE_LIMIT``. If that is not set, the limit is 20 GB, or a quarter of the
            disk space that is free or taken by the cache if that is less.

    Raises:
        FeatureError: The limit is not a number of bytes, or the folder cannot be created.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = folder or _default_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        self.limit = self._default_limit() if limit is None else limit
        self._lock = FileLock(self.folder / "cache.lock")

    def store(self, key: Key, shape: tuple[int, ...]) -> Store:
        """Returns the store of one kind of features, creating it if needed. It is not removed while this process lives.

        Args:
            key: Identifies the features.
            shape: The shape of one row.

        Raises:
            FeatureError: The cache cannot be written.
        """
        folder = self.folder / "features" / key.digest
        with self._locked():
            folder.mkdir(parents=True, exist_ok=True)
            facts = {"key": asdict(key), "shape": list(shape)}
            (folder / "key.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
            self._hold(folder)
            return Store(folder, shape, key.dtype)

    def has_room(self, store: Store | Stores, rows: int) -> bool:
        """Returns whether `rows` more rows of a store fit without removing anything."""
        needed = rows * store.row_bytes
        return self._size() + needed <= self.limit and needed <= shutil.disk_usage(self.folder).free

    def require_room(self, store: Store | Stores, rows: int) -> None:
        """Makes room for `rows` more rows of a store by removing the least recently used entries.

        Raises:
            FeatureError: They do not fit even if every entry that no process uses is removed, and then nothing is removed; or the
                cache cannot be written.
        """
        needed, own = rows * store.row_bytes, _folder_size(store.folder)
        limit = f"the features must fit into the cache, whose limit is {self.limit / 1e9:,.2f} GB"
        if own + needed > self.limit:
            shape = "x".join(map(str, store.shape))
            raise FeatureError(
                limit,
                code="cache-too-small",
                received=f"{(own + needed) / 1e9:,.2f} GB for {len(store) + rows:,} rows of {shape} numbers",
                hint=f"set {LIMIT_VARIABLE} to more bytes, use {option('feature_type')} float16, a smaller {option('pooling')} or "
                f"a {option('cut')} with a smaller map, or run `crossroads cache clear`",
            )
        free = shutil.disk_usage(self.folder).free
        with self._locked():
            entries = sorted(self._entries(), key=lambda entry: _last_used(entry.folder))
            unused = [entry for entry in entries if entry.folder != store.folder and _is_unused(entry.folder)]
            total, removable = (sum(entry.bytes for entry in some) for some in (entries, unused))
            if needed > free + removable:
                raise FeatureError(
                    "features must fit on the disk",
                    code="no-disk-space",
                    received=f"{needed / 1e9:,.2f} GB for {rows:,} rows, and {free / 1e9:,.2f} GB free in {self.folder}",
                    hint=f"free some space, or set {FOLDER_VARIABLE} to a folder on another disk",
                )
            if total - removable + needed > self.limit:
                raise FeatureError(
                    limit,
                    code="cache-in-use",
                    received=f"{needed / 1e9:,.2f} GB for {rows:,} rows, and {(total - removable) / 1e9:,.2f} GB in use",
                    hint=f"set {LIMIT_VARIABLE} to more bytes, or wait until other processes end",
                )
            for entry in unused:
                if total + needed <= self.limit and needed <= free:
                    break
                if _removed(entry.folder):
                    total, free = total - entry.bytes, free + entry.bytes

    @property
    def graphs(self) -> Path:
        """The folder of the inference graphs, each in its own folder."""
        return self.folder / "graphs"

    def info(self) -> list[Entry]:
        """Returns every entry, the most recently used first."""
        return sorted(self._entries(), key=lambda entry: -_last_used(entry.folder))

    def clear(self) -> int:
        """Removes every entry that no process uses, and returns the bytes freed. Raises `FeatureError` if the disk fails."""
        with self._locked():
            return sum(entry.bytes for entry in self._entries() if _removed(entry.folder))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps other processes from changing the entries, and turns a disk error into a `FeatureError`."""
        try:
            with self._lock:
                yield
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def _default_limit(self) -> int:
        available = shutil.disk_usage(self.folder).free + self._size()
        return _limit_variable() or min(DEFAULT_LIMIT, available // 4)

    def _size(self) -> int:
        return sum(entry.bytes for entry in self._entries())

    def _hold(self, folder: Path) -> None:
        """Marks a store as in use, by a lock that is released when this process ends or is killed. Removes abandoned locks."""
        os.utime(folder / "key.json")
        held = _HELD.get((os.getpid(), folder))
        if held is not None and Path(held.lock_file).exists():
            return
        users = folder / "users"
        users.mkdir(exist_ok=True)
        for path in users.glob("*.lock"):
            _released(path)
        lock = FileLock(users / f"{os.getpid()}-{uuid.uuid4().hex}.lock")
        lock.acquire()
        _HELD[os.getpid(), folder] = lock

    def _entries(self) -> Iterator[Entry]:
        for path in sorted((self.folder / "features").glob("*/key.json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                facts = json.loads(path.read_text(encoding="utf-8"))
                key, shape = facts["key"], "x".join(map(str, facts["shape"]))
                index = path.parent / "index"
                rows = index.stat().st_size // 32 if index.exists() else 0
                name = f"{key['backbone']} {key['cut']} {key['resize']['size']} px {shape}"
                yield _entry(name, rows, path.parent)
        for folder in sorted(self.graphs.glob("*/")):
            if not folder.name.startswith(".") or time.time() - _last_used(folder) >= UNFINISHED_SECONDS:
                yield _entry(GRAPH, 0, folder)


def _default_folder() -> Path:
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser()
    home = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "crossroads"


def _limit_variable() -> int | None:
    """Returns the limit from the environment, or None if it is not set."""
    named = os.environ.get(LIMIT_VARIABLE)
    if not named:
        return None
    try:
        limit = int(float(named))
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise FeatureError(
            f"{LIMIT_VARIABLE} must be a number of bytes above 0",
            code="cache-limit-invalid",
            received=repr(named),
            hint="use a number such as 20e9",
        )
    return limit


def _entry(name: str, rows: int, folder: Path) -> Entry:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(_last_used(folder)))
    return Entry(name, rows, _folder_size(folder), used, folder)


def _folder_size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size


def _last_used(folder: Path) -> float:
    key = folder / "key.json"
    with suppress(OSError):
        return (key if key.exists() else folder).stat().st_mtime
    return 0.0


def _is_unused(folder: Path) -> bool:
    """Returns whether no process holds a folder. Removes its abandoned locks."""
    # A list, so that every abandoned lock is removed.
    return all([_released(path) for path in (folder / "users").glob("*.lock")])  # noqa: C419


def _removed(folder: Path) -> bool:
    """Removes a folder, unless a process holds it. Returns whether the folder no longer exists."""
    if not _is_unused(folder):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _released(path: Path) -> bool:
    """Removes a lock file if no process holds it. Returns whether no process did. Call this under the lock of the cache."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):  # a lock that cannot be tried counts as held
        return False
    lock.release()
    with suppress(OSError):
        path.unlink()
    return True
