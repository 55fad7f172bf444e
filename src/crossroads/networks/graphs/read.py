"""Reads an inference graph from a file as a backbone that stays frozen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from crossroads.errors import BackboneError, without_effect
from crossroads.inference import evaluate, operations, runtime
from crossroads.networks.body import Body, Tap
from crossroads.networks.crossings import Crossing, crossings, described, landmarks
from crossroads.networks.cut import Cut
from crossroads.networks.graphs.ends import features_end
from crossroads.networks.graphs.files import UNREADABLE, Format, data_files, digest_of, format_of, load, refusal
from crossroads.networks.graphs.inputs import Input, input_of, range_note, with_preprocessing, wrong_size
from crossroads.networks.graphs.layouts import Arrangement, arranged, axes_of
from crossroads.networks.graphs.nodes import Key, Nodes, key_of, nodes_of, shape_of
from crossroads.networks.graphs.preprocessing import CONFIG, PREPROCESSED, Preprocessing, named, required
from crossroads.networks.graphs.processor_config import found_beside
from crossroads.networks.graphs.sources import licence_beside, source_beside
from crossroads.networks.scaling import Scaling
from crossroads.progress import Note
from crossroads.recipe import Recipe

READING = 1
"""Version of the way in which files are read. A new version keeps cached features of the old one from being mixed with new ones."""

BATCH_TOLERANCE = 1e-3
"""Largest difference between images together and images one by one, relative to the largest value."""


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A description of the graph in a file.

    Attributes:
        path: The file.
        kind: Its format.
        input: Its input.
        quantised: Whether its weights or activations are quantised.
        preprocessing: The preprocessing found beside it; None if there is none.
        licence: The licence found beside it; None if there is none.
        source: The source found beside it; None if there is none.
    """

    path: Path
    kind: Format
    input: Input
    quantised: bool
    preprocessing: Preprocessing | None
    licence: str | None
    source: str | None

    @property
    def expects(self) -> str:
        """A phrase that describes the images that the graph expects."""
        if self.input.takes_pixels:
            return f"pixels as they are, {self.input.kind}"
        return "not known" if self.preprocessing is None else f"as {self.preprocessing.origin} says"


@dataclass(frozen=True, slots=True)
class Stated:
    """What the user states about a graph, and nothing else says or is overridden.

    Attributes:
        preprocessing: Name of its preprocessing.
        licence: Licence of its weights.
        source: Where it is from.
    """

    preprocessing: str | None = None
    licence: str | None = None
    source: str | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> Stated:
        """Returns what a recipe states."""
        return cls(recipe.preprocessing, recipe.backbone_licence, recipe.backbone_source)


def describe(path: Path) -> GraphFile:
    """Describes the graph in a file without compiling it.

    Raises:
        BackboneError: The file is not a graph that maps one image to features.
    """
    kind = format_of(path)
    facts = _facts(path, kind, _state(path, kind))
    return GraphFile(path, kind, facts.input, facts.quantised, found_beside(path), licence_beside(path), source_beside(path))


def cuts_of_graph(path: Path, size: int) -> tuple[Cut, ...]:
    """Returns the useful cuts of a graph for images of the given size. They do not depend on its preprocessing."""
    return read_graph(path, size=size, preprocessing=None if describe(path).input.takes_pixels else "none").cuts


def require_preprocessing(path: Path, name: str | None) -> None:
    """Raises `BackboneError` if the preprocessing of a graph is not known, or has no effect on it."""
    _preprocessing(describe(path), name)


def read_graph(
    path: Path,
    *,
    size: int | None = None,
    preprocessing: str | None = None,
    licence: str | None = None,
    source: str | None = None,
) -> Body:
    """Reads an ONNX, TFLite or OpenVINO graph as a backbone with preprocessing inside. It ends before the classifier.

    Args:
        path: The ``.onnx``, ``.tflite`` or ``.xml`` file.
        size: Side of the images in pixels; None for what the file or its preprocessing states, or else 224.
        preprocessing: A key of `PREPROCESSINGS`; None for ``preprocessor_config.json`` beside the file.
        licence: Licence of the weights; None for that of the model card or licence beside the file.
        source: Where the file is from; None for that of the model card.

    Raises:
        BackboneError: The file is not a graph that maps one image to features, or its preprocessing is unknown.
    """
    file = describe(path)
    used = _preprocessing(file, preprocessing)
    beside = file.preprocessing
    side = file.input.size(size, None if beside is None else beside.size, path.name)
    state = _state(path, file.kind)
    notes = [_facts(path, file.kind, state).range_note]
    if beside is not None and beside.not_applied:
        keys = ", ".join(beside.not_applied)
        text = f"{CONFIG} of {path.name} has settings that are not applied: {keys}"
        notes.append(Note(text, "preprocessor-config-not-applied", keys=list(beside.not_applied)))
    body = _body(path, file.kind, state, side, None if used is None else used.scaling)
    weights = {
        "from": path.name,
        "sha256": digest_of(path, file.kind),
        "licence": licence or file.licence,
        "source": source or file.source,
    }
    return replace(body, weights=weights, notes=tuple(note for note in notes if note is not None))


