"""NumPy's own files: .npz, and .npy pairs. Nothing in them is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from crossroads.data._npy import load_npy
from crossroads.data.dataset import Dataset
from crossroads.data.readers._arrays import IMAGE_KEYS, LABEL_KEYS, Pair, from_pairs, pairs_of
from crossroads.data.readers._folder_names import split_files
from crossroads.data.readers._listing import View, suffix_of
from crossroads.errors import DataError
from crossroads.files.archives import Limits
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.trees import open_archive


def npz_files(view: View) -> list[str]:
    """The .npz files of a view."""
    return [name for name in view.top_files if suffix_of(name) == ".npz" and view.kind in ("", "zip")]


def read_npz(view: View) -> Dataset:
    """``numpy.savez(file, features=…, labels=…)``; a pair for each split where the names say so."""
    pairs: list[Pair[ByteRange]] = []
    for split, name in split_files(npz_files(view), view.origin, ".npz"):
        label = view.label(name)
        for inner, key, images, labels in pairs_of(_Members(view.byte_range(name), label), label):
            pairs.append((inner or split, f"{label}:{key}" if split and not inner else key, images, labels))
    return _loaded(pairs, view.origin)


class _Members(Mapping[str, ByteRange]):
    """The arrays of an .npz by name; only the wanted ones are inflated: others may be large, or hold objects."""

    def __init__(self, span: ByteRange, label: str) -> None:
        if not zipfile.is_zipfile(span.stream()):
            raise DataError(f"{label} is not a complete .npz file", received=f"{span.size} bytes", hint="fetch or save it again")
        self._tree = open_archive(span, "zip", label, Limits(ratio=10**9))  # blank images deflate beyond any ratio
        self._names = {name.removesuffix(".npy"): name for name in self._tree.names() if name.endswith(".npy")}

    def __getitem__(self, key: str) -> ByteRange:
        return self._tree.byte_range(self._names[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _loaded(pairs: Sequence[Pair[ByteRange]], origin: str) -> Dataset:
    return from_pairs([(split, name, load_npy(images), load_npy(labels)) for split, name, images, labels in pairs], origin)


def npy_files(view: View) -> list[str]:
    """The .npy files of a view; beside a single one its neighbours, because a pair lies in two files."""
    if not view.single:
        return [name for name in view.top_files if suffix_of(name) == ".npy"]
    name = view.names[0]
    if view.kind != "npy":
        return []
    stem = PurePosixPath(name).stem
    beside = [stem.replace(old, new) for old, new in _partners(stem)]
    return [name, *(f"{other}.npy" for other in dict.fromkeys(beside) if other != stem and view.tree.exists(f"{other}.npy"))]


def _partners(stem: str) -> list[tuple[str, str]]:
    """What to replace in the name of an images file to get that of its labels, and the other way round."""
    cases: tuple[Callable[[str], str], ...] = (str.lower, str.capitalize, str.upper)
    ours = [key for key in (*IMAGE_KEYS, *LABEL_KEYS) if key in stem.lower()]
    pairs = [(key, other) for key in ours for other in (LABEL_KEYS if key in IMAGE_KEYS else IMAGE_KEYS)]
    return [(mine(key), theirs(other)) for key, other in pairs for mine in cases for theirs in cases]


def read_npy(view: View) -> Dataset:
    """``X.npy`` with ``y.npy``, ``images.npy`` with ``labels.npy`` and so on, memory-mapped."""
    spans = {PurePosixPath(name).stem: view.byte_range(name) for name in npy_files(view)}
    return _loaded(pairs_of(spans, view.origin), view.origin)
