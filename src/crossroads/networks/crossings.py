"""Finds the cuts of any graph of operations: where one tensor crosses, which of these are useful, and the cost up to each."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from crossroads.networks.cut import Cut


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a graph. Tensors, weights and layers are known by keys.

    Attributes:
        name: Name of the layer. All steps of one layer have the same.
        layer: The layer. A layer that is called twice has two steps.
        inputs: Input tensors.
        outputs: Output tensors.
        kernel: Whether it has a kernel and so counts for the depth of the network.
        passive: Whether it computes no feature. A cut is placed before such a step, so that the features keep what the step drops
            and have no padding for the next layer.
        weights: Number of parameters of each of its weights.
    """

    name: str
    layer: Hashable
    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]
    kernel: bool
    passive: bool
    weights: Mapping[Hashable, int]


@dataclass(frozen=True, slots=True)
class Steps:
    """The operations between one input and one output.

    Attributes:
        source: The input tensor.
        sink: The output tensor.
        steps: Every operation that the output depends on, in topological order.
    """

    source: Hashable
    sink: Hashable
    steps: tuple[Step, ...]

    def kernels(self) -> list[int]:
        """Returns the number of steps with kernels before each step, and in all."""
        return list(accumulate((step.kernel for step in self.steps), initial=0))


@dataclass(frozen=True, slots=True)
class Crossing:
    """A tensor that is the only connection between what is computed before it and after it.

    Attributes:
        position: Index of its step. All earlier steps are below the crossing.
        name: Name of the layer that outputs it.
        tensor: The tensor.
    """

    position: int
    name: str
    tensor: Hashable


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step computes per image.

    Attributes:
        multiply_adds: Multiply-adds.
        activations: Number of output values.
    """

    multiply_adds: int
    activations: int


def crossings(graph: Steps) -> Iterator[Crossing]:
    """Yields the crossings in order; the last one is the output. The cost is linear in the size of the graph.

    Crossings are the articulation points of the graph. Every path from input to output passes through a tensor exactly if, at some
    point of any topological order, this tensor alone is computed and still needed. Example: in ``a -> b, a -> c, b + c -> d`` both
    ``b`` and ``c`` are alive before ``d``, so only ``a`` and ``d`` are crossings. A layer with weights that is called on both sides
    of a point would be frozen and trained at once, so there is no crossing between its calls. A layer that is called more than once
    can be a crossing at its last call only, which makes its name unambiguous.
    """
    last_use = {tensor: position for position, step in enumerate(graph.steps) for tensor in step.inputs}
    last_use[graph.sink] = len(graph.steps)
    last_call = {step.layer: position for position, step in enumerate(graph.steps)}
    alive: set[Hashable] = {graph.source}
    shared_until = -1
    for position, step in enumerate(graph.steps):
        alive.difference_update(tensor for tensor in step.inputs if last_use[tensor] <= position)
        alive.update(tensor for tensor in step.outputs if last_use.get(tensor, -1) > position)
        if step.weights:
            shared_until = max(shared_until, last_call[step.layer])
        if len(alive) == 1 and shared_until <= position and last_call[step.layer] == position:
            (tensor,) = alive
            yield Crossing(position, step.name, tensor)


def landmarks(graph: Steps, *, pooled_end: bool = True) -> list[Crossing]:
    """Returns the useful crossings, in order. There is one for each run of steps that ends before the next kernel.

    Args:
        graph: The graph.
        pooled_end: Whether the last crossing is the end of the graph, even if its last step is pooling. Otherwise, it is chosen as
            in every other run.
    """
    found = list(crossings(graph))
    if not pooled_end:
        return [best(graph, run) for run in runs(graph, found)]
    # The end is always a cut, also in a network without kernels.
    return [best(graph, run) for run in runs(graph, found)[:-1]] + found[-1:]


def runs(graph: Steps, found: Sequence[Crossing]) -> list[list[Crossing]]:
    """Returns the crossings after the first kernel, grouped by the kernels below them."""
    kernels = graph.kernels()
    grouped: dict[int, list[Crossing]] = {}
    for crossing in found:
        if below := kernels[crossing.position + 1]:
            grouped.setdefault(below, []).append(crossing)
    return list(grouped.values())


def best(graph: Steps, run: Sequence[Crossing]) -> Crossing:
    """Returns the last crossing of a run that computes a feature."""
    active = [crossing for crossing in run if not graph.steps[crossing.position].passive]
    return (active or run)[-1]


def possible(graph: Steps, costs: Sequence[Cost], shapes: Mapping[Hashable, tuple[int, ...]]) -> tuple[Cut, ...]:
    """Returns every crossing after the first kernel as a cut. Those of `landmarks` have an index.

    The arguments are the same as for `described`.
    """
    index = {crossing.name: number for number, crossing in enumerate(landmarks(graph))}
    kernels = graph.kernels()
    found = [each for each in crossings(graph) if each.name in index or kernels[each.position + 1]]
    return tuple(replace(cut, index=index.get(cut.name)) for cut in described(graph, found, costs, shapes))


def described(
    graph: Steps, found: Sequence[Crossing], costs: Sequence[Cost], shapes: Mapping[Hashable, tuple[int, ...]]
) -> tuple[Cut, ...]:
    """Returns the cuts at crossings with the costs up to each, without an index.

    Args:
        graph: The graph.
        found: Crossings of it.
        costs: The cost of each step.
        shapes: Shape of each crossing's tensor, without the batch axis.
    """
    passed: dict[Hashable, int] = {graph.source: 0}
    for step in graph.steps:
        longest = max(passed[tensor] for tensor in step.inputs) + step.kernel
        passed.update((tensor, longest) for tensor in step.outputs)
    products = list(accumulate((cost.multiply_adds for cost in costs), initial=0))
    given = list(accumulate((cost.activations for cost in costs), initial=0))
    sizes = list(accumulate(_new_parameters(graph), initial=0))
    deepest = passed[graph.sink]
    return tuple(
        Cut(
            name=crossing.name,
            index=None,
            depth=passed[crossing.tensor] / deepest if deepest else 1.0,
            shape=shapes[crossing.tensor],
            multiply_adds=products[crossing.position + 1],
            parameters=sizes[crossing.position + 1],
            activations=given[crossing.position + 1],
        )
        for crossing in found
    )


def _new_parameters(graph: Steps) -> list[int]:
    """Counts for each step the parameters that no earlier step has."""
    seen: set[Hashable] = set()
    sizes = []
    for step in graph.steps:
        sizes.append(sum(size for weight, size in step.weights.items() if weight not in seen))
        seen.update(step.weights)
    return sizes


def snake_case(name: str) -> str:
    """Turns ``Conv2D`` into ``conv2d`` and ``BatchNormalization`` into ``batch_normalization``, as Keras names layers."""
    spaced = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()