_State = tuple[tuple[int, int], ...]
"""Modification time and size of each file of a graph."""


def _state(path: Path, kind: Format) -> _State:
    return tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in data_files(path, kind))


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a graph says without preprocessing: its input, whether it is quantised, and what it maps pixels to."""

    input: Input
    quantised: bool
    range_note: Note | None


@lru_cache(maxsize=8)  # a run looks at the same file several times
def _facts(path: Path, kind: Format, _files: _State) -> _Facts:
    model = load(path, kind)
    given = input_of(model, path.name, channels_first=kind != "tflite")
    return _Facts(given, _is_quantised(model), range_note(model, path.name) if given.takes_pixels else None)


@lru_cache(maxsize=2)
def _body(path: Path, kind: Format, state: _State, size: int, scaling: Scaling | None) -> Body:
    """Returns the graph with preprocessing, without weights and notes. Its model is never changed, so it can be shared."""
    facts = _facts(path, kind, state)
    try:
        model = with_preprocessing(load(path, kind), facts.input, size, scaling)
    except RuntimeError as error:
        raise wrong_size(path.name, "does not take images of this size", size, "use the size it was trained with") from error
    try:
        taps, end, model, depthwise = _with_taps(model, path.name, kind == "openvino")
        batch = _any_batch(model, size, facts.input.batch, [tap.cut.name for tap in taps].index(end.name))
    except UNREADABLE as error:
        raise refusal(path, str(error)) from error
    digest = _digest(READING, digest_of(path, kind), size, None if scaling is None else asdict(scaling), batch)
    return Body(path.stem, size, model, taps, end, digest, depthwise, facts.quantised, batch)


def _is_quantised(model: Any) -> bool:
    """Returns whether a graph rounds activations to few levels, or keeps its kernels in 8 bits or fewer."""
    small = ("i8", "u8", "i4", "u4", "f8e4m3", "f8e5m2")
    for node in model.get_ops():
        kind = node.get_type_name()
        if kind == "FakeQuantize":
            return True
        if kind == "Constant" and node.get_element_type().get_type_name() in small and int(np.prod(shape_of(node.output(0)))) > 64:
            return True
    return False


def _preprocessing(file: GraphFile, name: str | None) -> Preprocessing | None:
    """Returns the preprocessing; None if the graph takes the pixels as they are."""
    if file.input.takes_pixels:
        if name not in (None, "none"):
            raise without_effect("preprocessing", repr(name), f"on a graph with an input of type {file.input.kind}")
        return None
    if name is not None:
        chosen = named(name)
        return chosen if file.preprocessing is None else replace(file.preprocessing, scaling=chosen.scaling, origin=name)
    if file.preprocessing is None:
        raise required(file.path.name)
    return file.preprocessing


def _with_taps(model: Any, file: str, named_nodes: bool) -> tuple[tuple[Tap, ...], Cut, Any, bool]:
    """Returns the taps, the end, the model with an output per tap, and whether it has depthwise convolutions."""
    source = _source(model)
    whole = nodes_of(model, source.output, named_nodes)
    outputs = [key_of(result.input_value(0)) for result in model.get_results()]
    reached = {key for node in whole.nodes for key in node.outputs}
    if not reached.intersection(outputs):
        raise _no_features(file)
    graph = whole.until(features_end(whole, [key for key in outputs if key in reached]))
    found, useful = _points(graph)
    axes = axes_of(graph, source.layout)
    arrangements: dict[Key, Arrangement] = {}
    for crossing in found:
        how = arranged(axes[_as_key(crossing)], shape_of(graph.tensor(_as_key(crossing))))
        if how is not None:
            arrangements[_as_key(crossing)] = how
    found = [crossing for crossing in found if _as_key(crossing) in arrangements]
    shapes: dict[Hashable, tuple[int, ...]] = {
        key: _cut_shape(shape_of(graph.tensor(key)), how) for key, how in arrangements.items()
    }
    index = {name: number for number, name in enumerate(c.name for c in found if c.name in useful)}
    plain = described(graph.steps(), found, graph.costs(), shapes)
    cuts = [replace(cut, index=index.get(cut.name)) for cut in plain]
    if not index:
        raise _no_features(file)
    end = next(cut for cut in reversed(cuts) if cut.index is not None)
    taps = tuple(
        Tap(cut, arrangements[_as_key(c)].layout, arrangements[_as_key(c)].prefix) for cut, c in zip(cuts, found, strict=True)
    )
    tensors = [_tap_tensor(graph.tensor(_as_key(c)), arrangements[_as_key(c)], c.name) for c in found]
    depthwise = any(node.kind == "GroupConvolution" for node in graph.nodes)
    return taps, end, runtime().Model(tensors, model.get_parameters(), "backbone"), depthwise


def _points(graph: Nodes) -> tuple[list[Crossing], set[str]]:
    """Returns the crossings after the first kernel, and the names of the useful ones.

    The last run of operations ends at its last feature, like every other run. Its map is then not pooled yet, so it can be pooled
    in another way.
    """
    steps = graph.steps()
    kernels = steps.kernels()
    found = [crossing for crossing in crossings(steps) if kernels[crossing.position + 1]]
    return found, {crossing.name for crossing in landmarks(steps, pooled_end=False)} if found else set()


@dataclass(frozen=True, slots=True)
class _Source:
    """The tensor where the network begins, and its layout."""

    output: Any
    layout: str


def _source(model: Any) -> _Source:
    node = next((node for node in model.get_ops() if node.get_friendly_name() == PREPROCESSED), None)
    return _Source(model.get_parameters()[0].output(0) if node is None else node.output(0), "NHWC")


def _tap_tensor(tensor: Any, how: Arrangement, name: str) -> Any:
    if how.order is None:
        return tensor
    turned = operations().transpose(tensor, operations().constant(np.array(list(how.order), np.int64)))
    turned.set_friendly_name(f"{name}/transposed")
    return turned.output(0)


def _cut_shape(shape: tuple[int, ...], how: Arrangement) -> tuple[int, ...]:
    """Returns the shape of an image's tensor with channels last."""
    ordered = shape if how.order is None else tuple(shape[axis] for axis in how.order)
    return (*ordered[2:], ordered[1]) if how.layout == "NCHW" else ordered[1:]


