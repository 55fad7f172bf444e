"""The idx files of MNIST, Fashion-MNIST, KMNIST and EMNIST, packed with gzip or not."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import NO_SPLIT, TEST, Dataset
from crossroads.data.readers._arrays import Pair, from_pairs
from crossroads.data.readers._folder_names import split_in
from crossroads.data.readers._listing import View
from crossroads.errors import DataError
from crossroads.files.archives import Limits, decompressed

_IMAGES = re.compile(r"(.*?)images?[-.]idx3-ubyte(\.gz)?")


def idx_files(view: View) -> dict[str, tuple[str, str]]:
    """Files of images with those of their labels, by the part of the name that tells the split."""
    found: dict[str, tuple[str, str]] = {}
    if view.single:
        return found
    for name in view.top_files:
        match = _IMAGES.fullmatch(name)
        if match and match[1] not in found:
            labels = name.replace("images", "labels").replace("image", "label").replace("idx3", "idx1")
            if partner := next(
                (other for other in (labels, labels.removesuffix(".gz"), labels + ".gz") if other in view.top_files), None
            ):
                found[match[1]] = (name, partner)
    return found


def read_idx(view: View) -> Dataset:
    """``train-images-idx3-ubyte`` with ``train-labels-idx1-ubyte``, and ``t10k-…`` as the test set."""
    found, pairs, notes = idx_files(view), list[Pair[object]](), list[str]()
    splits = {prefix: TEST if prefix.startswith("t10k") else split_in(prefix) for prefix in found}
    if len(set(splits.values())) < len(splits):
        raise DataError(
            f"{view.origin} must hold the idx files of one set",
            received=", ".join(images for images, _ in found.values()),
            hint="put each set into a folder of its own, and give one of them",
        )
    for prefix, (images, labels) in found.items():
        split = NO_SPLIT if len(found) == 1 else splits[prefix]
        if split is None:
            received = ", ".join(images for images, _ in found.values())
            raise DataError(
                f"the idx files of {view.origin} must name their splits", received=received, hint="give those of one set alone"
            )
        pixels = _load(view, images, 3)
        if prefix.startswith("emnist"):
            pixels = pixels.transpose(0, 2, 1)
            notes = ["EMNIST stores its images on their side; they are turned upright"]
        pairs.append((split, view.label(images), pixels, _load(view, labels, 1)))
    return from_pairs(pairs, view.origin, notes)


def _load(view: View, name: str, dimensions: int) -> NDArray[np.uint8]:
    """One array of unsigned bytes, with the sizes that its head says where that many bytes follow."""
    span = view.byte_range(name)
    if name.endswith(".gz"):
        span = decompressed(span, "gz", view.label(name), Limits())
    head = span.read(0, 4 + 4 * dimensions)
    shape = tuple(int.from_bytes(head[at : at + 4], "big") for at in range(4, 4 + 4 * dimensions, 4))
    if head[:4] != bytes((0, 0, 8, dimensions)) or span.size != len(head) + math.prod(shape):
        raise DataError(f"{view.label(name)} must be a complete idx file", received=f"{span.size} bytes", hint="fetch it again")
    return np.frombuffer(span.buffer(), np.uint8, math.prod(shape), len(head)).reshape(shape)
