"""The single way from an image to ranked labels. Evaluation, prediction and serving all go through it; it needs no Keras."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from crossroads._process import warnings_shown
from crossroads.artifact import GRAPH, Manifest, open_verified
from crossroads.data.archives import MEMBER
from crossroads.data.dataset import Dataset
from crossroads.data.images import load as load_image
from crossroads.data.loading import Refusal, nothing_readable, stream
from crossroads.data.spans import read_plain
from crossroads.errors import ArtifactError, DataError, ImageRefused
from crossroads.inference import BATCH, Graph

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture = str | PathLike[str] | bytes | NDArray[np.uint8] | Image


class Ranked(NamedTuple):
    """One class and its probability."""

    label: str
    probability: float


class Prediction(NamedTuple):
    """The most probable classes of one image, the best first."""

    name: str
    labels: tuple[Ranked, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"name": self.name, "labels": [ranked._asdict() for ranked in self.labels]}


class Scored(NamedTuple):
    """The probabilities of a data set.

    Attributes:
        probabilities: float32 (n, k).
        dataset: The n rows that became images, in their order.
        refusals: The other rows.
        digests: uint8 (n, 16), of what was decoded.
    """

    probabilities: NDArray[np.float32]
    dataset: Dataset
    refusals: tuple[Refusal, ...]
    digests: NDArray[np.uint8]


class Predictor:
    """A trained classifier, ready to use. Made by `load`.

    Threads may share one, from the first request on, and so may forked processes. A pickle holds the absolute path of the artifact,
    not the artifact: unpickled, in this process or another one, a predictor is loaded and verified again. `copy.copy` and
    `copy.deepcopy` return the predictor itself, which never changes.
    """

    def __init__(self, manifest: Manifest, graph: Graph) -> None:
        self._manifest = manifest
        self._graph = graph
        self._folder = manifest.folder.absolute()  # now: the working directory may be another one later

    @classmethod
    @warnings_shown()
    def load(cls, folder: str | Path, *, threads: int | None = None) -> Self:
        """The classifier in an artifact. Of its files those are read, and first verified, that inference needs.

        Args:
            folder: A finished artifact, or the `path` of a draft.
            threads: CPU threads to use, None for all.

        Raises:
            ArtifactError: No artifact, or one that was changed after it was written.
        """
        if threads is not None and threads < 1:
            raise ArtifactError("threads must be at least 1", received=threads)
        manifest = open_verified(folder, only=GRAPH)
        graph = Graph(Path(folder) / GRAPH[0], threads=threads)
        size, k = manifest.resize.size, len(manifest.classes)
        expected = (f"u8[?,{size},{size},3]", f"f32[?,{k}]")
        if graph.signature != expected:
            raise ArtifactError(
                f"{Path(folder) / GRAPH[0]} must map {expected[0]} to {expected[1]}", received=" to ".join(graph.signature)
            )
        return cls(manifest, graph)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reloaded, (type(self), self._folder, dict(self._manifest.files), self._graph.threads)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    @property
    def manifest(self) -> Manifest:
        """What the artifact says of itself."""
        return self._manifest

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self._manifest.classes

    @property
    def size(self) -> int:
        """Side in pixels of the square that the network takes."""
        return self._manifest.resize.size

    def probabilities(self, pixels: NDArray[np.uint8], *, batch: int = BATCH) -> NDArray[np.float32]:
        """Probabilities of images that already have the right size.

        Args:
            pixels: uint8 (n, size, size, 3), RGB.
            batch: Images a request; changes the speed only.

        Returns:
            float32 (n, k), rows that sum to 1.

        Raises:
            DataError: Another shape or dtype.
        """
        shape = (self.size, self.size, 3)
        if pixels.ndim != 4 or pixels.shape[1:] != shape or pixels.dtype != np.uint8:
            raise DataError(
                f"pixels must be uint8 with the shape (n, {self.size}, {self.size}, 3)", received=f"{pixels.dtype} {pixels.shape}"
            )
        return self._graph(pixels, batch=batch)

    @warnings_shown()
    def probabilities_of(
        self, dataset: Dataset, *, strict: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> Scored:
        """Probabilities of all rows of a data set, decoded while earlier ones are computed, in bounded memory.

        Args:
            dataset: Any data set; its labels and classes are not looked at.
            strict: Whether the first row that does not become an image is an error.
            progress: Called with the rows done and their number.

        Raises:
            DataError: No rows, no row that becomes an image, or with `strict` any row that does not.
        """
        kept: list[int] = []
        refusals: list[Refusal] = []
        digests = bytearray()

        def batches() -> Iterator[NDArray[np.uint8]]:
            waiting: list[NDArray[np.uint8]] = []
            for row, image, digest in stream(dataset, self.manifest.resize):
                if isinstance(image, ImageRefused):
                    refusals.append(Refusal(row, dataset.name(row), str(image)))
                    if strict:
                        raise refusals[-1].error()
                else:
                    kept.append(row)
                    digests.extend(digest)
                    waiting.append(image)
                if len(waiting) == BATCH:
                    yield np.stack(waiting)
                    waiting.clear()
                    if progress is not None:
                        progress(row + 1, len(dataset))
            if waiting:
                yield np.stack(waiting)
            if progress is not None:
                progress(len(dataset), len(dataset))

        probabilities = self._graph.run(batches(), len(dataset))
        if not kept:
            raise nothing_readable(dataset, refusals)
        known = np.frombuffer(digests, np.uint8).reshape(len(kept), -1)
        return Scored(probabilities, dataset.select(kept) if refusals else dataset, tuple(refusals), known)

    def predict(self, images: Iterable[Picture] | NDArray[np.uint8], top: int = 5) -> list[Prediction]:
        """The most probable classes of each image.

        Args:
            images: Paths, encoded files as bytes, uint8 arrays (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), or Pillow images.
            top: How many classes to rank, at least 1; at most all are given.

        Raises:
            ImageRefused: One of them is no readable image; the message names it.
            DataError: `top` below 1, or one image in place of several.
        """
        predictions, _ = self._predict(images, top, strict=True)
        return predictions

    def predict_each(
        self, images: Iterable[Picture] | NDArray[np.uint8], top: int = 5
    ) -> tuple[list[Prediction], list[ImageRefused]]:
        """`predict`, with the images that cannot be read told apart and not as the end of all.

        Returns:
            The predictions of the others, in their order, and one refusal an image that cannot be read.

        Raises:
            DataError: As for `predict`.
        """
        return self._predict(images, top, strict=False)

    @warnings_shown()
    def _predict(
        self, images: Iterable[Picture] | NDArray[np.uint8], top: int, *, strict: bool
    ) -> tuple[list[Prediction], list[ImageRefused]]:
        if top < 1:
            raise DataError("top must be at least 1", received=top)
        predictions: list[Prediction] = []
        refused: list[ImageRefused] = []
        named = enumerate(_several(images))
        while chunk := list(itertools.islice(named, BATCH)):
            names, squares = [], []
            for i, image in chunk:
                name = str(image) if isinstance(image, str | PathLike) else f"image {i}"
                try:
                    squares.append(self._square(image, name))
                    names.append(name)
                except ImageRefused as error:
                    if strict:
                        raise
                    refused.append(error)
            if squares:
                ranked = (self._ranked(p, top) for p in self._graph(np.stack(squares)))
                predictions += [Prediction(name, labels) for name, labels in zip(names, ranked, strict=True)]
        return predictions, refused

    def _square(self, image: Picture, name: str) -> NDArray[np.uint8]:
        try:
            return load_image(_source(image), self.manifest.resize)
        except ImageRefused as error:
            raise ImageRefused(f"{name}: {error.rule}", received=error.received, mend=error.mend) from error
        except OSError as error:
            raise ImageRefused(f"{name}: must be a readable file", received=error.strerror, mend="check the path") from error

    def _ranked(self, probabilities: NDArray[np.float32], top: int) -> tuple[Ranked, ...]:
        # A stable sort: a tie goes to the class that comes first, as in the evaluation.
        best = np.argsort(-probabilities, kind="stable")[:top].tolist()
        return tuple(Ranked(self.classes[i], float(probabilities[i])) for i in best)


def _several(images: Iterable[Picture] | NDArray[np.uint8]) -> list[Picture]:
    """All images; a generator is gone through once."""
    alone = isinstance(images, str | bytes | PathLike) or (isinstance(images, np.ndarray) and images.ndim != 4)
    if alone or not isinstance(images, Iterable):
        raise DataError("predict takes a sequence of images", received=type(images).__name__, mend="put the image in a list")
    return list(images)


def _source(image: Picture) -> bytes | NDArray[np.uint8]:
    if isinstance(image, str | PathLike):
        if Path(image).is_dir():  # systems call a folder that is read by many names
            raise ImageRefused("is a folder", mend="give image files")
        return read_plain(image, MEMBER)
    if isinstance(image, bytes | np.ndarray):
        return image
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise ImageRefused("an image must be a path, bytes, a uint8 array or a Pillow image", received=type(image).__name__)
    # As a file without loss, so that palettes, transparency and 16 bits meet the same rules as on the disk.
    upright = ImageOps.exif_transpose(image)
    file = io.BytesIO()
    try:
        (upright.convert("RGB") if upright.mode in ("CMYK", "YCbCr", "HSV", "LAB") else upright).save(file, "PNG", compress_level=0)
    except (OSError, ValueError, SystemError) as error:
        raise ImageRefused("a Pillow image must be grey, palette, RGB or CMYK", received=f"mode {image.mode}") from error
    return file.getvalue()


def _reloaded(kind: type[Predictor], folder: Path, files: dict[str, Any], threads: int | None) -> Predictor:
    """The predictor that was pickled, if its artifact is still where it was.

    Raises:
        ArtifactError: The artifact is gone, damaged, or another one has taken its place.
    """
    try:
        predictor = kind.load(folder, threads=threads)
    except ArtifactError as error:
        raise ArtifactError(
            f"a pickled predictor is loaded again from its artifact: {error.rule}",
            received=error.received,
            mend="keep the artifact where it was when the predictor was loaded, or load it from its new place",
        ) from error
    if predictor.manifest.files != files:
        raise ArtifactError(
            "a pickled predictor is loaded again from its artifact, which must be the same",
            received=f"another artifact in {folder}",
            mend="load that one with crossroads.load, or put the first one back",
        )
    return predictor


def load(folder: str | Path, *, threads: int | None = None) -> Predictor:
    """The classifier in an artifact: `Predictor.load`. Takes and raises what that does."""
    return Predictor.load(folder, threads=threads)
