"""Reads the manifest ``crossroads.json`` and verifies the files of an artifact against it."""

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

from crossroads.artifact._files import FILES, MANIFEST, OPTIONAL, SEEN, may_lack
from crossroads.artifact._replacement import complete
from crossroads.data.dataset import DIGEST_BYTES
from crossroads.data.images import Resize, default_crop_fraction
from crossroads.errors import ArtifactError, DataError, option

FORMAT = 4
_COPY_AGAIN = "copy or train the artifact again"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of ``crossroads.json``.

    Attributes:
        folder: The folder of the artifact.
        classes: Class names, in the order of the probabilities.
        resize: How images are resized to the square input of the network.
        facts: The whole file as plain values: ``backbone``, ``strategy``, ``recipe``, ``seeds``, ``versions``, ``data``,
            ``parity``, ``pretrained``, ``weights`` (a digest of all weights in order, equal for equal weights) and the rest.
        files: Bytes and BLAKE2b digest of each file.
    """

    folder: Path
    classes: tuple[str, ...]
    resize: Resize
    facts: Mapping[str, Any] = field(repr=False)
    files: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files that the artifact must have, except ``crossroads.json``."""
        return tuple(name for name in (*FILES, *OPTIONAL) if not may_lack(name) or name in self.files)

    @property
    def backbone(self) -> str:
        """Name of the backbone in the catalog."""
        return str(self.facts["backbone"])

    @property
    def strategy(self) -> str:
        """Name of the strategy."""
        return str(self.facts["strategy"])


def open_verified(folder: str | PathLike[str], *, only: Iterable[str] | None = None) -> Manifest:
    """Reads ``crossroads.json`` and checks the files against the digests in it. Nothing is executed.

    Digests reveal damage and mix-ups. They are not signatures: whoever can write the folder can also write the digests.

    Args:
        folder: A finished artifact.
        only: The files to check; None for all.

    Raises:
        ArtifactError: The folder is not an artifact or has another format, or a file is missing or was changed.
    """
    try:
        path = Path(folder)
    except TypeError as error:
        raise ArtifactError(
            "an artifact must be given as its folder, or as the Run that fit returned",
            code="not-an-artifact",
            received=f"an object of class {type(folder).__name__}",
            hint="give the path of the folder that fit wrote",
        ) from error
    manifest = _parsed(path, _read(path))
    for name in manifest.names if only is None else only:
        _verify(path / name, manifest.files.get(name))
    return manifest