def _as_key(crossing: Crossing) -> Key:
    return cast("Key", crossing.tensor)


def _any_batch(model: Any, size: int, fixed: int | None, end: int) -> int | None:
    """Reshapes a model to batches of any size. Returns None, or 1 if it only takes images one by one."""
    single = model.clone()
    try:
        model.reshape({model.inputs[0]: [-1, size, size, 3]})
        any_size = all(_is_batched(output) for output in model.outputs)
    except RuntimeError:
        any_size = False
    if any_size and (fixed is None or _agrees(model, single, size, end)):
        return None
    model.reshape({model.inputs[0]: [1, size, size, 3]})
    return 1


def _is_batched(output: Any) -> bool:
    first, *rest = output.get_partial_shape()
    return bool(first.is_dynamic) and all(side.is_static for side in rest)


def _agrees(model: Any, single: Any, size: int, end: int) -> bool:
    """Returns whether a graph that was made for one image computes the same for two at a time."""
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    try:
        together = evaluate(_ending(model, end), images)[0]
    except RuntimeError:
        return False
    apart = evaluate(_ending(single, end), images, batch=1)[0].astype(np.float64)
    return together.shape == apart.shape and bool(np.abs(together - apart).max() <= BATCH_TOLERANCE * np.abs(apart).max())


def _ending(model: Any, number: int) -> Any:
    """Returns a copy of a model with only one of its outputs."""
    whole = model.clone()
    return runtime().Model([whole.get_results()[number].input_value(0)], whole.get_parameters(), "part")


def _digest(*facts: object) -> str:
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=32).hexdigest()


def _no_features(file: str) -> BackboneError:
    return BackboneError(
        "a graph must compute features from its image",
        code="no-features",
        field="backbone",
        received=file,
        hint="export the network from the image to its features or its classifier",
    )
