"""Modules of this package in a process of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module. The current folder, which may hold anybody's ``json.py``, is not searched for modules."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment(**changes: str) -> dict[str, str]:
    """The environment for it: this process's with `changes`, and the same places of modules.

    Empty entries, which stand for the current folder, are left out; this package is found wherever it was found here.
    """
    home = str(Path(__file__).resolve().parents[2])
    places = [entry for entry in sys.path if entry and os.pathsep not in entry]
    if home not in places:
        places.append(home)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), **changes}