def read_metrics(folder: str | PathLike[str]) -> dict[str, Any]:
    """Returns the metrics of a finished artifact.

    Raises:
        ArtifactError: The folder is not an artifact, or its metrics were changed.
    """
    manifest = open_verified(folder, only=("metrics.json",))
    metrics: dict[str, Any] = json.loads((manifest.folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def read_seen(manifest: Manifest) -> NDArray[np.uint8]:
    """Returns the digests of the training and validation images, uint8 (n, 16).

    Raises:
        ArtifactError: The file was changed.
    """
    path = manifest.folder / SEEN
    _verify(path, manifest.files.get(SEEN))
    try:
        digests: NDArray[np.uint8] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise damaged(f"{path} must be an array of digests", "not-digests", str(error)[:200]) from error
    if digests.dtype != np.uint8 or digests.ndim != 2 or digests.shape[1] != DIGEST_BYTES:
        raise damaged(f"{path} must be uint8 (n, {DIGEST_BYTES})", "not-digests", f"{digests.dtype} {digests.shape}")
    return digests


def file_record(path: Path) -> dict[str, Any]:
    """Returns the size and the digest of one file, as ``crossroads.json`` records them."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()
        return {"bytes": file.tell(), "blake2b": digest}


def manifest_text(facts: Mapping[str, Any]) -> str:
    """Returns the text of ``crossroads.json``, with a digest of its own values as the last key.

    Raises:
        ArtifactError: A value is not JSON, such as NaN.
    """
    return json_text({**facts, "digest": _own_digest(facts)})


def json_text(values: Mapping[str, Any]) -> str:
    """Returns indented, unsorted, strict JSON that UTF-8 can encode. Raises `ArtifactError` for a value that is not JSON."""
    try:
        text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        # Python represents a byte of a file name that is not UTF-8 as a lone surrogate; JSON keeps it as an escape.
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
    except (TypeError, ValueError) as error:
        raise _not_json(error) from error


def _own_digest(facts: Mapping[str, Any]) -> str:
    """Returns the digest of the values, which does not depend on indentation or the order of the keys."""
    try:
        canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _not_json(error) from error
    return hashlib.blake2b(canonical.encode(), digest_size=32).hexdigest()


def _not_json(error: Exception) -> ArtifactError:
    return ArtifactError(
        "metrics and facts of an artifact must be JSON values",
        code="not-json",
        received=str(error),
        hint="use strings, finite numbers, lists and dicts",
    )


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    complete(folder)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _not_an_artifact(folder) from error
    except OSError as error:
        raise ArtifactError(
            f"{path} must be readable", code="unreadable-file", received=error.strerror, hint="give the folder that fit wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise damaged(f"{path} must be JSON", "damaged-manifest", str(error)[:200]) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("format"), int):
        raise damaged(f"{path} must name its format", "damaged-manifest", "none")
    if facts["format"] != FORMAT:
        older = facts["format"] < FORMAT
        raise ArtifactError(
            f"{path}: this version of crossroads reads format {FORMAT}",
            code="other-format",
            received=f"format {facts['format']}, written by crossroads {facts.get('crossroads', 'of unknown version')}",
            hint="train it again, or use the version that wrote it" if older else "install the version that wrote it",
        )
    return facts


def _not_an_artifact(folder: Path) -> ArtifactError:
    received, hint = f"a folder without {MANIFEST}", "give the folder that fit wrote"
    if not folder.exists():
        received = "no such folder"
    elif not folder.is_dir():
        received = "not a folder"
        if (folder.parent / MANIFEST).is_file():
            hint = f"give {folder.parent}"
    elif (folder / "checkpoint").exists():
        hint = f"finish the run with {option('resume')}"
    return ArtifactError(f"{folder} must be a finished artifact", code="not-an-artifact", received=received, hint=hint)


def damaged(rule: str, code: str, received: object) -> ArtifactError:
    """Returns the error about a file of an artifact that is not what it should be."""
    return ArtifactError(rule, code=code, received=received, hint=_COPY_AGAIN)


def _parsed(folder: Path, facts: dict[str, Any]) -> Manifest:
    path = folder / MANIFEST
    stated = facts.pop("digest", None)
    if stated != _own_digest(facts):
        raise damaged(f"{path} was changed", "changed-file", "another digest")
    try:
        image = facts["preprocessing"]
        # Earlier versions had one fraction for each mode, which they did not write.
        fraction = image["crop_fraction"] if "crop_fraction" in image else default_crop_fraction(image["mode"])
        resize = Resize(image["size"], image["mode"], image["filter"], fraction)
        classes = tuple(facts["classes"])
        if not classes or not all(isinstance(name, str) for name in classes):
            raise ValueError("classes")
        files = dict(facts["files"])
        return Manifest(folder, classes, resize, facts, files)
    except (KeyError, TypeError, ValueError, DataError) as error:
        raise damaged(f"{path} must hold classes, preprocessing and files", "damaged-manifest", str(error)) from error


def _verify(path: Path, stated: object) -> None:
    if not isinstance(stated, Mapping):
        raise damaged(f"{path.parent / MANIFEST} must list {path.name}", "damaged-manifest", "no digest of it")
    try:
        size = path.stat().st_size
        # The size is checked first: it costs nothing, and most damaged files are incomplete copies.
        if size != stated.get("bytes"):
            raise damaged(f"{path} was changed", "changed-file", f"{size} bytes instead of {stated.get('bytes')}")
        if file_record(path) != stated:
            raise damaged(f"{path} was changed", "changed-file", "another digest")
    except OSError as error:
        raise damaged(f"{path} must be readable", "unreadable-file", error.strerror) from error


SEEN_BY_WEIGHTS = "among those that the weights were trained on or selected by"
"""End of a note about images that the weights, which come from an artifact, were trained on or chosen by."""


def seen_by_weights(weights: str | None) -> NDArray[np.uint8]:
    """Returns the digests of the images that a file of weights was trained or validated on, uint8 (n, 16).

    There are none unless the file is the model of an artifact.
    """
    none = np.zeros((0, DIGEST_BYTES), np.uint8)
    if weights is None or not Path(weights).is_file():
        return none
    try:
        return read_seen(open_verified(Path(weights).parent, only=()))
    except ArtifactError:  # the file is not part of an artifact
        return none
