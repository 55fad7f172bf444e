"""What the name of a folder, a file or a column value says: a split, or nothing about the images in it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, VALIDATION
from crossroads.data.labels import class_name
from crossroads.data.readers._listing import split_of
from crossroads.errors import DataError

_LOOSE_SPLITS = {
    **dict.fromkeys(("train", "training", "trainval", "traindev"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel", "eval", "evaluation"), VALIDATION),
    **dict.fromkeys(("test", "testing", "holdout", "heldout"), TEST),
}
_GENERIC = frozenset((
    "set", "sets", "dir", "data", "dataset", "datasets", "image", "images", "img", "imgs", "pic", "pics", "picture",
    "pictures", "photo", "photos", "folder", "folders", "file", "files", "split", "splits", "part", "parts", "batch",
    "batches", "chunk", "chunks", "shard", "shards", "sample", "samples", "jpg", "jpeg", "jpegs", "png", "ppm", "jpegimages",
    "all", "full", "new", "final", "resized", "cropped", "original", "raw", "processed", "clean", "small", "main",
))  # fmt: skip
"""Words that tell nothing about what an image shows."""
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


@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in lower case: ``train`` and ``images`` for ``TrainImages``, ``train-images`` and ``trainimages``."""
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
    """The one split that a name speaks of among other words, or None."""
    found = {_LOOSE_SPLITS[word] for word in words_of(name) if word in _LOOSE_SPLITS}
    return found.pop() if len(found) == 1 else None


def is_plain_split(name: str) -> bool:
    """Whether a name says a split and otherwise nothing: ``train``, ``Training Set``, ``test1``, ``01_train``, ``imgs_val``."""
    return split_in(name) is not None and not beside_split(name)


def beside_split(name: str) -> tuple[str, ...]:
    """The words of a name that are neither a split nor generic nor a number."""
    return tuple(word for word in words_of(name) if word not in _LOOSE_SPLITS and word not in _GENERIC and not _counts(word))


def _counts(word: str) -> bool:
    return word.isdecimal() or len(word) == 1


def is_usual_split(name: str) -> bool:
    """Whether a name is a split word and no more, so that how it was read needs no word."""
    return split_of(name) is not None


def is_holder(name: str) -> bool:
    """Whether a folder's name says only that there are images in it, such as ``images`` or ``JPEGImages``."""
    words = words_of(name)
    return bool(words) and all(word in _HOLDERS or word.isdecimal() for word in words) and not words[0].isdecimal()


def is_overlay(name: str) -> bool:
    """Whether a folder's name says that its pictures are drawn over images: masks, annotations."""
    words = words_of(name)
    return bool(_OVERLAYS.intersection(words)) and all(word in _BESIDE_OVERLAYS or word.isdecimal() for word in words)


def is_unlabelled(name: str) -> bool:
    """Whether a folder's name says that its images have no label."""
    return "".join(words_of(name)) in _UNLABELLED


def are_parts(names: Iterable[str]) -> bool:
    """Whether folders are numbered parts of one set of images, such as ``images_001`` and ``images_002``."""
    words = [tuple(word for word in words_of(name) if not _counts(word)) for name in names]
    return len(words) > 1 and len(set(words)) == 1 and bool(_PARTS.intersection(words[0]))


def stem_of(name: str) -> str:
    """The name of a file without its folders and its suffix."""
    return posixpath.splitext(posixpath.basename(name))[0]


def split_files(names: Sequence[str], origin: str, what: str) -> list[tuple[int, str]]:
    """Several files of one kind as (split, name): one file has no split; several must each name their own."""
    if len(names) == 1:
        return [(NO_SPLIT, names[0])]
    splits = [(NO_SPLIT if (split := split_in(stem_of(name))) is None else split, name) for name in names]
    if any(split == NO_SPLIT for split, _ in splits):
        raise DataError(
            f"{origin} holds {len(names)} {what} files, and it is not clear which to read",
            received=", ".join(names[:4]) + (", …" if len(names) > 4 else ""),
            hint="give the file itself, or name them after their splits: train, val, test",
        )
    return splits
