"""Writes and reads ``neighbours.npz``: the features of training images, among which those that resemble an image are found.

features    float16 (n, d), rows of length 1
labels      int32 (n,)
names       unicode (n,)
thumbnails  uint8 (b,), JPEG files one after the other; only if the user asked for them
ends        int64 (n,), where each thumbnail ends
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.artifact._files import NEIGHBOURS
from crossroads.artifact._manifest import Manifest, damaged, open_verified

MOST_ROWS, MOST_BYTES = 20_000, 50_000_000
"""Limits of the number of images in the file, and of its size."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Training images and their features.

    Attributes:
        features: float16 (n, d), rows of length 1.
        labels: int32 (n,), their classes.
        names: unicode (n,), their names.
        thumbnails: A JPEG file for each image; None if none were kept.
    """

    features: NDArray[np.float16]
    labels: NDArray[np.int32]
    names: NDArray[np.str_]
    thumbnails: tuple[bytes, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)


def write_neighbours(path: Path, neighbours: Neighbours) -> None:
    """Writes the training images to a file."""
    arrays: dict[str, Any] = {name: getattr(neighbours, name) for name in ("features", "labels", "names")}
    if neighbours.thumbnails is not None:
        arrays["thumbnails"] = np.frombuffer(b"".join(neighbours.thumbnails), np.uint8)
        arrays["ends"] = np.cumsum([len(file) for file in neighbours.thumbnails], dtype=np.int64)
    np.savez(path, allow_pickle=False, **arrays)


def read_neighbours(manifest: Manifest) -> Neighbours | None:
    """Reads the training images of an artifact; None if it has none, as artifacts of earlier versions.

    Raises:
        ArtifactError: The file was changed or is not one of training images.
    """
    if NEIGHBOURS not in manifest.files:
        return None
    open_verified(manifest.folder, only=(NEIGHBOURS,))
    path = manifest.folder / NEIGHBOURS
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _checked({name: arrays[name] for name in arrays.files}, len(manifest.classes))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise damaged(f"{path} must hold training images", "not-neighbours", str(error)[:200]) from error


def _checked(arrays: Mapping[str, NDArray[Any]], classes: int) -> Neighbours:
    """Returns the training images. Raises `ValueError` or `KeyError` if the arrays do not fit together."""
    features, labels, names = (arrays[name] for name in ("features", "labels", "names"))
    kinds = features.dtype.kind, labels.dtype.kind, names.dtype.kind
    if kinds != ("f", "i", "U") or features.ndim != 2 or not labels.shape == names.shape == features.shape[:1]:
        raise ValueError(f"features {features.dtype} {features.shape}, labels {labels.shape}, names {names.shape}")
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError("a label names a class that does not exist")
    if "thumbnails" not in arrays:
        return Neighbours(features, labels, names)
    data, ends = arrays["thumbnails"].tobytes(), arrays["ends"]
    starts = np.concatenate([[0], ends[:-1]])
    if ends.shape != labels.shape or (starts > ends).any() or (len(ends) and ends[-1] > len(data)):
        raise ValueError("the ends of the thumbnails do not fit")
    return Neighbours(features, labels, names, tuple(data[start:end] for start, end in zip(starts, ends, strict=True)))
