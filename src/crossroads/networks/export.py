"""Converts Keras models to OpenVINO graphs on any Keras backend, and computes digests of what a model computes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossroads.errors import ArtifactError
from crossroads.inference import runtime
from crossroads.networks._processes import module_command, module_environment


def to_openvino(model: Any, graph: Path) -> None:
    """Writes a model as an OpenVINO graph: an ``.xml`` file and a ``.bin`` file next to it.

    Args:
        model: A functional Keras model without custom code.
        graph: Path of the ``.xml`` file, in an existing folder.

    Raises:
        ArtifactError: The model cannot be exported.
    """
    import keras

    if exports_here():
        runtime().serialize(converted(model), str(graph))
        return
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model.keras"
        keras.Model(model.input, model.output, name=model.name).save(saved)
        convert_elsewhere(saved, graph)


def exports_here() -> bool:
    """Returns whether this process can convert: Keras runs on TensorFlow, and docstrings exist.

    OpenVINO reads its options from docstrings, which ``python -OO`` removes.
    """
    import keras

    return str(keras.backend.backend()) == "tensorflow" and sys.flags.optimize < 2


def converted(model: Any) -> Any:
    """Returns the OpenVINO graph of a Keras model with the model's one input and one output. Needs Keras on TensorFlow.

    Raises:
        ArtifactError: The model cannot be converted. The message names the layer at fault if it is known.
    """
    runtime()  # first, because Keras would import OpenVINO with its telemetry
    with contextlib.redirect_stdout(sys.stderr):  # standard output belongs to --json
        graph = _traced_and_converted(model)
    _require_same_ends(graph, model)
    return graph


def convert_elsewhere(saved: Path, graph: Path) -> None:
    """Converts a ``.keras`` file in a child process with Keras on TensorFlow.

    A ``.keras`` file is the same on every backend. OpenVINO cannot read the export of current JAX (one XlaCallModule operation),
    and the export of Keras' OpenVINO backend fixes the batch size to 1.

    Raises:
        ArtifactError: The model cannot be exported, or the other process failed.
    """
    environment = module_environment(
        KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", PYTHONOPTIMIZE=""
    )
    command = module_command("crossroads.networks.export", str(saved), str(graph))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == ArtifactError.exit_code:
        raise ArtifactError(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ArtifactError(
            "the conversion to an inference graph needs TensorFlow, whatever the Keras backend",
            code="conversion-process-failed",
            received=lines[-1][:300] if lines else f"exit code {done.returncode}",
            hint="check that tensorflow is installed",
        )


def weights_digest(model: Any) -> str:
    """Returns the BLAKE2b digest of every weight in order, in hexadecimal. Equal weights have equal digests on any backend."""
    import keras

    hasher = hashlib.blake2b(digest_size=32)
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        hasher.update(f"{value.dtype}{value.shape}".encode())
        hasher.update(value.tobytes())
    return hasher.hexdigest()


def function_digest(model: Any) -> str:
    """Returns the BLAKE2b digest of weights and layers, in hexadecimal. Models with equal digests compute the same function."""
    hasher = hashlib.blake2b(weights_digest(model).encode(), digest_size=32)
    hasher.update(_structure(model))
    return hasher.hexdigest()


def structure_digest(model: Any) -> str:
    """Returns the BLAKE2b digest of the layers without weights, in hexadecimal. Models with equal digests have the same graph."""
    return hashlib.blake2b(_structure(model), digest_size=32).hexdigest()


def _structure(model: Any) -> bytes:
    """Returns the settings and connections of the layers.

    Names of layers are left out because Keras numbers unnamed layers by a counter of the process.
    """
    return json.dumps(_settings(model.get_config()), sort_keys=True, default=repr).encode()


_REFERENCES = ("inbound_nodes", "input_layers", "output_layers")
"""Keys of a model's configuration that refer to layers by name."""


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration of a layer or model without its name. References to layers become positions in the model.

    Other keys called ``name`` stay: that of a dtype policy decides the precision.
    """
    settings = {key: _without_names(value) for key, value in config.items() if key not in ("name", "layers", *_REFERENCES)}
    layers: Any = config.get("layers")
    if not _are_layers(layers):
        rest = {key: _without_names(config[key]) for key in ("layers", *_REFERENCES) if key in config}
        return settings | rest
    places = {layer.get("name", layer["config"].get("name")): place for place, layer in enumerate(layers)}
    settings["layers"] = [
        {key: _without_names(value) for key, value in layer.items() if key not in ("name", "config", "inbound_nodes")}
        | {"config": _settings(layer["config"]), "inbound_nodes": _with_positions(layer.get("inbound_nodes"), places)}
        for layer in layers
    ]
    return settings | {key: _with_positions(config[key], places) for key in _REFERENCES if key in config}


def _without_names(value: Any) -> Any:
    """Removes the names of layers inside a setting, such as the layer of a wrapper."""
    if isinstance(value, dict):
        if isinstance(inner := value.get("config"), dict) and "name" in inner and "trainable" in inner:
            rest = {key: _without_names(entry) for key, entry in value.items() if key not in ("name", "config")}
            return rest | {"config": _settings(inner)}
        return {key: _without_names(entry) for key, entry in value.items()}
    return [_without_names(entry) for entry in value] if isinstance(value, list | tuple) else value


def _are_layers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(it, dict) and isinstance(it.get("config"), dict) for it in value)


def _with_positions(value: Any, places: dict[str, int]) -> Any:
    """Replaces the name in each reference ``[name, node, tensor]`` by the layer's position. Other values stay."""
    if isinstance(value, dict):
        return {key: _with_positions(entry, places) for key, entry in value.items()}
    if not isinstance(value, list | tuple):
        return value
    if len(value) == 3 and isinstance(value[0], str) and all(isinstance(entry, int) for entry in value[1:]):
        return [places.get(value[0], value[0]), *value[1:]]
    return [_with_positions(entry, places) for entry in value]


