"""Writes and reads ``held_out.npz``: what the classifier predicts for each image that the scores of a run are computed from.

For each split, ``test`` and ``validation``, the file has these arrays. A split without images has none of them.

    <split>_names              unicode (n,)
    <split>_labels             int32 (n,), the true class
    <split>_digests            uint8 (n, 16), as in ``seen.npy``
    <split>_top_labels         int32 (n, k), the most probable classes, most probable first; k is at most 5
    <split>_top_probabilities  float32 (n, k)
    <split>_groups             int64 (n,), the group of each image, only if there are groups
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.artifact._files import HELD_OUT
from crossroads.artifact._manifest import damaged, open_verified
from crossroads.data.dataset import DIGEST_BYTES, Dataset
from crossroads.files.text import printable

TOP = 5
"""Number of classes that are kept per image."""

_COLUMNS = {"names": "U", "labels": "i", "digests": "u", "top_labels": "i", "top_probabilities": "f", "groups": "i"}
"""The kind of each array, as `numpy.dtype.kind` names it."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The predictions for n images.

    Attributes:
        names: unicode (n,), the names of the images.
        labels: int32 (n,), the true classes.
        digests: uint8 (n, 16), the digests of the images.
        top_labels: int32 (n, k), the most probable classes, most probable first.
        top_probabilities: float32 (n, k), their probabilities.
        groups: int64 (n,), the group of each image; None if the images are independent.
    """

    names: NDArray[np.str_]
    labels: NDArray[np.int32]
    digests: NDArray[np.uint8]
    top_labels: NDArray[np.int32]
    top_probabilities: NDArray[np.float32]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> NDArray[np.int32]:
        """The most probable class of each image, int32 (n,)."""
        return self.top_labels[:, 0]

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of the most probable class, float32 (n,)."""
        return self.top_probabilities[:, 0]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is classified correctly, bool (n,)."""
        right: NDArray[np.bool_] = self.predicted == self.labels
        return right


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """The predictions that the scores of a run are computed from.

    Attributes:
        test: Those for the test images, by the saved model; None without a test.
        validation: Those for the images of the validation scores. If these are cross-validated, they are the training and
            validation images, each predicted by a head that was not fitted to it.
    """

    test: Predictions | None
    validation: Predictions | None


def predictions_of(dataset: Dataset, digests: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Predictions:
    """Returns the predictions for the rows of a data set, from their probabilities, float32 (n, k)."""
    # A stable sort gives a tie to the class that comes first, as in the evaluation.
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    return Predictions(
        np.array([printable(dataset.name(row)) for row in range(len(dataset))], np.str_),
        dataset.labels,
        digests,
        best.astype(np.int32),
        np.take_along_axis(probabilities, best, axis=1).astype(np.float32),
        dataset.groups,
    )


def write_held_out(path: Path, held_out: HeldOut) -> None:
    """Writes the predictions to a file."""
    np.savez_compressed(path, allow_pickle=False, **dict(_arrays(held_out)))


def read_held_out(folder: str | PathLike[str]) -> HeldOut | None:
    """Reads the predictions of an artifact; None if it has none, as artifacts of earlier versions.

    Raises:
        ArtifactError: The folder is not an artifact, or the file was changed or is not one of predictions.
    """
    manifest = open_verified(folder, only=())
    if HELD_OUT not in manifest.files:
        return None
    open_verified(folder, only=(HELD_OUT,))
    path = manifest.folder / HELD_OUT
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        return HeldOut(*(_predictions(found, split, len(manifest.classes)) for split in ("test", "validation")))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise damaged(f"{path} must hold predictions", "not-predictions", str(error)[:200]) from error


def _arrays(held_out: HeldOut) -> Iterator[tuple[str, NDArray[Any]]]:
    for split in ("test", "validation"):
        predictions: Predictions | None = getattr(held_out, split)
        if predictions is not None:
            columns = {name: getattr(predictions, name) for name in _COLUMNS}
            yield from ((f"{split}_{name}", column) for name, column in columns.items() if column is not None)


def _predictions(arrays: Mapping[str, NDArray[Any]], split: str, classes: int) -> Predictions | None:
    """Returns the predictions of a split. Raises `ValueError` or `KeyError` if its arrays do not fit together."""
    if f"{split}_labels" not in arrays:
        return None
    columns = {name: arrays[f"{split}_{name}"] for name in _COLUMNS if name != "groups" or f"{split}_groups" in arrays}
    n = len(columns["labels"])
    k = min(TOP, classes)
    shapes = {"digests": (n, DIGEST_BYTES), "top_labels": (n, k), "top_probabilities": (n, k)}
    for name, column in columns.items():
        if column.shape != shapes.get(name, (n,)) or column.dtype.kind != _COLUMNS[name]:
            raise ValueError(f"{split}_{name} is {column.dtype} {column.shape}")
    for name in ("labels", "top_labels"):
        if n and not (columns[name].min() >= 0 and columns[name].max() < classes):
            raise ValueError(f"{split}_{name} names a class that does not exist")
    return Predictions(**columns)
