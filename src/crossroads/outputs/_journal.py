"""Keeps the finished rows of an unfinished output file, so that the same command continues it.

While ``predictions.csv`` is written, the folder ``predictions.csv.partial`` holds the finished rows and ``state.json``, which says
how many of them count. The last step moves the whole table to ``predictions.csv``, so that this file is never incomplete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crossroads.data.readers.unlabelled import ImageFile, ImageList
from crossroads.errors import DataError, option
from crossroads.files.text import printable
from crossroads.outputs._formats import Rows

CHECKPOINT_SECONDS = 2.0
"""Seconds between two writes of the state. A kill loses the work of at most this time."""

_STATE, _LOCK = "state.json", "lock"
_WORDS = {
    "artifact": "another artifact",
    "images": "another list of images",
    "columns": "another number of labels",
    "sorted": f"another {option('sort_into')}",
}


class Journal:
    """The rows of one output file.

    Attributes:
        done: The number of images whose rows are written.
        refused: The number of refused images among them.
    """

    def __init__(self, folder: Path, state: Mapping[str, Any], rows: Rows) -> None:
        self._folder, self._rows = folder, rows
        self._request: Mapping[str, Any] = state["request"]
        self.done, self.refused = int(state["done"]), int(state["refused"])
        self._expected = str(state["names"])
        self._names = hashlib.blake2b(digest_size=16)
        self._saved = time.monotonic()

    def remaining(self, images: Iterable[ImageFile]) -> Iterator[ImageFile]:
        """Yields the images that have no row yet. Raises `DataError` if the first ones are not those that have one."""
        rest = iter(images)
        skipped = 0
        for image in rest if self.done else ():
            self._names.update(_key(image.name))
            skipped += 1
            if skipped == self.done:
                break
        if skipped < self.done or (self.done and self._names.hexdigest() != self._expected):
            raise _differs(self._folder, "images")
        yield from rest

    def add(self, names: Sequence[str], rows: Sequence[tuple[Any, ...]], refused: int) -> None:
        """Adds the rows of the next images, and saves the state from time to time."""
        self._rows.write(rows)
        self._names.update(b"".join(map(_key, names)))
        self.done += len(names)
        self.refused += refused
        if time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
            self.save()

    def save(self) -> None:
        """Writes the rows to the disk, and then the state that counts them."""
        state = {
            "request": dict(self._request),
            "done": self.done,
            "refused": self.refused,
            "names": self._names.hexdigest(),
            "sizes": self._rows.sync(),
        }
        new = self._folder / f"{_STATE}.new"
        with new.open("w", encoding="utf-8") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._folder / _STATE)
        self._saved = time.monotonic()


@contextmanager
def journal(out: Path, request: Mapping[str, Any], open_rows: Callable[[Path, Mapping[str, int]], Rows]) -> Iterator[Journal]:
    """Opens the rows of an output file. At the end of the block they become that file; after an error they are kept.

    Args:
        out: Path of the new file.
        request: What decides the rows, as JSON values. An unfinished file is continued only for the same request.
        open_rows: Opens the rows in a folder, given the sizes of the files there that count.

    Raises:
        DataError: The file exists, another process writes it, or it is unfinished and was begun with another request.
    """
    _require_new(out)
    folder = out.with_name(f"{out.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(
            f"{option('out')} is being written by another process",
            code="out-in-use",
            field="out",
            received=printable(str(out)),
            hint="wait for it, or choose another file",
        ) from None
    try:
        yield from _locked(out, folder, request, open_rows)
    finally:
        lock.release()
    shutil.rmtree(folder, ignore_errors=True)


def _locked(
    out: Path, folder: Path, request: Mapping[str, Any], open_rows: Callable[[Path, Mapping[str, int]], Rows]
) -> Iterator[Journal]:
    state = _stored(folder, request)
    rows = open_rows(folder, state["sizes"])
    written = Journal(folder, state, rows)
    try:
        yield written
        _require_new(out)
        rows.finish(out)
    except BaseException:
        if written.done > state["done"]:
            written.save()
        rows.close()
        if not written.done:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def images_digest(images: ImageList) -> str | None:
    """Returns a digest of the names of all images, in order; None if they are not known in advance."""
    if images.total is None:
        return None
    hasher = hashlib.blake2b(digest_size=16)
    keys = (_key(image.name) for image in images)
    while some := b"".join(islice(keys, 1024)):  # one by one, they would take three times as long
        hasher.update(some)
    return hasher.hexdigest()


def _key(name: str) -> bytes:
    return name.encode() + b"\0"


def _stored(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the state of the unfinished rows in a folder, or that of a new file."""
    new = {"request": dict(request), "done": 0, "refused": 0, "names": "", "sizes": {}}
    try:
        state: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        stored, sizes = state["request"], state["sizes"]
        whole = all((folder / name).stat().st_size >= size for name, size in sizes.items())
    except FileNotFoundError:
        return new
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"the rows in {printable(str(folder))} must be those of an unfinished file",
            code="damaged-partial",
            field="out",
            received=error,
            hint="remove this folder to begin again",
        ) from error
    if not whole:
        return new
    for name in request:
        if stored.get(name) != request[name]:
            raise _differs(folder, name)
    return state


def _differs(folder: Path, what: str) -> DataError:
    return DataError(
        f"an unfinished {option('out')} is continued only with the same artifact, images and options",
        code="partial-differs",
        field="out",
        received=_WORDS.get(what, f"another {what}"),
        hint=f"repeat the first command, or remove {printable(str(folder))} to begin again",
    )


def _require_new(out: Path) -> None:
    if os.path.lexists(out):
        raise DataError(
            f"{option('out')} must be a new file",
            code="out-exists",
            field="out",
            received=printable(str(out)),
            hint="remove it or choose another name",
        )
