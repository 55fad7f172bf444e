"""Replaces a finished artifact as a whole.

The new files are written to one folder, which is then renamed to `NEXT`. The rename is the moment of the replacement. If the
process is killed before the rename, the old artifact stays. If it is killed later, the next process that opens the artifact moves
the rest of the files into place first, and reads the new artifact.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from crossroads.artifact._files import FILES, MANIFEST, OPTIONAL, may_lack

NEXT = ".artifact-next"


def commit(partial: Path, run: Path) -> None:
    """Replaces the artifact in `run` with the files in `partial`, a folder inside `run` whose files are already flushed to disk.

    Files that `partial` lacks stay as they are.
    """
    partial.rename(run / NEXT)
    complete(run)


def complete(run: Path) -> None:
    """Finishes a replacement that was interrupted. Does nothing if there is none, or if the folder is not writable."""
    fresh = run / NEXT
    if not fresh.is_dir():
        return
    with suppress(PermissionError):
        for name in (*FILES, *OPTIONAL):
            _move(fresh / name, run / name)
        _move(fresh / MANIFEST, run / MANIFEST)  # last, so that an interrupted replacement is seen again
        with suppress(OSError, ValueError, KeyError):
            listed = json.loads((run / MANIFEST).read_text(encoding="utf-8"))["files"]
            for name in filter(may_lack, (*FILES, *OPTIONAL)):
                if name not in listed:
                    (run / name).unlink(missing_ok=True)
        with suppress(OSError):
            fresh.rmdir()


def _move(source: Path, target: Path) -> None:
    with suppress(FileNotFoundError):  # already moved by another process, or before an interruption
        os.replace(source, target)  # noqa: PTH105 - one rename, atomic on every system
