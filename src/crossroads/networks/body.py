"""Represents a backbone as one inference graph that can end at any of its cuts. Keras is not needed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import BackboneError, option, unknown
from crossroads.inference import operations, runtime
from crossroads.networks.cut import Cut, find_cut
from crossroads.progress import Note
from crossroads.recipe import PoolingName

if TYPE_CHECKING:
    import keras

Layout = Literal["NHWC", "NCHW", "NC", "NTC"]
"""The axes of a tensor: N images, H rows, W columns, C channels, T tokens."""

POOLINGS: tuple[str, ...] = get_args(PoolingName)
"""Every pooling. For tokens, ``average`` leaves out class and register tokens, and a grid covers only the patches."""

OF_CLASS_TOKEN = ("class-token", "class-and-average")
"""The poolings that need a class token."""


@dataclass(frozen=True, slots=True)
class Tap:
    """A cut of a body, and how its tensor is laid out.

    Attributes:
        cut: The cut. Its shape is (height, width, channels), (tokens, channels) or (channels,), and does not depend on the layout.
        layout: The axes of the output of the graph.
        prefix: Number of tokens before those of the image: a class token, then register tokens. 0 for maps and vectors.
    """

    cut: Cut
    layout: Layout
    prefix: int = 0


Output = tuple[Cut, PoolingName]
"""A cut, and how its tensor becomes a vector."""


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """The frozen part of a network: images in, features out.

    Attributes:
        model: An OpenVINO model, uint8 (n, size, size, 3) RGB in, float32 out. Its output has the features of an image in the
            order of `shape`, but may have more axes.
        shape: Shape of the features of one image: (d,), or (height, width, channels) for a map.
        digest: Digest of what the part computes.
        outputs: The cuts whose pooled outputs are side by side in the features; empty for a map.
        batch: The only batch size that the graph supports; None if it supports any.
        keras_model: Builds the same part in Keras, which is faster on a GPU; None for a graph that did not come from Keras.
    """

    model: Any
    shape: tuple[int, ...]
    digest: str
    outputs: tuple[Output, ...] = ()
    batch: int | None = None
    keras_model: Callable[[], keras.Model] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A backbone as one inference graph.

    Attributes:
        name: Name of the backbone for messages.
        size: Side of the images in pixels.
        model: An OpenVINO model, uint8 (n, size, size, 3) RGB in, with preprocessing inside. Output i is the tensor of tap i.
        taps: Every possible cut, from the input on. Those with an index are listed for users.
        end: The last cut whose weights are known: features end here by default.
        digest: Digest of preprocessing, layers and weights.
        depthwise: Whether it has depthwise convolutions, which train slowly on a CPU.
        quantised: Whether its weights or activations are quantised.
        batch: The only batch size that the graph supports; None if it supports any.
        weights: Description of the loaded weights for the artifact; None for random weights.
        notes: Notes for the user.
        keras_part: Builds the part up to a cut with a pooling (or None) in Keras; None for a graph that did not come from Keras.
    """

    name: str
    size: int
    model: Any
    taps: tuple[Tap, ...]
    end: Cut
    digest: str
    depthwise: bool = False
    quantised: bool = False
    batch: int | None = None
    weights: dict[str, Any] | None = None
    notes: tuple[Note, ...] = ()
    keras_part: Callable[[Cut, PoolingName | None], keras.Model] | None = field(default=None, repr=False)

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """The useful cuts in order, up to the end."""
        return tuple(tap.cut for tap in self.taps if tap.cut.index is not None and tap.cut.multiply_adds <= self.end.multiply_adds)

    def find(self, cut: str | int | float | None) -> Cut:
        """Finds a cut by name, position or depth; None for the end. A depth or negative index beyond the end gives the end.

        Raises:
            BackboneError: The cut does not exist, or the weights end before it.
        """
        return self.end if cut is None else within(find_cut([tap.cut for tap in self.taps], cut, self.name), cut, self.end)

    def until(self, cut: Cut, pooling: PoolingName | None) -> Frozen:
        """Returns the part up to a cut, whose output is pooled to a vector; None for the map itself.

        Raises:
            BackboneError: The pooling is unknown, or does not fit the output.
        """
        build = None if self.keras_part is None else (lambda make=self.keras_part: make(cut, pooling))
        if pooling is not None:
            return self.side_by_side([(cut, pooling)], build)
        position, tap = self._tap(cut)
        return self._frozen(_whole(self._tensor(position), tap.layout), cut.shape, f"{cut.name} None", (), build)

    def averages(self, cuts: Sequence[Cut]) -> Frozen:
        """Returns the part whose features are the averages at several cuts, side by side in their order."""
        return self.side_by_side([(cut, "average") for cut in cuts])

    def side_by_side(self, outputs: Sequence[Output], keras_model: Callable[[], keras.Model] | None = None) -> Frozen:
        """Returns the part whose features are the pooled outputs at several cuts, in their order.

        Args:
            outputs: The cuts with their poolings, at least one. The graph computes what they share once.
            keras_model: Builds the same part in Keras.

        Raises:
            BackboneError: A pooling is unknown, or does not fit its output.
        """
        ops = operations()
        pooled = [self._pooled(self._tap(cut)[0], pooling) for cut, pooling in outputs]
        key = ", ".join(f"{cut.name} {pooling}" for cut, pooling in outputs)
        if len(pooled) == 1:
            tensor, shape = pooled[0]
        else:
            flat = [ops.reshape(one, ops.constant(np.array([-1, *dims], np.int64)), False) for one, dims in pooled]
            tensor, shape = ops.concat(flat, 1).output(0), (sum(dims[0] for _, dims in pooled),)
        return self._frozen(tensor, shape, key, tuple(outputs), keras_model)

    def _frozen(
        self,
        tensor: Any,
        shape: tuple[int, ...],
        key: str,
        outputs: tuple[Output, ...],
        keras_model: Callable[[], keras.Model] | None,
    ) -> Frozen:
        model = runtime().Model([tensor], self.model.get_parameters(), "frozen").clone()
        digest = hashlib.blake2b(f"{self.digest} {key}".encode(), digest_size=32).hexdigest()
        return Frozen(model, shape, digest, outputs, self.batch, keras_model)

    def _tap(self, cut: Cut) -> tuple[int, Tap]:
        for position, tap in enumerate(self.taps):
            if tap.cut.name == cut.name:
                return position, tap
        raise BackboneError(
            "the cut belongs to another backbone", code="cut-of-another-backbone", received=f"{cut.name!r} for {self.name!r}"
        )

    def _tensor(self, position: int) -> Any:
        """Returns the output of the node that computes a tap, in float32."""
        tensor = self.model.outputs[position].get_node().input_value(0)
        floats = tensor.get_element_type().get_type_name() == "f32"
        return tensor if floats else operations().convert(tensor, "f32").output(0)

    def _pooled(self, position: int, pooling: str) -> tuple[Any, tuple[int, ...]]:
        """Returns the tensor and the shape of pooled features."""
        tap, tensor = self.taps[position], self._tensor(position)
        require_pooling(pooling, tap.prefix if tap.layout == "NTC" else 0, self.name)
        if tap.layout == "NC":
            return tensor, tap.cut.shape
        if tap.layout == "NTC":
            return _pooled_tokens(tensor, tap, pooling)
        return _pooled_map(tensor, tap.cut.shape, tap.layout, pooling)


