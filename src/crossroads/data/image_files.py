"""Lists the images of a folder, as `fit` would read them, for programs that need no labels."""

from __future__ import annotations

from pathlib import Path

from crossroads.data.readers._folder_notes import not_images
from crossroads.data.readers._listing import described, is_image_name
from crossroads.errors import DataError
from crossroads.files.trees import Folder
from crossroads.progress import Note


def image_files(place: Path) -> tuple[list[Path], list[Note]]:
    """Returns the images in a folder and its subfolders, in natural order, and notes on what is left out.

    Raises:
        DataError: There is no image.
    """
    folder = Folder(place)
    images = [folder.path_of(name) for name in folder.names() if is_image_name(name)]
    if not images:
        raise DataError(
            f"{folder.origin} must hold images",
            code="no-images",
            received=described(folder.names()),
            hint="name a folder of images, or image files",
        )
    others = [name for name in folder.names() if not is_image_name(name)]
    about_others = (text.prefixed(f"in {folder.origin}/: ", parent=folder.origin) for text in not_images(others))
    return images, [*folder.repeat_notes(), *about_others]
