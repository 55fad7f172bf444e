"""Provides custom networks as backbones: a Keras model, a ``.keras`` file, or ``package.module:function``."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from crossroads.errors import BackboneError, option
from crossroads.networks._named import KERAS_HUB, current_folder_importable, module_and_function, not_importable, require_file
from crossroads.networks._once import kept, key_of, once
from crossroads.networks.graph import Call, LayerGraph, graph_of, is_nested, replay
from crossroads.networks.keras_hub import preset_parts
from crossroads.networks.network import Parts, seeded
from crossroads.progress import Note

LOGGER = logging.getLogger(__name__)

SIZE_NAMES = ("size", "image_size", "side")
"""Parameters of a custom function that receive the side of the images."""


@dataclass(frozen=True, slots=True)
class Own:
    """A custom network, ready for a head.

    Attributes:
        name: Name of the model.
        parts: Its preprocessing, and its backbone with inputs float (n, size, size, 3) in [0, 255]. There is preprocessing only if
            the custom function returns `Parts`. Otherwise, the model takes raw pixels or scales them itself.
        size: Side of its images in pixels; None if it takes any and no size was given.
        notes: Notes for the user, such as which layer was removed.
    """

    name: str
    parts: Parts
    size: int | None
    notes: tuple[Note, ...]


def own_backbone(source: keras.Model | Parts | Path | str, size: int | None) -> Own:
    """Turns a custom network into a backbone. Layers and weights are shared with the given model.

    Nested models are replaced by their layers, so that cuts are found inside them. A final dense layer or 1x1 convolution with a
    softmax is removed, because the head takes its place.

    Args:
        source: A model; the path of a ``.keras`` file, which is read in Keras' safe mode, so that nothing in it is executed;
            ``keras-hub:preset``; or ``package.module:function``, which is imported (also from the current folder) and called. The
            function returns a model or `Parts`. Its parameter for the side of the images, if it has one, receives `size`.
        size: Side of the images in pixels; None for the size that the network was built for.

    Raises:
        BackboneError: The file or function does not exist, the network is not a graph of Keras' own layers from one image to one
            output, or it was built for another image size.
    """
    made = _load_or_build(source, size)
    parts = made if isinstance(made, Parts) else Parts((), made)
    name = parts.backbone.name
    if not _knows_its_input(parts.backbone) and size is None:
        return Own(name, parts, None, ())
    graph = _sized(_graph(parts.backbone, size), size, name)
    _refuse_code(parts, graph, name)
    sink, notes = _without_head(graph, name)
    backbone = keras.Model(graph.source, sink, name=name)
    return Own(name, replace(parts, backbone=backbone), graph.source.shape[1], notes)


def own_network(source: keras.Model | Parts | str, size: int | None, seed: int) -> Own:
    """Returns what `own_backbone` makes of a custom network. During one run, that is done once.

    Args:
        source: As for `own_backbone`. It must not be changed during the run.
        size: Side of the images in pixels; None for the size that the network was built for.
        seed: Seed of the weights that are drawn while it is built.
    """
    file = isinstance(source, str) and source.endswith(".keras")
    if file or (isinstance(source, keras.Model) and _knows_its_input(source)):
        seed = 0  # no weights are drawn

    def made(side: int | None) -> Own:
        with seeded(seed):
            return own_backbone(Path(str(source)) if file else source, side)

    key = ("own", key_of(source), seed)
    whole: Own | None = kept((*key, None))  # `own_size` has built it if it has one size only
    if size is None or whole is None or whole.size != size:
        return once((*key, size), lambda: made(size))
    return whole


def own_size(source: keras.Model | Parts | str) -> int | None:
    """Returns the side in pixels of the images that a custom network was built for; None if it takes any.

    A function with a parameter for the size builds networks of any size. Any other function is called to find out.

    Raises:
        BackboneError: For the same reasons as in `own_backbone`.
    """
    with current_folder_importable():
        network: Any = _imported(source) if isinstance(source, str) and not source.endswith(".keras") else source
        if _is_function(network) and _size_parameter(network, _name_of(source))[0] is not None:
            return None
        return own_network(source, None, 0).size


def _load_or_build(source: Any, size: int | None) -> keras.Model | Parts:
    """Loads, builds or returns the network that `source` refers to."""
    if isinstance(source, str) and source.startswith(KERAS_HUB):
        return preset_parts(source, size)
    if isinstance(source, str) and not source.endswith(".keras"):
        with current_folder_importable():
            return _called(_imported(source), source, size)
    if isinstance(source, str | Path):
        return _loaded(Path(source))
    return _called(source, _name_of(source), size)


def _name_of(source: Any) -> str:
    return source if isinstance(source, str) else getattr(source, "__name__", "the network")


def _is_function(source: Any) -> bool:
    """Returns whether a source is a function that builds a network. Models are callable too, but are networks already."""
    return callable(source) and not isinstance(source, keras.Layer | Parts)


def _loaded(path: Path) -> keras.Model:
    if path.suffix != ".keras":
        raise BackboneError(
            "a network file must be a .keras file",
            code="not-a-keras-file",
            field="backbone",
            received=str(path),
            hint="save the model with model.save('network.keras')",
        )
    require_file(path)
    try:
        loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a boundary: a broken or hostile file makes Keras raise exceptions of any kind
        LOGGER.warning("%s cannot be loaded", path, exc_info=True)
        if code := _lambda_layer_of(path):
            raise BackboneError(
                "a network file must not contain code",
                code="code-in-network",
                field="backbone",
                received=f"{path} with {code}",
                hint="build it from Keras' own layers or keras.ops",
            ) from error
        # Keras wraps the cause in a long text about custom layers.
        cause = str(error).split("Exception encountered: ")[-1].strip()[:300] or type(error).__name__
        raise BackboneError(
            f"{path} must be a Keras model of Keras' own layers",
            code="network-file-not-loadable",
            field="backbone",
            received=cause,
            hint="build it from Keras' own layers, or give the function that builds it as package.module:function",
        ) from error
    return _model(loaded, str(path))


def _lambda_layer_of(path: Path) -> str | None:
    """Describes the first Lambda layer in a ``.keras`` file; None if there is none. The configuration is read as text only."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _lambda_layer_in(json.loads(archive.read("config.json")))
    except (OSError, ValueError, KeyError, RecursionError, zipfile.BadZipFile):
        return None


