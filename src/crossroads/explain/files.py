"""Explains the predictions for image files: draws heat maps, and finds the nearest training images."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossroads.data.images import Pixels, Resize, decode, resize
from crossroads.data.pictures import source_of
from crossroads.errors import DataError, ImageRefused, did_you_mean, not_writable, option
from crossroads.explain.maps import Explainer
from crossroads.explain.nearest import Nearest, Neighbour
from crossroads.explain.pictures import overlay
from crossroads.files.text import printable
from crossroads.predictor import Predictor

SIDE = 640
"""Longer side in pixels of the picture of an image. Larger images are made smaller."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The explanation of one prediction.

    Attributes:
        name: Name of the image.
        label: The class that is explained: the most probable one, or the one that was asked for.
        probability: Its probability.
        method: ``cam``, ``reciprocam`` or ``occlusion``; None without a heat map.
        file: The picture; None without a heat map.
        nearest: The nearest training images.
    """

    name: str
    label: str
    probability: float
    method: str | None = None
    file: Path | None = None
    nearest: tuple[Neighbour, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON. Thumbnails are left out."""
        nearest = [{"name": each.name, "label": each.label, "similarity": each.similarity} for each in self.nearest]
        return asdict(self) | {"file": None if self.file is None else str(self.file), "nearest": nearest}


def explain_files(
    run: str | PathLike[str],
    images: Sequence[Path],
    *,
    out: Path | None = None,
    class_name: str | None = None,
    nearest: int = 0,
) -> Iterator[Explanation | ImageRefused]:
    """Yields the explanation of each image, in order, or its refusal.

    Args:
        run: A finished artifact.
        images: Paths of image files.
        out: A folder for one picture per image; None for no heat maps. An image ``cat.jpg`` gives ``cat.explained.png``.
        class_name: The class to explain; None for the most probable one.
        nearest: Number of training images to find.

    Raises:
        CrossroadsError: The folder is not an artifact, there is no such class, nothing is asked for, or `out` is not writable.
    """
    if out is None and not nearest:
        raise DataError(
            f"{option('out')} or {option('nearest')} must be given",
            code="nothing-to-explain",
            received="neither",
            hint=f"name a folder for the heat maps with {option('out')}",
        )
    predictor = Predictor.load(run)
    number = None if class_name is None else _number(predictor, class_name)
    find = Nearest(predictor) if nearest else None
    explainer = None
    if out is not None:
        explainer = Explainer(predictor)
        _make(out)
    used: set[str] = set()
    for path in images:
        try:
            picture = decode(source_of(path))
        except ImageRefused as error:
            yield _named(error, path)
            continue
        pixels = resize(picture, predictor.manifest.resize)[None]
        probabilities = predictor.probabilities(pixels)[0]
        chosen = int(probabilities.argmax()) if number is None else number
        file = None
        if explainer is not None and out is not None:
            (heat,) = explainer.maps(pixels, np.array([chosen]))
            file = out / _file_name(path, used)
            _save(_drawn(picture, heat, predictor.manifest.resize), file)
        yield Explanation(
            printable(str(path)),
            predictor.classes[chosen],
            float(probabilities[chosen]),
            None if explainer is None else explainer.method,
            file,
            () if find is None else find(pixels, nearest)[0],
        )


def _number(predictor: Predictor, name: str) -> int:
    """Returns the number of a class. Raises `DataError` if there is none of this name."""
    if name not in predictor.classes:
        raise DataError(
            "the class must be one of the artifact's",
            code="unknown-class",
            field="class_name",
            received=repr(name),
            hint=did_you_mean(name, predictor.classes),
        )
    return predictor.classes.index(name)


def _named(error: ImageRefused, path: Path) -> ImageRefused:
    name = printable(str(path))
    named = ImageRefused(f"{name}: {error.rule}", code=error.code, received=error.received, hint=error.hint)
    named.name = name
    return named


def _file_name(path: Path, used: set[str]) -> str:
    """Returns a new name for the picture of an image. Images of the same name in different folders are numbered."""
    stem, number = path.stem or "image", 1
    name = f"{stem}.explained.png"
    while name.casefold() in used:
        number += 1
        name = f"{stem}-{number}.explained.png"
    used.add(name.casefold())
    return name


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(folder, error, "choose another folder") from error


def _save(picture: Image.Image, file: Path) -> None:
    data = io.BytesIO()
    picture.save(data, "PNG")
    try:
        file.write_bytes(data.getvalue())
    except OSError as error:
        raise not_writable(file, error, "choose another folder, or make room") from error


def _drawn(picture: Pixels, heat: NDArray[np.float32], how: Resize) -> Image.Image:
    """Returns an image beside the same image under its heat map. Parts that the network does not see have no heat."""
    shown = Image.fromarray(picture)
    if max(shown.size) > SIDE:
        shown.thumbnail((SIDE, SIDE))
    else:
        scale = max(1, round(how.size / max(shown.size)))
        shown = shown.resize((shown.width * scale, shown.height * scale), Image.Resampling.NEAREST)
    left, top, right, bottom = (round(edge) for edge in how.box(*shown.size))
    placed = np.zeros((shown.height, shown.width), np.float32)
    size = (max(1, right - left), max(1, bottom - top))
    fitted = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
    placed[top : top + size[1], left : left + size[0]] = fitted[: shown.height - top, : shown.width - left]
    both = Image.new("RGB", (2 * shown.width, shown.height))
    both.paste(shown, (0, 0))
    both.paste(overlay(np.asarray(shown), placed), (shown.width, 0))
    return both
