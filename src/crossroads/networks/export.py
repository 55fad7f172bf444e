"""From a Keras model to an OpenVINO graph on the disk, on any Keras backend; and digests that say what a model computes."""

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
    """Writes `graph`, an ``.xml`` file, and its ``.bin`` beside it.

    Args:
        model: A functional Keras model without code of its own.
        graph: Where to write; the folder must be there.

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
    """Whether this process can make a graph: it needs Keras on TensorFlow, and docstrings, from which OpenVINO takes its options.

    ``python -OO`` removes docstrings.
    """
    import keras

    return str(keras.backend.backend()) == "tensorflow" and sys.flags.optimize < 2


def converted(model: Any) -> Any:
    """The OpenVINO graph of a Keras model, in memory: one input and one output, as the model has them. On TensorFlow only.

    Raises:
        ArtifactError: The model cannot be exported. The message names the layer at fault where it is known.
    """
    runtime()  # before Keras imports it, and its telemetry with it
    with contextlib.redirect_stdout(sys.stderr):  # standard output belongs to --json
        found = _traced_and_converted(model)
    _require_same_ends(found, model)
    return found


def convert_elsewhere(saved: Path, graph: Path) -> None:
    """Makes the graph of a ``.keras`` file in a process of its own with Keras on TensorFlow.

    A ``.keras`` file is the same on every backend. OpenVINO cannot read what current JAX exports (one XlaCallModule operation), and
    the export of Keras' own OpenVINO backend fixes the batch to 1.

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
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise ArtifactError(
            "the inference graph is made with Keras on TensorFlow, whatever the backend",
            received=said[-1][:300] if said else f"exit code {done.returncode}",
            hint="check that tensorflow is installed beside the backend",
        )


def weights_digest(model: Any) -> str:
    """BLAKE2b over every weight in order, hexadecimal. Equal weights give equal digests, on any backend."""
    import keras

    hasher = hashlib.blake2b(digest_size=32)
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        hasher.update(f"{value.dtype}{value.shape}".encode())
        hasher.update(value.tobytes())
    return hasher.hexdigest()


def function_digest(model: Any) -> str:
    """BLAKE2b over weights and layers, hexadecimal: two models with equal digests compute the same."""
    hasher = hashlib.blake2b(weights_digest(model).encode(), digest_size=32)
    hasher.update(_structure(model))
    return hasher.hexdigest()


def structure_digest(model: Any) -> str:
    """BLAKE2b over layers without their weights, hexadecimal: two models with equal digests become the same graph."""
    return hashlib.blake2b(_structure(model), digest_size=32).hexdigest()


def _structure(model: Any) -> bytes:
    """The layers of a model: what each is set to and which layers feed it.

    Names of layers are left out, since Keras numbers what has none by a counter of the process.
    """
    return json.dumps(_settings(model.get_config()), sort_keys=True, default=repr).encode()