def _lambda_layer_in(config: Any) -> str | None:
    if isinstance(config, dict):
        if config.get("class_name") == "Lambda":
            own = config.get("config")
            return f"the Lambda layer {own['name']!r}" if isinstance(own, dict) and "name" in own else "a Lambda layer"
        config = list(config.values())
    return next(filter(None, map(_lambda_layer_in, config)), None) if isinstance(config, list) else None


def _imported(name: str) -> Any:
    module, attribute = module_and_function(name)
    try:
        value: Any = importlib.import_module(module)
    except Exception as error:  # a boundary: the module is foreign code
        LOGGER.warning("the module of %s cannot be imported", name, exc_info=True)
        raise not_importable(name, error) from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise BackboneError(
                f"module {module} does not have this function",
                code="function-not-in-module",
                field="backbone",
                received=repr(attribute),
                hint="check its name",
            )
        value = getattr(value, part)
    return value


def _called(function: Any, name: str, size: int | None) -> keras.Model | Parts:
    """Returns the network that a function builds, or the given model itself."""
    if not _is_function(function):
        return _checked(function, name)
    arguments = _arguments(function, name, size)
    try:
        made = function(**arguments)
    except Exception as error:  # a boundary: the function is foreign code
        LOGGER.warning("%s builds no network", name, exc_info=True)
        raise BackboneError(
            f"{name} must build a network",
            code="function-fails",
            field="backbone",
            received=f"{type(error).__name__}: {error}",
            hint="call it in Python to see its traceback",
        ) from error
    return _checked(made, name)