def _traced_and_converted(model: Any) -> Any:
    """Converts like ``model.export(format="openvino")`` in less than half the time, because nested models are not traced again."""
    import openvino
    import tensorflow as tf

    (images,) = model.inputs
    signature = [tf.TensorSpec(images.shape, images.dtype, images.name)]
    traced: Any = None
    try:
        function = tf.function(lambda x: model(x, training=False), input_signature=signature, autograph=False)
        traced = function.get_concrete_function()
        # By default OpenVINO (2026.4) turns every operation without a consumer into an output. An example is the operation that
        # Keras' SiLU keeps for its gradient. With named outputs it converts only what these depend on.
        with _patched_frontend():
            graph = openvino.convert_model(traced, output=[tensor.name for tensor in traced.outputs])
    except MemoryError:
        raise
    except Exception as error:  # TensorFlow, Keras and OpenVINO raise all kinds
        raise _refusal(error, model, traced) from error
    graph.inputs[0].get_node().set_friendly_name(images.name)
    graph.inputs[0].tensor.set_names({images.name})
    return graph


def _require_same_ends(graph: Any, model: Any) -> None:
    """Raises `ArtifactError` unless the graph has the one input and output of its model, with their types and shapes."""
    ends = [
        [(_DTYPES.get(end.get_element_type().get_type_name()), _keras_shape(end.get_partial_shape())) for end in tensors]
        for tensors in (graph.inputs, graph.outputs)
    ]
    wanted = [[(tensor.dtype, tuple(tensor.shape)) for tensor in tensors] for tensors in (model.inputs, model.outputs)]
    if ends != wanted:
        raise ArtifactError(
            f"the inference graph must have the input and output of its model, {wanted[0]} and {wanted[1]}",
            code="graph-ends-differ",
            received=f"{ends[0]} and {ends[1]}",
            hint="report this with your network and the OpenVINO version",
        )


_DTYPES = {"u8": "uint8", "f32": "float32"}
"""Types of inputs and outputs: OpenVINO's names and Keras'."""


def _keras_shape(shape: Any) -> tuple[int | None, ...] | None:
    """Returns a shape as Keras writes it; None if the number of dimensions is unknown."""
    if shape.rank.is_dynamic:
        return None
    return tuple(side.get_length() if side.is_static else None for side in shape)


