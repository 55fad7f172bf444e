"""Predicts ranked labels from images, without Keras. Evaluation, prediction and serving all use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.process import warnings_shown
from crossroads.artifact import GRAPH, Manifest, open_verified
from crossroads.data.dataset import Dataset
from crossroads.data.loading import Refusal, Streamed, no_readable_image, stream, stream_pictures
from crossroads.data.pictures import Picture
from crossroads.errors import ArtifactError, DataError, ImageRefused, option
from crossroads.evaluation import Evaluation, evaluate
from crossroads.files.text import printable
from crossroads.inference import BATCH, Graph
from crossroads.progress import Watcher
from crossroads.streaming import blocks


class Ranked(NamedTuple):
    """One class and its probability."""

    label: str
    probability: float


class Prediction(NamedTuple):
    """The most probable classes of one image, most probable first."""

    name: str
    labels: tuple[Ranked, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        return {"name": self.name, "labels": [ranked._asdict() for ranked in self.labels]}


class Scored(NamedTuple):
    """The probabilities of a data set.

    Attributes:
        probabilities: float32 (n, k).
        dataset: The n readable rows, in their order.
        refusals: The rows that could not be read.
        digests: Digests of the decoded files, uint8 (n, 16).
    """

    probabilities: NDArray[np.float32]
    dataset: Dataset
    refusals: tuple[Refusal, ...]
    digests: NDArray[np.uint8]


class _Answer(NamedTuple):
    """The probabilities of one image, float32 (k,), with its position and digest."""

    position: int
    digest: bytes
    probabilities: NDArray[np.float32]


class Predictor:
    """A trained classifier. `load` creates it.

    Threads and forked processes may share one. A pickle holds the absolute path of the artifact: unpickling loads and verifies the
    artifact again, in this process or another one. `copy.copy` and `copy.deepcopy` return the predictor itself, which is immutable.
    """

    def __init__(self, manifest: Manifest, graph: Graph) -> None:
        self._manifest = manifest
        self._graph = graph
        self._folder = manifest.folder.absolute()  # the working directory may change later

    @classmethod
    @warnings_shown()
    def load(cls, folder: str | PathLike[str], *, threads: int | None = None) -> Self:
        """Loads the classifier of an artifact. Verifies and reads only the files that inference needs.

        Args:
            folder: A finished artifact, the `Run` that wrote it, or the `path` of a draft.
            threads: CPU threads to use, None for all.

        Raises:
            ArtifactError: The folder is not an artifact, or was changed after it was written.
        """
        if threads is not None and threads < 1:
            raise ArtifactError(
                f"{option('threads')} must be at least 1",
                code="out-of-range",
                field="threads",
                received=threads,
                hint="leave it out to use all",
            )
        manifest = open_verified(folder, only=GRAPH)
        graph = Graph(manifest.folder / GRAPH[0], threads=threads)
        size, k = manifest.resize.size, len(manifest.classes)
        expected = (f"u8[?,{size},{size},3]", f"f32[?,{k}]")
        if graph.signature != expected:
            raise ArtifactError(
                f"{manifest.folder / GRAPH[0]} must map {expected[0]} to {expected[1]}",
                code="other-signature",
                received=" to ".join(graph.signature),
                hint="train the artifact again",
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
        """The manifest of the artifact."""
        return self._manifest

    @property
    def graph(self) -> Graph:
        """The inference graph."""
        return self._graph

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self._manifest.classes

    @property
    def size(self) -> int:
        """Side in pixels of the square input of the network."""
        return self._manifest.resize.size

    def probabilities(self, pixels: NDArray[np.uint8], *, batch: int | None = None) -> NDArray[np.float32]:
        """Computes the probabilities of images that already have the right size.

        Args:
            pixels: uint8 (n, size, size, 3), RGB.
            batch: Images per request; affects only the speed.

        Returns:
            float32 (n, k), rows that sum to 1.

        Raises:
            DataError: The shape or dtype differs.
        """
        self.require_pixels(pixels)
        return self._graph(pixels, batch=batch)

    def require_pixels(self, pixels: NDArray[np.uint8]) -> None:
        """Raises `DataError` unless pixels are uint8 (n, size, size, 3)."""
        shape = (self.size, self.size, 3)
        if pixels.ndim != 4 or pixels.shape[1:] != shape or pixels.dtype != np.uint8:
            raise DataError(
                f"pixels must be uint8 with the shape (n, {self.size}, {self.size}, 3)",
                code="other-shape",
                field="pixels",
                received=f"{pixels.dtype} {pixels.shape}",
                hint="use predict for images of other sizes",
            )

    @warnings_shown()
    def probabilities_of(
        self, dataset: Dataset, *, strict: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> Scored:
        """Computes the probabilities of all rows of a data set. Decodes images during inference, in bounded memory.

        Args:
            dataset: Any data set; its labels and classes are ignored.
            strict: Whether a row that cannot be read is an error.
            progress: Called with the number of finished rows and the number of all rows.

        Raises:
            DataError: No row can be read; with `strict`, any row cannot be read.
        """
        probabilities = np.empty((len(dataset), len(self.classes)), np.float32)
        kept: list[int] = []
        refusals: list[Refusal] = []
        digests = bytearray()

        def refuse(row: int, error: ImageRefused) -> None:
            refusals.append(Refusal(row, dataset.name(row), str(error)))
            if strict:
                raise refusals[-1].error()

        if progress is not None:
            progress(0, len(dataset))
        for row, digest, answer in self._answers(stream(dataset, self.manifest.resize), refuse):
            probabilities[len(kept)] = answer
            kept.append(row)
            digests.extend(digest)
            if progress is not None and len(kept) % BATCH == 0:
                progress(row + 1, len(dataset))
        if progress is not None:
            progress(len(dataset), len(dataset))
        if not kept:
            raise no_readable_image(dataset, refusals)
        rows = dataset.select(kept) if refusals else dataset
        return Scored(probabilities[: len(kept)], rows, tuple(refusals), np.frombuffer(digests, np.uint8).reshape(len(kept), -1))

    def _answers(self, images: Iterable[Streamed], refuse: Callable[[int, ImageRefused], None]) -> Iterator[_Answer]:
        """Yields the probabilities of each image, in order. Images are decoded while earlier ones are computed.

        Args:
            images: Any number; only a few batches are held at a time.
            refuse: Called, in order, with the position and the reason of each refused image. An exception ends the iteration.
        """
        for rows, values in blocks(self._graph, images):
            answers = iter(values)
            for position, digest, refusal in rows:
                if refusal is None:
                    yield _Answer(position, digest, next(answers))
                else:
                    refuse(position, refusal)

    def predict(self, images: Iterable[Picture] | NDArray[np.uint8], top: int = 5) -> list[Prediction]:
        """Predicts the most probable classes of each image.

        Args:
            images: Paths, encoded files as bytes, Pillow images, or arrays (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), as
                `crossroads.read` accepts them. Any iterable works. It is consumed once, with few images in memory at a time.
            top: Number of classes to rank, at least 1.

        Raises:
            ImageRefused: An image cannot be read; the message names it.
            DataError: `top` is below 1, or `images` is a single image.
        """
        predictions, _ = self._predict(images, top, strict=True)
        return predictions

    def predict_each(
        self,
        images: Iterable[Picture] | NDArray[np.uint8],
        top: int = 5,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[list[Prediction], list[ImageRefused]]:
        """Predicts as `predict` does, but continues after images that cannot be read.

        Args:
            images: As for `predict`.
            top: As for `predict`.
            progress: Called with the number of images that are done.

        Returns:
            The predictions of the readable images, in their order, and one refusal per image that cannot be read.

        Raises:
            DataError: For the same reasons as in `predict`, except that an image cannot be read.
        """
        return self._predict(images, top, strict=False, progress=progress)

    def stream(self, images: Iterable[Picture] | NDArray[np.uint8], top: int = 5) -> Iterator[Prediction | ImageRefused]:
        """Yields the prediction of each image, in order, or its refusal.

        Any number of images may come, one by one and without an end: only a few batches are in memory. They are decoded while
        earlier ones are computed, so a few batches of images are taken before the first prediction is given.

        Args:
            images: As for `predict`.
            top: As for `predict`.

        Raises:
            DataError: `top` is below 1, or `images` is a single image.
        """
        if top < 1:
            raise DataError(f"{option('top')} must be at least 1", code="out-of-range", field="top", received=top)
        names: dict[int, str] = {}
        for rows, values in blocks(self._graph, stream_pictures(_named(images, names), self.manifest.resize)):
            answers = iter(values)
            for position, _, refusal in rows:
                name = names.pop(position, f"image {position}")
                yield Prediction(name, self.ranked(next(answers), top)) if refusal is None else _refused(name, refusal)

    @warnings_shown()
    def _predict(
        self,
        images: Iterable[Picture] | NDArray[np.uint8],
        top: int,
        *,
        strict: bool,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[list[Prediction], list[ImageRefused]]:
        predictions: list[Prediction] = []
        refused: list[ImageRefused] = []
        for done, answer in enumerate(self.stream(images, top), 1):
            if isinstance(answer, Prediction):
                predictions.append(answer)
            elif strict:
                raise answer
            else:
                refused.append(answer)
            if progress is not None:
                progress(done)
        return predictions, refused

    def ranked(self, probabilities: NDArray[np.float32], top: int) -> tuple[Ranked, ...]:
        """Returns the most probable classes of one image, most probable first, from its probabilities, float32 (k,)."""
        # A stable sort gives a tie to the class that comes first, as in the evaluation.
        best = np.argsort(-probabilities, kind="stable")[:top].tolist()
        return tuple(Ranked(self.classes[i], float(probabilities[i])) for i in best)


def _named(images: Iterable[Picture], names: dict[int, str]) -> Iterator[Picture]:
    """Yields the images. Enters the paths among them in `names` by their position."""
    if _is_single_image(images) or not isinstance(images, Iterable):
        folder = isinstance(images, str | PathLike) and Path(images).is_dir()
        raise DataError(
            "predict takes a sequence of images",
            code="not-a-sequence",
            field="images",
            received=type(images).__name__,
            hint="give the files of the folder" if folder else "put the image in a list",
        )
    for position, image in enumerate(images):
        if isinstance(image, str | PathLike):
            names[position] = printable(str(image))
        yield image


def _refused(name: str, error: ImageRefused) -> ImageRefused:
    """Returns a refusal that names its image."""
    named = ImageRefused(f"{name}: {error.rule}", code=error.code, received=error.received, hint=error.hint)
    named.name, named.__cause__ = name, error
    return named


def _is_single_image(images: object) -> bool:
    """Returns whether this is a single image, although it may be iterable."""
    if isinstance(images, np.ndarray):
        return images.ndim == 0 or (images.ndim in (2, 3) and images.dtype.kind in "buif")
    return isinstance(images, str | bytes | bytearray | memoryview | PathLike)


def _reloaded(kind: type[Predictor], folder: Path, files: dict[str, Any], threads: int | None) -> Predictor:
    """Loads the predictor that was pickled.

    Raises:
        ArtifactError: The artifact is gone, damaged, or was replaced by another one.
    """
    try:
        predictor = kind.load(folder, threads=threads)
    except ArtifactError as error:
        raise ArtifactError(
            f"a pickled predictor is loaded again from its artifact: {error.rule}",
            code=error.code,
            received=error.received,
            hint="keep the artifact where it was when the predictor was loaded, or load it from its new place",
        ) from error
    if predictor.manifest.files != files:
        raise ArtifactError(
            "a pickled predictor is loaded again from its artifact, which must be the same",
            code="other-artifact",
            received=f"another artifact in {folder}",
            hint="load that one with crossroads.load, or put the first one back",
        )
    return predictor


def load(folder: str | PathLike[str], *, threads: int | None = None) -> Predictor:
    """Loads the classifier of an artifact, as `Predictor.load` does."""
    return Predictor.load(folder, threads=threads)


def score(
    predictor: Predictor, dataset: Dataset, strict: bool, watcher: Watcher, *, stage: str = "testing"
) -> tuple[Scored, Evaluation]:
    """Scores a data set whose classes are the predictor's. Raises the same errors as `Predictor.probabilities_of`."""
    scored = predictor.probabilities_of(dataset, strict=strict, progress=partial(watcher.progress, stage))
    return scored, replace(_evaluation(scored.probabilities, scored.dataset), refused=scored.refusals)


def score_probabilities(probabilities: NDArray[np.float32], dataset: Dataset) -> Evaluation:
    """Scores the rows of `dataset` from their probabilities, float32 (n, k)."""
    return _evaluation(probabilities, dataset)


def _evaluation(probabilities: NDArray[np.float32], dataset: Dataset) -> Evaluation:
    names = _Names(dataset)
    return evaluate(probabilities, dataset.labels, dataset.classes, names=names, groups=dataset.groups)


class _Names(Sequence[str]):
    """The names of the rows of a data set, made on demand because only few of them are shown."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, row: int) -> str:  # type: ignore[override]
        return self._dataset.name(row)
