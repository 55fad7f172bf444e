"""Reads the idx files of MNIST, Fashion-MNIST, KMNIST and EMNIST, with or without gzip compression."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from crossroads.data.dataset import NO_SPLIT, TEST, Dataset
from crossroads.data.readers._arrays import Pair, dataset_of_pairs
from crossroads.data.readers._folder_names import split_in
from crossroads.data.readers._listing import Listing, once_per_listing
from crossroads.errors import DataError
from crossroads.files.archives import Limits, decompressed
from crossroads.progress import Note

_IMAGES = re.compile(r"(.*?)images?[-.]idx3-ubyte(\.gz)?")


@once_per_listing
def pairs_of_files(listing: Listing) -> dict[str, tuple[str, str]]:
    """Returns pairs of an images file and its labels file. The key is the prefix of the file name, which gives the split."""
    files: dict[str, tuple[str, str]] = {}
    for name in () if listing.single else listing.top_files:
        match = _IMAGES.fullmatch(name)
        if match and match[1] not in files:
            labels = name.replace("images", "labels").replace("image", "label").replace("idx3", "idx1")
            spellings = (labels, labels.removesuffix(".gz"), labels + ".gz")
            if partner := next((other for other in spellings if other in listing.top_files), None):
                files[match[1]] = (name, partner)
    return files


def read(listing: Listing) -> Dataset:
    """Returns the data set of files such as ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``.

    Files that begin with ``t10k`` are the test set.
    """
    files, pairs, notes = pairs_of_files(listing), list[Pair[object]](), list[Note]()
    for prefix, split in _splits(listing).items():
        images, labels = files[prefix]
        pixels = _load(listing, images, 3)
        if prefix.startswith("emnist"):
            pixels = pixels.transpose(0, 2, 1)
            notes = [Note("EMNIST stores its images transposed; they are turned upright", "images-transposed")]
        pairs.append((split, listing.label(images), pixels, _load(listing, labels, 1)))
    return dataset_of_pairs(pairs, listing.origin, notes)


def _splits(listing: Listing) -> dict[str, int]:
    """Returns the split of each pair of files, by its prefix. A single pair has no split."""
    files = pairs_of_files(listing)
    if len(files) == 1:
        return dict.fromkeys(files, NO_SPLIT)
    splits = {prefix: TEST if prefix.startswith("t10k") else split_in(prefix) or NO_SPLIT for prefix in files}
    if len(set(splits.values())) < len(splits):
        raise DataError(
            f"{listing.origin} must hold the idx files of one set",
            code="several-sets",
            received=", ".join(images for images, _ in files.values()),
            hint="put each set into its own folder, and give one of them",
        )
    if NO_SPLIT in splits.values():
        raise DataError(
            f"the idx files of {listing.origin} must name their splits",
            code="unnamed-split",
            received=", ".join(images for images, _ in files.values()),
            hint="give the files of one set alone",
        )
    return splits


def _load(listing: Listing, name: str, dimensions: int) -> NDArray[np.uint8]:
    """Returns the array in an idx file. Refuses a file whose length does not match the sizes in its header."""
    file = listing.byte_range(name)
    if name.endswith(".gz"):
        file = decompressed(file, "gz", listing.label(name), Limits())
    head = file.read(0, 4 + 4 * dimensions)
    shape = tuple(int.from_bytes(head[at : at + 4], "big") for at in range(4, 4 + 4 * dimensions, 4))
    if head[:4] != bytes((0, 0, 8, dimensions)) or file.size != len(head) + math.prod(shape):
        rule = f"{listing.label(name)} must be a complete idx file"
        raise DataError(rule, code="malformed-idx", received=f"{file.size} bytes", hint="fetch it again")
    return np.frombuffer(file.buffer(), np.uint8, math.prod(shape), len(head)).reshape(shape)
