"""Reads labelled images in any known layout as one `Dataset`. `read` is the entry point.

To add a format, write one module here with a function that recognises it and one that reads it, as in `idx.py`. Then add a
`Reader` to `READERS` below, a `Layout` to ``tests/data/readers/layout_list.py``, and a row to the table at the end of
``docs/reference/layouts.md``. A format that is known but not read gets an entry in `unsupported.UNSUPPORTED`.

The readers share the modules whose names begin with an underscore:

- `_listing` lists the files below one folder of a directory tree or an archive.
- `_folder_names` and `_top_folders` decide which names mean a split, a container of images, or masks.
- `_folder_notes` and `_folder_refusals` create notes and errors about folders.
- `_sheets`, `_columns`, `_tables`, `_table_images` and `_table_reading` turn a file of rows into labelled images.
- `_image_lookup` finds the image file that a row names.
- `_listed_splits` reads lists of paths that give splits.
- `_arrays` builds a data set from named arrays.
- `_labelled` and `_sources` hold the rows and images from which a data set is built.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

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


class Reader(NamedTuple):
    """The reader of one layout of labelled images.

    Attributes:
        layout: The layout in one line, as error messages list it. Empty if they do not list it.
        recognises: Returns a true value if a listing has this layout. Looks only at names and at the first bytes of a few files.
        read: Returns the data set. Does not decode any image. `Dataset.notes` say what is ignored.
    """

    layout: str
    recognises: Callable[[Listing], object]
    read: Callable[[Listing], Dataset]


READERS = (
    Reader("GTSRB's Final_Training and Final_Test with their GT-*.csv", gtsrb.recognises, gtsrb.read),
    Reader("Kaggle's GTSRB: Train/<class>/*.png and Test.csv", gtsrb_kaggle.recognises, gtsrb_kaggle.read),
    Reader("CIFAR's data_batch_1 … with batches.meta", cifar.recognises, cifar.read),
    Reader("MNIST's train-images-idx3-ubyte with its labels", idx.pairs_of_files, idx.read),
    Reader("tar archives of 000.jpg with 000.cls", webdataset.recognises, webdataset.read),
    Reader("a CSV, TSV or JSON lines with the columns path and label", table.recognises, table.read),
    Reader("train/<class>/<image> with val/ and test/", split_folders.recognises, split_folders.read),
    Reader("<class>/<image>", class_folders.recognises, class_folders.read),
    Reader("Parquet with the columns image and label", parquet.files, parquet.read),
    Reader("a pickled dict of features and labels", pickles.files, pickles.read),
    Reader("an .npz of features and labels", npz.files, npz.read),
    Reader("X.npy with y.npy", npy.files, npy.read),
    Reader("", class_folders.recognises_one, class_folders.read),
)
"""The readers of all layouts. The first one that recognises the data reads it, so specific layouts come first."""

ARTIFACT = ("crossroads.json", "model.xml")
"""Files that identify an artifact, which is not a data set."""

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2")


def read(source: object, *, class_names: ClassNames | None = None) -> Dataset:
    """Reads labelled images as one immutable data set. Does not decode any image.

    Data in memory is given as ``(images, labels)``, as a mapping such as ``{"features": …, "labels": …}``, or as a list of records
    such as ``{"image": …, "label": …}``. Two pairs are train and test; three are train, validation and test.

    - Images are one array (n, height, width) or (n, height, width, 1, 3 or 4), uint8 or floats in [0, 1]. They may also be a list
      of paths, encoded files, arrays and Pillow images.
    - Labels are integers, strings or booleans (n,), or one-hot (n, k).

    Args:
        source: The path of a folder, of a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz archive, or of one CSV, TSV, JSON lines, JSON,
            list, pickle, .npz, .npy or Parquet file; or data in memory as above. A `Dataset` is returned as it is.
        class_names: Names of integer labels, as a mapping or a sequence, or as the path of a file. The lines of the file are like
            ``14,Stop``, or there is one name per line, numbered from 0.

    Returns:
        The data set. Its `notes` say what was ignored and why.

    Raises:
        DataError: The layout is unknown or ambiguous, a row is malformed, or a file is missing, hostile or damaged.
        MissingExtraError: A Parquet file is given but pyarrow is not installed.
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
    """Returns the listing of a folder, an archive or a single file."""
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
    """Returns notes on images that are not in the last of these levels. Each level wraps the next one."""
    *wrapping, last = levels
    notes = [note for level in wrapping for note in images_outside(level.loose, f"beside the folder {last.root}")]
    return notes + [note for level in levels for note in artwork_ignored(level)]


def _unknown_layout(listing: Listing, innermost: Listing) -> DataError:
    """Returns the error for data that no reader recognises."""
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
    return "known layouts: " + "; ".join(reader.layout for reader in READERS if reader.layout)