def _size_parameter(function: Callable[..., Any], name: str) -> tuple[str | None, bool]:
    """Returns the name of the parameter for the size (or None), and whether it is required."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind in by_name]
    required = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    size_name = next((p.name for p in parameters if p.name in SIZE_NAMES), required[0] if len(required) == 1 else None)
    if set(required) - {size_name}:
        raise BackboneError(
            "a function that builds a network must take the image size or nothing",
            code="function-parameters",
            field="backbone",
            received=f"{name}({', '.join(required)})",
            hint="give its other parameters defaults",
        )
    return size_name, size_name in required


def _arguments(function: Callable[..., Any], name: str, size: int | None) -> dict[str, Any]:
    """Returns the keyword arguments of the call: the size, if the function takes it."""
    size_name, required = _size_parameter(function, name)
    if size_name is None or (size is None and not required):
        return {}
    if size is None:
        raise BackboneError(
            f"{name} needs an image size",
            code="image-size-missing",
            field="image_size",
            received="none",
            hint=f"add {option('image_size')}, such as 64",
        )
    return {size_name: size}


def _checked(made: Any, name: str) -> keras.Model | Parts:
    if isinstance(made, Parts):
        _model(made.backbone, name)
        return made
    return _model(made, name)


def _model(made: Any, name: str) -> keras.Model:
    if not isinstance(made, keras.Model):
        raise BackboneError(
            f"{name} must be a keras.Model",
            code="not-a-network",
            field="backbone",
            received=f"an object of class {type(made).__name__}",
            hint="build or return a keras.Model",
        )
    return made


def _knows_its_input(model: keras.Model) -> bool:
    return not isinstance(model, keras.Sequential) or bool(getattr(model, "_functional", None))


def _graph(model: keras.Model, size: int | None) -> LayerGraph:
    """Returns the layer graph of a model. A Sequential without an input gets one for images of side `size`."""
    if _knows_its_input(model):
        return graph_of(model)
    images = x = keras.Input((size, size, 3), name="images")
    try:
        for layer in model.layers:
            x = layer(x)
    except Exception as error:  # a boundary: each layer has its own exception for a wrong shape
        LOGGER.warning("%s does not take images of %s px", model.name, size, exc_info=True)
        raise _does_not_fit(model.name, size, error) from error
    return graph_of(keras.Model(images, x))


def _sized(graph: LayerGraph, size: int | None, name: str) -> LayerGraph:
    """Returns the graph for images of side `size`, without nested models if possible.

    Raises:
        BackboneError: The input is not an image of this size.
    """
    shape, dtype = tuple(graph.source.shape), str(graph.source.dtype)
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or "float" not in dtype:
        raise BackboneError(
            f"{name!r} must take float images (None, size, size, 3) or (None, None, None, 3)",
            code="input-not-an-image",
            field="backbone",
            received=f"an input of {dtype} {shape}",
            hint="begin it with keras.Input((size, size, 3))",
        )
    side = shape[1]
    if None not in (side, size) and side != size:
        raise BackboneError(
            f"{name!r} takes images of {side} px",
            code="image-size-not-supported",
            field="image_size",
            received=f"{size} px",
            hint=f"use {option('image_size')} {side}",
        )
    if side == (size or side) and not any(is_nested(call.operation) for call in graph.calls):
        return graph
    label = graph.source._keras_history.operation.name
    for flat in (True, False):
        # Layers of equal names in two nested models cannot be in one model. Then the nested models stay as one layer each.
        images = keras.Input((side or size, side or size, 3), dtype=dtype, name=label)
        try:
            return graph_of(keras.Model(images, replay(graph, images, flat=flat)))
        except ValueError as error:
            cause = error
    raise _does_not_fit(name, size, cause)


def _does_not_fit(name: str, size: int | None, error: Exception) -> BackboneError:
    cause = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    return BackboneError(
        f"{name!r} does not take images of {size} px",
        code="image-size-not-supported",
        field="image_size",
        received=cause,
        hint=f"use a larger {option('image_size')}",
    )


def _refuse_code(parts: Parts, graph: LayerGraph, name: str) -> None:
    """Refuses layers that would prevent a saved model from loading, before anything is trained.

    Raises:
        BackboneError: The network has, at any depth, a Lambda layer, or a layer or function that neither Keras nor KerasHub has.
    """
    for layer in [*parts.preprocessing, *(call.operation for call in graph.calls)]:
        foreign = _custom_code_in(layer)
        if foreign is not None:
            raise BackboneError(
                f"{name!r} must consist of layers of Keras or KerasHub: an artifact holds no code and loads anywhere",
                code="code-in-network",
                field="backbone",
                received=f"{foreign} in layer {layer.name!r}",
                hint="build it from other layers or keras.ops",
            )


def _custom_code_in(layer: Any) -> str | None:
    """Describes what would prevent a layer from loading in safe mode without custom code; None if nothing does."""
    try:
        with warnings.catch_warnings(action="ignore"):  # Keras warns about what is refused here
            config = keras.saving.serialize_keras_object(layer)
            foreign = next(_custom_names(config), None)
            if foreign is None:
                # Some activations turn out to be custom code only when they are loaded.
                keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception:  # a boundary: the code of a layer
        LOGGER.warning("layer %s cannot be saved and loaded", layer.name, exc_info=True)
        return f"{type(layer).__name__}, which does not load,"
    return foreign


def _custom_names(config: Any) -> Iterator[str]:
    """Yields the names of classes and functions in a serialised layer that are neither Keras' own nor KerasHub's."""
    if isinstance(config, dict):
        name, module = config.get("class_name"), config.get("module", "keras")
        if name in ("Lambda", "__lambda__"):
            yield "a lambda"
        elif isinstance(name, str) and str(module).split(".")[0] not in ("keras", "keras_hub", "crossroads", "builtins"):
            yield str(config.get("registered_name") or name)
        for value in config.values():
            yield from _custom_names(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _custom_names(value)


_BEFORE_SOFTMAX = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.ReLU,
    keras.layers.Reshape,
)
"""Layers that may come between the class scores and the softmax."""


def _without_head(graph: LayerGraph, name: str) -> tuple[Any, tuple[Note, ...]]:
    """Returns the input of a final dense layer with a softmax, and a note. Without such a layer, returns the end of the graph."""
    makers = {id(tensor): call for call in graph.calls for tensor in call.outputs}
    last = makers.get(id(graph.sink))
    if last is None:
        raise BackboneError(
            f"{name!r} must have layers",
            code="network-without-layers",
            field="backbone",
            received="a model that returns its input",
            hint="add layers below the head",
        )
    scores = _scores(last, makers)
    if scores is not None:
        if scores.inputs[0] is graph.source:
            raise BackboneError(
                f"{name!r} must have layers below its head",
                code="network-without-layers",
                field="backbone",
                received=f"{scores.name!r} alone",
                hint="add layers below the head",
            )
        outputs = int(scores.outputs[0].shape[-1])
        text = f"a head for your classes replaces the last layer of {name}, {scores.name!r} with {outputs} outputs and a softmax"
        return scores.inputs[0], (Note(text, "head-removed", layer=scores.name, outputs=outputs),)
    if isinstance(last.operation, keras.layers.Dense) and _is_linear(last.operation):
        outputs = int(last.outputs[0].shape[-1])
        text = (
            f"{name} ends with {last.name!r}, a dense layer with {outputs} outputs and no activation; it is kept. Remove it if it "
            "is a head for other classes"
        )
        return graph.sink, (Note(text, "dense-end-kept", layer=last.name, outputs=outputs),)
    return graph.sink, ()


def _scores(last: Call, makers: dict[int, Call]) -> Call | None:
    """Returns the call that computes the class scores before the softmax of `last`; None if there is no softmax."""
    if isinstance(last.operation, keras.layers.Dense) and last.operation.activation is keras.activations.softmax:
        return last
    if not _is_softmax(last.operation):
        return None
    call = makers.get(id(last.inputs[0]))
    while call is not None and isinstance(call.operation, (*_BEFORE_SOFTMAX, keras.layers.Activation)):
        call = makers.get(id(call.inputs[0]))
    if call is None:
        return None
    operation = call.operation
    convolution = isinstance(operation, keras.layers.Conv2D) and operation.kernel_size == (1, 1)
    return call if convolution or isinstance(operation, keras.layers.Dense) else None


def _is_softmax(operation: Any) -> bool:
    if isinstance(operation, keras.layers.Activation):
        return operation.activation is keras.activations.softmax
    return isinstance(operation, keras.layers.Softmax) or type(operation).__name__ == "Softmax"


def _is_linear(operation: Any) -> bool:
    return operation.activation is keras.activations.linear
