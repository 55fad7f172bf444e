"""Checks the name of a custom network or a preset without loading the network or Keras."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crossroads.errors import BackboneError, install

HUB = "hf:"
"""Prefix for the name of a network on the Hugging Face hub."""
KERAS_HUB = "keras-hub:"
"""Prefix for the name of a preset of KerasHub."""


def require_present(named: str) -> None:
    """Raises `BackboneError` if a ``.keras`` file, KerasHub, or the module of ``package.module:function``, does not exist."""
    if named.startswith(KERAS_HUB):
        require_keras_hub()
        return
    if named.endswith(".keras"):
        require_file(Path(named))
        return
    module, function = module_and_function(named)
    with current_folder_importable():
        try:
            found = module in sys.modules or importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:  # the package of the module
            found = False
        except Exception:  # a boundary: the package is the user's code; importing the module will say what is wrong
            return
    if not found:
        raise not_importable(f"{module}:{function}", ModuleNotFoundError(f"No module named {module!r}"))


def require_keras_hub() -> None:
    """Raises `BackboneError` if KerasHub is not installed."""
    if importlib.util.find_spec("keras_hub") is None:
        raise BackboneError(
            "a network of KerasHub needs the package keras-hub; the inference graph of an artifact does not",
            code="keras-hub-not-installed",
            field="backbone",
            received="no such package",
            hint=f"{install('keras-hub')}, then pip install --no-deps keras-hub",
        )


def require_file(path: Path) -> None:
    """Raises `BackboneError` if the file does not exist."""
    if not path.is_file():
        raise BackboneError(
            "the network file does not exist",
            code="no-such-file",
            field="backbone",
            received=str(path),
            hint="give the path of a .keras file",
        )


def module_and_function(named: str) -> tuple[str, str]:
    """Splits ``package.module:function`` into its two parts. Raises `BackboneError` if one is missing."""
    module, _, function = named.partition(":")
    if not module or not function:
        raise BackboneError(
            "a custom network is a .keras file or package.module:function",
            code="custom-network-name",
            field="backbone",
            received=repr(named),
            hint="name the function too",
        )
    return module, function


def not_importable(named: str, error: Exception) -> BackboneError:
    """Returns the error for a module that Python cannot import."""
    return BackboneError(
        f"Python cannot import the module of {named}",
        code="module-not-importable",
        field="backbone",
        received=f"{type(error).__name__}: {error}",
        hint="run from its folder, or install it",
    )


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Adds the current folder to the module search path, as ``python -m`` does and the console script does not."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
