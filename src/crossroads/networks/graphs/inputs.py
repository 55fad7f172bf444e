"""Describes the input of a graph (layout, type and size) and puts preprocessing in front of the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from crossroads.errors import BackboneError, option
from crossroads.inference import operations, runtime
from crossroads.networks.graphs.nodes import shape_of
from crossroads.networks.graphs.preprocessing import scaled
from crossroads.networks.scaling import Scaling
from crossroads.progress import Note

DEFAULT_SIZE = 224

_TYPES = {"f32": "float32", "f16": "float16", "u8": "uint8", "i8": "int8"}


@dataclass(frozen=True, slots=True)
class Input:
    """The input of a graph.

    Attributes:
        layout: The order of the axes.
        kind: Type of the values: float32, float16, uint8 or int8.
        smallest: Minimum side of the images in pixels.
        largest: Maximum side; None if there is no limit. It equals `smallest` if the file fixes the size.
        batch: The batch size that the file fixes; None if it takes any.
    """

    layout: Literal["NCHW", "NHWC"]
    kind: str
    smallest: int
    largest: int | None
    batch: int | None

    @property
    def takes_pixels(self) -> bool:
        """Whether it takes the pixels as they are, because its type holds nothing else."""
        return self.kind in ("uint8", "int8")

    def size(self, wanted: int | None, known: int | None, file: str) -> int:
        """Returns the side of the images in pixels.

        Args:
            wanted: The side that the user wants; None for no wish.
            known: The side that the preprocessing states; None if it does not.
            file: Name of the file for messages.

        Raises:
            BackboneError: The graph does not take images of this size.
        """
        fallback = self.smallest if self.smallest == self.largest else known or DEFAULT_SIZE
        size = wanted or min(max(fallback, self.smallest), self.largest or fallback)
        if size < self.smallest or (self.largest is not None and size > self.largest):
            fixed = self.smallest == self.largest
            raise wrong_size(
                file, f"takes images of {self.smallest} px" if fixed else f"takes {self.smallest} to {self.largest} px", size
            )
        return size

    def shape(self, size: int, batch: int) -> list[int]:
        """Returns the shape of a batch of images."""
        return [batch, 3, size, size] if self.layout == "NCHW" else [batch, size, size, 3]


def wrong_size(file: str, rule: str, size: int, hint: str | None = None) -> BackboneError:
    """Returns the error about images of a size that a graph does not take."""
    return BackboneError(
        f"{file} {rule}",
        code="image-size-not-supported",
        field="image_size",
        received=f"{size} px",
        hint=hint or f"leave {option('image_size')} out",
    )


def input_of(model: Any, file: str, channels_first: bool) -> Input:
    """Returns the input of an OpenVINO model.

    Args:
        model: The model.
        file: Name of the file for messages.
        channels_first: The layout to assume if it is uncertain which axis has the three channels.

    Raises:
        BackboneError: The model does not have exactly one input, or this input is not a square RGB image.
    """
    if not model.inputs:
        raise BackboneError(
            "a graph must have an image as input",
            code="no-image-input",
            field="backbone",
            received=f"{file} without inputs",
            hint="export the network with its input",
        )
    if len(model.inputs) != 1:
        raise BackboneError(
            "a graph must have one input, the image",
            code="several-graph-inputs",
            field="backbone",
            received=f"{file} with {len(model.inputs)}: {', '.join(_name(tensor) for tensor in model.inputs[:4])}",
            hint="export only the part from the image to the features",
        )
    shape, kind = model.inputs[0].get_partial_shape(), model.inputs[0].get_element_type().get_type_name()
    if shape.rank.is_dynamic:
        raise BackboneError(
            "the input of a graph must have a known number of axes",
            code="dynamic-rank",
            field="backbone",
            received=f"{_name(model.inputs[0])} of {file} without one",
            hint="export the network with an input such as (batch, 3, height, width)",
        )
    layout = _layout(list(shape), channels_first)
    if layout is None or kind not in _TYPES:
        raise BackboneError(
            "the input of a graph must be an RGB image in uint8, float16 or float32",
            code="no-image-input",
            field="backbone",
            received=f"{_name(model.inputs[0])} {kind}{shape} in {file}",
            hint="export the image part of the network",
        )
    rows, columns = [shape[axis] for axis in ((2, 3) if layout == "NCHW" else (1, 2))]
    smallest = max(1, rows.get_min_length(), columns.get_min_length())
    tops = [side.get_max_length() for side in (rows, columns) if side.get_max_length() > 0]
    largest = min(tops) if tops else None
    if largest is not None and largest < smallest:
        raise BackboneError(
            "the images of a graph must be square",
            code="input-not-square",
            field="backbone",
            received=f"{kind}{shape} in {file}",
            hint="export the network for square images",
        )
    batch = shape[0].get_length() if shape[0].is_static else None
    return Input(layout, _TYPES[kind], smallest, largest, batch)


def _layout(shape: list[Any], channels_first: bool) -> Literal["NCHW", "NHWC"] | None:
    if len(shape) != 4:
        return None
    certain = [axis for axis in (1, 3) if shape[axis].is_static and shape[axis].get_length() == 3]
    possible = [axis for axis in (1, 3) if shape[axis].is_dynamic and shape[axis].relaxes(_three())]
    axes = certain or possible
    if not axes:
        return None
    first = axes[0] == 1 if len(axes) == 1 else channels_first
    return "NCHW" if first else "NHWC"


def _three() -> Any:
    return runtime().Dimension(3)


def _name(tensor: Any) -> str:
    names = sorted(tensor.get_names())
    return names[0] if names else str(tensor.get_node().get_friendly_name())


def with_preprocessing(model: Any, described: Input, size: int, scaling: Scaling | None) -> Any:
    """Puts preprocessing in front of a model. The input is then uint8 (1, size, size, 3) RGB.

    Args:
        model: An OpenVINO model. It is changed.
        described: Its input.
        size: Side of the images in pixels.
        scaling: What happens to the pixels; None if the graph takes them as they are.
    """
    ops = operations()
    model.reshape({model.inputs[0]: described.shape(size, 1)})
    old = model.get_parameters()[0]
    images = ops.parameter([1, size, size, 3], np.uint8, name="images")
    x = images.output(0)
    if described.kind == "int8":  # quantised with a zero point 128 lower
        shifted = ops.subtract(ops.convert(x, "i16"), ops.constant(np.array(128, np.int16)))
        x = ops.convert(shifted, "i8").output(0)
    elif scaling is not None:
        x = scaled(x, scaling)
    if described.layout == "NCHW":
        x = ops.transpose(x, ops.constant(np.array([0, 3, 1, 2], np.int64))).output(0)
    if described.kind == "float16":
        x = ops.convert(x, "f16").output(0)
    old.output(0).replace(x)
    return runtime().Model(list(model.get_results()), [images], "backbone")


def range_note(model: Any, file: str) -> Note | None:
    """Returns what a quantised input maps the pixels 0 to 255 to; None if the graph does not say so."""
    for node in model.get_ordered_ops()[:40]:
        if node.get_type_name() == "FakeQuantize":
            source = node.input_value(0).get_node()
            while source.get_type_name() in ("Convert", "Transpose", "Subtract"):
                source = source.input_value(0).get_node()
            if source.get_type_name() != "Parameter":
                return None
            bounds = [node.input_value(number).get_node() for number in (3, 4)]
            if any(bound.get_type_name() != "Constant" or np.prod(shape_of(bound.output(0))) != 1 for bound in bounds):
                return None
            low, high = (float(np.array(bound.data).reshape(-1)[0]) for bound in bounds)
            text = f"{file} takes pixels as they are and maps 0 to 255 to {low:.3g} to {high:.3g}"
            return Note(text, "quantised-input", low=low, high=high)
    return None
