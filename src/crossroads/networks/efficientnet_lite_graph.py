"""Builds the inference graph of EfficientNet-Lite0, -1 and -2 from the engine's own operations. Keras is not needed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads.inference import operations, runtime
from crossroads.networks.body import Tap
from crossroads.networks.crossings import Cost, Step, Steps, possible
from crossroads.networks.efficientnet_lite_plan import EPSILON, STEM, TOP, Block, blocks
from crossroads.networks.scaling import SCALINGS
from crossroads.networks.weights.read import read_weights

_Arrays = Mapping[str, NDArray[Any]]


def graph_of_lite(number: int, size: int, weights: Path) -> tuple[Any, tuple[Tap, ...]]:
    """Builds EfficientNet-Lite0, -1 or -2 as an inference graph.

    Args:
        number: 0, 1 or 2.
        size: Side of the images in pixels.
        weights: A state dict with the names of the EfficientNet-PyTorch repository.

    Returns:
        An OpenVINO model, uint8 (n, size, size, 3) RGB in, with one output for each tap; and the taps.

    Raises:
        WeightsError: The file cannot be read as weights.
    """
    arrays = {
        f"{layer.name}.{role}": array
        for layer in read_weights(weights).layers
        for role, array in zip(layer.roles, layer.arrays, strict=True)
    }
    return _Builder(size, arrays).build(blocks(number))


lite0, lite1, lite2 = (partial(graph_of_lite, number) for number in (0, 1, 2))


class _Builder:
    """Builds the graph layer by layer, with a record of each for the cuts."""

    def __init__(self, size: int, arrays: _Arrays) -> None:
        self._ops, self._arrays, self._size = operations(), arrays, size
        self._steps: list[Step] = []
        self._costs: list[Cost] = []
        self._tensors: dict[str, Any] = {}
        self._shapes: dict[Hashable, tuple[int, ...]] = {"images": (size, size, 3)}

    def build(self, plan: tuple[Block, ...]) -> tuple[Any, tuple[Tap, ...]]:
        ops, scaling = self._ops, SCALINGS["lite"]
        images = ops.parameter([-1, self._size, self._size, 3], np.uint8, name="images")
        images.output(0).set_names({"images"})
        x = ops.convert(ops.transpose(images, np.array([0, 3, 1, 2], np.int64)), "f32")
        x = ops.subtract(x, np.float32(scaling.mean[0]))
        self._tensors["images"] = ops.divide(x, np.float32(scaling.deviation[0])).output(0)
        last = self._convolution("images", "stem_conv", "_conv_stem", STEM, 3, 2)
        last = self._activation(self._norm(last, "stem_bn", "_bn0"), "stem_activation")
        for place, block in enumerate(plan):
            last = self._block(last, block, f"_blocks.{place}")
        last = self._convolution(last, "top_conv", "_conv_head", TOP, 1, 1)
        last = self._activation(self._norm(last, "top_bn", "_bn1"), "top_activation")
        cuts = possible(Steps("images", last, tuple(self._steps)), self._costs, self._shapes)
        model = runtime().Model([self._tensors[cut.name] for cut in cuts], [images], "body")
        return model, tuple(Tap(cut, "NCHW") for cut in cuts)

    def _block(self, last: str, block: Block, saved: str) -> str:
        before, name = last, block.name
        if block.expanded != block.inputs:
            last = self._convolution(last, f"{name}_expand_conv", f"{saved}._expand_conv", block.expanded, 1, 1)
            last = self._activation(self._norm(last, f"{name}_expand_bn", f"{saved}._bn0"), f"{name}_expand_activation")
        last = self._depthwise(last, f"{name}_dwconv", f"{saved}._depthwise_conv", block.kernel, block.stride)
        last = self._activation(self._norm(last, f"{name}_bn", f"{saved}._bn1"), f"{name}_activation")
        last = self._convolution(last, f"{name}_project_conv", f"{saved}._project_conv", block.channels, 1, 1)
        last = self._norm(last, f"{name}_project_bn", f"{saved}._bn2")
        if not block.residual:
            return last
        node = self._ops.add(self._tensors[last], self._tensors[before])
        return self._add(f"{name}_add", node, (last, before), self._shapes[last])

    def _convolution(self, last: str, name: str, saved: str, channels: int, side: int, stride: int) -> str:
        kernel = self._arrays[f"{saved}.weight"].astype(np.float32)
        node = self._ops.convolution(self._tensors[last], kernel, [stride] * 2, [0, 0], [0, 0], [1, 1], "same_upper")
        height, width, inputs = self._shapes[last]
        shape = (-(-height // stride), -(-width // stride), channels)
        return self._add(name, node, (last,), shape, {"kernel": kernel.size}, shape[0] * shape[1] * inputs * channels * side**2)

    def _depthwise(self, last: str, name: str, saved: str, side: int, stride: int) -> str:
        kernel = self._arrays[f"{saved}.weight"].astype(np.float32)
        grouped = kernel[:, None]  # (groups, 1, 1, side, side)
        node = self._ops.group_convolution(self._tensors[last], grouped, [stride] * 2, [0, 0], [0, 0], [1, 1], "same_upper")
        height, width, channels = self._shapes[last]
        shape = (-(-height // stride), -(-width // stride), channels)
        return self._add(name, node, (last,), shape, {"kernel": kernel.size}, shape[0] * shape[1] * channels * side**2)

    def _norm(self, last: str, name: str, saved: str) -> str:
        roles = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, variance = (self._arrays[f"{saved}.{role}"].astype(np.float64) for role in roles)
        scale = gamma / np.sqrt(variance + EPSILON)
        shift = beta - mean * scale
        scaled = self._ops.multiply(self._tensors[last], scale.astype(np.float32)[None, :, None, None])
        node = self._ops.add(scaled, shift.astype(np.float32)[None, :, None, None])
        return self._add(name, node, (last,), self._shapes[last], dict.fromkeys(roles, len(gamma)), kernel=False)

    def _activation(self, last: str, name: str) -> str:
        return self._add(name, self._ops.clamp(self._tensors[last], 0.0, 6.0), (last,), self._shapes[last])

    def _add(
        self,
        name: str,
        node: Any,
        inputs: tuple[str, ...],
        shape: tuple[int, ...],
        weights: Mapping[str, int] | None = None,
        multiply_adds: int = 0,
        *,
        kernel: bool = True,
    ) -> str:
        """Records a layer and returns its name, which is also the key of its output."""
        node.set_friendly_name(name)
        self._tensors[name], self._shapes[name] = node.output(0), shape
        sizes: dict[Hashable, int] = {f"{name}/{role}": size for role, size in (weights or {}).items()}
        self._steps.append(Step(name, name, inputs, (name,), kernel and bool(weights), False, sizes))
        self._costs.append(Cost(multiply_adds, int(np.prod(shape))))
        return name
