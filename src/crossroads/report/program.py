"""Writes commands that work when they are pasted into the shell that started the program."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def command(*arguments: object) -> str:
    """Returns a command of this program with its arguments, quoted for the shell."""
    return shlex.join([*_program(), *map(str, arguments)])


def _program() -> list[str]:
    """Returns the words that call this program: its name, if the shell finds the same program by it, otherwise its path."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":  # python -m crossroads
        return [_python(), "-m", "crossroads"]
    if called.name == sys.argv[0]:  # a name without a folder, which the shell has found
        return [called.name]
    found = shutil.which(called.name)
    return [called.name] if found is not None and Path(found).samefile(called) else [_short(called)]


def _python() -> str:
    for name in ("python", "python3"):
        found = shutil.which(name)
        # The links of two virtual environments may lead to one interpreter, so the links themselves are compared.
        if found is not None and Path(found).absolute() == Path(sys.executable).absolute():
            return name
    return _short(Path(sys.executable))


def _short(path: Path) -> str:
    """Returns the path of a program relative to the working directory if that is shorter."""
    relative = os.path.relpath(path)
    relative = relative if os.sep in relative else os.path.join(os.curdir, relative)  # noqa: PTH118 - keeps the ./
    return min(relative, str(path.absolute()), key=len)


def free_folder(name: str, parent: str = "runs") -> Path:
    """Returns the first of ``runs/NAME``, ``runs/NAME-2``, … that does not exist."""
    folder, number = Path(parent) / name, 2
    while folder.exists():
        folder, number = Path(parent) / f"{name}-{number}", number + 1
    return folder
