"""Computes the features of any number of images, one row each, to a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from crossroads import artifact
from crossroads.data.images import FILTER, Resize, default_crop_fraction
from crossroads.data.readers import read
from crossroads.data.readers.unlabelled import ImageList, images_of, is_data_set, list_images
from crossroads.errors import ArtifactError, DataError, WeightsError
from crossroads.features.bodies import body_of
from crossroads.files.text import printable
from crossroads.inference import Graph, stored_model
from crossroads.networks.construct import Choice, choose
from crossroads.networks.head_input import until_head
from crossroads.outputs._formats import Kind, NpzRows, ParquetRows, Rows, required_suffix
from crossroads.outputs._rows import Answered, Target, Written, write_rows
from crossroads.progress import Note, Watcher

FORMATS: Mapping[str, Callable[[Path, Mapping[str, Kind], Mapping[str, int], int], Rows]] = {
    ".parquet": ParquetRows,
    ".npz": NpzRows,
}
"""The format of each suffix."""

STAGE = "computing features"

COLUMNS: Mapping[str, Kind] = {"path": "text", "label": "text", "features": "vector", "error": "text"}

_WITHOUT_LABELS = ("no-labels", "unknown-layout", "ambiguous-layout", "no-images", "single-image")
"""Codes of the errors about images that have no labels, or whose layout is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Extractor:
    """What computes features.

    Attributes:
        graph: From images, uint8 (n, size, size, 3), to features, float32 (n, d).
        resize: How an image becomes a square.
        digest: Digest of what the graph computes.
    """

    graph: Graph
    resize: Resize
    digest: str


def extractor(named: str | PathLike[str], watcher: Watcher) -> Extractor:
    """Returns what computes the features at the end of a network.

    Args:
        named: The folder of an artifact, or a backbone as in a recipe with its pretrained weights.
        watcher: Receives progress.

    Raises:
        CrossroadsError: It is neither, or the backbone has no pretrained weights.
    """
    if Path(named).is_dir():
        manifest = artifact.open_verified(named, only=artifact.GRAPH)
        part = until_head(stored_model(manifest.folder / artifact.GRAPH[0]))
        if part is None:
            raise ArtifactError(
                "the features of a classifier are the input of its last dense layer",
                code="no-dense-layer",
                received="a network without one",
                hint="name its backbone instead",
            )
        digest = "-".join(manifest.files[name]["blake2b"] for name in artifact.GRAPH)
        return Extractor(Graph.of(part), manifest.resize, digest)
    choice = choose(str(named), watcher.progress)
    record = choice.record
    body = body_of(choice, record.reference_size, _weights_of(choice), progress=watcher.progress)
    for note in body.notes:
        watcher.note(note)
    frozen = body.until(body.end, "average")
    mode = record.resize or "crop"
    fraction = default_crop_fraction(mode) if record.crop_fraction is None else record.crop_fraction
    resize = Resize(record.reference_size, mode, record.resample or FILTER, fraction)
    return Extractor(Graph.of(frozen.model), resize, f"{frozen.digest} {resize}")


def _weights_of(choice: Choice) -> str | None:
    """Returns the weights of a backbone: those of a file, or ImageNet's. Raises `WeightsError` if there are none."""
    if choice.graph is not None:
        return None
    if choice.own is not None:
        return "own"
    if choice.record.pretrained is None:
        raise WeightsError(
            "features need a pretrained backbone",
            code="no-pretrained-weights",
            received=choice.record.name,
            hint="run `crossroads backbones` to see which have weights",
        )
    return "imagenet"


def list_data(data: str, watcher: Watcher) -> ImageList:
    """Lists images with their labels if `fit` could read the data, and otherwise without labels.

    Args:
        data: Anything that `fit` reads, or that `list_images` lists.
        watcher: Receives a note if the labels are not known.
    """
    if is_data_set(data):
        try:
            return images_of(data, read(data))
        except DataError as error:
            if error.code not in _WITHOUT_LABELS:
                raise
            watcher.note(Note(f"the labels are left empty: {error.rule}", "labels-unknown"))
    return list_images([data])


def embed_files(source: Extractor, images: ImageList, *, out: Path, watcher: Watcher) -> Written:
    """Computes the features of images and writes one row per image.

    Args:
        source: What computes them.
        images: The images, with their labels if those are known.
        out: A new file whose suffix is in `FORMATS`. An unfinished one is continued.
        watcher: Receives progress and notes.

    Raises:
        DataError: There are no images, or `out` exists or cannot be continued.
    """
    kind, (width, *more) = FORMATS[required_suffix(out, tuple(FORMATS))], source.graph.shape
    for axis in more:
        width *= axis
    target = Target(out, {"artifact": source.digest}, lambda folder, sizes: kind(folder, COLUMNS, sizes, width))
    return write_rows(source.graph, source.resize, images, _rows, stage=STAGE, target=target, watcher=watcher)


def _rows(answers: Answered) -> list[tuple[Any, ...]]:
    values = iter(answers.values.reshape(len(answers.values), -1))
    rows: list[tuple[Any, ...]] = []
    for image, refusal in answers.images:
        label = image.label or None
        done = (next(values), None) if refusal is None else (None, printable(str(refusal)))
        rows.append((image.name, label, *done))
    return rows