def within(wanted: Cut, cut: str | int | float, end: Cut) -> Cut:
    """Returns a cut at or before the end of the weights. For a depth or a negative index beyond it, returns that end.

    Args:
        wanted: The cut that was found.
        cut: How the recipe refers to it.
        end: The last cut whose weights are known.

    Raises:
        BackboneError: The weights end before the cut.
    """
    if wanted.multiply_adds <= end.multiply_adds and wanted.parameters <= end.parameters:
        return wanted
    text = str(cut)
    if ("." in text and text.replace(".", "", 1).isdigit()) or text.startswith("-"):
        return end
    raise BackboneError(
        f"the pretrained weights end at {end.name!r}, before this cut",
        code="cut-after-weights",
        field="cut",
        received=repr(cut),
        hint=f"set {option('cut')} to {end.name!r} or an earlier one, or use other {option('weights')}",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A dense layer: kernel float32 (d, k) and bias float32 (k,)."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class GraphModel:
    """A frozen part with a trained head.

    Attributes:
        frozen: The frozen part; its features are vectors (d,).
        head: The dense layers of the head, with a ReLU between two of them and a softmax at the end.
    """

    frozen: Frozen
    head: tuple[Dense, ...]

    @property
    def digest(self) -> str:
        """Digest of the function that the model computes."""
        hasher = hashlib.blake2b(self.frozen.digest.encode(), digest_size=32)
        for layer in self.head:
            hasher.update(layer.kernel.tobytes() + layer.bias.tobytes())
        return hasher.hexdigest()

    @property
    def bytes(self) -> int:
        """Bytes of the weights."""
        constants = (node for node in self.frozen.model.get_ops() if node.get_type_name() == "Constant")
        return sum(int(node.get_byte_size()) for node in constants) + sum(x.kernel.nbytes + x.bias.nbytes for x in self.head)

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Returns the probabilities, float32 (n, k), of features (n, d)."""
        return probabilities_of(features, self.head)

    def graph(self) -> Any:
        """Returns an OpenVINO model: uint8 (n, size, size, 3) in, float32 (n, k) probabilities out."""
        ops, (d,) = operations(), self.frozen.shape
        model = self.frozen.model.clone()
        x = model.outputs[0].get_node().input_value(0)
        if len(x.get_partial_shape()) != 2:
            x = ops.reshape(x, ops.constant(np.array([-1, d], np.int64)), False)
        for number, layer in enumerate(self.head):
            x = ops.relu(x) if number else x
            x = ops.matmul(x, _named(layer.kernel, f"head_{number}_kernel"), False, False)
            x = ops.add(x, _named(layer.bias[None], f"head_{number}_bias"))
        probabilities = ops.softmax(x, 1)
        probabilities.set_friendly_name("probabilities")
        whole = runtime().Model([probabilities.output(0)], model.get_parameters(), "crossroads")
        whole.outputs[0].tensor.set_names({"probabilities"})
        return whole


def probabilities_of(features: NDArray[np.floating], head: Sequence[Dense]) -> NDArray[np.float32]:
    """Returns the probabilities, float32 (n, k), of features (n, d), computed by NumPy in double precision."""
    x = features.astype(np.float64)
    for number, layer in enumerate(head):
        x = (np.maximum(x, 0) if number else x) @ layer.kernel.astype(np.float64) + layer.bias
    weights = np.exp(x - x.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def head_of(graph: Any) -> tuple[Dense, ...]:
    """Returns the dense layers of the head of an OpenVINO model that `GraphModel.graph` made; empty for another model."""
    constants = {node.get_friendly_name(): node for node in graph.get_ops() if node.get_type_name() == "Constant"}
    layers: list[Dense] = []
    while (name := f"head_{len(layers)}_kernel") in constants:
        kernel, bias = (np.array(constants[each].data, np.float32) for each in (name, name.replace("kernel", "bias")))
        layers.append(Dense(kernel, bias[0]))
    return tuple(layers)


def _named(values: NDArray[np.float32], name: str) -> Any:
    constant = operations().constant(np.ascontiguousarray(values, np.float32))
    constant.set_friendly_name(name)
    return constant


def require_pooling(pooling: str, prefix: int, network: str) -> None:
    """Raises `BackboneError` if a pooling is unknown, or needs a class token and there is none.

    Args:
        pooling: Its name.
        prefix: Number of tokens before those of the patches; 0 for maps and vectors.
        network: Describes the features for the message.
    """
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    if pooling in OF_CLASS_TOKEN and not prefix:
        raise BackboneError(
            "this pooling needs a network with a class token",
            code="no-class-token",
            field="pooling",
            received=f"{pooling!r} for {network}",
            hint="use average",
        )


def square_side(patches: int, pooling: str) -> int:
    """Returns the side of the square map that patches form. Raises `BackboneError` if they do not form a square."""
    side = math.isqrt(patches)
    if side * side != patches or not patches:
        raise BackboneError(
            "a grid needs the patches of a square image",
            code="shape-not-poolable",
            field="pooling",
            received=f"{pooling!r} for {patches} patches",
            hint="use average",
        )
    return side


def _whole(tensor: Any, layout: Layout) -> Any:
    """Returns the tensor with its channels last, as the shape of the cut has them."""
    if layout != "NCHW":
        return tensor
    return operations().transpose(tensor, np.array([0, 2, 3, 1], np.int64)).output(0)


def _pooled_tokens(tensor: Any, tap: Tap, pooling: str) -> tuple[Any, tuple[int, ...]]:
    ops, (tokens, width) = operations(), tap.cut.shape
    axis = ops.constant(np.array(1, np.int64))
    patches = ops.gather(tensor, ops.constant(np.arange(tap.prefix, tokens, dtype=np.int64)), axis) if tap.prefix else tensor
    parts = []
    if pooling.startswith("average-"):
        side = square_side(tokens - tap.prefix, pooling)
        grid = ops.reshape(patches, ops.constant(np.array([-1, side, side, width], np.int64)), False)
        return _pooled_map(grid.output(0), (side, side, width), "NHWC", pooling)
    if pooling != "average":
        parts.append(ops.gather(tensor, ops.constant(np.array(0, np.int64)), axis))
    if pooling != "class-token":
        parts.append(ops.reduce_mean(patches, axis, False))
    joined = parts[0] if len(parts) == 1 else ops.concat(parts, 1)
    return joined.output(0), (width * len(parts),)


def _pooled_map(tensor: Any, shape: tuple[int, ...], layout: Layout, pooling: str) -> tuple[Any, tuple[int, ...]]:
    """Pools a map: over the whole of it, or over each region of a grid.

    Region i of k on a side of n positions goes from floor(i n / k) to ceil((i + 1) n / k), so that neighbouring regions overlap if
    n is not a multiple of k. A grid larger than the map has the size of the map. Channels change fastest, and rows of the grid
    slowest.
    """
    ops = operations()
    height, width, channels = shape
    if pooling == "average":
        axes = (2, 3) if layout == "NCHW" else (1, 2)
        return ops.reduce_mean(tensor, ops.constant(np.array(axes, np.int64)), False).output(0), (channels,)
    side = int(pooling.removeprefix("average-"))
    sides = (min(side, height), min(side, width))
    if sides != (height, width):
        first = tensor if layout == "NCHW" else ops.transpose(tensor, np.array([0, 3, 1, 2], np.int64)).output(0)
        grid = ops.adaptive_avg_pool(first, ops.constant(np.array(sides, np.int64)))
        tensor = ops.transpose(grid, np.array([0, 2, 3, 1], np.int64)).output(0)
    else:
        tensor = _whole(tensor, layout)
    return tensor, (sides[0] * sides[1] * channels,)
