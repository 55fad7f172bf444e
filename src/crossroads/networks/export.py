"""From a Keras model to an OpenVINO graph on the disk, on any Keras backend; and digests that say what a model computes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
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

    runtime()  # before Keras imports it, and its telemetry with it
    if exports_here():
        with contextlib.redirect_stdout(sys.stderr):  # standard output belongs to --json
            _export(model, str(graph))
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


def convert_elsewhere(saved: Path, graph: Path) -> None:
    """Makes the graph of a ``.keras`` file in a process of its own with Keras on TensorFlow.

    A ``.keras`` file is the same on every backend. OpenVINO cannot read what current JAX exports (one XlaCallModule operation), and
    the export of Keras' own OpenVINO backend fixes the batch to 1.

    Raises:
        ArtifactError: The other process failed.
    """
    environment = module_environment(
        KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", PYTHONOPTIMIZE=""
    )
    command = module_command("crossroads.networks.export", str(saved), str(graph))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise ArtifactError(
            "the inference graph is made with Keras on TensorFlow, whatever the backend",
            received=said[-1][:300] if said else f"exit code {done.returncode}",
            mend="check that tensorflow is installed beside the backend",
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
    """BLAKE2b over weights and layers, hexadecimal: two models with equal digests compute the same.

    Names of layers are left out, since Keras numbers what has none by a counter of the process; what each layer is set to and which
    layers feed it is in.
    """
    hasher = hashlib.blake2b(weights_digest(model).encode(), digest_size=32)
    hasher.update(json.dumps(_settings(model.get_config()), sort_keys=True, default=repr).encode())
    return hasher.hexdigest()


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


def _export(model: Any, graph: str) -> None:
    """What ``model.export(format="openvino")`` writes, in less than half its time: that traces every nested model by itself too."""
    import openvino
    import tensorflow as tf

    (images,) = model.inputs
    signature = [tf.TensorSpec(images.shape, images.dtype, images.name)]
    with _without_exec():
        traced = tf.function(lambda x: model(x, training=False), input_signature=signature, autograph=False)
        converted = openvino.convert_model(traced.get_concrete_function())
    converted.inputs[0].get_node().set_friendly_name(images.name)
    converted.inputs[0].tensor.set_names({images.name})
    openvino.serialize(converted, graph)


@contextmanager
def _without_exec() -> Iterator[None]:
    """Lets OpenVINO (2026.4 at least) export on Python 3.13.

    It asks for TensorFlow's version with ``exec("import tensorflow")`` and ``exec("del tensorflow")``. Since PEP 667 the second
    does not see what the first bound, and raises NameError. Neither is needed, TensorFlow being loaded: its `exec` does nothing
    meanwhile.
    """
    asker: Any = importlib.import_module("openvino.frontend.tensorflow.utils")
    with _exporting:
        asker.exec = lambda _: None
        try:
            yield
        finally:
            del asker.exec


_exporting = threading.Lock()


def _main(saved: str, graph: str) -> None:
    """Writes `graph` and its ``.bin`` from the Keras file `saved`, which is loaded in safe mode."""
    runtime()
    import keras

    _export(keras.saving.load_model(saved, compile=False, safe_mode=True), graph)


if __name__ == "__main__":
    _main(*sys.argv[1:])
