"""Runs a module of this package in a child process."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def module_command(module: str, *arguments: str) -> list[str]:
    """Returns the command that runs a module. Modules are not searched in the current folder, which may hold any ``json.py``."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment(**changes: str) -> dict[str, str]:
    """Returns the environment of the child process: this one with `changes`, and the same module search path.

    Empty entries of the path mean the current folder and are left out. The folder of this package is always included.
    """
    home = str(Path(__file__).resolve().parents[2])
    places = [entry for entry in sys.path if entry and os.pathsep not in entry]
    if home not in places:
        places.append(home)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), **changes}
