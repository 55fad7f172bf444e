"""Wraps a layer of KerasHub so that it can be saved on its own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, MutableMapping
from typing import Any, Self

import keras
import numpy as np

from crossroads.errors import BackboneError
from crossroads.networks._named import require_keras_hub

PACKAGE = "keras_hub"
"""The module of KerasHub."""


@keras.saving.register_keras_serializable(package="crossroads")
class HubLayer(keras.Layer):  # type: ignore[misc]
    """Calls a layer of KerasHub, and saves the arguments of its constructor.

    KerasHub saves whole backbones. Many of its layers cannot be loaded from their own configurations, such as those of ViT, DeiT
    and MiT in version 0.32. Some declare a wrong output shape, such as SigLIP's embedding. Here the shape is that of the computed
    output.

    The weights are saved unchanged. Only layer classes of KerasHub can be loaded.
    """

    def __init__(self, module: str, kind: str, arguments: dict[str, Any], inner: keras.Layer | None = None, **options: Any) -> None:
        """Makes the layer of KerasHub again, or takes the given one.

        Args:
            module: The module of its class.
            kind: The name of its class.
            arguments: The arguments of its constructor, serialised.
            inner: The layer; None to create it.
            options: Those of every Keras layer.
        """
        super().__init__(**options)
        self.module, self.kind, self.arguments = module, kind, arguments
        # The layer is not an attribute, so Keras does not save it. `save_own_variables` does.
        self._layers.append(_made(module, kind, arguments) if inner is None else inner)

    @classmethod
    def around(cls, layer: keras.Layer) -> Self:
        """Returns the layer around an existing layer of KerasHub, whose weights it shares."""
        kind = type(layer)
        return cls(kind.__module__, kind.__qualname__, _arguments(layer), layer, name=layer.name)

    def inner(self) -> keras.Layer:
        """Returns the layer of KerasHub."""
        return self._layers[0]

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Calls the layer of KerasHub."""
        options = {"training": training} if "training" in getattr(self.inner(), "_call_context_args", {}) else {}
        return self.inner()(inputs, **options)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights, as an ordinary call of the layer of KerasHub does."""
        self.inner()(keras.KerasTensor(input_shape, self.compute_dtype))

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the shape that the layer computes. If it cannot be computed, returns the shape that the layer declares."""
        declared = keras.tree.flatten(self.inner().compute_output_spec(inputs))
        computed = super().compute_output_spec(inputs, training=training)
        merged = [
            keras.KerasTensor([known or said for known, said in zip(ours.shape, theirs.shape, strict=True)], ours.dtype)
            for ours, theirs in zip(keras.tree.flatten(computed), declared, strict=True)
        ]
        return keras.tree.pack_sequence_as(computed, merged)

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Saves the weights unchanged. DINOv2 itself would resize its position embedding and thus change it."""
        for number, weight in enumerate(self.inner().weights):
            store[str(number)] = np.asarray(weight)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Loads what `save_own_variables` saved."""
        for number, weight in enumerate(self.inner().weights):
            weight.assign(store[str(number)])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        settings: dict[str, Any] = super().get_config()
        return settings | {"module": self.module, "kind": self.kind, "arguments": self.arguments}


def of_keras_hub(layer: Any) -> bool:
    """Returns whether a layer is one of KerasHub."""
    return type(layer).__module__.split(".")[0] == PACKAGE


def _arguments(layer: Any) -> dict[str, Any]:
    """Returns the arguments of the constructor of a layer, serialised.

    Keras records them unless one is an object, such as a dtype policy. Otherwise they are what the layer's configuration, or an
    attribute, has under their names. Before a network is trained, its reloaded form is compared with it, so a wrong one is noticed.
    """
    recorded = getattr(layer, "_auto_config", None)
    if recorded is not None:
        return dict(recorded.serialize()) | {"name": layer.name}
    try:
        known = layer.get_config()
    except AttributeError as error:
        raise _not_savable(layer, error) from error
    wanted = [*inspect.signature(type(layer).__init__).parameters, "name", "dtype"]
    found = {
        name: known[name] if name in known else getattr(layer, name) for name in wanted if name in known or _plain(layer, name)
    }
    try:
        return {name: keras.saving.serialize_keras_object(value) for name, value in found.items()}
    except (TypeError, ValueError) as error:
        raise _not_savable(layer, error) from error


def _not_savable(layer: Any, error: Exception) -> BackboneError:
    return BackboneError(
        "a layer of KerasHub must tell the arguments of its constructor",
        code="hub-layer-not-savable",
        field="backbone",
        received=f"{layer.name!r} of class {type(layer).__name__}: {str(error)[:200]}",
        hint="choose another preset",
    )


def _plain(layer: Any, name: str) -> bool:
    """Returns whether a layer keeps an argument as an attribute that can be saved."""
    return isinstance(getattr(layer, name, None), str | int | float | bool | tuple | list)


def _made(module: str, kind: str, arguments: dict[str, Any]) -> keras.Layer:
    require_keras_hub()
    found = None
    if module.split(".")[0] == PACKAGE:
        found = getattr(importlib.import_module(module), kind, None)
    if not (isinstance(found, type) and issubclass(found, keras.Layer) and found.__module__ == module):
        raise BackboneError(
            "a layer of KerasHub must exist in the installed version",
            code="unknown-hub-layer",
            received=f"{module}.{kind}",
            hint="install the version of keras-hub that the model was saved with",
        )
    options = {name: keras.saving.deserialize_keras_object(value, safe_mode=True) for name, value in arguments.items()}
    layer: keras.Layer = found(**options)
    return layer
