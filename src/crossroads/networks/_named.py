"""Checks of the name of a user's own network that load neither the network nor Keras."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crossroads.errors import BackboneError


def require_present(named: str) -> None:
    """Raises `BackboneError` where a ``.keras`` file, or the module of ``package.module:function``, does not exist."""
    if named.endswith(".keras"):
        require_file(Path(named))
        return
    module, function = module_and_function(named)
    with current_folder_importable():
        try:
            found = module in sys.modules or importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:  # of the package
            found = False
        except Exception:  # a boundary: the package is the user's code; importing the module will say what is wrong
            return
    if not found:
        raise not_importable(f"{module}:{function}", ModuleNotFoundError(f"No module named {module!r}"))


def require_file(path: Path) -> None:
    """Raises `BackboneError` where there is no such file."""
    if not path.is_file():
        raise BackboneError("there is no such file", received=str(path), hint="give the path of a .keras file")


def module_and_function(named: str) -> tuple[str, str]:
    """The two parts of ``package.module:function``. Raises `BackboneError` where one is missing."""
    module, _, function = named.partition(":")
    if not module or not function:
        raise BackboneError(
            "a network of one's own is a .keras file or package.module:function", received=repr(named), hint="name the function too"
        )
    return module, function


def not_importable(named: str, error: Exception) -> BackboneError:
    """What is said of a module that Python cannot import."""
    return BackboneError(
        f"the module of {named} must be one that Python can import",
        received=f"{type(error).__name__}: {error}",
        hint="run from its folder, or install it",
    )


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """The console script, other than ``python -m``, leaves the current folder out of the path."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
