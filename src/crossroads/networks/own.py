"""A network of the user's own as a backbone: a Keras model, a ``.keras`` file, or ``package.module:function``."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from crossroads.errors import BackboneError
from crossroads.networks._named import current_folder_importable, module_and_function, not_importable, require_file
from crossroads.networks.graph import Call, LayerGraph, graph_of, is_nested, replay
from crossroads.networks.network import Parts

LOGGER = logging.getLogger(__name__)

SIZE_NAMES = ("size", "image_size", "side")
"""Parameters of a user's function that are given the side of the images."""


@dataclass(frozen=True, slots=True)
class Own:
    """A network of the user's own, ready for a head.

    Attributes:
        name: The model's.
        parts: Its backbone, float (n, size, size, 3) in [0, 255] in, and the preprocessing, which is none unless the user's
            function gives `Parts`: the model takes pixels as they are, or scales them itself.
        size: Side in pixels of the images that it takes; None where it takes any and none was asked for.
        notes: What the user should know, such as which layer was left off.
    """

    name: str
    parts: Parts
    size: int | None
    notes: tuple[str, ...]


def own_backbone(source: keras.Model | Parts | Path | str, size: int | None) -> Own:
    """A network of the user's own as a backbone. Layers and weights are shared with the model that is given.

    Nested models are replaced by their layers, so that cuts are found inside them. A last dense layer with a softmax is left off,
    also the 1x1 convolution that some networks have in its place: the head comes there.

    Args:
        source: A model; the path of a ``.keras`` file, which is read in Keras' safe mode, so that nothing in it is executed; or
            ``package.module:function``, which is imported and called, from the current folder too. The function returns a model
            or `Parts`, and is given the side of the images if it has a parameter for it.
        size: Side of the images in pixels; None for what the network was made for.

    Raises:
        BackboneError: There is no such file or function, it is no graph of Keras' own layers from one image to one output, or it
            was made for images of another size.
    """
    found = _found(source, size)
    parts = found if isinstance(found, Parts) else Parts((), found)
    name = parts.backbone.name
    if not _knows_its_input(parts.backbone) and size is None:
        return Own(name, parts, None, ())
    graph = _sized(_graph(parts.backbone, size), size, name)
    _refuse_code(parts, graph, name)
    sink, notes = _without_head(graph, name)
    backbone = keras.Model(graph.source, sink, name=name)
    return Own(name, Parts(parts.preprocessing, backbone), graph.source.shape[1], notes)


def own_size(source: keras.Model | Parts | Path | str) -> int | None:
    """Side in pixels of the images that a network of the user's own was made for; None where it takes any.

    A function that has a parameter for the size builds a network of any size. Another one is called to see what it builds.

    Raises:
        BackboneError: As `own_backbone` does.
    """
    with current_folder_importable():
        found: Any = _imported(source) if isinstance(source, str) and not source.endswith(".keras") else source
        if _is_function(found) and _size_parameter(found, _name_of(source))[0] is not None:
            return None
        return own_backbone(source, None).size


def _found(source: Any, size: int | None) -> keras.Model | Parts:
    """What `source` stands for, whatever the user wrote."""
    if isinstance(source, str) and not source.endswith(".keras"):
        with current_folder_importable():
            return _called(_imported(source), source, size)
    if isinstance(source, str | Path):
        return _loaded(Path(source))
    return _called(source, _name_of(source), size)


def _name_of(source: Any) -> str:
    return source if isinstance(source, str) else getattr(source, "__name__", "the network")


def _is_function(found: Any) -> bool:
    """Whether it is to be called; a model, which is callable as well, stands for itself."""
    return callable(found) and not isinstance(found, keras.Layer | Parts)


def _loaded(path: Path) -> keras.Model:
    if path.suffix != ".keras":
        raise BackboneError(
            "a network is read from a .keras file", received=str(path), hint="save it with model.save('network.keras')"
        )
    require_file(path)
    try:
        loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a boundary: what a broken or hostile file makes Keras raise is of any kind
        LOGGER.warning("%s cannot be loaded", path, exc_info=True)
        if code := _lambda_layer_of(path):
            raise BackboneError(
                "an artifact must hold nothing that executes",
                received=f"{path} with {code}",
                hint="build it from Keras' own layers or from keras.ops",
            ) from error
        # Keras wraps the cause in a page about custom layers.
        said = str(error).split("Exception encountered: ")[-1].strip()[:300] or type(error).__name__
        raise BackboneError(
            f"{path} must be a Keras model without code of its own",
            received=said,
            hint="build it from Keras' own layers, or give the function that builds it as package.module:function",
        ) from error
    return _model(loaded, str(path))


