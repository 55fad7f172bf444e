"""Chooses the images on which an exported file is compared with the artifact."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads import artifact
from crossroads.data.dataset import digest_of
from crossroads.data.images import Resize, load
from crossroads.data.readers.unlabelled import ImageFile, ImageList, read_image
from crossroads.errors import DataError, ImageRefused, option
from crossroads.outputs.embeddings import list_data
from crossroads.progress import Note, Watcher
from crossroads.recipe import Recipe

MOST = 200
"""Images that are compared."""

DRAWN = 32
"""Images that are drawn if there are no others."""


class Chosen(NamedTuple):
    """Images to compare on.

    Attributes:
        pixels: uint8 (n, size, size, 3).
        described: What they are.
    """

    pixels: NDArray[np.uint8]
    described: str


def choose_images(manifest: artifact.Manifest, data: str | PathLike[str] | None, watcher: Watcher) -> Chosen:
    """Returns images that were held out of training if possible, evenly drawn from the data.

    Args:
        manifest: The manifest of the artifact, which knows the images that it was trained on.
        data: Images with or without labels; None for the data of the run if it is still there, and otherwise for drawn images.
        watcher: Receives a note if no image was held out, or if the images are drawn.

    Raises:
        DataError: No image of `data` can be read.
    """
    source = fspath(data) if data is not None else _data_of(manifest)
    if source is None:
        text = f"the data of the run is not there, so drawn images are compared; name images with {option('data')}"
        watcher.warning(Note(text, "export-compared-on-drawn-images"))
        return Chosen(drawn(manifest.resize), f"{DRAWN} drawn images")
    listed = list_data(source, watcher)
    seen = {row.tobytes() for row in artifact.read_seen(manifest)}
    held_out: list[NDArray[np.uint8]] = []
    others: list[NDArray[np.uint8]] = []
    for pixels, digest in _read(_spread(listed), manifest.resize):
        (others if digest in seen else held_out).append(pixels)
        if len(held_out) == MOST:
            break
    if held_out:
        return Chosen(np.stack(held_out), f"{len(held_out)} held-out images")
    if not others:
        raise DataError(
            "an export is compared on images, of which at least one must be readable",
            code="no-readable-image",
            field="data",
            received=source,
            hint=f"name others with {option('data')}",
        )
    text = f"no image of {source} was held out, so the export is compared on images that the classifier was trained on"
    watcher.warning(Note(text, "export-compared-on-training-images"))
    return Chosen(np.stack(others[:MOST]), f"{len(others[:MOST])} training images")


def _data_of(manifest: artifact.Manifest) -> str | None:
    """Returns the path of the data of the run if it is known and still there."""
    recipe = Recipe.from_mapping(dict(manifest.facts["recipe"]))
    return recipe.data if recipe.data is not None and Path(recipe.data).exists() else None


def _spread(listed: ImageList) -> Iterator[ImageFile]:
    """Yields at most 20 times as many images as are compared, evenly spread: most may be training images."""
    every = max(1, (listed.total or 0) // (20 * MOST))
    for number, image in enumerate(listed):
        if number % every == 0:
            yield image


def _read(images: Iterator[ImageFile], resize: Resize) -> Iterator[tuple[NDArray[np.uint8], bytes]]:
    for image in images:
        try:
            raw = read_image(image)
            yield load(raw, resize), digest_of(raw)
        except ImageRefused:
            continue


def drawn(resize: Resize) -> NDArray[np.uint8]:
    """Returns smooth random images, uint8 (n, size, size, 3). On noise, a network would see the same everywhere."""
    rng, size = np.random.default_rng(0), resize.size
    coarse = rng.integers(0, 256, (DRAWN, 6, 6, 3), dtype=np.uint8)
    return np.stack([load(image, Resize(size, filter="bicubic")) for image in coarse])
