"""``crossroads.json``: what an artifact says of itself, and the check that it is still so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import DIGEST_BYTES
from crossroads.data.images import FILTER, Resize
from crossroads.errors import ArtifactError, DataError

FORMAT = 2
MANIFEST = "crossroads.json"
GRAPH = ("model.xml", "model.bin")
SEEN = "seen.npy"
"""Digests of the images that training has seen."""

FILES = ("model.keras", *GRAPH, "history.csv", "recipe.toml", SEEN, "metrics.json")
"""Every file of a finished artifact but ``crossroads.json``."""

_DAMAGED = "copy or train the artifact again"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``crossroads.json`` holds.

    Attributes:
        folder: Where it was read.
        classes: Class names, in the order of the probabilities.
        resize: How an image becomes the square that the network takes.
        facts: The whole file as plain values: ``backbone``, ``strategy``, ``recipe``, ``seeds``, ``versions``, ``data``,
            ``parity``, ``weights`` (a digest of all weights in order, equal for equal weights) and the rest.
        files: Bytes and BLAKE2b digest of each file.
    """

    folder: Path
    classes: tuple[str, ...]
    resize: Resize
    facts: Mapping[str, Any] = field(repr=False)
    files: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @property
    def backbone(self) -> str:
        """Name of the backbone in the catalog."""
        return str(self.facts["backbone"])

    @property
    def strategy(self) -> str:
        """Name of the strategy it was trained with."""
        return str(self.facts["strategy"])


def open_verified(folder: str | PathLike[str], *, only: Iterable[str] | None = None) -> Manifest:
    """Reads ``crossroads.json`` and checks the files against the digests in it. Nothing is executed.

    Digests tell damage and mix-ups; they are not signatures, and who can write the folder can write the digests too.

    Args:
        folder: A finished artifact.
        only: The files to check; None for all, and then they must also be complete.

    Raises:
        ArtifactError: No artifact, one of another format, or a file is missing or not what was written.
    """
    try:
        path = Path(folder)
    except TypeError as error:
        raise ArtifactError(
            "an artifact is named by its folder, or by the Run that fit returned",
            received=f"an object of class {type(folder).__name__}",
            hint="give the path of the folder that fit wrote",
        ) from error
    manifest = _parsed(path, _read(path))
    for name in FILES if only is None else only:
        _verify(path / name, manifest.files.get(name))
    return manifest


