"""Provides presets of KerasHub as backbones. Their preprocessing becomes layers, and each block of an encoder becomes a cut."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras

from crossroads.errors import BackboneError, did_you_mean
from crossroads.networks._named import KERAS_HUB, require_keras_hub
from crossroads.networks.graph import graph_of, kernels_of, replay, weights_of
from crossroads.networks.hub_layer import HubLayer, of_keras_hub
from crossroads.networks.network import Parts

LOGGER = logging.getLogger(__name__)

DEFAULT_SIZE = 224
"""Side in pixels for a preset that states none."""

LIMITS = (8, 2048)
"""Sides in pixels of a network that takes any size."""

DEEPEST = 3
"""How often encoders inside encoders are opened."""


def preset_sizes(named: str) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Returns the default image sizes of a preset in pixels, and its limits. No weights are downloaded.

    Args:
        named: ``keras-hub:`` and what KerasHub's ``from_preset`` takes: the name of a preset, an address or a local folder.

    Raises:
        BackboneError: For the same reasons as in `preset_parts`.
    """
    network, converter = _image_network(named, weights=False), _converter(named)
    native = _native_side(network)
    wanted = converter.image_size[0] if converter.image_size else native or DEFAULT_SIZE
    if native is None or _takes_other_sizes(network):
        return (wanted,), LIMITS
    return (native,), (native, native)


def preset_parts(named: str, size: int | None) -> Parts:
    """Loads a preset with its weights for square images of side `size` pixels; None for its own size.

    Args:
        named: The name of the preset, as for `preset_sizes`.
        size: Side of the images in pixels.

    Returns:
        The preprocessing of the preset as Keras' own layers, and its network, in which each block of an encoder is a layer.

    Raises:
        BackboneError: KerasHub is not installed; the preset does not exist, cannot be downloaded, is for no single image, or has no
            image converter; or the size does not fit.
    """
    network = _image_network(named, weights=True)
    native = _native_side(network)
    side = size or native or preset_sizes(named)[0][0]
    if native not in (None, side):
        network = _image_network(named, weights=True, image_shape=(side, side, 3))
    with _explained(named):
        backbone = _opened(network, side)
    return Parts(_preprocessing(_converter(named)), backbone, _prefix(network, backbone, side))


def _image_network(named: str, *, weights: bool, **options: Any) -> Any:
    """Returns the KerasHub backbone of a preset that takes one image: of a model for images and text, the part for images."""
    library, preset = _library(), _location(named)
    with _explained(named):
        backbone = library.models.Backbone.from_preset(preset, load_weights=weights, **options)
    network = getattr(backbone, "vision_encoder", None) or backbone
    shapes = [tuple(tensor.shape) for tensor in network.inputs]
    outputs = len(network.outputs)
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] != 3 or outputs != 1:
        raise BackboneError(
            "a preset of KerasHub must have one image as input and one output",
            code="not-an-image-preset",
            field="backbone",
            received=f"{named!r}, a {type(backbone).__name__} with {len(shapes)} inputs and {outputs} outputs",
            hint="choose a backbone of an image classifier",
        )
    return network


def _library() -> Any:
    require_keras_hub()
    return importlib.import_module("keras_hub")


def _location(named: str) -> str:
    """Returns the name of the preset for KerasHub. This is the path of a local folder, or the unchanged name."""
    preset = named.removeprefix(KERAS_HUB)
    folder = Path(preset).expanduser()
    return str(folder) if folder.is_dir() else preset


@contextlib.contextmanager
def _explained(named: str) -> Iterator[None]:
    """Turns any exception of KerasHub, its downloads and its layers into one clear error."""
    try:
        yield
    except (BackboneError, MemoryError):
        raise
    except Exception as error:  # a boundary: KerasHub, kagglehub and huggingface_hub have exceptions of many kinds
        LOGGER.warning("%s cannot be loaded", named, exc_info=True)
        raise _not_loadable(named, error) from error


def _not_loadable(named: str, error: Exception) -> BackboneError:
    cause = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]
    local = Path(_location(named)).is_dir()
    if "Unknown preset identifier" in str(error):
        close = did_you_mean(named.removeprefix(KERAS_HUB), tuple(_library().models.Backbone.presets))
        return BackboneError(
            "KerasHub has no such preset, and there is no such folder",
            code="unknown-preset",
            field="backbone",
            received=repr(named),
            hint=close if close.startswith("did you mean") else "give a name of https://keras.io/keras_hub/presets, or a folder",
        )
    offline = isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and not local
    return BackboneError(
        "the preset cannot be downloaded" if offline else "KerasHub cannot load the preset",
        code="preset-not-downloaded" if offline else "preset-not-loadable",
        field="backbone",
        received=f"{named!r}: {type(error).__name__}: {cause}",
        hint="check the network connection, or give a local folder that `save_to_preset` wrote"
        if offline
        else "check its name and files",
    )


