"""The cache of features and of graphs on the disk: content-addressed, shared by runs, within a limit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from crossroads.data.images import Resize
from crossroads.errors import FeatureError
from crossroads.features.store import Store, unwritable
from crossroads.recipe import Augmentation

FOLDER_VARIABLE, LIMIT_VARIABLE = "CROSSROADS_CACHE", "CROSSROADS_CACHE_LIMIT"
"""Environment variables: where the cache is, and how many bytes it may take."""

MOST = 20 * 10**9
"""Bytes that the cache may take where nothing else is said; a quarter of what the disk has for it where that is less."""

UNFINISHED_SECONDS = 3600
"""Age from which a graph that was not finished is taken for left over; a younger one may be in the making."""

_VERSION = 2
_HELD: dict[tuple[int, Path], FileLock] = {}  # by process and store: of those that this process uses, until it ends


@dataclass(frozen=True, slots=True)
class Key:
    """All that decides what a row of features is, but for the image and the number of its view.

    Attributes:
        weights: Digest of what the frozen part computes: its layers and weights.
        preprocessing: What is done to pixels first, in words.
        resize: How an image becomes a square.
        cut: Where the frozen part ends.
        pooling: How its last map becomes a vector; ``map`` where it stays one.
        augmentation: How far the views after the first are moved; None where there is one view only.
        dtype: What rows are kept as.
        computed_by: The programs that computed them, with their versions: others round in another way.
    """

    weights: str
    preprocessing: str
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


GRAPH = "graph"
"""What a graph of the inference engine is called among the entries."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in the cache.

    Attributes:
        name: What it is, for people.
        rows: How many rows of features; 0 for a graph.
        bytes: Room it takes.
        used: When it was last used, local time.
        folder: Where it is.
    """

    name: str
    rows: int
    bytes: int
    used: str
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"folder": str(self.folder)}


class Cache:
    """The cache in one folder.

    Args:
        folder: Where; None for ``$CROSSROADS_CACHE``, else ``crossroads`` in the user's cache folder.
        limit: Bytes it may take; None for ``$CROSSROADS_CACHE_LIMIT``, else 20 GB or, where that is less, a quarter of what is
            free on the disk and of what the cache takes now.

    Raises:
        FeatureError: The limit is no number of bytes, or the folder cannot be made.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = folder or _folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FeatureError(
                "the cache of features needs a folder",
                received=f"{self.folder} ({error.strerror})",
                hint=f"set {FOLDER_VARIABLE} to a folder that can be written",
            ) from error
        self.limit = self._usual_limit() if limit is None else limit
        self._lock = FileLock(self.folder / "cache.lock")

    def store(self, key: Key, shape: tuple[int, ...]) -> Store:
        """The store of one kind of features, made where there is none; it is not removed while this process lives.

        Args:
            key: What the features are.
            shape: Of one row.

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

    def has_room(self, store: Store, rows: int) -> bool:
        """Whether `rows` more rows of a store fit as things are."""
        needed = rows * store.row_bytes
        return self._taken() + needed <= self.limit and needed <= shutil.disk_usage(self.folder).free

    def require_room(self, store: Store, rows: int) -> None:
        """Make room for `rows` more rows of a store, at the cost of what was not used for longest.

        Raises:
            FeatureError: They cannot fit, whatever is removed of what no process uses, and nothing is removed then; or the cache
                cannot be written.
        """
        needed = rows * store.row_bytes
        own = _size(store.folder)
        if own + needed > self.limit:
            raise FeatureError(
                f"features must fit into the cache, which may take {self.limit / 1e9:,.2f} GB",
                received=f"{(own + needed) / 1e9:,.2f} GB for {len(store) + rows:,} rows of {_by(store.shape)} numbers",
                hint=f"set {LIMIT_VARIABLE} to more bytes, use --feature-type float16, a smaller pooling, a cut with a smaller "
                "map, or `crossroads cache clear`",
            )
        free = shutil.disk_usage(self.folder).free
        with self._locked():
            entries = sorted(self._entries(), key=lambda entry: _used(entry.folder))
            spare = [entry for entry in entries if entry.folder != store.folder and _is_unused(entry.folder)]
            total, spared = (sum(entry.bytes for entry in some) for some in (entries, spare))
            if needed > free + spared:
                raise FeatureError(
                    "features must fit on the disk",
                    received=f"{needed / 1e9:,.2f} GB for {rows:,} rows, and {free / 1e9:,.2f} GB free in {self.folder}",
                    hint=f"make room, or set {FOLDER_VARIABLE} to a folder on another disk",
                )
            if total - spared + needed > self.limit:
                raise FeatureError(
                    f"features must fit into the cache, which may take {self.limit / 1e9:,.2f} GB",
                    received=f"{needed / 1e9:,.2f} GB for {rows:,} rows, beside {(total - spared) / 1e9:,.2f} GB that are in use",
                    hint=f"set {LIMIT_VARIABLE} to more bytes, or wait until other processes end",
                )
            for entry in spare:
                if total + needed <= self.limit and needed <= free:
                    break
                if _removed(entry.folder):
                    total, free = total - entry.bytes, free + entry.bytes

    @property
    def graphs(self) -> Path:
        """Where graphs are kept, each in a folder of its own."""
        return self.folder / "graphs"

    def info(self) -> list[Entry]:
        """Everything in the cache, the last used first."""
        return sorted(self._entries(), key=lambda entry: -_used(entry.folder))

    def clear(self) -> int:
        """Remove all that no process is using; returns the bytes that became free. Raises `FeatureError` where it cannot."""
        with self._locked():
            return sum(entry.bytes for entry in self._entries() if _removed(entry.folder))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process changes what there is meanwhile. A fault of the disk is one clear error."""
        try:
            with self._lock:
                yield
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def _usual_limit(self) -> int:
        disk = shutil.disk_usage(self.folder).free + self._taken()
        return _named_limit() or min(MOST, disk // 4)

    def _taken(self) -> int:
        """Bytes that the cache takes."""
        return sum(entry.bytes for entry in self._entries())

    def _hold(self, folder: Path) -> None:
        """Mark a store as in use: a lock that goes when this process does, however it ends. Files of gone ones are removed."""
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
                key, shape = facts["key"], facts["shape"]
                rows = (path.parent / "index").stat().st_size // 32 if (path.parent / "index").exists() else 0
                name = (
                    f"{key['preprocessing'].partition(':')[0]} {key['cut']} {key['resize']['size']} px {'x'.join(map(str, shape))}"
                )
                yield Entry(name, rows, _size(path.parent), _shown(path.parent), path.parent)
        for folder in sorted(self.graphs.glob("*/")):
            if folder.name.startswith(".") and time.time() - _used(folder) < UNFINISHED_SECONDS:
                continue
            yield Entry(GRAPH, 0, _size(folder), _shown(folder), folder)


def _folder() -> Path:
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named).expanduser()
    home = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "crossroads"


def _named_limit() -> int | None:
    """Bytes, from the environment; None where it says nothing."""
    named = os.environ.get(LIMIT_VARIABLE)
    if not named:
        return None
    try:
        limit = int(float(named))
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise FeatureError(f"{LIMIT_VARIABLE} must be a number of bytes above 0", received=repr(named), hint="use such as 20e9")
    return limit


def _by(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size


def _used(folder: Path) -> float:
    mark = folder / "key.json"
    with suppress(OSError):
        return (mark if mark.exists() else folder).stat().st_mtime
    return 0.0


def _shown(folder: Path) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(_used(folder)))


def _is_unused(folder: Path) -> bool:
    """Whether no process holds a folder."""
    return all([_released(path) for path in (folder / "users").glob("*.lock")])  # noqa: C419 (each is tried: what is left over goes)


def _removed(folder: Path) -> bool:
    """Remove a folder unless a process holds it; whether it went."""
    if not _is_unused(folder):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _released(path: Path) -> bool:
    """Remove a lock that no process holds any more; whether that was so. Nobody takes one but under the lock of the cache."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):  # one that cannot be tried counts as held
        return False
    lock.release()
    with suppress(OSError):
        path.unlink()
    return True