def _lambda_layer_of(path: Path) -> str | None:
    """The first Lambda layer in the configuration of a ``.keras`` file, which is read as text: nothing in it is executed."""
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
        found: Any = importlib.import_module(module)
    except Exception as error:  # a boundary: the module is the user's code
        LOGGER.warning("the module of %s cannot be imported", name, exc_info=True)
        raise not_importable(name, error) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise BackboneError(f"module {module} has no such function", received=repr(attribute))
        found = getattr(found, part)
    return found


def _called(function: Any, name: str, size: int | None) -> keras.Model | Parts:
    """What the user's function returns, or the model that stands for itself."""
    if not _is_function(function):
        return _checked(function, name)
    arguments = _arguments(function, name, size)
    try:
        made = function(**arguments)
    except Exception as error:  # a boundary: the function is the user's code
        LOGGER.warning("%s builds no network", name, exc_info=True)
        raise BackboneError(f"{name} must build a network", received=f"{type(error).__name__}: {error}") from error
    return _checked(made, name)


def _size_parameter(function: Callable[..., Any], name: str) -> tuple[str | None, bool]:
    """The name of the parameter for the size, if there is one, and whether it has no default."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind in by_name]
    required = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    asks = next((p.name for p in parameters if p.name in SIZE_NAMES), required[0] if len(required) == 1 else None)
    if set(required) - {asks}:
        raise BackboneError(
            "a function that builds a network takes the side of the images or nothing",
            received=f"{name}({', '.join(required)})",
            hint="give its other parameters defaults",
        )
    return asks, asks in required


def _arguments(function: Callable[..., Any], name: str, size: int | None) -> dict[str, Any]:
    """The size, by the name of the parameter for it, if there is one."""
    asks, required = _size_parameter(function, name)
    if asks is None or (size is None and not required):
        return {}
    if size is None:
        raise BackboneError(f"{name} takes the side of the images", received="no image size", hint="use --image-size, such as 64")
    return {asks: size}


def _checked(made: Any, name: str) -> keras.Model | Parts:
    if isinstance(made, Parts):
        _model(made.backbone, name)
        return made
    return _model(made, name)


def _model(made: Any, name: str) -> keras.Model:
    if not isinstance(made, keras.Model):
        raise BackboneError(f"{name} must be a keras.Model", received=f"an object of class {type(made).__name__}")
    return made


def _knows_its_input(model: keras.Model) -> bool:
    return not isinstance(model, keras.Sequential) or bool(getattr(model, "_functional", None))


def _graph(model: keras.Model, size: int | None) -> LayerGraph:
    """The layer graph of `model`; a Sequential that begins without an input is given one for images of side `size`."""
    if _knows_its_input(model):
        return graph_of(model)
    images = x = keras.Input((size, size, 3), name="images")
    try:
        for layer in model.layers:
            x = layer(x)
    except Exception as error:  # a boundary: layers of the user's, each of which says in its own way that a shape does not suit
        LOGGER.warning("%s does not take images of %s px", model.name, size, exc_info=True)
        raise _does_not_fit(model.name, size, error) from error
    return graph_of(keras.Model(images, x))


def _sized(graph: LayerGraph, size: int | None, name: str) -> LayerGraph:
    """`graph` for images of side `size`, without nested models where that can be.

    Raises:
        BackboneError: The input is not an image of that size.
    """
    shape, dtype = tuple(graph.source.shape), str(graph.source.dtype)
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or "float" not in dtype:
        raise BackboneError(
            f"{name!r} must take float images (None, size, size, 3) or (None, None, None, 3)",
            received=f"an input of {dtype} {shape}",
            hint="begin it with keras.Input((size, size, 3))",
        )
    side = shape[1]
    if None not in (side, size) and side != size:
        raise BackboneError(f"{name!r} takes images of {side} px", received=f"{size} px", hint=f"use --image-size {side}")
    if side == (size or side) and not any(is_nested(call.operation) for call in graph.calls):
        return graph
    label = graph.source._keras_history.operation.name
    for flat in (True, False):
        # Two layers of the same name in two nested models cannot be in one; then these stay, and are one layer each.
        images = keras.Input((side or size, side or size, 3), dtype=dtype, name=label)
        try:
            return graph_of(keras.Model(images, replay(graph, images, flat=flat)))
        except ValueError as error:
            cause = error
    raise _does_not_fit(name, size, cause)


def _does_not_fit(name: str, size: int | None, error: Exception) -> BackboneError:
    said = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    return BackboneError(f"{name!r} must take images of {size} px", received=said, hint="use a larger image size")


def _refuse_code(parts: Parts, graph: LayerGraph, name: str) -> None:
    """Refuses what a saved model could not be loaded with, before anything is trained.

    Raises:
        BackboneError: A Lambda layer, or a layer or function that is not Keras' own, at any depth.
    """
    for layer in [*parts.preprocessing, *(call.operation for call in graph.calls)]:
        foreign = _foreign_in(layer)
        if foreign is not None:
            raise BackboneError(
                f"{name!r} must be built of Keras' own layers, so that what is saved can be loaded anywhere and holds no code",
                received=f"{foreign} in layer {layer.name!r}",
                hint="build it from other layers or from keras.ops",
            )


def _foreign_in(layer: Any) -> str | None:
    """What in `layer` could not be loaded in safe mode where the user's code is not; None where all can."""
    try:
        with warnings.catch_warnings(action="ignore"):  # Keras warns of what is refused here anyway
            config = keras.saving.serialize_keras_object(layer)
            found = next(_foreign(config), None)
            if found is None:
                # Some activations are written in a way that only loading them shows.
                keras.saving.deserialize_keras_object(config, safe_mode=True)
    except Exception:  # a boundary: a layer's own code, the user's or Keras'
        LOGGER.warning("layer %s cannot be saved and loaded", layer.name, exc_info=True)
        return f"{type(layer).__name__}, which does not load,"
    return found


