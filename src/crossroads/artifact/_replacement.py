"""Replaces a finished artifact as a whole.

The new files are written to one folder. Renaming that folder to `NEXT` is the moment of the replacement: whoever opens the artifact
afterwards finishes the moves first. A process that is killed before it leaves the old artifact, and after it the new one.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from crossroads.artifact._files import FILES, KERAS, MANIFEST

NEXT = ".artifact-next"


def commit(partial: Path, run: Path) -> None:
    """Replaces the artifact in `run` by the files in `partial`, a folder inside it whose files are on the disk.

    Files that `partial` lacks stay as they are.
    """
    partial.rename(run / NEXT)
    complete(run)


def complete(run: Path) -> None:
    """Finishes a replacement that was interrupted. Does nothing if there is none, or if the folder cannot be written."""
    fresh = run / NEXT
    if not fresh.is_dir():
        return
    with suppress(PermissionError):
        for name in FILES:
            _move(fresh / name, run / name)
        _move(fresh / MANIFEST, run / MANIFEST)  # last, so that an interrupted replacement is seen again
        with suppress(OSError, ValueError, KeyError):
            if KERAS not in json.loads((run / MANIFEST).read_text(encoding="utf-8"))["files"]:
                (run / KERAS).unlink(missing_ok=True)
        with suppress(OSError):
            fresh.rmdir()


def _move(source: Path, target: Path) -> None:
    with suppress(FileNotFoundError):  # moved already, by this process before it was killed or by another one
        os.replace(source, target)  # noqa: PTH105 - one rename, atomic on every system