def _native_side(network: Any) -> int | None:
    """Returns the side in pixels that a network was built for; None if it takes any."""
    side: int | None = network.inputs[0].shape[1]
    return side


def _takes_other_sizes(network: Any) -> bool:
    """Returns whether the position embedding is fitted to the size of the images."""
    return hasattr(network, "position_embedding_shape")


def _converter(named: str) -> Any:
    """Returns the image converter of a preset."""
    library = _library()
    try:
        return library.layers.ImageConverter.from_preset(_location(named))
    except FileNotFoundError as error:
        raise BackboneError(
            "a preset must have an image converter, which scales the pixels as in the pretraining",
            code="no-image-converter",
            field="backbone",
            received=f"{named!r} without image_converter.json",
            hint="save one with `keras_hub.layers.ImageConverter(...).save_to_preset(folder)`",
        ) from error
    except Exception as error:  # a boundary, as in `_explained`
        LOGGER.warning("the image converter of %s cannot be loaded", named, exc_info=True)
        raise _not_loadable(named, error) from error


def _preprocessing(converter: Any) -> tuple[keras.Layer, ...]:
    """Returns the scaling of an image converter as Keras' own layer. The images have the right size already."""
    if converter.scale is None and converter.offset is None:
        return ()
    scale = 1.0 if converter.scale is None else converter.scale
    offset = 0.0 if converter.offset is None else converter.offset
    return (keras.layers.Rescaling(scale, offset=offset, name="rescale"),)


def _prefix(network: Any, backbone: keras.Model, size: int) -> int:
    """Returns the number of class and register tokens before those of the patches."""
    patch = getattr(network, "patch_size", None)
    tokens = next((_tokens(call) for call in graph_of(backbone).calls if _tokens(call)), 0)
    if patch is None or not tokens:
        return 0
    side = size // int(patch[0] if isinstance(patch, tuple | list) else patch)
    return max(0, tokens - side * side)


def _tokens(call: Any) -> int:
    """Returns the number of tokens that a call outputs; 0 if its output is not a sequence of tokens."""
    shape = call.outputs[0].shape
    return int(shape[1]) if call.weighted and len(shape) == 3 and shape[1] else 0


def _opened(network: Any, size: int) -> keras.Model:
    """Returns the network for images of one size, as a graph in which each block of an encoder is a call of its own.

    Layers and weights are shared.
    """
    model = _replayed(network, size)
    for _ in range(DEEPEST):
        if not any(_is_chain(call.operation) for call in graph_of(model).calls):
            break
        model = _replayed(model, size)
    return _replayed(model, size, savable=True)


def _replayed(network: Any, size: int, *, savable: bool = False) -> keras.Model:
    """Returns the network for images of one size, with encoders block by block, or with layers that can be saved on their own."""
    images = keras.Input((size, size, 3), name="images")
    outputs = replay(graph_of(network), images, through=_savable if savable else partial(_blockwise, images))
    return keras.Model(images, outputs, name=network.name)


def _savable(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a layer of KerasHub on symbolic tensors as a layer that can be saved on its own."""
    options = {name: value for name, value in kwargs.items() if value is not None and name != "training"}
    alone = len(args) == 1 and not options
    return HubLayer.around(operation)(*args) if alone and of_keras_hub(operation) else operation(*args, **kwargs)


def _blockwise(images: Any, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a layer on symbolic tensors: an encoder block by block, any other as a whole.

    An encoder that uses weights of its own beside its blocks also stays whole, because operations cannot be trained.
    """
    if not _is_chain(operation):
        return operation(*args, **kwargs)
    try:
        outputs = operation.call(*args, **kwargs)
        inside = graph_of(keras.Model(images, keras.tree.flatten(outputs)[0]))
        held = {id(weight) for call in inside.calls for weight in weights_of(call.operation)}
        if held.issuperset(map(id, operation.weights)):
            return outputs
    except Exception:  # a boundary: `call` of some encoders takes arrays only
        LOGGER.info("%s stays one layer", operation.name, exc_info=True)
    return operation(*args, **kwargs)


def _is_chain(operation: Any) -> bool:
    """Returns whether a layer is a chain of blocks.

    It is a layer of KerasHub that contains at least two layers of one class, each with several kernels.
    """
    if not of_keras_hub(operation) or isinstance(operation, keras.Model):
        return False
    kinds = Counter(type(layer) for layer in operation._layers if of_keras_hub(layer) and len(kernels_of(layer)) > 1)
    return max(kinds.values(), default=0) >= 2
