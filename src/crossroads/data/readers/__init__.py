"""Readers: labelled images in any layout become one `Dataset`. `read` is the entry point.

To add a format, write one module here with three names, `cifar.py` for example::

    LAYOUT = "CIFAR's data_batch_1 … with batches.meta"   # one line; an error lists it among the known layouts

    def recognises(listing: Listing) -> bool:  # looks at names, and at the first bytes of few files
    def read(listing: Listing) -> Dataset:     # decodes no image; Dataset.notes say what is ignored

Then add the module to `READERS` below, one `Layout` to ``tests/data/readers/layout_list.py`` and its row to the table at the end of
``docs/reference/layouts.md``. A format that is known but not read is a line in `unsupported.UNSUPPORTED`.

Modules with an underscore are what readers share:

- `_listing`: the names below one folder of a directory tree or an archive;
- `_folder_names`, `_top_folders`: which names mean a split, a mere container, masks;
- `_folder_notes`, `_folder_refusals`: what is said about folders, and which folders are refused;
- `_sheets`, `_columns`, `_tables`, `_table_images`, `_table_reading`: from a file of rows to labelled images;
- `_image_lookup`: from what a row says to a file; `_listed_splits`: lists of paths that give splits;
- `_arrays`: from named arrays to a data set; `_labelled`, `_sources`: rows and images before they are a data set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from crossroads.data.dataset import Dataset
from crossroads.data.labels import load_class_names, rename
from crossroads.data.readers import (
    cifar,
    class_folders,
    gtsrb,
    gtsrb_kaggle,
    idx,
    memory,
    npy,
    npz,
    one_class_folder,
    parquet,
    pickles,
    split_folders,
    table,
    webdataset,
)
from crossroads.data.readers._folder_notes import artwork_ignored, images_outside
from crossroads.data.readers._folder_refusals import refuse_flat_images
from crossroads.data.readers._listing import Listing, described, is_image_name, suffix_of
from crossroads.data.readers.unsupported import unsupported_hint
from crossroads.errors import DataError
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.text import printable
from crossroads.files.trees import Folder, detect_kind, existing, open_archive
from crossroads.progress import Note

ClassNames = str | os.PathLike[str] | Mapping[int, str] | Sequence[str]


class Reader(Protocol):
    """One layout of labelled images: a module with these names."""

    LAYOUT: str

    def recognises(self, listing: Listing, /) -> bool:
        """Returns whether a listing has this layout."""
        ...

    def read(self, listing: Listing, /) -> Dataset:
        """Returns the data set."""
        ...


READERS: tuple[Reader, ...] = (
    gtsrb,
    gtsrb_kaggle,
    cifar,
    idx,
    webdataset,
    table,
    split_folders,
    class_folders,
    parquet,
    pickles,
    npz,
    npy,
    one_class_folder,
)
"""Every layout that is read. The first reader that recognises the data wins, so specific layouts come first."""

ARTIFACT = ("crossroads.json", "model.xml")
"""Files that identify a folder written by `fit`. Its arrays are no images."""

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2")


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
        The data set. Its `notes` say what was ignored and why.

    Raises:
        DataError: The layout is unknown or ambiguous, a row is malformed, or a file is missing, hostile or damaged.
        MissingExtraError: Parquet without pyarrow.
    """
    dataset = _read(source)
    if not len(dataset):
        raise _no_images(dataset.origin, "0 images")
    if class_names is None:
        return dataset
    return rename(dataset, load_class_names(class_names) if isinstance(class_names, (str, os.PathLike)) else class_names)


def _read(source: object) -> Dataset:
    if isinstance(source, Dataset):
        return source
    if not isinstance(source, (str, os.PathLike)):
        return memory.read_memory(source)
    listing = _listing_of(Path(os.fspath(source)))
    dataset = _read_listing(listing)
    notes = listing.tree.repeat_notes() if isinstance(listing.tree, Folder) else []
    return replace(dataset, notes=(*dataset.notes, *notes))


def _listing_of(path: Path) -> Listing:
    """Returns the listing of a folder or an archive, or of a single file."""
    place, origin = existing(path), printable(str(path))
    if place.is_dir():
        folder = Folder(place)
        return Listing(folder, "", folder.names(), origin)
    file = ByteRange.from_path(place)
    kind = detect_kind(file)
    if suffix_of(place.name) != ".npz" and kind in ("zip", "tar", "gz", "bz2", "xz"):
        tree = open_archive(file, kind, origin)
        return Listing(tree, "", tree.names(), origin)
    return Listing(Folder(place.parent, place.name), "", [printable(place.name)], origin, single=True, kind=kind)


def _read_listing(listing: Listing) -> Dataset:
    if not listing.names:
        raise _no_images(listing.origin, "no files")
    if set(ARTIFACT) <= set(listing.names) and not any("/" in name for name in listing.names):
        raise DataError(
            f"{listing.origin} must hold labelled images",
            code="artifact-as-data",
            received="an artifact that fit wrote",
            hint="give it to evaluate or predict, with images beside it",
        )
    levels = list(listing.levels())
    for reader in READERS:
        for depth, level in enumerate(levels):
            if reader.recognises(level):
                dataset = reader.read(level)
                return replace(dataset, notes=(*listing.notes, *_notes_above(levels[: depth + 1]), *dataset.notes))
    raise _unknown_layout(listing, levels[-1])


def _notes_above(levels: Sequence[Listing]) -> list[Note]:
    """Returns notes on images beside the last of these levels, each of which wraps the next."""
    *wrapping, last = levels
    notes = [note for level in wrapping for note in images_outside(level.loose, f"beside the folder {last.root}")]
    return notes + [note for level in levels for note in artwork_ignored(level)]


def _unknown_layout(listing: Listing, innermost: Listing) -> DataError:
    """Returns the refusal of data that no reader recognises."""
    archives = [name for name in listing.names if suffix_of(name) in _ARCHIVE_SUFFIXES]
    if listing.single and is_image_name(listing.names[0]):
        hint = "give the folder that holds the class folders, not one image"
    elif archives:
        hint = f"give the archive itself: {archives[0]}"
    else:
        refuse_flat_images(innermost)
        hint = unsupported_hint(listing) or _known_layouts()
    rule = f"no known layout of labelled images in {listing.origin}"
    return DataError(rule, code="unknown-layout", received=described(listing.names), hint=hint)


def _no_images(origin: str, received: str) -> DataError:
    rule = f"{origin} must hold at least one labelled image"
    return DataError(rule, code="no-images", received=received, hint=_known_layouts())


def _known_layouts() -> str:
    return "known layouts: " + "; ".join(reader.LAYOUT for reader in READERS if reader is not one_class_folder)
