"""Downloads one file with progress, resumes after a break, verifies the digest, and replaces the target atomically.

It uses `urllib` because `pooch` cannot resume, and `httpx` and `urllib3` leave ranges, digests and atomic placement to the caller.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from filelock import FileLock

from crossroads.errors import WeightsError

Progress = Callable[[int, int | None], None]
"""Called with the bytes received and the bytes of the whole file; None if the server does not tell the size."""

ATTEMPTS = 3
PAUSE = 1.0
"""Seconds before the second attempt, twice as long before the third."""
TIMEOUT = 30.0
"""Seconds to wait for an answer."""
_BLOCK = 1 << 18
_DISK_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


class Unreachable(Exception):
    """The file could not be downloaded; the message is the reason."""


def file_digest(path: Path, algorithm: str) -> str:
    """Returns the hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def agrees(path: Path, digest: str | None) -> bool:
    """Returns whether a file has this digest: ``md5:…``, ``sha256:…``, or its first digits; None agrees with every file.

    Keras publishes MD5, which detects damage but not forgery; the addresses are HTTPS.
    """
    if digest is None:
        return True
    algorithm, _, expected = digest.partition(":")
    return file_digest(path, algorithm).startswith(expected)


def download(address: str, target: Path, digest: str | None, progress: Progress | None = None) -> None:
    """Downloads `address` to `target`, which changes only when the whole file has arrived and has the right digest.

    After a break the rest is requested, in `ATTEMPTS` attempts in all. If the digest is known, the next call resumes where this
    one was stopped or killed. If two processes want the same file, one downloads it and the other waits.

    Raises:
        Unreachable: The network, server or file is not available, or the connection keeps breaking.
        WeightsError: The file received has another digest.
        OSError: The folder cannot be written.
    """
    with FileLock(target.with_name(f".{target.name}.lock")):
        if digest is not None and target.is_file() and agrees(target, digest):
            return  # another process has downloaded it
        partial = target.with_name(f".{target.name}.part")
        with partial.open("ab" if digest is not None else "wb") as file:
            _fetch(address, file, progress)
            file.flush()
            os.fsync(file.fileno())
        if not agrees(partial, digest):
            size = partial.stat().st_size
            partial.unlink()
            raise WeightsError(
                f"{target.name} must have the digest {digest}",
                code="weights-digest",
                received=f"{size} bytes from {address} with another digest",
                hint="try again; a proxy or a mirror may have sent something else",
            )
        partial.replace(target)


def _fetch(address: str, file: IO[bytes], progress: Progress | None) -> None:
    for attempt in range(ATTEMPTS):
        before = file.tell()
        try:
            _fetch_rest(address, file, progress)
        except urllib.error.HTTPError as error:
            if before and error.code == 416:  # no bytes are left: start again
                _empty(file)
                continue
            if error.code < 500 or attempt == ATTEMPTS - 1:
                raise Unreachable(f"the server answered {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
            if getattr(error, "errno", None) in _DISK_FULL:
                raise
            # Only a broken transfer is tried again: a server that never answered will not answer a second later.
            if attempt == ATTEMPTS - 1 or file.tell() == before:
                raise Unreachable(str(getattr(error, "reason", None) or error or type(error).__name__)) from error
        else:
            return
        time.sleep(PAUSE * 2**attempt)
    raise Unreachable("the server does not send the whole file")


def _empty(file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()


def _fetch_rest(address: str, file: IO[bytes], progress: Progress | None) -> None:
    """Appends the bytes that `file` does not have yet."""
    request = urllib.request.Request(address, headers={"User-Agent": "crossroads", "Accept-Encoding": "identity"})
    if request.type not in ("https", "http", "file"):
        raise ValueError(f"{address!r} is not an https address")
    received = file.tell()
    if received:
        request.add_header("Range", f"bytes={received}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if received and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {received}-"):
            received = 0  # the server sends all of it again
            _empty(file)
        rest: int | None = None
        with suppress(TypeError, ValueError):
            rest = int(answer.headers.get("Content-Length"))
        total = None if rest is None else received + rest
        while block := answer.read(_BLOCK):
            file.write(block)
            received += len(block)
            if progress is not None:
                progress(received, total)
        if total is not None and received < total:
            raise ConnectionError(f"the connection broke after {received} of {total} bytes")
