"""Writes the classifier of an artifact in another format, and keeps the file only if its own runtime gives the same answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads import artifact
from crossroads.errors import ArtifactError, option, unknown, without_effect
from crossroads.exports import _runners, _writers
from crossroads.exports._images import choose_images
from crossroads.exports._runners import Run
from crossroads.exports._writers import Classifier
from crossroads.files.text import printable
from crossroads.inference import Graph
from crossroads.progress import Silent, Watcher, stage

HALF_TOLERANCE = 5e-2
"""Largest allowed difference of a probability if the weights are stored as float16. On 200 traffic signs it was 0.033."""

TIMED_SECONDS = 0.5
"""Seconds for which the speed is measured."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of exported files.

    Attributes:
        name: Its name on the command line.
        suffix: The suffix of its file; empty for a folder.
        write: Writes a classifier to a path.
        open: Opens what was written with the runtime of the format.
        halves: Whether weights can be stored as float16, for which `write` takes ``half=True``.
        beside: The name of a second file, from the ``name`` and the ``stem`` of the first one; empty if there is none.
    """

    name: str
    suffix: str
    write: Callable[..., None]
    open: Callable[[Path], Run]
    halves: bool = False
    beside: str = ""


FORMATS = (
    Format("openvino", ".xml", _writers.write_openvino, _runners.open_openvino, halves=True, beside="{stem}.bin"),
    Format("onnx", ".onnx", _writers.write_onnx, _runners.open_onnx),
    Format("litert", ".tflite", _writers.write_litert, _runners.open_litert, halves=True, beside="{name}.labels.txt"),
    Format("keras", ".keras", _writers.write_keras, _runners.open_keras, beside="{name}.labels.txt"),
    Format("saved-model", "", _writers.write_saved_model, _runners.open_saved_model),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """An exported file beside the graph of its artifact, on the same images.

    Attributes:
        images: The number of images.
        agreeing: The number of images with the same label.
        max_difference: The largest difference of a probability.
        images_per_second: Speed of the exported file in its runtime.
        artifact_images_per_second: Speed of the artifact.
    """

    images: int
    agreeing: int
    max_difference: float
    images_per_second: float
    artifact_images_per_second: float


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported file.

    Attributes:
        format: Name of its format.
        files: What was written, the model first.
        bytes: The size of all files.
        compared_on: What it was compared on.
        comparison: The comparison.
    """

    format: str
    files: tuple[Path, ...]
    bytes: int
    compared_on: str
    comparison: Comparison

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, ready for JSON."""
        facts = {"format": self.format, "files": list(map(str, self.files)), "bytes": self.bytes, "compared_on": self.compared_on}
        return facts | asdict(self.comparison)


def export(
    folder: str | PathLike[str],
    out: str | PathLike[str],
    format: str | None = None,  # noqa: A002
    *,
    data: str | PathLike[str] | None = None,
    half: bool = False,
    backbone: Any = None,
    watcher: Watcher | None = None,
) -> Exported:
    """Writes the classifier of an artifact for another runtime: uint8 (n, size, size, 3) in, float32 (n, k) probabilities out.

    The file is run by its own runtime, and is kept only if its labels are those of the artifact and its probabilities agree.

    Args:
        folder: A finished artifact.
        out: Path of the new file, or of the new folder of a SavedModel.
        format: A name of `FORMATS`; None for that of the suffix.
        data: Images to compare on; None for those of the run that were held out, or drawn ones if its data is not there.
        half: Whether to store the weights as float16.
        backbone: The network that was passed to ``fit`` as an object; None for others.
        watcher: Receives progress and notes.

    Raises:
        CrossroadsError: The folder is not an artifact, it cannot be written in this format, `out` exists, or the file disagrees
            with the artifact. No file is left behind.
    """
    target, relay = Path(out), watcher or Silent()
    chosen = _format_of(format, target)
    if half and not chosen.halves:
        names = [each.name for each in FORMATS if each.halves]
        raise without_effect("fp16", option("fp16"), f"on the format {chosen.name}", f"leave it out, or use {' or '.join(names)}")
    manifest = artifact.open_verified(folder)
    images = choose_images(manifest, data, relay)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".crossroads-export-", dir=target.parent) as scratch:
        written = Path(scratch) / target.name
        with stage(relay.progress, f"writing {chosen.name}"):
            chosen.write(Classifier(manifest, backbone), written, **({"half": True} if half else {}))
        with stage(relay.progress, f"comparing {chosen.name} with the artifact"):
            run, graph = chosen.open(written), Graph(manifest.folder / artifact.GRAPH[0])
            comparison = compare(run, graph, images.pixels, HALF_TOLERANCE if half else artifact.TOLERANCE)
        files = _moved(Path(scratch), target)
    size = sum(_size(path) for path in files)
    return Exported(chosen.name, files, size, images.described, comparison)


def _format_of(name: str | None, target: Path) -> Format:
    """Returns the format of a new file. Raises a `CrossroadsError` if it is unknown, or if the file exists or does not fit."""
    names = [each.name for each in FORMATS]
    if name is not None and name not in names:
        raise unknown("format", name, names)
    found = next((each for each in FORMATS if each.name == name or (name is None and each.suffix == target.suffix)), None)
    if found is None or target.suffix != found.suffix:
        suffixes = f"in {found.suffix}" if found else "in .xml, .onnx, .tflite or .keras"
        rule = (
            f"{option('out')} must be a folder without a suffix"
            if found and not found.suffix
            else f"{option('out')} must end {suffixes}"
        )
        raise ArtifactError(rule, code="export-target", field="out", received=printable(str(target)), hint="choose another name")
    beside = [found.beside.format(name=target.name, stem=target.stem)] if found.beside else []
    for path in (target, *map(target.with_name, beside)):
        if os.path.lexists(path):
            raise ArtifactError(
                f"{option('out')} must be new",
                code="export-target",
                field="out",
                received=printable(str(path)),
                hint="choose another name, or remove it",
            )
    return found


def compare(run: Run, graph: Graph, images: NDArray[np.uint8], tolerance: float) -> Comparison:
    """Compares an exported file with the graph of its artifact.

    Args:
        run: The exported file in its runtime.
        graph: The graph of the artifact.
        images: uint8 (n, size, size, 3).
        tolerance: Largest allowed difference of a probability.

    Raises:
        ArtifactError: A probability differs by more than the tolerance or is not finite, or a label differs. A label does not count
            as different if the artifact gives it a probability within the tolerance of its best one.
    """
    expected = graph(images)
    found = run(images)
    if found.shape != expected.shape:
        raise _disagrees(f"results of the shape {found.shape}, not {expected.shape}")
    apart = np.nan_to_num(np.abs(found - expected).max(axis=1), nan=np.inf)
    rows, ours, theirs = np.arange(len(images)), expected.argmax(axis=1), found.argmax(axis=1)
    different = expected[rows, ours] - expected[rows, theirs] > tolerance
    if different.any():
        raise _disagrees(f"{int(different.sum())} of {len(images)} labels that differ")
    if apart.max() > tolerance:
        raise _disagrees(f"a probability that differs by {apart.max():.3g}, more than {tolerance:g}")
    return Comparison(len(images), int((ours == theirs).sum()), float(apart.max()), _rate(run, images), _rate(graph, images))


def _disagrees(received: str) -> ArtifactError:
    return ArtifactError(
        "the exported file must give the same answers as the artifact, so it was removed",
        code="export-disagrees",
        received=received,
        hint="use another format, or report this with the versions of the converters",
    )


def _rate(run: Callable[[NDArray[np.uint8]], object], images: NDArray[np.uint8]) -> float:
    """Returns images per second, after the comparison has warmed up the runtime."""
    some, done, started = images[:64], 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < TIMED_SECONDS or not done:
        run(some)
        done += len(some)
    return done / spent


def _moved(scratch: Path, target: Path) -> tuple[Path, ...]:
    """Moves what was written beside the target, the model last, so that it never lacks its other files."""
    written = sorted(scratch.iterdir(), key=lambda path: path.name == target.name)
    for path in written:
        path.replace(target.with_name(path.name))
    return tuple(target.with_name(path.name) for path in reversed(written))


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file()) if path.is_dir() else path.stat().st_size