_REFERENCES = ("inbound_nodes", "input_layers", "output_layers")
"""Where the configuration of a model refers to layers by name."""


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a layer or model without its name; a model's layers are referred to by their place in it.

    Nothing else called ``name`` is left out: that of a dtype policy says what is computed in.
    """
    settings = {key: _without_names(value) for key, value in config.items() if key not in ("name", "layers", *_REFERENCES)}
    layers: Any = config.get("layers")
    if not _are_layers(layers):
        rest = {key: _without_names(config[key]) for key in ("layers", *_REFERENCES) if key in config}
        return settings | rest
    places = {layer.get("name", layer["config"].get("name")): place for place, layer in enumerate(layers)}
    settings["layers"] = [
        {key: _without_names(value) for key, value in layer.items() if key not in ("name", "config", "inbound_nodes")}
        | {"config": _settings(layer["config"]), "inbound_nodes": _placed(layer.get("inbound_nodes"), places)}
        for layer in layers
    ]
    return settings | {key: _placed(config[key], places) for key in _REFERENCES if key in config}


def _without_names(value: Any) -> Any:
    """A setting in which each layer, such as the one that a wrapper wraps, is without its name."""
    if isinstance(value, dict):
        if isinstance(inner := value.get("config"), dict) and "name" in inner and "trainable" in inner:
            rest = {key: _without_names(entry) for key, entry in value.items() if key not in ("name", "config")}
            return rest | {"config": _settings(inner)}
        return {key: _without_names(entry) for key, entry in value.items()}
    return [_without_names(entry) for entry in value] if isinstance(value, list | tuple) else value


def _are_layers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(it, dict) and isinstance(it.get("config"), dict) for it in value)


def _placed(value: Any, places: dict[str, int]) -> Any:
    """References to layers, ``[name, node, tensor]`` wherever they stand, by place; what else is passed to a layer stays."""
    if isinstance(value, dict):
        return {key: _placed(entry, places) for key, entry in value.items()}
    if not isinstance(value, list | tuple):
        return value
    if len(value) == 3 and isinstance(value[0], str) and all(isinstance(entry, int) for entry in value[1:]):
        return [places.get(value[0], value[0]), *value[1:]]
    return [_placed(entry, places) for entry in value]


def _traced_and_converted(model: Any) -> Any:
    """What ``model.export(format="openvino")`` makes, in less than half its time: that traces every nested model by itself too."""
    import openvino
    import tensorflow as tf

    (images,) = model.inputs
    signature = [tf.TensorSpec(images.shape, images.dtype, images.name)]
    traced: Any = None
    try:
        function = tf.function(lambda x: model(x, training=False), input_signature=signature, autograph=False)
        traced = function.get_concrete_function()
        # Left to itself, OpenVINO (2026.4) takes every operation that feeds no other for an output, such as what Keras' SiLU leaves
        # for its gradient. With the outputs named, it converts only what they need.
        with _patched_frontend():
            found = openvino.convert_model(traced, output=[tensor.name for tensor in traced.outputs])
    except MemoryError:
        raise
    except Exception as error:  # TensorFlow, Keras and OpenVINO raise all kinds
        raise _refusal(error, model, traced) from error
    found.inputs[0].get_node().set_friendly_name(images.name)
    found.inputs[0].tensor.set_names({images.name})
    return found


def _require_same_ends(found: Any, model: Any) -> None:
    """Raises `ArtifactError` where a graph has not the one input and the one output of its model, with their types and shapes."""
    ends = [
        [(_DTYPES.get(end.get_element_type().get_type_name()), _sides(end.get_partial_shape())) for end in side]
        for side in (found.inputs, found.outputs)
    ]
    wanted = [[(tensor.dtype, tuple(tensor.shape)) for tensor in side] for side in (model.inputs, model.outputs)]
    if ends != wanted:
        raise ArtifactError(
            f"the inference graph must have the input and the output of its model, {wanted[0]} and {wanted[1]}",
            received=f"{ends[0]} and {ends[1]}",
            hint="report this with your network and the version of openvino",
        )


_DTYPES = {"u8": "uint8", "f32": "float32"}
"""Of what goes in and comes out, as OpenVINO and as Keras spell them."""


def _sides(shape: Any) -> tuple[int | None, ...] | None:
    """A shape as Keras writes it; None where even the number of dimensions is unknown."""
    if shape.rank.is_dynamic:
        return None
    return tuple(side.get_length() if side.is_static else None for side in shape)


_UNCONVERTED = re.compile(r"(?:Conversion is failed for|No conversion rule found for operations): *([\w, ]+)")


def _refusal(error: Exception, model: Any, traced: Any) -> ArtifactError:
    """What a user is told of a model that cannot be traced or converted: which layer, and which operation in it."""
    operations = {name for names in _UNCONVERTED.findall(str(error)) for name in re.split(r"[, ]+", names.strip()) if name}
    layers = _layers_with(operations, error, model, traced)
    said = ", ".join(sorted(operations)) or f"{type(error).__name__}: {gist(error)}"[:300]
    return ArtifactError(
        "every layer of a network must convert to an OpenVINO graph",
        received=f"{said} in {' and '.join(layers)}" if layers else said,
        hint="replace that layer with one that converts" if layers else "build the network from other layers",
    )


_BOLD = re.compile("\x1b\\[1m(.*?)\x1b\\[0m", re.DOTALL)


def gist(error: Exception) -> str:
    """One line of an error: what Keras prints in bold where a layer failed, else the last line, where OpenVINO says why."""
    bold = _BOLD.search(str(error))
    lines = [line.strip() for line in (bold[1] if bold else str(error)).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _layers_with(operations: set[str], error: Exception, model: Any, traced: Any) -> list[str]:
    """The layers of a model, at any depth, from which traced operations of these types come, or that an error names by a path."""
    import keras

    paths = _PATH.findall(str(error))
    if traced is not None:
        paths += [operation.name for operation in traced.graph.get_operations() if operation.type in operations]
    kinds = {layer.name: type(layer).__name__ for layer in model._flatten_layers() if not isinstance(layer, keras.Model)}
    found = set()
    for path in paths:
        # TensorFlow numbers the scope that Keras opens for a layer: "flatten_1" is of the layer "flatten".
        scopes = [re.sub(r"_\d+$", "", scope) for scope in path.split("/")]
        found.update([scope for scope in scopes if scope in kinds][-1:])
    return [f"layer {name!r} ({kinds[name]})" for name in sorted(found)]


_PATH = re.compile(r"\w+(?:/\w+)+")
"""Of an operation, as OpenVINO writes it in a message."""


_converting = threading.Lock()


@contextmanager
def _patched_frontend() -> Iterator[None]:
    """Two changes to OpenVINO's TensorFlow frontend (2026.4 at least), undone at the end. One conversion at a time.

    It asks for TensorFlow's version with ``exec("import tensorflow")`` and ``exec("del tensorflow")``. Since PEP 667 (Python 3.13)
    the second does not see what the first bound, and raises NameError. Neither is needed, TensorFlow being loaded: its `exec` does
    nothing meanwhile.

    It looks for each variable eleven times, each time among all. Where it looks once, the export of EfficientNet-B0 takes 1.7 s of
    processor time in place of 2.7, and that of B7, which has 1,088 variables, 9.3 s in place of 17.8.
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
    """From an operation to the value of the variable that it stands for, or None; each is looked for once."""
    known: dict[str, Any] = {}

    def quick(operation: Any) -> Any:
        if operation.name not in known:
            known[operation.name] = slow(operation)
        return known[operation.name]

    return quick


def _main(saved: str, graph: str) -> None:
    """Writes `graph` and its ``.bin`` from the Keras file `saved`, which is loaded in safe mode."""
    runtime()
    import keras

    try:
        to_openvino(keras.saving.load_model(saved, compile=False, safe_mode=True), Path(graph))
    except ArtifactError as error:
        print(json.dumps({"rule": error.rule, "received": str(error.received), "hint": error.hint}))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    _main(*sys.argv[1:])
