"""Creates notes on folders and files that are ignored, or that could also be read in another way."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from crossroads.data.labels import class_name
from crossroads.data.readers._folder_names import is_holder, is_overlay, is_plain_split, is_unlabelled
from crossroads.data.readers._listing import Listing, described, is_image_name, suffix_counts
from crossroads.files.text import first_few, plural, were
from crossroads.progress import Note


def listed(singular: str, names: Sequence[str], many: str | None = None) -> str:
    """Returns ``folder 'a'`` or ``folders 'a', 'b' and 3 more``."""
    return f"{singular if len(names) == 1 else many or singular + 's'} {first_few(list(map(repr, names)))}"


def classes_listed(names: Sequence[str]) -> str:
    """Returns ``class 'a'`` or ``classes 'a', 'b' and 3 more``."""
    return listed("class", names, "classes")


def images_outside(count: int, place: str) -> list[Note]:
    """Returns a note on images that are in none of the folders that are read.

    Args:
        count: Number of these images.
        place: Where they are, such as ``outside the folders``.
    """
    return [Note(f"{plural(count, 'image')} {place} {were(count)} ignored", "images-outside-folders", count=count)] if count else []


def artwork_ignored(listing: Listing) -> list[Note]:
    """Returns a note on each folder that holds only icons, drawings and similar files."""
    notes = []
    for top, count in listing.artwork.items():
        folder = listing.full(top)
        text = f"{plural(count, 'image')} in {folder}/ {were(count)} ignored: a folder of icons or drawings is not a class"
        notes.append(Note(text, "artwork-ignored", count=count, folder=folder))
    return notes


def classes_named_like_splits(listing: Listing) -> list[Note]:
    """Returns a note on each class that is named like a split."""
    tops = [top for top in listing.branches if is_plain_split(top)] if len(listing.branches) > 1 else []
    return [Note(f"{top}/ is read as the class {top!r}, not as a split", "class-named-like-split", folder=top) for top in tops]


def is_unlikely_class(name: str) -> bool:
    """Returns whether the name of a folder suggests that it is not a class, such as ``images``, ``masks`` or ``unlabeled``."""
    return is_holder(name) or is_overlay(name) or is_unlabelled(name)


def unlikely_classes(names: Iterable[str]) -> list[Note]:
    """Returns a note on classes whose names suggest that they are not classes."""
    unlikely = list(filter(is_unlikely_class, names))
    if not unlikely:
        return []
    one, many = "is read as a class; move it if its", "are read as classes; move those whose"
    text = f"{listed('folder', unlikely)} {one if len(unlikely) == 1 else many} images have no label"
    return [Note(text, "unlikely-classes", folders=unlikely)]


def empty_folders(folders: Sequence[str], with_images: Iterable[str]) -> list[Note]:
    """Returns a note on folders without images. `with_images` are the names of the other folders."""
    classes = set(map(class_name, with_images))
    empty = [folder for folder in folders if class_name(folder) not in classes]
    if not empty:
        return []
    verb = "has no images and is not a class" if len(empty) == 1 else "have no images and are not classes"
    return [Note(f"{listed('folder', empty)} {verb}", "empty-folders", folders=empty)]


def files_ignored(listing: Listing, used: Container[str] = ()) -> list[Note]:
    """Returns a note on all files of the data that are neither images nor in `used`, which holds names in the tree."""
    outer = listing.outermost()
    if outer.single:
        return []
    return not_images([name for name in outer.names if not is_image_name(name) and name not in used])


def not_images(names: Sequence[str]) -> list[Note]:
    """Returns a note on files that are not images, such as the ``.mov`` beside each image of live photos."""
    if not names:
        return []
    if len(names) == 1:
        text = f"{names[0]} is left out: it is not an image"
    else:
        text = f"{len(names):,} files are left out because they are not images: {described(names)}; the first is {names[0]}"
    return [Note(text, "files-ignored", count=len(names), suffixes=suffix_counts(names), example=names[0])]


def copy_ignored(folder: str, original: str) -> Note:
    """Returns the note on a folder that holds the same files as another."""
    text = f"{folder}/ is ignored: it holds the same files as {original}/"
    return Note(text, "copy-ignored", folder=folder, original=original)
