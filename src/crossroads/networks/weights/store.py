"""The cache of pretrained weights: Keras' own folder, so that a file fetched by either is there for both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossroads.errors import DataError, WeightsError
from crossroads.files.byte_ranges import open_plain
from crossroads.files.trees import existing
from crossroads.networks.catalog import CATALOG, Backbone, Pretrained
from crossroads.networks.weights.download import Progress, Unreachable, agrees, digest_of, download
from crossroads.networks.weights.read import read_weights

MIRROR = "CROSSROADS_WEIGHTS_URL"
"""Environment variable: address of a folder that has the files, in place of where they come from."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One file of pretrained weights, as `crossroads weights list` shows it.

    Attributes:
        backbones: Who uses it.
        file: Its name.
        address: Where it comes from.
        digest: ``md5:…`` or ``sha256:…``; "" where upstream publishes none.
        licence: Of the weights.
        path: Where it lies, or would lie.
        size: Its bytes; None where it is not there.
    """

    backbones: tuple[str, ...]
    file: str
    address: str
    digest: str
    licence: str
    path: Path
    size: int | None


def cache_folder() -> Path:
    """``$KERAS_HOME/models``, or ``~/.keras/models``: where Keras itself keeps pretrained weights."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home).expanduser() if home else Path("~/.keras").expanduser()) / "models"


def require_imagenet(record: Backbone) -> Pretrained:
    """Where the ImageNet weights of a backbone come from. Raises `WeightsError` where there are none."""
    if record.pretrained is None:
        raise WeightsError(
            f"{record.name} has no ImageNet weights",
            received="--weights imagenet",
            hint="use --weights none, or a file of your own",
        )
    return record.pretrained


def obtain(
    record: Backbone, *, progress: Progress | None = None, mirror: str | None = None, note: Callable[[str], None] | None = None
) -> Path:
    """The file of ImageNet weights of a backbone: from the cache, else from the network.

    Args:
        record: The backbone.
        progress: Told how much is here while it is fetched.
        mirror: Address of a folder that has the file, in place of its own; the variable `MIRROR` by default.
        note: Receives a sentence where a file was downloaded that has no digest to verify it by.

    Raises:
        WeightsError: It has no such weights, or they are neither here nor to be had; then the message says what to put where. Or
            what came, without a digest to tell, cannot be read as weights.
    """
    wanted = require_imagenet(record)
    place = cache_folder() / wanted.file
    damaged = place.is_file() and not agrees(place, wanted.digest)
    if place.is_file() and not damaged:
        return place
    base = mirror or os.environ.get(MIRROR)
    address = f"{base.rstrip('/')}/{wanted.file}" if base else wanted.address
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        download(address, place, wanted.digest, progress)
    except Unreachable as error:
        state = "are damaged in the cache" if damaged else "are not in the cache"
        raise WeightsError(
            f"the ImageNet weights of {record.name} {state}, and could not be fetched",
            received=str(error),
            hint=f"fetch {wanted.file} from {address} where there is a network, then `crossroads weights add {wanted.file}`, "
            f"or put it into {place.parent}",
        ) from error
    except OSError as error:
        raise _unwritable(place.parent, error) from error
    if not wanted.verified:
        _require_weights(place)
        if note is not None:
            note(f"{wanted.file} was downloaded and cannot be verified: its publisher names no digest")
    return place


def _require_weights(place: Path) -> None:
    """Raises `WeightsError`, and removes the file, where it is not even a file of weights."""
    try:
        read_weights(place)
    except WeightsError:
        place.unlink()
        raise


def add(path: Path, records: Sequence[Backbone] = CATALOG) -> Path:
    """Copy a file of ImageNet weights into the cache, checked. It is known by its name, else by its digest.

    Returns:
        Where it lies now.

    Raises:
        WeightsError: There is no such file, no backbone uses it, or it is another one of the same name.
    """
    source = _file(path)
    known = recognise(source, records)
    if known is None:
        named = _named(source.name, records)
        if named is not None:
            raise WeightsError(
                f"{source.name} must have the digest {named.digest}",
                received=f"{named.digest.partition(':')[0]}:{digest_of(source, named.digest.partition(':')[0])}",
                hint=f"fetch it again from {named.address}",
            )
        raise WeightsError(
            "only the ImageNet weights of a backbone of the catalog go into the cache",
            received=source.name,
            hint=f"use it from where it is, with --weights {path}, or see the files of `crossroads weights list`",
        )
    if not known.digest:
        read_weights(source)  # nothing but its name speaks for it, so it must at least be weights
    target = cache_folder() / known.file
    if not (target.exists() and target.samefile(source)):
        _copy(source, target)
    return target


def recognise(path: Path, records: Sequence[Backbone] = CATALOG) -> Pretrained | None:
    """Which of the catalog's files this is: by name and digest, else by digest alone. None where it is none of them."""
    named = _named(path.name, records)
    if named is not None and agrees(path, named.digest):
        return named
    digests: dict[str, str] = {}
    for record in records:
        algorithm, _, expected = (record.pretrained.digest if record.pretrained else "").partition(":")
        if record.pretrained is None or len(expected) < 32:  # a few digits with another name save_and_test little
            continue
        if algorithm not in digests:
            digests[algorithm] = digest_of(path, algorithm)
        if digests[algorithm] == expected:
            return record.pretrained
    return None


def describe(records: Sequence[Backbone] = CATALOG) -> list[Stored]:
    """A row for each file of ImageNet weights that the catalog knows, in the order of the catalog. Digests are not looked at."""
    files: dict[str, Pretrained] = {}
    users: dict[str, list[str]] = {}
    for record in records:
        if record.pretrained is not None:
            files.setdefault(record.pretrained.file, record.pretrained)
            users.setdefault(record.pretrained.file, []).append(record.name)
    folder = cache_folder()
    return [
        Stored(tuple(users[name]), name, one.address, one.digest, one.licence, folder / name, _size(folder / name))
        for name, one in files.items()
    ]


def _named(name: str, records: Sequence[Backbone]) -> Pretrained | None:
    return next((record.pretrained for record in records if record.pretrained and record.pretrained.file == name), None)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _file(path: Path) -> Path:
    """A plain file that can be opened. Raises `WeightsError`."""
    try:
        place = existing(path)
        os.close(open_plain(place))
    except (DataError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        hint = error.hint if isinstance(error, DataError) else "give a file of weights"
        raise WeightsError(f"{path} cannot be opened", received=reason, hint=hint) from error
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
        received=error.strerror or str(error),
        hint="free space there, or set KERAS_HOME to another folder",
    )