_UNCONVERTED = re.compile(r"(?:Conversion is failed for|No conversion rule found for operations): *([\w, ]+)")


def _refusal(error: Exception, model: Any, traced: Any) -> ArtifactError:
    """Returns the error for a model that cannot be traced or converted, with the layer and the operation at fault."""
    operations = {name for names in _UNCONVERTED.findall(str(error)) for name in re.split(r"[, ]+", names.strip()) if name}
    layers = _layers_with(operations, error, model, traced)
    cause = ", ".join(sorted(operations)) or f"{type(error).__name__}: {gist(error)}"[:300]
    return ArtifactError(
        "every layer of a network must convert to an OpenVINO graph",
        code="layer-does-not-convert",
        field="backbone",
        received=f"{cause} in {' and '.join(layers)}" if layers else cause,
        hint="replace this layer" if layers else "build the network from other layers",
    )


_BOLD = re.compile("\x1b\\[1m(.*?)\x1b\\[0m", re.DOTALL)


def gist(error: Exception) -> str:
    """Returns the essential line of an error: Keras' bold text about a failed layer, or OpenVINO's last line."""
    bold = _BOLD.search(str(error))
    lines = [line.strip() for line in (bold[1] if bold else str(error)).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _layers_with(operations: set[str], error: Exception, model: Any, traced: Any) -> list[str]:
    """Returns the layers, at any depth, that contain operations of these types or that the error names by a path."""
    import keras

    paths = _PATH.findall(str(error))
    if traced is not None:
        paths += [operation.name for operation in traced.graph.get_operations() if operation.type in operations]
    kinds = {layer.name: type(layer).__name__ for layer in model._flatten_layers() if not isinstance(layer, keras.Model)}
    names = set()
    for path in paths:
        # TensorFlow numbers the scopes of layers: "flatten_1" is a scope of the layer "flatten".
        scopes = [re.sub(r"_\d+$", "", scope) for scope in path.split("/")]
        names.update([scope for scope in scopes if scope in kinds][-1:])
    return [f"layer {name!r} ({kinds[name]})" for name in sorted(names)]


_PATH = re.compile(r"\w+(?:/\w+)+")
"""The path of an operation in OpenVINO's messages."""


_converting = threading.Lock()


@contextmanager
def _patched_frontend() -> Iterator[None]:
    """Patches OpenVINO's TensorFlow frontend (2026.4 at least) inside the context. Only one conversion runs at a time.

    The frontend runs ``exec("import tensorflow")`` and ``exec("del tensorflow")``. Since PEP 667 (Python 3.13) the second raises
    NameError because it does not see the name that the first one bound. TensorFlow is loaded anyway, so `exec` does nothing here.

    The frontend searches all variables eleven times per variable. With one search, the export of EfficientNet-B0 takes 1.7 s of
    CPU time instead of 2.7 s, and that of B7 (1,088 variables) 9.3 s instead of 17.8 s.
    """
    asker: Any = importlib.import_module("openvino.frontend.tensorflow.utils")
    decoder: Any = importlib.import_module("openvino.frontend.tensorflow.node_decoder").TFGraphNodeDecoder
    slow = decoder.get_variable
    with _converting:
        asker.exec = lambda _: None
        decoder.get_variable = staticmethod(_lookup(slow))
        try:
            yield
        finally:
            del asker.exec
            decoder.get_variable = staticmethod(slow)


def _lookup(slow: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns a cached version of the frontend's lookup from an operation to the value of its variable."""
    known: dict[str, Any] = {}

    def quick(operation: Any) -> Any:
        if operation.name not in known:
            known[operation.name] = slow(operation)
        return known[operation.name]

    return quick


def _main(saved: str, graph: str) -> None:
    """Converts the Keras file `saved`, loaded in safe mode, to `graph` and its ``.bin``."""
    runtime()
    import keras

    from crossroads.networks import hub_layer  # noqa: F401 - makes its class known to Keras

    try:
        to_openvino(keras.saving.load_model(saved, compile=False, safe_mode=True), Path(graph))
    except ArtifactError as error:
        print(json.dumps({"rule": error.rule, "code": error.code, "received": str(error.received), "hint": error.hint}))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    _main(*sys.argv[1:])