def read_metrics(folder: str | PathLike[str]) -> dict[str, Any]:
    """What `Draft.finish` was given, from a finished artifact.

    Raises:
        ArtifactError: No artifact, or its metrics are not what was written.
    """
    manifest = open_verified(folder, only=("metrics.json",))
    metrics: dict[str, Any] = json.loads((manifest.folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def read_seen(manifest: Manifest) -> NDArray[np.uint8]:
    """Digests of the images that the classifier was trained on or chosen by, uint8 (n, 16).

    Raises:
        ArtifactError: The file is not what was written.
    """
    path = manifest.folder / SEEN
    _verify(path, manifest.files.get(SEEN))
    try:
        found: NDArray[np.uint8] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} must be an array of digests", received=str(error)[:200], hint=_DAMAGED) from error
    if found.dtype != np.uint8 or found.ndim != 2 or found.shape[1] != DIGEST_BYTES:
        raise ArtifactError(f"{path} must be uint8 (n, {DIGEST_BYTES})", received=f"{found.dtype} {found.shape}", hint=_DAMAGED)
    return found


def file_record(path: Path) -> dict[str, Any]:
    """Bytes and digest of one file, as ``crossroads.json`` records them."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
        return {"bytes": file.tell(), "blake2b": digest}


def manifest_text(facts: Mapping[str, Any]) -> str:
    """The text of ``crossroads.json`` for those facts, with a digest of itself as the last key.

    Raises:
        ArtifactError: A value that JSON does not know, such as NaN.
    """
    return json_text({**facts, "digest": _own_digest(facts)})


def json_text(values: Mapping[str, Any]) -> str:
    """JSON for people to read: indented, unsorted, strict; UTF-8 can hold all of it."""
    try:
        text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        # Python spells a byte of a file name that is no UTF-8 as half a surrogate pair; as an escape JSON keeps it.
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    except (TypeError, ValueError) as error:
        raise ArtifactError("what an artifact records must be plain JSON values", received=str(error)) from error


def _own_digest(facts: Mapping[str, Any]) -> str:
    """Over the values, not the text: it does not change with indentation or the order of keys."""
    try:
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError("what an artifact records must be plain JSON values", received=str(error)) from error
    return hashlib.blake2b(canonical.encode(), digest_size=32).hexdigest()


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        what = (
            "no such folder" if not folder.exists() else "not a folder" if not folder.is_dir() else f"a folder without {MANIFEST}"
        )
        hint = "finish the run with --resume" if (folder / "checkpoint").exists() else "give the folder that fit wrote"
        if folder.is_file() and (folder.parent / MANIFEST).is_file():
            hint = f"give {folder.parent}"
        raise ArtifactError(f"{folder} must be a finished artifact", received=what, hint=hint) from error
    except OSError as error:
        raise ArtifactError(f"{path} must be readable", received=error.strerror, hint="give the folder that fit wrote") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} must be JSON", received=str(error)[:200], hint=_DAMAGED) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("format"), int):
        raise ArtifactError(f"{path} must name its format", received="none", hint=_DAMAGED)
    if facts["format"] != FORMAT:
        raise ArtifactError(
            f"{path}: this version of crossroads reads format {FORMAT}",
            received=f"format {facts['format']}, written by crossroads {facts.get('crossroads', 'of unknown version')}",
            hint="install the version that wrote it",
        )
    return facts


def _parsed(folder: Path, facts: dict[str, Any]) -> Manifest:
    path = folder / MANIFEST
    stated = facts.pop("digest", None)
    if stated != _own_digest(facts):
        raise ArtifactError(f"{path} must be as it was written", received="a digest that differs", hint=_DAMAGED)
    try:
        image = facts["preprocessing"]
        resize = Resize(image["size"], image["mode"])
        if image["filter"] != FILTER:
            raise ValueError(f"images are resized with the filter {FILTER!r}, received {image['filter']!r}")
        classes = tuple(facts["classes"])
        if not classes or not all(isinstance(name, str) for name in classes):
            raise ValueError("classes")
        files = dict(facts["files"])
        return Manifest(folder, classes, resize, facts, files)
    except (KeyError, TypeError, ValueError, DataError) as error:
        raise ArtifactError(f"{path} must hold classes, preprocessing and files", received=str(error), hint=_DAMAGED) from error


def _verify(path: Path, stated: object) -> None:
    if not isinstance(stated, Mapping):
        raise ArtifactError(f"{path.parent / MANIFEST} must list {path.name}", received="no digest of it", hint=_DAMAGED)
    try:
        found = path.stat().st_size
        # The size first: it is free, and most damage is a copy that was cut short.
        if found != stated.get("bytes"):
            raise ArtifactError(
                f"{path} must be as it was written", received=f"{found} bytes in place of {stated.get('bytes')}", hint=_DAMAGED
            )
        if file_record(path) != stated:
            raise ArtifactError(f"{path} must be as it was written", received="a digest that differs", hint=_DAMAGED)
    except OSError as error:
        raise ArtifactError(f"{path} must be readable", received=error.strerror, hint=_DAMAGED) from error


SEEN_BY_WEIGHTS = "among those that the weights learned from, or were chosen by"
"""What a warning says of images that an artifact has seen whose weights are used."""


def seen_by_weights(weights: str | None) -> NDArray[np.uint8]:
    """Digests of the images that a file of weights has seen, uint8 (n, 16); none unless it is the model of an artifact."""
    nothing = np.zeros((0, DIGEST_BYTES), np.uint8)
    if weights is None or not Path(weights).is_file():
        return nothing
    try:
        return read_seen(open_verified(Path(weights).parent, only=()))
    except ArtifactError:  # the file lies elsewhere, or beside what is no longer an artifact
        return nothing
