"""One reader a format, told apart by looking; `read` is the way in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossroads.data.dataset import Dataset
from crossroads.data.labels import load_class_names, rename
from crossroads.data.readers import (
    _tables as tables,
)
from crossroads.data.readers import (
    cifar,
    gtsrb,
    idx,
    memory,
    npy,
    parquet,
    pickles,
    split_folders,
)
from crossroads.data.readers import (
    class_folders as folders,
)
from crossroads.data.readers import (
    table as _choice,
)
from crossroads.data.readers import (
    webdataset as shards,
)
from crossroads.data.readers._listing import View, described, is_image_name, suffix_of, views
from crossroads.data.readers.unsupported import hint_for
from crossroads.errors import DataError
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.text import plural, printable, were
from crossroads.files.trees import Folder, detect_kind, existing, open_archive

ClassNames = str | os.PathLike[str] | Mapping[int, str] | Sequence[str]


@dataclass(frozen=True, slots=True)
class Reader:
    """One layout of labelled images.

    Attributes:
        name: What to call it.
        layout: What it looks like, for the error that lists what is known.
        recognises: Whether a view holds it. Looks at names, and at the first bytes of few files.
        read: Makes the data set; decodes no image.
        splits_by_lists: Whether lists of paths, such as ``train.txt``, may give the splits.
    """

    name: str
    layout: str
    recognises: Callable[[View], object]
    read: Callable[[View], Dataset]
    splits_by_lists: bool = False


READERS = (
    Reader("gtsrb", "GTSRB's Final_Training and Final_Test with their GT-*.csv", gtsrb.is_official, gtsrb.read_official),
    Reader("gtsrb-kaggle", "Kaggle's GTSRB: Train/<class>/*.png and Test.csv", gtsrb.is_kaggle, gtsrb.read_kaggle),
    Reader("cifar", "CIFAR's data_batch_1 … with batches.meta", cifar.is_cifar, cifar.read_cifar),
    Reader("idx", "MNIST's train-images-idx3-ubyte with its labels", idx.idx_files, idx.read_idx),
    Reader("webdataset", "tar archives of 000.jpg with 000.cls", shards.has_labels, shards.read_shards),
    Reader("table", "a CSV, TSV or JSON lines with the columns path and label", _choice.table_wins, tables.read_tables),
    Reader(
        "split-folders",
        "train/<class>/<image> with val/ and test/",
        split_folders.has_split_folders,
        split_folders.read_split_folders,
    ),
    Reader("class-folders", "<class>/<image>", folders.has_several_class_folders, folders.read_class_folders, splits_by_lists=True),
    Reader("parquet", "Parquet with the columns image and label", parquet.parquet_files, parquet.read_parquet),
    Reader("pickle", "a pickled dict of features and labels", pickles.pickles, pickles.read_pickles),
    Reader("npz", "an .npz of features and labels", npy.npz_files, npy.read_npz),
    Reader("npy", "X.npy with y.npy", npy.npy_files, npy.read_npy),
    Reader(
        "one-class-folder",
        "<class>/<image>, a single class",
        folders.has_class_folder,
        folders.read_class_folders,
        splits_by_lists=True,
    ),
)
"""Every layout that is read; the first one that recognises the data wins, so the specific ones come first."""


ARTIFACT = ("crossroads.json", "model.keras")
"""Files by which a folder that `fit` wrote is known, whose arrays are no images."""


def read(source: object, *, class_names: ClassNames | None = None) -> Dataset:
    """Labelled images as one immutable data set. No image is decoded yet.

    Args:
        source: One of these.
            The path of a folder, or of a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz archive of what a folder may hold.
            The path of one CSV, TSV, JSON lines, JSON, list, pickle, .npz, .npy or Parquet file.
            What is in memory, as ``(images, labels)`` or a mapping such as ``{"features": …, "labels": …}``: images as one array
            (n, height, width) or (n, height, width, 1, 3 or 4), uint8, or floats in [0, 1]; or as a list of paths, encoded files,
            arrays and Pillow images; labels (n,) integers, strings or booleans, or one-hot (n, k). Two such pairs are train and
            test, three are train, validation and test. A list of ``{"image": …, "label": …}`` is read as well.
            A data set, which is returned as it is.
        class_names: Names of integer labels: a mapping, a sequence, or the path of a file with lines such as ``14,Stop`` or with
            one name per line, numbered from 0.

    Returns:
        The data set; its `notes` say what was ignored and why.

    Raises:
        DataError: An unknown or ambiguous layout, a bad row, a missing, hostile or broken file;
            says what was found.
        MissingExtraError: Parquet without pyarrow.
    """
    dataset = _read(source)
    if not len(dataset):
        raise DataError(f"{dataset.origin} must hold at least one labelled image", received="0 images", hint=_known())
    if class_names is None:
        return dataset
    return rename(dataset, load_class_names(class_names) if isinstance(class_names, (str, os.PathLike)) else class_names)


def _read(source: object) -> Dataset:
    if isinstance(source, Dataset):
        return source
    if isinstance(source, (str, os.PathLike)):
        view = _first_view(Path(os.fspath(source)))
        dataset = _recognised(view)
        notes = view.tree.repeat_notes() if isinstance(view.tree, Folder) else []
        return replace(dataset, notes=(*dataset.notes, *notes)) if notes else dataset
    return memory.read_memory(source)


def _first_view(path: Path) -> View:
    """A folder or an archive with all its names, or a single file."""
    place, origin = existing(path), printable(str(path))
    if place.is_dir():
        folder = Folder(place)
        return View(folder, "", folder.names(), origin)
    span = ByteRange.from_path(place)
    kind = detect_kind(span)
    if suffix_of(place.name) != ".npz" and kind in ("zip", "tar", "gz", "bz2", "xz"):
        tree = open_archive(span, kind, origin)
        return View(tree, "", tree.names(), origin)
    return View(Folder(place.parent, place.name), "", [printable(place.name)], origin, single=True, kind=kind)


def _recognised(first: View) -> Dataset:
    if not first.names:
        raise DataError(f"{first.origin} must hold labelled images", received="no files", hint=_known())
    if set(ARTIFACT) <= set(first.names) and not any("/" in name for name in first.names):
        hint = "give it to evaluate or predict, with images beside it"
        raise DataError(f"{first.origin} must hold labelled images", received="an artifact that fit wrote", hint=hint)
    levels = list(views(first))
    for reader in READERS:
        for view in levels:
            if reader.recognises(view):
                dataset = reader.read(view)
                if reader.splits_by_lists:
                    dataset = _choice.with_listed_splits(levels, dataset)
                return replace(dataset, notes=(*first.notes, *_ignored_above(levels, view), *dataset.notes))
    hint = _known()
    if first.single and is_image_name(first.names[0]):
        hint = "give the folder that holds the class folders, not one image"
    elif packed := [name for name in first.names if suffix_of(name) in (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2")]:
        hint = f"give the archive itself: {packed[0]}"
    else:
        folders.refuse_unlabelled(levels[-1])
        hint = hint_for(first) or hint
    raise DataError(f"no known layout of labelled images in {first.origin}", received=described(first.names), hint=hint)


def _ignored_above(levels: Sequence[View], view: View) -> list[str]:
    """Notes on images that lie beside what was read, at its level and above."""
    until = levels.index(view)
    loose = [level.loose for level in levels[:until] if level.loose]
    beside = [f"{plural(count, 'image')} beside the folder {view.root} {were(count)} ignored" for count in loose]
    return beside + [note for level in levels[: until + 1] for note in folders.drawings(level)]


def _known() -> str:
    return "known layouts: " + "; ".join(reader.layout for reader in READERS[:-1])