def _foreign(config: Any) -> Iterator[str]:
    """Names of the classes and functions in a serialised layer that Keras cannot find by itself."""
    if isinstance(config, dict):
        name, module = config.get("class_name"), config.get("module", "keras")
        if name in ("Lambda", "__lambda__"):
            yield "a lambda"
        elif isinstance(name, str) and str(module).split(".")[0] not in ("keras", "builtins"):
            yield str(config.get("registered_name") or name)
        for value in config.values():
            yield from _foreign(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _foreign(value)


_BETWEEN = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.ReLU,
    keras.layers.Reshape,
)
"""What may stand between the layer that gives class scores and the softmax."""


def _without_head(graph: LayerGraph, name: str) -> tuple[Any, tuple[str, ...]]:
    """The tensor that the last dense layer with a softmax takes, and a note that says so; else the graph's end."""
    makers = {id(tensor): call for call in graph.calls for tensor in call.outputs}
    last = makers.get(id(graph.sink))
    if last is None:
        raise BackboneError(f"{name!r} must have layers", received="a model that gives its input")
    scores = _scores(last, makers)
    if scores is not None:
        if scores.inputs[0] is graph.source:
            raise BackboneError(f"{name!r} must have layers besides its head", received=f"{scores.name!r} alone")
        note = (
            f"the last layer of {name}, {scores.name!r} with {scores.outputs[0].shape[-1]} outputs and a softmax, is left off: "
            "a head for your classes takes its place"
        )
        return scores.inputs[0], (note,)
    if isinstance(last.operation, keras.layers.Dense) and _is_linear(last.operation):
        note = (
            f"{name} ends with {last.name!r}, a dense layer with {last.outputs[0].shape[-1]} outputs and no activation, which is "
            "kept: leave it off where it is a head for other classes"
        )
        return graph.sink, (note,)
    return graph.sink, ()


def _scores(last: Call, makers: dict[int, Call]) -> Call | None:
    """The call that gives the scores of which `last` is the softmax, itself or after it; None where there is none."""
    if isinstance(last.operation, keras.layers.Dense) and last.operation.activation is keras.activations.softmax:
        return last
    if not _is_softmax(last.operation):
        return None
    call = makers.get(id(last.inputs[0]))
    while call is not None and isinstance(call.operation, (*_BETWEEN, keras.layers.Activation)):
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
