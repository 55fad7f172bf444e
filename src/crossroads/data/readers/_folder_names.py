"""Interprets names of folders, files and column values. They may mean a split, a container of images, masks, or no labels."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, VALIDATION
from crossroads.data.labels import class_name
from crossroads.errors import DataError
from crossroads.files.text import first_few

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""Names that mean a split if they stand alone."""
_LOOSE_SPLITS = {
    **dict.fromkeys(("train", "training", "trainval", "traindev"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel", "eval", "evaluation"), VALIDATION),
    **dict.fromkeys(("test", "testing", "holdout", "heldout"), TEST),
}
"""Words that mean a split even if a name contains other words."""
_GENERIC = frozenset((
    "set", "sets", "dir", "data", "dataset", "datasets", "image", "images", "img", "imgs", "pic", "pics", "picture",
    "pictures", "photo", "photos", "folder", "folders", "file", "files", "split", "splits", "part", "parts", "batch",
    "batches", "chunk", "chunks", "shard", "shards", "sample", "samples", "jpg", "jpeg", "jpegs", "png", "ppm", "jpegimages",
    "all", "full", "new", "final", "resized", "cropped", "original", "raw", "processed", "clean", "small", "main",
))  # fmt: skip
"""Words that say nothing about what an image shows."""
_HOLDERS = frozenset((
    "images", "image", "imgs", "img", "pics", "pictures", "photos", "jpg", "jpeg", "jpegs", "png", "jpegimages", "data",
    "samples", "files", "frames",
))  # fmt: skip
_PARTS = _HOLDERS | frozenset(["set", "dataset", "part", "batch", "chunk", "shard", "folder", "split"])
_OVERLAYS = frozenset((
    "mask", "masks", "segmentation", "segmentations", "segmentationclass", "segmentationobject", "label", "labels",
    "annotation", "annotations", "groundtruth", "gt", "bbox", "bboxes", "heatmaps", "thumbnails", "thumbs",
))  # fmt: skip
_BESIDE_OVERLAYS = _OVERLAYS | _GENERIC | {"class", "object", "instance", "semantic", "binary"}
_UNLABELLED = frozenset(["unknown", "unlabeled", "unlabelled", "nolabel", "nolabels", "none", "unsup", "unsupervised", "todo"])
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")
_GLUED = re.compile(
    rf"({'|'.join(sorted(_LOOSE_SPLITS, key=len, reverse=True))})({'|'.join(sorted(_GENERIC, key=len, reverse=True))})"
)


def split_of(name: str) -> int | None:
    """Returns the split that a folder or column value names exactly, or None. Ignores case."""
    return SPLIT_WORDS.get(name.strip().lower())


@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """Returns the words of a name in lower case.

    ``TrainImages``, ``train-images`` and ``trainimages`` all give ``train`` and ``images``.
    """
    words: list[str] = []
    for word in map(str.lower, _WORD.findall(class_name(name))):
        if words and words[-1] in ("hold", "held") and word == "out":
            words[-1] += word
        elif glued := _GLUED.fullmatch(word):
            words += glued.groups()
        else:
            words.append(word)
    return tuple(words)


def split_in(name: str) -> int | None:
    """Returns the split that a name mentions, possibly among other words. Returns None if there is no split or more than one."""
    splits = {_LOOSE_SPLITS[word] for word in words_of(name) if word in _LOOSE_SPLITS}
    return splits.pop() if len(splits) == 1 else None


def is_plain_split(name: str) -> bool:
    """Returns whether a name means only a split, such as ``train``, ``Training Set``, ``test1``, ``01_train`` or ``imgs_val``."""
    return split_in(name) is not None and not specific_words(name)


def specific_words(name: str) -> tuple[str, ...]:
    """Returns the words of a name that are not a split, a generic word, a number or a single letter."""
    return tuple(word for word in words_of(name) if word not in _LOOSE_SPLITS and word not in _GENERIC and not _is_counter(word))


def _is_counter(word: str) -> bool:
    """Returns whether a word is a number or a single letter."""
    return word.isdecimal() or len(word) == 1


def is_holder(name: str) -> bool:
    """Returns whether the name of a folder says only that it holds images, such as ``images`` or ``JPEGImages``."""
    words = words_of(name)
    return bool(words) and all(word in _HOLDERS or word.isdecimal() for word in words) and not words[0].isdecimal()


def is_overlay(name: str) -> bool:
    """Returns whether the name of a folder says that it holds masks or annotations of other images."""
    words = words_of(name)
    return bool(_OVERLAYS.intersection(words)) and all(word in _BESIDE_OVERLAYS or word.isdecimal() for word in words)


def is_unlabelled(name: str) -> bool:
    """Returns whether the name of a folder says that its images have no label."""
    return "".join(words_of(name)) in _UNLABELLED


def are_parts(names: Iterable[str]) -> bool:
    """Returns whether folders are numbered parts of one set of images, such as ``images_001`` and ``images_002``."""
    words = [tuple(word for word in words_of(name) if not _is_counter(word)) for name in names]
    return len(words) > 1 and len(set(words)) == 1 and bool(_PARTS.intersection(words[0]))


def stem_of(name: str) -> str:
    """Returns the name of a file without its folders and suffix."""
    return posixpath.splitext(posixpath.basename(name))[0]


def split_files(names: Sequence[str], origin: str, what: str) -> list[tuple[int, str]]:
    """Returns (split, name) for each file. A single file has no split.

    Raises:
        DataError: There are several files, and the name of one of them does not give a split.
    """
    if len(names) == 1:
        return [(NO_SPLIT, names[0])]
    splits = [(split_in(stem_of(name)) or NO_SPLIT, name) for name in names]
    if any(split == NO_SPLIT for split, _ in splits):
        raise DataError(
            f"{origin} holds {len(names)} {what} files, and it is not clear which to read",
            code="several-files",
            received=first_few(names, 4),
            hint="give the file itself, or name the files after their splits: train, val, test",
        )
    return splits
